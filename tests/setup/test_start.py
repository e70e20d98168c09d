"""start.py: what it checks, what it says, when it installs. Fakes stand for pip; no network, no installation."""

import ast
import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import start

ROOT = Path(__file__).resolve().parents[2]


def one_sentence(text):
    """True for a message that a learner can take in: one line that ends in a full stop."""
    return text.count("\n") == 0 and text.endswith(".") and len(text) < 260


# Python and disk


def test_an_old_python_can_read_the_file():
    ast.parse((ROOT / "start.py").read_text(encoding="utf-8"), feature_version=(3, 6))


@pytest.mark.parametrize("version", [(3, 6), (3, 8), (3, 9), (3, 15), (4, 0)])
def test_unsuitable_python_is_refused_in_a_sentence(version):
    message = start.python_problem(version, "Linux", "x86_64")
    assert "{}.{}".format(*version) in message
    assert "3.10 to 3.14" in message
    assert one_sentence(message)


@pytest.mark.parametrize("version", [(3, 10), (3, 11), (3, 12), (3, 13), (3, 14)])
def test_suitable_python_is_accepted(version):
    assert start.python_problem(version, "Linux", "x86_64") is None


def test_another_python_on_the_path_is_named(monkeypatch):
    monkeypatch.setattr(start.shutil, "which", lambda name: "/usr/bin/" + name if name == "python3.12" else None)
    assert "'python3.12 start.py'" in start.python_problem((3, 8), "Linux", "x86_64")


def test_intel_macs_are_sent_to_the_browser():
    assert "Colab" in start.python_problem((3, 12), "Darwin", "x86_64")
    assert start.python_problem((3, 12), "Darwin", "arm64") is None


def test_full_disk_is_seen_before_anything_is_made():
    message = start.disk_problem(int(0.3e9))
    assert "3 GB" in message
    assert "0.3 GB" in message
    assert one_sentence(message)
    assert start.disk_problem(int(50e9)) is None


@pytest.mark.parametrize(
    ("asked", "system", "nvidia", "answers", "build", "words"),
    [
        (None, "Linux", False, True, "cpu", "--cuda takes the large one"),
        (None, "Linux", False, False, "index", "does not answer"),
        (None, "Linux", True, None, "index", ""),
        ("cuda", "Linux", False, None, "index", ""),
        ("cpu", "Linux", True, None, "cpu", ""),
        (None, "Windows", False, None, "index", ""),
        ("cpu", "Darwin", False, None, "index", ""),
    ],
)
def test_the_build_of_pytorch_suits_the_machine_unless_asked(asked, system, nvidia, answers, build, words):
    """The server is asked only where it matters: None stands for a call that would fail the test."""
    chosen, why = start.torch_build(asked, system, nvidia, lambda: bool(answers) if answers is not None else 1 / 0)
    assert chosen == build
    assert words in why and bool(words) == bool(why)
    assert not why or one_sentence(why)


def test_a_server_answers_within_seconds_or_does_not(tmp_path):
    (tmp_path / "index.html").write_text("here")
    assert start.answers((tmp_path / "index.html").as_uri(), 1)
    with socket.socket() as deaf:  # takes the call and says nothing
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        address = f"http://127.0.0.1:{deaf.getsockname()[1]}/"
        before = time.perf_counter()
        assert not start.answers(address, 0.3)
        assert time.perf_counter() - before < 3
    assert not start.answers(address, 1)  # nobody there
    assert not start.answers("nowhere", 1)


# Paths, stamp and plan


def test_python_of_the_environment_on_every_system():
    assert start.venv_python("/course/.venv", windows=False) == "/course/.venv/bin/python"
    assert start.venv_python(r"C:\course\.venv", windows=True) == r"C:\course\.venv\Scripts\python.exe"


