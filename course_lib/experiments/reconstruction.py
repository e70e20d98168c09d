"""The record ``09_reconstruction``: 32 made subjects reconstructed from three kinds of scan by seven methods.

``python -m course_lib.experiments 09_reconstruction`` remakes it. It may be interrupted: rows that are there, and were
made with the networks as they are now, are not computed anew. Subjects come in groups of four, each with random numbers
of its own, so that a group can be remade alone.
"""

import functools
import json
import time

import torch

from course_lib import pretrained, runtime
from course_lib.datasets import synthetic_brains
from course_lib.files import read_tensors, write_rows, write_tensors
from course_lib.guidance import Clipped
from course_lib.images import to_tensor
from course_lib.inverse import diffpir, diffpir_step, dps_step, pigdm, tv
from course_lib.metrics.images import contrast_kept, coverage, psnr, ssim
from course_lib.samplers import ddpm_step, sample
from course_lib.scans import FINE, PROBLEMS, check_problem, finer_scan, noise_of, scan, shown_at_once
from course_lib.schedules import log_snr_times, uniform_times

CASES, GROUP = 32, 4
METHODS = ("zeros or FBP", "TV", "U-Net", "U-Net, fitted", "DPS", "PiGDM", "DiffPIR")
STEPS = {"DPS": 40, "PiGDM": 30, "DiffPIR": 60}
LESIONS = ("hyper", "tiny")  # subjects with an even and an odd position
SHOWN = 4  # subjects whose pictures are kept: the first group

#: What is tuned, and tried, on validation subjects.
GRID = {
    "TV": [{"weight": w} for w in (0.01, 0.03, 0.1)],
    "U-Net, fitted": [{"weight": w} for w in (0.03, 0.1, 0.3, 1.0)],
    "DPS": [{"scale": s} for s in (1.0, 3.0, 10.0)],
    "PiGDM": [{"spread": c} for c in (0.3, 1.0)],
    "DiffPIR": [{"weight": w, "zeta": z} for w, z in ((1.0, 0.3), (0.3, 1.0), (1.0, 1.0), (4.0, 1.0))],
}
GRID_OF_CT = {
    "TV": [{"weight": w} for w in (0.3, 1.0, 3.0)],
    "U-Net, fitted": [{"weight": w} for w in (10.0, 30.0, 100.0, 300.0)],
    "DPS": [{"scale": s} for s in (0.03, 0.1, 0.3)],
}


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
    if method == "zeros or FBP":
        return shown_at_once(problem, A, y).clamp(-1, 1)
    if method == "TV":
        start = shown_at_once(problem, A, y)
        return tv(A, y, iterations=60 if problem.startswith("CT") else 40, start=start, **settings).clamp(-1, 1)
    if method.startswith("U-Net"):
        with runtime.fast():
            x = (
                pretrained.load(network_of(problem))(shown_at_once(problem, A, y).to(runtime.device()), 0.0)
                .float()
                .cpu()
            )
        return (fitted(A, y, x, **settings) if settings else x).clamp(-1, 1)
    denoiser, step, times = denoiser_and_step(problem, method, A, y, settings, steps)
    noise = torch.randn(len(y), 1, *y.shape[-1:] * 2, generator=runtime.seeded(seed))
    return sample(denoiser, noise, times, step, runtime.seeded(seed + 1)).clamp(-1, 1)


def fitted(A, y, x, weight):
    """The image that fits the scan and a reconstruction x: argmin_u |y - A u|^2 + weight |x - u|^2."""
    return A.solve(A.adjoint(y) + weight * x, weight)


def network_of(problem):
    """The supervised network of a problem."""
    return "brain_ct_unet" if problem.startswith("CT") else "brain_mri_unet"


def samples_of(problem, method):
    """How many samples are drawn of each subject: those with gradients are slow, and draw four at R = 8 alone."""
    return 4 if method == "DiffPIR" or (method in ("DPS", "PiGDM") and problem == PROBLEMS[1]) else 1


def with_lesions(problem, method):
    """Whether subjects are reconstructed with their lesion, too."""
    return method not in ("DPS", "PiGDM") or problem == PROBLEMS[1]


def evaluations(method):
    """Network evaluations for one image; those of DPS and PiGDM are differentiated too."""
    return STEPS.get(method, int(method.startswith("U-Net")))


# ---- settings, chosen on validation subjects -------------------------------------------------------------------------

TUNED = PROBLEMS[1:]  # R = 4 uses the settings of R = 8

