"""Lung nodules, multiple sclerosis, brain tumours and raw k-space, from tiny archives built as the real ones are.

Set COURSE_ARCHIVES to a folder that holds the real archives to test those as well.
"""

import gzip
import io
import json
import os
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
from helpers.archives import (
    LIDC_KEPT,
    LIDC_SLICES,
    MS_INFO,
    fails,
    kspace,
    lidc_members,
    lidc_slice,
    matlab,
    matlab_members,
    mni_nifti,
    ms_members,
    ms_path,
    ms_voxels,
    npy,
    png,
    snapshot,
    tumour_members,
    tumour_slice,
    write_tar,
)

from course_lib import datasets
from data_fetch import (
    DataError,
    __main__,
    archives,
    brain_tumours,
    cache,
    download,
    lidc,
    ms_lesions,
    packing,
    raw_mri,
    registry,
)

WHOLE = dict(registry.DATASETS)  # as they are outside of the tests

pytestmark = pytest.mark.usefixtures("cache_folder")


def import_members(path, members):
    """Import {name: bytes} as a tar archive."""
    return download.import_archive(write_tar(path, members, "w"))


def cached():
    """{name: bytes} of what the cache holds, locks aside."""
    return {name: content for name, content in snapshot(cache.root()).items() if not name.endswith(".lock")}


def refused(members, words, folder, capsys):
    """Assert that {name: bytes or None} as an archive is refused in one sentence, and that nothing came of it."""
    before = cached()
    good = {name: content for name, content in members.items() if content is not None}
    message = fails(capsys, "import", write_tar(folder / "bad.tar", good, "w"))
    assert re.search(words, message), message
    assert message.endswith(".")
    assert cached() == before
    assert not list(folder.rglob("evil*"))


def write_folder(path, members):
    """{name: bytes} as files below a folder; returns its path."""
    for name, content in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


# --- lung nodules


@pytest.mark.parametrize("side", [64, 128])
def test_lidc_of_both_layouts_is_the_same(side, tmp_path):
    dataset, public = import_members(tmp_path / "a.tar", lidc_members(side))
    assert (dataset.name, public) == ("lidc", False)
    found = lidc.load("all")
    places = [(*nodule, k) for nodule, slices in LIDC_KEPT.items() for k in slices]
    assert list(zip(found.persons, found.nodules, found.slices)) == places
    assert found.persons.dtype == np.int64
    for image, masks, place in zip(found.images, found.masks, places):
        wanted, outlines = lidc_slice(place)
        np.testing.assert_array_equal(image, wanted[32:96, 32:96])
        np.testing.assert_array_equal(masks, outlines[:, 32:96, 32:96])
    assert found.images.dtype == found.masks.dtype == np.uint8
    assert found.masks.shape == (14, 4, 64, 64)
    assert 41 not in found.persons


def test_lidc_is_split_by_person(tmp_path):
    import_members(tmp_path / "a.tar", lidc_members())
    parts = [lidc.load(split) for split in lidc.SPLITS]
    assert [sorted(set(part.persons.tolist())) for part in parts] == [[1, 12], [8], [9]]
    assert [len(part.images) for part in parts] == [10, 2, 2]
    parts[0].images[:] = 0  # the caller's own copy
    assert lidc.load("train").images.any()
    share = np.bincount(lidc.part(np.arange(1, 1013))) / 1012
    np.testing.assert_allclose(share, [0.8, 0.1, 0.1], atol=0.002)


