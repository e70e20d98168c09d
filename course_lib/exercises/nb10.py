"""Exercises of notebook 10: Dice and IoU, the energy distance by hand, one threshold for all pixels, areas, samples."""

import torch

from course_lib.exercises.engine import Exercises, case, choices, function, mistake, number, prop

# ---- q1: Dice and IoU ------------------------------------------------------------------------------------------------


def dice_from_iou(iou):
    return 2 * iou / (1 + iou)


q1 = function(
    "Papers report Dice or IoU, and they can be converted. With $i = |A \\cap B|$ and $s = |A| + |B|$, Dice is "
    "$2i/s$ and IoU is $i/(s - i)$. Write `dice_from_iou(iou)`.",
    solution=dice_from_iou,
    tests=[
        case("no overlap", (0.0,), "Without overlap both are 0."),
        case("equal", (1.0,), "Equal masks have Dice 1 and IoU 1."),
        case("half", (0.5,), "Take |A| = |B| = 3 and an intersection of 2: the IoU is 2/4. What is Dice?"),
    ],
    mistakes=[
        mistake(lambda iou: iou / (2 - iou), "half", "the inverse"),
        mistake(lambda iou: 2 * iou, "equal", "without the denominator"),
        mistake(lambda iou: iou / (1 + iou), "equal", "forgets the 2"),
        mistake(lambda iou: (1 + iou) / 2, "no overlap", "a mean with 1"),
        mistake(lambda iou: iou**0.5, "half", "a root"),
    ],
    hints=["Divide numerator and denominator of 2i/s by s - i.", "s/(s - i) = 1 + i/(s - i)."],
    explanation="Dice = 2 IoU / (1 + IoU). It grows with IoU, so both rank two masks alike on one case. Their means "
    "over cases or raters need not agree.",
)


# ---- q2: the energy distance by hand ---------------------------------------------------------------------------------

q2 = number(
    "A lesion that 30 % of raters do not see (they draw nothing); the others all draw the same mask A. A model draws A "
    "every time. What is its squared generalised energy distance $2\\,\\mathbb E\\,d(s, r) - \\mathbb E\\,d(s, s') - "
    "\\mathbb E\\,d(r, r')$ with $d = 1 - \\mathrm{IoU}$?",
    solution="2 * 0.3 - 0 - 2 * 0.3 * 0.7",
    mistakes=[
        (0.3, "That is E d(s, r) alone."),
        (0.6, "Now take off what two raters differ by among themselves."),
        (
            0.39,
            "Two raters differ if the first says nothing and the second A, or the other way round: twice 0.3 x 0.7.",
        ),
        (0.42, "That is E d(r, r'), which is subtracted."),
        (-0.12, "d of an empty mask and A is 1, since they share nothing; and E d(s, r) counts twice."),
    ],
    hints=[
        "d is 0 between equal masks (two empty ones too) and 1 between nothing and A.",
        "E d(s, r) = 0.3. Two raters differ with probability 2 x 0.3 x 0.7.",
    ],
    explanation="0.6 - 0 - 0.42 = 0.18 = 2 x 0.3^2. The distance is 0 only if the model, too, draws nothing in 30 % of "
    "its draws.",
)


# ---- q3: one threshold for all pixels --------------------------------------------------------------------------------


def random_threshold(p, u):
    return u[:, None, None] < p


LAYERS = torch.tensor([[0.0, 0.25, 0.25, 0.0], [0.25, 0.6, 0.8, 0.25], [0.0, 0.6, 0.25, 0.0]])
LEVELS = torch.tensor([0.1, 0.3, 0.7, 0.9])

q3 = function(
    "Write `random_threshold(p, u)`: masks drawn from a map of probabilities `p` (H, W). Draw k takes one threshold "
    "`u[k]` for **all** pixels: it contains those whose probability exceeds it. `u` has shape (K,); return a bool "
    "tensor (K, H, W).",
    solution=random_threshold,
    tests=[
        case("side", (LAYERS, torch.tensor([0.5])), "A pixel is drawn where p exceeds u, not where it falls below."),
        prop(
            "nested",
            lambda f: bool((f(LAYERS, LEVELS)[1:] <= f(LAYERS, LEVELS)[:-1]).all()),
            "A higher threshold must give a smaller mask inside the other: use u as it is given, draw nothing anew.",
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
    ],
    hints=["Comparing (K, 1, 1) with (H, W) gives (K, H, W).", "`u[:, None, None] < p`"],
    explanation="With u uniform in [0, 1] each pixel is in the mask with probability p: calibrated, and all masks are "
    "level sets of p, nested in each other. If the raters' masks are nested too, this is their exact distribution.",
)


# ---- q4: areas -------------------------------------------------------------------------------------------------------

q4 = number(
    "A map of exact probabilities: 60 pixels at 0.8, 40 at 0.6, 100 at 0.25, all others at 0. How many pixels do the "
    "raters draw **on average**?",
    solution="60 * 0.8 + 40 * 0.6 + 100 * 0.25",
    mistakes=[
        (100, "That is the area above 0.5. A threshold does not keep the mean area."),
        (200, "That is every pixel that anybody draws."),
        (60, "That is the area that is likeliest to be drawn alone."),
        (72, "The 100 pixels at 0.25 count too: one rater in four draws them."),
        (110, "That is the mean of the probabilities' three values times all 200 pixels; weight each by its pixels."),
    ],
    hints=["The mean of a sum is the sum of the means.", "A pixel at 0.8 counts 0.8 on average."],
    explanation="48 + 24 + 25 = 97: the sum of the probabilities is the mean area, exactly. Thresholding at 0.5 gives "
    "100 here by luck; with 0.45 in place of 0.6 it would give 60.",
)


# ---- q5: how many samples --------------------------------------------------------------------------------------------

q5 = number(
    "One rater in four draws the generous mask. A perfect model is asked for K samples of a case. What is the smallest "
    "K for which the generous mask is missing among them in less than 5 % of cases?",
    solution="next(K for K in range(1, 100) if 0.75**K < 0.05)",
    mistakes=[
        (10, "0.75^10 is 0.056: just not enough."),
        (4, "With 4 samples it is there once on average, and missing in 0.75^4 = 32 % of cases."),
        (3, "Each sample misses it with probability 0.75, not 0.25: 0.75^K must fall below 0.05."),
        (20, "1/0.05 is no count of samples: solve 0.75^K < 0.05."),
    ],
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
        "b": "The mean of many samples, thresholded, is a mask that some rater might have drawn.",
        "c": "Where raters' masks are not nested, no threshold of the exact probabilities need be any rater's mask.",
        "d": "Where five networks agree, the raters agree.",
        "e": "A loss near zero at low noise says little of a mask diffusion: the noisy mask gives itself away.",
    },
    answers="ce",
    feedback={
        "a": "Calibration is a matter of single pixels. Which pixels go together, it does not say.",
        "b": "It may be: but with raters of two different places it is both places, or neither.",
        "c": "Two raters with a mask each, on either side: the level sets are nothing or both sides.",
        "d": "Five networks trained on the same raters can agree on 0.6: they are sure that the raters differ.",
        "e": "Look at the curve of the denoiser that never sees the image.",
    },
    hints=["Three are false.", "For b, think of two raters who see the lesion in two places."],
    explanation="True: c and e. Probabilities of pixels, the spread among networks, and the distribution of whole "
    "masks are three different things.",
)

summary = Exercises(vars()).summary
