"""``python -m course_lib.bench NAME``: the measurements that take too long for a notebook, kept in ``banks/NAME.json``.

Each bank has a module of its own that makes it. It may be interrupted and called again.
"""

import argparse
import json
import sys
from pathlib import Path

from course_lib import (
    bench_anomaly,
    bench_challenges,
    bench_guidance,
    bench_more,
    bench_reconstruction,
    bench_samplers,
    bench_segmentation,
    bench_synthesis,
    bench_targets,
    bench_trends,
    pretrained,
)

BANKS = Path(__file__).parent / "banks"

#: name -> make(path): compute the rows that the bank at that path lacks.
BENCHES = {
    "03_targets": bench_targets.make,
    "04_samplers": bench_samplers.make,
    "05_guidance": bench_guidance.make,
    "08_synthesis": bench_synthesis.make,
    "09_reconstruction": bench_reconstruction.make,
    "10_segmentation": bench_segmentation.make,
    "11_anomaly": bench_anomaly.make,
    "12_more": bench_more.make,
    "13_trends": bench_trends.make,
    "14_challenges": bench_challenges.make,
}


def load(name):
    """A bank, as a dict. Raises ValueError where it is missing, or was made with other weights than those here."""
    path = BANKS / f"{name}.json"
    if not path.exists():
        raise ValueError(f"no bank {name!r}: make it with `python -m course_lib.bench {name}`")
    bank = json.loads(path.read_text(encoding="utf-8"))
    if any(pretrained.card(network)["sha256"] != sha256 for network, sha256 in bank["sha256"].items()):
        raise ValueError(f"{path} was made with other weights: delete it and run `python -m course_lib.bench {name}`")
    return bank


def main(argv=None):
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m course_lib.bench", description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=list(BENCHES))
    name = parser.parse_args(argv).name
    path = BANKS / f"{name}.json"
    try:
        if path.exists():
            load(name)  # refuses a bank of other weights
        BENCHES[name](path)
    except (ValueError, OSError) as error:
        print(f"course_lib.bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
