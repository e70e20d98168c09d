"""``python -m course_lib.experiments NAME`` measures what takes too long for a notebook, for ``records/NAME.json``.

Each record has a module of its own that makes it. It may be interrupted and called again.
"""

import argparse
import sys

from course_lib.experiments import (
    anomaly,
    challenges,
    guidance,
    image_to_image,
    reconstruction,
    record,
    samplers,
    segmentation,
    synthesis,
    targets,
    trends,
)

#: name -> make(path): compute the rows that the record at that path lacks.
STUDIES = {
    "03_targets": targets.make,
    "04_samplers": samplers.make,
    "05_guidance": guidance.make,
    "08_synthesis": synthesis.make,
    "09_reconstruction": reconstruction.make,
    "10_segmentation": segmentation.make,
    "11_anomaly": anomaly.make,
    "12_image_to_image": image_to_image.make,
    "13_trends": trends.make,
    "14_challenges": challenges.make,
}


def main(argv=None):
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m course_lib.experiments", description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=list(STUDIES))
    name = parser.parse_args(argv).name
    path = record.RECORDS / f"{name}.json"
    try:
        if path.exists():
            record.load(name)  # refuses a record of other weights
        STUDIES[name](path)
    except (ValueError, OSError) as error:
        print(f"course_lib.experiments: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
