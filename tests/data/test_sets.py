"""MedNIST and hippocampus from tiny archives of the same structure: import, cache, splits, and every fault by name.

Set COURSE_ARCHIVES to a folder that holds the real archives to test those as well.
"""

import errno
import gzip
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.archives import COUNTS, fails, hippocampus_members, jpeg, mednist_members, nifti, snapshot, write_tar

from data_fetch import DataError, __main__, archives, cache, download, hippocampus, mednist, registry

pytestmark = pytest.mark.usefixtures("cache_folder")


# --- what works


def test_mednist_order_labels_and_split(archive):
    dataset, public = download.import_archive(archive)
    assert (dataset.name, public) == ("mednist", False)
    images, labels = mednist.load("all")
    assert images.shape == (75, 64, 64)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64
    assert np.bincount(labels).tolist() == list(COUNTS.values())
    expected = [40 * index + number for index, name in enumerate(mednist.CLASSES) for number in range(COUNTS[name])]
    assert images[:, 32, 32].tolist() == expected
    train, test = mednist.load("train"), mednist.load("test")
    # the last 5 % of each class by number, rounded down, at least one: 1, 1, 2, 1, 1, 1
    assert test[0][:, 0, 0].tolist() == [2, 40 + 20, 80 + 38, 80 + 39, 120 + 1, 160 + 4, 200 + 3]
    assert sorted([*train[0][:, 0, 0], *test[0][:, 0, 0]]) == sorted(expected)
    train[0][:] = 0  # the caller's own copy
    assert mednist.load("train")[0].any()


