"""The cache on disk: ready arrays of each data set, written so that a reader sees all of the old or all of the new.

A data set is one small manifest (`<name>.json`) that points to array files whose names hold their own sha256.
The manifest is replaced last and in one step, so a crash, a full disk or a killed process leaves the old state.
One process at a time writes a data set: the others wait for its lock, which the system takes from a killed process.
"""

import hashlib
import io
import json
import os
import re
import secrets
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PureWindowsPath

import numpy as np

from data_fetch.errors import DataError, first_line, reading, storage
from data_fetch.registry import find

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt

_LOCKED_BY_ANOTHER = PermissionError if fcntl is None else BlockingIOError
_PATIENCE = 1800.0  # seconds to wait for another process that writes the same data set
_MANIFEST_LIMIT = 16 << 20  # bytes; the largest here has 80 kB
_DAY = 86400.0
_UNREADABLE = "ask the folder's owner for the right to read it, or set COURSE_DATA to a folder of your own"
_threads = threading.RLock()  # the system's lock tells processes apart, not threads
_held = {}  # data set -> whether this process, which holds it, is alone by the system's word


def root():
    """The cache folder: COURSE_DATA if set, else "diffusion-course" in the user's cache folder. Not created here.

    Raises DataError when COURSE_DATA begins with the home folder of a user who is not there.
    """
    if os.environ.get("COURSE_DATA"):
        try:
            return Path(os.environ["COURSE_DATA"]).expanduser()
        except RuntimeError:
            raise DataError(
                f"COURSE_DATA is {os.environ['COURSE_DATA']!r}, and this machine knows no home folder of that name; "
                "set it to the full path of a folder."
            ) from None
    from platformdirs import user_cache_path

    return user_cache_path("diffusion-course", appauthor=False)