def test_fingerprint_follows_content_and_not_line_ends(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"torch==1\nmonai==2\n")
    two.write_bytes(b"torch==1\r\nmonai==2\r\n")
    assert start.fingerprint([one]) == start.fingerprint([two])
    two.write_bytes(b"torch==1\nmonai==3\n")
    assert start.fingerprint([one]) != start.fingerprint([two])
    assert start.fingerprint([one, two]) != start.fingerprint([two, one])


@pytest.mark.parametrize(
    ("stamp", "python_exists", "expected"),
    [
        (("3.11 /course", "same"), True, "nothing"),
        (("3.11 /course", "older"), True, "update"),
        (("3.10 /course", "same"), True, "make"),  # another Python
        (("3.11 /elsewhere", "same"), True, "make"),  # the folder was moved
        (("3.11 /course", "same"), False, "make"),  # .venv lost its Python
        (None, True, "make"),  # cut off half-way
        (None, False, "make"),
    ],
)
def test_plan(stamp, python_exists, expected):
    assert start.plan(stamp, "3.11 /course", "same", python_exists) == expected


@pytest.mark.parametrize("content", ["", "one line without an end"])
def test_a_cut_off_stamp_counts_as_none(tmp_path, content):
    (tmp_path / "stamp").write_text(content)
    assert start.read_stamp(tmp_path / "stamp") is None
    assert start.read_stamp(tmp_path / "absent") is None


def test_installed_torch_is_read_from_the_folder_names(tmp_path):
    assert start.installed_torch(tmp_path) is None
    (tmp_path / "lib" / "python3.11" / "site-packages" / "torch-2.13.0+cpu.dist-info").mkdir(parents=True)
    assert start.installed_torch(tmp_path) == "2.13.0+cpu"
    assert start.is_other_build("cuda", "Linux", "2.13.0+cpu") and start.is_other_build("cpu", "Linux", "2.13.0")
    assert start.is_other_build("cpu", "Linux", None) and not start.is_other_build("cuda", "Linux", None)
    assert not start.is_other_build("cpu", "Linux", "2.13.0+cpu") and not start.is_other_build(
        "cpu", "Darwin", "2.13.0"
    )
    assert not any(start.is_other_build(None, "Linux", version) for version in ("2.13.0", "2.13.0+cpu", None))


# What pip's failures become

