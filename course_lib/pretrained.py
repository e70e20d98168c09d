"""Networks on disk: ``NAME.safetensors`` with a card ``NAME.json`` that says how it was made and how good it is. Those
that ship lie in ``course_lib/weights``; one's own in any ``folder``, by the same functions.

A card must say

    network, network_args    what :func:`~course_lib.networks.build` takes
    kind, schedule           of a diffusion network, and ``schedule_args`` where the schedule has other numbers than by
                             default; :func:`loss_entries` gives them all
    base                     of a network that steers a shipped one, its name
    beside                   of one that works together with shipped ones, {name: sha256 of their weights} when it was
                             trained: the network that it steers, or the autoencoder of its latents

and may say what else is worth knowing. :func:`save` adds ``stored``, ``weights`` (their number), ``bytes``, ``sha256``
of the file, and ``card_sha256``, which covers what decides how the network computes (``DECISIVE``), so that no edit or
damage of it passes in silence; the rest may be edited.
"""

import functools
import hashlib
import inspect
import json
import re
from pathlib import Path

import torch

from course_lib import runtime, schedules
from course_lib.arguments import one_of
from course_lib.denoisers import NetworkDenoiser
from course_lib.eight_bits import is_large, packed, unpacked
from course_lib.files import read_tensors, sha256, tensor_bytes, write_atomically, write_together
from course_lib.metrics.distribution import Moments
from course_lib.networks import NETWORKS, Classifier, build
from course_lib.predictions import KINDS
from course_lib.runtime import placed

WEIGHTS = Path(__file__).parent / "weights"
REMEDY = "get it back with `git checkout -- course_lib/weights`, or install the course anew"
STORED = ("float32", "float16", "int8")
REQUIRED = ("network", "network_args", "sha256", "card_sha256")
DECISIVE = (
    *("network", "network_args", "base", "beside", "loss", "schedule", "schedule_args", "kind"),
    *("classes", "image_size", "reference_images", "sha256"),
)


def names(folder=None):
    """The names of all networks of a folder, or of all that ship, sorted."""
    return sorted(path.stem for path in Path(folder or WEIGHTS).glob("*.json"))


def _remedy(folder):
    return "write it anew with pretrained.save" if folder else REMEDY


def checked_name(name):
    """The name of a network. Raises ValueError for one that could lead out of the folder."""
    if not (isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", name)):
        raise ValueError(f"the name of a network is made of letters, digits, _ and -; got {name!r}")
    return name


def _path(name, ending, folder=None):
    """The file of a network. Raises ValueError as :func:`checked_name` does."""
    return Path(folder or WEIGHTS) / f"{checked_name(name)}{ending}"


def card(name, folder=None):
    """The card of a network: recipe, data, licence, measured quality, sha256. folder : where :func:`save` wrote it;
    left out, the networks that ship. Raises ValueError for an unknown name, and for a card that is damaged or was
    edited."""
    path = _path(name, ".json", folder)
    if not path.exists():
        there = ", ".join(names(folder)) or "none"
        raise ValueError(f"no network {name!r} in {folder or WEIGHTS}; there are: {there}")
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        missing = [key for key in REQUIRED if key not in about]
    except (ValueError, TypeError) as error:  # no JSON, or no object
        raise ValueError(f"{path} is no readable card ({error}): {_remedy(folder)}") from error
    said = f"{_remedy(folder)}; write_card seals your own"
    if missing:
        raise ValueError(f"{path} is no whole card, it lacks {', '.join(missing)}: {said}")
    if about["card_sha256"] != seal(about):
        raise ValueError(f"{path} was edited or is damaged (card_sha256 differs): {said}")
    return about


def budget(name):
    """What a network cost, to be said beside what it scores: {"weights", "images seen", "core-hours"}, with the images
    of the network that it started from; the core-hours are those of its last training. None for what nobody noted."""
    about = card(name)
    keys = {"weights": "weights", "images seen": "images_seen", "core-hours": "core_hours"}
    return {said: about.get(key) for said, key in keys.items()}


def seal(about):
    """The ``card_sha256`` of a card: sha256 of its ``DECISIVE`` entries as JSON with sorted keys."""
    decisive = {key: about[key] for key in DECISIVE if key in about}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def write_card(name, about, folder=None):
    """Write the card of a network with its seal, atomically. For one that was made or changed by hand:
    ``write_card(name, json.loads(...))``. Raises ValueError, naming the entry, for values that the library does not
    know."""
    write_atomically(_path(name, ".json", folder), _sealed(name, about))


def _sealed(name, about):
    """The bytes of a card with its seal. Raises ValueError as :func:`write_card`."""
    _check_known(name, about)
    about = json.loads(json.dumps(about))
    text = json.dumps(about | {"card_sha256": seal(about)}, indent=2, ensure_ascii=False) + "\n"
    return text.encode()


def sha256_of(networks):
    """{name: sha256} of networks, by which a stored measurement knows whether they have changed; None where one of them
    is not there."""
    return {name: card(name)["sha256"] for name in networks} if set(networks) <= set(names()) else None


def loss_entries(loss):
    """What the card of a network says of its loss, a dict for JSON: the class, and, where the loss has them, kind and
    schedule with the numbers that it was made with."""
    inner = getattr(loss, "loss", loss)
    about = {"loss": type(inner).__name__}
    if inner is not loss:
        about["around"] = type(loss).__name__
    if hasattr(loss, "schedule"):
        about["schedule"] = type(loss.schedule).__name__
        taken = inspect.signature(type(loss.schedule)).parameters
        arguments = {key: value for key, value in vars(loss.schedule).items() if key in taken}
        if arguments:
            about["schedule_args"] = {k: v.tolist() if torch.is_tensor(v) else v for k, v in arguments.items()}
    if hasattr(loss, "kind"):
        about["kind"] = loss.kind
    return about


def _check_known(name, about):
    """Raises ValueError, naming the entry, where a card lacks what it must say, or names a network, kind or schedule
    that the library lacks."""
    if missing := [key for key in ("network", "network_args") if key not in about]:
        raise ValueError(
            f"the card of {name} lacks {' and '.join(missing)}: network is a name such as 'DiffusionUNet', "
            "network_args a dict of what it was built with"
        )
    listed = [
        key for key, value in vars(schedules).items() if isinstance(value, type) and value is not schedules.Schedule
    ]
    for key, values in {"network": NETWORKS, "kind": KINDS, "schedule": listed}.items():
        if key in about and about[key] not in values:
            raise ValueError(f"the card of {name} has {key} {about[key]!r}; known: {', '.join(values)}")
    if "kind" in about and "schedule" not in about:
        raise ValueError(f"the card of {name} has kind but no schedule: loss_entries(loss) gives both")
    if "schedule" in about:
        try:
            getattr(schedules, about["schedule"])(**about.get("schedule_args", {}))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"the card of {name} has schedule_args that {about['schedule']} refuses: {error}"
            ) from error


