"""What would this brain look like with larger ventricles? Edits of tissue maps and images, and what must be beaten.

Abduction, action, prediction (Pearl, Causality, 2009, theorem 7.1.7): find what is this person's own, change one
cause, and compute the image again with the rest as it was. Here the cause is a map of labels (0 background, 1 CSF, 2
grey matter, 3 white matter), and what is the person's own is what the map leaves open.

=============  ======================  ====================================================================
name           abduction               prediction
=============  ======================  ====================================================================
fresh          none: other noise       a sample given the edited map
inverted       DDIM under the factual  DDIM back under the edited map (a pair of conditional models, as the dual
               map, up to t_0          bridges of Su et al., ICLR 2023; here one ControlNet under two maps)
sdedit         the painted image,      sampled back under the edited map (Meng et al., ICLR 2022)
               noised to t_0
painted        (the image itself)      new CSF gets the brightness of CSF
pushed         (the image itself)      the tissue moves away from the ventricles: a mechanism, and no network
=============  ======================  ====================================================================

Pawlowski et al. (NeurIPS 2020) compute the three steps with flows and VAEs. Diff-SCM (Sanchez & Tsaftaris, CLeaR 2022)
inverts without a condition, and intervenes on the way back by the gradient of a predictor of the cause.

Lengths are in mm; a pixel of 96 x 96 is 2 mm. Label maps are (B, H, W) integer tensors, images (B, 1, H, W).
"""

import numpy as np
import torch
from torch.nn import functional as F

from course_lib.applications.anomaly import heal, noise_and_denoise
from course_lib.arguments import alike, images, one_of, positive, shaped
from course_lib.samplers import ddim_step, sample
from course_lib.schedules import uniform_times

CSF = 1
FIELD_OF_VIEW = 192.0
DEEP, WIDE = 22.0, 36.0  # ventricles lie this far below the outline, and no further than that from the midline


def pixel(labels):
    """Side of a pixel in mm."""
    return FIELD_OF_VIEW / labels.shape[-1]


def _distance(region):
    """Signed distance in pixels to the boundary of a region (H, W), positive outside; infinite where there is none."""
    from scipy.ndimage import distance_transform_edt

    if region.any() == region.all():  # nothing or everything: no boundary
        return np.full(region.shape, -np.inf if region.all() else np.inf)
    return distance_transform_edt(~region) - distance_transform_edt(region)


def ventricles(labels):
    """Where maps (B, H, W) have ventricles: CSF at least 22 mm below the outline of the brain and within 36 mm of its
    midline. bool (B, H, W). A rule of thumb, the same for every map that it is asked about. Raises ValueError unless
    the maps hold whole numbers."""
    labels, found = torch.as_tensor(labels), []
    shaped("B, H, W", labels=labels)
    if labels.shape[1] != labels.shape[2]:
        raise ValueError(f"labels must be square maps, {FIELD_OF_VIEW:g} mm a side, got shape {tuple(labels.shape)}")
    if labels.is_floating_point():
        raise ValueError(f"labels must be maps of whole numbers, got {labels.dtype}: of an image make one first")
    for one in labels.cpu().numpy():
        depth = -_distance(one > 0) * pixel(one)
        middle = np.nonzero(one)[1].mean() if one.any() else 0
        near = np.abs(np.arange(one.shape[1]) - middle) * pixel(one) < WIDE
        found.append((one == CSF) & (depth > DEEP) & near)
    return torch.as_tensor(np.stack(found)).to(labels.device)


def area(labels):
    """Area of the ventricles of maps (B, H, W) in mm^2, (B,)."""
    return ventricles(labels).flatten(1).sum(1) * pixel(labels) ** 2


def _each_map(labels, asked):
    """The areas asked for, a float tensor (B,). Raises ValueError unless there is one for each map, none below 0."""
    asked = torch.as_tensor(asked)
    if asked.shape != (len(labels),) or not ((asked >= 0) & asked.isfinite()).all():
        raise ValueError(f"asked must be an area in mm^2 for each of the {len(labels)} maps, got {asked.tolist()}")
    return asked


def grown(labels, asked):
    """The maps with the pixels nearest to the ventricles turned into CSF, until these have the area ``asked`` (B,) in
    mm^2: the tissue is eaten, not moved. Where no ventricle is found nothing grows. Raises ValueError where an area
    exceeds that of the brain."""
    from scipy.ndimage import gaussian_filter

    labels, asked = torch.as_tensor(labels), _each_map(labels, asked)
    out = labels.cpu().clone(memory_format=torch.contiguous_format)
    for k, region in enumerate(ventricles(out).numpy()):
        more = round(float(asked[k]) / pixel(labels) ** 2) - int(region.sum())
        if more <= 0 or not region.any():
            continue
        order = _distance(region) - 0.1 * gaussian_filter(region.astype(float), 1.5)  # ties: bays are filled first
        order[region | (out[k].numpy() == 0)] = np.inf
        if more > np.isfinite(order).sum():
            largest = (out[k] > 0).sum() * pixel(labels) ** 2
            raise ValueError(f"asked must be at most the brain's {largest:g} mm^2 in map {k}, got {float(asked[k]):g}")
        nearest = np.argsort(order, axis=None, kind="stable")[:more]
        out[k].view(-1)[torch.as_tensor(nearest)] = CSF
    return out.to(labels.device)


