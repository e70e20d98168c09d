"""Files written at once or not at all; tensors as safetensors only."""

import contextlib
import hashlib
import json
import os
import re
import tempfile
import time
from pathlib import Path

STALE_SECONDS = 3600  # a temporary file that has not grown for so long belongs to a process that was killed


def write_atomically(path, content):
    """Write bytes to path through a temporary file beside it, so that a crash leaves the old file or the new one.

    What killed processes left of earlier writes of this path is removed. Raises OSError naming the path, with the
    old file as it was, where the folder cannot be written or the disk is full.
    """
    write_together({path: content})


def write_together(contents):
    """Write files that belong together, {path: bytes}, as :func:`write_atomically` writes one: all of them lie on the
    disk before the first takes its place, and they take their places one right after the other, in this order."""
    with contextlib.ExitStack() as stack:
        parts = {Path(path): stack.enter_context(_part(Path(path), content)) for path, content in contents.items()}
        for path, temporary in parts.items():
            with _naming(path):
                os.replace(temporary, path)


@contextlib.contextmanager
def _part(path, content):
    """A temporary file beside path with that content; removed afterwards where it has not taken its place."""
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale_parts(path)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with _naming(path):
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)  # mkstemp's files are for the owner's eyes only
        yield temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


@contextlib.contextmanager
def _naming(path):
    """An OSError names this path: the system names a temporary file, or none."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def _remove_stale_parts(path):
    """Remove temporary files of this path that killed processes left: named as mkstemp does, and an hour old."""
    ours = re.compile(re.escape(path.name) + r"[a-z0-9_]{8}\.part")
    for other in path.parent.iterdir():
        if ours.fullmatch(other.name):
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                if time.time() - other.stat().st_mtime > STALE_SECONDS:
                    other.unlink()


def write_tensors(path, tensors, metadata=None):
    """Write named tensors and text metadata as safetensors, atomically: what :func:`tensor_bytes` gives."""
    write_atomically(path, tensor_bytes(tensors, metadata))


def tensor_bytes(tensors, metadata=None):
    """Named tensors and text metadata as the bytes of a safetensors file. Of tensors that share memory, as tied weights
    do, each name gets its own copy."""
    from safetensors.torch import save

    own, seen = {}, set()
    for name, value in tensors.items():
        value = value.contiguous()
        storage = value.untyped_storage().data_ptr()
        own[name] = value.clone() if storage in seen else value
        seen.add(storage)
    return save(own, metadata)


def sha256(path):
    """sha256 of what a file holds: hexadecimal text."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def digest(tensors, metadata):
    """sha256 of named tensors, their types and shapes, and text metadata: hexadecimal text."""
    import torch

    found = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        found.update(f"{name} {value.dtype} {list(value.shape)} ".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


@contextlib.contextmanager
def _opened(path):
    """A safetensors file. Raises ValueError naming a damaged one, FileNotFoundError naming one that is not there."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}); delete it and get it anew") from error


def read_tensors(path):
    """Named tensors (on the CPU) and metadata of a safetensors file. Raises ValueError naming a damaged file, and
    FileNotFoundError naming one that is not there."""
    with _opened(path) as file:
        names = file.keys()  # not a dict: it can't be iterated itself
        return {name: file.get_tensor(name) for name in names}, file.metadata() or {}


def read_metadata(path):
    """The metadata of a safetensors file alone, out of its first bytes. Raises as :func:`read_tensors`."""
    with _opened(path) as file:
        return file.metadata() or {}
