"""The record ``09_reconstruction``: 32 made subjects reconstructed from three kinds of scan by eight methods.

Subjects come in groups of four, each with random numbers of its own, so that a group can be remade alone. DPS and PiGDM
are measured with more steps, too, in rows of their own; see ``MORE``.
"""

import functools
import time

import torch

from course_lib import pretrained, runtime
from course_lib.datasets import synthetic_brains
from course_lib.experiments.record import as_bytes, pictures, rounded
from course_lib.experiments.study import Study, grid
from course_lib.guidance import Clipped
from course_lib.images import to_tensor
from course_lib.inverse import diffpir, diffpir_step, dps_step, pigdm, tv
from course_lib.metrics.images import contrast_kept, coverage, psnr, ssim
from course_lib.operators import fitted
from course_lib.samplers import ddpm_step, sample
from course_lib.scans import FINE, PROBLEMS, check_problem, finer_scan, noise_of, scan, shown_at_once
from course_lib.schedules import log_snr_times, uniform_times

CASES, GROUP = 32, 4
METHODS = ("zeros or FBP", "TV", "U-Net", "U-Net, fitted", "unrolled", "DPS", "PiGDM", "DiffPIR")
TRAINED = METHODS[2:5]  # with a network for each kind of scan
GRADIENTS = ("DPS", "PiGDM")
STEPS = {"DPS": 40, "PiGDM": 30, "DiffPIR": 60}
LESIONS = ("hyper", "tiny")  # subjects with an even and an odd position
SHOWN = 4  # subjects whose pictures are kept: the first group

#: More steps of DPS and PiGDM -> on how many of the subjects. At 45 ms for a differentiated evaluation of one image,
#: all of these rows with their tuning take an hour and a half of one core.
MORE, MANY = {100: 32, 500: 16}, ", more steps"

#: What is tuned, and tried, on validation subjects.
GRID = {
    "TV": grid(weight=(0.01, 0.03, 0.1)),
    "U-Net, fitted": grid(weight=(0.03, 0.1, 0.3, 1.0)),
    "DPS": grid(scale=(1.0, 3.0, 10.0)),
    "PiGDM": grid(spread=(0.3, 1.0)),
    "DiffPIR": [{"weight": w, "zeta": z} for w, z in ((1.0, 0.3), (0.3, 1.0), (1.0, 1.0), (4.0, 1.0))],
}
GRID_OF_CT = {
    "TV": grid(weight=(0.0003, 0.001, 0.003)),
    "U-Net, fitted": grid(weight=(0.01, 0.03, 0.1, 0.3)),
}
GRID_OF_MORE = {500: {"DPS": grid(scale=(0.3, 1.0, 3.0))}}  # many steps may be short ones


@functools.cache
def prior(clip):
    """The diffusion prior: healthy brains."""
    return pretrained.load_denoiser("brain", clip)


def denoiser_and_step(problem, method, A, y, settings, steps=None):
    """What a sampler needs for a method that draws: a denoiser, a step and a grid of times."""
    n, schedule = steps or STEPS[method], prior(False).schedule
    if method == "DPS":
        return prior(False), dps_step(A, y, **settings), uniform_times(n)
    if method == "PiGDM":
        guided = Clipped(pigdm(prior(False), A, y, noise_of(problem), **settings))
        return guided, ddpm_step, log_snr_times(schedule, n, -6.0, 8.0)
    guided = diffpir(prior(True), A, y, noise_of(problem), settings["weight"])
    return guided, functools.partial(diffpir_step, zeta=settings["zeta"]), log_snr_times(schedule, n, -8.0, 8.0)


