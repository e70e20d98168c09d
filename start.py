#!/usr/bin/env python3
"""Set the course up and start it: the only command that a learner has to type.

    python3 start.py lab          make .venv, install everything, open JupyterLab on the first notebook
    python3 start.py lab --live   the same for a class: everything warm, large type, the first demo ready
    python3 start.py test         the same set-up, then the whole test suite
    python3 start.py site         the same set-up, then the web site into build/site
    python3 start.py phone ADDRESS    a part of that site for the phones of a room, served from this machine's ADDRESS

Standard library only, and no syntax newer than Python 3.6, so that an old Python prints a sentence, not a SyntaxError.
What is installed stands in requirements.txt; a stamp in .venv remembers what was done: a second start installs nothing.
"""

import argparse
import errno
import hashlib
import itertools
import ntpath
import os
import platform
import posixpath
import re
import shutil
import subprocess
import sys
import urllib.request

ROOT = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.join(ROOT, ".venv")
STAMP = os.path.join(VENV, "course-stamp")
# A file in .venv from the first moment on: what has neither it nor a stamp was made by others. In it stands the build
# of PyTorch that was asked for, "cpu" or "cuda", or nothing.
MARK = "course-made"
PIP_LOG = os.path.join(ROOT, "pip.log")
REQUIREMENTS = os.path.join(ROOT, "requirements.txt")
FIRST_NOTEBOOK = os.path.join(ROOT, "notebooks", "00_start_here.ipynb")
SITE = os.path.join(ROOT, "build", "site")

OLDEST, NEWEST = (3, 10), (3, 14)  # the pinned list has wheels for these on Linux, Windows and macOS
SUPPORTED = "Python {}.{} to {}.{}".format(*(OLDEST + NEWEST))
DISK_NEEDED = 3 * 10**9  # bytes, with what pip keeps; a CUDA build of PyTorch needs several times as much
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
ANSWER_SECONDS = 5

# nbval runs every notebook in a fresh kernel; loadscope keeps the cells of one notebook on one worker, in order.
PYTEST_FLAGS = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=300", "-n", "2", "--dist", "loadscope"]


class SetupError(Exception):
    """Something the learner can mend; the message says what and how, in one sentence."""


# What is checked before anything is made ---------------------------------------------------------------------------


def python_problem(version, system, machine):
    """Why this Python cannot run the course, or None."""
    found, wanted = "{}.{}".format(*version), SUPPORTED
    if not OLDEST <= tuple(version[:2]) <= NEWEST:
        other = newest_suitable_python()
        remedy = f"run '{other} start.py' instead" if other else "install one from https://www.python.org"
        return f"This is Python {found}, and the course needs {wanted}: {remedy}."
    if system == "Darwin" and machine == "x86_64":
        return (
            "PyTorch is no longer built for Macs with an Intel processor (or for an Intel Python on Apple silicon): "
            "use an arm64 Python, or open the course on Colab or Binder by the badges in README.md."
        )
    return None


def newest_suitable_python():
    """The name of a suitable Python on the PATH, or None."""
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        name = f"python3.{minor}"
        if shutil.which(name):
            return name
    return None


def disk_problem(free, needed=DISK_NEEDED):
    """Why the disk is too full, or None."""
    if free >= needed:
        return None
    needed, free = f"{needed / 1e9:.0f} GB", f"{free / 1e9:.1f} GB"
    return f"The set-up needs about {needed} and this disk has {free} free: make room, then run it again."


def torch_build(asked, system, has_nvidia, answers):
    """Which PyTorch is installed, "cpu" or "index" (what the package index gives), and why, in a sentence or "".

    asked : "cpu", "cuda" or None; answers() : whether the server of the CPU builds can be reached.
    """
    if system != "Linux" or asked == "cuda":  # elsewhere the package index has the CPU build already
        return "index", ""
    if asked == "cpu":
        return "cpu", ""
    if has_nvidia:
        return "index", ""
    if answers():
        return "cpu", "No NVIDIA GPU found: PyTorch comes in its small CPU build (--cuda takes the large one)."
    return "index", (
        "No NVIDIA GPU found, but the server of PyTorch's small CPU build does not answer: pip takes what its package "
        "index has, which may bring several GB of CUDA."
    )


def answers(address=CPU_INDEX + "/torch/", seconds=ANSWER_SECONDS):
    """Whether a server gives that page within seconds."""
    try:
        with urllib.request.urlopen(address, timeout=seconds):
            return True
    except (OSError, ValueError):
        return False