#: kind of scan -> method -> what did best; `make` writes how each setting did into the record.
CHOSEN = {
    "MRI": {
        "TV": {"weight": 0.03},
        "U-Net, fitted": {"weight": 0.03},
        "DPS": {"scale": 3.0},
        "PiGDM": {"spread": 1.0},
        "DiffPIR": {"weight": 0.3, "zeta": 1.0},
    },
    "CT": {
        "TV": {"weight": 3.0},
        "U-Net, fitted": {"weight": 100.0},
        "DPS": {"scale": 0.1},
        "PiGDM": {"spread": 0.3},
        "DiffPIR": {"weight": 0.3, "zeta": 1.0},
    },
}


def settings_of(problem, method):
    """The settings of a method, {} for one without."""
    return CHOSEN[problem.split(",")[0]].get(method, {})


def tune(problem, method):
    """Mean PSNR of each setting of the grid, on the first group of validation subjects: a list of dicts."""
    x_0 = to_tensor(synthetic_brains("validation", GROUP).images)
    A, y = scan(problem, x_0, 0)
    grid = (GRID_OF_CT if problem.startswith("CT") else {}).get(method, GRID[method])
    return [
        {**settings, "psnr": round(float(psnr(reconstruct(problem, method, A, y, 0, settings), x_0).mean()), 2)}
        for settings in grid
    ]


# ---- rows ------------------------------------------------------------------------------------------------------------


@functools.cache
def subjects():
    """The test subjects: healthy and with a lesion (32, 1, 96, 96), the lesions' and the brains' masks (bool)."""
    bright, tiny = (synthetic_brains("test", CASES, lesion=family) for family in LESIONS)
    odd = torch.arange(CASES).view(-1, 1, 1, 1) % 2 == 1
    sick = torch.where(odd, to_tensor(tiny.images), to_tensor(bright.images))
    masks = torch.where(odd, *(torch.as_tensor(cases.masks)[:, None] > 0 for cases in (tiny, bright)))
    return to_tensor(bright.healthy), sick, masks, torch.as_tensor(bright.labels)[:, None] > 0


def _group(k):
    return slice(k * GROUP, (k + 1) * GROUP)


def seed_of(group, sample=0):
    """The seed of a group's scan (sample 0) or of one of its samples."""
    return 1000 * group + 10 * sample


def remake(problem, method, group, samples=1, sick=False):
    """The samples (K, 4, 1, 96, 96) of one group, and processor seconds for an image."""
    x = subjects()[1 if sick else 0][_group(group)]
    A, y = scan(problem, x, seed_of(group))
    start = time.process_time()
    drawn = torch.stack([reconstruct(problem, method, A, y, seed_of(group, k + 1)) for k in range(samples)])
    return drawn, (time.process_time() - start) / (samples * GROUP)


