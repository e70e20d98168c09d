"""The record ``12_image_to_image``: denoising, translation of contrasts, larger ventricles, lesions removed.

Settings are chosen on validation subjects, none on the test subjects. Cases come in groups of eight, each with random
numbers of its own, so that a group can be remade alone.
"""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch.nn import functional as F

from course_lib import pretrained, runtime
from course_lib.applications import classical, counterfactual, denoising
from course_lib.applications.anomaly import smooth
from course_lib.arguments import one_of
from course_lib.datasets import synthetic_brains, synthetic_ventricles
from course_lib.experiments.reconstruction import mixed_lesions, squared_error_of_means
from course_lib.experiments.record import rounded
from course_lib.experiments.study import Method, Study, grid, outdated
from course_lib.generate import generate
from course_lib.images import to_tensor
from course_lib.inverse import repaint_times, replacement
from course_lib.metrics.images import contrast_kept, coverage, mean_inside, psnr, ssim
from course_lib.operators import Mask
from course_lib.samplers import sample
from course_lib.schedules import uniform_times

CASES = {"test": 32, "validation": 8}
GROUP = 8
NOISES = (0.2, 0.4)  # sigma_y: in intensity, with white matter near 0.77, the half of it
WALK, SAMPLES = 10, 4  # steps of a walk, samples of a posterior
RATIOS = (0.25, 0.5, 0.7, 1.0, 1.4, 2.0, 4.0)  # assumed noise over the true one
WALLS = 0.0, 3.0  # mm: the ventricles as they are, and as they are asked for
STEPS = 6  # each way, under the maps
LEVELS = (0.1, 0.2, 0.35, 0.5, 0.8)  # t_0 of SDEdit
REMOVED = ("hyper", "hypo", "mass")
REMOVED_CASES = {"test": 16, "validation": 8}  # of each family
FILL_STEPS, ROUNDS = 24, 3
LESIONS = ("hyper", "hypo", "mass", "tiny")  # what the translation is asked about
T2_NFE = 12


@dataclass(frozen=True)
class Task:
    """load(split) gives the cases, tensors (N, ...) by name; ``methods`` by name, run(cases, seed, **setting)
    -> images by name; score(found, cases) a list a measure, one entry a case; ``goal`` is the measure whose mean is
    largest for the best setting; ``least`` {method: share} leaves to a method only settings that obtain so much of the
    effect (:func:`effect`)."""

    load: Callable
    methods: dict
    score: Callable
    goal: str = "psnr"
    least: dict = field(default_factory=dict)


@functools.cache
def prior():
    """The diffusion prior: healthy brains."""
    return pretrained.load_denoiser("brain")


@functools.cache
def steered(clip=False):
    """The prior under a map of tissues. Not clipped where it is inverted."""
    return pretrained.load_denoiser("brain_control", clip)


def _scores_of_samples(samples, truth, inside, sizes):
    """What several samples (K, N, 1, H, W) score together; sizes: of the means whose squared error is taken."""
    mean = samples.mean(0)
    scores = {"psnr_of_mean": psnr(mean, truth), "ssim_of_mean": ssim(mean, truth)}
    scores["coverage"] = coverage(samples, truth, inside)
    return scores | {f"squared_error_of_{k}": squared_error_of_means(samples, truth, k) for k in sizes}


def _texture(image, inside):
    """Energy of the fine texture of images (N, 1, H, W) within a mask, (N,)."""
    return ((image - smooth(image[:, 0])[:, None]) * inside).square().flatten(1).sum(1)


# ---- Denoising -------------------------------------------------------------------------------------------------------


def noisy(noise, split, kind="Gaussian"):
    """Cases of denoising: y = x + noise n, or a magnitude image for kind "Rician"; ``y_sick`` with the same n."""
    x, sick, mask, labels = mixed_lesions(split, CASES[split])
    cases = {"x": x, "sick": sick, "mask": mask, "labels": labels}
    for name, x in (("y", cases["x"]), ("y_sick", cases["sick"])):
        generator = runtime.seeded(round(1000 * noise))
        if kind == "Rician":
            cases[name] = denoising.rician(x, noise, generator)
        else:
            cases[name] = x + noise * torch.randn(x.shape, generator=generator)
    return cases


def _mean(y, noise):
    return denoising.posterior_mean(prior(), y, noise).clamp(-1, 1)


def _walk(y, noise, seed):
    return denoising.posterior_sample(prior(), y, noise, WALK, runtime.seeded(seed)).clamp(-1, 1)


