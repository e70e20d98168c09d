"""Exercises of notebook 07: compression, scale factor, clamp, memory in 3-D, affine of a box, volume in mm^3."""

import numpy as np
import torch

from course_lib.exercises.engine import Exercises, case, function, mistake, number

WAVE = 3 * torch.sin(7 * torch.linspace(-1, 1, 256)).reshape(2, 8, 4, 4)
GROWING = WAVE * torch.tensor([0.5, 1.5]).reshape(2, 1, 1, 1)
RAMP = torch.linspace(-2, 2, 32).reshape(2, 1, 4, 4)
ZEROS = torch.zeros(2, 1, 4, 4)


# ---- q1: compression -------------------------------------------------------------------------------------------------

q1 = number(
    """A 3-D autoencoder makes a CT volume of 512 x 512 x 256 voxels (one channel) smaller by $f = 8$ along each side
    and keeps 4 latent channels. By what factor does the number of numbers fall?""",
    solution="512 * 512 * 256 / (64 * 64 * 32 * 4)",
    mistakes=[
        (512, "That is 8^3, the fall in the number of places. Each place holds 4 numbers now."),
        (8, "That is one side. Three sides shrink."),
        (16, "That is the fall of a slice, 8^2 / 4. This is a volume."),
        (2048, "The latent channels make the latents larger, not smaller."),
        (1 / 128, "Upside down: the question is how many times fewer."),
    ],
    also_right=[8**3 / 4, "128"],
    hints=[
        "Count the numbers before: 512 x 512 x 256. And after?",
        "After: (512 / 8) x (512 / 8) x (256 / 8) places with 4 numbers each.",
    ],
    explanation="""f^3 / channels = 512 / 4 = 128. In a slice it is f^2 / channels: 8 for the autoencoder of this
    notebook, 64 / 8.""",
)


# ---- q2: the scale factor --------------------------------------------------------------------------------------------


def scale_factor(z):
    return 1 / z.std()


q2 = function(
    """Write `scale_factor(z)`: the one number that latents z (N, C, H, W) must be multiplied by so that their standard
    deviation over everything is 1.""",
    solution=scale_factor,
    tests=[
        case(
            "standard deviation 3",
            (3 * GROWING / GROWING.std(),),
            "Latents of standard deviation 3 need the factor 1/3.",
        ),
        case(
            "a mean",
            (WAVE + 10,),
            """A constant added to all latents does not change their spread: no root of the mean square, no largest
            value.""",
        ),
        case(
            "two means",
            (WAVE + torch.tensor([-4.0, 4.0]).reshape(2, 1, 1, 1),),
            """The two images have different means, and that is spread, too: one standard deviation over everything, not
            one for each image.""",
        ),
    ],
    mistakes=[
        mistake(lambda z: torch.rsqrt(z.var((1, 2, 3)).mean()), "two means", "the mean of the images' variances"),
        mistake(lambda z: z.std(), "standard deviation 3", "upside down"),
        mistake(lambda z: 1 / z.var(), "standard deviation 3", "variance"),
        mistake(lambda z: 1 / z.abs().max(), "standard deviation 3", "range"),
        mistake(lambda z: 1 / z.square().mean().sqrt(), "a mean", "root mean square"),
        mistake(lambda z: 1 / z.std((0, 2, 3)), "shape", "one for each channel"),
        mistake(lambda z: 1 / (z - z.mean()).abs().mean(), "standard deviation 3", "mean absolute deviation"),
        mistake(lambda z: 1 / z[0].std(), "standard deviation 3", "the first image alone"),
        mistake(lambda z: 1 / z.std((0, 2, 3)).mean(), "standard deviation 3", "the channels' mean"),
        mistake(lambda z: 1 / (z.max() - z.min()), "standard deviation 3", "the range"),
        mistake(lambda z: (1 / z.std()) ** 2, "standard deviation 3", "squared"),
        mistake(lambda z: z / z.std(), "shape", "the scaled latents"),
    ],
    also_right=[
        lambda z: 1 / z.std(unbiased=False),
        lambda z: 1 / z.std((0, 1, 2, 3), keepdim=True),
        lambda z: z.flatten().std().reciprocal().reshape(1),
        lambda z: 1 / np.std(z.numpy()),
        lambda z: torch.rsqrt((z - z.mean()).square().mean()),
        lambda z: [float(z.var()) ** -0.5],
    ],
    hints=["What is the standard deviation of c z, if that of z is s?", "c s must be 1."],
    explanation="""Rombach et al. (CVPR 2022), app. G, take it from the first batch of training.
    It belongs to the weights: a latent diffusion network is wrong without it.""",
    rtol=0.03,  # either definition of the standard deviation
)


