"""DICOM files of the learner's own: series, files of many frames, padding, palettes, compression, odd tags."""

import warnings

import numpy as np
import pydicom
import pytest
from helpers.own_files import dicom_series, marked, save_dicom, save_nifti
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from data_fetch import DataError, dicom_files, own_images

AXIAL = [1, 0, 0, 0, 1, 0]

row, column = np.indices((48, 48))
PICTURE = np.zeros((48, 48), np.int16)  # air 0, a disc 1000, a square in it 2000
PICTURE[(row - 24) ** 2 + (column - 24) ** 2 < 400] = 1000
PICTURE[18:24, 26:36] = 2000
OUTSIDE = (row - 24) ** 2 + (column - 24) ** 2 >= 23**2  # of the scanner's circle


def levels(path):
    """What the border, air, disc and square of PICTURE become."""
    picture = own_images.load(path, size=48).images[0]
    return [float(picture[place]) for place in ((0, 0), (24, 2), (24, 20), (20, 30))]


def change(path, **tags):
    """Other tags in a file; a pair (VR, value) is written as it is, valid or not."""
    dataset = pydicom.dcmread(path)
    for name, value in tags.items():
        if isinstance(value, tuple):
            dataset.add_new(name, *value)
        else:
            setattr(dataset, name, value)
    dataset.save_as(path)
    return path


def stack(folder, count=12, leave_out=(), step=(0, 0, 3), **tags):
    """Axial slices of 48 x 48 mm, `step` mm apart (LPS), each a little brighter than the one below."""
    folder.mkdir()
    for k in range(count):
        if k not in leave_out:
            tags = {"ImagePositionPatient": [k * s for s in step], "ImageOrientationPatient": AXIAL, **tags}
            tags["ImagePositionPatient"] = tags["ImagePositionPatient"] and [k * s for s in step]
            save_dicom(folder / f"{k:03d}.dcm", np.where(PICTURE, PICTURE + 20 * k, 0), number=k + 1, **tags)
    return folder


def height(picture):
    """Rows from the first to the last that show something."""
    shown = np.flatnonzero((picture > -0.99).any(1))
    return shown.max() - shown.min() + 1


def test_a_dicom_series_is_the_same_as_its_nifti(tmp_path):
    voxels = marked().round()
    series = dicom_series(tmp_path / "series", voxels)
    nifti = save_nifti(tmp_path / "scan.nii", voxels, spacing=(1, 1, 3))
    for plane in own_images.PLANES:
        one = own_images.load(series, plane=plane, per_volume=None)
        two = own_images.load(nifti, plane=plane, per_volume=None)
        assert np.allclose(one.images, two.images)


def test_rescale_and_monochrome1_are_honoured(tmp_path):
    ramp = np.tile(np.arange(64), (64, 1))
    plain = own_images.load(save_dicom(tmp_path / "a.dcm", ramp)).images[0]
    rescaled = own_images.load(save_dicom(tmp_path / "b.dcm", ramp, RescaleSlope=-1, RescaleIntercept=5)).images[0]
    inverted = own_images.load(save_dicom(tmp_path / "c.dcm", ramp, PhotometricInterpretation="MONOCHROME1")).images[0]
    assert plain[0, 0] < plain[0, -1]
    assert np.allclose(rescaled, -plain, atol=1e-5)
    assert np.allclose(inverted, -plain, atol=1e-5)


def test_rescaling_differs_between_slices_of_one_series(tmp_path):
    """As in PET: each slice has its own slope."""
    folder = tmp_path / "pet"
    folder.mkdir()
    for index, slope in enumerate((1, 10)):
        pixels = np.full((16, 16), 100)
        pixels[:8] = 50
        save_dicom(
            folder / f"{index}.dcm",
            pixels // slope,
            number=index + 1,
            RescaleSlope=slope,
            RescaleIntercept=0,
            ImagePositionPatient=[0, 0, index],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        )
    images = own_images.load(folder, per_volume=None).images
    assert np.allclose(images[0], images[1])


