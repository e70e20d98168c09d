"""The course quiz: eighteen questions on the five learning objectives, each in a situation that no notebook has.

The objective of each question and the section that answers it stand in `course_lib.exercises.objectives.QUIZ`.
"""

import math

import torch

from course_lib.denoisers import GaussianDenoiser, MixtureDenoiser
from course_lib.exercises.engine import Exercises, choice, choices, number
from course_lib.exercises.objectives import QUIZ
from course_lib.guidance import Autoguidance
from course_lib.likelihood import gaussian_elbo_gap, standard_normal
from course_lib.metrics.images import psnr
from course_lib.metrics.segmentation import expected_dice
from course_lib.samplers import ddim_step, heun_step, sample
from course_lib.schedules import Cosine, Discrete, Linear, VarianceExploding, uniform_times

DOUBLE = torch.float64


# ---- LO1: implicit and explicit likelihood ---------------------------------------------------------------------------


def grey_over_typical():
    typical = torch.ones(1, 64, 64, dtype=DOUBLE)  # a draw's squares add up to about 4096
    return float(standard_normal(0 * typical) - standard_normal(typical))


q1 = number(
    r"""A model that knows its data exactly is to raise an alarm where $\log p(x)$ is low. The data are pure noise:
    64 x 64 independent pixels from $\mathcal N(0, 1)$. In comes an empty picture, all pixels 0.
    By how many nats does its $\log p$ lie **above** that of a typical draw, whose squares have the mean 1?""",
    solution=grey_over_typical,
    mistakes=[
        (
            0,
            "The normalising constants cancel; the sums of squares do not: 0 for the empty picture, about 4096 a draw.",
        ),
        (-2048, "Check the sign: log p falls with the sum of squares, and the empty picture has none."),
        (0.5, "That is the difference for one pixel. Pixels are independent, so theirs add up."),
        (4096, "The sum of squares enters log p with the factor 1/2."),
        (32 * 64 * math.log(2 * math.pi), "That is the normalising constant, which both have: it cancels."),
        (64, "Distances go like the root of the number of pixels; log p goes with their squares."),
    ],
    also_right=["2048", 64 * 64 / 2],
    hints=["log p(x) = -||x||^2 / 2 + a constant.", "||x||^2 is 0 for one picture and about 64 * 64 for the other."],
    explanation="""4096 / 2 = 2048 nats: the picture that never occurs is more likely, as a density, than every picture
    that does. Typical draws lie in a shell away from the peak.
    A low log p is no definition of strange, and a high one none of normal, even with the exact density.""",
)

q2 = choices(
    """A GAN was trained on the scans of a hospital. You are given 50,000 of its samples and nothing else:
    no generator, no critic. Held-out real scans you have. Which of these can you find out?""",
    {
        "a": "whether calcifications, which 2 % of the patients have, are much rarer among the samples",
        "b": "log p of one new patient's scan under this generator",
        "c": "an energy distance between samples and real scans, beside that of real against real",
        "d": "how many nats the GAN lies above the entropy of the data",
        "e": "that every kind of patient is there, if the distance of (c) is at its floor",
    },
    answers="ac",
    feedback={
        "a": "Somebody, or a classifier, has to look at the samples for it. It needs no density.",
        "b": "A GAN is an implicit model: it draws, and gives no density, not even to those who own it.",
        "c": "A distance between two sets of samples needs samples of both, and its floor.",
        "d": "That is a difference of likelihoods, and this model has none.",
        "e": "In notebook 01 the truth without its rare mode, 2 % of the points, had the distance of real samples.",
    },
    hints=["Ask of each: does it need p(x), or only draws?", "For e: how much does 2 % weigh in a mean over all?"],
    explanation="""Only draws are needed for a and c. An implicit model cannot be marked by likelihood, which is the
    measure that sees forgotten patients best. So what is rare and matters has to be counted.""",
)

_GAP = 96 * 96 * float(gaussian_elbo_gap(Linear(), uniform_times(1000), 0.09).sum())  # nats an image