# The virtual environment -------------------------------------------------------------------------------------------


def venv_python(venv, windows):
    """The path of a virtual environment's Python."""
    return ntpath.join(venv, "Scripts", "python.exe") if windows else posixpath.join(venv, "bin", "python")


def fingerprint(paths):
    """A hash of the files that decide what is installed, the same on every system."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            digest.update(file.read().replace(b"\r\n", b"\n") + b"\0")
    return digest.hexdigest()


def read_stamp(path):
    """The two lines of the stamp, (interpreter, fingerprint), or None where the set-up never came to its end."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            interpreter, done = file.read().split("\n")[:2]
        return interpreter, done
    except (OSError, ValueError):
        return None


def plan(stamp, interpreter, wanted, python_exists):
    """What there is to do: 'nothing', 'update' an environment that is whole, or 'make' it anew.

    No stamp means that an earlier set-up was cut off, so what lies there is not trusted.
    """
    if stamp is None or not python_exists or stamp[0] != interpreter:
        return "make"
    return "nothing" if stamp[1] == wanted else "update"


def installed_torch(venv):
    """The version of PyTorch in the environment ('2.13.0+cpu'), or None; read from a folder's name, for speed."""
    for folder, _, _ in site_packages(venv):
        for name in os.listdir(folder):
            match = re.match(r"torch-(.+)\.dist-info$", name)
            if match:
                return match.group(1)
    return None


def site_packages(venv):
    """os.walk's entries for the site-packages folders of a virtual environment, without walking into them."""
    for entry in os.walk(venv):
        if os.path.basename(entry[0]) == "site-packages":
            entry[1][:] = []
            yield entry


# pip ---------------------------------------------------------------------------------------------------------------

NOT_WRITABLE = (
    "The folder .venv cannot be written: close any JupyterLab of this course and check that the course's folder is "
    "yours, then run this again."
)
FREE_SPACE = "The disk is full: free about 3 GB, then run this again."
DISK_FULL = r"No space left on device|\[Errno 28\]|WinError 112|not enough space on the disk|Disk quota exceeded"
NO_NETWORK = (
    r"name resolution|getaddrinfo failed|nodename nor servname|Name or service not known|NewConnectionError"
    r"|Connection refused|ConnectTimeout|Network is unreachable|Read timed out|ProxyError|ConnectionResetError"
    r"|IncompleteRead|5\d\d Server Error"
)
CERTIFICATE = r"CERTIFICATE_VERIFY_FAILED|SSLError"
LONG_PATH = r"Windows Long Path support|WinError 206"
NOT_ALLOWED = r"Permission denied|WinError (5|32)\b|Access is denied|Read-only file system"
NOT_FOUND = r"No matching distribution|satisfies the requirement"
NAMES_PACKAGE = (
    r"No matching distribution found for ([^\s;]+)",
    r"satisfies the requirement ([^\s;]+)",
    r"Failed building wheel for ([^\s;]+)",
    r"Failed to build '?([^\s;']+)",
)


def failing_package(log):
    """The package that pip was busy with when it gave up, or None."""
    for pattern in NAMES_PACKAGE:
        match = re.search(pattern, log)
        if match:
            return match.group(1).rstrip(".,")
    collecting = re.findall(r"^\s*(?:Collecting|Downloading) ([^\s;]+)", log, re.MULTILINE)
    return collecting[-1] if collecting else None


def explain_pip_failure(log):
    """One sentence for what pip said: which package, what went wrong, what to do."""
    package = failing_package(log)
    at = " at " + package if package else ""
    if re.search(DISK_FULL, log):
        return f"The disk is full: pip stopped{at}; free about 3 GB, then run this again."
    if re.search(CERTIFICATE, log):
        return (
            f"pip stopped{at}, because it does not trust the certificate of the package server: behind a company "
            "proxy, set PIP_CERT to its certificate file, then run this again."
        )
    if re.search(NO_NETWORK, log):
        return (
            f"pip stopped{at}, because the package server could not be reached: check the network (behind a proxy, set "
            "HTTPS_PROXY), then run this again; what was downloaded is kept."
        )
    if re.search(LONG_PATH, log):
        return (
            f"pip stopped{at}, because Windows refused a long path: switch long paths on (https://pip.pypa.io/warnings/"
            "enable-long-paths) or move the course to a short path such as C:\\course, then run this again."
        )
    if re.search(NOT_ALLOWED, log):
        return (
            f"pip stopped{at}, because it may not write to .venv: close any JupyterLab of this course and check that "
            "the folder is yours, then run this again."
        )
    if package and re.search(NOT_FOUND, log):
        return explain_missing(package, log)
    return f"pip stopped{at}: read the end of {PIP_LOG}, mend what it names, then run this again."


