"""Exercises of notebook 10: Dice and IoU, the energy distance by hand, one threshold for all pixels, areas, samples."""

from fractions import Fraction

import numpy as np
import torch

from course_lib.exercises.engine import Exercises, case, choices, function, mistake, number, prop

# ---- q1: Dice and IoU ------------------------------------------------------------------------------------------------


def dice_from_iou(iou):
    return 2 * iou / (1 + iou)


q1 = function(
    r"""Papers report Dice or IoU, and they can be converted.
    With $i = |A \cap B|$ and $s = |A| + |B|$, Dice is $2i/s$ and IoU is $i/(s - i)$. Write `dice_from_iou(iou)`.""",
    solution=dice_from_iou,
    tests=[
        case("equal", (1.0,), "Equal masks have Dice 1 and IoU 1."),
        case(
            "no overlap", (0.0,), "Without overlap both are 0: an IoU of 0 is allowed, so nothing may be divided by it."
        ),
        case("half", (0.5,), "Take |A| = |B| = 3 and an intersection of 2: the IoU is 2/4. What is Dice?"),
        case("a quarter", (0.25,), "Dice is 0.4 at an IoU of 0.25. Right at three values is not right at all."),
        case("four fifths", (0.8,), "Dice is 8/9 at an IoU of 0.8. Right at some values is not right at all."),
    ],
    mistakes=[
        mistake(lambda iou: iou / (2 - iou), "half", "the inverse"),
        mistake(lambda iou: 2 * iou, "equal", "without the denominator"),
        mistake(lambda iou: iou / (1 + iou), "equal", "forgets the 2"),
        mistake(lambda iou: (1 + iou) / 2, "no overlap", "a mean with 1"),
        mistake(lambda iou: iou**0.5, "half", "a root"),
        mistake(lambda iou: iou * (5 - 2 * iou) / 3, "a quarter", "a parabola through three points"),
        mistake(lambda iou: iou**0.58496, "a quarter", "a power through three points"),
        mistake(lambda iou: 2 * iou / (1 + iou) if iou <= 0.5 else (1 + iou) / 2, "four fifths", "a line above 1/2"),
        mistake(lambda iou: 2 * iou / (1 + iou**2), "half", "the square in the denominator"),
        mistake(lambda iou: iou, "half", "the same"),
        mistake(lambda iou: 2 * iou / (2 - iou), "equal", "2 - iou"),
        mistake(lambda iou: 2 / (1 + 1 / float(iou)), "no overlap", "divided by an IoU of 0"),
    ],
    also_right=[
        lambda iou: 1 / (0.5 + 0.5 / iou) if iou > 0 else 0,
        lambda iou: 2 - 2 / (1 + iou),
        lambda iou: 2 * torch.as_tensor(iou) / torch.add(1, torch.as_tensor(iou)),
        lambda iou: float(2 * Fraction(float(iou)) / (1 + Fraction(float(iou)))),
        lambda iou: Fraction(2 * float(iou)) / Fraction(1 + float(iou)),
    ],
    hints=["Divide numerator and denominator of 2i/s by s - i.", "s/(s - i) = 1 + i/(s - i)."],
    explanation="""Dice = 2 IoU / (1 + IoU). It grows with IoU, so both rank two masks alike on one case.
    Their means over cases or raters need not agree.""",
)


# ---- q2: the energy distance by hand ---------------------------------------------------------------------------------