MISSING = (
    "ERROR: Could not find a version that satisfies the requirement torch==2.13.0 (from versions: 2.11.0, 2.12.0)\n"
    "ERROR: No matching distribution found for torch==2.13.0\n"
)
PIP_FAILURES = {
    "network": (
        "Collecting torch==2.13.0\n  WARNING: Retrying (Retry(total=0)) after connection broken by "
        "'NewConnectionError('<HTTPSConnection>: Failed to establish: [Errno -3] Temporary failure in "
        "name resolution')': /simple/torch/\n"
        "ERROR: Could not find a version that satisfies the requirement torch==2.13.0 (from versions: none)\n"
        "ERROR: No matching distribution found for torch==2.13.0\n",
        ["torch==2.13.0", "network", "HTTPS_PROXY"],
    ),
    "disk": (
        "Collecting monai==1.6.1\nInstalling collected packages: monai\n"
        "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n",
        ["disk is full", "3 GB"],
    ),
    "disk on Windows": (
        "ERROR: Could not install packages due to an OSError: [WinError 112] There is not enough space on the disk\n",
        ["disk is full"],
    ),
    "no build for this machine": (
        "Looking in indexes: https://mirror.example/simple\n"
        "  Skipping link: none of the wheel's tags (cp39-cp39-win32) are compatible (run pip debug --verbose to show "
        "compatible tags): https://mirror.example/simple/torch/torch-2.13.0-cp39-cp39-win32.whl\n" + MISSING,
        ["no build of torch==2.13.0", "64-bit"],
    ),
    "another Python": (
        "ERROR: Ignored the following versions that require a different python version: 2.12.0 Requires-Python >=3.15; "
        "2.13.0 Requires-Python >=3.15\n" + MISSING,
        ["no build of torch==2.13.0", "Python 3"],
    ),
    "another Python, in pip's long words": (
        "  Link requires a different Python (3.11.7 not in: '>=3.15'): https://mirror.example/simple/torch/"
        "torch-2.13.0-py3-none-any.whl (requires-python:>=3.15)\n" + MISSING,
        ["no build of torch==2.13.0", "Python 3"],
    ),
    "a mirror that lacks the version": (
        "Looking in indexes: https://mirror.example/simple\n"
        "  Skipping link: none of the wheel's tags (cp39-cp39-win32) are compatible (run pip debug --verbose to show "
        "compatible tags): https://mirror.example/simple/torch/torch-2.12.0-cp39-cp39-win32.whl\n" + MISSING,
        ["https://mirror.example/simple has no torch==2.13.0", "PIP_INDEX_URL"],
    ),
    "two mirrors that lack the version": (
        "Looking in indexes: https://one.example/simple, https://two.example/simple\n" + MISSING,
        ["https://one.example/simple, https://two.example/simple has no torch==2.13.0", "PIP_INDEX_URL"],
    ),
    "PyPI itself lacks the version": (MISSING, ["PyPI has no torch==2.13.0", "newer copy of the course"]),
    "a mirror that has other versions for other Pythons": (
        "Looking in indexes: https://mirror.example/simple\n"
        "ERROR: Ignored the following versions that require a different python version: 2.1 Requires-Python <3.9; "
        "12.13.0 Requires-Python >=3.15\n" + MISSING,
        ["https://mirror.example/simple has no torch==2.13.0"],
    ),
    "no CPU build": (
        "Looking in indexes: https://download.pytorch.org/whl/cpu\n"
        "ERROR: Could not find a version that satisfies the requirement torch==2.13.0+cpu (from versions: none)\n"
        "ERROR: No matching distribution found for torch==2.13.0+cpu\n",
        ["https://download.pytorch.org/whl/cpu has no torch==2.13.0+cpu", "with --cuda"],
    ),
    "a mirror out of order": (
        "Looking in indexes: https://mirror.example/simple\n"
        "  Could not fetch URL https://mirror.example/simple/torch/: 503 Server Error: Service Unavailable for url: "
        "https://mirror.example/simple/torch/ - skipping\n" + MISSING,
        ["could not be reached"],
    ),
    "a mirror that wants a password": (
        "Looking in indexes: https://mirror.example/simple\n"
        "  Could not fetch URL https://mirror.example/simple/torch/: 403 Client Error: Forbidden for url: "
        "https://mirror.example/simple/torch/ - skipping\n" + MISSING,
        ["https://mirror.example/simple", "refused"],
    ),
    "certificate": (
        "Collecting numpy==2.4.6\n  SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate "
        "verify failed'))\nERROR: No matching distribution found for numpy==2.4.6\n",
        ["numpy==2.4.6", "PIP_CERT"],
    ),
    "long path": (
        "ERROR: Could not install packages due to an OSError: [Errno 2] No such file: 'C:\\\\x'\nHINT: This "
        "error might have occurred since this system does not have Windows Long Path support enabled.\n",
        ["long path"],
    ),
    "in use": (
        "Collecting pillow==13.0.0\nERROR: Could not install packages due to an OSError: [WinError 5]\n",
        ["close any JupyterLab"],
    ),
    "anything else": ("Collecting einops==0.8.2\nERROR: something new\n", ["einops==0.8.2", "pip.log"]),
}


@pytest.mark.parametrize("name", PIP_FAILURES)
def test_pip_failure_names_package_and_remedy(name):
    log, expected = PIP_FAILURES[name]
    message = start.explain_pip_failure(log)
    for words in expected:
        assert words in message
    assert one_sentence(message)


def test_missing_ensurepip_names_the_debian_package():
    message = start.explain_venv_failure(
        "The virtual environment was not created: ensurepip is not available.", (3, 11)
    )
    assert "python3.11-venv" in message
    assert one_sentence(message)


