"""The command that samples, for every kind of network: classes or none, latents, volumes, and those that need more.

The networks here are small and untrained: what is tested is what is written where, and what is refused.
"""

import re

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from course_lib import generate, pretrained, sample
from course_lib.denoisers import Denoiser
from course_lib.hippocampus import HIPPOCAMPUS_SHAPE, label_volumes
from course_lib.images import save_images
from course_lib.networks import build
from course_lib.nifti import load_nifti
from course_lib.schedules import Cosine, Linear, RectifiedFlow, ScaledLinear, VarianceExploding

TINY = {"channels": (32, 32), "num_res_blocks": 1}
ABOUT = {"loss": "DiffusionLoss", "schedule": "Cosine", "kind": "v", "classes": [], "image_size": 32}
NETWORKS = {
    "plain": ("DiffusionUNet", TINY | {"patch": 2}, {}),
    "classed": ("DiffusionUNet", TINY | {"patch": 2, "num_classes": 2}, {"classes": ["A", "B"]}),
    "latent": ("DiffusionUNet", TINY | {"patch": 1, "in_channels": 4}, {}),
    "volume": ("DiffusionUNet", TINY | {"patch": 2, "in_channels": 3, "spatial_dims": 3}, {}),
    "concat": ("DiffusionUNet", TINY | {"patch": 2, "concat": 1}, {}),
    "brain_autoencoder": ("Autoencoder", {"channels": (32, 32, 32), "latent_channels": 4}, {"loss": "AutoencoderLoss"}),
    "volume_latent": ("DiffusionUNet", TINY | {"patch": 1, "in_channels": 4, "spatial_dims": 3}, {}),
    "hippocampus_autoencoder": (
        "Autoencoder",
        {"channels": (32, 32), "latent_channels": 4, "in_channels": 3, "spatial_dims": 3},
        {"loss": "AutoencoderLoss"},
    ),
}


@pytest.fixture(autouse=True, scope="module")
def weights(tmp_path_factory):
    """A folder of untrained networks in place of the shipped ones."""
    folder, before = tmp_path_factory.mktemp("weights"), pretrained.WEIGHTS
    pretrained.WEIGHTS = folder
    torch.manual_seed(0)
    for name, (network, arguments, more) in NETWORKS.items():
        net = build(network, **arguments)
        if network == "Autoencoder":
            net.scale.fill_(0.5)
        pretrained.save(name, net, ABOUT | {"network": network, "network_args": arguments} | more, folder=folder)
    pretrained.write_card("control", ABOUT | {"network": "ControlledUNet", "network_args": {}, "sha256": ""})
    yield
    pretrained.WEIGHTS = before


def run(name, folder, *more, n=2):
    return sample.main([name, "--n", str(n), "--nfe", "2", "--out", str(folder), *more])


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["plain", "latent"])
def test_without_classes_pictures_are_numbered(name, tmp_path, capsys):
    assert run(name, tmp_path / "o") == 0
    assert names_in(tmp_path / "o") == ["000.png", "001.png", "samples.npz"]
    with np.load(tmp_path / "o" / "samples.npz") as npz:
        assert list(npz) == ["images"]
        images = npz["images"]
    assert images.shape == (2, 32, 32) and images.dtype == np.float32 and np.abs(images).max() <= 1
    png = np.asarray(Image.open(tmp_path / "o" / "001.png"))
    assert np.abs(png / 127.5 - 1 - images[1]).max() <= 1 / 255 + 1e-6
    assert "2 images at 2 evaluations each" in capsys.readouterr().out


def test_with_classes_the_name_tells(tmp_path):
    assert run("classed", tmp_path, n=3) == 0
    assert names_in(tmp_path) == ["000_A.png", "001_B.png", "002_A.png", "samples.npz"]


