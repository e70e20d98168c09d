"""NIfTI files of the learner's own: every orientation, odd affines, numbers of any size, damage."""

import gzip
import struct
from itertools import permutations, product

import nibabel
import numpy as np
import pytest
from helpers.own_files import marked, save_nifti

from data_fetch import DataError, nifti_files, own_images

AFFINE = np.diag([1.0, 1, 3, 1])
QFORM_CODE, SFORM_CODE, QUATERN_B, SROW_X = 252, 254, 256, 280  # bytes of the header


def save(path, array, change=None, affine=AFFINE, kind=nibabel.Nifti1Image):
    """A NIfTI file with sform and qform, of which `change` may alter the bytes."""
    image = kind(array, affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    content = bytearray(image.to_bytes())
    if change:
        change(content)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def put(start, content):
    return lambda data: data.__setitem__(slice(start, start + len(content)), content)


# --- where the voxels lie


ORDERS = ["".join(signs) for axes in permutations(("LR", "PA", "IS")) for signs in product(*axes)]


def test_all_48_storage_orders_give_the_same_pictures(tmp_path):
    assert len(set(ORDERS)) == 48
    voxels = marked((9, 12, 10))
    for plane in own_images.PLANES:
        right = own_images.load(save_nifti(tmp_path / "RAS.nii", voxels, (1, 2, 3)), 24, plane, None).images
        for axes in ORDERS:
            path = save_nifti(tmp_path / "other.nii", voxels, (1, 2, 3), axes)
            assert np.array_equal(own_images.load(path, 24, plane, None).images, right), (plane, axes)


@pytest.mark.parametrize(
    "content",
    [bytes(48), bytes(16), struct.pack("<f", np.nan), struct.pack("<f", np.inf)],
    ids=["0", "row", "nan", "inf"],
)
@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
def test_a_good_qform_stands_in_for_an_sform_that_places_nothing(tmp_path, name, content):
    right = own_images.load(save(tmp_path / "right.nii", marked())).images
    assert np.array_equal(own_images.load(save(tmp_path / name, marked(), put(SROW_X, content))).images, right)


def test_without_a_usable_affine_the_file_is_named(tmp_path):
    def change(data):
        put(SROW_X, bytes(48))(data)
        put(QFORM_CODE, bytes(2))(data)

    def bad_quaternion(data):
        put(SFORM_CODE, bytes(2))(data)
        put(QUATERN_B, struct.pack("<f", 7))(data)

    for number, alter in enumerate((change, bad_quaternion)):
        path = save(tmp_path / f"odd{number}.nii", marked(), alter)
        with pytest.raises(DataError, match=rf"odd{number}\.nii.*(affine|quat|w2).*export it again"):
            own_images.load(path)


def test_only_the_planes_that_a_sheared_affine_does_not_skew_are_shown(tmp_path):
    """As of a scan with a tilted gantry, of 20 degrees: slices are whole, a stack seen from the side is a slant."""
    affine = np.diag([1.0, 1, 3, 1])
    affine[1, 2] = 3 * np.tan(np.radians(20))
    path = tmp_path / "tilted.nii"
    nibabel.save(nibabel.Nifti1Image(marked(), affine), path)
    assert own_images.load(path, plane="axial").images.shape == (8, 64, 64)
    assert own_images.load(path, plane="coronal").images.shape == (8, 64, 64)
    with pytest.raises(DataError, match=r"tilted\.nii.*sagittal pictures lie at 70 degrees"):
        own_images.load(path, plane="sagittal")


# --- numbers


def test_of_complex_numbers_the_magnitude_is_shown_and_said(tmp_path):
    phase = np.exp(1j * np.linspace(0, 9, 30))[:, None, None]
    right = own_images.load(save(tmp_path / "plain.nii", marked())).images
    found = own_images.load(save(tmp_path / "complex.nii.gz", (marked() * phase).astype(np.complex64)))
    assert np.allclose(found.images, right, atol=1e-5)
    assert all("(magnitude)" in source for source in found.sources)


@pytest.mark.parametrize("offset", [1e6, 1e9, 1e12, -1e12])
def test_levels_upon_a_large_offset_are_kept(tmp_path, offset):
    right = own_images.load(save(tmp_path / "plain.nii", marked().round().astype(np.float64)), per_volume=None)
    found = own_images.load(save(tmp_path / "high.nii", marked().round() + np.float64(offset)), per_volume=None)
    assert np.allclose(found.images, right.images, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-300, 1e38, 1e300, 3e305])
def test_numbers_of_any_size_are_shown(tmp_path, scale):
    """Float32 ends at 3e38; differences of float64 at 1.8e308."""
    voxels = marked().astype(np.float64)
    right = own_images.load(save(tmp_path / "plain.nii", voxels), per_volume=None).images
    assert np.allclose(own_images.load(save(tmp_path / "far.nii", voxels * scale), per_volume=None).images, right)
    both = own_images.load(save(tmp_path / "both.nii", (voxels - 55) / 45 * 1.7e308), per_volume=None).images
    assert np.allclose(both, right, atol=1e-5)


def test_infinite_voxels_are_at_the_ends_and_missing_ones_dark(tmp_path):
    voxels = marked((16, 16, 16))
    voxels[2, 2], voxels[4, 4], voxels[6, 6] = np.inf, -np.inf, np.nan
    images = own_images.load(save(tmp_path / "odd.nii", voxels, affine=np.eye(4)), 16, per_volume=None).images
    assert (images[:, 15 - 2, 15 - 2] == 1).all()
    assert (images[:, 15 - 4, 15 - 4] == -1).all()
    assert (images[:, 15 - 6, 15 - 6] == -1).all()


