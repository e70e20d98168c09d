"""Images of the learner's own: orientation, proportion, scaling and clear errors, on small made files."""

import io

import numpy as np
import pytest

from data_fetch import DataError, own_images

SHAPE = (30, 40, 20)


def marked(shape=SHAPE, seed=0):
    """RAS+ voxels with a bright block at the right, front and top, on a dim noisy ground."""
    voxels = np.random.default_rng(seed).uniform(10, 20, shape)
    x, y, z = (n // 3 for n in shape)
    voxels[-x:, -y:, -z:] = 100
    return voxels.astype(np.float32)


def save_nifti(path, voxels, spacing=(1, 1, 1), axes="RAS"):
    """Write RAS+ voxels in another storage order, with the affine that says so."""
    import nibabel
    from nibabel import orientations

    image = nibabel.Nifti1Image(voxels, np.diag([*spacing, 1.0]))
    change = orientations.ornt_transform(orientations.axcodes2ornt("RAS"), orientations.axcodes2ornt(axes))
    nibabel.save(image.as_reoriented(change), path)
    return path


def save_dicom(path, pixels, series="1.2.3", number=1, **tags):
    """A minimal uncompressed DICOM file of one slice."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = f"{series}.{number}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.SeriesInstanceUID = series
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 1
    dataset.PixelData = pixels.astype("<i2").tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
    pydicom.dcmwrite(path, dataset)
    return path


def save_png(path, pixels):
    from PIL import Image

    Image.fromarray(pixels).save(path)
    return path


def centre_of_brightness(picture):
    """Row and column, 0..1, of the bright pixels' middle."""
    rows, columns = np.nonzero(picture > 0.5)
    return rows.mean() / len(picture), columns.mean() / len(picture)


# --- orientation and proportion


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "ASR", "SPL", "PIR"])
@pytest.mark.parametrize(
    ("plane", "row", "column"),
    [("axial", "front", "right"), ("coronal", "top", "right"), ("sagittal", "top", "front")],
)
def test_any_storage_order_is_shown_as_radiologists_do(tmp_path, axes, plane, row, column):
    """The block at the right, front and top appears in the upper left corner of every plane."""
    path = save_nifti(tmp_path / "scan.nii.gz", marked(), axes=axes)
    found = own_images.load(path, plane=plane, per_volume=None)
    depth = {"axial": 20, "coronal": 40, "sagittal": 30}[plane]
    assert found.images.shape == (depth, 64, 64)
    assert found.images.dtype == np.float32
    rows, columns = centre_of_brightness(found.images[-1])
    assert rows < 0.45
    assert columns < 0.45
    assert (found.images[0] < 0.5).all()  # the first slice is at the left, back or bottom: no block there
    assert f"{plane} slice {depth - 1}" in found.sources[-1]


def test_storage_order_changes_nothing(tmp_path):
    pictures = [
        own_images.load(save_nifti(tmp_path / f"{axes}.nii", marked(), axes=axes)).images
        for axes in ("RAS", "PIL", "ASL")
    ]
    assert np.array_equal(pictures[0], pictures[1])
    assert np.array_equal(pictures[0], pictures[2])


def test_thick_slices_are_not_stretched(tmp_path):
    """A ball stays round whatever the voxels' shape; the frame around it is padded."""
    x, y, z = np.meshgrid(*(np.arange(n) * s for n, s in zip((60, 30, 12), (1, 2, 4), strict=True)), indexing="ij")
    ball = ((x - 30) ** 2 + (y - 30) ** 2 + (z - 22) ** 2 < 18**2).astype(np.float32)
    path = save_nifti(tmp_path / "ball.nii", ball, spacing=(1, 2, 4))
    for plane in own_images.PLANES:
        picture = own_images.load(path, plane=plane, per_volume=1).images[0]
        rows, columns = np.nonzero(picture > 0)
        assert abs(np.ptp(rows) - np.ptp(columns)) <= 4
    assert (picture[:5] == -1).all()  # 48 mm high, 60 mm wide: padded above and below


def test_pictures_keep_their_proportion_and_are_padded(tmp_path):
    pixels = np.tile(np.linspace(0, 255, 100).astype(np.uint8), (50, 1))
    picture = own_images.load(save_png(tmp_path / "wide.png", pixels)).images[0]
    assert (picture[:16] == -1).all()
    assert (picture[48:] == -1).all()
    assert (np.diff(picture[32]) >= 0).all()


def test_shrinking_neither_aliases_nor_overshoots(tmp_path):
    pixels = np.indices((512, 512)).sum(0) % 2 * 255  # a chessboard of single pixels is grey from afar
    pixels[:, 256:] = 255
    picture = own_images.load(save_png(tmp_path / "board.png", pixels.astype(np.uint8)), size=64).images[0]
    assert np.abs(picture[4:-4, 4:28]).max() < 0.05
    assert picture.max() <= 1


# --- intensities


def test_four_orders_of_magnitude_give_the_same_picture(tmp_path):
    """As between hippocampus volumes: maximum 112 in one, 1.7 million in another."""
    voxels = marked()
    small = save_nifti(tmp_path / "small.nii", voxels * 1.12)
    large = save_nifti(tmp_path / "large.nii", voxels * 17_000)
    assert np.allclose(own_images.load(small).images, own_images.load(large).images, atol=1e-4)