def test_latents_are_decoded_with_their_scale():
    """draw_latents = generate, then decode(z / scale), whatever the batch size."""
    denoiser, autoencoder = pretrained.load_denoiser("latent", clip=False), pretrained.load("brain_autoencoder")
    z, images = generate.draw_latents(denoiser, autoencoder, 3, nfe=2, seed=4, size=32)
    assert z.shape == (3, 4, 4, 4) and images.shape == (3, 32, 32)
    with pytest.raises(ValueError, match="size must be a multiple of 8, the factor of the autoencoder, got 33"):
        generate.draw_latents(denoiser, autoencoder, 3, nfe=2, size=33)
    noise = torch.randn(3, 4, 4, 4, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(z, generate.generate(denoiser, noise, nfe=2, batch_size=1), rtol=0, atol=0.1)
    by_hand = autoencoder.autoencoder.decode(z / 0.5)
    expected = torch.nn.functional.pixel_shuffle(by_hand, 2)[:, 0].clamp(-1, 1)
    without_scale = torch.nn.functional.pixel_shuffle(autoencoder.autoencoder.decode(z), 2)[:, 0].clamp(-1, 1)
    assert (images - expected).abs().mean() < 0.02  # bfloat16 at most
    assert (images - without_scale).abs().mean() > 0.05


def test_latents_of_volumes_are_decoded_with_their_scale():
    """By MONAI's own decoder; the cubes of its channels put in place by hand."""
    denoiser = pretrained.load_denoiser("volume_latent", clip=False)
    autoencoder = pretrained.load("hippocampus_autoencoder")
    z, x = generate.draw_latents(denoiser, autoencoder, 2, nfe=2, seed=4, size=(8, 16, 8))
    assert z.shape == (2, 4, 2, 4, 2) and x.shape == (2, 3, 8, 16, 8) and x.abs().max() <= 1
    noise = torch.randn(2, 4, 2, 4, 2, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(z, generate.generate(denoiser, noise, nfe=2), rtol=0, atol=0.1)
    folded = autoencoder.autoencoder.decode(z / 0.5)  # (2, 24, 4, 8, 4): of each channel a cube of 2 x 2 x 2
    expected = torch.zeros_like(x)
    for channel, (i, j, k) in enumerate(np.ndindex(2, 2, 2)):
        expected[:, :, i::2, j::2, k::2] = folded[:, channel::8].clamp(-1, 1)
    assert (x - expected).abs().mean() < 0.02  # bfloat16 at most
    for size, message in (((8, 16), "size must be 3 sides"), ((8, 16, 6), "size must be a multiple of 4")):
        with pytest.raises(ValueError, match=message):
            generate.draw_latents(denoiser, autoencoder, 2, nfe=2, size=size)


def test_volumes_of_latents_are_written_as_pairs(tmp_path):
    assert run("volume_latent", tmp_path, n=1) == 0
    assert names_in(tmp_path) == ["000_image.nii.gz", "000_label.nii.gz"]
    image, label = (load_nifti(tmp_path / name)[0] for name in names_in(tmp_path))
    denoiser = pretrained.load_denoiser("volume_latent", clip=False)
    autoencoder = pretrained.load("hippocampus_autoencoder")
    _, x = generate.draw_latents(denoiser, autoencoder, 1, nfe=2, seed=0, size=HIPPOCAMPUS_SHAPE)
    np.testing.assert_array_equal(image, x[0, 0])
    assert (label > 0).sum() == int((x[0, 1:] > 0).any(0).sum())


def test_volumes_are_written_as_pairs(tmp_path, capsys):
    assert run("volume", tmp_path) == 0
    assert names_in(tmp_path) == [f"{k:03d}_{what}.nii.gz" for k in range(2) for what in ("image", "label")]
    image, affine = load_nifti(tmp_path / "000_image.nii.gz")
    label, label_affine = load_nifti(tmp_path / "000_label.nii.gz")
    assert image.shape == label.shape == HIPPOCAMPUS_SHAPE
    assert image.dtype == np.float32 and np.abs(image).max() <= 1
    assert label.dtype == np.uint8 and set(np.unique(label)) <= {0, 1, 2}
    np.testing.assert_array_equal(affine, label_affine)
    np.testing.assert_allclose(nibabel.affines.apply_affine(affine, (np.array(image.shape) - 1) / 2), 0, atol=1e-12)
    assert nibabel.affines.voxel_sizes(affine).tolist() == [1, 1, 1]
    x = generate.draw_volumes(pretrained.load_denoiser("volume"), 2, nfe=2, seed=0)
    np.testing.assert_array_equal(image, x[0, 0])
    assert label_volumes(label[None]).sum() == ((x[0, 1:] > 0).any(0)).sum()
    assert "2 volumes at 2 evaluations each" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["control"], "control needs a map of labels: notebook 06"),
        (["concat"], "concat needs an image to start from: notebook 06"),
        (["brain_autoencoder"], "brain_autoencoder is not a diffusion network"),
        (["plain", "--class", "A"], "plain knows no classes; leave --class out"),
        (["plain", "--class", ""], "plain knows no classes; leave --class out"),
        (["classed", "--class", "C"], "no class 'C'; choose one of A, B"),
        (["classed", "--class", ""], "no class ''; choose one of A, B"),
    ],
)
def test_refuses_in_one_sentence(arguments, message, tmp_path, capsys):
    assert sample.main([*arguments, "--out", str(tmp_path / "o")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search(message, error)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("name", ["plain", "volume"])
def test_a_folder_with_pictures_is_refused(name, tmp_path, capsys):
    """Old and new pictures do not mix, and the old ones stay as they were."""
    (tmp_path / "notes.txt").write_text("mine")
    assert run(name, tmp_path) == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert run(name, tmp_path, n=1) == 1
    assert re.search("holds [34] files of pictures already.*name another folder", capsys.readouterr().err)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_has_a_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert sample.main(["plain", "--out", ""]) == 1
    assert "the folder has no name" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.png"))


def test_a_file_in_place_of_the_folder_is_refused(tmp_path, capsys):
    (tmp_path / "o").write_text("mine")
    assert run("plain", tmp_path / "o") == 1 and "is a file: name a folder" in capsys.readouterr().err
    assert (tmp_path / "o").read_text() == "mine"


def test_nan_is_never_written_as_black(tmp_path, monkeypatch, capsys):
    """Of 2 x 32 x 32 values three are NaN or infinite: said, and no file written."""
    bad = torch.zeros(2, 32, 32)
    bad[1, 2:4, 3], bad[0, 0, 0] = float("nan"), float("inf")
    with pytest.raises(ValueError, match="3 of 2048 values drawn are NaN or infinite, and nothing was written"):
        save_images(bad, tmp_path)
    monkeypatch.setattr(sample, "draw", lambda *_: bad)
    assert run("plain", tmp_path) == 1 and "3 of 2048 values" in capsys.readouterr().err
    volumes = torch.zeros(2, 3, *HIPPOCAMPUS_SHAPE)
    volumes[1, 2, 0, 0, 0] = float("nan")  # in a label of the second
    with pytest.raises(ValueError, match="1 of 294912 values drawn are NaN"):
        sample.save_volumes(volumes, tmp_path)
    assert not list(tmp_path.iterdir())


def test_pictures_beyond_the_range_are_clipped_and_not_wrapped(tmp_path):
    save_images(np.array([[[-1.02, -1, 1, 1.02]]], np.float32), tmp_path)
    assert np.asarray(Image.open(tmp_path / "000.png")).tolist() == [[0, 0, 255, 255]]


def test_what_is_kept_beside_the_pictures_has_the_types_that_are_said(tmp_path):
    save_images(np.full((2, 4, 4), 0.25), tmp_path, np.array([0, 1], np.int8), ("A", "B"))
    with np.load(tmp_path / "samples.npz") as npz:
        assert npz["images"].dtype == np.float32 and npz["labels"].dtype == np.int64
        assert (npz["images"] == 0.25).all() and npz["labels"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((4, 4)), None, r"images must be \(N, H, W\)"),
        (np.full((1, 4, 4), 255.0), None, "reach 255"),
        (np.zeros((2, 4, 4)), np.array([0]), "labels must be 2 numbers in 0..1"),
        (np.zeros((2, 4, 4)), np.array([0, 2]), "labels must be 2 numbers in 0..1"),
    ],
)
def test_what_is_no_picture_is_refused(images, labels, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        save_images(images, tmp_path, labels, ("A", "B"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "more", [["--nfe", "0"], ["--nfe", "-1"], ["--n", "-3"], ["--seed", "-1"], ["--seed", str(2**70)]]
)
def test_numbers_beyond_their_range_are_refused(more, tmp_path, capsys):
    assert run("plain", tmp_path / "o", *more) == 1
    assert "--n must be at least 1, --nfe at least 2, and --seed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("y", "message"), [([0, 5], "in 0..1 or 2 for none"), ([-1, 0], "none; got"), ([0.5, 0], "whole")]
)
def test_classes_that_the_network_does_not_know(y, message):
    with pytest.raises(ValueError, match=message):
        generate.draw(pretrained.load_denoiser("classed"), torch.tensor(y), nfe=2, size=32)


def test_conditions_are_as_many_as_the_noise():
    with pytest.raises(ValueError, match="y of as many as there is noise, 3; got batch_size 100 and 2 of y"):
        generate.generate(pretrained.load_denoiser("classed"), torch.zeros(3, 1, 32, 32), torch.tensor([0, 1]), 2)


@pytest.mark.parametrize(
    "schedule",
    [Cosine(), Linear(), RectifiedFlow(), VarianceExploding(), ScaledLinear()],
    ids=lambda schedule: type(schedule).__name__,
)
def test_samples_of_every_schedule_have_the_spread_of_their_data(schedule):
    """The exact denoiser of data N(0, 1/4): its samples must have standard deviation 1/2."""

    class Exact(Denoiser):
        def __init__(self):
            self.schedule = schedule

        def __call__(self, x_t, t):
            alpha, sigma = schedule.alpha(t), schedule.sigma(t)
            return (alpha / 4 / (alpha**2 / 4 + sigma**2)).float() * x_t

    noise = torch.randn(4000, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    assert float(generate.generate(Exact(), noise, nfe=40).std()) == pytest.approx(0.5, rel=0.03)


def test_the_command_may_be_stopped(tmp_path, monkeypatch, capsys):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(sample, "draw", stop)
    assert sample.main(["plain", "--n", "1", "--nfe", "2", "--out", str(tmp_path / "out")]) == 130
    assert "stopped; " in (said := capsys.readouterr().err) and "none of the images, or not all" in said