def test_padding_outside_the_circle_does_not_set_the_scale(tmp_path):
    pixels = np.tile(np.linspace(-1000, 1000, 64).astype(int), (64, 1))
    padded = pixels.copy()
    padded[:20] = -30_000
    one = own_images.load(save_dicom(tmp_path / "a.dcm", padded, PixelPaddingValue=-30_000)).images[0]
    assert one[40, 32] == pytest.approx(0, abs=0.1)
    assert (one[5] == -1).all()


def test_anisotropic_dicom_picture(tmp_path):
    picture = own_images.load(
        save_dicom(tmp_path / "a.dcm", np.tile(np.arange(64), (64, 1)), PixelSpacing=[1, 2])
    ).images[0]
    assert (picture[:15] == -1).all()


def test_several_slices_at_one_place(tmp_path):
    for number in (1, 2):
        save_dicom(
            tmp_path / f"{number}.dcm",
            np.arange(64).reshape(8, 8),
            number=number,
            ImagePositionPatient=[0, 0, 0],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        )
    with pytest.raises(DataError, match="several slices at one position"):
        own_images.load(tmp_path)


# --- intensities


@pytest.mark.parametrize("kind", ["<u2", "<i2"])
def test_padding_is_as_dark_as_the_darkest_of_the_picture(tmp_path, kind):
    inverted = np.where(OUTSIDE, 0, 3000 - PICTURE).astype(kind)
    path = save_dicom(tmp_path / "a.dcm", inverted, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=0)
    assert levels(path) == pytest.approx([-1, -1, 0, 1], abs=0.01)
    falling = np.where(OUTSIDE, 0, 3000 - PICTURE).astype(kind)
    path = save_dicom(tmp_path / "b.dcm", falling, RescaleSlope=-2, RescaleIntercept=7, PixelPaddingValue=0)
    assert levels(path) == pytest.approx([-1, -1, 0, 1], abs=0.01)


def test_padding_is_found_however_its_sign_is_written(tmp_path):
    signed = np.where(OUTSIDE, -2000, PICTURE - 1000).astype("<i2")
    unsigned = np.where(OUTSIDE, 63536, PICTURE).astype("<u2")
    for number, (pixels, vr, value) in enumerate(
        [(signed, "SS", -2000), (signed, "US", 63536), (unsigned, "US", 63536), (unsigned, "SS", -2000)]
    ):
        path = change(save_dicom(tmp_path / f"{number}.dcm", pixels), PixelPaddingValue=(vr, value))
        assert levels(path) == pytest.approx([-1, -1, 0, 1], abs=0.01)


@pytest.mark.parametrize(("one", "other"), [(0, 800), (800, 0)])
def test_a_range_of_padding(tmp_path, one, other):
    pixels = np.where(OUTSIDE, column % 9 * 100, PICTURE + 1000).astype("<u2")
    path = save_dicom(tmp_path / "a.dcm", pixels, PixelPaddingValue=one, PixelPaddingRangeLimit=other)
    assert levels(path) == pytest.approx([-1, -1, 0, 1], abs=0.01)


def test_a_slice_of_padding_alone_is_dark_among_others(tmp_path):
    folder = stack(tmp_path / "series", RescaleIntercept=-1024, RescaleSlope=1)
    change(folder / "011.dcm", PixelData=np.full((48, 48), -2000, np.int16).tobytes(), PixelPaddingValue=("SS", -2000))
    found = own_images.load(folder, per_volume=None).images
    assert (found[11] == -1).all()
    assert found[10].max() == 1


def test_a_palette_gives_the_grey_of_its_colours(tmp_path):
    index = np.zeros((48, 48), np.uint8)
    index[PICTURE == 1000], index[PICTURE == 2000] = 200, 10
    table = np.zeros(256, np.uint16)
    table[200], table[10] = 30_000, 60_000
    tags = {f"{colour}PaletteColorLookupTableDescriptor": [256, 0, 16] for colour in ("Red", "Green", "Blue")}
    tags |= {f"{colour}PaletteColorLookupTableData": table.tobytes() for colour in ("Red", "Green", "Blue")}
    path = save_dicom(tmp_path / "a.dcm", index, PhotometricInterpretation="PALETTE COLOR", **tags)
    assert levels(path) == pytest.approx([-1, -1, 0, 1], abs=0.01)