q3 = choice(
    rf"""Slices of 96 x 96 pixels, Gaussian data, so that truth and denoiser are known exactly. DDPM's bound on
    $-\log p$, with the linear schedule and the variance of $q(x_s \mid x_t, x_0)$ in each step, is {_GAP:.0f} nats an
    image too high at 1000 steps. What brings it down to the truth?""",
    {
        "a": "more steps: the bound is exact in the limit of short steps",
        "b": "a better trained denoiser",
        "c": "another variance of the reverse step",
        "d": "nothing: a bound on a likelihood is a bound, and never tight",
    },
    answer="c",
    feedback={
        "a": """Next to the clean image the ratio of the two variances stays away from 1 however short the steps are:
        0.29 nats a dimension remain with a million of them.""",
        "b": "The denoiser is exact already. Which other part of the step did we choose?",
        "d": "Jensen's inequality is an equality if the two chains agree. What is left to disagree?",
    },
    hints=["Both chains are Gaussian step by step. Their means agree.", "Which variance has the true q(x_s | x_t)?"],
    explanation="""With the optimal variance (Bao et al., ICLR 2022) the gap is zero for Gaussian data, at any number
    of steps. With 'large' it falls like 1/T, with 'small' half of Euler's constant stays for each dimension.
    The probability-flow ODE is the other way to a likelihood, without a bound.""",
)


# ---- LO2: intuition and theory ---------------------------------------------------------------------------------------


def answer_at_pure_noise():
    weights, means = torch.tensor([0.9, 0.1], dtype=DOUBLE), torch.tensor([[0.0], [1.0]], dtype=DOUBLE)
    D = MixtureDenoiser(weights, means, torch.tensor([1e-3, 1e-3], dtype=DOUBLE), Cosine())
    return float(D(torch.randn(1, 1, dtype=DOUBLE), 1.0))


q4 = number(
    """At one pixel nine patients of ten have the value 0; the tenth has a lesion there, and 1. The denoiser is exact.
    You look at its **first** answer, at pure noise. Which value does this pixel have?""",
    solution=answer_at_pure_noise,
    mistakes=[
        (0, "That is the most probable patient. The denoiser gives a mean, not a mode."),
        (1, "That would be a patient with the lesion; nothing in pure noise speaks for one."),
        (0.5, "Midway between the values. But they are not equally frequent."),
        (0.9, "That is the share of patients without the lesion. Weigh the values with the shares."),
    ],
    also_right=["10 %", "1/10"],
    hints=["D = E[x_0 | x_t]. What does x_t say about x_0 at pure noise?", "0.9 * 0 + 0.1 * 1."],
    explanation="""0.1, a value that no patient has: a faint shadow of the lesion. One look shows the mean over
    everybody who is possible; only on the way down does the sampler settle for one patient.
    The first answer of a mask diffusion is its map of probabilities for the same reason.""",
)

q5 = choice(
    """You can afford **ten** evaluations an image. A colleague wants Heun, 'which is of second order, so it beats DDIM
    and needs fewer steps'. What did the course measure of DDIM, 2M and Heun, on a mixture with an exact denoiser?""",
    {
        "a": "she is right: the higher order gives the smaller error at every budget",
        "b": "Heun is the worst of the three at this budget",
        "c": "at equal evaluations all samplers are equally good",
        "d": "Heun was better here, but from 40 evaluations on DDIM overtakes it",
    },
    answer="b",
    feedback={
        "a": "Order says how an error falls when steps are short. Are five steps short?",
        "c": "At 20 evaluations 2M was clearly ahead of DDIM, and at 40 so was Heun.",
        "d": "The other way round: order pays when there are many steps.",
    },
    hints=["How many evaluations does a step of Heun take?", "Order is a slope, not a height."],
    explanation="""Order is a promise about short steps. Compare at equal evaluations, at the budget that you have.
    At ten the memory of 2M gained next to nothing over DDIM, and Heun was far behind; at 40 the order had paid.""",
)

