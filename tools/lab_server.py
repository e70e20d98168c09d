"""JupyterLab over a folder of notebooks and a browser on it, for tests and measurements.

Nothing of the machine's own Jupyter settings is read or written: they live in a temporary folder.
"""

import contextlib
import functools
import http.server
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = [
    "--no-sandbox",  # as root, in a container, Chromium does not start with its sandbox
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},  # else cells out of sight are not on the page
    "@jupyterlab/docmanager-extension:plugin": {"autosave": False},
}
PATIENCE = 300_000  # milliseconds before a page counts as broken: this machine may be busy with other tests
# All cells are there, and every output that the file holds has been drawn.
IS_OPEN = """() => {
    const panel = window.jupyterapp && window.jupyterapp.shell.currentWidget;
    if (!panel || !panel.context || !panel.context.isReady) return false;
    const code = panel.content.widgets.filter(cell => cell.model.type === 'code' && cell.model.outputs.length);
    return code.length > 0 && code.every(cell => cell.node.querySelector('.jp-OutputArea-output'));
}"""


def browser_path():
    """The path of Chromium or Chrome on this machine, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def free_port():
    """A port of this machine that nobody uses now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def environment(folder, token):
    """Variables that keep JupyterLab away from the learner's own settings and let copied notebooks find the course.

    The token is among them since everybody on the machine may list command lines, but only the user environments.
    Kernels leave one core to the browser: two that compute in step wait for the slower one, and the hand with them.
    """
    places = ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR")
    jupyter = {f"JUPYTER_{place}": str(folder / place.lower()) for place in places}
    lab = {f"JUPYTERLAB_{place}": str(folder / place.lower()) for place in ("SETTINGS_DIR", "WORKSPACES_DIR")}
    python = {"IPYTHONDIR": str(folder / "ipython"), "PYTHONPATH": str(ROOT)}
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 2) - 1))}
    return {**threads, **os.environ, **jupyter, **lab, **python, "JUPYTER_TOKEN": token}


def await_server(url, process, log, seconds=180):
    """Return once the server answers; raise RuntimeError with its log if it ends or stays silent."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError("JupyterLab did not start:\n" + log.read_text())


@dataclass(frozen=True)
class Server:
    """A running JupyterLab: its address, and the temporary folder in which it has the notebooks and all its files."""

    url: str
    folder: Path
    process: subprocess.Popen
    token: str

    def notebook(self, name):
        """The address at which a browser opens a notebook of that file name."""
        return f"{self.url}/lab/tree/{name}?token={self.token}&reset"

    def api(self, resource, body=None):
        """What the server's REST interface answers; to a POST when there is a body."""
        request = urllib.request.Request(
            f"{self.url}/api/{resource}",
            data=json.dumps(body).encode() if body else None,
            headers={"Authorization": f"token {self.token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=300) as reply:
            return json.load(reply)

    @property
    def notebooks(self):
        """The folder of the copied notebooks."""
        return self.folder / "notebooks"


@contextlib.contextmanager
def serve(folder, css="", extra=()):
    """JupyterLab over a copy of the notebooks in `folder`; yields a :class:`Server`.

    css : a style sheet for its page; extra : options of its command line.
    """
    folder = Path(folder)
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns(".*"))
    config = folder / "config_dir"
    for path, text in {
        config / "labconfig" / "default_setting_overrides.json": json.dumps(SETTINGS),
        config / "custom" / "custom.css": css,
    }.items():
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
    port, token = free_port(), secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1"]
    command += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    command += [f"--ServerApp.root_dir={folder / 'notebooks'}", "--LabApp.expose_app_in_browser=True"]
    command += ["--LabApp.custom_css=True", *extra]
    log = folder / "server.log"
    with log.open("w") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink, env=environment(folder, token))
        try:
            await_server(f"http://127.0.0.1:{port}/api/status?token={token}", process, log)
            yield Server(f"http://127.0.0.1:{port}", folder, process, token)
        finally:
            process.terminate()
            process.wait(timeout=PATIENCE / 1000)  # it ends its kernels first


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A file server that does not print its requests between the tests' dots."""

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def served(folder):
    """The address, on 127.0.0.1, at which the files of a folder are served in the meantime."""
    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@contextlib.contextmanager
def chromium(width=1280, height=1000):
    """A page of a headless browser. Raises RuntimeError where the machine has none."""
    from playwright.sync_api import sync_playwright

    path = browser_path()
    if path is None:
        raise RuntimeError(f"no Chromium or Chrome on the PATH (looked for {', '.join(BROWSERS)})")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield browser.new_page(viewport={"width": width, "height": height})
        finally:
            browser.close()


def open_notebook(page, address):
    """Open a notebook and wait until all of its cells and their stored outputs are on the page."""
    page.goto(address, timeout=PATIENCE)
    page.wait_for_function(IS_OPEN, timeout=PATIENCE)
