"""Data sets in one small file: what comes out on a machine with an empty cache, and what is refused."""

import threading

import numpy as np
import pytest
from helpers.archives import fails, hippocampus_members, write_tar

from data_fetch import __main__, cache, download, hippocampus, mednist, packing

pytestmark = pytest.mark.usefixtures("cache_folder")


@pytest.fixture
def another_cache(monkeypatch, tmp_path):
    """Called, the cache is an empty folder."""
    return lambda: monkeypatch.setenv("COURSE_DATA", str(tmp_path / "elsewhere"))


def test_mednist_comes_as_an_even_subset_nearly_as_it_was(archive, another_cache, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(packing, "_STRIP", 20)
    download.import_archive(archive)
    images, labels = mednist.load("all")
    assert __main__.main(["pack", "mednist", str(tmp_path / "m.pack"), "--images", "38"]) == 0
    another_cache()
    assert __main__.main(["unpack", str(tmp_path / "m.pack")]) == 0
    assert "MedNIST is ready in" in capsys.readouterr().out
    chosen = np.linspace(0, 74, 38).round().astype(int)
    found, found_labels = mednist.load("all")
    assert np.array_equal(found_labels, labels[chosen]) and found.dtype == np.uint8
    assert np.abs(found.astype(int) - images[chosen]).max() <= 4
    assert cache.manifest("mednist")["subset"] == 38
    cache.verify("mednist")


def test_a_part_does_not_replace_what_another_completes_meanwhile(archive, another_cache, tmp_path, monkeypatch):
    download.import_archive(archive)
    images, labels = (np.array(array) for array in mednist.load("all"))
    packing.pack("mednist", tmp_path / "m.pack", 38)
    another_cache()
    other = threading.Thread(target=lambda: cache.save("mednist", {"images": images, "labels": labels}))
    is_ready = cache.is_ready

    def looked_at(name):
        found = is_ready(name)
        other.start()
        other.join(0.5)
        return found

    monkeypatch.setattr(cache, "is_ready", looked_at)
    packing.unpack(tmp_path / "m.pack")
    other.join()
    assert "subset" not in cache.manifest("mednist") and len(mednist.load("all")[1]) == len(labels)


def test_another_set_comes_whole(another_cache, tmp_path):
    download.import_archive(write_tar(tmp_path / "h.tar", hippocampus_members()))
    before = hippocampus.load("all")
    packing.pack("hippocampus", tmp_path / "h.pack")
    another_cache()
    assert packing.unpack(tmp_path / "h.pack") == "hippocampus"
    for one, two in zip(before, hippocampus.load("all"), strict=True):
        assert one.id == two.id and np.array_equal(one.image, two.image) and np.array_equal(one.label, two.label)


def test_what_cannot_be_is_said(archive, tmp_path, capsys):
    path = tmp_path / "m.pack"
    assert "MedNIST is not in the cache" in fails(capsys, "pack", "mednist", path)
    download.import_archive(archive)
    assert "MedNIST has 75 images, not 76; pack 1 or more" in fails(capsys, "pack", "mednist", path, "--images", 76)
    packing.pack("mednist", path, 10)
    assert "already; it stays as it is" in fails(capsys, "unpack", path)
    whole = path.read_bytes()
    for content in (b"", b"text", whole[:-100], whole[:300]):
        (tmp_path / "damaged").write_bytes(content)
        assert "damaged is no packed data set" in fails(capsys, "unpack", tmp_path / "damaged")
    assert "check the path of the packed" in fails(capsys, "unpack", tmp_path / "gone")
