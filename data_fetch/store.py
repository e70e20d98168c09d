"""The cache on disk: ready arrays of each data set, written so that a reader sees all of the old or all of the new.

A data set is one small manifest (`<name>.json`) that points to array files whose names hold their own sha256.
The manifest is replaced last and in one step, so a crash, a full disk or a killed process leaves the old state.
"""

import hashlib
import json
import os
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from data_fetch.errors import DataError, first_line, storage
from data_fetch.registry import find


def root():
    """The cache folder: COURSE_DATA if set, else "diffusion-course" in the user's cache folder. Not created here."""
    if os.environ.get("COURSE_DATA"):
        return Path(os.environ["COURSE_DATA"]).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("diffusion-course", appauthor=False)


@contextmanager
def replacing(path):
    """Open a temporary neighbour of `path` for writing; it takes the place of `path` only if the block succeeds."""
    path = Path(path)
    with storage(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise


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
    """The manifest of a data set as a dict, or None when it is not in the cache or unreadable."""
    try:
        return json.loads(_manifest_path(name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def save(name, arrays, **facts):
    """Store `arrays` (name -> numpy array) and JSON-able `facts` as data set `name`, atomically."""
    files = {key: _save_array(f"{name}-{key}", array) for key, array in arrays.items()}
    with replacing(_manifest_path(name)) as file:
        file.write(json.dumps({"name": name, **facts, "files": files}, indent=1).encode())
    _remove_orphans(name, {entry["file"] for entry in files.values()})


def _save_array(stem, array):
    """Write one .npy whose name holds its checksum; return its manifest entry."""
    folder = root()
    staged = folder / f"{stem}.npy.part"
    with replacing(staged) as file:
        # not np.save: on a full disk its error does not carry the system's error number
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(np.ascontiguousarray(array).data)
    with storage(folder):
        sha256 = digest(staged)
        final = folder / f"{stem}-{sha256[:12]}.npy"
        size = staged.stat().st_size
        os.replace(staged, final)
    return {"file": final.name, "bytes": size, "sha256": sha256}


def _remove_orphans(name, keep):
    """Remove arrays that no manifest points to, and what a killed process left half-written a day ago or earlier."""
    for path in root().glob(f"{name}-*"):
        with suppress(OSError):  # on Windows a mapped file stays until its reader ends; it only costs space
            old = time.time() - path.stat().st_mtime > 86400
            if path.name not in keep and (path.suffix == ".npy" or old):
                path.unlink()


def has_trace(name):
    """True when a manifest is there, readable or not."""
    return _manifest_path(name).exists()


def is_ready(name):
    """True when the manifest is there and each of its files has the stated size (cheap: no file is read)."""
    found = manifest(name)
    if not found:
        return False
    try:
        return all((root() / entry["file"]).stat().st_size == entry["bytes"] for entry in found["files"].values())
    except (OSError, KeyError):
        return False


def require(name):
    """The manifest of a ready data set; DataError with the two ways to get it otherwise."""
    if not is_ready(name):
        dataset = find(name)
        state = "is damaged in" if has_trace(name) else "is not in"
        raise DataError(
            f"{dataset.title} {state} the cache {root()}; run `python -m data_fetch get {name}` ({dataset.megabytes} "
            f"MB), or `python -m data_fetch import FILE` with an archive that you already have."
        )
    return manifest(name)


def load_array(name, key):
    """One ready array of a data set, mapped read-only from disk: take slices or copies of it."""
    entry = require(name)["files"][key]
    try:
        return np.load(root() / entry["file"], mmap_mode="r")
    except (OSError, ValueError) as error:
        raise DataError(
            f"{root() / entry['file']} cannot be read ({first_line(error)}); run `python -m data_fetch get {name}` "
            "to make it anew."
        ) from error


def verify(name):
    """Read every file of a data set and compare sha256 with the manifest; DataError names the first that differs."""
    for entry in require(name)["files"].values():
        path = root() / entry["file"]
        if digest(path) != entry["sha256"]:
            raise DataError(
                f"{path} has changed since it was written (sha256 differs); run `python -m data_fetch get {name}` or "
                "`import` your archive again."
            )