# ---- q3: the clamp ---------------------------------------------------------------------------------------------------


def denoised(x_t, eps, alpha, sigma, limits):
    x_0 = (x_t - sigma * eps) / alpha
    return x_0 if limits is None else x_0.clamp(*limits)


def _clamped(clamp):
    """`denoised` that does something else where there are limits: clamp(x_0, low, high)."""

    def wrong(x_t, eps, alpha, sigma, limits):
        x_0 = (x_t - sigma * eps) / alpha
        return x_0 if limits is None else clamp(x_0, *limits)

    return wrong


q3 = function(
    """This function clamps whatever it denoises. Mend it, as `denoised(x_t, eps, alpha, sigma, limits)`:
    `limits` is a pair (lowest, highest) of what the data can be, or None for data without limits, such as latents.

    ```python
    def denoised(x_t, eps, alpha, sigma, limits):
        x_0 = (x_t - sigma * eps) / alpha
        return x_0.clamp(-1, 1)
    ```""",
    solution=denoised,
    tests=[
        case(
            "latents",
            (4 * RAMP, ZEROS, 0.8, 0.6, None),
            """Latents have no limits, a few lie beyond 3 and -3: None means no clamp at all, only (x_t - sigma eps) /
            alpha.""",
        ),
        case(
            "images",
            (RAMP, ZEROS, 0.8, 0.6, (-1, 1)),
            "With limits the result must lie within them: clamp x_0, after the division.",
        ),
        case(
            "other limits", (RAMP, ZEROS, 0.8, 0.6, (0, 1)), "Images in [0, 1] have other limits: use the pair given."
        ),
        case(
            "the denoised image",
            (RAMP, RAMP / 4, 0.8, 0.6, None),
            "The denoised image is (x_t - sigma eps) / alpha: is the noise subtracted?",
        ),
        case(
            "all at once",
            (RAMP, RAMP / 4, 0.4, 2.0, (-0.5, 2.0)),
            """With limits, too, the noise is subtracted first, and both ends are those given. So are alpha and sigma:
            sigma^2 need not be 1 - alpha^2.""",
        ),
    ],
    mistakes=[
        mistake(lambda x_t, eps, alpha, sigma, limits: denoised(x_t, eps, alpha, sigma, (-1, 1)), "latents"),
        mistake(
            lambda x_t, eps, alpha, sigma, limits: denoised(x_t, eps, alpha, sigma, limits or (-1, 1)),
            "latents",
            "the old default",
        ),
        mistake(
            lambda x_t, eps, alpha, sigma, limits: denoised(x_t, eps, alpha, sigma, limits or (-3, 3)),
            "latents",
            "a wider clamp",
        ),
        mistake(_clamped(lambda x_0, low, high: x_0), "images", "never clamps"),
        mistake(
            lambda x_t, eps, alpha, sigma, limits: denoised(x_t, eps, alpha, (1 - alpha**2).sqrt(), limits),
            "all at once",
            "sigma from alpha",
        ),
        mistake(
            lambda x_t, eps, alpha, sigma, limits: (
                ((x_t if limits is None else x_t.clamp(*limits)) - sigma * eps) / alpha
            ),
            "images",
            "clamps the noisy image",
        ),
        mistake(_clamped(lambda x_0, low, high: x_0.clamp(-1, 1)), "other limits"),
        mistake(
            lambda x_t, eps, alpha, sigma, limits: denoised(x_t, 0 * eps, alpha, sigma, limits),
            "the denoised image",
            "forgets the noise",
        ),
        mistake(
            lambda x_t, eps, alpha, sigma, limits: denoised(
                x_t, eps if limits is None else 0 * eps, alpha, sigma, limits
            ),
            "all at once",
            "forgets the noise where there are limits",
        ),
        mistake(_clamped(lambda x_0, low, high: x_0.clamp(low, 1)), "all at once", "the upper limit is always 1"),
        mistake(_clamped(lambda x_0, low, high: x_0.clamp(-1, high)), "other limits", "the lower limit is always -1"),
        mistake(_clamped(lambda x_0, low, high: x_0.clamp(-high, high)), "other limits", "as much below as above"),
        mistake(
            lambda x_t, eps, alpha, sigma, limits: denoised(x_t, eps, 1.0, sigma, limits) / alpha,
            "images",
            "clamps before the division",
        ),
    ],
    also_right=[
        lambda x_t, eps, alpha, sigma, limits: (
            (x_t - sigma * eps) / alpha
            if limits is None
            else torch.clip((x_t - sigma * eps) / alpha, min=limits[0], max=limits[1])
        ),
        lambda x_t, eps, alpha, sigma, limits: np.clip(
            (x_t.numpy() - float(sigma) * eps.numpy()) / float(alpha), *(limits or (-np.inf, np.inf))
        ),
        lambda x_t, eps, alpha, sigma, limits: (
            ((x_t - sigma * eps) / alpha).minimum(torch.tensor(limits[1])).maximum(torch.tensor(limits[0]))
            if limits
            else (x_t - sigma * eps) / alpha
        ),
    ],
    hints=[
        "Two cases: limits is None, or a pair.",
        "x_0.clamp(low, high) takes the two ends; clamp(*limits) passes both.",
    ],
    explanation="""MONAI's DDPMScheduler and DDIMScheduler do it with clip_sample=False for latents and clip_sample_min,
    clip_sample_max for images in another range.""",
)