def test_pixels_stored_as_floats(tmp_path):
    path = save_dicom(tmp_path / "a.dcm", PICTURE, BitsAllocated=32)
    dataset = pydicom.dcmread(path)
    del dataset.PixelData, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation
    dataset.FloatPixelData = (PICTURE / 7).astype("<f4").tobytes()
    dataset.save_as(path)
    assert levels(path) == pytest.approx([-1, -1, 0, 1], abs=0.01)


# --- files of many frames


def enhanced(path, voxels, spacing, orientation=AXIAL, order=None):
    """RAS+ voxels as one file, with the geometry in the functional groups."""
    frames = np.stack([voxels[::-1, ::-1, k].T for k in range(voxels.shape[2])])
    corner = [-(voxels.shape[0] - 1) * spacing[0], -(voxels.shape[1] - 1) * spacing[1]]
    measures, direction, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, direction.ImageOrientationPatient = [spacing[1], spacing[0]], orientation
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [direction]
    groups = []
    order = range(len(frames)) if order is None else order
    for k in order:
        position, group = Dataset(), Dataset()
        position.ImagePositionPatient = [*corner, k * spacing[2]]
        group.PlanePositionSequence = [position]
        groups.append(group)
    tags = {"SharedFunctionalGroupsSequence": [shared], "PerFrameFunctionalGroupsSequence": groups}
    return save_dicom(path, frames[list(order)], **tags)


def test_an_enhanced_file_is_the_same_as_its_nifti(tmp_path):
    voxels, spacing = marked((24, 30, 10)).round(), (1, 2, 3)
    order = np.random.default_rng(0).permutation(10).tolist()
    path = enhanced(tmp_path / "enhanced.dcm", voxels, spacing, order=order)
    nifti = save_nifti(tmp_path / "scan.nii", voxels, spacing)
    for plane in own_images.PLANES:
        one = own_images.load(path, plane=plane, per_volume=None)
        two = own_images.load(nifti, plane=plane, per_volume=None)
        assert np.array_equal(one.images, two.images)
        assert len(set(one.sources)) == len(one.sources)


def test_each_frame_of_an_enhanced_file_has_its_own_scaling(tmp_path):
    """As in PET: slope and intercept stand in the group of the frame."""
    voxels = marked((24, 30, 4)).round()
    right = own_images.load(enhanced(tmp_path / "a.dcm", voxels, (1, 1, 1)), per_volume=None).images
    slopes = (1, 2, 5, 10)
    path = enhanced(tmp_path / "b.dcm", np.round(voxels * 10 / np.array(slopes)), (1, 1, 1))
    dataset = pydicom.dcmread(path)
    for group, slope in zip(dataset.PerFrameFunctionalGroupsSequence, slopes):
        group.PixelValueTransformationSequence = [Dataset()]
        group.PixelValueTransformationSequence[0].RescaleSlope = slope
        group.PixelValueTransformationSequence[0].RescaleIntercept = 0
    dataset.save_as(path)
    assert np.allclose(own_images.load(path, per_volume=None).images, right, atol=0.05)


def test_a_blank_last_frame_is_part_of_the_volume(tmp_path):
    voxels = marked((24, 30, 10)).round()
    voxels[..., -1] = 0
    found = own_images.load(enhanced(tmp_path / "a.dcm", voxels, (1, 1, 1)), per_volume=None)
    assert len(found.images) == 10
    assert (found.images[-1] == -1).all()


def test_frames_without_positions_are_pictures_with_names_of_their_own(tmp_path):
    """As of an ultrasound film; a blank frame is left out."""
    frames = np.stack([PICTURE, PICTURE * 0, PICTURE.T])
    with pytest.warns(UserWarning, match=r"a\.dcm, frame 2 is blank"):
        found = own_images.load(save_dicom(tmp_path / "a.dcm", frames), size=48)
    assert [source.rpartition(", ")[2] for source in found.sources] == ["frame 1", "frame 3"]
    assert np.array_equal(found.images[1], found.images[0].T)