def reconstruct(problem, method, A, y, seed=0, settings=None, steps=None):
    """Images (B, 1, 96, 96) in [-1, 1], one sample of each for the methods that draw. Raises ValueError for an unknown
    method. settings : of the method; left out, those chosen on validation subjects (:func:`settings_of`). steps : of a
    method that draws; left out, as in ``STEPS``, for which the settings were chosen."""
    if method not in METHODS:
        raise ValueError(f"no method {method!r}; there are: {', '.join(METHODS)}")
    check_problem(problem)
    settings = settings_of(problem, method) if settings is None else settings
    x = shown_at_once(problem, A, y)
    if method == "TV":
        x = tv(A, y, iterations=60 if problem.startswith("CT") else 40, start=x, **settings)
    if method in TRAINED:
        net, seen = pretrained.load(network_of(problem, method)), (A, y)
        with runtime.fast():
            x = net(seen if method == "unrolled" else x.to(runtime.device()), 0.0).float().cpu()
        x = fitted(A, y, x, **settings) if settings else x
    if method not in STEPS:
        return x.clamp(-1, 1)
    denoiser, step, times = denoiser_and_step(problem, method, A, y, settings, steps)
    noise = torch.randn(len(y), 1, *y.shape[-1:] * 2, generator=runtime.seeded(seed))
    return sample(denoiser, noise, times, step, runtime.seeded(seed + 1)).clamp(-1, 1)


def network_of(problem, method):
    """The network of one of the ``TRAINED`` methods for a problem."""
    return f"brain_{'ct' if problem.startswith('CT') else 'mri'}_{'unrolled' if method == 'unrolled' else 'unet'}"


def samples_of(problem, method, steps=None):
    """How many samples are drawn of each subject. Those with gradients are slow: DPS and PiGDM draw four with few steps
    at R = 8 alone, with ``steps`` = 100 in MRI alone, and one with more."""
    several = {None: PROBLEMS[1:2], min(MORE): PROBLEMS[:2]}
    return 4 if method == "DiffPIR" or (method in GRADIENTS and problem in several.get(steps, ())) else 1


def with_lesions(problem, method):
    """Whether subjects are reconstructed with their lesion, too."""
    return method not in GRADIENTS or problem == PROBLEMS[1]


def evaluations(problem, method):
    """Network evaluations for one image; those of DPS and PiGDM are differentiated too."""
    if method in TRAINED:
        return pretrained.card(network_of(problem, method))["network_args"].get("iterations", 1)
    return STEPS.get(method, 0)


# ---- settings, chosen on validation subjects -------------------------------------------------------------------------

TUNED = PROBLEMS[1:]  # R = 4 uses the settings of R = 8

#: kind of scan -> method -> what did best; the study writes how each setting did into the record.
CHOSEN = {
    "MRI": {
        "TV": {"weight": 0.03},
        "U-Net, fitted": {"weight": 0.03},
        "DPS": {"scale": 3.0},
        "PiGDM": {"spread": 1.0},
        "DiffPIR": {"weight": 0.3, "zeta": 1.0},
    },
    "CT": {
        "TV": {"weight": 0.001},
        "U-Net, fitted": {"weight": 0.03},
        "DPS": {"scale": 3.0},
        "PiGDM": {"spread": 0.3},
        "DiffPIR": {"weight": 0.3, "zeta": 1.0},
    },
}


def settings_of(problem, method):
    """The settings of a method, {} for one without."""
    return CHOSEN[problem.split(",")[0]].get(method, {})


def tune(problem, method, steps=None):
    """Mean PSNR of each setting of the grid, on the first group of validation subjects: a list of dicts."""
    x_0 = to_tensor(synthetic_brains("validation", GROUP).images)
    A, y = scan(problem, x_0, 0)
    grids = GRID | (GRID_OF_CT if problem.startswith("CT") else {}) | GRID_OF_MORE.get(steps, {})
    return [
        {**settings, "psnr": round(float(psnr(reconstruct(problem, method, A, y, 0, settings, steps), x_0).mean()), 2)}
        for settings in grids[method]
    ]


# ---- rows ------------------------------------------------------------------------------------------------------------


def mixed_lesions(split, n):
    """n subjects, healthy and with a lesion (n, 1, 96, 96), large and bright or tiny and bright in turn, the lesions'
    masks (bool) and the maps of tissues."""
    bright, tiny = (synthetic_brains(split, n, lesion=family) for family in LESIONS)
    odd = torch.arange(n).view(-1, 1, 1, 1) % 2 == 1
    sick = torch.where(odd, to_tensor(tiny.images), to_tensor(bright.images))
    masks = torch.where(odd, *(torch.as_tensor(cases.masks)[:, None] > 0 for cases in (tiny, bright)))
    return to_tensor(bright.healthy), sick, masks, torch.as_tensor(bright.labels)[:, None].long()