# ---- q4: memory in 3-D -----------------------------------------------------------------------------------------------

q4 = number(
    """A 3-D network keeps 33 MB of activations to train on one box of 32 x 48 x 32 voxels. How many GB does it keep for
    a batch of 2 whole heads of 192 x 240 x 192 voxels? (All layers are convolutions, and 1 GB is 1000 MB.)""",
    solution="33 * (192 * 240 * 192) / (32 * 48 * 32) * 2 / 1000",
    mistakes=[
        (33 * 180 / 1000, "That is one head. The batch holds two."),
        (33 * 180 * 2, "That is in MB."),
        (33 * 6 * 2 / 1000, "Three sides grow, six-, five- and sixfold; multiply them."),
        (33 * 6**3 * 2 / 1000, "The sides do not all grow sixfold: 240 / 48 is 5."),
        (33 * 30 * 2 / 1000, "That is a slice: the third side grows too."),
        (33 / 1000 * 2, "That is for the small box: the head has many times its voxels."),
        (33 * 360 / 1024, "Here 1 GB is 1000 MB."),
    ],
    also_right=["11,88", 33 * 6 * 5 * 6 * 2 / 1000, 11.9, 12],
    rtol=0.0125,  # 12 is right, since 33 MB has two digits
    hints=[
        "Activations of convolutions are in proportion to the number of voxels.",
        "How many times does the box fit into the head? 6 x 5 x 6.",
        "33 MB x 180 x 2.",
    ],
    explanation="""33 MB x 180 x 2 = 11.9 GB, for a network that is small. Hence patches, latents, or both;
    and attention, whose cost grows with the square of the number of voxels, only where the grid is coarse.""",
)


# ---- q5: the affine of a box -----------------------------------------------------------------------------------------


def box_affine(affine, corner):
    moved = affine.copy()
    moved[:3, 3] = affine[:3, :3] @ corner + affine[:3, 3]
    return moved


def _shifted(shift):
    """The affine with shift(R, t, corner) added to its last column t."""

    def answer(affine, corner):
        moved = affine.copy()
        moved[:3, 3] += shift(affine[:3, :3], affine[:3, 3], corner)
        return moved

    return answer


