"""Kernels of the suite: forked for whoever asks, with the asker's folder and variables, and gone with the asker."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import kernels
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager


def until(fact):
    """Wait for a fact, for a minute."""
    limit = time.monotonic() + 60
    while not fact():
        assert time.monotonic() < limit
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere kernels are not forked")
def test_a_kernel_is_forked_for_its_asker_and_ends_with_it(tmp_path):
    folder = tmp_path / "jupyter"
    kernels.write_spec(folder)
    (folder / "served").mkdir()
    server = subprocess.Popen([sys.executable, kernels.__file__, "serve", folder, "ipykernel.kernelapp", "numpy"])
    until((folder / "socket").exists)
    specs = KernelSpecManager(kernel_dirs=[str(folder / "kernels")], ensure_native_kernel=False)
    manager = KernelManager(kernel_name="python3", kernel_spec_manager=specs)
    manager.start_kernel(cwd=str(tmp_path), env=os.environ | {"ASKED": "yes", "PYTHONPATH": str(tmp_path)})
    client, said = manager.client(), []
    try:
        client.start_channels()
        client.wait_for_ready(timeout=60)
        code = "import os, sys; print(os.getpid(), os.getppid(), os.getcwd(), os.environ['ASKED'], sys.path)"
        client.execute_interactive(code, output_hook=lambda m: said.append(m["content"].get("text", "")), timeout=60)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    process, parent, *rest = "".join(said).split(maxsplit=4)
    assert (int(parent), rest[:2]) == (server.pid, [str(tmp_path), "yes"])
    assert repr(str(tmp_path)) in rest[2] and repr(str(Path(kernels.__file__).parent)) not in rest[2]
    until(lambda: not Path("/proc", process).exists())
    shutil.rmtree(folder)
    assert server.wait(timeout=60) == 0