def push(labels, by, reach):
    """Displacement in pixels (B, H, W, 2), rows and columns: away from the ventricles, ``by`` (a number or (B,)) mm at
    their walls and inside, exp(-d / reach) of it at d mm from them. Where no ventricle is found nothing moves."""
    directions = _directions(labels, reach)
    by = torch.as_tensor(by).to(directions)
    if by.shape not in ((), (1,), (len(directions),)) or not by.isfinite().all():
        raise ValueError(f"by must be a number of mm, or one for each of the {len(directions)} maps, got {by.tolist()}")
    return directions * by.reshape(-1, 1, 1, 1) / pixel(labels)


def _directions(labels, reach):
    from scipy.ndimage import gaussian_filter

    positive(reach=reach)
    where, fields = ventricles(labels), []
    for region in where.cpu().numpy():
        if not region.any():
            fields.append(np.zeros((*region.shape, 2)))
            continue
        distance = _distance(region)
        normal = np.stack(np.gradient(gaussian_filter(distance, 1.0)), -1)
        fields.append(np.exp(-np.maximum(distance, 0) * pixel(region) / reach)[..., None] * normal)
    return torch.as_tensor(np.stack(fields)).float().to(where.device)


def amount(labels, asked, reach, most=8.0):
    """The push in mm (B,), from 0 to ``most``, after which the ventricles of maps have the area ``asked`` (B,) in mm^2,
    by bisection on a map four times as fine. Where no ventricle is found: as good as any, nothing moves."""
    positive(most=most)
    region, directions = ventricles(labels)[:, None].float(), _directions(labels, reach) / pixel(labels)
    asked = _each_map(labels, asked).to(region)
    low = torch.zeros(len(region), device=region.device)
    high = torch.full_like(low, most)
    for _ in range(8):
        by = (low + high) / 2
        soft = moved(region, directions * by.reshape(-1, 1, 1, 1))
        found = F.interpolate(soft, scale_factor=4, mode="bilinear").gt(0.5).flatten(1).sum(1) / 16
        small = found * pixel(labels) ** 2 < asked
        low, high = torch.where(small, by, low), torch.where(small, high, by)
    return (low + high) / 2


def moved(x, field, mode="bilinear"):
    """x(p - u(p)): images (B, C, H, W) pulled back along a displacement u (B, H, W, 2) in pixels. float32."""
    one_of(("bilinear", "nearest", "bicubic"), mode=mode)
    shaped("B, C, H, W", x=x)
    height, width = x.shape[-2:]
    if field.shape != (len(x), height, width, 2):
        raise ValueError(f"field must be {(len(x), height, width, 2)} for these images, got {tuple(field.shape)}")
    grid = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    rows, columns = (positions.to(x.device) for positions in grid)
    at = torch.stack([columns - field[..., 1], rows - field[..., 0]], -1)
    unit = 2 * at / torch.tensor([width - 1, height - 1]).to(x.device) - 1
    return F.grid_sample(x.float(), unit, mode=mode, padding_mode="border", align_corners=True)


def painted(x, factual, edited):
    """Images x (B, 1, H, W) with the median brightness of their ventricles where the map has new CSF."""
    factual, edited = torch.as_tensor(factual), torch.as_tensor(edited)
    shaped("B, 1, H, W", x=x)
    images(x=x)
    alike(x=x[:, 0], factual=factual, edited=edited)
    new, ventricle = (edited == CSF) & (factual != CSF), ventricles(factual)
    out = x.clone()
    for k in range(len(x)):
        known = x[k, 0][ventricle[k]]
        out[k, 0][new[k]] = known.median() if known.numel() else -0.7
    return out


def fresh(denoiser, edited, n, generator):
    """A sample given the edited map from noise of nobody in particular, (B, 1, H, W), by DDIM in n steps."""
    shaped("B, H, W", edited=edited)
    noise = torch.randn(len(edited), 1, *edited.shape[1:], generator=generator).to(edited.device)
    return sample(denoiser.given(edited), noise, uniform_times(n), ddim_step)


def inverted(denoiser, x, factual, edited, t_0, n):
    """Abduction by DDIM under the factual map up to t_0, prediction under the edited one; n steps each way.

    denoiser : D(x_t, t, y), which must not clip its answer: clipping cannot be inverted.
    """
    return heal(denoiser.given(factual), denoiser.given(edited), x, t_0, n)


def sdedit(denoiser, x, t_0, n, generator, edited=None):
    """Images x noised to t_0 and sampled back in n steps, under the edited map where one is given."""
    bound = denoiser if edited is None else denoiser.given(edited)
    return noise_and_denoise(bound, x, t_0, n, generator)