def test_a_radiotherapy_dose_is_a_volume(tmp_path):
    """Its frames lie at GridFrameOffsetVector from the first."""
    voxels = marked((24, 30, 10)).round()
    nifti = own_images.load(save_nifti(tmp_path / "scan.nii", voxels, (1, 1, 3)), plane="coronal").images
    frames = np.stack([voxels[::-1, ::-1, k].T for k in range(10)])
    offsets = [3 * k for k in range(10)]
    tags = {"ImagePositionPatient": [-23, -29, 0], "ImageOrientationPatient": AXIAL, "PixelSpacing": [1, 1]}
    path = save_dicom(tmp_path / "dose.dcm", frames, GridFrameOffsetVector=offsets, **tags)
    assert np.array_equal(own_images.load(path, plane="coronal").images, nifti)


# --- where slices lie


DIRECTIONS = [
    (first * np.eye(3)[a], second * np.eye(3)[b])
    for a in range(3)
    for b in range(3)
    for first in (1, -1)
    for second in (1, -1)
    if a != b
]


def test_slices_of_every_direction_give_the_same_pictures(tmp_path):
    """24 ways to lay rows and columns along the patient's axes; a series may be scanned in each."""
    voxels, spacing = marked((9, 12, 10)).round(), np.array([1.0, 2, 3])
    lps = voxels[::-1, ::-1]  # index along the left, back and head
    nifti = save_nifti(tmp_path / "scan.nii", voxels, spacing)
    right = {p: own_images.load(nifti, 24, p, None).images for p in own_images.PLANES}
    for number, (along_row, along_column) in enumerate(DIRECTIONS):
        folder = tmp_path / str(number)
        folder.mkdir()
        normal = np.cross(along_row, along_column)
        axes = [int(np.abs(v).argmax()) for v in (along_column, along_row, normal)]
        turned = lps.transpose(axes)
        for axis, vector in enumerate((along_column, along_row, normal)):
            turned = np.flip(turned, axis) if vector.sum() < 0 else turned
        start = np.array([-1, -1, 1]) * 0.0
        for vector in (along_column, along_row, normal):
            axis = int(np.abs(vector).argmax())
            start[axis] = (lps.shape[axis] - 1) * spacing[axis] if vector.sum() < 0 else 0
        for k in range(turned.shape[2]):
            save_dicom(
                folder / f"{k}.dcm",
                turned[:, :, k],
                number=k + 1,
                ImagePositionPatient=(start + k * normal * spacing[axes[2]]).tolist(),
                ImageOrientationPatient=[*along_row, *along_column],
                PixelSpacing=[spacing[axes[0]], spacing[axes[1]]],
            )
        for plane, pictures in right.items():
            assert np.array_equal(own_images.load(folder, 24, plane, None).images, pictures), (number, plane)


@pytest.mark.parametrize("gone", [(5,), (3, 4, 5, 6, 7), (1, 10), (2, 4, 6, 8)])
def test_missing_slices_are_filled_in_and_told(tmp_path, gone):
    """36 mm stay 36 mm; what was there is as before, and between them lies the mean of the neighbours."""
    whole = own_images.load(stack(tmp_path / "whole"), size=48, plane="coronal", per_volume=None)
    folder = stack(tmp_path / "part", leave_out=gone)
    with pytest.warns(
        UserWarning, match=rf"part: its {12 - len(gone)} slices lie at uneven heights.*{len(gone)} of 12"
    ):
        part = own_images.load(folder, size=48, plane="coronal", per_volume=None)
    assert height(part.images[24]) == 36
    assert np.abs(part.images - whole.images).max() < 0.02  # brightness rises evenly from slice to slice
    assert len(part.notes) == 1


def test_only_acquired_slices_are_shown_in_their_own_plane(tmp_path):
    folder = stack(tmp_path / "part", leave_out=(3, 4, 5, 6, 7))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(own_images.load(folder, per_volume=None).images) == 7


def test_rounded_positions_are_even(tmp_path):
    """Every 0.6667 mm, written with one digit: 0, 0.7, 1.3, 2.0 ..."""
    folder = stack(tmp_path / "series", count=48)
    for k in range(48):
        change(folder / f"{k:03d}.dcm", ImagePositionPatient=[0, 0, round(k * 2 / 3, 1)])
    found = own_images.load(folder, size=48, plane="coronal", per_volume=1)
    assert height(found.images[0]) == 32
    assert found.notes == ()