_ALPHA = float(Cosine().alpha(0.9))

q6 = choice(
    r"""A mask diffusion predicts the noise $\epsilon$, with times drawn uniformly (cosine schedule). Its loss is
    excellent and its masks are crisp; but given another patient's image it draws much the same. What is the reason?""",
    {
        "a": "at much noise an error of $x_0$ hardly counts in this loss",
        "b": "at little noise the network has not converged yet: train longer with the same loss",
        "c": "the sampler: ten times more steps would let the image in",
        "d": "concatenation is too weak a way in for an image",
    },
    answer="a",
    feedback={
        "b": """At little noise the noisy mask gives itself away: there even a denoiser that is blind to the image is
        nearly perfect.""",
        "c": "More steps ask the same denoiser more often. What does it know of the image?",
        "d": """The notebook's network gets its image that way, and looks at it.
        What differs is what was trained, and where.""",
    },
    hints=[
        "When is it decided which mask it will be?",
        "An error of x_0 enters the loss of epsilon with the weight alpha^2 / sigma^2.",
    ],
    explanation=rf"""Nearly all that is open about a mask is decided above t = 0.8. At t = 0.9 the loss of v weighs an
    error of $x_0$ by $1/\sigma_t^2$, that of $\epsilon$ by $\alpha_t^2/\sigma_t^2$: {_ALPHA**-2:.0f} times less.
    Predict v, train at high noise, and test with another patient's image.""",
)


# ---- LO3: applications -----------------------------------------------------------------------------------------------

q7 = choice(
    """Each scanner of a hospital leaves out other lines of k-space, and the pattern changes with every protocol.
    You have one unconditional diffusion prior of such images, no time to train, and you know each pattern.
    How does the measurement enter?""",
    {
        "a": "by concatenation: the zero-filled picture as one more channel",
        "b": "by a ControlNet on the pattern",
        "c": "by cross-attention to the list of measured lines",
        "d": "through the operator A, in the sampler",
    },
    answer="d",
    feedback={
        "a": "A good way for one kind of scan, but the network would have to be trained for it, from pairs.",
        "b": "Only the copy of the encoder is trained, but trained it must be.",
        "c": "This, too, is learned from pairs of measurement and image.",
    },
    hints=["Which ways need no training?", "A pattern of lines is a known linear operator A."],
    explanation=r"""Measurement guidance takes any linear operator that you can write down. What it pays: a bias, since
    the score of $p(y \mid x_t)$ is not known, more evaluations, and whatever the prior believes is put where nothing
    was measured. A network trained for one kind of scan stays a strong rival; notebook 09 measures it.""",
)


def psnr_of_the_mean():
    truth = torch.zeros(1, 1, 8, 8, dtype=DOUBLE)
    apart = 4 / 10 ** (27 / 10)  # mean squared difference of the two samples: twice the posterior's variance
    return float(psnr(truth + (apart / 2) ** 0.5, truth))


q8 = number(
    """No ground truth at hand. Two samples that an **exact** posterior sampler drew for the same scan have a PSNR of
    27 dB against each other. What PSNR, in dB, would the mean of very many samples score against the truth?
    (Two decimals.)""",
    solution=psnr_of_the_mean,
    rtol=0.003,
    mistakes=[
        (27, "That is what one sample scores against the truth, which is one more draw. The mean errs less."),
        (24, "The mean has the smallest squared error of all answers: its PSNR must be higher than a sample's."),
        (33.01, "A factor of 2 in the squared error is 3.01 dB, not 6.02."),
        (27 + 10 * math.log(2), "Decibels take the decimal logarithm: 10 log10(2), not 10 ln 2."),
        (54, "Decibels do not double: half of the squared error adds 10 log10(2)."),
        (28.25, "That is for the mean of two samples: (1 + 1/2) in place of 2."),
    ],
    also_right=["30.01", "30,01", 27 + 10 * math.log10(2)],
    hints=[
        "The truth is one more draw from the posterior: a sample is as far from it as from another sample.",
        "A sample has twice the squared error of the posterior mean.",
    ],
    explanation="""Two draws differ by twice the posterior's variance, the mean errs by once: 27 + 10 log10(2) = 30.01
    dB. So samples tell how good the best answer is, if they are true draws.
    Samplers whose draws agree too much, as those of DiffPIR do in notebook 09, promise too much here.""",
)