def _tensors(name, about, folder=None):
    """The verified tensors of a network. Raises ValueError when the file is missing or is not the one on its card."""
    path = _path(name, ".safetensors", folder)
    if not path.exists():
        raise ValueError(f"{path} is missing: {_remedy(folder)}")
    if sha256(path) != about["sha256"]:
        raise ValueError(f"{path} is not the file on its card (sha256 differs): {_remedy(folder)}")
    return read_tensors(path)[0]


def _entry(name, mapping, key, what, folder=None):
    """mapping[key]. Raises ValueError, in words, for a network that has none."""
    if key not in mapping:
        meant = "" if folder else f": another network is meant, one of {', '.join(names())}"
        raise ValueError(f"{name} has no {what}{meant}")
    return mapping[key]


def fresh(network, network_args, base=None):
    """A network with freshly drawn weights, as :func:`~course_lib.networks.build` gives it; base : the name of the
    shipped network that it steers."""
    return build(network, **({"base": load(base)} if base else {}), **network_args)


def load(name, folder=None):
    """The network of that name, in evaluation mode on this machine's device, float32; the same object again, until its
    card is another. folder : as for :func:`card`. Raises ValueError as :func:`card` does, and for weights that are not
    those of the network on the card."""
    return _loaded(name, folder, card(name, folder)["card_sha256"])


@functools.lru_cache(64)
def _loaded(name, folder, card_sha256):
    """:func:`load`, by the card with that seal."""
    about = card(name, folder)
    net = fresh(about["network"], about["network_args"], about.get("base"))
    tensors = unpacked(_tensors(name, about, folder))
    try:
        net.load_state_dict({key: value.float() for key, value in tensors.items() if not key.startswith("reference.")})
    except RuntimeError as error:
        raise ValueError(
            f"the weights of {name} are not those of the {about['network']} that its network_args "
            f"{about['network_args']} make: correct them, and seal the card by write_card"
        ) from error
    return placed(net.eval().requires_grad_(False))