def explain_missing(package, log):
    """One sentence for a package that pip did not find: the machine's fault, or the package index's."""
    if is_there_for_others(package, log):
        return (
            f"pip found no build of {package} for this system and Python {platform.python_version()}: use a 64-bit "
            f"{SUPPORTED} on Linux (glibc), macOS 14 or later, or Windows."
        )
    named = re.search(r"^Looking in indexes: (.+?)\s*$", log, re.MULTILINE)  # pip does not name its own, PyPI
    index = named.group(1) if named else "PyPI"
    refused = re.search(r"Could not fetch URL \S+ (401|403|407) Client Error", log)
    if refused:
        return (
            f"{index} refused to show {package} (error {refused.group(1)}): check the address and the password of this "
            "package index, then run this again."
        )
    if CPU_INDEX in index:
        remedy = "run this again with --cuda"
    elif named:
        remedy = "ask who runs it to add it, or set PIP_INDEX_URL to https://pypi.org/simple, then run this again"
    else:
        remedy = "get a newer copy of the course"
    return f"{index} has no {package}: {remedy}."


def is_there_for_others(package, log):
    """Whether the index has this very version, but for another system or another Python, as pip's long words tell."""
    name, _, version = package.partition("==")
    name = "[-_.]+".join(map(re.escape, re.split("[-_.]+", name)))
    version = re.escape(version)
    file = "/" + name + "-" + version.replace("\\+", r"(\+|%2B)") + "[-.]"
    skipped = "(Skipping link|requires a different Python).*" + file
    ignored = "require a different python version:(.*;)? " + version + " Requires-Python"
    return re.search(skipped + "|" + ignored, log, re.IGNORECASE) is not None


def run_pip(python, arguments, log_path):
    """Run pip with its chatter in a log; show what is fetched and installed. Raise SetupError if it fails."""
    done, log = talk_to_pip(python, arguments, log_path)
    if done:
        return
    package = failing_package(log)
    if package and re.search(NOT_FOUND, log):
        # pip says only in its long words whether there is a build for others: ask for this one package again
        options = list(itertools.takewhile(lambda argument: argument not in ("-r", package), arguments))
        log += talk_to_pip(python, ["-vv", "--no-deps", *options, package], log_path)[1]
    raise SetupError(explain_pip_failure(log))


def talk_to_pip(python, arguments, log_path):
    """Run pip; returns whether it came to its end, and all that it said."""
    command = [python, "-m", "pip", "--disable-pip-version-check", "install", "--progress-bar", "off", *arguments]
    lines = []
    with open(log_path, "a", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace"
        )
        for line in process.stdout:
            lines.append(line)
            log.write(line)
            if re.match(r"\s*(Downloading|Installing collected)", line):
                print("  " + shorten(line.strip()), flush=True)
    return process.wait() == 0, "".join(lines)


def shorten(line, width=100):
    """A line cut to a terminal's width."""
    return line if len(line) <= width else line[: width - 3] + "..."


# Set-up ------------------------------------------------------------------------------------------------------------


def foreign_problem(venv):
    """Why what lies at .venv is not the set-up's to clear, or None. Nothing else may be cleared: it may be all that
    somebody has, in a folder that a link only points to."""
    remedy = "then run this again"
    if os.path.islink(venv) or is_elsewhere(venv):
        return f"{venv} is a link to {os.path.realpath(venv)}, whose files stay: remove the link, {remedy}."
    made = any(os.path.exists(os.path.join(venv, name)) for name in (MARK, os.path.basename(STAMP)))
    if not os.path.exists(venv) or made or (os.path.isdir(venv) and not os.listdir(venv)):
        return None
    return f"{venv} was not made by this set-up, so it stays as it is: move or delete it, {remedy}."


def is_elsewhere(folder):
    """Whether a folder's files lie in another place than its own, by a Windows junction too."""
    beside = os.path.join(os.path.realpath(os.path.dirname(folder)), os.path.basename(folder))
    return os.path.normcase(os.path.realpath(folder)) != os.path.normcase(beside)