def _of_both(function):
    """function(y) of the images with and without the lesion."""
    return lambda cases, seed, **setting: {
        key: function(cases[name], **setting).clamp(-1, 1) for key, name in (("x", "y"), ("sick", "y_sick"))
    }


def _walks(noise):
    def run(cases, seed):
        drawn = [_walk(cases["y"], noise, seed + k) for k in range(SAMPLES)]
        return {"x": drawn[0], "samples": torch.stack(drawn), "sick": _walk(cases["y_sick"], noise, seed)}

    return run


def _score_denoised(found, cases):
    x = cases["x"]
    scores = {"psnr": psnr(found["x"], x), "ssim": ssim(found["x"], x)}
    scores["contrast_kept"] = contrast_kept(found["sick"], found["x"], cases["sick"] - x, cases["mask"])
    if "samples" in found:
        scores |= _scores_of_samples(found["samples"], x, cases["labels"] > 0, (1, 2, 4))
    return scores


def _denoising(noise):
    without_prior = {
        name: Method(_of_both(partial(function, noise=noise)), settings)
        for name, (function, settings) in classical.DENOISERS.items()
    }
    by_prior = {
        "posterior mean": Method(_of_both(partial(_mean, noise=noise)), networks=("brain",), evaluations=1),
        "walk": Method(_walks(noise), networks=("brain",), evaluations=WALK),
    }
    if noise != NOISES[-1]:
        del by_prior["walk"]
    nothing = {"nothing": Method(_of_both(lambda y: y))}
    return Task(partial(noisy, noise), nothing | without_prior | by_prior, _score_denoised)


def _assumed():
    noise = NOISES[-1]
    methods = {
        f"{ratio} x": Method(_of_both(partial(_mean, noise=ratio * noise)), networks=("brain",), evaluations=1)
        for ratio in RATIOS
    }
    return Task(partial(noisy, noise), methods, _score_denoised)


@functools.cache
def _rician_curve(s):
    A = np.linspace(0, 1.2, 1201)
    return A, denoising.rician_mean(A, s)


def _mean_inverted(y, noise):
    """y = 2 E[M] - 1 -> 2 A - 1, by the curve of the Rician mean."""
    A, M = _rician_curve(noise / 2)
    return torch.as_tensor(2 * np.interp((y.numpy() + 1) / 2, M, A) - 1).float()


def _score_magnitude(found, cases):
    error = found["x"] - cases["x"]
    scores = {"psnr": psnr(found["x"], cases["x"])}
    for k, name in enumerate(("background", "CSF", "grey", "white")):
        inside = cases["labels"] == k
        scores[f"bias_{name}"] = (error * inside).flatten(1).sum(1) / inside.flatten(1).sum(1).clamp(min=1)
    return scores


def _magnitude():
    noise = NOISES[-1]

    def method(function, networks=("brain",), evaluations=1):
        return Method(
            lambda cases, seed: {"x": function(cases["y"]).clamp(-1, 1)}, networks=networks, evaluations=evaluations
        )

    methods = {
        "nothing": method(lambda y: y, (), 0),
        "as if Gaussian": method(lambda y: _mean(y, noise)),
        "corrected, then denoised": method(lambda y: _mean(denoising.remove_rician_bias(y, noise), noise)),
        "denoised, then corrected": method(lambda y: _mean_inverted(_mean(y, noise), noise)),
    }
    return Task(lambda split: noisy(noise, split, "Rician"), methods, _score_magnitude)


# ---- Larger ventricles -----------------------------------------------------------------------------------------------


def tissue_map(x):
    """The segmenter's map (B, H, W) of images, a lesion taken for white matter; int64."""
    with runtime.fast():
        labels = pretrained.load("brain_segmenter").labels(x.to(runtime.device())).cpu()
    return torch.where(labels == 4, 3, labels)


def ventricle_cases(split, n=None):
    """Factual images x, the true counterfactual, the factual map (by the segmenter), and the area asked for. n : so
    many subjects, the first; all if None."""
    n = n or CASES[split]
    (x, _), (truth, labels) = (synthetic_ventricles(split, n, walls) for walls in WALLS)
    x, labels = to_tensor(x), torch.as_tensor(labels).long()
    cases = {"x": x, "truth": to_tensor(truth), "oracle": labels, "factual": tissue_map(x)}
    cases["asked"] = counterfactual.area(labels)
    cases["grown"] = counterfactual.grown(cases["factual"], cases["asked"])
    return cases


