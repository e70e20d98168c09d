"""What every clone carries stays within a budget: trained networks and the records of experiments."""

from pathlib import Path

import pytest

LIBRARY = Path(__file__).resolve().parents[2] / "course_lib"
MEGABYTE = 1_000_000
# Of the records 0.2 are the tests on real lesions, real readers and real tumours, case by case, without pictures.
BUDGETS = {"weights": (80, 20), "experiments/records": (9.2, 3.5)}  # folder: megabytes together, and of one file


@pytest.mark.parametrize("folder", BUDGETS)
def test_files_stay_within_their_budget(folder):
    """Room for more is a choice: make the file smaller, or raise the budget and say what it buys."""
    together, each = BUDGETS[folder]
    sizes = {path.name: path.stat().st_size / MEGABYTE for path in (LIBRARY / folder).rglob("*") if path.is_file()}
    assert sizes
    assert {name: size for name, size in sizes.items() if size > each} == {}, f"above {each} MB"
    assert sum(sizes.values()) <= together, f"{sum(sizes.values()):.2f} MB of {together}"
