"""The record ``14_audits``: what an audit of a trained network asks: whom it holds for, and whose images it has seen.

- "scanner": subjects as another scanner would show them, reconstructed from MRI scans at R = 4. The scanners are
  operators on the images, made here: :data:`SCANNERS`. Those subjects on the scanner that the networks know, with the
  same lines and seeds, are the first of the row "as trained" of :mod:`course_lib.experiments.challenges`.
- "lesion": subjects of notebook 09 with their lesion, on the known scanner: error bars in the lesion, and elsewhere.
- "membership": the denoising error of networks on images of their training, and on images of other people.

It takes about six minutes of one free core, a third of it the training of two networks of copies, which do not ship.
Nothing is tuned. No picture is stored.
"""

import functools

import torch

from course_lib import datasets, pretrained, runtime
from course_lib.experiments import challenges
from course_lib.experiments import reconstruction as lab
from course_lib.experiments.record import rounded
from course_lib.experiments.study import Study, timed
from course_lib.images import in_batches
from course_lib.recipes import RECIPES, copies, runs

METHODS = ("TV", "U-Net", "DiffPIR")
SUBJECTS = 12  # on each scanner
ILL = 16  # subjects with a lesion, large and tiny in turn
BLUR, NOISE = 1.0, 0.12  # pixels; standard deviation of grey levels in [-1, 1]

COPIER, SHORT, SHIPPED = "copies_10_3000", "copies_10_480", "brain"
MEMBERS = {COPIER: 10, SHORT: 10, SHIPPED: 100}  # people of the training: all, or the first of ten thousand
OTHERS = 100
LOG_SNR = (2.0, 0.0, -2.0)  # where the denoising error is taken
NOISES = 4  # the same for every image


# ---- Scanners, and error bars ----------------------------------------------------------------------------------------


def blurred(x, width):
    """Slices (N, 1, H, W) after a Gaussian blur of ``width`` pixels."""
    from scipy.ndimage import gaussian_filter

    return torch.as_tensor(gaussian_filter(x.numpy(), (0, 0, width, width)))


def noisier(x, std):
    """Slices (N, 1, H, W) with noise of that standard deviation, the same at every call."""
    return x + std * torch.randn(x.shape, generator=runtime.seeded(14))


#: What a scanner makes of slices (N, 1, H, W) in [-1, 1].
SCANNERS = {"softer": lambda x: blurred(x, BLUR), "noisier": lambda x: noisier(x, NOISE)}


def seen_by(scanner, x):
    """Slices (N, 1, H, W) in [-1, 1] as a scanner shows them; the background stays black. Raises ValueError for an
    unknown scanner."""
    if scanner not in SCANNERS:
        raise ValueError(f"no scanner {scanner!r}; there are: {', '.join(SCANNERS)}")
    return torch.where(x > -1, SCANNERS[scanner](x).clamp(-1, 1), x)


def scanner_row(scanner, method):
    """A row "scanner": what a row "shift" of ``14_challenges`` has."""
    return challenges.reconstructed(seen_by(scanner, lab.subjects()[0][:SUBJECTS]), method)[0]


def lesion_row(method):
    """A row "lesion": the coverage of widened intervals in the lesions, and elsewhere in the brain."""
    sick, masks, inside = (part[:ILL] for part in lab.subjects()[1:])
    samples, _ = lab.drawn_of_all(challenges.problem_of(challenges.SHIFT_R), method, sick, challenges.SAMPLES)
    places = {"in_lesion": masks, "elsewhere": inside & ~masks}
    return {name: rounded(challenges.covered_if_wider(samples, sick, where), 3) for name, where in places.items()}


# ---- Membership ------------------------------------------------------------------------------------------------------


def denoising_errors(denoiser, x_0, log_snr, noises=NOISES, seed=0):
    """Mean squared error of D(x_t, t) at one noise level, of each image x_0 (N, 1, H, W) over its pixels and over a few
    noises, which are the same for every image: (N,).

    The score of a loss-based membership inference: who was in the training tends to have the smaller error (Yeom et
    al., *Privacy risk in machine learning*, IEEE CSF 2018; for diffusion models Duan et al., ICML 2023).
    """
    t = denoiser.schedule.time(torch.tensor(log_snr))
    eps = torch.randn(noises, *x_0.shape[1:], generator=runtime.seeded(seed)).to(x_0.device)
    noisy = (denoiser.schedule.noisy(x_0, one.expand(x_0.shape), t) for one in eps)
    return torch.stack([(denoiser(x_t, t) - x_0).square().flatten(1).mean(1) for x_t in noisy]).mean(0)


def denoiser_of(name, folder="runs"):
    """The denoiser of a network by name and the size of its images: one that ships, or one of the copies, trained here
    and now or before (``python -m course_lib.train`` with its name)."""
    if name == SHIPPED:
        return pretrained.load_denoiser(name, clip=False), datasets.BRAIN_SIZE
    recipe = RECIPES[name]
    net, _ = runs.finished(recipe, folder)
    return recipe.denoiser(runtime.placed(net), clip=False), copies.SIZE


def membership_row(name):
    """A row "membership": errors of members and of others at each of LOG_SNR."""
    denoiser, size = denoiser_of(name)
    found = {}
    for group, split, n in (("members", "train", MEMBERS[name]), ("others", "test", OTHERS)):
        x = datasets.healthy_brains(split, n, size=size)
        errors = (in_batches(functools.partial(denoising_errors, denoiser, log_snr=level), x, 50) for level in LOG_SNR)
        found[group] = [rounded(each, 6) for each in errors]
    return found


# ---- The record ------------------------------------------------------------------------------------------------------


def plan(record=None):
    """The rows, what the notebook needs most first."""
    rows = [("scanner", "noisier", method) for method in METHODS] + [("lesion", "as trained", "DiffPIR")]
    rows += [("membership", name, "") for name in (SHORT, COPIER)]
    rows += [("scanner", "softer", method) for method in METHODS] + [("membership", SHIPPED, "")]
    return [dict(zip(("kind", "name", "method"), row)) for row in rows]


def networks(key):
    """The networks of a row."""
    if key["kind"] == "membership":
        return (SHIPPED,) * (key["name"] == SHIPPED)
    return {"DiffPIR": ("brain",), "U-Net": ("brain_mri_unet",)}.get(key["method"], ())


@timed
def measure(kind, name, method):
    """A row."""
    if kind == "scanner":
        return scanner_row(name, method), {}
    return (lesion_row(method) if kind == "lesion" else membership_row(name)), {}


def begin():
    """What stands above the rows."""
    about = {"subjects": SUBJECTS, "samples": challenges.SAMPLES, "log_snr": list(LOG_SNR)}
    return about | {"precision": runtime.precision_name()}, {}


STUDY = Study("14_audits", plan, measure, begin, networks=networks)
