"""Archives made to harm or made carelessly: each is refused in one sentence, in bounded memory, and nothing is lost."""

import bz2
import gzip
import io
import lzma
import os
import re
import struct
import tarfile
import tracemalloc
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from helpers.archives import (
    COUNTS,
    fails,
    hippocampus_members,
    jpeg,
    mednist_members,
    snapshot,
    write_tar,
)

from data_fetch import DataError, archives, cache, download, hippocampus, mednist, registry

pytestmark = pytest.mark.usefixtures("cache_folder")
HAND = "MedNIST/Hand/000002.jpeg"
IMAGE = "Task04_Hippocampus/imagesTr/hippocampus_001.nii.gz"
LABEL = IMAGE.replace("images", "labels")
MEBIBYTE = 1 << 20


def refusal(path, capsys, *words):
    """The one sentence with which `import` refuses a file."""
    message = fails(capsys, "import", path)
    assert message.endswith(".")
    assert len(message) < 700
    for word in words:
        assert re.search(word, message), message
    return message


def peak(function):
    """Bytes that Python and NumPy held at most while function() ran, beyond what they held before."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# --- names


@pytest.mark.parametrize(
    "name",
    [
        "MedNIST/Hand/٢.jpeg",
        "MedNIST/Hand/２.jpeg",
        "MedNIST/Hand/².jpeg",  # a digit for str.isdigit, not for int()
        f"MedNIST/Hand/{'1' * 5000}.jpeg",
        "MedNIST/Hand/-2.jpeg",
        "MedNIST/Hand/2_0.jpeg",
        "MedNIST/Hand/two\nlines.jpeg",
    ],
    ids=["Arabic", "full width", "superscript", "5,000 digits", "minus", "underscore", "two lines"],
)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_picture_under_an_odd_number_is_named(name, kind, tmp_path, capsys):
    members = {key: value for key, value in mednist_members().items() if key != HAND} | {name: jpeg(162)}
    path = write_tar(tmp_path / "a.tar", members, "w") if kind == "tar" else write_zip(tmp_path / "a.zip", members)
    refusal(path, capsys, "odd number", "Hand")


@pytest.mark.parametrize("number", ["٠٠١", "００１", "00²", "1" * 5000, "", "x"])
def test_a_volume_under_an_odd_number_is_named(number, tmp_path, capsys):
    members = hippocampus_members()
    for name in (IMAGE, LABEL):
        members[name.replace("001", number)] = members.pop(name)
    refusal(write_tar(tmp_path / "h.tar", members, "w"), capsys, "odd number", "hippocampus_")


def test_one_number_in_two_spellings_is_twice(tmp_path, capsys):
    members = hippocampus_members()
    members |= {name.replace("001", "1"): members[name] for name in (IMAGE, LABEL)}
    refusal(write_tar(tmp_path / "h.tar", members, "w"), capsys, "twice")


@pytest.mark.parametrize("name", [".", "./", "./.", "/"])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_file_without_a_name_is_refused_or_passed_over(name, kind, tmp_path, capsys):
    members = {name: b"x"} | mednist_members()
    if kind == "tar":
        refusal(write_tar(tmp_path / "a.tar", members, "w"), capsys, "outside|no name")
    elif name.endswith("."):
        refusal(write_zip(tmp_path / "a.zip", members), capsys, "outside|no name")


def test_a_zip_member_whose_name_has_no_letter(tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("MedNIST/a", b"x")
        file.infolist()[0].filename = ""  # the list of members is written at the end
    refusal(tmp_path / "a.zip", capsys, "no name")


def test_folders_of_that_name_are_what_tar_writes(tmp_path):
    """`tar -cf a.tar .` writes a folder "." and a "./" before every name."""
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as file:
        folder = tarfile.TarInfo(".")
        folder.type = tarfile.DIRTYPE
        file.addfile(folder)
        for name, content in mednist_members().items():
            info = tarfile.TarInfo("./" + name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    assert download.import_archive(path)[0].name == "mednist"


# --- memory


def write_zip(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def header(kind, size):
    """A tar header of one type that announces a size, and a little of it."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT) + b"0\n" * 512


