"""The data sets of the course as networks are trained and measured on them: arrays of images and labels, by split.

This is the only module of the library that knows ``data_fetch``.
"""

import dataclasses
import functools

import numpy as np
import torch
from torch.nn import functional as F

from course_lib.arguments import shaped, whole
from course_lib.hippocampus import hippocampus_box, hippocampus_channels
from course_lib.images import in_batches, to_uint8
from course_lib.tumours import scaled, search_region
from data_fetch import brain_cohort, cache, hippocampus, mednist, ms_lesions, rated_lesions, raw_mri, registry
from data_fetch import brain_tumours as tumours
from data_fetch import lidc as nodules
from data_fetch.errors import DataError  # noqa: F401 - the command

MEDNIST_CLASSES = mednist.CLASSES
REFERENCE_IMAGES = 30_000  # of MedNIST, in the reference of Fréchet distances
BRAIN_SIZE = 96
BRAIN_MEDIAN = 0.6  # where the median of the brain stands in healthy T1 slices, as a share of the range
BRAIN_TISSUES = (*brain_cohort.LABELS, "lesion")
LESION_FAMILIES = brain_cohort.FAMILIES
REAL_FAMILY = brain_cohort.REAL_FAMILY
TUMOUR_CLASSES = tumours.CLASSES
MNI_AFFINE = ms_lesions.AFFINE  # voxel index to mm of the volumes of :func:`ms_persons`
PROCESSES = 1  # that make slices of the brain cohort; a day with a large GPU sets more


def mednist_is_here():
    """True when MedNIST is in the cache."""
    return mednist.is_available()


def mednist_images(split):
    """Images, uint8 (N, 64, 64), and labels (N,) of a split of MedNIST."""
    return mednist.load(split)


@functools.cache
def mednist_small(split):
    """Images of a split averaged over squares of 2 x 2, uint8 (N, 32, 32), and labels (N,)."""
    images, labels = mednist_images(split)
    return to_uint8(in_batches(lambda x: F.avg_pool2d(x, 2)[:, 0], images)), labels


def spread_of_each_class(labels, n):
    """Indices of n items of each class, evenly spread over its items, since neighbours are near-duplicates. Raises
    ValueError where a class has fewer."""
    return torch.cat([where[torch.linspace(0, len(where) - 1, n).round().long()] for where in _classes(labels, n)])


