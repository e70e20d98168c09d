"""The cache under several processes at once, kills, edited manifests and other people's rights."""

import json
import multiprocessing
import os
import random
import re
import signal
import stat
import subprocess
import sys
import textwrap
import time
import types
from pathlib import Path

import numpy as np
import pytest
from helpers.archives import (
    COUNTS,
    fails,
    hippocampus_members,
    jpeg,
    mednist_members,
    write_tar,
)

from data_fetch import DataError, __main__, cache, download, hippocampus, mednist

pytestmark = pytest.mark.usefixtures("cache_folder")
POSIX = pytest.mark.skipif(os.name == "nt", reason="rights of files as POSIX has them")
# A process of its own that imports an archive into a data set of the tests' size
IMPORT = """
import dataclasses, sys, time
from data_fetch import download, registry
counts = {counts!r}
registry.DATASETS["mednist"] = dataclasses.replace(registry.DATASETS["mednist"], counts=counts)
while time.time() < {start!r}:
    pass
download.import_archive({path!r})
"""


def importing(path, start=0.0):
    """A process that imports an archive, from a given second on."""
    code = IMPORT.format(counts=COUNTS, path=str(path), start=start)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def two_archives(tmp_path):
    """Two versions of the data set that differ in one picture, and that picture's grey level in each."""
    first = write_tar(tmp_path / "first.tar.gz", mednist_members())
    second = write_tar(tmp_path / "second.tar.gz", mednist_members() | {"MedNIST/Hand/000001.jpeg": jpeg(255)})
    return {161: first, 255: second}


def whole(levels):
    """Assert that the cache holds exactly one of the versions, intact, and nothing beside it."""
    cache.verify("mednist")
    images, labels = mednist.load("all")
    assert np.bincount(labels).tolist() == list(COUNTS.values())
    assert images[labels == mednist.CLASSES.index("Hand")][1, 32, 32] in levels
    arrays = {entry["file"] for entry in cache.manifest("mednist")["files"].values()}
    assert {path.name for path in cache.root().iterdir() if path.is_file()} - {"mednist.lock"} == arrays | {
        "mednist.json"
    }


# --- several at once


def test_four_imports_at_once_in_several_rounds(two_archives):
    for _ in range(3):
        start = time.time() + 3
        processes = [importing(path, start) for path in [*two_archives.values()] * 2]
        for process in processes:
            message = process.communicate(timeout=120)[1]
            assert process.returncode == 0, message
        whole(two_archives)


def save_again(rounds, level):
    for _ in range(rounds):
        cache.save("mednist", {"images": np.full((9, 64, 64), level, np.uint8), "labels": np.arange(9)}, licence="x")


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="processes that start at once")
def test_four_writers_leave_one_state_and_every_reader_sees_one(cache_folder):
    save_again(1, 0)
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=save_again, args=(25, level)) for level in (1, 2, 3, 4)]
    for writer in writers:
        writer.start()
    seen = 0
    while any(writer.is_alive() for writer in writers):
        images = np.array(cache.load_array("mednist", "images"))
        assert images.min() == images.max()
        assert images.shape == (9, 64, 64)
        seen += 1
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert seen > 10
    cache.verify("mednist")
    assert len(list(cache_folder.glob("*.npy"))) == 2