HEADERS = {
    "long name": tarfile.GNUTYPE_LONGNAME,
    "long link": tarfile.GNUTYPE_LONGLINK,
    "pax header": tarfile.XHDTYPE,
    "pax header of all": tarfile.XGLTYPE,
    "Solaris header": tarfile.SOLARIS_XHDTYPE,
}


@pytest.mark.parametrize("kind", HEADERS)
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress], ids=["tar", "gz", "bz2", "xz"])
def test_headers_that_announce_gigabytes(kind, pack, tmp_path, capsys):
    path = tmp_path / "a.tar"
    path.write_bytes(pack(header(HEADERS[kind], 4 << 30)))
    assert peak(lambda: refusal(path, capsys, "not the expected archive")) < 20 * MEBIBYTE


@pytest.mark.parametrize("kind", [*HEADERS.values(), tarfile.REGTYPE, tarfile.DIRTYPE, b"Z", tarfile.GNUTYPE_SPARSE])
@pytest.mark.parametrize("size", [-512, -1, -(1 << 40)])
def test_sizes_below_zero(kind, size, tmp_path, capsys):
    """A tar can state them, and a reader that believes them goes in a circle."""
    path = tmp_path / "a.tar"
    raw = bytearray(header(kind, 0))
    raw[124:136] = size.to_bytes(12, "big", signed=True)
    raw[148:156] = b"        "
    raw[148:156] = b"%06o\0 " % sum(raw[:512])
    path.write_bytes(raw)
    assert peak(lambda: refusal(path, capsys)) < 20 * MEBIBYTE


def test_a_header_within_a_header_and_so_on(tmp_path, capsys):
    one = tarfile.TarInfo("././@LongLink")
    one.type, one.size = tarfile.GNUTYPE_LONGNAME, 512
    path = tmp_path / "a.tar"
    path.write_bytes((one.tobuf(tarfile.GNU_FORMAT) + b"n" * 512) * 20_000)
    assert peak(lambda: refusal(path, capsys)) < 40 * MEBIBYTE


def test_a_sparse_map_of_a_hundred_million_holes(tmp_path, capsys):
    """GNU sparse 1.0: the map stands before the data, in decimal lines, and may say that it has any length."""
    pax = tarfile.TarInfo("MedNIST/Hand/000000.jpeg")
    pax.size = 512
    pax.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": HAND}
    content = pax.tobuf(tarfile.PAX_FORMAT) + b"100000000\n" + b"0\n" * (8 << 20)
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(content, 1))
    assert peak(lambda: refusal(path, capsys)) < 60 * MEBIBYTE


def test_a_sparse_file_is_not_filled_up(tmp_path, capsys):
    pax = tarfile.TarInfo("MedNIST/Hand/000000.jpeg")
    pax.size = 1024
    pax.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(4 << 30)}
    path = tmp_path / "a.tar"
    path.write_bytes(pax.tobuf(tarfile.PAX_FORMAT) + b"1\n0\n512\n".ljust(1024, b"\0") + bytes(1024))
    assert peak(lambda: refusal(path, capsys, "not the expected archive|no regular file")) < 20 * MEBIBYTE


def lying_zip(path, name, content, size):
    """A zip whose entries say that a member unpacks to `size` bytes."""
    write_zip(path, {name: content})
    data = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = data.index(mark) + place
        data[start : start + 4] = struct.pack("<I", size)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("size", [0, 1000, 4_000_000_000])
def test_a_zip_member_that_lies_about_its_size(size, tmp_path, capsys):
    path = lying_zip(tmp_path / "a.zip", HAND, bytes(100 * MEBIBYTE), size)
    assert peak(lambda: refusal(path, capsys)) < 20 * MEBIBYTE


def test_a_zip_member_packed_in_a_way_that_cannot_be_bounded(tmp_path, capsys):
    for number, method in enumerate((zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)):
        path = write_zip(tmp_path / f"{number}.zip", {HAND: bytes(60 * MEBIBYTE)}, method)
        assert peak(lambda path=path: refusal(path, capsys, "zip")) < 20 * MEBIBYTE