@functools.cache
def subjects():
    """The test subjects: healthy and with a lesion (32, 1, 96, 96), the lesions' and the brains' masks (bool)."""
    healthy, sick, masks, labels = mixed_lesions("test", CASES)
    return healthy, sick, masks, labels > 0


def group_of(k):
    """The places of the subjects of a group."""
    return slice(k * GROUP, (k + 1) * GROUP)


def seed_of(group, sample=0):
    """The seed of a group's scan (sample 0) or of one of its samples."""
    return 1000 * group + 10 * sample


def drawn(problem, method, x, group, samples=1, scanner=scan, **how):
    """Samples (K, 4, 1, 96, 96) of a group of images, the scan's operator and the scan. how : settings and steps, as
    for :func:`reconstruct`."""
    A, y = scanner(problem, x, seed_of(group))
    found = [reconstruct(problem, method, A, y, seed_of(group, k + 1), **how) for k in range(samples)]
    return torch.stack(found), A, y


def drawn_of_all(problem, method, images, samples=1, scanner=scan, **how):
    """Samples (K, N, 1, 96, 96) of images (N, 1, 96, 96), and of each group the scan's operator and the scan."""
    groups = range(len(images) // GROUP)
    parts = [drawn(problem, method, images[group_of(k)], k, samples, scanner, **how) for k in groups]
    return torch.cat([found for found, _, _ in parts], 1), [scanned for _, *scanned in parts]


def measure(problem, method, steps=None):
    """A row, and the pictures of the first group."""
    if steps is not None:
        return measure_more(problem, few_of(method), steps)
    if problem == FINE:
        return measure_finer(method)
    healthy, sick, masks, brain = subjects()
    K, start = samples_of(problem, method), time.process_time()
    samples, _ = drawn_of_all(problem, method, healthy, K)
    seconds = (time.process_time() - start) / (K * CASES)
    kept = {"sample": samples[0]}
    found = {
        "settings": settings_of(problem, method),
        "samples": K,
        "nfe": evaluations(problem, method),
        "seconds": rounded(seconds, 3),
        **scores(samples, healthy, brain),
    }
    if method in TRAINED:
        found["error_bar"] = rounded(error_bar(problem, method), 5)
    if K > 1:
        kept |= {"mean": samples.mean(0), "std": samples.std(0) * 4 - 1}  # up to 0.5
    if with_lesions(problem, method):
        kept["lesion"] = drawn_of_all(problem, method, sick)[0][0]
        found["contrast_kept"] = rounded(contrast_kept(kept["lesion"], samples[0], sick - healthy, masks), 3)
        found["lesion_error"] = rounded(lesion_error(samples[0]), 3)
    return found, {f"{problem}/{method}/{what}": as_bytes(x[:SHOWN, 0]) for what, x in kept.items()}


def error_bar(problem, method):
    """One error bar for all pixels of a method with one answer: its root mean squared error on validation subjects."""
    x_0 = to_tensor(synthetic_brains("validation", GROUP).images)
    return float((reconstruct(problem, method, *scan(problem, x_0, 0)) - x_0).square().mean().sqrt())


def lesion_error(without):
    """The error of reconstructions (32, 1, 96, 96) of the healthy subjects along the change that a lesion would make
    there, in units of that change: what an observer who knows place and shape may take for a lesion."""
    healthy, sick, masks, _ = subjects()
    return contrast_kept(without, healthy, sick - healthy, masks)


def scores(samples, truth, brain=None):
    """PSNR and SSIM of one sample and, of several, of their mean, the squared errors of means of 1, 2 and 4, and how
    much of the brain their intervals cover."""
    found = {"psnr": rounded(psnr(samples[0], truth), 3), "ssim": rounded(ssim(samples[0], truth))}
    if len(samples) > 1:
        mean = samples.mean(0)
        found |= {"psnr_of_mean": rounded(psnr(mean, truth), 3), "ssim_of_mean": rounded(ssim(mean, truth))}
        errors = {str(k): squared_error_of_means(samples, truth, k) for k in (1, 2, 4) if len(samples) % k == 0}
        found["squared_error_of_mean"] = {k: rounded(values, 7) for k, values in errors.items()}
        found["coverage"] = rounded(coverage(samples, truth, brain), 3)
    return found


def squared_error_of_means(samples, truth, k):
    """Mean squared error (N,) of means of k of the samples (K, N, C, H, W)."""
    means = torch.stack([part.mean(0) for part in samples.split(k)])
    return (means - truth).square().flatten(2).mean(2).mean(0)


def measure_more(problem, method, steps):
    """A row of DPS or PiGDM with so many steps, tuned for them; no pictures. Of the first ``MORE[steps]`` subjects, and
    from the same scans as the row with few."""
    tried = tune(problem, method, steps)
    best = max(tried, key=lambda entry: entry["psnr"])
    settings = {name: value for name, value in best.items() if name != "psnr"}
    healthy, _, _, brain = subjects()
    truth, K, start = healthy[: MORE[steps]], samples_of(problem, method, steps), time.process_time()
    samples, _ = drawn_of_all(problem, method, truth, K, settings=settings, steps=steps)
    seconds = (time.process_time() - start) / (K * len(truth))
    about = {"settings": settings, "tried": tried, "samples": K, "nfe": steps, "seconds": rounded(seconds, 3)}
    return about | scores(samples, truth, brain[: len(truth)]), {}


def measure_finer(method):
    """A row of the data from the finer grid; the truth is the fine image averaged over squares of two by two."""
    fine = to_tensor(synthetic_brains("test", CASES, size=192).images)
    samples, _ = drawn_of_all(FINE, method, fine, scanner=finer_scan)
    return scores(samples, torch.nn.functional.avg_pool2d(fine, 2)), {}


def networks(key):
    """The network that a row uses besides the prior, if any."""
    return (network_of(key["problem"], key["method"]),) if key["method"] in TRAINED else ()


def plan():
    """The rows, what the notebook needs most first."""
    order = ("zeros or FBP", "U-Net", "U-Net, fitted", "unrolled", "DiffPIR", "TV", "PiGDM", "DPS")
    rows = [(problem, method) for method in order for problem in (PROBLEMS[1], PROBLEMS[0], PROBLEMS[2])]
    rows = rows[:18] + [(FINE, method) for method in order[:6]] + rows[18:]
    return [{"problem": problem, "method": method} for problem, method in rows] + plan_of_more()


def plan_of_more():
    """The rows of DPS and PiGDM with more steps; at R = 4 with the fewest alone. Their method has another name, so that
    who asks for a method gets one row."""
    scans = {n: (*TUNED, PROBLEMS[0]) if n == min(MORE) else TUNED for n in MORE}
    rows = [(problem, method, n) for n in MORE for method in GRADIENTS for problem in scans[n]]
    return [{"problem": problem, "method": f"{method}{MANY}", "steps": n} for problem, method, n in rows]


def few_of(method):
    """DPS for "DPS, more steps"."""
    return method.removesuffix(MANY)


def tuned_plan(record):
    """The rows; before a method's row how each setting did stands in the record."""
    for key in plan():
        name = "{problem}, {method}".format(**key)
        to_measure = not any(key.items() <= row.items() for row in record["rows"])  # so its networks may have changed
        if key["method"] in GRID and key["problem"] in TUNED and to_measure and STUDY.needs(key) is not None:
            record["tuning"][name] = tune(**key)
        yield key


def begin():
    """What stands above the rows."""
    return {"cases": CASES, "precision": runtime.precision_name(), "tuning": {}}, {}


STUDY = Study("09_reconstruction", tuned_plan, measure, begin, ("brain",), networks)


def stored_pictures():
    """The stored pictures: "problem/method/what" -> float (4, 96, 96): images in [-1, 1], or standard deviations."""
    return {key: (x + 1) / 4 if key.endswith("std") else x for key, x in pictures(STUDY.name).items()}
