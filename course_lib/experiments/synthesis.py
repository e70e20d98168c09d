"""The record ``08_synthesis``: six sets of MedNIST-like images, judged: features, distances to the training images, and
what classifiers learn from them.

It needs MedNIST in the cache, and about 20 minutes on one free core. Drawn images are kept in the temporary folder.
"""

import functools
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F

from course_lib import pretrained, runtime
from course_lib.datasets import random_of_each_class, spread_of_each_class
from course_lib.experiments.mednist_sets import (
    JUDGE,
    beside_reference,
    classes_in_turn,
    classes_of,
    distance,
    features_of,
    first_six,
    mednist,
)
from course_lib.experiments.record import rounded
from course_lib.experiments.study import Study, timed
from course_lib.files import digest, read_tensors, write_tensors
from course_lib.generate import draw
from course_lib.images import in_batches, to_tensor, to_uint8
from course_lib.losses import ClassificationLoss
from course_lib.metrics.memorisation import nearest_and_crowd
from course_lib.networks import Classifier
from course_lib.training import Batches, train

IMAGES = 600  # a set: the six classes take turns, so that its beginning is a smaller set
STORED = 240  # the first images of a set, whose features are in the record
SHOWN = 12  # the first drawn images, which are in the record themselves
STEPS = 15
NETWORKS = {"diffusion": "mednist", "weak diffusion": "mednist_weak"}
DRAWN = ("diffusion", "weak diffusion", "VAE", "PCA-Gaussian")
COPIES = ("copies", "altered copies")
REAL = ("real", "real again", "held out")
GAUSSIAN_IMAGES = 2000  # of each class, that the Gaussian is fitted on
SIZES = (60, 120, 240, 600)  # of the sets that the Fréchet distance is taken of
CROWD = 50


# ---- The sets --------------------------------------------------------------------------------------------------------


def in_turn(chosen):
    """Indices ordered by class, as many of each of the six, put in turn."""
    return torch.as_tensor(chosen).reshape(6, -1).T.flatten()


def _settings(name):
    """What the images of a set that is drawn depend on, beside the training images."""
    if name in NETWORKS:
        return {"images": IMAGES, "steps": STEPS, "sha256": pretrained.card(NETWORKS[name])["sha256"]}
    of_vae = {"network": VAE, "steps": VAE_STEPS, "batch": VAE_BATCH, "rate": VAE_RATE} if name == "VAE" else {}
    return {"images": IMAGES, "gaussian": GAUSSIAN_IMAGES} | of_vae


def _kept(name, make):
    """Images that take long to draw, uint8: from the temporary folder if they were drawn before."""
    made_by = digest({}, _settings(name))[:16]
    path = Path(tempfile.gettempdir()) / f"course-08-{name.replace(' ', '-')}-{made_by}.safetensors"
    if not path.exists():
        start = time.process_time()
        images = make()
        write_tensors(path, {"images": images, "seconds": torch.tensor(time.process_time() - start)})
    tensors, _ = read_tensors(path)
    return tensors["images"], float(tensors["seconds"])


def sampled(source, n=IMAGES):
    """The first n images of a diffusion network's set, uint8 (n, 64, 64)."""
    denoiser = pretrained.load_denoiser(NETWORKS[source])
    return torch.as_tensor(to_uint8(draw(denoiser, classes_in_turn(n), nfe=STEPS, batch_size=60)))


def gaussian(images, n, generator):
    """n draws, float (n, 64, 64), of the Gaussian with the mean and covariance of images (M, 64, 64) in [-1, 1].

    x = mean + sum_i g_i (x_i - mean) / sqrt(M - 1) with g ~ N(0, I_M) has exactly that covariance: a PCA that keeps
    every component, without computing it.
    """
    flat = images.flatten(1)
    mean = flat.mean(0)
    g = torch.randn(n, len(flat), generator=generator)
    return (mean + g @ (flat - mean) / (len(flat) - 1) ** 0.5).reshape(n, *images.shape[1:])


def _class_by_class(n, drawn_like):
    """A set, uint8: for each class drawn_like(n of its training images (n, 1, 64, 64)) -> (IMAGES / 6, 64, 64)."""
    images, labels = mednist("train")
    parts = [drawn_like(to_tensor(images[chosen])) for chosen in spread_of_each_class(labels, n).reshape(6, -1)]
    return torch.as_tensor(to_uint8(torch.cat(parts)[in_turn(torch.arange(IMAGES))].clamp(-1, 1)))


