"""The record of the filled holes: its masks, its errors, and a part of it made anew."""

import pytest
import torch

from course_lib import experiments
from course_lib.experiments import conditioning as study
from course_lib.experiments.conditioning import SUBJECTS


@pytest.fixture(scope="module")
def cases():
    return study.cases()


def test_holes_are_ellipses_in_the_brain(cases):
    """On average pi/4 height width in area (the edge of the picture cuts off a few); the middle is in the head."""
    truth, mask = cases
    holes = mask.known == 0
    assert truth.shape == holes.shape == (SUBJECTS, 1, 96, 96)
    area = torch.pi / 4 * 20 * 14
    assert holes.sum((1, 2, 3)).double().mean().item() == pytest.approx(area, rel=0.05)
    for image, hole in zip(truth[:, 0], holes[:, 0]):
        row, column = (round(float(at.double().mean())) for at in hole.nonzero(as_tuple=True))
        assert image[row - 2 : row + 3, column - 2 : column + 3].mean() > -0.9  # background is -1


def test_a_part_of_the_record_is_made_anew(cases):
    """A hole drawn alone is the record's, and not its other draw: root mean square of the difference, from -1 to 1."""
    hole = cases[1].known[:1] == 0
    pixels = experiments.pictures("06_conditioning")
    stored, other = (pixels[f"RePaint/{seed}"][: int(hole.sum())] for seed in study.SEEDS)
    x = study.fill("RePaint", study.SEEDS[0], asked=1)
    assert x.shape == (1, 1, 96, 96)
    assert torch.equal(x[~hole], cases[0][:1][~hole])
    between = (stored - other).square().mean().sqrt()
    assert (x[hole] - stored).square().mean().sqrt() < min(0.05, between / 2)


def test_the_record_is_whole_and_its_errors_are_those_of_its_pixels(cases):
    truth, mask = cases
    hole, record, pixels = mask.known == 0, experiments.load("06_conditioning"), experiments.pictures("06_conditioning")
    assert [{key: row[key] for key in ("filling", "seed")} for row in record["rows"]] == study.plan()
    for row in record["rows"]:
        x = truth.clone()
        x[hole] = pixels[f"{row['filling']}/{row['seed']}"]
        for k in range(SUBJECTS):
            error = (x[k] - truth[k])[hole[k]].square().mean().sqrt()
            assert float(error) == pytest.approx(row["error_in_hole"][k], abs=0.002)
    assert all(len(times) == 49 or (times.diff() < 0).sum() == 48 for times in study.FILLINGS.values())  # evaluations