def test_a_failing_pip_is_logged_and_raised(tmp_path):
    fake = tmp_path / "fake.py"
    fake.write_text("print('Collecting torch==9'); print('[Errno 28] No space left on device'); raise SystemExit(1)")
    real = subprocess.Popen

    def popen(command, **options):
        return real([sys.executable, str(fake)], **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start.subprocess, "Popen", popen)
        with pytest.raises(start.SetupError, match="disk is full"):
            start.run_pip("python", ["torch==9"], str(tmp_path / "pip.log"))
    assert "Collecting torch==9" in (tmp_path / "pip.log").read_text()


# A real pip and a mirror on this machine


class Mirror(http.server.BaseHTTPRequestHandler):
    """A package index that holds version 1.0 of a package for all, 2.0 for another system, 3.0 for another Python."""

    FILES = ("kit-1.0-py3-none-any.whl", "kit-2.0-cp39-cp39-win32.whl", "kit-3.0-py3-none-any.whl")

    def do_GET(self):
        demands = {"kit-3.0-py3-none-any.whl": ' data-requires-python="&gt;=4"'}
        links = [f'<a href="{name}"{demands.get(name, "")}>{name}</a>' for name in self.FILES]
        body = ("<!DOCTYPE html><html><body>" + "".join(links) + "</body></html>").encode()
        self.send_response(200 if self.path == "/simple/kit/" else 404)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def mirror():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/simple"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("package", "words"),
    [("kit==4.0", "has no kit==4.0"), ("kit==2.0", "no build of kit==2.0"), ("kit==3.0", "no build of kit==3.0")],
    ids=["not on the mirror", "for another system", "for another Python"],
)
def test_what_a_real_pip_cannot_find_is_blamed_on_the_right_one(package, words, mirror, tmp_path, monkeypatch):
    wanted = tmp_path / "list.txt"
    wanted.write_text(package + "\n")
    monkeypatch.setenv("PIP_INDEX_URL", mirror)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(start.SetupError) as told:
        start.run_pip(
            sys.executable, ["--only-binary", ":all:", "-r", str(tmp_path / "list.txt")], str(tmp_path / "log")
        )
    assert words in str(told.value)
    assert (mirror in str(told.value)) == (package == "kit==4.0")
    assert one_sentence(str(told.value))


# The whole set-up with a fake pip and a fake venv


@pytest.fixture
def course(tmp_path, monkeypatch):
    """An empty course folder whose pip and venv only write down that they were called."""
    (tmp_path / "requirements.txt").write_text("torch==2.13.0\n")
    (tmp_path / "pyproject.toml").write_text("")
    for name, path in {
        "ROOT": tmp_path,
        "VENV": tmp_path / ".venv",
        "STAMP": tmp_path / ".venv" / "course-stamp",
        "PIP_LOG": tmp_path / "pip.log",
        "REQUIREMENTS": tmp_path / "requirements.txt",
    }.items():
        monkeypatch.setattr(start, name, str(path))
    calls = []

    def make_venv(venv):
        python = Path(start.venv_python(venv, start.os.name == "nt"))
        python.parent.mkdir(parents=True, exist_ok=True)
        python.touch()
        calls.append("venv")

    monkeypatch.setattr(start, "make_venv", make_venv)
    monkeypatch.setattr(start, "run_pip", lambda python, arguments, log: calls.append(" ".join(arguments)))
    monkeypatch.setattr(start.platform, "system", lambda: "Linux")
    monkeypatch.setattr(start, "answers", lambda: False)
    return calls