def in_reference(labels):
    """Which of the training images (N,) are in the reference of Fréchet distances: bool (N,), as many of each class;
    fewer where a class of a smaller copy of the data set has fewer."""
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    fewest = int(torch.as_tensor(labels).unique(return_counts=True)[1].min())
    chosen[spread_of_each_class(labels, min(REFERENCE_IMAGES // 6, fewest))] = True
    return chosen


def random_of_each_class(labels, n, generator):
    """Indices of n random items of each class. Raises ValueError where a class has fewer."""
    return torch.cat([where[torch.randperm(len(where), generator=generator)[:n]] for where in _classes(labels, n)])


def _classes(labels, n):
    """The indices of each class. Raises ValueError unless n, a whole number from 1 on, is at most the fewest."""
    whole(n=n)
    labels = torch.as_tensor(labels)
    found = [(labels == label).nonzero()[:, 0] for label in labels.unique()]
    if n > (fewest := min(map(len, found), default=0)):
        raise ValueError(f"n must be at most {fewest}, the items of the smallest class; got {n}")
    return found


def synthetic_brains(split, n, size=BRAIN_SIZE, **options):
    """Slices of the brain cohort, as networks are trained and measured on: a ``data_fetch.brain_cohort.Cohort``."""
    return brain_cohort.cohort(split, n, size=size, processes=PROCESSES, **options)


def lenders(numbers):
    """Number of the real person whose lesions each of these subjects of the cohort gets as "ms": a list of ints."""
    return [brain_cohort.lender(int(number)) for number in numbers]


def synthetic_ventricles(split, n, walls, seed=0):
    """Healthy slices of n subjects of a split with their ventricle walls at ``walls`` mm, all else their own: images
    float32 and labels uint8 (n, 96, 96). Two of different ``walls`` are a true counterfactual pair, noise and all.
    """
    chosen = brain_cohort.numbers(split, n, seed)
    cases = [brain_cohort.slice_2d(int(k), BRAIN_SIZE, ventricles=float(walls)) for k in chosen]
    return np.stack([case.image for case in cases]), np.stack([case.labels for case in cases])


def synthetic_levels(split, n, level, size=BRAIN_SIZE, contrast="T1"):
    """Healthy slices of n subjects of a split, all at ``level`` mm in place of their own: float32 (n, size, size).
    contrast: "T1" or "T2"; of the same subjects.

    Networks of the course are trained on levels between 0 and 32 mm.
    """
    chosen = brain_cohort.numbers(split, n)
    return np.stack([brain_cohort.slice_2d(int(k), size, contrast, level=float(level)).image for k in chosen])


@functools.cache  # a network is measured on some of the images that it was trained on, and they take minutes to make
def healthy_brains(split, n, size=BRAIN_SIZE, seed=0):
    """Synthetic healthy slices, uint8 (n, size, size)."""
    return to_uint8(synthetic_brains(split, n, size, seed=seed).images)


def brain_families(split, n):
    """n slices of each of "healthy" and the five families, uint8, and the index of the family."""
    kinds = (None, *LESION_FAMILIES)
    stacks = [synthetic_brains(split, n, lesion=kind, seed=k).images for k, kind in enumerate(kinds)]
    return to_uint8(np.concatenate(stacks)), np.repeat(np.arange(len(stacks)), len(stacks[0]))


@functools.cache
def lesion_draws(split, n, draws):
    """Healthy slices of n subjects, uint8 (n, 96, 96), and with each of so many lesions of every family that the
    subject could have, uint8 (n, 5, draws, 96, 96); of LESION_FAMILIES, the first draw the one of all cohorts."""

    def of(number, **look):
        return brain_cohort.slice_2d(int(number), BRAIN_SIZE, **look).image

    chosen = brain_cohort.numbers(split, n)
    lesions = [[[of(k, lesion=kind, draw=j) for j in range(draws)] for kind in LESION_FAMILIES] for k in chosen]
    return to_uint8(np.stack([of(k) for k in chosen])), to_uint8(np.array(lesions, np.float32))


def brain_maps(split, n, size=BRAIN_SIZE):
    """n slices, half of them with a lesion, uint8, and their maps of labels (BRAIN_TISSUES), uint8."""
    numbers = ((n + 1) // 2, n // 2)
    halves = [
        synthetic_brains(split, number, size, lesion=lesion, seed=k)
        for k, (number, lesion) in enumerate(zip(numbers, (None, "mixed")))
        if number
    ]
    maps = [np.where(half.masks, 4, half.labels).astype(np.uint8) for half in halves]
    return to_uint8(np.concatenate([half.images for half in halves])), np.concatenate(maps)


def healthy_or_not(split, n):
    """n slices, half of them with a lesion, uint8, and their class: 0 healthy, 1 lesion."""
    images, maps = brain_maps(split, n)
    return images, (maps == BRAIN_TISSUES.index("lesion")).any((1, 2)).astype(np.int64)


def brain_contrasts(split, n):
    """T2- and T1-like slices of the same healthy subjects, uint8 (n, 2, 96, 96)."""
    return np.stack([to_uint8(synthetic_brains(split, n, contrast="T2").images), healthy_brains(split, n)], 1)


@functools.cache
def rated(split, n):
    """n cases of ``rated_lesions``, kept: they take a while to make."""
    return rated_lesions.load(split, n, processes=PROCESSES)


def rater_chances():
    """The chance of each rater (4,)."""
    return torch.tensor(rated_lesions.CHANCES)


def rated_draws(n, each=4):
    """Images uint8 and masks uint8 (each n, 64, 64), ``each`` raters drawn for every one of n training subjects."""
    cases, rng = rated("train", n), np.random.default_rng(0)
    masks = np.concatenate([rated_lesions.draw(cases, rng) for _ in range(each)])
    return np.tile(to_uint8(cases.images), (each, 1, 1)), masks


def hippocampus_is_here():
    """Whether the hippocampus data are in the cache."""
    return hippocampus.is_available()


def hippocampi(split, shifts=((0, 0, 0),)):
    """Channels (N, 3, 32, 48, 32) of the volumes of a split that fit, each once for every row of ``shifts``."""
    cut = [
        hippocampus_channels(volume.scaled(), volume.label, corner)
        for volume in hippocampus.load(split)
        for shift in shifts
        if (corner := hippocampus_box(volume.label, shift)) is not None
    ]
    return np.stack(cut)


def hippocampus_slices(split, shifts=((0, 0, 0),)):
    """Sagittal slices with a label, as channels anterior, posterior and image, float32 (N, 3, 48, 32)."""
    return _with_label(hippocampi(split, shifts))[0]


def _with_label(volumes):
    """The sagittal slices of volumes (V, 3, 32, 48, 32) that have a label, as channels anterior, posterior and image
    (N, 3, 48, 32), and which volume each is of, int64 (N,)."""
    slices = np.moveaxis(volumes, 2, 1).reshape(-1, 3, 48, 32)
    kept = (slices[:, 1:] > 0).any((1, 2, 3))
    return slices[kept][:, [1, 2, 0]], np.repeat(np.arange(len(volumes)), volumes.shape[2])[kept]


def hippocampus_cases(split):
    """Slices of a split as :func:`hippocampus_slices` has them, the volume that each is of and its person, int64."""
    persons = [v.subject for v in hippocampus.load(split) if hippocampus_box(v.label) is not None]
    slices, volume = _with_label(hippocampi(split))
    return slices, volume, np.array(persons)[volume]


def is_here(name):
    """True when a data set of real patients is in the cache: "lidc", "ms_lesions", "brain_tumours" or "raw_mri".
    Raises DataError for a name that no data set has."""
    return cache.is_ready(registry.find(name).name)


def lidc(split):
    """Lung nodules of a split, by person: a ``data_fetch.lidc.Nodules`` with images uint8 (N, 64, 64) and masks uint8
    (N, 4, 64, 64) of 0 and 1, an unordered set of readings, empty where a reader did not outline the nodule."""
    return nodules.load(split)


def lidc_readings():
    """Every slice of the training persons once for each of its four readings: images and masks, uint8 (4 N, 64, 64)."""
    found = nodules.load("train")
    return np.repeat(found.images, nodules.READERS, 0), found.masks.reshape(-1, nodules.SIZE, nodules.SIZE)


def lidc_cases(split):
    """The middle one of the slices of each nodule of a split: images uint8 (N, 64, 64), masks bool (4, N, 64, 64) and
    the person of each, int64 (N,). Which slice that is says nothing of what the readers drew in it."""
    found = nodules.load(split)
    _, first, count = np.unique(np.stack([found.persons, found.nodules]), axis=1, return_index=True, return_counts=True)
    middle = first + count // 2
    return found.images[middle], np.moveaxis(found.masks[middle], 1, 0).astype(bool), found.persons[middle]


def ms_persons():
    """Of the 30 persons with multiple sclerosis the three whose brains are there, each a
    ``data_fetch.ms_lesions.Person``: ``volume("FLAIR")`` is float32 (182, 218, 182), 1 mm, axes RAS+, ``lesions`` the
    mask. They illustrate; they rank nothing."""
    return [person for person in ms_lesions.load() if person.stored]


def mni_slices(volume, affine, levels, median=BRAIN_MEDIAN):
    """Axial slices at ``levels`` mm of a skull-stripped volume (0 outside the brain), as the networks of brains know
    slices: float32 (N, 96, 96) in [-1, 1], the background at -1. affine: voxel index to mm of the ICBM 2009a
    template.

    One factor for the volume: the median of the brain in these slices is put at ``median``, a share of the range, which
    is left out where it stands in healthy T1 slices of the cohort; what is brighter than the range is clipped. Another
    contrast stays another contrast. Raises ValueError where the slices show no brain, and for other shapes.
    """
    volume, affine, levels = np.asarray(volume), np.asarray(affine, float), np.atleast_1d(levels)
    shaped("X, Y, Z", volume=volume)
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or not abs(np.linalg.det(affine)) > 0:
        raise ValueError(f"affine must be 4x4, from voxel index to mm, and one that can be inverted; got {affine}")
    if not np.isfinite(volume).all():
        raise ValueError("volume must be finite, and 0 outside the brain: np.nan_to_num(volume) makes it so")
    found = brain_cohort.slices_in_mni(volume, affine, levels, BRAIN_SIZE)
    if not (found > 0).any():
        raise ValueError(f"volume must show a brain at the levels {list(levels)} mm; it is 0 there")
    return (2 * np.clip(found * (median / np.median(found[found > 0])), 0, 1) - 1).astype(np.float32)


def ms_slices(person, contrast, levels, median=BRAIN_MEDIAN):
    """Slices of a person of :func:`ms_persons` by :func:`mni_slices`, and the masks of the lesions, bool."""
    affine = ms_lesions.TO_TEMPLATE @ MNI_AFFINE
    masks = brain_cohort.slices_in_mni(person.lesions.astype(np.float32), affine, levels, BRAIN_SIZE)
    return mni_slices(person.volume(contrast), affine, levels, median), masks > 0.5


@functools.cache
def tumour_slices(split):
    """Slices with a tumour of a split, which stands in for one by patient, on one scale of grey levels as networks see
    them: a ``data_fetch.brain_tumours.Tumours`` with images uint8 (N, 128, 128), masks uint8 of 0 and 1 of that shape,
    and labels (N,), indices into TUMOUR_CLASSES; and where tumours are looked for, bool (N, 128, 128)."""
    found = tumours.load(split)
    inside = search_region(found.images)
    return dataclasses.replace(found, images=scaled(found.images, inside)), inside


def raw_kspace():
    """K-space of a real head, complex64 (8, 230, 180), with the frequency 0 in the middle, and where it was sampled,
    bool (230, 180)."""
    kspace = raw_mri.load()
    return kspace, raw_mri.sampled(kspace)