def test_a_zip_with_a_list_of_half_a_million_members(tmp_path, capsys):
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", 20, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    count = 500_000
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count & 0xFFFF, count & 0xFFFF, len(entry) * count, 0, 0)
    path = tmp_path / "a.zip"
    path.write_bytes(entry * count + end)
    assert peak(lambda: refusal(path, capsys, "not the expected archive")) < 40 * MEBIBYTE


def test_a_stream_without_an_end(tmp_path, capsys, monkeypatch):
    """A gzip bomb: what follows the end mark of a tar is read, since only its end shows whether it is whole."""
    monkeypatch.setattr(archives, "_TOTAL_LIMIT", 4 * MEBIBYTE, raising=False)
    plain = write_tar(tmp_path / "a.tar", {"MedNIST/README": b"x"}, "w").read_bytes()
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(plain + bytes(16 * MEBIBYTE)))
    refusal(path, capsys, "not the expected archive")


def test_members_without_an_end(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(archives, "_COUNT_LIMIT", 1000, raising=False)
    members = {f"MedNIST/{k}": b"" for k in range(1001)}
    refusal(write_tar(tmp_path / "a.tar", members, "w"), capsys, "not the expected archive")
    refusal(write_zip(tmp_path / "a.zip", members), capsys, "not the expected archive")


def test_more_pictures_than_there_can_be(tmp_path, capsys, monkeypatch):
    """An archive that never ends is left at the first picture too many, not at the end."""
    counts = COUNTS | {"Hand": 2}
    monkeypatch.setitem(registry.DATASETS, "mednist", replace(registry.DATASETS["mednist"], counts=counts))
    members, seen = list(mednist_members().items()), []

    def endless():
        for item in members:
            seen.append(item)
            yield item

    with pytest.raises(Exception, match="not the whole MedNIST"):
        mednist.pack(endless(), registry.DATASETS["mednist"])
    assert len([name for name, _ in seen if "/Hand/" in name]) == 3


def volume(voxels, **fields):
    """A compressed NIfTI file of voxels, with the identity as its affine; then header fields are set."""
    import nibabel

    raw = bytearray(nibabel.Nifti1Image(voxels, np.eye(4)).to_bytes())
    header = nibabel.Nifti1Header(bytes(raw[:348]))
    for key, value in fields.items():
        header[key] = value
    raw[:348] = header.binaryblock
    return gzip.compress(bytes(raw), 1)


SHAPE = (5 + 1 % 3, 6, 7)  # of volume 1 in hippocampus_members
GOOD = np.random.default_rng(1).uniform(0, 112, SHAPE).astype(np.float32)
ZEROS = np.zeros(SHAPE, np.uint8)


def with_one(value, dtype=np.float32):
    voxels = GOOD.astype(dtype)
    voxels[2, 3, 4] = value
    return voxels


def test_volumes_too_large_for_a_hippocampus(tmp_path, capsys):
    huge = np.zeros((400, 400, 60), np.uint8)
    members = hippocampus_members() | {IMAGE: volume(huge), LABEL: volume(huge)}
    path = write_tar(tmp_path / "h.tar", members, "w")
    assert peak(lambda: refusal(path, capsys, "hippocampus_001")) < 40 * MEBIBYTE


def test_more_volumes_than_there_can_be(tmp_path, capsys):
    members = hippocampus_members(ids=range(1, 30))
    refusal(write_tar(tmp_path / "h.tar", members, "w"), capsys, "not the whole")


# --- volumes that are none


def affines():
    """Affine matrices that place no volume, by name."""
    flat, twice = np.eye(4), np.eye(4)
    flat[1, 1] = 0
    twice[:3, 1] = twice[:3, 0]
    nan, infinite, shifted = np.eye(4), np.eye(4), np.eye(4)
    nan[0, 0], infinite[1, 1], shifted[2, 3] = np.nan, np.inf, np.nan
    return {
        "zero": np.diag([0.0, 0, 0, 1]),
        "one axis zero": flat,
        "two axes alike": twice,
        "NaN": nan,
        "infinite": infinite,
        "origin NaN": shifted,
        "nearly zero": np.diag([1e-30, 1e-30, 1e-30, 1]),
    }


@pytest.mark.parametrize("name", affines())
def test_volumes_that_lie_nowhere(name, tmp_path, capsys):
    rows = dict(zip(("srow_x", "srow_y", "srow_z"), affines()[name][:3], strict=True))
    members = hippocampus_members() | {IMAGE: volume(GOOD, sform_code=2, qform_code=0, **rows)}
    refusal(write_tar(tmp_path / "h.tar", members, "w"), capsys, "hippocampus_001", "affine")


VOLUMES = {
    "NaN": (IMAGE, with_one(np.nan), "NaN or infinite"),
    "infinite": (IMAGE, with_one(np.inf), "NaN or infinite"),
    "beyond float32": (IMAGE, with_one(1e300, np.float64), "NaN or infinite"),
    "complex": (IMAGE, GOOD.astype(np.complex64), "complex"),
    "colour": (IMAGE, np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")]), "colour|complex"),
    "labels NaN": (LABEL, with_one(np.nan), "NaN or infinite"),
    "labels complex": (LABEL, (ZEROS + 1j).astype(np.complex64), "complex"),
    "labels of 0.5": (LABEL, (ZEROS + 0.5).astype(np.float32), "label map"),
    "no voxels": (IMAGE, np.zeros((0, 6, 7), np.float32), "no readable|voxels|dimensions"),
}


@pytest.mark.parametrize("name", VOLUMES)
def test_volumes_that_hold_no_image(name, tmp_path, capsys):
    import warnings

    member, voxels, words = VOLUMES[name]
    members = hippocampus_members() | {member: volume(voxels)}
    if name == "no voxels":
        members[LABEL] = volume(np.zeros((0, 6, 7), np.uint8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a warning is no sentence
        refusal(write_tar(tmp_path / "h.tar", members, "w"), capsys, "hippocampus_001", words)
    assert not hippocampus.is_available()


def test_a_slope_that_is_not_finite_or_zero_is_none(tmp_path):
    """NIfTI: scl_slope 0 means that the voxels are not scaled; nibabel takes NaN so too."""
    for slope in (0, np.nan):
        voxels = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
        members = hippocampus_members() | {IMAGE: volume(voxels, scl_slope=slope, scl_inter=slope)}
        download.import_archive(write_tar(tmp_path / "h.tar", members, "w"))
        np.testing.assert_array_equal(hippocampus.load("all")[0].image, voxels.astype(np.float32))


# --- damage of every kind


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.bz2", "tar.xz", "zip"])
def test_flipped_bytes_give_a_sentence_or_what_was_packed(kind, tmp_path, capsys):
    """Forty damaged copies each: an error of one sentence, or every member as it was (a byte nobody reads)."""
    members = {f"MedNIST/{name}": bytes(range(256)) * 2 for name in "abcdefgh"}
    path = tmp_path / f"a.{kind}"
    if kind == "zip":
        write_zip(path, members)
    else:
        write_tar(path, members, "w:" + kind[4:])
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    marks = (
        [0, len(whole) - 1, *range(150, 157)] if kind == "tar" else [*range(0, 20), *range(len(whole) - 22, len(whole))]
    )
    for place in [*marks, *rng.integers(0, len(whole), 40)]:
        damaged = bytearray(whole)
        damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        found, sentence = {}, "."
        try:
            found = dict(archives.members(path))
        except DataError as error:
            sentence = str(error)
        assert sentence.endswith(".")
        assert "\n" not in sentence
        assert kind == "tar" or set(found.values()) <= set(members.values())  # a plain tar has no checksum of data


def test_a_file_that_may_not_be_read_is_no_damage(archive, tmp_path, capsys, monkeypatch):
    real = open

    def refuse(path, *arguments, **options):
        if str(path) == str(archive):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr("builtins.open", refuse)
    message = refusal(archive, capsys, "Permission denied")
    assert "damaged" not in message
    assert "download it again" not in message


def test_what_was_there_stays_and_nothing_is_written(archive, cache_folder, tmp_path, capsys):
    download.import_archive(archive)
    before = snapshot(cache_folder)
    bad = lying_zip(tmp_path / "b.zip", HAND, bytes(MEBIBYTE), 1000)
    refusal(bad, capsys)
    assert snapshot(cache_folder) == before
    assert sorted(os.listdir(tmp_path)) == ["MedNIST.tar.gz", "b.zip", "cache"]
    cache.verify("mednist")