def claim(venv, build=None):
    """Mark .venv as the set-up's own, before anything else is in it, and remember the build that was asked for."""
    os.makedirs(venv, exist_ok=True)
    with open(os.path.join(venv, MARK), "w", encoding="utf-8") as file:
        file.write(build or "")


def build_of(venv):
    """The build of PyTorch, "cpu" or "cuda", that was last asked for, or None."""
    try:
        with open(os.path.join(venv, MARK), encoding="utf-8") as file:
            build = file.read().strip()
    except (OSError, ValueError):
        return None
    return build if build in ("cpu", "cuda") else None


def clear(venv):
    """Remove everything in .venv but the mark, so that the next run knows it again. Links are cut, not followed."""
    try:
        for name in os.listdir(venv):
            path = os.path.join(venv, name)
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            elif name != MARK:
                os.remove(path)
    except PermissionError:
        raise SetupError(NOT_WRITABLE) from None


def make_venv(venv):
    """Make the virtual environment in a folder that is empty but for the mark, by the Python that runs this file."""
    print("Making .venv ...", flush=True)
    made = subprocess.run([sys.executable, "-m", "venv", venv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if made.returncode != 0:
        raise SetupError(explain_venv_failure(made.stdout.decode(errors="replace"), sys.version_info))


def explain_venv_failure(output, version):
    """One sentence for why `python -m venv` failed."""
    if re.search(DISK_FULL, output):
        return FREE_SPACE
    if re.search(r"ensurepip|No module named '?venv", output):
        return (
            "This Python came without its venv module: on Debian or Ubuntu run 'sudo apt install python{}.{}-venv', "
            "elsewhere install Python from https://www.python.org, then run this again."
        ).format(*version[:2])
    if re.search(NOT_ALLOWED, output):
        return NOT_WRITABLE
    last = (output.strip().splitlines() or ["no message"])[-1]
    return f"The folder .venv could not be made ({last}): delete it, then run this again."


def explain_os_error(error):
    """One sentence for a failure of the file system in this very program."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FREE_SPACE
    return f"The set-up stopped: {error}; mend that, then run this again."


def pinned(package):
    """The line of requirements.txt that pins a package."""
    with open(REQUIREMENTS, encoding="utf-8") as file:
        return next(line.strip() for line in file if line.startswith(package + "=="))


def set_up(asked=None):
    """Bring .venv to what requirements.txt says, with the build of PyTorch that is asked for, "cpu" or "cuda", for None
    the one that was last asked for, or else the one that suits the machine. Returns the path of its Python."""
    asked_before = build_of(VENV)
    asked = asked or asked_before
    system, windows = platform.system(), os.name == "nt"
    python = venv_python(VENV, windows)
    interpreter = f"{sys.version_info[0]}.{sys.version_info[1]} {ROOT}"  # a moved folder breaks a venv
    wanted = fingerprint([REQUIREMENTS, os.path.join(ROOT, "pyproject.toml")])
    todo = plan(read_stamp(STAMP), interpreter, wanted, os.path.exists(python))
    if todo == "nothing" and not (asked and is_other_build(asked, system, installed_torch(VENV))):
        if asked != asked_before:
            claim(VENV, asked)
        return python

    problem = None
    if todo == "make":
        problem = foreign_problem(VENV) or disk_problem(shutil.disk_usage(ROOT).free)
    if problem:
        raise SetupError(problem)
    print(f"Setting up the course in {VENV}: once, for some minutes. The details go to pip.log.", flush=True)
    claim(VENV, asked)
    if todo == "make":
        clear(VENV)
        make_venv(VENV)
    elif os.path.exists(STAMP):
        os.remove(STAMP)  # from here to the end, .venv is unfinished
    build, why = torch_build(asked, system, bool(shutil.which("nvidia-smi")), answers)
    if why:
        print(why, flush=True)
    install(python, build, must=asked is not None)
    with open(STAMP, "w", encoding="utf-8", errors="surrogateescape") as file:  # ROOT may hold any letter
        file.write(interpreter + "\n" + wanted + "\n")
    return python


def is_other_build(asked, system, torch_version):
    """Whether what is installed, such as '2.13.0+cpu', is not the build that was asked for, "cpu" or "cuda"."""
    is_cpu = torch_version is not None and torch_version.endswith("+cpu")
    return system == "Linux" and ((asked == "cpu" and not is_cpu) or (asked == "cuda" and is_cpu))


def install(python, build, must):
    """Calls of pip: PyTorch's CPU build for ``build`` "cpu", which where it ``must`` not be is no error to miss; the
    pinned list; and the course itself."""
    if os.path.exists(PIP_LOG):
        os.remove(PIP_LOG)
    if build == "cpu":
        try:
            run_pip(python, ["--index-url", CPU_INDEX, "--no-deps", pinned("torch") + "+cpu"], PIP_LOG)
        except SetupError:
            if must:
                raise
            print("Its server has no build for this machine: pip takes what its package index has.", flush=True)
    elif is_other_build("cuda", platform.system(), installed_torch(VENV)):
        run_pip(python, ["--force-reinstall", "--no-deps", pinned("torch")], PIP_LOG)
    # Wheels only: a package without one would start a compiler and fail in a way that nobody can read.
    run_pip(python, ["--only-binary", ":all:", "-r", REQUIREMENTS], PIP_LOG)
    # The pinned list has setuptools, so the last step needs no network.
    run_pip(python, ["--no-deps", "--no-build-isolation", "-e", ROOT], PIP_LOG)


# The commands ------------------------------------------------------------------------------------------------------


def lab_command(python, extra, root_user):
    """The command line that opens JupyterLab on the first notebook."""
    command = [python, "-m", "jupyterlab", FIRST_NOTEBOOK]
    if root_user:
        command.append("--allow-root")  # a container's only user; the server still listens on this machine alone
    return command + extra


def live_command(python, extra):
    """The command line that warms everything and opens JupyterLab for a class."""
    return [python, os.path.join(ROOT, "tools", "live.py"), *extra]


def test_command(python, extra):
    """The command line of the whole test suite; paths and options of pytest may follow."""
    return [python, "-m", "pytest", *PYTEST_FLAGS, *extra]


def site_command(python, extra, folder=SITE, cache=SITE + "-cache"):
    """The command line that builds the web site into a folder; a warning, such as a dead link, fails it."""
    settings = os.path.join(ROOT, "docs", "site")
    flags = ["-b", "html", "-W", "--keep-going", "-c", settings, "-d", cache]
    return [python, "-m", "sphinx", *flags, *extra, ROOT, folder]


def phone_command(python, extra):
    """The command line that serves the phone pack; an address of this machine and options may follow."""
    return [python, os.path.join(ROOT, "tools", "phone.py"), *extra]


def run(command):
    """Run a command to its end and return its exit status. Ctrl-C is the command's to handle."""
    process = subprocess.Popen(command, cwd=ROOT)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            pass


def parse(arguments):
    """The command, the build of PyTorch, and what is passed on."""
    parser = argparse.ArgumentParser(
        description="Set the course up and start it.",
        epilog="Anything else is passed on to JupyterLab, pytest, Sphinx or the server for phones.",
    )
    does = "open JupyterLab, run every test, build the web site, or serve a part of it to phones"
    parser.add_argument("command", choices=["lab", "test", "site", "phone"], help=does)
    parser.add_argument("--live", action="store_true", help="with lab: for a class; --part 3 prepares Part 3")
    build = parser.add_mutually_exclusive_group()
    for name, size in (("cpu", "small CPU"), ("cuda", "large")):
        says = f"on Linux: PyTorch's {size} build, whatever this machine has, now and at later updates"
        build.add_argument(f"--{name}", dest="build", action="store_const", const=name, help=says)
    return parser.parse_known_args(arguments)


def main(arguments):
    """Entry point; returns the exit status."""
    options, extra = parse(arguments)
    problem = python_problem(sys.version_info[:2], platform.system(), platform.machine())
    if problem:
        print(problem, file=sys.stderr)
        return 1
    try:
        python = set_up(options.build)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(explain_os_error(error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped; the next run starts the set-up afresh.", file=sys.stderr)
        return 130
    if options.command == "test":
        return run(test_command(python, extra))
    if options.command == "lab" and options.live:
        return run(live_command(python, extra))
    if options.command == "site":
        return run(site_command(python, extra))
    if options.command == "phone":
        return run(phone_command(python, extra))
    return run(lab_command(python, extra, hasattr(os, "geteuid") and os.geteuid() == 0))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
