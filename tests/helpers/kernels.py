"""Kernels that are forked from one process, which has imported the packages that every notebook imports.

A fresh kernel spends four seconds of a core on importing PyTorch, MONAI and nilearn, and the suite starts thirty. The
course itself is not among what is imported before. `write_spec` makes such kernels those of the name python3; then

    python kernels.py start FOLDER CONNECTION_FILE   is what Jupyter starts, and lives as long as its kernel
    python kernels.py serve FOLDER PACKAGE ...       is what it forks from, started by the first that finds it missing

Until that has imported everything, kernels are started as Jupyter starts them.
"""

import contextlib
import importlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

PACKAGES = ["ipykernel.kernelapp", "ipywidgets", "matplotlib.pyplot", "monai.networks.nets", "nilearn.datasets"]


def write_spec(folder):
    """Write the specification below a folder of Jupyter's, which is to be removed at the end. They fork on Linux."""
    plain = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    forked = [sys.executable, __file__, "start", str(folder), "{connection_file}"]
    spec = {"argv": forked if sys.platform == "linux" else plain, "display_name": "Python 3", "language": "python"}
    place = Path(folder) / "kernels" / "python3"
    place.mkdir(parents=True)
    (place / "kernel.json").write_text(json.dumps(spec | {"interrupt_mode": "message"}), encoding="utf-8")


def start(folder, connection_file):
    """Ask for a kernel and wait for its end, or become one."""
    with contextlib.suppress(FileExistsError):
        (folder / "served").mkdir()
        subprocess.Popen([sys.executable, __file__, "serve", str(folder), *PACKAGES], start_new_session=True)
    wanted = {"file": connection_file, "folder": os.getcwd(), "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX) as kernel:
        if kernel.connect_ex(str(folder / "socket")):
            os.execv(sys.executable, [sys.executable, "-m", "ipykernel_launcher", "-f", connection_file])
        kernel.sendall(json.dumps(wanted).encode() + b"\n")
        while kernel.recv(1):
            pass


def serve(folder, *packages):
    """Import the packages, then fork a kernel for everyone who connects, as long as the folder is there and, should
    nobody have removed it, until half an hour has passed without one."""
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # as a kernel has it
    for name in packages:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # a kernel that has ended leaves nothing behind
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket"))
        server.listen(16)
        server.settimeout(2)
        last = time.monotonic()
        while folder.exists() and time.monotonic() - last < 1800:
            with contextlib.suppress(TimeoutError):
                connection, _ = server.accept()
                last = time.monotonic()
                if os.fork() == 0:
                    server.close()
                    run_kernel(connection)
                connection.close()


def run_kernel(connection):
    """Become the kernel that the other end of the connection wants, and end with it."""
    os.setsid()  # what the kernel interrupts or ends is its own group alone
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    connection.setblocking(True)
    wanted = json.loads(connection.makefile().readline())
    os.chdir(wanted["folder"])
    os.environ.clear()
    os.environ.update(wanted["environment"])
    own = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:1] = [path for path in own if path and path not in sys.path]
    random.seed()
    sys.modules["numpy"].random.seed()
    threading.Thread(target=lambda: connection.recv(1) or os._exit(1), daemon=True).start()
    sys.argv = ["ipykernel_launcher", "-f", wanted["file"]]
    try:
        sys.modules["ipykernel.kernelapp"].launch_new_instance()
    finally:
        os._exit(0)


if __name__ == "__main__":
    command, folder, *rest = sys.argv[1:]
    {"start": start, "serve": serve}[command](Path(folder), *rest)