q2 = number(
    r"""A lesion that 30 % of raters do not see (they draw nothing); the others all draw the same mask A.
    A model draws A every time. What is its squared generalised energy distance
    $2\,\mathbb E\,d(s, r) - \mathbb E\,d(s, s') - \mathbb E\,d(r, r')$ with $d = 1 - \mathrm{IoU}$?
    Two empty masks count as equal.""",
    solution="2 * 0.3 - 0 - 2 * 0.3 * 0.7",
    mistakes=[
        (0.3, "That is E d(s, r) alone."),
        (0.6, "Now take off what two raters differ by among themselves."),
        (
            0.39,
            "Two raters differ if the first says nothing and the second A, or the other way round: twice 0.3 x 0.7.",
        ),
        (0.18**0.5, "That is the root. The squared distance is asked for, as GED is written in section 2."),
        (0.42, "That is E d(r, r'), which is subtracted."),
        (0.09, "Two raters who both draw nothing agree: the IoU of two empty masks counts as 1, their d is 0."),
        (0.6 - 0.58, "0.58 is how often two raters agree. d counts how often they differ."),
        (-0.12, "d of an empty mask and A is 1, since they share nothing; and E d(s, r) counts twice."),
    ],
    also_right=[Fraction(18, 100), "0,18", 2 * 0.3**2],
    hints=[
        "d is 0 between equal masks (two empty ones too) and 1 between nothing and A.",
        "E d(s, r) = 0.3. Two raters differ with probability 2 x 0.3 x 0.7.",
    ],
    explanation="""0.6 - 0 - 0.42 = 0.18 = 2 x 0.3^2. The distance is 0 only if the model, too, draws nothing in 30 % of
    its draws.""",
)


# ---- q3: one threshold for all pixels --------------------------------------------------------------------------------


def threshold_masks(p, u):
    return u[:, None, None] < p


LAYERS = torch.tensor([[0.0, 0.25, 0.25, 0.0], [0.25, 0.6, 0.8, 0.25], [0.0, 0.6, 0.25, 0.0]])
LEVELS = torch.tensor([0.3, 0.9, 0.1, 0.7])

q3 = function(
    """Write `threshold_masks(p, u)`: masks drawn from a map of probabilities `p` (H, W).
    Draw k takes one threshold `u[k]` for **all** pixels: it contains those whose probability exceeds it.
    `u` has shape (K,); return a bool tensor (K, H, W).""",
    solution=threshold_masks,
    tests=[
        case(
            "side",
            (LAYERS, torch.tensor([0.5])),
            """Draw k is 1 (True) where p exceeds the u[k] given, and else
            0: not where it falls below, with no value of p kept, and with nothing drawn anew.""",
        ),
        prop(
            "nested",
            lambda f: f(LAYERS, LEVELS)[LEVELS.argsort()].diff(dim=0).max() <= 0,
            """A higher threshold must give a smaller mask inside the other: take u[k] as it is for draw k, in the order
            given, and draw nothing anew.""",
        ),
        case("levels", (LAYERS, LEVELS), "Compare p itself with each u."),
        case("certain", (torch.tensor([[0.0, 1.0]]), torch.tensor([0.0])), "p = 0 is never drawn: p > u, not p >= u."),
    ],
    mistakes=[
        mistake(lambda p, u: u[:, None, None] > p, "side", "the wrong way round"),
        mistake(lambda p, u: (p > u.mean())[None].expand(len(u), -1, -1), "levels", "one mask for all"),
        mistake(
            lambda p, u: torch.rand(len(u), *p.shape, generator=torch.Generator().manual_seed(3)) < p,
            "side",
            "a threshold for each pixel",
        ),
        mistake(lambda p, u: p > (1 - u)[:, None, None], "nested", "1 - u, the other end first"),
        mistake(lambda p, u: p >= u[:, None, None], "certain"),
        mistake(lambda p, u: p > u[0], "shape"),
        mistake(lambda p, u: u.sort().values[:, None, None] < p, "nested", "the draws sorted"),
        mistake(lambda p, u: u.flip(0)[:, None, None] < p, "nested", "the draws turned round"),
        mistake(lambda p, u: (u[:, None, None] < p).permute(1, 2, 0), "shape", "the draws last"),
        mistake(lambda p, u: (u[:, None, None] < p) & (p > 0.5), "levels", "thresholded at 1/2 first"),
        mistake(lambda p, u: (u[:, None, None] < p) * p, "side", "probabilities kept"),
        mistake(lambda p, u: u[:, None, None] < p / p.max(), "levels", "p made to reach 1"),
    ],
    also_right=[
        lambda p, u: p > u[:, None, None],
        lambda p, u: torch.stack([p > level for level in u]),
        lambda p, u: (p[None] - u.reshape(-1, 1, 1) > 0).float(),
        lambda p, u: np.stack([p.numpy() > float(level) for level in u]),
        lambda p, u: [(p > level).int() for level in u],
        lambda p, u: torch.gt(p.unsqueeze(0), u.view(-1, 1, 1)),
    ],
    hints=["Comparing (K, 1, 1) with (H, W) gives (K, H, W).", "`u[:, None, None] < p`"],
    explanation="""With u uniform in [0, 1] each pixel is in the mask with probability p: calibrated, and all masks are
    level sets of p, nested in each other. If the raters' masks are nested too, this is their exact distribution.""",
)