def test_zip_and_uncompressed_tar_and_clutter_are_read_alike(tmp_path):
    members = mednist_members() | {"MedNIST/README.md": b"text", "MedNIST/Hand/._000000.jpeg": b"finder"}
    plain = write_tar(tmp_path / "a.tar", members, "w")
    zipped = tmp_path / "a.zip"
    with zipfile.ZipFile(zipped, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    download.import_archive(plain)
    first = mednist.load("all")[0]
    download.import_archive(zipped)
    assert np.array_equal(first, mednist.load("all")[0])


def test_import_tells_whether_the_checksum_is_the_public_one(archive, capsys, monkeypatch):
    assert __main__.main(["import", str(archive)]) == 0
    assert "not the public one" in capsys.readouterr().out
    known = replace(registry.DATASETS["mednist"], md5=cache.digest(archive, "md5"))
    monkeypatch.setitem(registry.DATASETS, "mednist", known)
    assert __main__.main(["import", str(archive)]) == 0
    assert "checksum is the public one" in capsys.readouterr().out
    assert cache.manifest("mednist")["public_checksum"] is True


def test_verbs_list_where_verify(archive, capsys, cache_folder):
    assert not mednist.is_available()
    assert __main__.main(["verify"]) == 0
    assert __main__.main(["import", str(archive)]) == 0
    capsys.readouterr()
    assert mednist.is_available()
    assert __main__.main(["list"]) == 0
    listed = capsys.readouterr().out
    assert all(
        name in listed for name in ("brain_cohort", "mednist", "hippocampus", "CC BY-SA 4.0", "built in", "here")
    )
    assert __main__.main(["where"]) == 0
    assert capsys.readouterr().out.strip() == str(cache_folder)
    assert __main__.main(["verify", "mednist"]) == 0
    assert __main__.main(["get", "brain_cohort"]) == 0


def test_reimport_replaces_and_leaves_no_orphans(archive, tmp_path, cache_folder, monkeypatch):
    download.import_archive(archive)
    counts = COUNTS | {"Hand": 6}
    monkeypatch.setitem(registry.DATASETS, "mednist", replace(registry.DATASETS["mednist"], counts=counts))
    download.import_archive(write_tar(tmp_path / "more.tar.gz", mednist_members(counts)))
    assert len(mednist.load("all")[0]) == 76
    assert len(list(cache_folder.iterdir())) == 4  # manifest, images, labels, lock


def test_hippocampus_volumes_splits_and_scaling(tmp_path):
    members = hippocampus_members()
    download.import_archive(write_tar(tmp_path / "h.tar", members, "w"))
    assert hippocampus.is_available()
    volumes = hippocampus.load("all")
    assert [volume.id[-3:] for volume in volumes] == ["001", "002", "003", "004", "016", "018"]
    assert [volume.subject for volume in volumes] == [1, 1, 2, 2, 8, 9]
    assert [volume.split for volume in volumes] == ["train"] * 4 + ["validation", "test"]
    by_split = [hippocampus.load(split) for split in hippocampus.SPLITS]
    assert [len(part) for part in by_split] == [4, 1, 1]
    subjects = [{volume.subject for volume in part} for part in by_split]
    assert not (subjects[0] & subjects[1])
    assert not (subjects[0] & subjects[2])
    assert not (subjects[1] & subjects[2])
    for number, volume in zip((1, 2, 3, 4, 16, 18), volumes, strict=True):
        image = np.random.default_rng(number).uniform(0, 112 if number % 2 else 1.7e6, volume.image.shape)
        assert np.array_equal(volume.image, image.astype(np.float32))
        assert volume.label.shape == volume.image.shape
        assert volume.label.dtype == np.uint8
        assert np.allclose(volume.spacing, 1)
        assert volume.affine.shape == (4, 4)
        scaled = volume.scaled()
        assert scaled.dtype == np.float32
        assert scaled.min() == -1
        assert scaled.max() == 1
        assert abs(scaled.mean()) < 0.15  # whatever the scanner's unit


def test_a_volume_says_its_voxels_and_is_scaled_by_its_percentiles():
    """Voxels of 0.5, 1 and 2 mm, turned about z; of the levels 0 to 1000 the 0.5th percentile is 5, the 99.5th 995."""
    c, s = np.cos(0.4), np.sin(0.4)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag([0.5, 1.0, 2.0])
    image = np.arange(1001, dtype=np.float32).reshape(7, 11, 13)
    volume = hippocampus.Volume("hippocampus_001", 1, image, np.zeros(image.shape, np.uint8), affine)
    np.testing.assert_allclose(volume.spacing, [0.5, 1, 2], rtol=1e-12)
    expected = np.clip((image - 5) / 990, 0, 1) * 2 - 1
    np.testing.assert_allclose(volume.scaled(), expected, rtol=0, atol=1e-6)


def test_asking_for_what_is_not_there_is_a_clear_error():
    with pytest.raises(DataError, match=r"not in the cache.*get mednist.*import FILE"):
        mednist.load()
    with pytest.raises(DataError, match=r"not in the cache.*get hippocampus"):
        hippocampus.load()
    with pytest.raises(DataError, match="no split 'dev'"):
        mednist.load("dev")
    with pytest.raises(DataError, match="no split 'dev'"):
        hippocampus.load("dev")
    with pytest.raises(DataError, match="choose one of: brain_cohort, mednist, hippocampus"):
        registry.find("imagenet")


def test_no_heavy_imports():
    code = "import data_fetch, data_fetch.__main__, data_fetch.brain_cohort, data_fetch.own_images, sys;"
    code += "print(sorted({'torch','monai','course_lib','nilearn','nibabel','scipy','PIL','h5py'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


# --- what goes wrong: one sentence, non-zero exit, and what was there stays


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    return path


def one_byte_changed(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    return path


def incomplete(path):
    members = mednist_members()
    members.pop("MedNIST/Hand/000002.jpeg")
    return write_tar(path, members)


def wrong_size(path):
    from PIL import Image

    stream = io.BytesIO()
    Image.new("L", (32, 32)).save(stream, "JPEG")
    return write_tar(path, mednist_members() | {"MedNIST/Hand/000002.jpeg": stream.getvalue()})


def half_a_jpeg(path):
    return write_tar(path, mednist_members() | {"MedNIST/Hand/000002.jpeg": jpeg(3)[:200]})


def outside(path):
    return write_tar(path, mednist_members() | {"MedNIST/../../../evil.jpeg": b"x"})


def absolute(path):
    return write_tar(path, mednist_members() | {"/etc/evil": b"x"})


def backslashes(path):
    return write_tar(path, mednist_members() | {"MedNIST\\..\\..\\evil": b"x"})


def drive(path):
    return write_tar(path, mednist_members() | {"C:\\evil": b"x"})


def link(path):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in mednist_members().items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        info = tarfile.TarInfo("MedNIST/link")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    return path


def huge(path):
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo("MedNIST/Hand/000000.jpeg")
        info.size = 65 << 20
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    return path


def unknown(path):
    return write_tar(path, {"Other/file.txt": b"x"})


def no_archive(path):
    path.write_bytes(b"this is text" * 100)
    return path


def twice(path):
    members = list(mednist_members().items())
    with tarfile.open(path, "w:gz") as archive:
        for name, content in [*members, members[0]]:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def missing(path):
    path.unlink()
    return path


FAULTS = {
    truncated: "cut off, damaged",
    one_byte_changed: "cut off, damaged|readable JPEG|twice|not the whole",
    incomplete: "not the whole MedNIST",
    wrong_size: "32x32",
    half_a_jpeg: "000002.jpeg.*no readable JPEG",
    outside: "outside the archive",
    absolute: "outside the archive",
    backslashes: "outside the archive",
    drive: "outside the archive",
    link: "link or a device",
    huge: "not the expected archive",
    unknown: "none of the course's data sets",
    no_archive: "no tar or zip archive",
    twice: "twice",
    missing: "There is no file",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_bad_archives(fault, archive, capsys, cache_folder, tmp_path):
    download.import_archive(archive)
    before = snapshot(cache_folder)
    bad = fault(archive)
    message = fails(capsys, "import", bad)
    assert re.search(FAULTS[fault], message)
    assert bad.name in message or "MedNIST" in message
    assert message.endswith(".")
    assert message.count("\n") == 0
    assert snapshot(cache_folder) == before
    assert cache.is_ready("mednist")
    assert not list(tmp_path.rglob("evil*"))


def test_zip_with_traversal(tmp_path, capsys):
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("MedNIST/../../evil", b"x")
    assert "outside the archive" in fails(capsys, "import", path)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (hippocampus_members(ids=(1, 2, 3)), "not the whole"),
        (hippocampus_members(label_shift=5), "label map does not belong"),
        (
            hippocampus_members() | {"Task04_Hippocampus/imagesTr/hippocampus_001.nii.gz": gzip.compress(b"no header")},
            "hippocampus_001.*no readable NIfTI",
        ),
        (
            {k: v for k, v in hippocampus_members().items() if "labelsTr/hippocampus_002" not in k},
            "6 images and 5 labels",
        ),
        (
            hippocampus_members() | {"Task04_Hippocampus/imagesTr/hippocampus_001.nii.gz": nifti(np.zeros((2, 2)))},
            "2 dimensions",
        ),
    ],
)
def test_bad_hippocampus_archives(members, message, tmp_path, capsys):
    assert re.search(message, fails(capsys, "import", write_tar(tmp_path / "h.tar", members, "w")))
    assert not hippocampus.is_available()


class Full:
    """Stands in for a file on a full disk: the first bytes go through, then the system's error comes."""

    def __init__(self, file, code, room=10_000):
        self.file, self.code, self.room = file, code, room

    def __enter__(self):
        return self

    def __exit__(self, *arguments):
        self.file.close()

    def write(self, content):
        content = bytes(content)
        self.file.write(content[: self.room])
        self.room -= len(content)
        if self.room < 0:
            raise OSError(self.code, os.strerror(self.code))


@pytest.mark.parametrize(("code", "words"), [(errno.ENOSPC, "disk is full"), (errno.EROFS, "cannot be written")])
def test_full_disk_and_read_only_file_system(code, words, archive, tmp_path, capsys, cache_folder, monkeypatch):
    download.import_archive(archive)
    before = snapshot(cache_folder)

    def nearly_full(path, mode):
        return Full(open(path, mode), code) if mode == "xb" else open(path, mode)

    monkeypatch.setattr(cache, "open", nearly_full, raising=False)
    changed = mednist_members() | {"MedNIST/Hand/000001.jpeg": jpeg(255)}
    message = fails(capsys, "import", write_tar(tmp_path / "new.tar.gz", changed))
    assert words in message
    assert str(cache_folder) in message
    assert "COURSE_DATA" in message
    assert snapshot(cache_folder) == before
    cache.verify("mednist")


def test_cache_folder_that_cannot_be_made(archive, capsys, tmp_path, monkeypatch):
    """A file where the folder should be: what a read-only place looks like even to an administrator."""
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        monkeypatch.setenv("COURSE_DATA", str(place))
        message = fails(capsys, "import", archive)
        assert "cannot be written" in message
        assert "COURSE_DATA" in message
        assert "file" in fails(capsys, "get", "mednist")
    assert (tmp_path / "file").read_text() == "mine"


def test_killed_between_arrays_and_manifest_leaves_the_old_data(archive, tmp_path, monkeypatch):
    download.import_archive(archive)
    old = mednist.load("all")[0]
    real = os.replace

    def die(source, target):
        if str(target).endswith(".json"):
            raise KeyboardInterrupt
        real(source, target)

    changed = mednist_members() | {"MedNIST/Hand/000001.jpeg": jpeg(255)}
    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        download.import_archive(write_tar(tmp_path / "new.tar.gz", changed))
    assert np.array_equal(old, mednist.load("all")[0])
    cache.verify("mednist")


def test_tampered_and_half_written_cache(archive, capsys, cache_folder):
    download.import_archive(archive)
    path = next(cache_folder.glob("mednist-images-*.npy"))
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    message = fails(capsys, "verify", "mednist")
    assert path.name in message
    assert "changed" in message
    path.write_bytes(content[:-100])
    assert not mednist.is_available()
    assert "damaged" in fails(capsys, "verify")
    with pytest.raises(DataError, match="damaged"):
        mednist.load()
    (cache_folder / "mednist.json").write_text('{"name": "mednist", "fil')
    assert not mednist.is_available()
    assert "damaged" in fails(capsys, "verify")
    download.import_archive(archive)  # the remedy works
    cache.verify("mednist")


def test_manifest_states_licence_and_checksums(archive, cache_folder):
    download.import_archive(archive)
    manifest = json.loads((cache_folder / "mednist.json").read_text())
    assert manifest["licence"] == "CC BY-SA 4.0"
    for entry in manifest["files"].values():
        assert cache.digest(cache_folder / entry["file"]) == entry["sha256"]


def test_members_are_never_unpacked(archive, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.rglob("*"))
    assert len(list(archives.members(archive))) == sum(COUNTS.values())
    assert set(tmp_path.rglob("*")) == before


def test_unknown_name_on_the_command_line(capsys):
    with pytest.raises(SystemExit) as stop:
        __main__.main(["get", "imagenet"])
    assert stop.value.code != 0


# --- the real archives, where they are at hand


def real(name):
    folder = os.environ.get("COURSE_ARCHIVES")
    if not folder or not (Path(folder) / name).exists():
        pytest.skip(f"set COURSE_ARCHIVES to a folder that holds {name} to test it")
    return Path(folder) / name


def test_real_mednist(monkeypatch):
    path = real("MedNIST.tar.gz")
    whole = dict(zip(mednist.CLASSES, (10000, 8954, 10000, 10000, 10000, 10000), strict=True))
    monkeypatch.setitem(registry.DATASETS, "mednist", replace(registry.DATASETS["mednist"], counts=whole))
    download.import_archive(path)
    mednist.load()
    start = time.perf_counter()
    images, labels = mednist.load("all")
    assert time.perf_counter() - start < 1
    assert images.shape == (58954, 64, 64)
    assert np.bincount(labels).tolist() == list(whole.values())


def test_real_hippocampus(monkeypatch):
    path = real("Task04_Hippocampus.tar")
    counts = {"volumes": (260, 263)}
    monkeypatch.setitem(registry.DATASETS, "hippocampus", replace(registry.DATASETS["hippocampus"], counts=counts))
    download.import_archive(path)
    volumes = hippocampus.load("all")
    assert len(volumes) == 260
    assert max(v.image.max() for v in volumes) > 1.7e6
    assert min(v.image.max() for v in volumes) == 112
    assert all(0.3 < v.scaled().std() < 0.7 for v in volumes)