def load_denoiser(name, clip=True, precision=None, folder=None):
    """The :class:`~course_lib.denoisers.NetworkDenoiser` of a diffusion network. Raises ValueError for a network of
    another sort, for one beside which another network now stands than when it was trained, and as :func:`load` does.

    clip: for images in [-1, 1]; not for latents. precision: in which it computes, however it is stored; left out, the
    faster on this machine, :func:`course_lib.runtime.precision`; torch.float32 to compare digits, on the CPU: an Nvidia
    GPU's convolutions round float32 to the 10 bits of TF32, unless torch.backends.cudnn.allow_tf32 is False. folder: as
    for :func:`card`.
    """
    about = card(name, folder)
    _check_beside(name, about)
    kind = _entry(name, about, "kind", "prediction kind, as it is no diffusion network", folder)
    schedule = getattr(schedules, _entry(name, about, "schedule", "schedule, as it is no diffusion network", folder))
    schedule = schedule(**about.get("schedule_args", {}))
    return NetworkDenoiser(load(name, folder), schedule, kind, clip, precision or runtime.precision())


def _check_beside(name, about):
    """Raises ValueError unless the networks that ship are those beside which that of a card was trained."""
    for other, then in about.get("beside", {}).items():
        if card(other)["sha256"] != then:
            raise ValueError(
                f"{name} was trained beside another {other} than the one that ships now: train it too (python -m "
                f"course_lib.train {name} --from {name} --ship), or get back the {other} of the course with `git "
                "checkout -- course_lib/weights`"
            )


def load_classifier(name, precision=None, folder=None):
    """A classifier as a function (x_t, t) -> logits (B, classes), for x_t on any device, in any floating type,
    and with gradients; one that was trained on clean images is not told t. Raises ValueError as :func:`card` does.

    precision and folder: as for :func:`load_denoiser`.
    """
    net, precision = load(name, folder), precision or runtime.precision()

    def logits(x_t, t):
        x, told = x_t.to(next(net.parameters())), () if isinstance(net, Classifier) else (t,)
        with runtime.autocast(x.device.type, precision):
            return net(x, *told).to(x_t)

    return logits


def reference(name, folder=None):
    """Moments of the features of real images that lie beside a feature network, for the Fréchet distance."""
    about = card(name, folder)
    images = _entry(name, about, "reference_images", "reference of a Fréchet distance", folder)
    tensors = _tensors(name, about, folder)
    return Moments(tensors["reference.mean"], tensors["reference.cov"], images)


def tensor(name, key, folder=None):
    """A tensor that lies beside the weights under ``reference.<key>``, such as volumes of real cases."""
    return _entry(name, _tensors(name, card(name, folder), folder), f"reference.{key}", f"tensor {key!r}", folder)


def _checked(key, value, stored):
    """stored, the value as it is written. Raises ValueError, naming the tensor, for NaN and for what it cannot hold."""
    if stored.is_floating_point() and not stored.isfinite().all():
        if not value.isfinite().all():
            raise ValueError(f"{key} holds NaN or infinite values: nothing was written; train again from before them")
        raise ValueError(
            f"{key} reaches {float(value.abs().max()):g}, beyond the {torch.finfo(torch.float16).max:g} of float16: "
            "nothing was written; store the weights in float32, or hand it in by `extra`, which is kept as it is"
        )
    return stored


def save(name, net, about, extra=None, folder=None, *, stored="float16"):
    """Write a network and its card, NAME.safetensors and NAME.json, into a folder, which is made; left out, beside
    those that ship. :func:`load` reads it back.

    about: what the card says, at least what it must (see above). extra: tensors kept as they are. stored: "float32",
    the weights as they are, to the last digit; "float16", half the bytes, each rounded by at most 1/2048 of itself (by
    3e-8 where it is below 6e-5); or "int8", a quarter, large weights in eight bits (:mod:`course_lib.eight_bits`) and
    the others in float16. Whichever, the network that comes back computes in float32.

    Raises ValueError, before anything is written, for a name that leaves the folder, for weights that are NaN, infinite
    or beyond float16 where that is asked for, and for a card that lacks what it must say or names what the library does
    not know.
    """
    one_of(STORED, stored=stored)
    path, extra = _path(name, ".safetensors", folder), extra or {}
    _check_known(name, about)
    tensors = {}
    for key, value in net.state_dict().items():
        if key not in extra:
            value = value.cpu()
            halved = value.is_floating_point() and (stored == "float16" or (stored == "int8" and not is_large(value)))
            tensors[key] = _checked(key, value, value.half() if halved else value)
    tensors = packed(tensors) if stored == "int8" else tensors
    tensors |= {key: _checked(key, value, value) for key, value in extra.items()}
    content = tensor_bytes(tensors)
    about = {"weights": sum(weight.numel() for weight in net.parameters())} | about
    about |= {"stored": stored, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    write_together({path: content, _path(name, ".json", folder): _sealed(name, about)})