def _pushed(cases, reach):
    by = counterfactual.amount(cases["factual"], cases["asked"], reach)
    return counterfactual.push(cases["factual"], by, reach)


REACH = 6.0  # mm, of the pushed map; the image that is pushed has its own, chosen on validation


def edited_map(cases, edit):
    """The map that the generator is given: "grown" or "pushed", or the true one, "oracle"."""
    if edit == "pushed":
        return counterfactual.moved(cases["factual"][:, None], _pushed(cases, REACH), "nearest")[:, 0].long()
    return cases[edit]


def _under_map(function):
    """A method that gives (cases, edited map, seed) to the steered network."""

    def run(cases, seed, edit, **setting):
        return {"x": function(cases, edited_map(cases, edit), seed, **setting).clamp(-1, 1)}

    return run


def _fresh(cases, edited, seed):
    return counterfactual.fresh(steered(), edited, STEPS + 2, runtime.seeded(seed))


def _inverted(cases, edited, seed, t_0):
    return counterfactual.inverted(steered(), cases["x"], cases["factual"], edited, t_0, STEPS)


def painted(cases):
    """The factual image with new CSF of the grown map painted."""
    return counterfactual.painted(cases["x"], cases["factual"], cases["grown"])


def _sdedit(cases, edited, seed, t_0):
    return counterfactual.sdedit(steered(True), painted(cases), t_0, STEPS, runtime.seeded(seed), edited)


def _sdedit_alone(cases, seed, t_0):
    return {"x": counterfactual.sdedit(prior(), painted(cases), t_0, STEPS, runtime.seeded(seed)).clamp(-1, 1)}


def _score_ventricles(found, cases):
    x, truth = found["x"], cases["truth"]
    labels = torch.stack([cases["factual"], cases["oracle"]])
    ventricle = torch.stack([counterfactual.ventricles(one) for one in labels]).any(0)[:, None].float()
    near = F.max_pool2d(ventricle, 13, stride=1, padding=6) > 0  # within 12 mm
    brain = cases["oracle"][:, None] > 0
    scores = {"psnr": psnr(x, truth), "ssim": ssim(x, truth), "area": counterfactual.area(tissue_map(x))}
    scores["area_of_truth"] = counterfactual.area(tissue_map(truth))
    scores["area_before"] = counterfactual.area(cases["factual"])
    for name, inside in (("near", brain & near), ("far", brain & ~near)):
        scores[f"error_{name}"] = mean_inside((x - truth).abs(), inside)
    return scores


CONTROL = ("brain", "brain_control", "brain_segmenter")
JUDGE = ("brain_segmenter",)


def _ventricles():
    methods = {
        "nothing": Method(lambda cases, seed: {"x": cases["x"]}, networks=JUDGE),
        "painted": Method(lambda cases, seed: {"x": painted(cases)}, networks=JUDGE),
        "pushed": Method(
            lambda cases, seed, reach: {"x": counterfactual.moved(cases["x"], _pushed(cases, reach))},
            grid(reach=(3.0, 6.0, 10.0, 20.0)),
            JUDGE,
        ),
        "fresh, pushed map": Method(
            partial(_under_map(_fresh), edit="pushed"), networks=CONTROL, evaluations=STEPS + 2
        ),
    }
    inverted, sdedit, times = _under_map(_inverted), _under_map(_sdedit), grid(t_0=(0.2, 0.4, 0.8))
    for edit in ("pushed", "grown", "oracle"):
        methods[f"inverted, {edit} map"] = Method(partial(inverted, edit=edit), times, CONTROL, 2 * STEPS)
    further = grid(t_0=(0.4, 0.5, 0.6, 0.8))
    methods["inverted further, pushed map"] = Method(partial(inverted, edit="pushed"), further, CONTROL, 2 * STEPS)
    for edit in ("pushed", "oracle"):
        methods[f"SDEdit, {edit} map"] = Method(partial(sdedit, edit=edit), grid(t_0=LEVELS), CONTROL, STEPS)
    methods["SDEdit, no map"] = Method(_sdedit_alone, grid(t_0=LEVELS), ("brain", *JUDGE), STEPS)
    return Task(ventricle_cases, methods, _score_ventricles, least={"inverted further, pushed map": 0.8})


def effect(row):
    """The share of the change in area, from the given images to the true counterfactuals, that a row obtains."""
    before, after, truth = (np.mean(row[key]) for key in ("area_before", "area", "area_of_truth"))
    return (after - before) / (truth - before)


# ---- A lesion removed ------------------------------------------------------------------------------------------------


