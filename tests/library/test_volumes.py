"""Affines, boxes, NIfTI files and hippocampi as channels."""

import gzip

import nibabel
import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from course_lib import datasets, experiments, hippocampus, pretrained
from course_lib.experiments import volumes as study
from course_lib.hippocampus import hippocampus_box
from course_lib.nifti import box_affine, cut_out, load_nifti, save_nifti
from course_lib.recipes import RECIPES
from course_lib.recipes import hippocampus as recipes


def oblique(spacing=(0.5, 1.0, 2.0), degrees=20, origin=(-30.5, 12.25, 7.0)):
    """An affine with unequal voxels, turned about z."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag(spacing)
    affine[:3, 3] = origin
    return affine


RAMP = np.arange(6 * 7 * 8, dtype=np.float32).reshape(6, 7, 8)


# ---- affines and boxes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("corner", [(0, 0, 0), (2, 3, 1), (-4, 1, 5)])
def test_a_voxel_of_the_box_lies_where_it_lay(corner):
    affine, index = oblique(), np.array([1, 2, 3])
    inside = box_affine(affine, corner) @ [*index, 1]
    before = affine @ [*(index + corner), 1]
    np.testing.assert_allclose(inside, before, rtol=0, atol=1e-12)


def test_box_agrees_with_nibabel_slicer():
    image = nibabel.Nifti1Image(RAMP, oblique())
    theirs = image.slicer[1:5, 2:6, 3:7]
    np.testing.assert_allclose(box_affine(oblique(), (1, 2, 3)), theirs.affine, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(cut_out(RAMP, (1, 2, 3), (4, 4, 4)), np.asarray(theirs.dataobj))


def test_a_box_may_reach_beyond_the_volume_but_not_miss_it():
    box = cut_out(RAMP, (-2, 5, 0), (4, 4, 8))
    assert box.shape == (4, 4, 8)
    np.testing.assert_array_equal(box[2:, :2], RAMP[:2, 5:])
    assert not box[:2].any() and not box[:, 2:].any()
    edge = cut_out(RAMP, (-2, 5, 0), (4, 4, 8), mode="edge")
    np.testing.assert_array_equal(edge[0, 0], RAMP[0, 5])
    with pytest.raises(ValueError, match="lies outside the volume of .6, 7, 8. voxels"):
        cut_out(RAMP, (6, 0, 0), (2, 2, 2))


@pytest.mark.parametrize(
    "affine", [np.eye(3), np.diag([1.0, 1, 0, 1]), np.full((4, 4), np.nan), np.arange(16.0).reshape(4, 4)]
)
def test_what_is_no_affine_is_refused(affine):
    with pytest.raises(ValueError, match="affine: an affine"):
        box_affine(affine, (0, 0, 0))


# ---- NIfTI files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_round_trip_keeps_voxels_and_affine(tmp_path, ending):
    """An affine of float32 numbers comes back to 1e-12, any other within float32; nibabel itself reads the same."""
    path = tmp_path / f"image{ending}"
    for affine, tolerance in ((oblique().astype(np.float32).astype(float), 1e-12), (oblique(), 31 * 6e-8)):
        save_nifti(path, RAMP, affine)
        array, found = load_nifti(path)
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, RAMP)
        np.testing.assert_allclose(found, affine, rtol=0, atol=tolerance)
        image = nibabel.load(path)
        np.testing.assert_array_equal(image.get_fdata(), RAMP)
        assert image.header.get_xyzt_units()[0] == "mm"
        np.testing.assert_allclose(image.header.get_zooms(), (0.5, 1, 2), rtol=1e-6)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SAL"])
def test_orientation_is_kept(tmp_path, codes):
    to_codes = nibabel.orientations.axcodes2ornt(codes)
    change = nibabel.orientations.ornt_transform(nibabel.orientations.axcodes2ornt("RAS"), to_codes)
    turned = nibabel.Nifti1Image(RAMP, np.diag([1.0, 2, 3, 1])).as_reoriented(change)
    save_nifti(tmp_path / "a.nii.gz", np.asarray(turned.dataobj), turned.affine)
    array, affine = load_nifti(tmp_path / "a.nii.gz")
    assert "".join(nibabel.aff2axcodes(affine)) == codes
    back = nibabel.as_closest_canonical(nibabel.Nifti1Image(array, affine))
    np.testing.assert_array_equal(np.asarray(back.dataobj), RAMP)


@pytest.mark.parametrize(
    ("array", "stored"),
    [
        (RAMP > 3, np.uint8),
        ((RAMP % 3).astype(np.int64), np.uint8),
        (-(RAMP % 3).astype(np.int64), np.int16),
        ((1000 * RAMP).astype(np.int64), np.int32),
        (RAMP.astype(np.float64), np.float32),
        (RAMP.astype(np.float16), np.float32),
        *((np.full((2, 2, 2), least), kind) for least, kind in ((-(2**15), np.int16), (-(2**15) - 1, np.int32))),
        *((np.full((2, 2, 2), 2**bits - 1), kind) for bits, kind in ((8, np.uint8), (15, np.int16), (31, np.int32))),
        *((np.full((2, 2, 2), 2**bits), kind) for bits, kind in ((8, np.int16), (15, np.int32))),
    ],
)
def test_labels_stay_whole_numbers(tmp_path, array, stored):
    save_nifti(tmp_path / "label.nii.gz", array, np.eye(4))
    found, _ = load_nifti(tmp_path / "label.nii.gz")
    assert found.dtype == stored
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    ("name", "array", "affine", "message"),
    [
        ("a.png", RAMP, np.eye(4), "a.png: a NIfTI file ends in .nii or .nii.gz"),
        ("a.nii", RAMP[0], np.eye(4), "a.nii: expected finite numbers in an array .X, Y, Z.; got float32 of shape"),
        ("a.nii", RAMP * np.nan, np.eye(4), "a.nii: expected finite numbers"),
        ("a.nii", np.array([[["text"]]]), np.eye(4), "a.nii: expected finite numbers"),
        ("a.nii", RAMP, np.eye(3), "a.nii: an affine is a finite 4 x 4 matrix"),
        ("a.nii", RAMP, np.zeros((4, 4)), "a.nii: an affine's last row"),
        ("a.nii", np.full((2, 2, 2), 2**40), np.eye(4), "a.nii: whole numbers .* do not fit"),
        ("a.nii", RAMP.astype(float) * 1e300, np.eye(4), "a.nii: some numbers are beyond float32"),
    ],
)
def test_bad_input_is_refused_by_the_name_of_the_file(tmp_path, name, array, affine, message):
    with pytest.raises(ValueError, match=message):
        save_nifti(tmp_path / name, array, affine)
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_volume_are_refused(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(b"no NIfTI"))
    with pytest.raises(ValueError, match="a.nii.gz is no readable NIfTI file"):
        load_nifti(tmp_path / "a.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 2, 2, 3), np.float32), np.eye(4)), tmp_path / "b.nii")
    with pytest.raises(ValueError, match="b.nii: expected a volume"):
        load_nifti(tmp_path / "b.nii")
    with pytest.raises(FileNotFoundError):
        load_nifti(tmp_path / "none.nii")


def test_a_changed_bit_is_found_even_behind_the_voxels(tmp_path):
    save_nifti(tmp_path / "a.nii.gz", RAMP, np.eye(4))
    content = (tmp_path / "a.nii.gz").read_bytes()
    for place in (len(content) // 2, len(content) - 6, len(content) - 1):
        (tmp_path / "b.nii.gz").write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.raises(ValueError, match="b.nii.gz is no readable NIfTI file"):
            load_nifti(tmp_path / "b.nii.gz")


@pytest.mark.parametrize("row", [bytes(48), np.full(4, np.nan, "<f4").tobytes()])
def test_a_good_qform_stands_in_for_an_sform_that_places_nothing(tmp_path, row):
    affine = oblique()
    image = nibabel.Nifti1Image(RAMP, affine)
    image.set_qform(affine, 1)
    content = bytearray(image.to_bytes())
    content[280 : 280 + len(row)] = row  # the rows of the sform
    (tmp_path / "a.nii").write_bytes(content)
    np.testing.assert_allclose(load_nifti(tmp_path / "a.nii")[1], affine, atol=1e-5)
    content[252:254] = bytes(2)  # no qform either
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(ValueError, match="a.nii: an affine"):
        load_nifti(tmp_path / "a.nii")


def test_numbers_beyond_float32_are_not_turned_into_infinity(tmp_path):
    nibabel.save(nibabel.Nifti1Image(RAMP.astype(float) * 1e300, np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(ValueError, match="a.nii: some numbers are beyond float32"):
        load_nifti(tmp_path / "a.nii")


@pytest.mark.parametrize("kind", [">i2", ">f4", "<i2", "<i4"])
def test_bytes_of_either_order_become_tensors(tmp_path, kind):
    values = np.arange(-12, 12).reshape(2, 3, 4)
    header = nibabel.Nifti1Header(endianness=kind[0])
    header.set_data_dtype(np.dtype(kind))
    nibabel.save(nibabel.Nifti1Image(values.astype(kind), np.eye(4), header), tmp_path / "a.nii")
    stored = nibabel.load(tmp_path / "a.nii")
    assert stored.header.endianness == kind[0]
    array, _ = load_nifti(tmp_path / "a.nii")
    assert array.dtype == np.dtype(kind).newbyteorder("=") and torch.as_tensor(array).tolist() == values.tolist()


# ---- hippocampi as channels ------------------------------------------------------------------------------------------


def test_box_holds_the_whole_label():
    label = np.zeros((40, 60, 40), np.uint8)
    label[10:20, 5:45, 8:30] = 1
    for shift in ((0, 0, 0), (50, -50, 1)):
        assert cut_out(label, hippocampus_box(label, shift), hippocampus.HIPPOCAMPUS_SHAPE).sum() == label.sum()
    label[:, 0:50] = 1
    assert hippocampus_box(label) is None


def test_box_has_the_label_in_its_middle_and_moves_with_the_shift_as_far_as_the_label_allows():
    """Rooms of 22, 8 and 10 voxels, halved; a shift moves the label within the box, to its ends at most."""
    label = np.zeros((60, 60, 60), np.uint8)
    label[30:40, 10:50, 20:42] = 1
    assert hippocampus_box(label).tolist() == [30 - 11, 10 - 4, 20 - 5]
    assert hippocampus_box(label, (3, -2, 1)).tolist() == [30 - 14, 10 - 2, 20 - 6]
    assert hippocampus_box(label, (50, -50, 5)).tolist() == [30 - 22, 10, 20 - 10]


def test_middle_of_a_box_without_a_scan_is_at_zero():
    """Voxel centres lie evenly to either side: their mean is the origin."""
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(hippocampus.HIPPOCAMPUS_SHAPE) - 1)
    places = corners @ hippocampus.HIPPOCAMPUS_AFFINE[:3, :3].T + hippocampus.HIPPOCAMPUS_AFFINE[:3, 3]
    np.testing.assert_allclose(places.mean(0), 0, atol=1e-12)


def test_channels_and_back():
    label = np.zeros((30, 50, 30), np.uint8)
    label[8:16, 6:20, 8:20], label[8:16, 20:40, 8:20] = 1, 2
    image = np.linspace(-1, 1, label.size, dtype=np.float32).reshape(label.shape)
    corner = hippocampus_box(label)
    x = hippocampus.hippocampus_channels(image, label, corner)
    assert x.shape == (3, *hippocampus.HIPPOCAMPUS_SHAPE) and x.dtype == np.float32 and np.abs(x).max() <= 1
    found = hippocampus.labels_of(x[None])
    assert found.dtype == torch.uint8
    np.testing.assert_array_equal(found[0], cut_out(label, corner, hippocampus.HIPPOCAMPUS_SHAPE))
    assert hippocampus.label_volumes(found).tolist() == [[8 * 14 * 12, 8 * 20 * 12]]
    np.testing.assert_array_equal(x[0][:, 2, 2][-corner[0] :], image[:, 2 + corner[1], 2 + corner[2]][: 32 + corner[0]])
    assert corner[0] == -4, "the box reaches beyond the volume: the image's edge is repeated, the label is background"
    np.testing.assert_array_equal(x[:, :4], np.stack([np.repeat(x[0, 4:5], 4, 0), *-np.ones((2, 4, 48, 32))]))


def test_where_both_labels_are_claimed_the_stronger_wins():
    x = -torch.ones(1, 3, 1, 1, 3)
    x[0, 1, 0, 0] = torch.tensor([0.1, 0.9, -0.1])
    x[0, 2, 0, 0] = torch.tensor([0.3, 0.2, -0.2])
    assert hippocampus.labels_of(x)[0, 0, 0].tolist() == [2, 1, 0]
    assert hippocampus.slice_labels(x[:, 1:, 0]).tolist() == [[[2, 1, 0]]]


def test_largest_share_by_hand():
    labels = torch.zeros(1, 4, 4, 4, dtype=torch.uint8)
    labels[0, 0, 0, :3] = 1
    labels[0, 1, 1, 0] = 1  # touches the row only at an edge
    assert hippocampus.largest_shares(labels).tolist() == [[0.75, 0.0]]


# ---- measures of networks --------------------------------------------------------------------------------------------


class ByBrightness:
    """A judge that reads the labels off the image: background -0.8, anterior 0, posterior 0.8."""

    def labels(self, x):
        return ((x > -0.4).long() + (x > 0.4).long())[:, 0]


def bright_as_labelled(n):
    """n volumes as channels, two blocks of labels that grow from one to the next, the image as the judge wants it."""
    labels = torch.zeros(n, *hippocampus.HIPPOCAMPUS_SHAPE, dtype=torch.uint8)
    for k in range(n):
        labels[k, 10:20, 5 : 15 + k, 8:20], labels[k, 10:20, 20 : 30 + k, 8:20] = 1, 2
    parts = [torch.where(labels == k, 1.0, -1.0) for k in (1, 2)]
    return torch.stack([0.8 * labels.float() - 0.8, *parts], 1).numpy(), labels


class Loses(nn.Module):
    """An autoencoder that keeps everything but a share of the contrast of the image, and the posterior label."""

    def __init__(self, kept, posterior):
        super().__init__()
        self.kept, self.posterior = kept, posterior
        self.register_buffer("scale", torch.ones(()))

    def encode(self, x):
        return x * self.scale

    def decode(self, z):
        image, anterior, posterior = (z / self.scale).split(1, 1)
        return torch.cat([self.kept * image, anterior, posterior if self.posterior else -posterior.abs()], 1)


def finest_contrast(x):
    """Local contrast of the finest band of a slice (H, W), by SciPy, 1e-4 under its root."""
    band = x - ndimage.gaussian_filter(x, 0.8, mode="wrap", truncate=9)
    return np.sqrt(ndimage.gaussian_filter(band**2, 2.0, mode="wrap", truncate=9) + 1e-4)


def measured(net, monkeypatch):
    monkeypatch.setattr(datasets, "hippocampi", lambda split: bright_as_labelled(3)[0])
    monkeypatch.setattr(pretrained, "load", lambda name: {"hippocampus_unet": ByBrightness()}[name])
    return recipes.measure_volume_autoencoder(RECIPES["hippocampus_autoencoder"], net)


def test_measures_of_an_autoencoder_that_loses_nothing(monkeypatch):
    net = Loses(1.0, posterior=True)
    card, tensors = measured(net, monkeypatch)
    parts = ("anterior", "posterior")
    assert all(card["test_dice"][part] == 1 for part in parts) and card["detail"] == 1
    assert all(judged[part] == 1 for judged in card["judge"].values() for part in parts)
    sizes = {part: [1320.0, 120.0] for part in parts}  # 10 x 10, 11, 12 x 12 voxels
    assert card["volume_mm3_mean_and_std"] == {"real": sizes, "decoded": sizes}
    std = bright_as_labelled(3)[0].std()
    assert card["scale"] == pytest.approx(1 / std, rel=1e-4) and tensors["scale"] == net.scale


def test_measures_of_an_autoencoder_that_loses_contrast_and_a_part(monkeypatch):
    """Half of the image's contrast, a mean square of a quarter of its own; the judge sees the posterior part no more,
    and neither is there a label of it."""
    card, _ = measured(Loses(0.5, posterior=False), monkeypatch)
    image = bright_as_labelled(3)[0][:, 0]
    by_hand = np.mean(10 * np.log10(4 / (0.25 * image**2).mean((1, 2, 3))))
    assert card["psnr"] == pytest.approx(by_hand, abs=1e-3)
    assert card["test_dice"]["anterior"] == 1 and card["test_dice"]["posterior"] == 0
    assert card["volume_mm3_mean_and_std"]["decoded"]["posterior"] == [0, 0]
    assert card["judge"]["real"]["posterior"] == 1 and card["judge"]["decoded"]["posterior"] == 0
    whole, half = (np.mean([finest_contrast(c * slice) for slice in image.reshape(-1, 48, 32)]) for c in (1, 0.5))
    assert card["detail"] == pytest.approx(half / whole, abs=2e-3)


def test_a_set_of_volumes_described_by_hand(monkeypatch):
    x, _ = bright_as_labelled(3)
    monkeypatch.setattr(pretrained, "load", lambda name: ByBrightness())
    found = study.described(torch.as_tensor(x))
    assert found["mean"] == [1320, 1320] and found["spread"] == [120, 120] and found["volumes"] == 3
    assert found["judge"] == [1, 1] and found["largest_share"] == found["in_one_piece"] == 1
    x[0, 1, 0, 0, 0] = 1  # a speck of one voxel in one part of 1,201
    found = study.described(torch.as_tensor(x))
    assert found["largest_share"] == pytest.approx(1 - 1 / 1201 / 6, abs=1e-4) and found["in_one_piece"] == 1
    x[0, 1, 0, 0, :20] = 1  # and of twenty, one in 61
    assert study.described(torch.as_tensor(x))["in_one_piece"] == pytest.approx(2 / 3, abs=1e-4)


def test_other_groups_are_a_training_of_their_own(monkeypatch):
    """A row with 16 groups takes another network, as large, and another checkpoint than the row of the same seed."""
    asked = []
    monkeypatch.setattr(study, "finished", lambda recipe, folder: asked.append(recipe) or (recipe.fresh(), None))
    monkeypatch.setattr(study, "described", lambda x: {"volumes": len(x)})
    monkeypatch.setattr(study, "nearest", lambda x: {})
    drawn = {
        method: (name, changes, lambda recipe, net: torch.zeros(2), seeds)
        for method, (name, changes, _, seeds) in study.METHODS.items()
    }
    monkeypatch.setattr(study, "METHODS", drawn)
    rows = [study.measure(method, 1)[0] for method in ("latents", "latents, 16 groups")]
    assert [row["volumes"] for row in rows] == [2, 2]
    usual, other = asked
    assert usual.name != other.name and usual.network_args["norm_groups"] == 1
    assert other.network_args == usual.network_args | {"norm_groups": 16}
    shapes = [{key: value.shape for key, value in recipe.fresh().state_dict().items()} for recipe in asked]
    assert shapes[0] == shapes[1]


def test_the_record_of_volumes_is_whole_and_agrees_with_the_cards():
    record = experiments.load("07_volumes")
    keys = [{key: row[key] for key in ("method", "seed")} for row in record["rows"]]
    assert keys == study.STUDY.plan() and all(map(study.STUDY.is_fresh, record["rows"]))
    for row in record["rows"]:
        if row["seed"] == 0:  # drawn anew from the same noise
            of_card = pretrained.card(study.METHODS[row["method"]][0])["volume_mm3_mean_and_std"]["sample"]
            assert row["mean"] == pytest.approx([mean for mean, _ in of_card.values()], rel=0.02)
            assert row["spread"] == pytest.approx([spread for _, spread in of_card.values()], rel=0.1)
    # the time of a few steps, against that of the whole training on its card
    for name, found in (
        ("hippocampus_autoencoder", record["autoencoder"]),
        ("hippocampus_latent", next(row for row in record["rows"] if row["method"] == "latents")),
    ):
        assert found["training_minutes"] == pytest.approx(60 * pretrained.card(name)["core_hours"], rel=0.5)
