"""What several tests of the course share: one Chromium, and the web site built once."""

import os
import subprocess
import sys
import time
from pathlib import Path

import lab_server
import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def chromium():
    """Chromium or Chrome of this machine, started; without one: skip, in continuous integration (CI=true) fail."""
    path = lab_server.browser_path()
    if path is None:
        message = f"no Chromium or Chrome on the PATH (looked for {', '.join(lab_server.BROWSERS)})"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=lab_server.FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium):
    """A new page of the browser."""
    tab = chromium.new_page(viewport={"width": 1280, "height": 1000})
    tab.set_default_timeout(30_000)
    yield tab
    tab.close()


class Site:
    """The built web site: its folder, its address on this machine, and what the build took and said."""

    def __init__(self, folder, address, seconds, processor_seconds, log):
        self.folder, self.address, self.log = folder, address, log
        self.seconds, self.processor_seconds = seconds, processor_seconds

    def pages(self):
        """The addresses of its pages, below its own."""
        paths = (path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*.html"))
        return sorted(path for path in paths if not path.startswith("_"))


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The web site as `start.py site` builds it, but into a temporary folder; served on 127.0.0.1."""
    import start

    folder = tmp_path_factory.mktemp("site")
    command = start.site_command(sys.executable, ["--quiet"], str(folder / "html"), str(folder / "doctrees"))
    wall, before = time.perf_counter(), os.times()
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    wall, after = time.perf_counter() - wall, os.times()
    assert built.returncode == 0, built.stderr
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    with lab_server.served(folder / "html") as address:
        yield Site(folder / "html", address, wall, processor, built.stdout + built.stderr)