def test_uneven_heights_are_brought_to_even_ones(tmp_path):
    """A slope in height stays one; slices that are far apart are refused across them, and shown in their plane."""
    folder = tmp_path / "series"
    folder.mkdir()
    for k, z in enumerate((0, 3, 6.9, 10, 13, 16.2, 20, 23)):
        pixels = np.tile(np.arange(24), (24, 1)) * 10 + round(100 * z)
        save_dicom(folder / f"{k}", pixels, number=k + 1, ImagePositionPatient=[0, 0, z], ImageOrientationPatient=AXIAL)
    with pytest.warns(UserWarning, match="uneven heights"):
        picture = own_images.load(folder, size=24, plane="coronal", per_volume=1).images[0]
    rising = np.diff(picture[::-1, 12][(picture > -1).any(1)[::-1]])
    assert np.abs(rising[2:-2] - np.median(rising)).max() < 0.3 * np.median(rising)
    change(folder / "7", ImagePositionPatient=[0, 0, 900])
    with pytest.raises(DataError, match=r"series: its slices lie at too uneven heights \(3 to 880 mm apart\)"):
        own_images.load(folder, plane="sagittal")
    assert len(own_images.load(folder, per_volume=None).images) == 8


def test_a_localiser_is_left_out_of_the_volume_and_named(tmp_path):
    across = {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1], "ImagePositionPatient": [0, 0, 0]}
    large = {"ImageOrientationPatient": AXIAL, "ImagePositionPatient": [0, 0, 90]}
    right = own_images.load(stack(tmp_path / "right"), plane="coronal", per_volume=4).images
    for number, (tags, pixels) in enumerate(
        [(across, PICTURE), ({}, PICTURE), (large, np.ones((96, 96)) * PICTURE[0, 0] + np.arange(96))]
    ):
        folder = stack(tmp_path / f"series{number}")
        save_dicom(folder / "z.dcm", pixels, number=99, **tags)
        with pytest.warns(UserWarning, match=r"z\.dcm left out: another size, spacing or direction"):
            found = own_images.load(folder, plane="coronal", per_volume=4)
        assert np.array_equal(found.images, right)


def test_series_of_no_common_direction_are_shown_picture_by_picture(tmp_path):
    """As three localisers of one scan are."""
    for number, direction in enumerate((AXIAL, [1, 0, 0, 0, 0, -1], [0, 1, 0, 0, 0, -1])):
        tags = {"ImageOrientationPatient": direction, "ImagePositionPatient": [0, 0, 0]}
        save_dicom(tmp_path / f"{number}.dcm", PICTURE, number=number + 1, **tags)
    found = own_images.load(tmp_path)
    assert len(found.images) == 3
    assert [source[-5:] for source in found.sources] == ["0.dcm", "1.dcm", "2.dcm"]


def test_two_series_of_a_folder_have_names_of_their_own(tmp_path):
    for series in ("1.2.3", "1.2.4"):
        for k in range(3):
            tags = {"ImageOrientationPatient": AXIAL, "ImagePositionPatient": [0, 0, k]}
            save_dicom(tmp_path / f"{series}.{k}.dcm", PICTURE + k, series, k + 1, **tags)
    assert len(set(own_images.load(tmp_path, per_volume=1).sources)) == 2


def test_a_tilted_gantry_is_told_where_it_would_skew(tmp_path):
    folder = stack(tmp_path / "series", step=(0, 3 * np.tan(np.radians(15)), 3))
    right = own_images.load(stack(tmp_path / "straight")).images
    assert np.array_equal(own_images.load(folder).images, right)
    with pytest.raises(DataError, match=r"series: .*sagittal pictures lie at (75|105) degrees.*tilted gantry"):
        own_images.load(folder, plane="sagittal")


def test_slices_that_are_shifted_sideways_are_told_where_it_would_show(tmp_path):
    folder = stack(tmp_path / "series")
    change(folder / "006.dcm", ImagePositionPatient=[9, 0, 18])
    assert len(own_images.load(folder).images) == 8
    with pytest.raises(DataError, match="series: its slices are shifted sideways"):
        own_images.load(folder, plane="coronal")


# --- tags that are empty or odd


