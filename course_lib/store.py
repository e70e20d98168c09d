"""Files written at once or not at all: tensors as safetensors only, tables of measurements as JSON."""

import json
import os
import tempfile
from pathlib import Path


def write_atomically(path, content):
    """Write bytes to path through a temporary file beside it, so that a crash leaves the old file or the new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp's files are for the owner's eyes only
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_rows(path, bank):
    """Write a dict with a list of dicts under "rows" as JSON, atomically; each row on a line of its own."""
    rows = ",\n".join("  " + json.dumps(row) for row in bank["rows"])
    head = json.dumps({**bank, "rows": None}, indent=1)
    write_atomically(path, (head.replace("null", f"[\n{rows}\n ]") + "\n").encode())


def write_tensors(path, tensors, metadata=None):
    """Write named tensors and text metadata as safetensors, atomically."""
    from safetensors.torch import save

    write_atomically(path, save({name: value.contiguous() for name, value in tensors.items()}, metadata))


def read_tensors(path):
    """Named tensors (on the CPU) and metadata of a safetensors file. Raises ValueError naming a damaged file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()  # not a dict: it can't be iterated itself
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}); delete it and get it anew") from error