def removal_cases(family, split, n=None):
    """Images with a lesion, their healthy twins, and the hole: its mask and two pixels around it. n : as above."""
    one_of(REMOVED, family=family)
    one_of(REMOVED_CASES, split=split)
    made = synthetic_brains(split, n or REMOVED_CASES[split], lesion=family, seed=60 + REMOVED.index(family))
    mask = torch.as_tensor(made.masks)[:, None] > 0
    hole = F.max_pool2d(mask.float(), 5, stride=1, padding=2) > 0
    return {"x": to_tensor(made.images), "truth": to_tensor(made.healthy), "mask": mask, "hole": hole}


def _fill(cases, seed, times):
    x, A = cases["x"], Mask(~cases["hole"])
    noise = torch.randn(x.shape, generator=runtime.seeded(seed))
    return sample(prior(), noise, times, replacement(A, A(x)), runtime.seeded(seed + 1)).clamp(-1, 1)


def _filling(times, evaluations):
    return Method(
        lambda cases, seed: {"x": torch.where(cases["hole"], _fill(cases, seed, times), cases["x"])},
        networks=("brain",),
        evaluations=evaluations,
    )


def _score_removed(found, cases):
    x, truth, hole = found["x"], cases["truth"], cases["hole"]
    edge = hole & (F.max_pool2d((~hole).float(), 3, stride=1, padding=1) > 0)
    scores = {"psnr": psnr(x, truth), "grain": _texture(x, hole).sqrt() / _texture(truth, hole).sqrt()}
    for name, inside in (("hole", hole), ("edge", edge), ("outside", ~hole)):
        scores[f"error_{name}"] = mean_inside((x - truth).abs(), inside)
    return scores


