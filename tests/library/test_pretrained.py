"""The networks that ship, their cards, and the command that samples from them."""

import ast
import errno
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from course_lib import pretrained, sample, schedules
from course_lib.datasets import spread_of_each_class
from course_lib.eight_bits import rounded
from course_lib.generate import draw
from course_lib.losses import AutoencoderLoss, DiffusionLoss, MaskedLoss
from course_lib.recipes import RECIPES, queue
from course_lib.recipes.copies import COPIES

ROOT = Path(__file__).resolve().parents[2]
MEGABYTE = 1_000_000


def test_importing_the_library_is_light():
    """Under 0.3 s, and without torch or MONAI."""
    code = (
        "import sys, time; start = time.perf_counter(); import course_lib; seconds = time.perf_counter() - start;"
        "assert seconds < 0.3, seconds; assert not {'torch', 'monai', 'numpy', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def imported(path):
    """The top-level packages that a file imports, anywhere in it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    return {name.split(".")[0] for name in names}


def test_walls_stand():
    """data_fetch never imports course_lib, in course_lib only datasets.py knows it, and samplers know no MONAI."""
    assert not [path for path in (ROOT / "data_fetch").rglob("*.py") if "course_lib" in imported(path)]
    assert [p.name for p in (ROOT / "course_lib").rglob("*.py") if "data_fetch" in imported(p)] == ["datasets.py"]
    for name in ("samplers.py", "denoisers.py", "schedules.py", "predictions.py"):
        assert "monai" not in imported(ROOT / "course_lib" / name), name


@pytest.mark.parametrize("name", pretrained.names())
def test_network_ships_whole_and_within_its_budget(name):
    card, path = pretrained.card(name), pretrained.WEIGHTS / f"{name}.safetensors"
    assert path.stat().st_size == card["bytes"] <= 16 * MEGABYTE
    assert hashlib.sha256(path.read_bytes()).hexdigest() == card["sha256"]
    share_alike = {"mednist": "Mayo Clinic", "trend": "Mayo Clinic", "hippocampus": "Vanderbilt"}
    owners = share_alike | {"brain": "Louis Collins", "lesion": "Louis Collins", "lidc": "Armato", "tumour": "J. Cheng"}
    data = name.split("_")[0]
    assert card["licence"].startswith("CC BY") and owners[data] in card["licence"]
    assert ("BY-SA" in card["licence"]) == (data in share_alike)  # as the data ask
    recipe = RECIPES[name]
    assert card["network_args"] == json.loads(json.dumps(recipe.network_args))  # made by the recipe as it stands
    assert all(parameter.isfinite().all() for parameter in pretrained.load(name).parameters())


def test_every_recipe_has_its_network():
    """But for those that are trained to be measured alone, in the record of notebook 14, and those still to train."""
    shipped, alone = set(pretrained.names()), {f"copies_{n}_{steps}" for n, steps in COPIES}
    waiting = {entry.name for entry in queue.QUEUE if not queue.is_shipped(entry)}
    assert shipped <= set(RECIPES) - alone <= shipped | waiting


@pytest.mark.parametrize("name", sorted(name for name, r in RECIPES.items() if r.base or r.autoencoder))
def test_a_network_ships_with_those_beside_which_it_was_trained(name):
    others = {RECIPES[name].base, RECIPES[name].autoencoder} - {None}
    assert pretrained.card(name)["beside"] == pretrained.sha256_of(others) == RECIPES[name].describe()["beside"]
    pretrained.load_denoiser(name)


def test_every_file_of_weights_is_a_network_with_a_card():
    assert sorted(path.stem for path in pretrained.WEIGHTS.glob("*.safetensors")) == pretrained.names()


def test_quality_on_the_card_meets_the_bar():
    """600 samples at 25 evaluations at most 8 times as far from the reference as 600 real held-out images."""
    card = pretrained.card("mednist")
    assert card["images"] == 600 and card["network_evaluations"] == 25
    assert card["ratio_to_floor"] == pytest.approx(card["frechet_distance"] / card["floor"])
    assert card["floor"] == pretrained.card("mednist_features")["floor"]["frechet_distance"]
    assert card["ratio_to_floor"] <= 8


def test_samples_are_what_was_asked_for():
    """The classifier, trained apart, recognises at least 15 of 18 images, three of each class."""
    y = torch.arange(6).repeat_interleave(3)
    images = draw(pretrained.load_denoiser("mednist"), y, nfe=15, seed=0)
    assert images.shape == (18, 64, 64) and images.dtype == torch.float32 and images.abs().max() <= 1
    answer = pretrained.load("mednist_features")(images[:, None]).argmax(1)
    assert int((answer == y).sum()) >= 15


@pytest.mark.parametrize(("name", "told"), [("mednist_noisy_classifier", True), ("mednist_features", False)])
def test_a_classifier_answers_where_x_t_is_and_is_told_the_time_if_it_learned_noise(name, told):
    logits, net = pretrained.load_classifier(name, torch.float32), pretrained.load(name)
    x_t = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    at_once = net(x_t.to(next(net.parameters())), *[0.5] * told)
    torch.testing.assert_close(logits(x_t, 0.5), at_once.to(x_t), rtol=0, atol=1e-4)


def test_the_seed_fixes_each_image():
    """The same seed gives the same images, another seed others; an image does not depend on the batch size."""
    denoiser, y = pretrained.load_denoiser("mednist"), torch.tensor([4, 2])
    one = draw(denoiser, y, nfe=3, seed=5)
    assert torch.equal(one, draw(denoiser, y, nfe=3, seed=5))
    assert not torch.allclose(one, draw(denoiser, y, nfe=3, seed=6), atol=0.1)
    torch.testing.assert_close(
        draw(denoiser, y, nfe=3, seed=5, batch_size=1), one, rtol=0, atol=0.1
    )  # bfloat16 at most


def test_command_writes_pngs_and_one_npz(tmp_path, capsys):
    from PIL import Image

    command = ["mednist", "--class", "hand", "--n", "2", "--nfe", "3", "--seed", "1", "--out", str(tmp_path / "o")]
    assert sample.main(command) == 0
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == ["000_Hand.png", "001_Hand.png", "samples.npz"]
    with np.load(tmp_path / "o" / "samples.npz") as npz:
        images, labels = npz["images"], npz["labels"]
    assert images.shape == (2, 64, 64) and images.dtype == np.float32 and np.abs(images).max() <= 1
    assert labels.tolist() == [4, 4]
    png = np.asarray(Image.open(tmp_path / "o" / "000_Hand.png"))
    assert png.dtype == np.uint8 and np.abs(png / 127.5 - 1 - images[0]).max() <= 1 / 255 + 1e-6


def test_without_a_class_all_take_turns(tmp_path):
    assert sample.main(["mednist", "--n", "7", "--nfe", "2", "--out", str(tmp_path)]) == 0
    with np.load(tmp_path / "samples.npz") as npz:
        assert npz["labels"].tolist() == [0, 1, 2, 3, 4, 5, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mednist", "--class", "Knee"], r"no class 'Knee'; choose one of AbdomenCT, .*HeadCT"),
        (["mednit"], r"no network 'mednit'.*there are: .*mednist"),
        (["mednist_features"], "not a diffusion network"),
        (["mednist", "--n", "0"], "--n must be at least 1"),
        (["mednist", "--nfe", "1"], "--nfe at least 2"),
        (["../mednist"], "the name of a network is made of letters"),
    ],
)
def test_command_refuses_in_one_sentence(arguments, message, tmp_path, capsys):
    assert sample.main([*arguments, "--out", str(tmp_path / "o")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and __import__("re").search(message, error)
    assert not (tmp_path / "o").exists()


def test_damaged_weights_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "WEIGHTS", tmp_path)
    net = torch.nn.Linear(2, 2)
    pretrained.save("x", net, {"network": "Classifier", "network_args": {}}, folder=tmp_path)
    path = tmp_path / "x.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(ValueError, match="x.safetensors is not the file on its card .*get it back"):
        pretrained.load("x")
    path.unlink()
    with pytest.raises(ValueError, match="x.safetensors is missing: get it back"):
        pretrained.load("x")


def test_spread_takes_as_many_of_each_class():
    labels = torch.tensor([0] * 10 + [1] * 30)
    chosen = spread_of_each_class(labels, 5)
    assert torch.bincount(labels[chosen]).tolist() == [5, 5] and chosen.unique().numel() == 10


# ---- Cards and names -------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of weights with one small network, "x"."""
    monkeypatch.setattr(pretrained, "WEIGHTS", tmp_path / "weights")
    about = {
        "network": "DiffusionUNet",
        "network_args": {"channels": [32], "patch": 4},
        "schedule": "Linear",
        "note": "a",
    }
    about |= {"kind": "v", "loss": "DiffusionLoss", "schedule_args": {"beta_min": 0.2, "beta_max": 10.0}}
    torch.manual_seed(0)
    pretrained.save("x", pretrained.build("DiffusionUNet", channels=(32,), patch=4), about, folder=tmp_path / "weights")
    return tmp_path / "weights"


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/b", "a\\b", ".x", "", "x.json", "..", None, 3])
def test_names_do_not_leave_the_folder(folder, name):
    net = torch.nn.Linear(2, 2)
    for call in (
        pretrained.card,
        pretrained.load,
        pretrained.load_denoiser,
        lambda name: pretrained.tensor(name, "a"),
        lambda name: pretrained.save(name, net, {"network": "Classifier", "network_args": {}}, folder=folder),
    ):
        with pytest.raises(ValueError, match="the name of a network is made of letters, digits, _ and -; got"):
            call(name)
    assert sorted(p.name for p in folder.parent.rglob("*")) == ["weights", "x.json", "x.safetensors"]


@pytest.mark.parametrize(
    "edit",
    [
        {"kind": "eps"},
        {"schedule": "Cosine"},
        {"schedule_args": {}},
        {"network_args": {"channels": [32], "patch": 2}},
        {"network": "Segmenter"},
        {"classes": ["A"]},
        {"sha256": "0" * 64},
        {"beside": {"x": "0" * 64}},
    ],
)
def test_an_edited_card_is_refused(folder, edit):
    path = folder / "x.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | edit))
    for call in (pretrained.card, pretrained.load, pretrained.load_denoiser):
        with pytest.raises(ValueError, match=r"x\.json was edited or is damaged .*get it back"):
            call("x")


def test_a_denoiser_beside_another_network_than_it_was_trained_with_is_refused(folder):
    pretrained.save("first", a_classifier(0), CLASSIFIER, folder=folder)
    pretrained.write_card("x", pretrained.card("x") | {"beside": pretrained.sha256_of(["first"])})
    pretrained.load_denoiser("x")
    pretrained.save("first", a_classifier(1), CLASSIFIER, folder=folder)
    said = "x was trained beside another first than the one that ships now: train it too .*course_lib.train x --from x"
    with pytest.raises(ValueError, match=said):
        pretrained.load_denoiser("x")
    pretrained.load("x")  # to train it on


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '"network"', "\ud800"])
def test_a_damaged_card_is_refused(folder, content):
    (folder / "x.json").write_bytes(content.encode(errors="surrogatepass"))
    with pytest.raises(ValueError, match=r"x\.json is no (readable|whole) card"):
        pretrained.load("x")