def best_expected_dice():
    raters = torch.zeros(2, 10, 20)
    raters[0, :, :5], raters[1, :, :10] = 1, 1  # 50 pixels inside 100
    sizes = [torch.cat([torch.ones(10, k), torch.zeros(10, 20 - k)], 1) for k in range(21)]
    return max(expected_dice(mask, raters, [0.4, 0.6]) for mask in sizes)


q9 = number(
    """Four raters in ten draw a lesion of 50 pixels, the other six one of 100 that contains it.
    What is the highest expected Dice that a network can reach with a **single** mask? (Three decimals.)""",
    solution=best_expected_dice,
    mistakes=[
        (1, "No single mask equals both. The raters set the ceiling."),
        (0.6, "Those who drew the small one agree in part: 2 * 50 / (50 + 100) with the large mask."),
        (2 / 3, "That is the Dice of the two masks with each other. Weigh it, and the Dice of 1, with the raters."),
        (0.7, "That is the small mask by IoU, 0.4 * 1 + 0.6 * 1/2. Take Dice, and the other mask."),
        (
            0.8,
            """That is the small mask, 0.4 * 1 + 0.6 * 2/3; or the large one by IoU, or with the raters' shares swapped.
            Take the large one: 0.6 * 1, and 0.4 times its Dice with the small one.""",
        ),
        (5 / 6, "Weigh the raters: six of ten draw the large one. No mask between the two does better than that one."),
    ],
    also_right=["0.867", "13/15"],
    hints=["Dice = 2 |a and b| / (|a| + |b|).", "The large mask: 0.6 * 1 + 0.4 * 2 * 50 / 150."],
    explanation="""0.6 + 0.4 * 2/3 = 0.867, always the large mask.
    A network that reports 0.867 here is perfect, and one that reports more has been lucky, or has seen the test.
    Its mean area is too large, too: 100 pixels for the raters' 80.""",
)

q10 = choices(
    """Five proposals for a diffusion model that has seen healthy people only.
    In which of them did the **simpler** method named win, on the course's made brains?""",
    {
        "a": "taking noise off slices of healthy people, by PSNR; against total variation",
        "b": "taking noise off and keeping the contrast of a bright lesion; against total variation",
        "c": "T2 from T1 in healthy people, by PSNR, one sample; against a regression network",
        "d": """this brain with larger ventricles, where nobody knows the true new map of tissues; against pushing the
        tissue apart""",
        "e": "filling in a lesion whose mask is given; against the smoothest continuation of its rim",
    },
    answers="bcd",
    feedback={
        "a": "The prior knows how brains behave, TV how pictures do: on healthy brains that was worth decibels.",
        "b": "What noise makes uncertain, a healthy prior fills with health. Every classical method kept more.",
        "c": "The regression aims at the mean, which has the smallest squared error; a sample is a draw around it.",
        "d": "The push kept the person and made the change. The generator was ahead only when given the true map.",
        "e": "What belongs into the hole is healthy tissue. Here the prior is at home, and RePaint won.",
    },
    hints=["Where is 'what healthy people look like' the right answer to the question?", "Three of the five."],
    explanation="""b, c and d. A healthy prior is strong where health is the answer (a, e), and weak where the patient
    differs from it. A sample loses to a mean in squared error by design.
    And a mechanism that is known may need no network.""",
)


# ---- LO4: limitations ------------------------------------------------------------------------------------------------