PLAIN = np.eye(4)
LONG = np.diag([0.5, 1.0, 3.0, 1.0])  # voxels of 0.5 x 1 x 3 mm
MOVED = np.array([[2.0, 0, 0, -90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])
TURNED = np.array([[0.0, -2.0, 0.0, 5.0], [1.0, 0.0, 0.0, -7.0], [0.0, 0.0, 3.0, 11.0], [0.0, 0.0, 0.0, 1.0]])
CORNER = np.array([10.0, 4.0, 2.0])

q5 = function(
    """You cut a box out of a volume; its first voxel is voxel `corner` (3,) of the volume, counted from 0. Write
    `box_affine(affine, corner)`: the affine (4, 4) of the box, so that every voxel stays at its millimetres. Both are
    numpy arrays.""",
    solution=box_affine,
    tests=[
        case(
            "the same axes",
            (LONG, np.zeros(3)),
            "A box that starts at voxel 0 keeps the whole affine: size and direction of the voxels do not change.",
        ),
        case(
            "1 mm",
            (PLAIN, CORNER),
            """With voxels of 1 mm the box starts at corner itself: three numbers, in the last column. Check the place
            and the sign.""",
        ),
        case(
            "long voxels",
            (LONG, CORNER),
            "The corner counts voxels, the affine's last column millimetres: 2 voxels of 3 mm are 6 mm.",
        ),
        case(
            "an origin",
            (MOVED, CORNER),
            "Here the volume itself does not begin at 0 mm: add to the affine's last column, do not replace it.",
        ),
        case(
            "turned axes",
            (TURNED, CORNER),
            """The axes are turned: voxel axis 0 runs along y here. Multiply by the whole 3 x 3 part R, not by sizes, as
            R @ corner: its columns are the axes.""",
        ),
    ],
    mistakes=[
        mistake(lambda affine, corner: affine.copy() * 1.0 if corner.any() else PLAIN, "the same axes", "identity"),
        mistake(_shifted(lambda R, t, corner: -R @ corner), "1 mm", "wrong sign"),
        mistake(lambda affine, corner: affine.copy(), "1 mm", "not moved"),
        mistake(_shifted(lambda R, t, corner: corner), "long voxels", "voxels as mm"),
        mistake(_shifted(lambda R, t, corner: np.linalg.norm(R, axis=0) * corner), "turned axes", "no rotation"),
        mistake(_shifted(lambda R, t, corner: np.diag(R) * corner), "turned axes", "diagonal only"),
        mistake(_shifted(lambda R, t, corner: R.T @ corner), "turned axes", "transposed"),
        mistake(_shifted(lambda R, t, corner: R @ corner - t), "an origin", "the origin is lost"),
        mistake(_shifted(lambda R, t, corner: R @ corner + t), "an origin", "origin twice"),
        mistake(
            _shifted(lambda R, t, corner: np.column_stack([R, t]) @ np.append(corner, 1)), "an origin", "origin twice"
        ),
        mistake(lambda affine, corner: affine @ np.append(corner, 1), "shape", "the corner's place alone"),
        mistake(_shifted(lambda R, t, corner: np.linalg.inv(R) @ corner), "long voxels", "inverse"),
    ],
    also_right=[
        lambda affine, corner: affine @ np.block([[np.eye(3), corner[:, None]], [np.zeros(3), 1]]),
        lambda affine, corner: np.column_stack([affine[:, :3], affine @ np.append(corner, 1)]),
        lambda affine, corner: torch.tensor(_shifted(lambda R, t, corner: R.dot(corner))(affine, corner)),
    ],
    hints=[
        "Voxel (0, 0, 0) of the box is voxel `corner` of the volume. Where does that lie?",
        "Its millimetres are affine[:3, :3] @ corner + affine[:3, 3].",
        "Only the last column changes. Copy the affine first.",
    ],
    explanation="""mm = R v + t for a voxel v of the volume. In the box v = corner + u, so mm = R u + (R corner + t):
    the same R, a new origin. nibabel's `image.slicer` does the same. Without `.copy()` the volume's own affine
    would move as well; the check cannot see that, for it hands over a copy.""",
    rtol=1e-9,
    atol=1e-9,
)


# ---- q6: a volume in mm^3 --------------------------------------------------------------------------------------------


def volume_mm3(n, affine):
    return n * abs(np.linalg.det(affine[:3, :3]))


def _oblique():
    """Voxels of 0.5 x 1 x 4 mm, turned by 30 degrees about x."""
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.diag([0.5, 1.0, 4.0])
    return affine


def _tilted():
    """Slices of 0.5 x 0.5 mm, 2 mm apart, each shifted by a tilt of 20 degrees against the one below."""
    affine = np.diag([0.5, 0.5, 2.0, 1.0])
    affine[1, 2] = 2 * np.tan(np.pi / 9)
    return affine


FLIPPED = np.diag([-1.0, 1.0, 2.0, 1.0])  # the first axis runs from right to left
q6 = function(
    """A label has `n` voxels in a volume with the affine `affine` (4, 4), a numpy array.
    Write `volume_mm3(n, affine)`: its volume in mm^3.""",
    solution=volume_mm3,
    tests=[
        case("long voxels", (100, LONG), "A voxel of 0.5 x 1 x 3 mm has 1.5 mm^3; 100 of them have 150."),
        case(
            "flipped axis",
            (40, FLIPPED),
            "An axis that runs backwards has a negative size (and makes a determinant negative); no volume is.",
        ),
        case(
            "turned axes",
            (100, _oblique()),
            "The axes are turned: the sizes of the voxel are no longer on the diagonal. What does a determinant say?",
        ),
        case(
            "a tilted gantry",
            (100, _tilted()),
            """In a CT with a tilted gantry the voxel's edges are not at right angles, so lengths alone do not tell its
            volume.""",
        ),
    ],
    mistakes=[
        mistake(lambda n, affine: n, "long voxels", "counts voxels"),
        mistake(lambda n, affine: n * affine[0, 0] ** 3, "long voxels", "cubes of the first side"),
        mistake(lambda n, affine: n * np.trace(affine[:3, :3]), "long voxels", "sum"),
        mistake(lambda n, affine: n * np.linalg.det(affine), "flipped axis", "no absolute value"),
        mistake(lambda n, affine: n * abs(np.prod(np.diag(affine))), "turned axes", "diagonal"),
        mistake(
            lambda n, affine: n * np.prod(np.linalg.norm(affine[:3, :3], axis=1)), "turned axes", "rows for columns"
        ),
        mistake(
            lambda n, affine: n * np.prod(np.linalg.norm(affine[:3, :3], axis=0)), "a tilted gantry", "lengths of edges"
        ),
        mistake(lambda n, affine: n / abs(np.linalg.det(affine[:3, :3])), "long voxels", "upside down"),
        mistake(lambda n, affine: abs(np.linalg.det(n * affine[:3, :3])), "long voxels", "n cubed"),
        mistake(lambda n, affine: n * np.prod(np.abs(affine[:3, :3]).sum(0)), "turned axes", "sums of columns"),
        mistake(lambda n, affine: n * np.linalg.norm(affine[:3, :3]) ** 3, "long voxels", "a norm cubed"),
    ],
    also_right=[
        lambda n, affine: n * abs(np.linalg.det(affine)),
        lambda n, affine: n * np.sqrt(np.linalg.det(affine[:3, :3].T @ affine[:3, :3])),
        lambda n, affine: n * abs(np.dot(affine[:3, 0], np.cross(affine[:3, 1], affine[:3, 2]))),
        lambda n, affine: n * torch.det(torch.tensor(affine)).abs(),
        lambda n, affine: n * np.prod(np.linalg.svd(affine[:3, :3], compute_uv=False)),
    ],
    hints=[
        "The columns of the 3 x 3 part are the edges of one voxel in mm.",
        "The volume of the box between three vectors is the absolute value of their determinant.",
    ],
    explanation="|det R| is the volume of one voxel, whichever way its axes run: np.linalg.det(affine[:3, :3]).",
)

summary = Exercises(vars()).summary