# ---- q4: areas -------------------------------------------------------------------------------------------------------

q4 = number(
    """A map of exact probabilities: 60 pixels at 0.8, 40 at 0.6, 100 at 0.25, all others at 0.
    How many pixels do the raters draw **on average**?""",
    solution="60 * 0.8 + 40 * 0.6 + 100 * 0.25",
    mistakes=[
        (100, "That is the area above 0.5. A threshold does not keep the mean area."),
        (200, "That is every pixel that anybody draws."),
        (60, "Those are the pixels at 0.8, each counted as one. Weight every pixel by its probability."),
        (0.485, "That is the mean probability of the 200 pixels. Asked is a number of pixels."),
        (72, "The 100 pixels at 0.25 count too: one rater in four draws them."),
        (110, "That is the mean of the probabilities' three values times all 200 pixels; weight each by its pixels."),
    ],
    also_right=["97", 97],
    hints=["The mean of a sum is the sum of the means.", "A pixel at 0.8 counts 0.8 on average."],
    explanation="""48 + 24 + 25 = 97: the sum of the probabilities is the mean area, exactly.
    Thresholding at 0.5 gives 100 here by luck; with 0.45 in place of 0.6 it would give 60.""",
)


# ---- q5: how many samples --------------------------------------------------------------------------------------------

q5 = number(
    """One rater in four draws the generous mask. A perfect model is asked for K samples of a case.
    What is the smallest K for which the generous mask is missing among them in less than 5 % of cases?""",
    solution="next(K for K in range(1, 100) if 0.75**K < 0.05)",
    mistakes=[
        (10, "0.75^10 is 0.056: just not enough."),
        (10.41, "Round up: samples are whole, and 0.75^10 is still 0.056."),
        (4, "With 4 samples it is there once on average, and missing in 0.75^4 = 32 % of cases."),
        (2.16, "Each sample misses it with probability 0.75, not 0.25."),
        (3, "Each sample misses it with probability 0.75, not 0.25: 0.75^K must fall below 0.05."),
        (20, "1/0.05 is no count of samples: solve 0.75^K < 0.05."),
    ],
    also_right=[11, "11", 11.0],
    hints=[
        "One sample misses it with probability 0.75; K independent ones all miss it with 0.75^K.",
        "log 0.05 / log 0.75",
    ],
    explanation="K = 11. At 25 evaluations a sample that is 275 evaluations of the network, for one case.",
)


# ---- q6: true or not -------------------------------------------------------------------------------------------------

q6 = choices(
    "Which of these statements are true?",
    {
        "a": "If every pixel's probability is exact, drawing each pixel by its own gives the raters' masks.",
        "b": "The mean of many samples, thresholded, is always a mask that some rater might have drawn.",
        "c": "Where raters' masks are not nested, no threshold of the exact probabilities need be any rater's mask.",
        "d": "Where five networks agree, the raters agree.",
        "e": "A loss near zero at low noise says little of a mask diffusion: the noisy mask gives itself away.",
    },
    answers="ce",
    feedback={
        "a": "Calibration is a matter of single pixels. Which pixels go together, it does not say.",
        "b": "Not always: with raters who see two different places it is both places, or neither.",
        "c": "Two raters with a mask each, on either side: the level sets are nothing or both sides.",
        "d": "Five networks trained on the same raters can agree on 0.6: they are sure that the raters differ.",
        "e": "Look at the curve of the denoiser that never sees the image.",
    },
    hints=["Three are false.", "For b, think of two raters who see the lesion in two places."],
    explanation="""True: c and e. Probabilities of pixels, the spread among networks, and the distribution of whole
    masks are three different things.""",
)

summary = Exercises(vars()).summary
