"""A record: what one study measured, ``records/NAME.json``, and the tensors beside it, if it has any.

The tensors stand in ``records/NAME.tensors.safetensors``; they are measurements and pictures, no network. Reading a
record imports no study.
"""

import json
from pathlib import Path

import torch

from course_lib import pretrained, runtime
from course_lib.files import read_tensors, write_atomically, write_tensors
from course_lib.images import to_uint8

RECORDS = Path(__file__).parent / "records"


def path(name, ending="json"):
    """The file of a record, or that of its tensors for the ending "tensors.safetensors"."""
    return RECORDS / f"{name}.{ending}"


def command(name):
    """The command that measures what a record lacks."""
    return f"python -m course_lib.experiments {name}"


def load(name):
    """A record, as a dict. Raises ValueError where it is missing or damaged, or where a network that all of its rows
    use has other weights here. (Rows that use more say so themselves: ``Study.is_fresh``.)"""
    if not path(name).exists():
        raise ValueError(f"no record {name!r}: make it with `{command(name)}`")
    try:
        record = json.loads(path(name).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path(name)} is damaged ({error}): take it from the repository anew") from error
    if any(pretrained.card(network)["sha256"] != sha256 for network, sha256 in record["sha256"].items()):
        raise ValueError(f"{path(name)} was made with other weights: delete it and run `{command(name)}`")
    return record


def tensors(name):
    """The tensors of a record by name, halves as float32; {} for a record without."""
    return {key: value.float() if value.dtype == torch.half else value for key, value in _stored(name).items()}


def pictures(name):
    """The tensors of a record by name, pictures stored as bytes as floats in [-1, 1]; {} for a record without."""
    return {key: x.float() / 127.5 - 1 if x.dtype == torch.uint8 else x for key, x in tensors(name).items()}


def as_bytes(images):
    """Pictures (N, H, W), clipped to [-1, 1], as they are stored: uint8."""
    return torch.as_tensor(to_uint8(images.clamp(-1, 1)))


def _stored(name):
    beside = path(name, "tensors.safetensors")
    return read_tensors(beside)[0] if beside.exists() else {}


def resumed(name, networks, begin, is_fresh):
    """A record and its tensors to go on with, as they are stored but for the rows that are not fresh.

    Where there is none yet it is begun: with the sha256 of the ``networks`` that all its rows use, and with what
    ``begin()`` gives, a dict of what stands above the rows and tensors by name. Raises ValueError as :func:`load` does,
    and where networks run in another precision than the record was begun in.
    """
    if path(name).exists():
        record, kept, here = load(name), _stored(name), runtime.precision_name()
        if record.get("precision", here) != here:
            raise ValueError(
                f"{path(name)} was begun in {record['precision']}, and networks run in {here} here: their rows "
                f"would not compare. Go on where it was begun, or delete it and run `{command(name)}`"
            )
        record["rows"] = [row for row in record["rows"] if is_fresh(row)]
        return record, kept
    above, kept = begin()
    sha256 = {network: pretrained.card(network)["sha256"] for network in networks}
    record = {"made_by": command(name), "sha256": sha256} | above | {"rows": []}
    write(name, record, kept)
    return record, kept


def write(name, record, kept):
    """Write a record, and its tensors if there are any, each atomically."""
    if kept:
        write_tensors(path(name, "tensors.safetensors"), kept)
    write_atomically(path(name), as_text(record).encode())


def as_text(record):
    """A dict with a list of dicts under "rows" as JSON, each row on a line of its own."""
    rows = ",\n".join("  " + json.dumps(row) for row in record["rows"])
    head = json.dumps({**record, "rows": None}, indent=1)
    place = '\n "rows": null'  # with the indent of the outermost level: no other null is meant
    return head.replace(place, f'\n "rows": [\n{rows}\n ]') + "\n"


def rounded(values, digits=4):
    """A number as a float of so many digits, a sequence or tensor as a list of such, nested as it is."""
    if isinstance(values, (list, tuple)) or getattr(values, "ndim", 0):
        return [rounded(value, digits) for value in values]
    return round(float(values), digits)