def test_lidc_as_networks_see_it(tmp_path):
    """Training: each slice beside each of its readings. Measures: the middle slice of each nodule."""
    import_members(tmp_path / "a.tar", lidc_members())
    found = lidc.load("train")
    images, masks = datasets.lidc_readings()
    assert images.shape == masks.shape == (4 * len(found.images), 64, 64) and masks.dtype == np.uint8
    for n, k in ((0, 0), (2, 3), (5, 1)):
        np.testing.assert_array_equal(images[4 * n + k], found.images[n])
        np.testing.assert_array_equal(masks[4 * n + k], found.masks[n, k])
    for split in lidc.SPLITS:
        nodules = {
            nodule: places for nodule, places in LIDC_KEPT.items() if lidc.part(nodule[0]) == lidc.SPLITS.index(split)
        }
        images, readings, persons = datasets.lidc_cases(split)
        assert persons.tolist() == [person for person, _ in nodules] and readings.dtype == bool
        for n, (nodule, places) in enumerate(nodules.items()):
            image, outlines = lidc_slice((*nodule, places[len(places) // 2]))
            np.testing.assert_array_equal(images[n], image[32:96, 32:96])
            np.testing.assert_array_equal(readings[:, n], outlines[:, 32:96, 32:96])


def test_lidc_keeps_a_slice_whose_outlines_left_the_crop(tmp_path):
    """In pictures of 64 x 64 all slices were chosen already; in those of 128 x 128 an outline counts wherever it is."""
    members = lidc_members(128)
    masks = np.zeros((128, 128), np.uint8)
    masks[:5, :5] = 255
    for number in range(4):
        members[f"Pulmoseg-045c0c6b/LIDC-IDRI-slices/LIDC-IDRI-0001/nodule-1/mask-{number}/slice-0.png"] = png(masks)
    import_members(tmp_path / "a.tar", members)
    first = lidc.load("all")
    members = lidc_members(64)
    for number in range(4):
        members[f"LIDC-IDRI-slices/LIDC-IDRI-0001/nodule-1/mask-{number}/slice-0.png"] = png(np.zeros((64, 64), bool))
    import_members(tmp_path / "b.tar", members)
    np.testing.assert_array_equal(first.masks, lidc.load("all").masks)
    assert not first.masks[3].any()


NODULE = "LIDC-IDRI-slices/LIDC-IDRI-0008/nodule-0/"
GREY = np.full((64, 64), 100, np.uint8)


BAD_LIDC = {
    "a mask missing": ({NODULE + "mask-2/slice-0.png": None}, "slice 0 of nodule 0.*no mask-2"),
    "an image missing": ({NODULE + "images/slice-1.png": None}, "slice 1.*no images"),
    "a person missing": (dict.fromkeys(k for k in lidc_members() if NODULE in k), "'persons': 3.*'persons': 4"),
    "a slice too many": (lidc_members(slices={(8, 0): (0, 1, 2)}), "'slices': 15.*'slices': 14} exp"),
    "far too many slices": (lidc_members(slices={(8, 0): range(30)}), "above 28 slices"),
    "another size": ({NODULE + "images/slice-0.png": png(GREY[:32, :32])}, "32x32.*64x64 or 128x128"),
    "no square": ({NODULE + "images/slice-0.png": png(GREY[:32])}, "64x32"),
    "two sizes": ({NODULE + "images/slice-0.png": png(np.tile(GREY, (2, 2)))}, "mixes"),
    "a grey mask": ({NODULE + "mask-0/slice-0.png": png(GREY)}, "shades of grey"),
    "colour": ({NODULE + "images/slice-0.png": png(np.stack([GREY] * 3, -1))}, "mode RGB"),
    "half a picture": (
        {NODULE + "images/slice-0.png": png(lidc_slice((1, 1, 1))[0])[:999]},
        "readable",
    ),
    "no picture": ({NODULE + "images/slice-0.png": b"text"}, "no readable PNG"),
    "a fifth reader": ({NODULE + "mask-4/slice-0.png": png(GREY)}, "odd name"),
    "an odd number": ({NODULE + "images/slice-².png": png(GREY)}, "odd name"),
    "outside": ({"LIDC-IDRI-slices/../../evil.png": b"x"}, "outside the archive"),
}


@pytest.mark.parametrize("name", BAD_LIDC)
def test_bad_archives_of_lidc(name, tmp_path, capsys):
    import_members(tmp_path / "good.tar", lidc_members())
    changes, words = BAD_LIDC[name]
    refused(lidc_members() | changes, words, tmp_path, capsys)
    cache.verify("lidc")


def test_a_picture_twice(tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for name, content in lidc_members().items():
            file.writestr(name, content)
        file.writestr(f"./{NODULE}images/slice-0.png", png(GREY))  # another name for the same place
    assert "twice" in fails(capsys, "import", tmp_path / "a.zip")


# --- multiple sclerosis


def canonical(number, kind):
    """What nibabel makes of a file in RAS+."""
    stored = nibabel.Nifti1Image.from_bytes(gzip.decompress(mni_nifti(ms_voxels(number, kind))))
    return nibabel.as_closest_canonical(stored).get_fdata()


def test_ms_masks_volumes_and_facts(tmp_path):
    assert import_members(tmp_path / "a.tar", ms_members())[0].name == "ms_lesions"
    persons = ms_lesions.load()
    assert [person.number for person in persons] == [1, 2, 3]
    for person in persons:
        assert person.lesions.dtype == bool
        np.testing.assert_array_equal(person.lesions, canonical(person.number, "mask") > 0)
    assert [(person.age, person.sex, person.course, person.edss) for person in persons] == [
        *((31, "F", "RR", 1.5), (33, "M", "CIS", 0.0), (37, "F", None, None))
    ]
    assert [list(person.stored) for person in persons] == [[], list(ms_lesions.CONTRASTS), []]
    for contrast in ms_lesions.CONTRASTS:
        volume, wanted = persons[1].volume(contrast), canonical(2, contrast).clip(0)
        assert volume.dtype == np.float32
        np.testing.assert_allclose(volume, wanted, atol=wanted.max() / 255 / 2 * 1.0001)  # half a grey level
        assert volume.max() == pytest.approx(wanted.max(), rel=1e-6)
    with pytest.raises(DataError, match="Person 1 has no 'FLAIR'; there are: no volumes"):
        persons[0].volume("FLAIR")
    with pytest.raises(DataError, match="no 'PD'; there are: FLAIR, T1, T1POST, T2"):
        persons[1].volume("PD")


def test_ms_persons_by_number(tmp_path):
    import_members(tmp_path / "a.tar", ms_members())
    assert [person.number for person in ms_lesions.load([3, 1])] == [3, 1]
    with pytest.raises(DataError, match="no person 4.*1 to 3"):
        ms_lesions.load([4])


def test_the_affine_of_the_grid_is_that_of_nibabel():
    shape = WHOLE["ms_lesions"].counts["grid"]
    stored = nibabel.Nifti1Image.from_bytes(gzip.decompress(mni_nifti(np.zeros(shape, np.uint8))))
    np.testing.assert_array_equal(ms_lesions.AFFINE, nibabel.as_closest_canonical(stored).affine)


def test_ms_volumes_of_eight_bits_come_back_as_they_were(tmp_path):
    """The archive at hand has uint8 and a slope, the public one float32: both give the same arrays."""
    import_members(tmp_path / "a.tar", ms_members())
    first = np.array(cache.load_array("ms_lesions", "volumes"))
    members = ms_members()
    for contrast, voxels, slope in zip(ms_lesions.CONTRASTS, first, ms_lesions.load([2])[0].slopes.values()):
        stored = nibabel.Nifti1Image.from_bytes(gzip.decompress(mni_nifti(voxels[::-1])))
        raw = bytearray(stored.to_bytes())
        header = nibabel.Nifti1Header(bytes(raw[:348]))
        header.set_slope_inter(slope, 0)
        raw[:348] = header.binaryblock
        members[ms_path(2, contrast)] = gzip.compress(bytes(raw))
    import_members(tmp_path / "b.tar", members)
    np.testing.assert_array_equal(cache.load_array("ms_lesions", "volumes"), first)


def volume_with(value):
    voxels = ms_voxels(2, "T1")
    voxels[3, 3, 3] = value
    return mni_nifti(voxels)


INFO = "open_ms_data/cross_sectional/patient_info.csv"
MASK, T1 = ms_path(1, "mask"), ms_path(2, "T1")
ELSEWHERE = np.diag([-1.0, 1, 1, 1])
BAD_MS = {
    "a mask missing": ({MASK: None}, "2 masks, 4 volumes and a patient_info"),
    "a volume missing": ({T1: None}, "3 masks, 3 volumes"),
    "no list": ({INFO: None}, "4 volumes and no patient_info"),
    "a mask too many": ({ms_path(4, "mask"): mni_nifti(ms_voxels(4, "mask"))}, "odd number"),
    "another shape": ({MASK: mni_nifti(np.zeros((12, 10, 8), np.uint8))}, "instead of 12 x 10 x 9"),
    "four dimensions": ({T1: mni_nifti(np.zeros((12, 10, 9, 2), np.uint8))}, "12, 10, 9, 2"),
    "another grid": ({MASK: mni_nifti(ms_voxels(1, "mask"), ELSEWHERE)}, "not on the grid of MNI152"),
    "a mask of 2": ({MASK: mni_nifti(ms_voxels(1, "mask") * 2)}, "no mask of 0 and 1"),
    "NaN": ({T1: volume_with(np.nan)}, "NaN or infinite"),
    "infinite": ({T1: volume_with(np.inf)}, "NaN or infinite"),
    "empty": ({T1: mni_nifti(-np.ones((12, 10, 9), np.float32))}, "no voxel is above 0"),
    "complex": ({T1: mni_nifti(ms_voxels(2, "T1").astype(np.complex64))}, "complex64"),
    "no NIfTI": ({T1: gzip.compress(b"text")}, "no readable NIfTI"),
    "a bomb": ({T1: gzip.compress(bytes(50 << 20))}, "unpacks to more than 40 MB"),
    "cut off": ({T1: mni_nifti(ms_voxels(2, "T1"))[:300]}, "no readable NIfTI"),
    "other columns": ({INFO: b"a,b\n1,2\n"}, "patient_info.csv.*columns"),
    "an odd age": ({INFO: MS_INFO.replace(b"31", b"310")}, "patient_info.csv.*person 1"),
    "a person less": ({INFO: MS_INFO[: MS_INFO.index(b"3,37")]}, "patient_info.csv.*2 persons"),
    "no text": ({INFO: b"\xff\xfe"}, "patient_info.csv"),
    "outside": ({"open_ms_data/cross_sectional/../../evil": b"x"}, "outside the archive"),
}


@pytest.mark.parametrize("name", BAD_MS)
def test_bad_archives_of_ms(name, tmp_path, capsys):
    import_members(tmp_path / "good.tar", ms_members())
    changes, words = BAD_MS[name]
    refused(ms_members() | changes, words, tmp_path, capsys)


# --- brain tumours


@pytest.mark.parametrize("make", [tumour_members, matlab_members])
def test_tumours_of_both_layouts_are_the_same(make, tmp_path):
    assert import_members(tmp_path / "a.tar", make())[0].name == "brain_tumours"
    found = brain_tumours.load("all")
    assert found.numbers.tolist() == [*range(1, 41), *range(1841, 1881), *range(1283, 1323)]
    assert np.bincount(found.labels).tolist() == [40] * 3
    for number, image, mask in zip(found.numbers, found.images, found.masks):
        wanted, outline = tumour_slice(number)
        np.testing.assert_array_equal(image, wanted)
        np.testing.assert_array_equal(mask, outline)
    assert found.images.dtype == found.masks.dtype == np.uint8


def test_tumours_without_patients_are_split_by_blocks_with_a_gap(tmp_path):
    import_members(tmp_path / "a.tar", tumour_members())
    parts = [brain_tumours.load(split) for split in brain_tumours.SPLITS]
    # of 40 slices of a class the last 4, then a gap of 10, then 4, then a gap of 10, then 12
    for label, first in enumerate((1, 1841, 1283)):
        numbers = [(part.numbers[part.labels == label] - first).tolist() for part in parts]
        assert numbers == [list(range(12)), list(range(22, 26)), list(range(36, 40))]
    assert (parts[0].patients == -1).all()


@pytest.mark.parametrize("slices_each", [1, 3, 7, 40])
def test_tumours_with_patients_are_split_by_patient(slices_each, tmp_path):
    import_members(tmp_path / "a.tar", matlab_members(slices_each))
    everything = brain_tumours.load("all")
    wanted = [40 * label + k // slices_each for label in range(3) for k in range(40)]
    assert len(set(everything.patients)) == 3 * -(-40 // slices_each)
    for one, two in zip(zip(everything.patients, wanted), zip(everything.patients[1:], wanted[1:])):
        assert (one[0] == two[0]) == (one[1] == two[1])
    parts = [brain_tumours.load(split) for split in brain_tumours.SPLITS]
    assert sum(len(part.numbers) for part in parts) == 120  # no gap is needed
    assert sum(len(set(part.patients)) for part in parts) == len(set(everything.patients))
    without_patients = brain_tumours.parts(everything.labels, np.full(120, -1))
    test = everything.patients[without_patients == 2]
    assert set(parts[2].patients) <= set(test)  # who is tested on here is not trained on where no patient is known


def test_a_patient_goes_where_the_first_slice_is():
    labels, patients = np.zeros(40, int), np.full(40, -1)
    patients[[11, 37]], patients[[24, 25, 36]], patients[[15, 38]], patients[[30, 39]] = 0, 1, 2, 3
    parts = brain_tumours.parts(labels, patients)
    assert parts[[11, 37, 15, 38]].tolist() == [0] * 4  # 15 lies in the gap after the training set
    assert parts[[24, 25, 36, 30, 39]].tolist() == [1] * 5  # and 30 in that after the validation set
    with pytest.raises(DataError, match="20 slices of a class are too few.*25 are enough"):
        brain_tumours.parts(np.zeros(20, int), np.full(20, -1))


def matlab_with(label=1, patient="9", **fields):
    """The first MATLAB file with other fields."""
    image, mask = (np.kron(part, np.ones((2, 2), int)) for part in tumour_slice(1))
    return {"set/1.mat": matlab(label, patient, image, mask, **fields)}


def linked():
    """A MATLAB file whose image lies in another file."""
    stream = io.BytesIO(matlab(1, "9", *tumour_slice(1), image=None))
    with h5py.File(stream, "r+") as file:
        file["cjdata/image"] = h5py.ExternalLink("/etc/passwd", "/x")
    return {"set/1.mat": stream.getvalue()}


LABELS = tumour_members()["labels.csv"]
BAD_TUMOURS = {
    "an image missing": ({"images/5.png": None}, "119 images, 120 masks"),
    "a mask missing": ({"masks/5.png": None}, "120 images, 119 masks"),
    "no labels": ({"labels.csv": None}, "'meningioma': 0"),
    "a label missing": ({"labels.csv": LABELS[:-14]}, "'pituitary': 39"),
    "an unknown tumour": ({"labels.csv": LABELS.replace(b"glioma", b"glio")}, "labels.csv"),
    "other columns": ({"labels.csv": b"a,b"}, "labels.csv.*columns"),
    "labels twice": ({"labels.csv": LABELS + b"\n1,glioma"}, "labels.csv.*twice"),
    "one too many": ({"images/41.png": png(tumour_slice(41)[0])}, "more than 120"),
    "an odd number": ({"images/٢.png": png(GREY)}, "odd number"),
    "another size": ({"images/5.png": png(GREY)}, "64x64 pixels.*128x128"),
    "a mask of another size": ({"masks/5.png": png(GREY > 0)}, "64x64 pixels.*128x128"),
    "an empty mask": ({"masks/5.png": png(np.zeros((128, 128), bool))}, "grey or empty"),
    "a grey mask": ({"masks/5.png": png(np.tile(GREY, (2, 2)))}, "grey or empty"),
    "outside": ({"images/../../evil.png": b"x"}, "outside the archive"),
}
BAD_MATLAB = {
    "a MATLAB file missing": ({"set/5.mat": None}, "119 images"),
    "no MATLAB file": ({"set/1.mat": b"MATLAB 5.0"}, "1.mat.*no MATLAB file of a tumour"),
    "a cut MATLAB file": ({"set/1.mat": matlab(1, "9", *tumour_slice(1))[:3000]}, "no MATLAB file"),
    "another class": (matlab_with(label=4), "odd label"),
    "a class that is NaN": (matlab_with(label=np.nan), "odd label"),
    "a class that changed": (matlab_with(label=2), "'meningioma': 39, 'glioma': 41"),
    "no patient": (matlab_with(PID=None), "no MATLAB file of a tumour.*PID"),
    "an empty patient": (matlab_with(patient=" "), "odd label or patient"),
    "no mask": (matlab_with(tumorMask=None), "no MATLAB file of a tumour.*tumorMask"),
    "a mask of another shape": (matlab_with(tumorMask=np.ones((256, 128), np.uint8)), "no squares alike"),
    "an empty outline": (matlab_with(tumorMask=np.zeros((256, 256), np.uint8)), "grey or empty"),
    "an outline of 7": (matlab_with(tumorMask=np.full((256, 256), 7, np.uint8)), "grey or empty"),
    "an odd size": (matlab_with(image=np.ones((200, 200)), tumorMask=np.ones((200, 200))), "no squares alike"),
    "a huge image": (matlab_with(image=np.zeros((2048, 1024), np.int16)), "image is not what it should be"),
    "an image that is NaN": (matlab_with(image=np.full((256, 256), np.nan)), "flat, NaN or infinite"),
    "a flat image": (matlab_with(image=np.full((256, 256), 3)), "flat, NaN or infinite"),
    "an image of text": (matlab_with(image=np.array([b"text"])), "image is not what it should be"),
    "an image elsewhere": (linked(), "image lies in another file"),
}


@pytest.mark.parametrize("name", BAD_TUMOURS)
def test_bad_archives_of_tumours(name, tmp_path, capsys):
    import_members(tmp_path / "good.tar", tumour_members())
    changes, words = BAD_TUMOURS[name]
    refused(tumour_members() | changes, words, tmp_path, capsys)


@pytest.mark.parametrize("name", BAD_MATLAB)
def test_bad_matlab_files(name, tmp_path, capsys):
    changes, words = BAD_MATLAB[name]
    refused(matlab_members() | changes, words, tmp_path, capsys)


def test_a_folder_is_read_as_an_archive(tmp_path, monkeypatch):
    """As the four zip files of the tumours are unpacked, with what else may lie in the folder."""
    folder = write_folder(tmp_path / "tumours", matlab_members())
    write_folder(folder, {".git/HEAD": b"x", "set/.DS_Store": b"x", "set/._1.mat": b"x", "all.zip": bytes(900_000)})
    monkeypatch.setattr(archives, "_MEMBER_LIMIT", 800_000)
    names = [name for name, _ in archives.members(folder)]
    assert len(names) == 120 + 3
    assert {name.partition("/")[0] for name in names} == {"tumours"}
    assert not any(part.startswith(".") or part == "all.zip" for name in names for part in name.split("/"))
    assert download.import_archive(folder) == (registry.DATASETS["brain_tumours"], False)
    assert len(brain_tumours.load("all").images) == 120
    with pytest.raises(DataError, match="none of the course's data sets"):
        download.import_archive(write_folder(tmp_path / "others", {"a/b.txt": b"x"}))


# --- raw k-space


def test_raw_mri_comes_back_as_it_was(tmp_path, capsys):
    array = kspace()
    for name, content in (("cartesian_ksp.npy", npy(array)), ("without an ending", npy(np.asfortranarray(array)))):
        (tmp_path / name).write_bytes(content)
        assert __main__.main(["import", str(tmp_path / name)]) == 0
        assert "Raw MRI: k-space of a head is ready" in capsys.readouterr().out
        np.testing.assert_array_equal(raw_mri.load(), array)
    sampled = raw_mri.sampled(raw_mri.load())
    assert sampled.sum() == 5148
    assert sampled[103:127, 78:102].all()
    raw_mri.load()[:] = 0  # the caller's own copy
    assert raw_mri.load().any()


def kspace_with(place, value):
    array = kspace()
    array[place] = value
    return npy(array)


GAP = (slice(None), 110, 90)
BAD_KSPACE = {
    "another shape": (npy(kspace()[:7]), "complex64 of shape \\(7, 230, 180\\)"),
    "another type": (npy(kspace().astype(np.complex128)), "it has complex128"),
    "NaN": (kspace_with(GAP, np.nan), "NaN or infinite"),
    "infinite": (kspace_with(GAP, np.inf), "NaN or infinite"),
    "a sample less": (kspace_with(GAP, 0), "5147 positions.*5148 expected"),
    "one coil less": (kspace_with((0, 110, 90), 0), "5148 positions.*5147 by all"),
    "fully sampled": (npy(np.ones((8, 230, 180), np.complex64)), "41400 positions"),
    "cut off": (npy(kspace())[:-100], "not the raw MRI"),
    "a header alone": (npy(kspace())[:128], "not the raw MRI"),
    "magic alone": (b"\x93NUMPY", "not the raw MRI"),
    "an odd version": (b"\x93NUMPY\x09\x00" + bytes(100), "not the raw MRI"),
    "objects": (npy(np.array([{}], object), allow_pickle=True), "not the raw MRI"),
    "announced gigabytes": (npy(kspace()[:0]).replace(b"(0, 230, 180)", b"(9999, 9, 9)"), "not the raw MRI"),
}


@pytest.mark.parametrize("name", BAD_KSPACE)
def test_bad_kspace(name, tmp_path, capsys, cache_folder):
    (tmp_path / "good.npy").write_bytes(npy(kspace()))
    download.import_archive(tmp_path / "good.npy")
    before = snapshot(cache_folder)
    content, words = BAD_KSPACE[name]
    (tmp_path / "bad.npy").write_bytes(content)
    message = fails(capsys, "import", tmp_path / "bad.npy")
    assert re.search(words, message), message
    assert "bad.npy" in message
    assert message.endswith(".")
    assert snapshot(cache_folder) == before


def test_kspace_with_a_gap_in_its_centre(tmp_path, capsys):
    array, free = kspace(), np.argwhere(~kspace().any(0))[0]
    array[:, free[0], free[1]] = array[:, 110, 90]
    array[:, 110, 90] = 0
    (tmp_path / "bad.npy").write_bytes(npy(array))
    assert "its centre has gaps" in fails(capsys, "import", tmp_path / "bad.npy")


# --- all four

MEMBERS = {"lidc": lidc_members, "ms_lesions": ms_members, "brain_tumours": tumour_members}
MODULES = {"lidc": lidc, "ms_lesions": ms_lesions, "brain_tumours": brain_tumours, "raw_mri": raw_mri}


def bring(name, folder):
    """Put a tiny version of a data set into the cache; returns the archive's path."""
    if name == "raw_mri":
        (folder / "k.npy").write_bytes(npy(kspace()))
        download.import_archive(folder / "k.npy")
        return folder / "k.npy"
    path = write_tar(folder / f"{name}.tar.gz", MEMBERS[name]())
    download.import_archive(path)
    return path


@pytest.mark.parametrize("name", MODULES)
def test_optional_until_asked_for(name, tmp_path, capsys):
    assert not MODULES[name].is_available()
    assert not datasets.is_here(name)
    with pytest.raises(DataError, match=r"is not in the cache.*data_fetch import FILE"):
        MODULES[name].load()
    bring(name, tmp_path)
    assert MODULES[name].is_available()
    assert datasets.is_here(name)
    assert __main__.main(["verify", name]) == 0
    assert cache.manifest(name)["licence"] == registry.find(name).licence
    capsys.readouterr()
    assert __main__.main(["list"]) == 0
    listed = capsys.readouterr().out
    assert re.search(rf"{name} +here", listed)
    assert registry.find(name).citation in listed


@pytest.mark.parametrize("name", MODULES)
def test_twice_gives_the_same_files(name, tmp_path, cache_folder):
    bring(name, tmp_path)
    before = snapshot(cache_folder)
    bring(name, tmp_path)
    assert snapshot(cache_folder) == before


@pytest.mark.parametrize("name", MODULES)
def test_a_cut_archive_is_told(name, tmp_path, capsys, cache_folder):
    path = bring(name, tmp_path)
    before = snapshot(cache_folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert re.search("cut off, damaged|not the raw MRI", fails(capsys, "import", path))
    assert snapshot(cache_folder) == before


@pytest.mark.parametrize("name", MODULES)
def test_arrays_that_do_not_fit_are_told(name, tmp_path):
    bring(name, tmp_path)
    found = cache.manifest(name)
    arrays = {key: np.array(cache.load_array(name, key))[:1, ..., :1].real.astype("u2") for key in found["files"]}
    cache.save(name, arrays, **{key: value for key, value in found.items() if key not in ("files", "name")})
    with pytest.raises(DataError, match=rf"damaged.*{name}\.json"):
        MODULES[name].load()


@pytest.mark.parametrize(
    "change",
    [
        lambda persons: persons.pop(),
        lambda persons: persons[0].pop("age"),
        lambda persons: persons[1]["volumes"].pop("T1"),
        lambda persons: persons[1]["volumes"].update(T1=[9, 1.0]),
        lambda persons: persons[1]["volumes"].update(T1=[0, float("nan")]),
        lambda persons: persons[1].update(volumes=3),
        lambda persons: persons.__setitem__(0, "x"),
    ],
)
def test_an_edited_manifest_of_ms_is_told(change, tmp_path):
    bring("ms_lesions", tmp_path)
    path = cache.root() / "ms_lesions.json"
    found = json.loads(path.read_text())
    change(found["persons"])
    path.write_text(json.dumps(found))
    with pytest.raises(DataError, match=r"damaged.*ms_lesions\.json"):
        ms_lesions.load()


@pytest.mark.parametrize("name", MODULES)
def test_packed_for_a_machine_without_a_network(name, tmp_path, monkeypatch):
    bring(name, tmp_path)
    before = {key: np.array(cache.load_array(name, key)) for key in cache.manifest(name)["files"]}
    packing.pack(name, tmp_path / "p.pack")
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "elsewhere"))
    assert packing.unpack(tmp_path / "p.pack") == name
    for key, array in before.items():
        np.testing.assert_array_equal(cache.load_array(name, key), array)
    MODULES[name].load()


def test_splits_are_asked_for_by_name():
    for module in (lidc, brain_tumours):
        with pytest.raises(DataError, match="no split 'dev'; choose one of: train, validation, test, all"):
            module.load("dev")


def test_the_library_gives_what_is_in_the_cache(tmp_path):
    for name in MODULES:
        bring(name, tmp_path)
    assert datasets.lidc("test").masks.shape == (2, 4, 64, 64)
    assert [person.number for person in datasets.ms_persons()] == [2]
    array, sampled = datasets.raw_kspace()
    assert array.shape == (8, 230, 180)
    assert sampled.mean() == pytest.approx(0.124, abs=1e-3)
    with pytest.raises(DataError, match="no data set 'lidcs'"):
        datasets.is_here("lidcs")


def test_content_tells_the_public_copy_however_it_is_packed(tmp_path, capsys, monkeypatch):
    bring("lidc", tmp_path)
    capsys.readouterr()
    assert __main__.main(["import", str(tmp_path / "lidc.tar.gz")]) == 0
    assert "not the public copy's" in capsys.readouterr().out
    arrays = dict(zip(("images", "masks", "places"), cache.load("lidc", "images", "masks", "places")[1]))
    known = replace(registry.DATASETS["lidc"], content=download.fingerprint(arrays))
    monkeypatch.setitem(registry.DATASETS, "lidc", known)
    assert download.import_archive(write_tar(tmp_path / "a.tar", lidc_members(128), "w")) == (known, True)
    assert __main__.main(["import", str(tmp_path / "lidc.tar.gz")]) == 0
    assert "What it holds is the public copy's" in capsys.readouterr().out


def test_fingerprints_differ_by_name_type_shape_and_number():
    one = {"a": np.arange(6, dtype=np.int64), "b": np.zeros(2, np.uint8)}
    others = [
        {"a": one["a"], "c": one["b"]},
        one | {"a": one["a"].astype(np.int32)},
        one | {"a": one["a"].reshape(2, 3)},
        one | {"a": one["a"] + 1},
    ]
    assert len({download.fingerprint(arrays) for arrays in [one, *others]}) == 5
    same = {"b": one["b"], "a": one["a"].astype(">i8")}
    assert download.fingerprint(same) == download.fingerprint(one)


def test_what_has_no_address_says_how_to_get_it(capsys):
    message = fails(capsys, "get", "brain_tumours")
    assert "figshare.com" in message
    assert "data_fetch import FOLDER" in message
    assert __main__.main(["list"]) == 0
    assert re.search(
        r"brain_tumours to be imported(.|\n)*to get it: download the four zip files", capsys.readouterr().out
    )


def test_addresses_name_a_commit_and_every_file_its_checksum():
    for name in ("lidc", "ms_lesions", "raw_mri"):
        assert re.search("[0-9a-f]{40}", WHOLE[name].url)
    files = dict(WHOLE["ms_lesions"].files)
    assert len(files) == 1 + 30 + 12
    assert all(re.fullmatch("[0-9a-f]{32}", md5) for md5 in files.values())
    assert len(set(files.values())) == len(files)
    assert ms_path(2, "mask").partition("/")[2] in files
    assert ms_path(19, "T1POST").partition("/")[2] in files
    assert LIDC_SLICES.keys() - LIDC_KEPT.keys() == {(41, 0)}


# --- the real archives, where they are at hand


def real(name, monkeypatch, dataset):
    folder = os.environ.get("COURSE_ARCHIVES")
    if not folder or not (Path(folder) / name).exists():
        pytest.skip(f"set COURSE_ARCHIVES to a folder that holds {name} to test it")
    monkeypatch.setitem(registry.DATASETS, dataset, WHOLE[dataset])
    return download.import_archive(Path(folder) / name)


def test_real_lidc(monkeypatch):
    assert real("LIDC-IDRI-slices.zip", monkeypatch, "lidc")[1]
    parts = [lidc.load(split) for split in lidc.SPLITS]
    assert [len(set(part.persons)) for part in parts] == [619, 75, 81]
    everything = lidc.load("all")
    drawn = everything.masks.any((2, 3)).sum(1)
    assert np.bincount(drawn).tolist() == [16, 3459, 1969, 1797, 2718]


def test_real_ms(monkeypatch):
    assert real("open_ms_data.tar", monkeypatch, "ms_lesions")[1]
    persons = ms_lesions.load()
    assert [person.number for person in persons if person.stored] == [7, 19, 26]
    assert persons[18].lesions.sum() == 49769
    flair = persons[18].volume("FLAIR")
    assert flair[persons[18].lesions].mean() > 1.3 * flair[flair > 0].mean()  # lesions are bright


def test_real_tumours(monkeypatch):
    real("brain_tumours_t1c_axial.zip", monkeypatch, "brain_tumours")
    parts = [brain_tumours.load(split) for split in brain_tumours.SPLITS]
    assert [np.bincount(part.labels).tolist() for part in parts] == [[141, 381, 213], [20, 49, 28], [20, 49, 28]]


def test_real_kspace(monkeypatch):
    assert real("cartesian_ksp.npy", monkeypatch, "raw_mri")[1]
    low = np.abs(raw_mri.load()).sum(0)
    assert np.hypot(*(np.array(np.unravel_index(low.argmax(), low.shape)) - (115, 90))) < 2  # the middle is frequency 0