@pytest.mark.parametrize("tags", [{"ImagePositionPatient": None}, {"ImageOrientationPatient": None}])
def test_without_a_place_slices_are_pictures(tmp_path, tags):
    found = own_images.load(stack(tmp_path / "series", **tags), plane="coronal")
    assert len(found.images) == 12
    assert len(set(found.sources)) == 12


def test_an_empty_tag_counts_as_absent(tmp_path):
    right = own_images.load(save_dicom(tmp_path / "a.dcm", PICTURE)).images
    names = ("RescaleSlope", "RescaleIntercept", "PixelSpacing", "ImagerPixelSpacing", "PixelPaddingValue")
    names += ("SeriesInstanceUID", "PixelAspectRatio", "PixelPaddingRangeLimit")
    for name in names:
        path = save_dicom(tmp_path / f"{name}.dcm", PICTURE, **{name: None})
        assert np.array_equal(own_images.load(path).images, right), name


@pytest.mark.parametrize(
    "tags",
    [
        {"PixelSpacing": [0, 0]},
        {"PixelSpacing": [-1, -1]},
        {"PixelSpacing": [1, -1]},
        {"PixelSpacing": ("DS", "2")},
        {"ImagerPixelSpacing": [1, 0]},
        {"PixelAspectRatio": [0, 1]},
        {"ImageOrientationPatient": [1, 0, 0]},
        {"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]},
        {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
        {"RescaleSlope": ("DS", ["1", "2"])},
    ],
)
def test_a_tag_that_makes_no_sense_is_named_with_the_file(tmp_path, tags):
    path = change(save_dicom(tmp_path / "odd.dcm", PICTURE), **tags)
    with pytest.raises(DataError, match=rf"odd\.dcm: its {next(iter(tags))} is .*; export it again\.$"):
        own_images.load(path)


@pytest.mark.parametrize(
    ("tags", "rows"), [({"PixelAspectRatio": [1, 2]}, 24), ({"PixelSpacing": [1, 2], "PixelAspectRatio": [1, 1]}, 24)]
)
def test_proportion_without_spacing(tmp_path, tags, rows):
    path = save_dicom(tmp_path / "a.dcm", np.tile(np.arange(1, 49), (48, 1)), **tags)
    assert height(own_images.load(path, size=48).images[0][:, 24:]) == rows


# --- how pixels are stored


def test_without_a_transfer_syntax_the_default_holds(tmp_path):
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    right = own_images.load(save_dicom(tmp_path / "a.dcm", PICTURE)).images
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    for number, implicit in enumerate((True, False)):
        stream = DicomBytesIO()
        stream.is_little_endian, stream.is_implicit_VR = True, implicit
        write_dataset(stream, dataset)
        (tmp_path / f"{number}.dcm").write_bytes(stream.getvalue())
        assert np.array_equal(own_images.load(tmp_path / f"{number}.dcm").images, right)


def picture_of(name):
    return own_images.load(get_testdata_file(name)).images


@pytest.mark.parametrize(
    "name",
    ["RLE", "jp2klossless", "jpeg_ls_lossless", "bigendian", "implicit", "expb"],
)
def test_every_storage_of_an_mri_gives_the_same_picture(name):
    """pydicom brings one slice, stored in these ways."""
    if "jpeg_ls" in name:
        pytest.importorskip("gdcm")
    assert np.array_equal(picture_of(f"MR_small_{name}.dcm"), picture_of("MR_small.dcm"))


def jpeg_lossless(pixels):
    """A JPEG Lossless stream (process 14, predictor 1) of 16-bit pixels, written here by the book (ITU-T T.81)."""
    rows, columns = pixels.shape
    left = np.empty((rows, columns), int)
    left[:, 1:] = pixels[:, :-1]
    left[1:, 0], left[0, 0] = pixels[:-1, 0], 1 << 15
    bits = []
    for difference in (pixels.astype(int) - left).ravel().tolist():
        size = abs(difference).bit_length()  # its category; the code of category k is k in five bits
        bits.append(f"{size:05b}")
        if size:
            bits.append(f"{difference if difference > 0 else difference + (1 << size) - 1:0{size}b}")
    bits = "".join(bits)
    bits += "1" * (-len(bits) % 8)
    body = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    frame = b"\xff\xc3" + (11).to_bytes(2, "big") + bytes([16]) + rows.to_bytes(2, "big") + columns.to_bytes(2, "big")
    table = b"\xff\xc4" + (36).to_bytes(2, "big") + bytes([0, 0, 0, 0, 0, 17, *[0] * 11, *range(17)])
    scan = b"\xff\xda" + (8).to_bytes(2, "big") + bytes([1, 1, 0, 1, 0, 0])
    return b"\xff\xd8" + frame + bytes([1, 1, 0x11, 0]) + table + scan + body + b"\xff\xd9"


@pytest.mark.parametrize("syntax", [uid.JPEGLossless, uid.JPEGLosslessSV1])
def test_jpeg_lossless(tmp_path, syntax):
    pytest.importorskip("gdcm")
    random = np.random.default_rng(0)
    pixels = (PICTURE + 1000 + random.integers(-300, 300, PICTURE.shape)).astype("<u2")
    right = own_images.load(save_dicom(tmp_path / "a.dcm", pixels)).images
    content = pydicom.encaps.encapsulate([jpeg_lossless(pixels)])
    path = save_dicom(tmp_path / "b.dcm", pixels)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = content
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    assert np.array_equal(own_images.load(path).images, right)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("MR_small_jpeg_ls_lossless.dcm", "python-gdcm"), ("JPGExtended.dcm", "pylibjpeg pylibjpeg-libjpeg")],
)
def test_a_missing_decoder_is_named_with_its_remedy(monkeypatch, name, remedy):
    path = get_testdata_file(name)
    decoder = pydicom.pixels.get_decoder(pydicom.dcmread(path).file_meta.TransferSyntaxUID)
    monkeypatch.setattr(decoder, "_available", {})
    with pytest.raises(DataError, match=rf"{name} is compressed as JPEG.*no decoder.*`pip install {remedy}`"):
        own_images.load(path)