def _removal(family):
    turning = repaint_times(uniform_times(FILL_STEPS // ROUNDS), ROUNDS)
    methods = {
        "nothing": Method(lambda cases, seed: {"x": cases["x"]}),
        "biharmonic": Method(lambda cases, seed: {"x": classical.biharmonic(cases["x"], cases["hole"]).clamp(-1, 1)}),
        "other side": Method(lambda cases, seed: {"x": classical.mirror_fill(cases["x"], cases["hole"])}),
        "replacement": _filling(uniform_times(FILL_STEPS), FILL_STEPS),
        "RePaint": _filling(turning, FILL_STEPS),
    }
    return Task(partial(removal_cases, family), methods, _score_removed)


# ---- Contrasts: T1 to T2 ---------------------------------------------------------------------------------------------


def contrast_cases(split, n=None):
    """T1- and T2-like images of the same subjects, healthy and with a lesion of each family. n : as above."""
    cases, n = {}, n or CASES[split]
    for contrast in ("T1", "T2"):
        for k, family in enumerate(LESIONS):
            made = synthetic_brains(split, n, contrast=contrast, lesion=family)
            cases[f"{contrast} {family}"] = to_tensor(made.images)
            cases[f"mask {family}"] = torch.as_tensor(made.masks)[:, None] > 0
            if k == 0:
                cases[contrast] = to_tensor(made.healthy)
                cases["brain"] = torch.as_tensor(made.labels)[:, None] > 0
    return cases


@functools.cache
def brightness_curve():
    """A polynomial of degree 5 from T1 to T2 brightness, fitted to 64 training subjects: a ``numpy`` Polynomial."""
    t1, t2 = (synthetic_brains("train", 64, contrast=contrast).images.ravel() for contrast in ("T1", "T2"))
    return np.polynomial.Polynomial.fit(t1, t2, 5)


def by_curve(t1):
    """T1-like images mapped pixel by pixel; brightness that no training image has is taken to the nearest it has."""
    curve = brightness_curve()
    return torch.as_tensor(curve(t1.numpy().clip(*curve.domain))).float()


def by_regression(t1):
    """The answer of the network trained by squared error."""
    with runtime.fast():
        return pretrained.load("brain_t2_l2")(t1.to(runtime.device()), 0.0).float().cpu().clamp(-1, 1)


def by_diffusion(t1, seed):
    """One sample given the T1-like image."""
    noise = torch.randn(t1.shape, generator=runtime.seeded(seed))
    return generate(pretrained.load_denoiser("brain_t2"), noise, t1, T2_NFE).clamp(-1, 1)


def _translated(function, samples=1):
    """function(t1, seed) of the healthy images, ``samples`` times, and of those with lesions, with the first seed."""

    def run(cases, seed):
        drawn = [function(cases["T1"], seed + k) for k in range(samples)]
        found = {"x": drawn[0]} | {family: function(cases[f"T1 {family}"], seed) for family in LESIONS}
        return found | ({"samples": torch.stack(drawn)} if samples > 1 else {})

    return run


def _score_translated(found, cases):
    x, truth = found["x"], cases["T2"]
    scores = {"psnr": psnr(x, truth), "ssim": ssim(x, truth)}
    scores["sharpness"] = (_texture(x, cases["brain"]) / _texture(truth, cases["brain"])).sqrt()
    if "samples" in found:
        scores |= _scores_of_samples(found["samples"], truth, cases["brain"], (1, 4))
    for family in LESIONS:
        change, mask = cases[f"T2 {family}"] - truth, cases[f"mask {family}"]
        scores[f"contrast_kept_{family}"] = contrast_kept(found[family], x, change, mask)
    return scores


def _translation():
    methods = {
        "one curve": Method(_translated(lambda t1, seed: by_curve(t1))),
        "regression": Method(_translated(lambda t1, seed: by_regression(t1)), networks=("brain_t2_l2",), evaluations=1),
        "diffusion": Method(_translated(by_diffusion, SAMPLES), networks=("brain_t2",), evaluations=T2_NFE),
    }
    return Task(contrast_cases, methods, _score_translated)


# ---- The record ------------------------------------------------------------------------------------------------------

TASKS = {
    **{f"denoising, {noise}": _denoising(noise) for noise in NOISES},
    "assumed noise": _assumed(),
    "magnitude": _magnitude(),
    "larger ventricles": _ventricles(),
    **{f"removed, {family}": _removal(family) for family in REMOVED},
    "T1 to T2": _translation(),
}


@functools.lru_cache(maxsize=4)
def cases_of(task, split):
    """The cases of a task: tensors by name."""
    return TASKS[task].load(split)


def measure(task, method, setting, split, groups=None):
    """A row: a list a measure, one entry a case. groups : so many groups of eight from the first; all if None."""
    cases, scores, seconds, about = cases_of(task, split), {}, 0.0, TASKS[task].methods[method]
    count = len(next(iter(cases.values()))) // GROUP if groups is None else groups
    for group in range(count):
        part = {key: value[group * GROUP : (group + 1) * GROUP] for key, value in cases.items()}
        start = time.process_time()
        found = about.run(part, 1000 * group + 10, **setting)
        seconds += time.process_time() - start
        for key, values in TASKS[task].score(found, part).items():
            scores.setdefault(key, []).extend(rounded(values, 7 if key.startswith("squared") else 4))
    images = sum(value.shape[0] * GROUP if value.ndim == 5 else GROUP for key, value in found.items())
    images -= GROUP * ("samples" in found)  # the first of them is among the others, too
    return {"nfe": about.evaluations, "seconds": rounded(seconds / count / images), **scores}, {}


def chosen(rows, task, method):
    """The one of a method's settings that did best on validation; {} for a method without. Raises ValueError where
    there is no row."""
    settings = TASKS[task].methods[method].settings
    if len(settings) < 2:
        return {}
    found = [row for row in rows if (row["task"], row["method"], row["split"]) == (task, method, "validation")]
    found = [row for row in found if row["setting"] in settings]
    if not found:
        raise ValueError(f"no validation row of {method!r} in {task!r}: make the record first")
    if method in TASKS[task].least:
        found = [row for row in found if effect(row) >= TASKS[task].least[method]]
    return max(found, key=lambda row: np.mean(row[TASKS[task].goal]))["setting"]


def plan(record):
    """The rows: of each method all settings on validation, if it has several, then the best of them on test. Test rows
    of a setting that is no longer the best are taken out of the record."""
    for task, about in TASKS.items():
        for name, method in about.methods.items():
            key = {"task": task, "method": name}
            if STUDY.needs(key) is None:
                continue
            if len(method.settings) > 1:
                yield from (key | {"setting": setting, "split": "validation"} for setting in method.settings)
            best = key | {"split": "test", "setting": chosen(record["rows"], task, name)}
            record["rows"][:] = [row for row in record["rows"] if not outdated(row, best)]
            yield best


def begin():
    """What stands above the rows."""
    return {"cases": CASES, "cases_removed": REMOVED_CASES, "precision": runtime.precision_name()}, {}


STUDY = Study(
    "12_image_to_image",
    plan,
    measure,
    begin,
    networks=lambda key: TASKS[key["task"]].methods[key["method"]].networks,
)