def test_first_run_installs_and_second_does_nothing(course, capsys):
    start.set_up()
    assert course[0] == "venv"
    assert "-r" in course[1]
    assert "-e" in course[2]
    assert not any(start.CPU_INDEX in call for call in course)
    course.clear()
    capsys.readouterr()
    start.set_up()
    assert course == []
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["Łukasz", "J\udcf6rg"], ids=["a letter", "a byte that is no letter"])
def test_a_folder_whose_name_the_locale_cannot_write_is_set_up_once(name, course, monkeypatch):
    """Windows writes files in a code page that lacks most letters; here it is ASCII that does."""

    def in_ascii(path, mode="r", encoding="ascii", **options):
        return open(path, mode, encoding=None if "b" in mode else encoding, **options)

    monkeypatch.setattr(start, "open", in_ascii, raising=False)
    monkeypatch.setattr(start, "ROOT", name)  # a folder that need not be there for what follows
    monkeypatch.setattr(start, "fingerprint", lambda paths: "same")
    monkeypatch.setattr(start.shutil, "disk_usage", lambda path: SimpleNamespace(free=10**12))
    start.set_up()
    course.clear()
    start.set_up()
    assert course == []


def test_cpu_build_comes_from_its_own_index(course):
    start.set_up("cpu")
    assert start.CPU_INDEX in course[1]
    assert "torch==2.13.0+cpu" in course[1]


def test_without_a_gpu_the_cpu_build_comes_by_itself_where_its_server_answers(course, monkeypatch, capsys):
    monkeypatch.setattr(start, "answers", lambda: True)
    monkeypatch.setattr(start.shutil, "which", lambda name: None)
    start.set_up()
    assert start.CPU_INDEX in course[1]
    assert "small CPU build (--cuda" in capsys.readouterr().out


def test_a_cpu_build_that_nobody_asked_for_and_that_is_missing_stops_nothing(course, monkeypatch, capsys):
    def run_pip(python, arguments, log):
        if start.CPU_INDEX in arguments:
            raise start.SetupError("no such build.")
        course.append(" ".join(arguments))

    monkeypatch.setattr(start, "run_pip", run_pip)
    monkeypatch.setattr(start, "answers", lambda: True)
    monkeypatch.setattr(start.shutil, "which", lambda name: None)
    start.set_up()
    assert "-r" in course[1]
    assert "pip takes what its package index has" in capsys.readouterr().out
    with pytest.raises(start.SetupError, match="no such build"):
        start.set_up("cpu")


def test_the_other_build_takes_the_place_of_the_first(course, monkeypatch):
    start.set_up()
    course.clear()
    start.set_up("cuda")
    assert course == []  # it was no CPU build
    monkeypatch.setattr(start, "installed_torch", lambda venv: "2.13.0+cpu")
    start.set_up("cuda")
    assert course[0] == "--force-reinstall --no-deps torch==2.13.0"


def new_pins(folder):
    """Another list of packages, as a newer copy of the course has it."""
    (folder / "requirements.txt").write_text("torch==2.14.0\n")


@pytest.mark.parametrize("asked_late", [False, True], ids=["at the first start", "when all was installed"])
def test_a_build_that_was_asked_for_comes_at_a_later_update_too(asked_late, course, tmp_path, monkeypatch):
    """On a machine without a GPU, where the update would take the CPU build by itself."""
    start.set_up(None if asked_late else "cuda")
    start.set_up("cuda")
    monkeypatch.setattr(start, "answers", lambda: True)
    monkeypatch.setattr(start.shutil, "which", lambda name: None)
    new_pins(tmp_path)
    course.clear()
    start.set_up()
    assert "-r" in course[0]
    assert not any(start.CPU_INDEX in call for call in course)


def cut_off(monkeypatch, build=None):
    """A set-up without a network."""

    def fail(python, arguments, log):
        raise start.SetupError("no network.")

    with monkeypatch.context() as patch:
        patch.setattr(start, "run_pip", fail)
        with pytest.raises(start.SetupError):
            start.set_up(build)