def test_what_is_no_single_image_is_named(tmp_path):
    path = save_dicom(tmp_path / "film.dcm", PICTURE)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = uid.MPEG2MPML
    dataset.PixelData = pydicom.encaps.encapsulate([b"film"])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    with pytest.raises(DataError, match=r"film\.dcm is stored as MPEG2"):
        own_images.load(path)
    with pytest.raises(DataError, match=r"rtplan\.dcm holds no image"):
        own_images.load(get_testdata_file("rtplan.dcm"))


def test_a_deflated_file_is_read_up_to_a_limit(tmp_path, monkeypatch):
    right = own_images.load(save_dicom(tmp_path / "a.dcm", PICTURE)).images
    path = save_dicom(tmp_path / "b.dcm", PICTURE, syntax=uid.DeflatedExplicitVRLittleEndian)
    assert np.array_equal(own_images.load(path).images, right)
    (tmp_path / "c.dcm").write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"c\.dcm is cut short"):
        own_images.load(tmp_path / "c.dcm")
    monkeypatch.setattr(dicom_files, "LIMIT", 4 * 1000)
    with pytest.raises(DataError, match=r"b\.dcm unpacks to more than"):
        own_images.load(path)


def test_sizes_beyond_the_limit_are_refused_before_pixels_are_read(tmp_path):
    path = save_dicom(tmp_path / "a.dcm", PICTURE, Rows=65535, Columns=65535)
    with pytest.raises(DataError, match=r"a\.dcm is too large \(8\.6 GB unpacked"):
        own_images.load(path)
    path = save_dicom(tmp_path / "b.dcm", PICTURE, Rows=1, Columns=1, NumberOfFrames=10**8)
    with pytest.raises(DataError, match=r"b\.dcm has 100000000 frames, at most 65536 are read"):
        own_images.load(path)


def test_a_slice_that_cannot_be_read_leaves_a_gap(tmp_path):
    folder = stack(tmp_path / "series")
    (folder / "005.dcm").write_bytes((folder / "005.dcm").read_bytes()[:-2000])
    with pytest.warns(UserWarning, match=r"005\.dcm has pixels that cannot be decoded.*its 11 slices lie at uneven"):
        found = own_images.load(folder, size=48, plane="coronal", per_volume=1)
    assert height(found.images[0]) == 36
    assert len(found.notes) == 2
