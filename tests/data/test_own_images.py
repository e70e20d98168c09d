"""Images of the learner's own: orientation, proportion, scaling and clear errors, on small made files."""

import io
import re
import subprocess
import sys

import numpy as np
import pytest
from helpers.own_files import dicom_series, marked, save_dicom, save_nifti, save_png

from data_fetch import DataError, own_images, scans


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


def test_intensities_and_size_are_numpys_and_pils(tmp_path):
    """To the last bit: percentiles of the whole volume, the slice scaled by them, and one resize."""
    from PIL import Image

    voxels = np.random.default_rng(0).normal(1000, 200, (50, 50, 30)).astype(np.float32)
    found = own_images.load(save_nifti(tmp_path / "scan.nii.gz", voxels), size=33, per_volume=None).images
    low, high = np.percentile(voxels.astype(np.float64), [0.5, 99.5])
    scaled = (2 * np.clip((voxels.astype(np.float64) - low) / (high - low), 0, 1) - 1).astype(np.float32)
    for index, picture in enumerate(found):
        shown = Image.fromarray(np.ascontiguousarray(scaled[::-1, ::-1, index].T))
        assert np.array_equal(picture, np.asarray(shown.resize((33, 33), Image.Resampling.BILINEAR)))


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
    ("x.dcm", broken_dicom, "pixels that cannot be decoded"),
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


# --- one bad file among good ones


def test_what_cannot_be_read_in_a_folder_is_left_out_and_told(tmp_path):
    save_png(tmp_path / "good.png", np.arange(64 * 64, dtype=np.uint8).reshape(64, 64))
    right = own_images.load(tmp_path)
    assert right.notes == ()
    for name, make, _ in BAD:
        make(tmp_path / name)
    with pytest.warns(UserWarning, match=r"Not everything in .*w\.nii.* more, see \.notes\.") as told:
        found = own_images.load(tmp_path)
    assert len(told) == 1
    assert told[0].filename == __file__  # the line that called
    assert np.array_equal(found.images, right.images)
    assert found.sources == right.sources
    assert len(found.notes) == len(BAD)
    for name, _, words in BAD:
        assert any(name in note and re.search(words, note) for note in found.notes)