@pytest.mark.parametrize("key", pretrained.REQUIRED)
def test_a_card_without_what_is_required_is_refused(folder, key):
    path = folder / "x.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != key}))
    with pytest.raises(ValueError, match=rf"x\.json is no whole card, it lacks {key}: get it back"):
        pretrained.card("x")


def test_words_on_a_card_may_be_edited(folder):
    path = folder / "x.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"note": "b"}))
    assert pretrained.card("x")["note"] == "b"
    pretrained.write_card("x", pretrained.card("x") | {"kind": "eps"})  # an edit that is meant
    assert pretrained.card("x")["kind"] == "eps"


def test_a_schedule_of_its_own_parameters_comes_back(folder):
    denoiser = pretrained.load_denoiser("x")
    assert (denoiser.schedule.beta_min, denoiser.schedule.beta_max) == (0.2, 10.0)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"kind": "noise"}, "the card of y has kind 'noise'; known: x0, eps, v, score, flow"),
        ({"schedule": "Sine"}, "the card of y has schedule 'Sine'; known: .*Cosine"),
        ({"schedule": "math"}, "the card of y has schedule 'math'"),
        ({"network": "Net"}, "the card of y has network 'Net'; known: DiffusionUNet"),
    ],
)
def test_a_card_of_unknown_words_is_not_written(folder, entry, message):
    with pytest.raises(ValueError, match=message):
        pretrained.save(
            "y", torch.nn.Linear(2, 2), {"network": "Classifier", "network_args": {}} | entry, folder=folder
        )
    assert not (folder / "y.safetensors").exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "weight holds NaN or infinite values"),
        (float("inf"), "weight holds NaN or infinite values"),
        (-7e4, "weight reaches 70000, beyond the 65504 of float16"),
    ],
)
def test_weights_that_cannot_be_stored_are_refused(folder, value, message):
    net, about = torch.nn.Linear(2, 2), {"network": "Classifier", "network_args": {}}
    net.weight.data[1, 0] = value
    with pytest.raises(ValueError, match=message):
        pretrained.save("y", net, about, folder=folder)
    with pytest.raises(ValueError, match="reference.a holds NaN"):
        pretrained.save("y", torch.nn.Linear(2, 2), about, {"reference.a": torch.tensor(float("nan"))}, folder=folder)
    assert not list(folder.glob("y*"))


