"""A record: what one study measured, ``records/NAME.json``, with its tensors beside it if it has any."""

import json
from pathlib import Path

from course_lib import pretrained

RECORDS = Path(__file__).parent / "records"


def load(name):
    """A record, as a dict. Raises ValueError where it is missing, or was made with other weights than those here."""
    path = RECORDS / f"{name}.json"
    if not path.exists():
        raise ValueError(f"no record {name!r}: make it with `python -m course_lib.experiments {name}`")
    record = json.loads(path.read_text(encoding="utf-8"))
    if any(pretrained.card(network)["sha256"] != sha256 for network, sha256 in record["sha256"].items()):
        raise ValueError(
            f"{path} was made with other weights: delete it and run `python -m course_lib.experiments {name}`"
        )
    return record