q11 = choice(
    """A company reports: 'We trained on 5000 patients until the loss of DDPM could fall no further, at any noise level.
    Fréchet distance and coverage are at the level of real images.' Take it at its word.
    What do you expect of the samples?""",
    {
        "a": "new patients, better than from any network that is trained less",
        "b": "blurred averages of the 5000",
        "c": "copies of the 5000, which one would notice in a poor Fréchet distance",
        "d": "copies of the 5000, of which these numbers show nothing",
    },
    answer="d",
    feedback={
        "a": "What is the minimum of this loss, for a finite set of images?",
        "b": "One answer of the denoiser is a blurred average; the end of the walk is not.",
        "c": "A copier of many patients has the mean, the covariance and the variety of real images.",
    },
    hints=[
        "The exact E[x_0 | x_t] of 5000 images is a weighted mean of these images.",
        "Which distance between two sets asks whether they share members?",
    ],
    explanation="""The loss has its optimum at a copier. Novelty comes from failing to reach it, and has to be measured:
    by the distance to the nearest training image against held-out images (notebook 08, sections 6 and 7).""",
)


def guided_variance():
    schedule = VarianceExploding(1e-3, 1e5)
    everybody, ill = (
        GaussianDenoiser(torch.tensor([m], dtype=DOUBLE), v * torch.eye(1, dtype=DOUBLE), schedule)
        for m, v in ((0, 5), (1, 1))
    )
    starts = torch.tensor([[0.0], [1e5]], dtype=DOUBLE)  # the map to the samples is a straight line: two points tell it
    ends = sample(Autoguidance(everybody, ill, 2), starts, uniform_times(2000), heun_step)
    return float((ends[1] - ends[0]) ** 2)  # of starts with the standard deviation 1e5


q12 = number(
    r"""The width of the ventricles, in suitable units, is $\mathcal N(0, 5)$ in all people (the 5 is the variance) and
    $\mathcal N(1, 1)$ in the ill. Both denoisers are exact, the noise is variance-exploding.
    You ask for the ill with guidance w = 2 (w = 1 is conditional) and walk the ODE exactly.
    Which **variance** do the samples have? (Two decimals.)""",
    solution=guided_variance,
    rtol=0.01,
    mistakes=[
        (5 / 9, "That is the tilted density, 1 / (2 - 1/5): what guidance is said to sample, and does not."),
        (1, "That is the variance of the ill, at w = 1."),
        (0.04, "That is w = 3, or Ho & Salimans' scale, whose 2 is the 3 of here."),
        (0.5, "That is 2^(1 - w), for a population of variance 2; or 1 / w, the variance of p(x | y)^2."),
        (-3, "Variances do not extrapolate on a line: this one would be negative."),
        (5, "That is w = 0, everybody."),
        (0.4472, "That is the standard deviation; asked is the variance."),
    ],
    also_right=["1/5", 5**-1, "0,2"],
    hints=[
        "The shift of the mean does not enter the variance: it is the case of notebook 05 with other numbers.",
        "The logarithms of the variances extrapolate on a line: (that of all)^(1 - w) times (that of the ill)^w.",
    ],
    explanation=r"""$5^{1-w} = 1/5$: of the ill's variety one fifth is left, and the tilted density
    $p(x \mid y)^2 / p(x)$ has $0.56$, nearly three times as much. Guidance is neither the class nor the density that
    one writes down for it. Prototypes of a disease are not its patients.""",
)

q13 = choice(
    """The autoencoder of a latent diffusion model returns half of the contrast of tiny lesions (encode, decode, nothing
    else). The diffusion model behind it makes them too faint. What helps?""",
    {
        "a": "training the diffusion longer, on more patients with tiny lesions",
        "b": "more sampling steps, or a better sampler",
        "c": "guidance towards 'lesion'",
        "d": "another autoencoder, or diffusion among pixels",
    },
    answer="d",
    feedback={
        "a": "The perfect diffusion model draws the latents of real patients. What does the decoder make of those?",
        "b": "The sampler works among latents. What the decoder cannot paint, no sampler paints.",
        "c": """It pushes latents out of the distribution of real ones; the decoder is as it was, and prettier lesions
        would not be truer ones.""",
    },
    hints=["What is the best that can come out, with the latents of real slices?"],
    explanation="""The autoencoder is a ceiling, to be measured alone: PSNR, distance, and what it keeps of a finding.
    It also puts grain of its own in the place of the scan's, which flatters the eye and hides what is missing.""",
)