def test_a_disk_that_is_full_at_the_card_leaves_the_old_weights_and_card(tmp_path, monkeypatch):
    pretrained.save("mine", a_classifier(0), CLASSIFIER, folder=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    done = []

    def once(handle):
        if done:
            raise OSError(errno.ENOSPC, "No space left on device")
        done.append(handle)

    monkeypatch.setattr("os.fsync", once)
    with pytest.raises(OSError, match="No space left on device: .*mine.json"):
        pretrained.save("mine", a_classifier(1), CLASSIFIER, folder=tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_card_that_cannot_be_written_leaves_no_weights(tmp_path):
    with pytest.raises((TypeError, ValueError)):
        pretrained.save("mine", a_classifier(0), CLASSIFIER | {"note": torch.ones(1)}, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_largest_float16_counters_and_tied_weights_are_stored(folder):
    net = torch.nn.Module()
    net.first = torch.nn.Linear(2, 2).half()
    net.second = net.first
    net.first.weight.data[0, 0] = 65504
    net.register_buffer("count", torch.tensor(4099))  # float16 would make 4100 of it
    pretrained.save("y", net, {"network": "Classifier", "network_args": {}}, folder=folder)
    stored = pretrained._tensors("y", pretrained.card("y"))
    assert stored["count"] == 4099 and stored["second.weight"][0, 0] == 65504
    assert torch.equal(stored["first.weight"], stored["second.weight"])


def test_networks_of_another_sort_are_named():
    with pytest.raises(ValueError, match="mednist_features has no prediction kind, as it is no diffusion network"):
        pretrained.load_denoiser("mednist_features")
    with pytest.raises(ValueError, match="mednist has no reference of a Fréchet distance"):
        pretrained.reference("mednist")
    with pytest.raises(ValueError, match="mednist has no tensor 'faces'"):
        pretrained.tensor("mednist", "faces")


def test_in_eight_bits_a_network_is_half_as_large_and_comes_back_as_it_was_rounded(folder):
    """Large weights as ``rounded`` has them; the rest from float16 as ever."""
    about = {"network": "DiffusionUNet", "network_args": {"channels": (32, 64), "num_classes": 2}}
    net = pretrained.build(about["network"], **about["network_args"])
    pretrained.save("half", net, about, folder=folder)
    pretrained.save("eight", net, about, folder=folder, stored="int8")
    sizes = [(folder / f"{name}.safetensors").stat().st_size for name in ("eight", "half")]
    assert sizes[0] < 0.6 * sizes[1]
    back = pretrained.load("eight").state_dict()
    wanted = rounded(net).state_dict()
    assert back.keys() == wanted.keys()
    for key, value in wanted.items():
        torch.testing.assert_close(back[key].cpu(), value, rtol=1e-3, atol=1e-6)


def test_nan_in_a_large_weight_is_refused_in_eight_bits_too(folder):
    net = torch.nn.Linear(64, 64)
    net.weight.data[1, 0] = float("nan")
    with pytest.raises(ValueError, match="weight holds NaN"):
        pretrained.save("y", net, {"network": "Classifier", "network_args": {}}, folder=folder, stored="int8")
    assert not list(folder.glob("y*"))


# ---- Networks of one's own -------------------------------------------------------------------------------------------

CLASSIFIER = {"network": "Classifier", "network_args": {"num_classes": 2, "channels": [16, 32]}}


def a_classifier(seed=0):
    torch.manual_seed(seed)
    return pretrained.build("Classifier", num_classes=2, channels=(16, 32))


@pytest.mark.parametrize("stored", pretrained.STORED)
def test_what_is_saved_in_a_folder_comes_back_as_exactly_as_is_said(stored, tmp_path):
    """To the last digit, within 1 part in 2048, or within 1 part in 254 of the largest weight of an output."""
    net = a_classifier()
    pretrained.save("mine", net, CLASSIFIER, folder=tmp_path / "networks", stored=stored)
    assert pretrained.card("mine", tmp_path / "networks")["stored"] == stored
    assert pretrained.names(tmp_path / "networks") == ["mine"] and "mine" not in pretrained.names()
    back, large = pretrained.load("mine", tmp_path / "networks"), 0
    assert not back.training and all(p.dtype == torch.float32 for p in back.parameters())
    for key, value in net.state_dict().items():
        off = (back.state_dict()[key].cpu() - value).abs()
        if stored == "int8" and value.ndim > 1 and value.numel() >= 4096:
            large += 1
            assert (off.flatten(1).amax(1) <= 1.001 * value.abs().flatten(1).amax(1) / 254).all() and off.max() > 0
        else:
            assert (off <= (0 if stored == "float32" else value.abs() / 2048 + 3e-8)).all(), key
    assert large == (stored == "int8")


def test_a_denoiser_of_ones_own_keeps_its_schedule_its_kind_and_its_condition(tmp_path):
    loss = DiffusionLoss(schedules.Linear(0.2, 10.0), kind="eps")
    about = {"network": "DiffusionUNet", "network_args": {"channels": [32], "patch": 4, "num_classes": 2}}
    net = pretrained.build("DiffusionUNet", **about["network_args"])
    pretrained.save("mine", net, about | pretrained.loss_entries(loss), folder=tmp_path)
    denoiser = pretrained.load_denoiser("mine", folder=tmp_path)
    assert vars(denoiser.schedule) == vars(loss.schedule) and denoiser.kind == "eps"
    assert denoiser.given(torch.tensor([1])).schedule is denoiser.schedule


def test_a_card_says_of_a_loss_what_makes_it_again():
    table = pretrained.loss_entries(DiffusionLoss(schedules.Discrete.linear(7), kind="x0"))
    again = getattr(schedules, table["schedule"])(**json.loads(json.dumps(table["schedule_args"])))
    t = torch.linspace(0, 1, 9, dtype=torch.float64)
    assert torch.equal(again.alpha(t), schedules.Discrete.linear(7).alpha(t)) and table["kind"] == "x0"
    assert pretrained.loss_entries(AutoencoderLoss()) == {"loss": "AutoencoderLoss"}
    around = pretrained.loss_entries(MaskedLoss(DiffusionLoss(schedules.Cosine())))
    assert around == {"loss": "DiffusionLoss", "around": "MaskedLoss", "schedule": "Cosine", "kind": "v"}


def test_a_network_that_was_saved_again_is_not_the_old_one(tmp_path):
    pretrained.save("mine", a_classifier(0), CLASSIFIER, folder=tmp_path)
    first = pretrained.load("mine", tmp_path)
    assert pretrained.load("mine", tmp_path) is first
    pretrained.save("mine", a_classifier(1), CLASSIFIER, folder=tmp_path)
    old, new = (next(net.parameters()) for net in (first, pretrained.load("mine", tmp_path)))
    assert not torch.equal(old, new)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({}, "the card of mine lacks network and network_args: network is a name such as 'DiffusionUNet'"),
        ({"network": "Classifier"}, "the card of mine lacks network_args"),
        (CLASSIFIER | {"kind": "v"}, r"the card of mine has kind but no schedule: loss_entries\(loss\) gives both"),
        (
            CLASSIFIER | {"kind": "v", "schedule": "Discrete"},
            "the card of mine has schedule_args that Discrete refuses: .*betas",
        ),
        (
            CLASSIFIER | {"schedule": "Linear", "schedule_args": {"beta_min": 9, "beta_max": 1}},
            "Linear refuses: beta_min",
        ),
    ],
)
def test_a_card_without_what_it_must_say_is_not_written(about, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        pretrained.save("mine", a_classifier(), about, folder=tmp_path)
    with pytest.raises(ValueError, match="stored must be one of 'float32', 'float16', 'int8', got 'half'"):
        pretrained.save("mine", a_classifier(), CLASSIFIER, folder=tmp_path, stored="half")
    assert not list(tmp_path.iterdir())


def test_what_is_wrong_in_a_folder_of_ones_own_is_named_with_its_remedy(tmp_path):
    with pytest.raises(ValueError, match=f"no network 'mine' in {tmp_path}; there are: none"):
        pretrained.load("mine", tmp_path)
    pretrained.save("mine", a_classifier(), CLASSIFIER, folder=tmp_path)
    with pytest.raises(ValueError, match="mine has no prediction kind, as it is no diffusion network$"):
        pretrained.load_denoiser("mine", folder=tmp_path)
    other = pretrained.card("mine", tmp_path) | {"network_args": {"num_classes": 3, "channels": [16, 32]}}
    pretrained.write_card("mine", other, tmp_path)
    with pytest.raises(ValueError, match="the weights of mine are not those of the Classifier.*seal the card by"):
        pretrained.load("mine", tmp_path)
    path = tmp_path / "mine.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="is not the file on its card .*: write it anew with pretrained.save"):
        pretrained.load("mine", tmp_path)
