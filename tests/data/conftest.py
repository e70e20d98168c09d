"""What the tests of the data sets share: an empty cache, and a tiny archive of MedNIST."""

from dataclasses import replace

import pytest
from helpers.archives import COUNTS, MS_GRID, TUMOUR_NUMBERS, mednist_members, write_tar

from data_fetch import registry


@pytest.fixture
def cache_folder(tmp_path, monkeypatch):
    """An empty cache, and a registry that asks for as many images as the tiny archives hold."""
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "cache"))
    small = {"mednist": COUNTS, "hippocampus": {"volumes": (6, 7)}}
    small |= {"lidc": {"persons": 4, "nodules": 5, "slices": 14}, "brain_tumours": dict.fromkeys(TUMOUR_NUMBERS, 40)}
    small |= {"ms_lesions": {"persons": 3, "scanned": (2,), "grid": MS_GRID}}
    for name, counts in small.items():
        monkeypatch.setitem(registry.DATASETS, name, replace(registry.DATASETS[name], counts=counts))
    return tmp_path / "cache"


@pytest.fixture
def archive(tmp_path):
    """The path of a tiny archive of MedNIST."""
    return write_tar(tmp_path / "MedNIST.tar.gz", mednist_members())