def test_a_few_hot_or_missing_voxels_do_not_matter(tmp_path):
    voxels = marked()
    hot = voxels.copy()
    hot[3, 3, 3], hot[4, 4, 4], hot[5, 5, 5] = 1e9, np.nan, np.inf
    plain, odd = (
        own_images.load(save_nifti(tmp_path / f"{name}.nii", data), per_volume=None).images
        for name, data in (("plain", voxels), ("odd", hot))
    )
    assert np.isfinite(odd).all()
    assert np.median(np.abs(plain - odd)) < 0.01
    assert odd.min() >= -1
    assert odd.max() <= 1


def test_a_sparse_label_map_is_not_lost(tmp_path):
    voxels = np.zeros((40, 40, 40), np.uint8)
    voxels[20, 20, 20] = 1
    images = own_images.load(save_nifti(tmp_path / "label.nii", voxels), per_volume=None).images
    assert images.max() > 0


def test_deep_and_coloured_pictures(tmp_path):
    from PIL import Image

    ramp = np.linspace(0, 60_000, 64 * 64).reshape(64, 64).astype(np.uint16)
    deep = own_images.load(save_png(tmp_path / "deep.png", ramp)).images[0]
    assert len(np.unique(deep)) > 1000  # not cut to 256 levels
    grey = np.linspace(0, 255, 64 * 64).reshape(64, 64).astype(np.uint8)
    colour = np.stack([grey, grey, grey, np.full_like(grey, 255)], -1)
    Image.fromarray(colour, "RGBA").save(tmp_path / "colour.png")
    Image.fromarray(grey).save(tmp_path / "grey.jpeg", quality=95)
    one = own_images.load(tmp_path / "colour.png").images[0]
    two = own_images.load(tmp_path / "grey.jpeg").images[0]
    assert np.abs(one - two).max() < 0.1


# --- DICOM


def dicom_series(folder, voxels, spacing=(1.0, 1.0, 3.0), **tags):
    """RAS+ voxels as axial slices in the usual order: rows to the back, columns to the patient's left (LPS)."""
    folder.mkdir()
    for index in range(voxels.shape[2]):
        pixels = voxels[::-1, ::-1, index].T  # row 0 front, column 0 right
        position = [-(voxels.shape[0] - 1) * spacing[0], -(voxels.shape[1] - 1) * spacing[1], index * spacing[2]]
        name = folder / f"file{(index * 7) % voxels.shape[2]:03d}"  # names in no order, no extension
        save_dicom(
            name,
            pixels,
            number=index + 1,
            ImagePositionPatient=position,
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            PixelSpacing=[spacing[1], spacing[0]],
            **tags,
        )
    return folder


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


# --- folders and what goes wrong


def test_a_mixed_folder_with_clutter(tmp_path):
    save_nifti(tmp_path / "scan.nii.gz", marked())
    save_png(tmp_path / "picture.PNG", np.arange(64 * 64, dtype=np.uint8).reshape(64, 64))
    dicom_series(tmp_path / "series", marked().round())
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "._picture.png").write_bytes(b"x")
    found = own_images.load(tmp_path, size=32, per_volume=3)
    assert found.images.shape == (7, 32, 32)
    assert len(found.sources) == 7
    assert found.images.min() >= -1
    assert found.images.max() <= 1


def broken_png(path):
    stream = io.BytesIO()
    from PIL import Image

    Image.fromarray(np.zeros((64, 64), np.uint8)).save(stream, "PNG")
    path.write_bytes(stream.getvalue()[:40])


def broken_dicom(path):
    save_dicom(path, np.arange(64 * 64).reshape(64, 64))
    path.write_bytes(path.read_bytes()[:-3000])


def blank_nifti(path):
    save_nifti(path, np.full((8, 8, 8), 3.0, np.float32))


def flat_nifti(path):
    import nibabel

    nibabel.save(nibabel.Nifti1Image(np.zeros((8, 8), np.float32), np.eye(4)), path)


def text_as_dicom(path):
    path.write_text("not an image at all, whatever its name says")


BAD = [
    ("x.png", broken_png, "no readable picture"),
    ("x.dcm", broken_dicom, "pixels cannot be decoded"),
    ("y.dcm", text_as_dicom, "no image|no readable DICOM"),
    ("x.nii", lambda path: path.write_bytes(b"short"), "no readable NIfTI"),
    ("y.nii.gz", lambda path: path.write_bytes(b"short"), "no readable NIfTI"),
    ("z.nii", blank_nifti, "is blank"),
    ("w.nii", flat_nifti, "three dimensions"),
]


@pytest.mark.parametrize(("name", "make", "words"), BAD, ids=[name for name, _, _ in BAD])
def test_bad_files_are_named(tmp_path, name, make, words):
    make(tmp_path / name)
    for target in (tmp_path / name, tmp_path):
        with pytest.raises(DataError, match=words) as raised:
            own_images.load(target)
        assert name in str(raised.value)
        assert str(raised.value).endswith(".")
        assert "\n" not in str(raised.value)


def test_nothing_to_read(tmp_path):
    with pytest.raises(DataError, match="no file or folder"):
        own_images.load(tmp_path / "absent")
    with pytest.raises(DataError, match="no image that can be read"):
        own_images.load(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match=r"NIfTI.*DICOM, PNG or JPEG"):
        own_images.load(tmp_path / "notes.txt")
    with pytest.raises(DataError, match="no plane 'oblique'"):
        own_images.load(tmp_path, plane="oblique")


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