def test_the_cpu_build_that_was_asked_for_comes_at_a_later_update_too(course, tmp_path, monkeypatch):
    """On a machine with a GPU, where the update would take the large build by itself; the last word counts."""
    monkeypatch.setattr(start.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    start.set_up("cuda")
    start.set_up("cpu")
    monkeypatch.setattr(start, "installed_torch", lambda venv: "2.13.0+cpu")
    new_pins(tmp_path)
    course.clear()
    start.set_up()
    assert start.CPU_INDEX in course[0]
    assert "torch==2.14.0+cpu" in course[0]


def test_a_set_up_that_was_cut_off_goes_on_with_the_build_that_was_asked_for(course, monkeypatch):
    cut_off(monkeypatch, "cpu")
    course.clear()
    start.set_up()
    assert course[0] == "venv"
    assert start.CPU_INDEX in course[1]


def test_without_a_wish_every_update_chooses_anew(course, tmp_path, monkeypatch):
    start.set_up()
    monkeypatch.setattr(start, "answers", lambda: True)
    monkeypatch.setattr(start.shutil, "which", lambda name: None)
    new_pins(tmp_path)
    course.clear()
    start.set_up()
    assert start.CPU_INDEX in course[0]


def test_changed_pins_update_in_place(course, tmp_path):
    start.set_up()
    course.clear()
    (tmp_path / "requirements.txt").write_text("torch==2.14.0\n")
    start.set_up()
    assert "venv" not in course
    assert "-r" in course[0]


def test_a_set_up_that_was_cut_off_is_made_anew(course, monkeypatch):
    cut_off(monkeypatch)
    course.clear()
    start.set_up()
    assert course[0] == "venv"


# What the course did not make, it does not clear

MINE = {"pyvenv.cfg": "home = /usr/bin\n", "notes/thesis.txt": "three years of work"}


def place(folder, files=None):
    """Files in a folder."""
    for name, text in (MINE if files is None else files).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def held(folder):
    """The files in a folder."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_text() for path in found}


def refused(words):
    """start.py refuses to make .venv, in one sentence."""
    with pytest.raises(start.SetupError) as told:
        start.set_up()
    assert one_sentence(str(told.value).replace(start.ROOT, "/course"))
    for word in words:
        assert word in str(told.value)


@pytest.mark.parametrize("stamp", [None, "3.1 /elsewhere\nolder\n"], ids=["of another", "once the course's"])
def test_a_link_is_not_followed_to_be_cleared(stamp, course, tmp_path):
    target = tmp_path / "elsewhere"
    place(target, MINE if stamp is None else {**MINE, "course-stamp": stamp})
    before = held(target)
    (tmp_path / ".venv").symlink_to(target, target_is_directory=True)
    refused(["link", str(target), "remove the link"])
    assert held(target) == before
    assert (tmp_path / ".venv").is_symlink()
    assert course == []


@pytest.mark.parametrize("target", ["nowhere", ".venv"])
def test_a_link_to_nothing_is_named(target, course, tmp_path):
    (tmp_path / ".venv").symlink_to(target)
    refused(["link", "remove the link"])
    assert (tmp_path / ".venv").is_symlink()


@pytest.mark.parametrize("files", [MINE, {"thesis.txt": "x"}, {".hidden": ""}], ids=["venv", "files", "a hidden file"])
def test_a_folder_that_the_course_did_not_make_stays(files, course, tmp_path):
    place(tmp_path / ".venv", files)
    refused([".venv", "not made by", "move or delete"])
    assert held(tmp_path / ".venv") == files
    assert course == []


def test_a_file_of_that_name_stays(course, tmp_path):
    (tmp_path / ".venv").write_text("mine")
    refused([".venv", "not made by", "move or delete"])
    assert (tmp_path / ".venv").read_text() == "mine"


def test_an_empty_folder_is_taken(course, tmp_path):
    (tmp_path / ".venv").mkdir()
    start.set_up()
    assert course[0] == "venv"


def test_what_the_course_made_is_made_anew(course, tmp_path):
    """Another Python, a moved folder: the stamp is the course's own, so the environment is."""
    start.set_up()
    place(tmp_path / ".venv", {"lib/old.py": "old"})
    (tmp_path / ".venv" / "course-stamp").write_text("3.1 /elsewhere\nolder\n")
    course.clear()
    start.set_up()
    assert course[0] == "venv"
    assert not (tmp_path / ".venv" / "lib" / "old.py").exists()


def test_links_within_are_cut_and_not_followed(course, tmp_path):
    place(tmp_path / "elsewhere")
    start.set_up()
    (tmp_path / ".venv" / "course-stamp").unlink()
    (tmp_path / ".venv" / "lib64").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    start.set_up()
    assert held(tmp_path / "elsewhere") == MINE
    assert not (tmp_path / ".venv" / "lib64").exists()


@pytest.mark.parametrize("step", ["make_venv", "run_pip", "clear"])
def test_a_set_up_stopped_at_any_step_goes_on_next_time(step, course, tmp_path, monkeypatch):
    start.set_up()
    (tmp_path / ".venv" / "course-stamp").write_text("3.1 /elsewhere\nolder\n")

    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(start, step, stop)
        with pytest.raises(KeyboardInterrupt):
            start.set_up()
    course.clear()
    start.set_up()
    assert course[0] == "venv"


def test_an_environment_of_an_older_start_is_still_the_courses_when_its_update_stops(course, tmp_path, monkeypatch):
    """It has the stamp and no mark; the update takes the stamp away before it begins."""
    start.set_up()
    (tmp_path / ".venv" / start.MARK).unlink()
    (tmp_path / "requirements.txt").write_text("torch==2.14.0\n")

    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(start, "run_pip", stop)
        with pytest.raises(KeyboardInterrupt):
            start.set_up()
    start.set_up()
    assert course[-3] == "venv"


def test_a_real_environment_is_made_beside_the_mark(tmp_path):
    venv = tmp_path / ".venv"
    place(venv, {start.MARK: "", "old.txt": "old"})
    start.clear(str(venv))
    start.make_venv(str(venv))
    assert Path(start.venv_python(str(venv), os.name == "nt")).exists()
    assert (venv / start.MARK).exists()
    assert not (venv / "old.txt").exists()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (start.SetupError("pip stopped."), "pip stopped"),
        (PermissionError(13, "Permission denied"), "Permission denied"),
        (OSError(28, "No space left on device"), "The disk is full"),
    ],
)
def test_main_prints_a_sentence_and_never_a_traceback(monkeypatch, capsys, error, words):
    def fail(asked):
        raise error

    monkeypatch.setattr(start, "set_up", fail)
    assert start.main(["lab"]) == 1
    printed = capsys.readouterr().err.strip()
    assert words in printed
    assert one_sentence(printed)