@contextmanager
def replacing(path):
    """Open a temporary neighbour of `path` for writing; it takes the place of `path` only if the block succeeds.

    Its name is its own, so that two writers never meet; its rights are those that the user gives to new files.
    """
    path = Path(path)
    with storage(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
        try:
            with open(temporary, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise


@contextmanager
def locked(name):
    """While the block runs, no other process is in such a block for data set `name`; a process may lock it twice.

    Yields whether that is sure: some network folders have no locks, and there nobody waits. A lock ends with its
    process, however that ends; the empty lock file stays. Raises DataError when another process holds the lock for half
    an hour, or when the cache cannot be written.
    """
    with _threads:
        if name in _held:
            yield _held[name]
            return
        path = root() / f"{name}.lock"
        with ExitStack() as stack:
            with storage(path.parent):
                path.parent.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context(open(path, "ab"))
            _held[name] = _wait_for_lock(file, name)
            try:
                yield _held[name]
            finally:
                del _held[name]


def _wait_for_lock(file, name):
    """True once the lock is ours; False where the file system has none."""
    deadline, told = time.monotonic() + _PATIENCE, False
    while True:
        try:
            if _try_lock(file):
                return True
        except OSError:
            return False
        if time.monotonic() > deadline:
            raise DataError(
                f"Another process has been writing {find(name).title} for too long (it holds {file.name}); let it end, "
                "or end it, and run the command again."
            )
        if not told:
            print(f"Waiting for another process that writes {find(name).title} ...", file=sys.stderr, flush=True)
            told = True
        time.sleep(0.1)


def _try_lock(file):
    """Whether the file's lock is ours now; OSError where the file system has no locks."""
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except _LOCKED_BY_ANOTHER:
        return False
    return True


def digest(path, algorithm="sha256"):
    """Hexadecimal checksum of a file, read in blocks of 1 MiB."""
    checksum = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            checksum.update(block)
    return checksum.hexdigest()


def _manifest_path(name):
    return root() / f"{name}.json"


def manifest(name):
    """The manifest of a data set as a dict; None when it is not in the cache or damaged.

    What it says is not believed: each of its files is {"file": a plain name in the cache folder, "bytes", "sha256"}.
    Raises DataError when it is there and may not be read.
    """
    path = _manifest_path(name)
    try:
        with reading(path, _UNREADABLE), open(path, "rb") as file:
            found = json.loads(file.read(_MANIFEST_LIMIT).decode())
    except DataError as error:
        if isinstance(error.__cause__, (FileNotFoundError, NotADirectoryError)):
            return None
        raise
    except (ValueError, RecursionError):  # no JSON, no UTF-8, nested without end
        return None
    files = found.get("files") if isinstance(found, dict) else None
    whole = isinstance(files, dict) and files and all(map(_is_entry, files.values()))
    return found if whole else None


def _is_entry(entry):
    """Whether a manifest's entry of a file is one."""
    if not isinstance(entry, dict):
        return False
    file, size, sha256 = (entry.get(key) for key in ("file", "bytes", "sha256"))
    return (
        isinstance(file, str)
        and re.fullmatch(r"[\w.-]{1,200}", file) is not None
        and PureWindowsPath(file).name == file  # neither "." nor ".."
        and type(size) is int
        and size >= 0
        and isinstance(sha256, str)
        and re.fullmatch("[0-9a-f]{64}", sha256) is not None
    )


def save(name, arrays, **facts):
    """Store `arrays` (name -> numpy array) and JSON-able `facts` as data set `name`, atomically."""
    with locked(name) as alone:
        files = {key: _save_array(f"{name}-{key}", array) for key, array in arrays.items()}
        with replacing(_manifest_path(name)) as file:
            file.write(json.dumps({"name": name, **facts, "files": files}, indent=1).encode())
        _remove_orphans(name, {entry["file"] for entry in files.values()}, alone)


def _save_array(stem, array):
    """Write one .npy whose name holds its checksum; return its manifest entry."""
    array = np.ascontiguousarray(array)
    # not np.save: on a full disk its error does not carry the system's error number
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    checksum = hashlib.sha256(header.getvalue(), usedforsecurity=False)
    checksum.update(array.data)
    sha256, size = checksum.hexdigest(), len(header.getvalue()) + array.nbytes
    path = root() / f"{stem}-{sha256[:12]}.npy"
    if not _has(path, size, sha256):  # on Windows nothing takes the place of a file that a reader has mapped
        with replacing(path) as file:
            file.write(header.getvalue())
            file.write(array.data)
    return {"file": path.name, "bytes": size, "sha256": sha256}


def _has(path, size, sha256):
    """Whether a file is there, whole."""
    try:
        return path.stat().st_size == size and digest(path) == sha256
    except OSError:
        return False


def _remove_orphans(name, keep, alone):
    """Remove arrays that no manifest points to, and what killed processes left half-written: at once if nobody else can
    be writing, else what is a day old."""
    for path in [*root().glob(f"{name}-*"), *root().glob(f"{name}.json.*")]:
        with suppress(OSError):  # on Windows a mapped file stays until its reader ends; it only costs space
            if path.name not in keep and (alone or time.time() - path.stat().st_mtime > _DAY):
                path.unlink()


def has_trace(name):
    """True when a manifest is there, readable or not."""
    return os.path.lexists(_manifest_path(name))


def is_ready(name):
    """True when the manifest is there and each of its files has the stated size (cheap: no array is read)."""
    root()  # a COURSE_DATA that is no folder is told, not taken for an empty cache
    with suppress(DataError):
        found = manifest(name)
        return found is not None and _is_complete(found)
    return False


def is_part(name):
    """Whether the data set that is there is a part of it, as ``pack`` makes one of MedNIST."""
    return "subset" in (manifest(name) or {})


def _is_complete(found):
    try:
        return all((root() / entry["file"]).stat().st_size == entry["bytes"] for entry in found["files"].values())
    except OSError:
        return False


def require(name):
    """The manifest of a ready data set; DataError with the two ways to get it otherwise, or that it may not be read."""
    found = manifest(name)
    while found is not None and not _is_complete(found):
        again = manifest(name)
        if again is not None and again["files"] == found["files"]:
            raise damaged(name, "a file is missing or cut off")
        found = again  # another process has replaced it in between
    if found is not None:
        return found
    if has_trace(name):
        raise damaged(name, "it makes no sense")
    dataset = find(name)
    raise DataError(f"{dataset.title} is not in the cache {root()}; {_ways(name)}.")


def damaged(name, why):
    """A DataError that says why the cache's data set cannot be used, and the two ways to mend it."""
    return DataError(f"{find(name).title} is damaged in the cache, {_manifest_path(name)} ({why}); {_ways(name)}.")


def _ways(name):
    dataset = find(name)
    get = dataset.by_hand or f"run `python -m data_fetch get {name}` ({dataset.megabytes} MB)"
    return f"{get}, or `python -m data_fetch import FILE` with an archive that you already have"


def load(name, *keys):
    """The manifest of a data set and its arrays of those keys, all of one state: (dict, list of arrays).

    The arrays are mapped read-only from disk: take slices or copies of them. Raises DataError when they are not there,
    may not be read or are damaged.
    """
    while True:
        found = require(name)
        missing = [key for key in keys if key not in found["files"]]
        if missing:
            raise damaged(name, f"it has no {missing[0]}")
        try:
            return found, [_map(name, root() / found["files"][key]["file"]) for key in keys]
        except DataError:
            if require(name)["files"] == found["files"]:
                raise  # else another process has replaced it in between


def load_array(name, key):
    """One ready array of a data set, mapped read-only from disk: take slices or copies of it."""
    return load(name, key)[1][0]


def _map(name, path):
    try:
        with reading(path, _UNREADABLE):
            return np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError, SyntaxError, TypeError) as error:  # what NumPy raises on a file that is no array
        raise DataError(
            f"{path} cannot be read ({first_line(error)}); run `python -m data_fetch get {name}` to make it anew."
        ) from error


def verify(name):
    """Read every file of a data set and compare sha256 with the manifest; DataError names the first that differs."""
    for entry in require(name)["files"].values():
        path = root() / entry["file"]
        with reading(path, _UNREADABLE):
            found = digest(path)
        if found != entry["sha256"]:
            raise DataError(
                f"{path} has changed since it was written (sha256 differs); run `python -m data_fetch get {name}` or "
                "`import` your archive again."
            )