def test_the_second_waits_for_the_first_and_says_so(archive, cache_folder, monkeypatch, capsys):
    held = textwrap.dedent("""
        import time
        from data_fetch import cache
        with cache.locked("mednist"):
            print("held", flush=True)
            time.sleep(1000)
    """)
    holder = subprocess.Popen([sys.executable, "-c", held], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        monkeypatch.setattr(cache, "_PATIENCE", 0.3)
        message = fails(capsys, "import", archive)
        assert "another process" in message.lower()
        assert "mednist.lock" in message
        assert message.endswith(".")
    finally:
        holder.kill()  # what a killed process held is free at once
        holder.wait()
    assert __main__.main(["import", str(archive)]) == 0
    assert "Waiting" not in capsys.readouterr().err
    whole({161})


def test_a_lock_file_left_behind_holds_nobody_up(archive, cache_folder):
    cache_folder.mkdir()
    (cache_folder / "mednist.lock").write_bytes(b"from a machine that was switched off")
    download.import_archive(archive)
    whole({161})


def test_a_file_system_without_locks_is_used_without(archive, monkeypatch):
    def unsupported(file):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(cache, "_try_lock", unsupported)
    download.import_archive(archive)
    cache.verify("mednist")


def test_locks_as_windows_has_them(monkeypatch, capsys):
    """One byte of the file is locked; as long as another process has it, the call is refused."""
    answers, asked = [PermissionError(13, "Permission denied"), None], []

    def locking(descriptor, mode, count):
        asked.append((os.fstat(descriptor).st_ino, mode, count))
        if answer := answers.pop(0):
            raise answer

    monkeypatch.setattr(cache, "fcntl", None)
    monkeypatch.setattr(cache, "msvcrt", types.SimpleNamespace(locking=locking, LK_NBLCK=2), raising=False)
    monkeypatch.setattr(cache, "_LOCKED_BY_ANOTHER", PermissionError)
    with cache.locked("mednist") as alone:
        assert alone
    assert asked == 2 * [((cache.root() / "mednist.lock").stat().st_ino, 2, 1)]
    assert "Waiting for another process that writes MedNIST" in capsys.readouterr().err


def test_a_process_may_lock_twice(cache_folder):
    with cache.locked("mednist"), cache.locked("mednist"), cache.locked("hippocampus"):
        cache.save("mednist", {"images": np.zeros(3)})
    assert cache.is_ready("mednist")


# --- killed


@POSIX
def test_kills_at_random_moments_leave_the_old_or_the_new(two_archives):
    download.import_archive(two_archives[161])
    rng = random.Random(0)
    process = importing(two_archives[255])
    began = time.perf_counter()
    assert process.wait(120) == 0
    seconds = time.perf_counter() - began
    for number in range(12):
        process = importing(list(two_archives.values())[number % 2])
        time.sleep(rng.uniform(0.3, 1.05) * seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        cache.verify("mednist")
        images, labels = mednist.load("all")
        assert images[labels == mednist.CLASSES.index("Hand")][1, 32, 32] in two_archives
    download.import_archive(two_archives[161])  # and what the killed ones left half-written goes
    whole({161})


def test_what_a_killed_process_left_goes_with_the_next(archive, cache_folder):
    cache_folder.mkdir()
    for name in ("mednist-images-0123456789ab.npy", "mednist-images-0123456789ab.npy.5fa1.tmp", "mednist.json.77.tmp"):
        (cache_folder / name).write_bytes(b"half")
    (cache_folder / "mednist-images.npy.part").write_bytes(b"an older version's")
    (cache_folder / "hippocampus-images-0123456789ab.npy").write_bytes(b"another data set's")
    (cache_folder / "hippocampus-images-0123456789ab.npy").rename(cache_folder / "other.npy")
    download.import_archive(archive)
    (cache_folder / "other.npy").unlink()
    whole({161})


# --- manifests


def damaged_manifests():
    """Texts of manifests that nobody wrote so, by name."""
    good = {"file": "mednist-images-000000000000.npy", "bytes": 5, "sha256": "0" * 64}

    def files(**changed):
        return json.dumps({"name": "mednist", "files": {"images": good | changed, "labels": good}})

    return {
        "empty": "",
        "half": '{"name": "mednist", "fil',
        "a list": "[]",
        "a number": "17",
        "null": "null",
        "a text": '"files"',
        "no files": '{"name": "mednist"}',
        "files a list": '{"files": []}',
        "files empty": '{"files": {}}',
        "an entry is a text": '{"files": {"images": "x", "labels": "y"}}',
        "an entry is null": '{"files": {"images": null}}',
        "no bytes": json.dumps({"files": {"images": {"file": "x.npy", "sha256": "0" * 64}}}),
        "no checksum": json.dumps({"files": {"images": {"file": "x.npy", "bytes": 5}}}),
        "no file": json.dumps({"files": {"images": {"bytes": 5, "sha256": "0" * 64}}}),
        "bytes a text": files(bytes="5"),
        "bytes true": files(bytes=True),
        "bytes negative": files(bytes=-1),
        "checksum a number": files(sha256=5),
        "checksum short": files(sha256="0"),
        "file a number": files(file=3),
        "file empty": files(file=""),
        "file a point": files(file="."),
        "file above": files(file="../secret.npy"),
        "file with backslashes": files(file="..\\secret.npy"),
        "file on a drive": files(file="C:secret.npy"),
        "file absolute": files(file="/etc/passwd"),
        "file with a zero": files(file="a\0b.npy"),
        "file over-long": files(file="n" * 5000),
        "5,000 digits": '{"files": {"images": {"file": "x.npy", "bytes": ' + "1" * 5000 + "}}}",
        "deep": "[" * 100_000,
        "not UTF-8": b'{"files": "\xff\xfe"}',
    }


@pytest.mark.parametrize("name", damaged_manifests())
def test_a_damaged_manifest_is_told_and_mended(name, archive, cache_folder, capsys):
    cache_folder.mkdir()
    text = damaged_manifests()[name]
    (cache_folder / "mednist.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert mednist.is_available() is False
    with pytest.raises(DataError, match=r"damaged.*mednist\.json"):
        mednist.load()
    assert "damaged" in fails(capsys, "verify", "mednist")
    assert __main__.main(["list"]) == 0
    download.import_archive(archive)
    whole({161})


def test_nothing_outside_the_cache_is_read(cache_folder, tmp_path, capsys):
    np.save(tmp_path / "secret.npy", np.zeros((75, 64, 64), np.uint8))
    size = (tmp_path / "secret.npy").stat().st_size
    cache_folder.mkdir()
    entry = {"file": "../secret.npy", "bytes": size, "sha256": cache.digest(tmp_path / "secret.npy")}
    (cache_folder / "mednist.json").write_text(json.dumps({"files": {"images": entry, "labels": entry}}))
    assert not mednist.is_available()
    assert "damaged" in fails(capsys, "verify", "mednist")
    with pytest.raises(DataError, match="damaged"):
        cache.load_array("mednist", "images")


def rewrite(name, change):
    """Change the manifest of a data set as someone with an editor would."""
    path = cache.root() / f"{name}.json"
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


def swap(found):
    found["files"]["images"], found["files"]["labels"] = found["files"]["labels"], found["files"]["images"]


@pytest.mark.parametrize(
    "change", [swap, lambda found: found["files"].pop("labels")], ids=["arrays swapped", "one array missing"]
)
def test_an_edited_manifest_of_mednist_is_told(change, archive):
    download.import_archive(archive)
    rewrite("mednist", change)
    with pytest.raises(DataError, match=r"damaged.*mednist\.json"):
        mednist.load("all")


VOLUME = {"id": "hippocampus_001", "shape": [6, 6, 7], "affine": np.eye(4).tolist()}
HIPPOCAMPUS = {
    "no volumes": lambda found: found.pop("volumes"),
    "volumes null": lambda found: found.update(volumes=None),
    "a volume too few": lambda found: found["volumes"].pop(),
    "a volume too many": lambda found: found["volumes"].append(VOLUME),
    "a volume is a text": lambda found: found["volumes"].__setitem__(0, "x"),
    "no shape": lambda found: found["volumes"][0].pop("shape"),
    "shape of texts": lambda found: found["volumes"][0].update(shape=["6", "6", "7"]),
    "shape negative": lambda found: found["volumes"][0].update(shape=[-6, -6, 7]),
    "shape flat": lambda found: found["volumes"][0].update(shape=[252]),
    "shape of fractions": lambda found: found["volumes"][0].update(shape=[6.0, 6.0, 7.0]),
    "no affine": lambda found: found["volumes"][0].pop("affine"),
    "affine of texts": lambda found: found["volumes"][0].update(affine=[["a"] * 4] * 4),
    "affine 3 x 3": lambda found: found["volumes"][0].update(affine=np.eye(3).tolist()),
    "affine zero": lambda found: found["volumes"][0].update(affine=np.zeros((4, 4)).tolist()),
    "affine NaN": lambda found: found["volumes"][0].update(affine=np.full((4, 4), np.nan).tolist()),
    "id a number": lambda found: found["volumes"][0].update(id=1),
    "id without a number": lambda found: found["volumes"][0].update(id="hippocampus_x"),
    "id in odd digits": lambda found: found["volumes"][0].update(id="hippocampus_²"),
    "arrays swapped": swap,
}


@pytest.mark.parametrize("name", HIPPOCAMPUS)
def test_an_edited_manifest_of_the_hippocampus_is_told(name, tmp_path):
    download.import_archive(write_tar(tmp_path / "h.tar", hippocampus_members(), "w"))
    rewrite("hippocampus", HIPPOCAMPUS[name])
    with pytest.raises(DataError, match=r"damaged.*hippocampus\.json.*get hippocampus"):
        hippocampus.load("all")


@pytest.mark.parametrize(
    "content",
    [b"", b"\x93NUMPY", b"\x93NUMPY\x09\x00" + bytes(100), b"PK\x05\x06" + bytes(18), b"text" * 30],
    ids=["empty", "magic alone", "odd version", "a zip", "text"],
)
def test_an_array_that_is_none_is_told(content, archive, cache_folder):
    download.import_archive(archive)
    entry = cache.manifest("mednist")["files"]["images"]
    (cache_folder / entry["file"]).write_bytes(content)
    rewrite("mednist", lambda found: found["files"]["images"].update(bytes=len(content)))
    with pytest.raises(DataError, match=rf"{entry['file']} cannot be read.*get mednist"):
        mednist.load()


def test_a_reader_between_two_states_reads_the_new_one(archive, cache_folder, monkeypatch):
    """Another process replaces the data set after this one has read its manifest: arrays of one state, never of two."""
    save_again(1, 1)
    old = cache.manifest("mednist")
    save_again(1, 2)
    real, handed = cache.manifest, []

    def behind(name):
        handed.append(old if not handed else real(name))
        return handed[-1]

    monkeypatch.setattr(cache, "manifest", behind)
    assert np.array(cache.load_array("mednist", "images")).max() == 2


def test_arrays_in_another_order_in_memory_come_back_alike(cache_folder):
    array = np.asfortranarray(np.arange(24).reshape(2, 3, 4))
    cache.save("mednist", {"images": array, "turned": array.T[::2]})
    np.testing.assert_array_equal(cache.load_array("mednist", "images"), array)
    np.testing.assert_array_equal(cache.load_array("mednist", "turned"), array.T[::2])


# --- rights


@POSIX
@pytest.mark.parametrize(("mask", "rights"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_have_the_rights_that_the_user_gives_to_files(mask, rights, archive, cache_folder):
    before = os.umask(mask)
    try:
        download.import_archive(archive)
    finally:
        os.umask(before)
    assert {
        stat.S_IMODE(path.stat().st_mode) for path in cache_folder.iterdir() if path.suffix in (".npy", ".json")
    } == {rights}


@pytest.mark.parametrize("name", ["mednist.json", "images"])
def test_files_that_may_not_be_read_are_not_called_damaged(name, archive, cache_folder, monkeypatch, capsys):
    download.import_archive(archive)
    closed = name if name.endswith("json") else cache.manifest("mednist")["files"]["images"]["file"]
    real = open

    def refuse(path, *arguments, **options):
        if Path(str(path)).name == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr("io.open", refuse)
    with pytest.raises(DataError, match=rf"{closed} cannot be read \(Permission denied\)") as told:
        mednist.load()
    assert "damaged" not in str(told.value)
    assert "Permission denied" in fails(capsys, "verify", "mednist")


@POSIX
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="takes an administrator to be two users")
def test_a_shared_cache_serves_another_user(archive, tmp_path):
    """What one user imported another may read, and what is closed to him is told as closed."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    before = os.umask(0o022)
    download.import_archive(archive)
    os.umask(before)
    read = textwrap.dedent("""
        import os, sys
        import ast, hashlib, json, mmap, numpy, numpy.lib.format, platformdirs  # while all of Python may be read
        from data_fetch import DataError, mednist, cache
        os.setuid(65534)
        try:
            cache.verify("mednist")
            print(len(mednist.load("all")[0]))
        except DataError as error:
            print(error)
    """)

    def other():
        done = subprocess.run([sys.executable, "-c", read], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert other() == f"{sum(COUNTS.values())}\n"
    for path in cache.root().glob("*.npy"):
        path.chmod(0o600)
    assert "cannot be read (Permission denied)" in other()
    for path in cache.root().glob("*.json"):
        path.chmod(0o600)
    assert "cannot be read (Permission denied)" in other()


# --- where the cache is


@pytest.mark.parametrize("place", ["~nosuchuser", "~nosuchuser/data"])
def test_a_folder_of_a_user_who_is_not_there(place, monkeypatch, capsys, archive):
    monkeypatch.setenv("COURSE_DATA", place)
    for verb in (["where"], ["list"], ["get", "mednist"], ["import", archive], ["verify"], ["verify", "mednist"]):
        message = fails(capsys, *verb)
        assert re.search(r"COURSE_DATA.*~nosuchuser", message)
        assert message.endswith(".")
    with pytest.raises(DataError, match="COURSE_DATA"):
        mednist.load()


def test_a_folder_with_too_long_a_name(monkeypatch, capsys, archive):
    monkeypatch.setenv("COURSE_DATA", "/" + "n" * 5000)
    assert not mednist.is_available()
    assert __main__.main(["list"]) == 0
    assert __main__.main(["verify"]) in (0, 1)
    capsys.readouterr()
    assert "File name too long" in fails(capsys, "import", archive)
    assert "File name too long" in fails(capsys, "get", "mednist")