def test_commands_pass_on_what_follows():
    options, extra = start.parse(["test", "-k", "samplers", "tests/test_x.py"])
    assert options.command == "test"
    assert start.test_command("python", extra)[-3:] == ["-k", "samplers", "tests/test_x.py"]
    assert "--nbval-lax" in start.test_command("python", [])
    assert start.lab_command("python", ["--no-browser"], root_user=False)[-1] == "--no-browser"
    assert "--allow-root" in start.lab_command("python", [], root_user=True)
    assert start.site_command("python", ["-q"])[-3:] == ["-q", start.ROOT, start.SITE]


def test_live_mode_is_another_command_and_gets_the_rest(monkeypatch):
    commands = []
    monkeypatch.setattr(start, "set_up", lambda asked: "python")
    monkeypatch.setattr(start, "run", commands.append)
    start.main(["lab", "--live", "--part", "3", "--no-browser"])
    start.main(["lab", "--no-browser"])
    assert commands[0] == ["python", start.os.path.join(start.ROOT, "tools", "live.py"), "--part", "3", "--no-browser"]
    assert "jupyterlab" in commands[1]


def test_help_starts_in_well_under_a_second():
    before = time.perf_counter()
    subprocess.run([sys.executable, str(ROOT / "start.py"), "--help"], check=True, capture_output=True)
    assert time.perf_counter() - before < 1
