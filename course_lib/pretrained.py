"""The networks that ship: ``weights/NAME.safetensors`` with a card ``NAME.json`` that says how it was made and how
good it is."""

import functools
import hashlib
import json
from pathlib import Path

from course_lib import schedules
from course_lib.denoisers import NetworkDenoiser
from course_lib.metrics.distribution import Moments
from course_lib.networks import build
from course_lib.runtime import placed
from course_lib.store import read_tensors, write_atomically, write_tensors

WEIGHTS = Path(__file__).parent / "weights"


def names():
    """The names of all networks that ship, sorted."""
    return sorted(path.stem for path in WEIGHTS.glob("*.json"))


def card(name):
    """The card of a network: recipe, data, licence, measured quality, sha256. Raises ValueError for an unknown name."""
    path = WEIGHTS / f"{name}.json"
    if not path.exists():
        raise ValueError(f"no network {name!r} in {WEIGHTS}; there are: {', '.join(names())}")
    return json.loads(path.read_text(encoding="utf-8"))


def sha256_of(networks):
    """{name: sha256} of networks, by which a stored measurement knows whether they have changed; None where one of them
    is not there."""
    return {name: card(name)["sha256"] for name in networks} if set(networks) <= set(names()) else None


def _tensors(name, about):
    """The verified tensors of a network. Raises ValueError when the file is missing or is not the one on its card."""
    path = WEIGHTS / f"{name}.safetensors"
    remedy = "get it back with `git checkout -- course_lib/weights`, or install the course anew"
    if not path.exists():
        raise ValueError(f"{path} is missing: {remedy}")
    if hashlib.sha256(path.read_bytes()).hexdigest() != about["sha256"]:
        raise ValueError(f"{path} is not the file on its card (sha256 differs): {remedy}")
    return read_tensors(path)[0]


@functools.cache
def load(name):
    """The network of that name, in evaluation mode on this machine's device, float32. Raises ValueError as
    :func:`card` does."""
    about = card(name)
    net = build(about["network"], **about["network_args"])
    tensors = _tensors(name, about)
    net.load_state_dict({key: value.float() for key, value in tensors.items() if not key.startswith("reference.")})
    return placed(net.eval().requires_grad_(False))


def load_denoiser(name, clip=True):
    """The :class:`~course_lib.denoisers.NetworkDenoiser` of a shipped diffusion network.

    clip: for images in [-1, 1]; not for latents.
    """
    about = card(name)
    return NetworkDenoiser(load(name), getattr(schedules, about["schedule"])(), about["kind"], clip)


def reference(name):
    """Moments of the features of real images that ship with a feature network, for the Fréchet distance."""
    about = card(name)
    tensors = _tensors(name, about)
    return Moments(tensors["reference.mean"], tensors["reference.cov"], about["reference_images"])


def tensor(name, key):
    """A tensor that ships beside the weights under ``reference.<key>``, such as volumes of real cases."""
    return _tensors(name, card(name))[f"reference.{key}"]


def save(name, net, about, extra=None, folder=WEIGHTS):
    """Write a network (float16) and its card. about: what the card says; extra: tensors kept as they are."""
    tensors = {key: value.cpu().half() for key, value in net.state_dict().items()} | (extra or {})
    path = Path(folder) / f"{name}.safetensors"
    write_tensors(path, tensors)
    about = about | {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    write_atomically(path.with_suffix(".json"), (json.dumps(about, indent=2, ensure_ascii=False) + "\n").encode())
