"""For every test, and for the kernels that nbval starts: no network, no data sets beyond what the repository ships."""

import os
import shutil
import tempfile

NOWHERE = "http://127.0.0.1:9"  # the discard port: a download through this proxy fails at once
_made = []


def pytest_configure(config):
    """Runs before the xdist workers start, and they and the kernels inherit the environment."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        os.environ[name] = NOWHERE
    # Two workers on two cores: with two threads each, they wait for one another at every operation, ten times slower.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = "127.0.0.1,localhost"
    if "COURSE_DATA" not in os.environ:  # set it yourself to run the notebooks on MedNIST
        os.environ["COURSE_DATA"] = tempfile.mkdtemp(prefix="course-data-")
        _made.append(os.environ["COURSE_DATA"])


def pytest_unconfigure(config):
    """Remove the empty data folder, in the process that made it."""
    for folder in _made:
        shutil.rmtree(folder, ignore_errors=True)