def test_hidden_files_and_folders_are_no_data(tmp_path):
    """Such as copies that Jupyter keeps in .ipynb_checkpoints."""
    folder = tmp_path / ".data"  # a hidden folder that is asked for by name is another matter
    for name in ("scan.png", ".scan.png", ".ipynb_checkpoints/scan-checkpoint.png", ".cache/deep/scan.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        save_png(folder / name, np.eye(64, dtype=np.uint8))
    assert own_images.load(folder).sources == (str(folder / "scan.png"),)
    assert own_images.load(folder / ".scan.png").sources == (str(folder / ".scan.png"),)


def test_the_reason_is_told_as_it_is(tmp_path, monkeypatch):
    """A file that may not be read, or needs more memory than there is, is not called damaged."""
    files = [
        save_nifti(tmp_path / "a.nii", marked()),
        save_nifti(tmp_path / "a.nii.gz", marked()),
        save_dicom(tmp_path / "a.dcm", np.eye(64)),
        save_png(tmp_path / "a.png", np.eye(64, dtype=np.uint8)),
    ]

    def refuse(file, *_, **__):
        raise PermissionError(13, "Permission denied", str(file))

    def exhaust(*_, **__):
        raise MemoryError

    for file in files:
        with monkeypatch.context() as patch:
            patch.setattr("builtins.open", refuse)
            with pytest.raises(DataError, match=rf"{file.name} cannot be read \(Permission denied\); check its perm"):
                own_images.load(file)
        with monkeypatch.context() as patch:
            patch.setattr("builtins.open", exhaust)
            with pytest.raises(DataError, match=f"{file.name} needs more memory than is free"):
                own_images.load(file)


# --- arguments


@pytest.mark.parametrize("path", [None, b"scan.nii", "", "  ", 7, ["scan.nii"], True])
def test_what_is_no_path(path):
    with pytest.raises(DataError, match="path is .*; give the name of a file or folder as text"):
        own_images.load(path)


@pytest.mark.parametrize("path", ["a" * 300, "a/" * 5000, "scan\0.nii", "~no-such-user-here/scan.nii"])
def test_a_path_that_cannot_be(path):
    with pytest.raises(DataError, match="no file or folder") as raised:
        own_images.load(path)
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("size", [0, -1, 1.5, 64.0, "64", None, True, 4097, 10**9, np.nan])
def test_odd_sizes(tmp_path, size):
    with pytest.raises(DataError, match=r"size is .* a whole number from 1 to 4096\."):
        own_images.load(save_png(tmp_path / "a.png", np.eye(8, dtype=np.uint8)), size=size)


@pytest.mark.parametrize("count", [0, -1, 1.5, "8", True, np.inf])
def test_odd_numbers_of_slices(tmp_path, count):
    with pytest.raises(DataError, match="per_volume is .* 1 or more, or None for all"):
        own_images.load(save_png(tmp_path / "a.png", np.eye(8, dtype=np.uint8)), per_volume=count)


def test_odd_arguments_that_are_right(tmp_path):
    path = save_nifti(tmp_path / "a.nii", marked())
    assert own_images.load(str(path), size=np.int64(1), per_volume=np.int8(1)).images.shape == (1, 1, 1)
    assert own_images.load(path, per_volume=10**30).images.shape[0] <= 20
    for plane in (None, 2, "Axial", ["axial"]):
        with pytest.raises(DataError, match="choose one of: sagittal, coronal, axial"):
            own_images.load(path, plane=plane)


# --- memory


def test_percentiles_by_boxes_are_numpys(monkeypatch):
    """To the last bit, at every size, whatever order the numbers are stored in."""
    monkeypatch.setattr(scans, "_BOX", 50)
    random = np.random.default_rng(0)
    for size in [(2, 1, 1), (3, 1, 2), (5, 7, 3), (13, 11, 17), (40, 30, 20)]:
        for values in (random.normal(1e3, 300, size), random.integers(0, 9, size).astype(float)):
            for stored in (values, np.asfortranarray(values), values[::-1].transpose(1, 0, 2)):
                window = own_images._window(scans.Scan("made", stored, (1, 1, 1)))
                expected = np.percentile(values, [0.5, 99.5])
                if expected[0] < expected[1]:
                    assert [window.low, window.high] == expected.tolist()


def test_boxes_cover_a_scan_once(monkeypatch):
    monkeypatch.setattr(scans, "_BOX", 50)
    for shape in [(1,) * 3, (200, 1, 1), (1, 3, 200), (7, 8, 9), (300, 200)]:
        counts = np.zeros(shape, int)
        for box in scans.Scan("made", counts, (1, 1, 1)).boxes():
            assert counts[box].size <= 50
            counts[box] += 1
        assert (counts == 1).all()


def peak_growth(load, warm):
    """MB that a fresh process takes at its peak for `load` beyond what it had after `warm`."""
    resource = pytest.importorskip("resource")  # not on Windows
    del resource
    code = "import resource, sys, nibabel, pydicom.pixels, PIL.Image, scipy.linalg; from data_fetch import own_images\n"
    code += "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
    code += "def load(path):\n    try: own_images.load(path)\n    except own_images.DataError as error: print(error)\n"
    code += "load(sys.argv[1]); before = peak(); load(sys.argv[2]); print(peak() - before)"
    done = subprocess.run([sys.executable, "-c", code, str(warm), str(load)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1]) / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def test_memory_stays_near_what_the_file_unpacks_to(tmp_path):
    """Converted as a whole to float64, a volume of 16-bit numbers takes 20 times its size, a picture 40 times."""
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    small = tmp_path / "small"
    small.mkdir()
    voxels = np.random.default_rng(0).integers(-1000, 1000, (256, 256, 128)).astype(np.int16)  # 17 MB
    save_nifti(small / "a.nii.gz", voxels[:32, :32, :8])
    assert peak_growth(save_nifti(tmp_path / "a.nii.gz", voxels), small) < 17 + 120
    assert peak_growth(save_nifti(tmp_path / "a.nii", voxels), small) < 17 + 120
    dicom_series(small / "series", voxels[:32, :32, :8])
    assert peak_growth(dicom_series(tmp_path / "series", voxels), small) < 2 * 17 + 120
    colour = np.zeros((4000, 4000, 3), np.uint8)  # PIL holds it in 64 MB, its grey values take 16
    colour[1000:3000, 1000:3000] = 200
    save_png(small / "a.png", colour[::100, ::100])
    assert peak_growth(save_png(tmp_path / "a.png", colour), small) < 64 + 16 + 150
    zeros = np.zeros((75, 2000, 2000), np.uint8)  # 300 MB, in a file of 0.3 MB
    save_dicom(small / "z.dcm", zeros[:2, :8, :8], syntax=DeflatedExplicitVRLittleEndian)
    assert peak_growth(save_dicom(tmp_path / "z.dcm", zeros, syntax=DeflatedExplicitVRLittleEndian), small) < 600


def test_pictures_are_not_gathered_beyond_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(own_images, "LIMIT", 2 * 4 * 64**2 * 5)
    path = save_nifti(tmp_path / "a.nii", marked())
    assert len(own_images.load(path, per_volume=5).images) == 5
    with pytest.raises(DataError, match=r"so many pictures of size 64 .* choose a smaller size or per_volume"):
        own_images.load(path, per_volume=6)