def row(problem, method):
    """One row of the record, computed, and the pictures of the first group."""
    healthy, sick, masks, brain = subjects()
    K, groups = samples_of(problem, method), range(CASES // GROUP)
    runtime.precision()  # measured once, before the clock starts
    parts = [remake(problem, method, k, K) for k in groups]
    samples = torch.cat([part for part, _ in parts], 1)  # (K, 32, 1, 96, 96)
    kept = {"sample": samples[0, :SHOWN]}
    found = {
        "problem": problem,
        "method": method,
        "settings": settings_of(problem, method),
        "samples": K,
        "nfe": evaluations(method),
        "seconds": round(sum(seconds for _, seconds in parts) / len(parts), 3),
        "needs": needs(problem, method),
        **_scores(samples, healthy),
    }
    if method.startswith("U-Net"):
        found["error_bar"] = round(error_bar(problem, method), 5)
    if K > 1:
        found["coverage"] = _rounded(coverage(samples, healthy, brain))
        kept |= {"mean": samples.mean(0)[:SHOWN], "std": samples.std(0)[:SHOWN]}
    if with_lesions(problem, method):
        with_lesion = torch.cat([remake(problem, method, k, sick=True)[0][0] for k in groups])
        found["contrast_kept"] = _rounded(contrast_kept(with_lesion, samples[0], sick - healthy, masks))
        found["lesion_error"] = _rounded(lesion_error(samples[0]))
        kept["lesion"] = with_lesion[:SHOWN]
    return found, kept


def error_bar(problem, method):
    """One error bar for all pixels of a method with one answer: its root mean squared error on validation subjects."""
    x_0 = to_tensor(synthetic_brains("validation", GROUP).images)
    return float((reconstruct(problem, method, *scan(problem, x_0, 0)) - x_0).square().mean().sqrt())


def lesion_error(without):
    """The error of reconstructions (32, 1, 96, 96) of the healthy subjects along the change that a lesion would make
    there, in units of that change: what an observer who knows place and shape may take for a lesion."""
    healthy, sick, masks, _ = subjects()
    return contrast_kept(without, healthy, sick - healthy, masks)


def _rounded(values, digits=3):
    return [round(float(value), digits) for value in values]


def _scores(samples, truth):
    """PSNR and SSIM of one sample and, of several, of their mean, and the squared errors of means of 1, 2 and 4."""
    scores = {"psnr": _rounded(psnr(samples[0], truth)), "ssim": _rounded(ssim(samples[0], truth), 4)}
    if len(samples) > 1:
        mean = samples.mean(0)
        scores |= {"psnr_of_mean": _rounded(psnr(mean, truth)), "ssim_of_mean": _rounded(ssim(mean, truth), 4)}
        scores["squared_error_of_mean"] = {
            str(k): _rounded(
                torch.stack([(part.mean(0) - truth).square().flatten(1).mean(1) for part in samples.split(k)]).mean(0),
                7,
            )
            for k in (1, 2, 4)
            if len(samples) % k == 0
        }
    return scores


def finer_row(method):
    """A row of the data from the finer grid; the truth is the fine image averaged over squares of two by two."""
    fine = to_tensor(synthetic_brains("test", CASES, size=192).images)
    truth, found = torch.nn.functional.avg_pool2d(fine, 2), []
    for k in range(CASES // GROUP):
        A, y = finer_scan(FINE, fine[_group(k)], seed_of(k))
        found.append(reconstruct(FINE, method, A, y, seed_of(k, 1)))
    scores = _scores(torch.cat(found)[None], truth)
    return {"problem": FINE, "method": method, "needs": needs(FINE, method), **scores}


def needs(problem, method):
    """sha256 of the network that a row uses besides the prior, {} for none; None where that network is not there."""
    if not method.startswith("U-Net"):
        return {}
    name = network_of(problem)
    return {name: pretrained.card(name)["sha256"]} if name in pretrained.names() else None


def plan():
    """(problem, method) of every row; what the notebook needs most comes first."""
    order = ("zeros or FBP", "U-Net", "U-Net, fitted", "DiffPIR", "TV", "PiGDM", "DPS")
    rows = [(problem, method) for method in order for problem in (PROBLEMS[1], PROBLEMS[0], PROBLEMS[2])]
    return rows[:15] + [(FINE, method) for method in order[:5]] + rows[15:]


def make(path):
    """Compute the rows that the record at ``path`` lacks, and write it after each of them."""
    pictures_path = path.with_suffix(".tensors.safetensors")
    pictures = read_tensors(pictures_path)[0] if pictures_path.exists() else {}
    if path.exists():
        record = json.loads(path.read_text(encoding="utf-8"))
        record["rows"] = [
            entry for entry in record["rows"] if entry["needs"] == needs(entry["problem"], entry["method"])
        ]
    else:
        record = {
            "made_by": f"python -m course_lib.experiments {path.stem}",
            "sha256": {"brain": pretrained.card("brain")["sha256"]},
            "cases": CASES,
            "precision": runtime.precision_name(),
            "tuning": {},
            "rows": [],
        }
    done = {(entry["problem"], entry["method"]) for entry in record["rows"]}
    for problem, method in plan():
        if (problem, method) in done or needs(problem, method) is None:
            continue
        if method in GRID and problem in TUNED and f"{problem}, {method}" not in record["tuning"]:
            record["tuning"][f"{problem}, {method}"] = tune(problem, method)
        if problem == FINE:
            found, kept = finer_row(method), {}
        else:
            found, kept = row(problem, method)
        record["rows"].append(found)
        pictures |= {f"{problem}/{method}/{key}": _bytes(images, key) for key, images in kept.items()}
        write_tensors(pictures_path, pictures)
        write_rows(path, record)
        print(problem, method, found.get("seconds"), sum(found["psnr"]) / CASES, flush=True)


def _bytes(images, key):
    """Images (4, 1, 96, 96) as uint8 (4, 96, 96); a standard deviation is stored times 4, up to 0.5."""
    scaled = images * 4 - 1 if key == "std" else images
    return ((scaled[:, 0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def pictures(path):
    """The stored pictures: "problem/method/what" -> float (4, 96, 96): images in [-1, 1], or standard deviations."""
    return {
        key: (value.float() / 127.5 - 1 + key.endswith("std")) / (4 if key.endswith("std") else 1)
        for key, value in read_tensors(path.with_suffix(".tensors.safetensors"))[0].items()
    }