q14 = choice(
    """A noise-and-denoise detector (healthy T1 prior, small $t_0$, threshold from validation, AUROC over pixels 0.95)
    gets an image of an unknown protocol. Its residual is **lower** than that of any patient. What follows?""",
    {
        "a": "the person is healthy: with this AUROC a score so low is safe",
        "b": "the image is at home with the prior, else the residual would be high",
        "c": "nothing yet: images of another kind may score low, too",
        "d": "the person is ill: nobody's residual is so low",
    },
    answer="c",
    feedback={
        "a": """The AUROC was measured on images of one protocol, and over pixels.
        It says nothing of an image from elsewhere.""",
        "b": "Think of t_0 = 0: the residual of any image whatever is zero.",
        "d": "A low residual speaks for illness as little as for health.",
    },
    hints=["What is the residual at t_0 = 0, for a picture of a hand?", "Who checks whether the image is of the kind?"],
    explanation="""The denoiser keeps what little noise could not hide, be it known or not.
    So first another model, the gatekeeper, asks whether the image as a whole is like those of the training;
    the course's is PCA's residual. Only then may a map be read.""",
)


# ---- LO5: MONAI ------------------------------------------------------------------------------------------------------


def true_log_snr():
    schedule = Cosine()
    t = schedule.time(torch.tensor(-2.0, dtype=DOUBLE))
    return torch.log((4 * schedule.alpha(t)) ** 2 / schedule.sigma(t) ** 2)


q15 = number(
    """You load weights that were trained on latents of standard deviation 1, and leave `scale_factor` of MONAI's
    `LatentDiffusionInferer` at its default, 1. The autoencoder's own latents have standard deviation 4. At the time
    where the schedule says log-SNR = -2, what is the log-SNR that the network **sees**, against unit latents?
    (Two decimals.)""",
    solution=true_log_snr,
    mistakes=[
        (-2, "That is what it is told. The latents are four times too large, the noise is not."),
        (-2 + 2 * math.log10(4), "The log-SNR is a natural logarithm: 2 ln 4 is 2.77."),
        (-8, "The SNR is multiplied, so that its logarithm is shifted."),
        (-2 + math.log(4), "The SNR is a ratio of variances: the factor 4 enters squared."),
        (-2 - 2 * math.log(4), "Larger latents mean more signal: the log-SNR rises."),
        (2 * math.log(4), "That is the shift. Add it to -2."),
        (2, "The factor multiplies the signal; in the logarithm 2 ln 4 is added, not 4."),
    ],
    also_right=["0.77", 4 * math.log(2) - 2],
    hints=["SNR = s^2 alpha^2 / sigma^2, for latents of standard deviation s.", "-2 + 2 ln 4."],
    explanation="""0.77: the network is told that noise prevails, and sees more signal than noise.
    Every level is misread by 2 ln 4 = 2.77, and no error message appears.
    Compute 1/std(z) and store it beside the weights: MONAI does not save the factor with them.""",
)