@pytest.mark.parametrize("kind", ["u1", ">i2", "<u2", "i4", "f4", ">f8", "i8"])
def test_every_stored_type_gives_the_same_picture(tmp_path, kind):
    voxels = marked().round()
    right = own_images.load(save(tmp_path / "plain.nii", voxels)).images
    for image, name in ((nibabel.Nifti1Image, "x.nii"), (nibabel.Nifti2Image, "x.nii.gz")):
        array = voxels.astype(kind)
        header = image.header_class(endianness=">" if ">" in kind else "<")
        header.set_data_dtype(array.dtype)
        made = image(array, AFFINE, header)
        nibabel.save(made, tmp_path / name)
        assert np.array_equal(own_images.load(tmp_path / name).images, right)


def test_scaling_of_the_header_is_applied(tmp_path):
    def halve_and_shift(data):
        put(112, struct.pack("<ff", -0.5, 1e9))(data)

    right = own_images.load(save(tmp_path / "plain.nii", -marked().round())).images
    found = own_images.load(save(tmp_path / "scaled.nii.gz", marked().round().astype(np.int16), halve_and_shift))
    assert np.allclose(found.images, right, atol=1e-6)


def test_of_a_series_over_time_the_first_volume_is_shown(tmp_path):
    first, second = marked(seed=0), marked(seed=1)
    right = own_images.load(save(tmp_path / "first.nii", first)).images
    for name in ("both.nii", "both.nii.gz"):
        path = save(tmp_path / name, np.stack([first, second], -1)[:, :, :, None])
        assert np.array_equal(own_images.load(path).images, right)


# --- damage


def test_every_flipped_bit_of_a_compressed_file_is_found(tmp_path):
    """The checksum stands at the end of the file, after the last voxel."""
    content = save(tmp_path / "right.nii.gz", marked((12, 12, 8))).read_bytes()
    right = own_images.load(tmp_path / "right.nii.gz").images
    random = np.random.default_rng(0)
    for place in [*random.integers(10, len(content), 60), len(content) - 1, len(content) - 8]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << random.integers(8)
        (tmp_path / "damaged.nii.gz").write_bytes(damaged)
        with pytest.raises(DataError, match=r"damaged\.nii\.gz"):
            own_images.load(tmp_path / "damaged.nii.gz")
    assert np.array_equal(own_images.load(tmp_path / "right.nii.gz").images, right)


def empty(shape):
    return lambda path: nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.float32), AFFINE), path)


def cut_short(path):
    save(path, marked())
    path.write_bytes(path.read_bytes()[:-1000])


def cut_short_inside(path):
    save(path.with_suffix(".nii"), marked())
    path.write_bytes(gzip.compress(path.with_suffix(".nii").read_bytes()[:-1000]))


def colour(path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((8, 8, 8), [("R", "u1"), ("G", "u1"), ("B", "u1")]), AFFINE), path)


def huge(path):
    save(path, marked(), put(42, struct.pack("<hhh", 32767, 32767, 32767)))  # the sides in the header


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("none.nii", empty((8, 8, 8, 0)), r"shape \(8, 8, 8, 0\)"),
        ("flat.nii", empty((8, 8)), r"shape \(8, 8\); a volume of three dimensions"),
        ("colour.nii", colour, "colour NIfTI"),
        ("short.nii", cut_short, "cut short"),
        ("short.nii.gz", cut_short_inside, "cut short"),
        ("huge.nii", huge, "is too large"),
        ("huge.nii.gz", huge, "is too large"),
    ],
)
def test_what_is_no_volume_is_named(tmp_path, name, make, words):
    make(tmp_path / name)
    with pytest.raises(DataError, match=words) as raised:
        own_images.load(tmp_path / name)
    assert name in str(raised.value)


def test_what_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    path = save(tmp_path / "more.nii.gz", marked())
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(3 << 20)))
    own_images.load(path)  # a few bytes more are harmless
    monkeypatch.setattr(nifti_files, "LIMIT", 1 << 20)
    with pytest.raises(DataError, match=r"more\.nii\.gz unpacks to far more than its header says"):
        own_images.load(path)


def test_a_header_cannot_ask_for_more_memory_than_a_header_needs(tmp_path):
    """An extension of the header says itself how long it is."""
    path = save(tmp_path / "plain.nii", marked())
    content = bytearray(path.read_bytes())
    content[108:112] = struct.pack("<f", 352 + 64)  # where the voxels begin
    content[348:352] = b"\1\0\0\0"  # an extension follows
    extended = content[:352] + struct.pack("<ii", 64, 6) + b"a comment".ljust(56) + content[352:]
    (tmp_path / "extended.nii.gz").write_bytes(gzip.compress(extended))
    found = own_images.load(tmp_path / "extended.nii.gz").images
    assert np.array_equal(found, own_images.load(path).images)
    extended[352:356] = struct.pack("<i", 1 << 25)
    (tmp_path / "odd.nii.gz").write_bytes(gzip.compress(extended + bytes(1 << 25)))
    with pytest.raises(DataError, match=r"odd\.nii\.gz is no readable NIfTI file \(failed to read extension"):
        own_images.load(tmp_path / "odd.nii.gz")
