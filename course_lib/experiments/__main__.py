"""``python -m course_lib.experiments NAME`` measures what takes too long for a notebook, for ``records/NAME.json``.

It may be interrupted and called again: rows that are there are not measured anew, unless a network of theirs changed.
"""

import argparse
import sys

from course_lib.datasets import DataError
from course_lib.experiments.record import command
from course_lib.experiments.study import run, study_of

#: The records; each is named for the notebook that reads it and for the module of its study.
NAMES = (
    *("03_targets", "04_samplers", "05_guidance", "06_conditioning"),
    *("07_volumes", "08_synthesis"),
    *("09_reconstruction", "09_raw_scan"),
    *("10_segmentation", "10_trainings", "10_lidc"),
    *("11_anomaly", "11_noise_limit", "11_tumours", "11_tumour_trainings", "11_persons"),
    *("12_image_to_image", "12_real_persons", "13_trends", "13_seeds", "13_bridge", "13_labels"),
    *("14_challenges", "14_real_challenges", "14_audits"),
)


def main(argv=None):
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m course_lib.experiments",
        description="Measure what takes too long for a notebook, for course_lib/experiments/records/NAME.json.",
    )
    parser.add_argument("name", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    name = parser.parse_args(argv).name
    try:
        run(study_of(name))
    except (ValueError, OSError, DataError) as error:
        print(f"course_lib.experiments: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"course_lib.experiments: stopped; `{command(name)}` goes on with the rest", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