q16 = choice(
    """Age enters MONAI's `DiffusionModelUNet` as `context` of shape (N, 1, C), by cross-attention.
    The samples do not age in the right places. A colleague asks for twice as many attention heads, 'so that the network
    learns **where** to look for age'. What will the heads' weights say?""",
    {
        "a": "1 at every pixel and in every head, however many there are",
        "b": "large at the ventricles, once enough heads are there",
        "c": "the same at all pixels, but different from head to head",
        "d": "random: the heads compete for the single vector",
    },
    answer="a",
    feedback={
        "b": "The weights are a softmax over the vectors of the context. How many are there?",
        "c": "Each head's weights add up to 1 over a single vector.",
        "d": "Heads do not compete; each has its own softmax, over one entry.",
    },
    hints=["softmax of one number?", "Over what does attention choose: over pixels, or over the vectors?"],
    explanation="""Attention over a single vector is a bias, the same for every pixel: an expensive way to add one.
    Pixels can choose from two vectors on. A class or an age works this way, as MONAI's inferers pass no class labels;
    but where it acts is learned by the layers after it.""",
)

_NOISE = torch.randn(10_000, 1, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
_TABLE = Discrete.linear(1000)
_EXACT = GaussianDenoiser(torch.zeros(1, dtype=DOUBLE), 0.3**2 * torch.eye(1, dtype=DOUBLE), _TABLE)
_SPREAD = float(sample(_EXACT, _NOISE, uniform_times(5), ddim_step).std())

q17 = choice(
    """You test a scheduler of a new release with an exact denoiser, for data of standard deviation 0.3.
    At 5 steps of DDIM its samples have 0.28. What do you do?""",
    {
        "a": "accept it: 7 % off is little for 5 steps",
        "b": "reject it: with an exact denoiser the result has to be 0.30",
        "c": "compare with DDIM by its formula, and test data of a second spread",
        "d": "test again with a trained network and look at the pictures",
    },
    answer="c",
    feedback={
        "a": "How much should DDIM give at 5 steps? Being near the truth is not being right.",
        "b": "A correct DDIM is far below 0.30 at 5 steps. Rejecting it on that ground would be wrong, too.",
        "d": "A network has errors of its own to blame, and a fault raises no message.",
    },
    hints=["What does DDIM in 5 steps do to the spread?", "Can two faults cancel?"],
    explanation=f"""DDIM by its formula gives {_SPREAD:.2f} at 5 steps. MONAI 1.6.1 gives 0.28, as its grid leaves
    grain behind, and the two faults cancel. At a spread of 0.05 they do not: it gives about 0.2 there.
    Test a step against its formula, and never on one number.""",
)

q18 = choices(
    "Somebody else's script for MONAI 1.6.1. Which of these lines spoil the samples, without an error message?",
    {
        "a": "`DDIMScheduler(num_train_timesteps=1000)` for CT windows scaled to [0, 3]",
        "b": "`DDPMScheduler(num_train_timesteps=1000)`, then `set_timesteps(100)`",
        "c": "`PNDMScheduler(num_train_timesteps=1000, skip_prk_steps=True)`, `set_timesteps(50)` before each batch",
        "d": "one `PNDMScheduler` for many batches, `set_timesteps` called once at the top",
        "e": "`DDIMScheduler(num_train_timesteps=1000, clip_sample=False)` for latents, all 1000 steps",
    },
    answers="abd",
    feedback={
        "a": "`clip_sample` is on by default and clamps the denoised image to [-1, 1]: everything above 1 is lost.",
        "b": "Its `step` always goes one step of the full table: a hundred of them cover a tenth of the way.",
        "c": "This is how PNDM works as intended: without the warm-up that spoils its stride, and with a fresh memory.",
        "d": "PNDM remembers the last predictions, and only `set_timesteps` makes it forget what batch 1 was.",
        "e": "Latents have no range, so nothing may be clamped; with all steps, grid and stride agree.",
    },
    hints=["Which defaults know the numbers -1 and 1?", "Three of the five."],
    explanation="""a, b and d. None raises an error, and each gives pictures that one would blame on the network.
    That is why a scheduler is tested with an exact denoiser before it is trusted.""",
)

summary = Exercises(
    vars(),
    groups={name: place.objective for name, place in QUIZ.items()},
    headings={name: f"{place.objective}. Answered in {place.where}." for name, place in QUIZ.items()},
    module="quiz",
).summary