def _gaussian_set():
    generator = runtime.seeded(1)
    return _class_by_class(GAUSSIAN_IMAGES, lambda x: gaussian(x[:, 0], IMAGES // 6, generator))


@dataclass(frozen=True)
class EvidenceLoss:
    """-ELBO with the best common variance of the pixels: D/2 log(mean squared error) + KL(q(z | x) || N(0, I)).

    Rybkin et al., Simple and effective VAE training with calibrated decoders (ICML 2021), eq. 6: no weight to tune.
    """

    def __call__(self, net, batch, generator):
        """Loss of each example (B,), in nats a pixel, and no times. batch: x (B, 1, H, W) and anything."""
        x = batch[0]
        mu, log_var = net.encode_forward(x)
        log_var = log_var.clamp(-10, 5)
        z = mu + torch.exp(log_var / 2) * torch.randn(mu.shape, generator=generator)
        error = (net.decode_forward(z, use_sigmoid=False) - x).square().flatten(1).mean(1)
        variance = error.mean().detach()  # the best one for this batch
        kl = 0.5 * (mu.square() + log_var.exp() - 1 - log_var).sum(1)
        return 0.5 * (error / variance + variance.log()) + kl / x[0].numel(), None


VAE = {"latent_size": 48, "channels": (16, 32, 64), "strides": (2, 2, 2), "norm": ("GROUP", {"num_groups": 8})}
VAE_STEPS, VAE_BATCH, VAE_RATE = 700, 48, 2e-3


def trained_vae():
    """MONAI's ``VarAutoEncoder``, trained on the training split without classes."""
    from monai.networks.nets import VarAutoEncoder

    images, _ = mednist("train")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = VarAutoEncoder(spatial_dims=2, in_shape=(1, 64, 64), out_channels=1, **VAE)
    for state in train(
        net, Batches(images.numpy(), None, VAE_BATCH, 0), EvidenceLoss(), steps=VAE_STEPS, peak_rate=VAE_RATE
    ):
        if state.step % 100 == 0:
            print("VAE", state.step, round(float(state.loss.mean()), 4), flush=True)
    return state.ema


def _vae_set():
    """Draws of the VAE, with a Gaussian fitted to each class's codes in place of the prior.

    Fitting the density of the codes afterwards is of Ghosh et al. (ICLR 2020), sec. 4; here it also brings the class
    in.
    """
    net, generator = trained_vae(), runtime.seeded(2)

    @torch.no_grad()
    def drawn_like(x):
        mu, log_var = net.encode_forward(x)
        codes = mu + torch.exp(log_var.clamp(-10, 5) / 2) * torch.randn(mu.shape, generator=generator)
        return net.decode_forward(gaussian(codes, IMAGES // 6, generator), use_sigmoid=False)[:, 0]

    return _class_by_class(GAUSSIAN_IMAGES // 2, drawn_like)


def altered(images, generator):
    """Copies that are no longer equal, uint8: moved by one pixel, contrast changed by up to 10 %, with a little noise.

    images : uint8 (N, 64, 64).
    """
    x, moves = to_tensor(images)[:, 0], torch.tensor([(1, 0), (-1, 0), (0, 1), (0, -1)])
    chosen = moves[torch.randint(4, (len(x),), generator=generator)]
    x = torch.stack([one.roll(tuple(move.tolist()), (0, 1)) for one, move in zip(x, chosen)])
    gain = 0.9 + 0.2 * torch.rand(len(x), 1, 1, generator=generator)
    noisy = gain * (x + 1) - 1 + 0.03 * torch.randn(x.shape, generator=generator)
    return torch.as_tensor(to_uint8(noisy.clamp(-1, 1)))


@functools.cache
def _left():
    """Indices of the training images that are not in the reference of the Fréchet distance, shuffled in each class."""
    labels, left = mednist("train")[1], beside_reference("train")
    return left[random_of_each_class(labels[left], 2 * IMAGES // 6, runtime.seeded(0))].reshape(6, -1)


def images_of(source):
    """A set: images uint8 (IMAGES, 64, 64), the classes in turn, and the processor seconds that drawing them took.

    "real", "real again": training images that are not in the reference; "held out": of the test split, evenly
    spread, in the order of their numbers;
    "copies": other training images; "altered copies": see :func:`altered`. Raises ValueError for an unknown source.
    """
    half = IMAGES // 6
    if source in NETWORKS:
        return _kept(source, lambda: sampled(source))
    if source in DRAWN:
        return _kept(source, {"VAE": _vae_set, "PCA-Gaussian": _gaussian_set}[source])
    if source == "held out":
        images, labels = mednist("test")
        return images[in_turn(spread_of_each_class(labels, half))], 0.0
    images, labels = mednist("train")
    if source in ("real", "real again"):
        part = _left()[:, :half] if source == "real" else _left()[:, half:]
        return images[in_turn(part)], 0.0
    if source in COPIES:
        copies = images[in_turn(random_of_each_class(labels, half, runtime.seeded(3)))]
        return (copies if source == "copies" else altered(copies, runtime.seeded(4))), 0.0
    raise ValueError(f"no set {source!r}; there are: {', '.join((*REAL, *DRAWN, *COPIES))}")


@functools.cache
def set_features(source):
    """Features (IMAGES, 320) of a set."""
    return features_of(images_of(source)[0])


# ---- Distances to the training images --------------------------------------------------------------------------------


SPACES = ("pixels", "blocks", "features")


def blocks(images):
    """Means over squares of 4 x 4 pixels, with mean 0 and spread 1 in each image: uint8 (N, 64, 64) -> (N, 256).

    Noise, contrast and most of a small move leave them as they are.
    """
    x = F.avg_pool2d(to_tensor(images), 4).flatten(1)
    x = x - x.mean(1, keepdim=True)
    return x / x.std(1, keepdim=True).clamp(min=1e-3)


def distances(source):
    """Nearest, and mean over the CROWD nearest, of the training images of the same class: {space: (IMAGES, 2)}, as
    root mean squares."""
    images, labels = mednist("train")
    ours, y, found = images_of(source)[0], classes_in_turn(IMAGES), {}
    for space in SPACES:
        pairs = torch.zeros(IMAGES, 2)
        for label in range(6):
            theirs, those = labels == label, y == label
            if space == "features":
                sides = set_features(source)[those], _training_features()[theirs]
            else:
                look = blocks if space == "blocks" else to_tensor
                sides = look(ours[those]), look(images[theirs])
            pairs[those] = torch.stack(nearest_and_crowd(*sides, CROWD), 1)
        found[space] = pairs
    return found


@functools.cache
def _training_features():
    return features_of(mednist("train")[0])


# ---- Classifiers -----------------------------------------------------------------------------------------------------

CLASSIFIER = {"num_classes": 6, "channels": (16, 32, 48, 64)}
CLASSIFIER_STEPS, CLASSIFIER_BATCH, CLASSIFIER_RATE = 200, 32, 4e-3
SEEDS = 3
FEW = 20  # real images of the rare class
BLOCK = 10  # neighbours in the test split that count as one case in an interval


def small(images):
    """uint8 (N, 64, 64) -> float (N, 32, 32) in [-1, 1], each pixel the mean of four."""
    return F.avg_pool2d(to_tensor(images), 2)[:, 0]


@functools.cache
def _test():
    images, labels = mednist("test")
    return small(images), labels


def hits(images, labels, shift=0, seeds=SEEDS):
    """How many of ``seeds`` classifiers, trained on small images (N, 32, 32), recognise each test image: uint8.

    All are trained alike: CLASSIFIER_STEPS steps, a number that was set beforehand. shift: augmentation, in pixels.
    """
    count = torch.zeros(len(_test()[1]), dtype=torch.uint8)
    for seed in range(seeds):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            net = Classifier(**CLASSIFIER)
        batches = Batches(images.numpy(), labels.numpy(), CLASSIFIER_BATCH, seed)
        loss = ClassificationLoss(shift)
        for state in train(net, batches, loss, steps=CLASSIFIER_STEPS, peak_rate=CLASSIFIER_RATE, seed=seed):
            pass
        count += (in_batches(state.ema, _test()[0]).argmax(1) == _test()[1]).to(torch.uint8)
    return count


def training_set(arm):
    """Small images and classes for a classifier.

    "real", "real again", "diffusion", ...: a set; "real, few": FEW of each class; "A + B": both, or, with few, few of
    A.
    """
    y = classes_in_turn(IMAGES)
    parts = []
    for name in arm.split(" + "):
        few = name.endswith(", few")
        n = 6 * FEW if few else IMAGES
        parts.append((small(images_of(name.removesuffix(", few"))[0][:n]), y[:n]))
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


ARMS = (
    "real", "diffusion", "VAE", "PCA-Gaussian", "weak diffusion", "real, few", "real, few + diffusion",
    "real + diffusion", "real + real again", "copies",
)  # fmt: skip


def rare_set(arm, rare):
    """Small images and classes in which class ``rare`` has FEW real images and the others all of "real"; and the shift.

    arm "as it is"; "oversampled": the few, repeated; "oversampled, shifted": the same with augmentation of all;
    "diffusion" or "Gaussian of the few": as many made images of the class as make it equal to the others; "real":
    real ones in their place, the ceiling.
    """
    x, y = training_set("real")
    of_class, others = x[y == rare], y != rare
    few, wanted = of_class[:FEW], len(of_class) - FEW
    if arm == "as it is":
        added = few[:0]
    elif arm in ("oversampled", "oversampled, shifted"):
        added = few.repeat(-(-wanted // FEW), 1, 1)[:wanted]
    elif arm == "diffusion":
        added = training_set("diffusion")[0][y == rare][:wanted]
    elif arm == "Gaussian of the few":
        added = gaussian(few, wanted, runtime.seeded(5)).clamp(-1, 1)
    elif arm == "real":
        added = of_class[FEW:]
    else:
        raise ValueError(f"no way {arm!r} to treat a rare class; there are: {', '.join(RARE_ARMS)}")
    images = torch.cat([x[others], few, added])
    labels = torch.cat([y[others], torch.full((FEW + len(added),), rare)])
    return images, labels, 4 if arm.endswith("shifted") else 0


RARE_ARMS = ("as it is", "oversampled", "oversampled, shifted", "Gaussian of the few", "diffusion", "real")
RARE_SEEDS = 1


def rare_hits(arm):
    """How many classifiers recognise each test image when its own class is the rare one, and, the mean over the other
    rare classes, otherwise: two tensors (N,)."""
    labels = _test()[1]
    own, otherwise = torch.zeros(len(labels)), torch.zeros(len(labels))
    for rare in range(6):
        x, y, shift = rare_set(arm, rare)
        found = hits(x, y, shift, RARE_SEEDS).float()
        own += torch.where(labels == rare, found, 0)
        otherwise += torch.where(labels == rare, 0, found / 5)
    return own, otherwise


# ---- The record ------------------------------------------------------------------------------------------------------


def plan(record=None):
    """The rows, what the notebook needs most first."""
    kinds = {"set": (*REAL, *DRAWN, *COPIES), "classifier": ARMS, "rare": RARE_ARMS}
    return [{"kind": kind, "name": name} for kind, names in kinds.items() for name in names]


def measure_set(source):
    """A row of a set: its distances by size, and its tensors."""
    images, seconds = images_of(source)
    features = set_features(source)
    if source == "held out":  # in the order of their numbers: its beginning would be the first scans of the split
        ranks = torch.randperm(IMAGES // 6, generator=runtime.seeded(6))
        features = features[(6 * ranks[:, None] + torch.arange(6)).flatten()]
    found = {
        "frechet_distance": rounded([distance(features[:n]) for n in SIZES]),
        "recognised": rounded((classes_of(images) == classes_in_turn(IMAGES)).float().mean()),
        "seconds_an_image": rounded(seconds / IMAGES),
        "first_six": first_six(to_tensor(images[:6])),
    }
    tensors = {f"nearest {space}": pairs.half() for space, pairs in distances(source).items()}
    if source not in COPIES:
        tensors["features"] = features[:STORED].half()
    if source in DRAWN:
        tensors["images"] = images[:SHOWN]
    return found, tensors


def measure_classifier(arm):
    """A row of a classifier: its accuracy, and how many seeds recognise each test image."""
    images, labels = training_set(arm)
    found = hits(images, labels)
    return {"images": len(labels), "accuracy": rounded(float(found.float().mean()) / SEEDS)}, {"hits": found}


def measure_rare(arm):
    """A row of a way to treat a rare class: its accuracy, and what :func:`rare_hits` says."""
    own, otherwise = rare_hits(arm)
    tensors = {"own": own.to(torch.uint8), "otherwise": otherwise.half()}
    return {"accuracy": rounded(float(own.mean()) / RARE_SEEDS)}, tensors


@timed
def measure(kind, name):
    """A row and the tensors that go with it."""
    found, kept = {"set": measure_set, "classifier": measure_classifier, "rare": measure_rare}[kind](name)
    return found, {f"{kind}/{name}/{key}": value for key, value in kept.items()}


def begin():
    """What stands above the rows, and the labels of the test split."""
    labels = mednist("test")[1]
    return {
        "images": IMAGES,
        "stored": STORED,
        "steps": STEPS,
        "sizes": SIZES,
        "crowd": CROWD,
        "seeds": SEEDS,
        "rare_seeds": RARE_SEEDS,
        "few": FEW,
        "block": BLOCK,
        "precision": runtime.precision_name(),
        "training_images": len(mednist("train")[1]),
    }, {"test labels": labels.to(torch.uint8)}


STUDY = Study("08_synthesis", plan, measure, begin, (*NETWORKS.values(), JUDGE))
