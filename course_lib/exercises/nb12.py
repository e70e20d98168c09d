"""Exercises of notebook 12: denoising without training, magnitude images, and counterfactuals."""

import math

import numpy as np
import torch

from course_lib.applications.denoising import posterior_mean
from course_lib.denoisers import FunctionDenoiser
from course_lib.exercises.engine import Exercises, case, choices, function, mistake, number, prop
from course_lib.schedules import Cosine

# ---- q1: the time of a noise level -----------------------------------------------------------------------------------

q1 = number(
    r"""A picture has noise of $\sigma_y = 0.6$. The prior's schedule is $\alpha_t = \cos(\pi t/2)$,
    $\sigma_t = \sin(\pi t/2)$. At which t does the prior's denoiser answer for it?""",
    solution="2 / math.pi * math.atan(0.6)",
    rtol=0.012,  # 0.34 is right
    mistakes=[
        (2 / math.pi * math.asin(0.6), "That is where sigma_t = 0.6. But x_t is scaled: the ratio to alpha_t counts."),
        (0.6, "The noise level is no time: t = 0.6 has sigma_t / alpha_t = 1.38."),
        (math.atan(0.6), "An angle in radians. The schedule's angle is pi t / 2: solve that for t."),
        (2 / math.pi * math.atan(1 / 0.6), "Upside down: sigma_t / alpha_t is sigma_y."),
        (math.degrees(math.atan(0.6)), "An angle in degrees. The schedule's angle is pi t / 2: divide by 90."),
        (math.atan(0.6) / math.pi, "The angle is pi t / 2: the 2 is missing."),
        (2 / math.pi * math.atan(0.36), "Not the variance: both sigma_t and sigma_y are standard deviations."),
    ],
    also_right=["0.344", 0.34, math.degrees(math.atan(0.6)) / 90],
    hints=["alpha_t y = alpha_t x_0 + alpha_t sigma_y n. When is that an x_t?", "tan(pi t / 2) = 0.6."],
    explanation="alpha_t y is an x_t where alpha_t sigma_y = sigma_t, so tan(pi t / 2) = 0.6 and t = 0.344.",
)


# ---- q2: denoise -----------------------------------------------------------------------------------------------------


def denoise(D, y, gain, sigma_y):
    t = D.schedule.time(-2 * math.log(sigma_y / gain))
    return D(D.schedule.alpha(t) * y / gain, t)


Y = torch.linspace(-1.5, 1.5, 12, dtype=torch.float64).reshape(1, 1, 3, 4)
# Exact for x_0 ~ N(0, 1), and shifted with t, so that it matters which t it is given.
EXACT = FunctionDenoiser(lambda x_t, t: Cosine().alpha(t) * x_t + 0.2 * t, Cosine())


def _asked(f, gain, sigma_y):
    """(x_t, t) of the first time that f asks its denoiser; NaN if it does not."""
    asked = [(float("nan") * Y, float("nan"))]
    record = FunctionDenoiser(lambda x_t, t: asked.append((torch.as_tensor(x_t), float(t))) or x_t, Cosine())
    f(record, Y, gain, sigma_y)
    return asked[1] if len(asked) > 2 else asked[0]  # the last to ask is the solution, for comparison


def _asks(what):
    """`denoise` that asks D something else: what(y, gain, sigma_y, alpha, time) -> (x_t, t), with time a function of
    sigma_t / alpha_t."""

    def wrong(D, y, gain, sigma_y):
        return D(*what(y, gain, sigma_y, D.schedule.alpha, lambda s: D.schedule.time(-2 * torch.log(s))))

    return wrong


q2 = function(
    r"""A coil shows the picture `gain` times as bright and adds its own noise: y = gain x_0 + sigma_y n. Write
    `denoise(D, y, gain, sigma_y)`: E[x_0 | y] by one evaluation of the prior's denoiser `D(x_t, t)`. You have
    `D.schedule.alpha(t)`, and `D.schedule.time(log_snr)`, the t at which $\log(\alpha_t^2 / \sigma_t^2)$ is the number
    given.""",
    solution=denoise,
    tests=[
        prop(
            "the right time",
            lambda f: abs(_asked(f, 1.0, 0.7)[1] - 2 / math.pi * math.atan(0.7)) < 1e-6,
            """With gain 1, D was not asked at the t with sigma_t / alpha_t = sigma_y. What is log(alpha_t^2 /
            sigma_t^2) there?""",
        ),
        prop(
            "the time of the gain",
            lambda f: abs(_asked(f, 2.0, 0.7)[1] - 2 / math.pi * math.atan(0.35)) < 1e-6,
            """Divide y by the gain: how much noise has x_0 + n (sigma_y / gain)? D has to be asked at the t of that
            level, a smaller one where the gain is above 1.""",
        ),
        prop(
            "scaled",
            lambda f: float(_asked(f, 1.0, 0.7)[0].abs().max() / Y.abs().max()) < 0.99,
            "D was given a picture as bright as y, or brighter. It expects an x_t: alpha_t y, with no noise added.",
        ),
        case("gain 1", (EXACT, Y, 1.0, 0.7), "Is it y that is scaled, by alpha_t, and D's answer left as it is?"),
        case(
            "gain 2",
            (EXACT, Y, 2.0, 0.7),
            """The time is right, the picture is not: D expects alpha_t x_0 and noise, and y holds gain x_0. Its answer
            is x_0 already, and is left as it is.""",
        ),
    ],
    mistakes=[
        mistake(_asks(lambda y, g, s, alpha, time: (alpha(time(s / g)) * y / g, s)), "the right time", "t = sigma_y"),
        mistake(_asks(lambda y, g, s, alpha, time: (alpha(time(s)) * y, time(s))), "the time of the gain", "no gain"),
        mistake(
            _asks(lambda y, g, s, alpha, time: (alpha(time(s)) * y / g, time(s))),
            "the time of the gain",
            "the noise is not divided",
        ),
        mistake(
            _asks(lambda y, g, s, alpha, time: (alpha(time(s * g)) * y / g, time(s * g))),
            "the time of the gain",
            "the noise times the gain",
        ),
        mistake(_asks(lambda y, g, s, alpha, time: (y / g, time(s / g))), "scaled", "not scaled"),
        mistake(_asks(lambda y, g, s, alpha, time: (y / g / alpha(time(s / g)), time(s / g))), "scaled", "divided"),
        mistake(
            lambda D, y, gain, sigma_y: (
                D(y / gain, D.schedule.time(-2 * torch.log(sigma_y / gain))) / (1 + (sigma_y / gain) ** 2) ** 0.5
            ),
            "scaled",
            "D is scaled",
        ),
        mistake(_asks(lambda y, g, s, alpha, time: (alpha(s) * y / g, time(s / g))), "gain 1", "alpha at sigma_y"),
        mistake(
            lambda D, y, gain, sigma_y: denoise(D, y, gain, sigma_y) * (1 + (sigma_y / gain) ** 2) ** 0.5,
            "gain 1",
            "scaled back",
        ),
        mistake(_asks(lambda y, g, s, alpha, time: (alpha(time(s / g)) * y, time(s / g))), "gain 2", "y as it is"),
        mistake(lambda D, y, gain, sigma_y: gain * denoise(D, y, gain, sigma_y), "gain 2", "the gain put back"),
        mistake(lambda D, y, gain, sigma_y: denoise(D, y, gain, sigma_y) / gain, "gain 2", "divided twice"),
        mistake(lambda D, y, gain, sigma_y: y / gain / (1 + sigma_y**2) ** 0.5, "the right time", "D never asked"),
        mistake(_asks(lambda y, g, s, alpha, time: (alpha(time(s**0.5)) * y, time(s**0.5))), "the right time", "no 2"),
        mistake(
            _asks(lambda y, g, s, alpha, time: (alpha(time(1 / s)) * y, time(1 / s))), "the right time", "no minus"
        ),
    ],
    also_right=[
        lambda D, y, gain, sigma_y: posterior_mean(D, y / gain, sigma_y / gain),
        lambda D, y, gain, sigma_y: D(
            y / math.sqrt(gain**2 + sigma_y**2), 2 / math.pi * math.atan2(float(sigma_y), float(gain))
        ),
    ],
    hints=[
        "y / gain = x_0 + (sigma_y / gain) n: a picture with noise of another level. Times alpha_t it can be an x_t.",
        "sigma_t / alpha_t = sigma_y / gain is a log-SNR of -2 log(sigma_y / gain).",
    ],
    explanation="""One evaluation of a network that was never trained for this. Any known scale goes the same way; one
    that differs from pixel to pixel does not, for t is one number: that is notebook 09.
    A regression trained on pairs at this one noise level would be after the same function.""",
)


# ---- q3: three answers to one noisy pixel ----------------------------------------------------------------------------

q3 = number(
    r"""One pixel, prior $\mathcal N(0, 1)$, seen with $\sigma_y = 0.75$. The posterior mean has the error 0.36 (MSE), a
    posterior sample 0.72. The deterministic walk (DDIM in many steps) takes $\mathcal N(0, 1.5625)$, which is where y
    comes from, to $\mathcal N(0, 1)$: it returns $y / 1.25$. Which MSE has that?""",
    solution="2 - 2 / math.sqrt(1 + 0.75**2)",
    mistakes=[
        (0.72, "That is a posterior sample's. This walk draws nothing: for each y there is one answer."),
        (0.36, "That is the posterior mean's, y / 1.5625, the least there is."),
        ((1 - 1 / 1.25) ** 2, "That is the part from shrinking x_0. The noise in y adds 0.36."),
        (2, "y and x_0 are correlated: E y x_0 = 1."),
        (2 - 1 / 1.25, "The cross term counts twice."),
        (1.5625 - 1, "That is the noise in y as it is, before the walk."),
    ],
    also_right=["0.4", 0.4, "0,4"],
    hints=["E (y / 1.25 - x_0)^2 = E y^2 / 1.5625 - 2 E y x_0 / 1.25 + E x_0^2.", "E y^2 = 1.5625 and E y x_0 = 1."],
    explanation="""1 - 1.6 + 1 = 0.4. It looks as real as a sample (its variance is 1, the prior's) and errs little
    more than the mean; but it is one image, and without a spread.""",
)


# ---- q4: magnitude images --------------------------------------------------------------------------------------------


def corrected(M, s):
    return (M**2 - 2 * s**2).clamp(min=0).sqrt()


MAGNITUDE = torch.tensor([0.05, 0.2, 0.31, 0.4, 0.8, 1.1], dtype=torch.float64)

q4 = function(
    """In a magnitude image $E[M^2] = A^2 + 2 s^2$, with s the noise of each channel. Write `corrected(M, s)`:
    the A that follows when M² stands for its mean, and 0 where that would be no real number. `M` is a tensor.""",
    solution=corrected,
    tests=[
        case(
            "bright",
            (MAGNITUDE[4:], 0.2),
            """Solve E[M^2] = A^2 + 2 s^2 for A: both channels add a variance s^2, together 2 s^2, neither s^2 nor
            (2 s)^2. A is the root of what is left, with no upper limit.""",
        ),
        prop(
            "dark",
            lambda f: torch.isfinite(f(MAGNITUDE, 0.2)).all(),
            "Where M^2 < 2 s^2 the root is of a negative number: NaN in the background. What is the least A?",
        ),
        case(
            "another noise", (MAGNITUDE[4:], 0.1), "Right for s = 0.2, not for 0.1: take the s that is given, squared."
        ),
        case("all", (MAGNITUDE, 0.2), "Clamp under the root, at 0, before it is taken."),
    ],
    mistakes=[
        mistake(lambda M, s: (M**2 - s**2).clamp(min=0).sqrt(), "bright", "one channel"),
        mistake(lambda M, s: M - s * math.sqrt(math.pi / 2), "bright", "the background's bias everywhere"),
        mistake(lambda M, s: (M**2 - 2 * s**2).sqrt(), "dark", "no clamp"),
        mistake(lambda M, s: (M**2 - 2 * s**2).abs().sqrt(), "all", "abs"),
        mistake(lambda M, s: (M**2 - 0.08).clamp(min=0).sqrt(), "another noise", "s of the notebook"),
        mistake(lambda M, s: (M**2 - 2 * s).clamp(min=0).sqrt(), "bright", "s not squared"),
        mistake(lambda M, s: (M**2 + 2 * s**2).sqrt(), "bright", "a plus"),
        mistake(lambda M, s: (M**2 - 2 * s**2).clamp(min=0), "bright", "no root"),
        mistake(lambda M, s: (M - 2**0.5 * s).clamp(min=0), "bright", "roots subtracted"),
        mistake(lambda M, s: (M**2 - 2 * s**2).clamp(min=1e-2).sqrt(), "all", "not down to 0"),
        mistake(
            lambda M, s: torch.where(torch.gt(M, 2**0.5 * s), (M**2 - 2 * s**2).sqrt(), M), "all", "left as they are"
        ),
    ],
    also_right=[
        lambda M, s: torch.sqrt(torch.relu(M**2 - 2 * s**2)),
        lambda M, s: (M**2 - 2 * s**2).sqrt().nan_to_num(0),
        lambda M, s: np.sqrt(np.maximum(M.numpy() ** 2 - 2 * float(s) ** 2, 0)),
        lambda M, s: [math.sqrt(max(float(value) ** 2 - 2 * float(s) ** 2, 0)) for value in M],
        lambda M, s: torch.where(torch.gt(M, 2**0.5 * s), (M**2 - 2 * s**2).abs() ** 0.5, 0),
    ],
    hints=["Solve for A.", "`(...).clamp(min=0).sqrt()`."],
    explanation="""Bright pixels hardly change; the dark ones, fluid and air, lose their false brightness.
    The square is free of bias, its root is not quite: clamping and rooting bend.""",
)


# ---- q5: abduction, action, prediction -------------------------------------------------------------------------------


def counterfactual_of(x, v, v_new, a):
    return x + a * (v_new - v)


q5 = function(
    """A brain's brightness at a pixel is x = a v + u: v the size of the ventricles, u all that is this person's own.
    You observe x and v. Write `counterfactual_of(x, v, v_new, a)`: the x of the **same person** had v been v_new.""",
    solution=counterfactual_of,
    tests=[
        case("nothing changed", (1.3, 2.0, 2.0, -0.4), "With v_new = v it must return x itself: this person, as is."),
        case("changed", (1.3, 2.0, 3.0, -0.4), "Find u = x - a v first, then put v_new into the equation."),
        prop(
            "persons stay apart",
            lambda f: abs(f(1.0, 2.0, 3.0, 0.5) - f(0.0, 2.0, 3.0, 0.5) - 1) < 1e-6,
            "Two people who differ by 1 must differ by 1 afterwards: u is theirs.",
        ),
        case(
            "made smaller",
            (0.4, 2.0, 0.5, 0.3),
            """Here v_new is less than v, and x falls below 0. v_new - v has a sign, and x has no lower limit: nothing
            is clamped.""",
        ),
    ],
    mistakes=[
        mistake(lambda x, v, v_new, a: a * v_new, "nothing changed", "u forgotten: the mean person"),
        mistake(lambda x, v, v_new, a: x + a * v_new, "nothing changed", "v left in"),
        mistake(lambda x, v, v_new, a: x, "changed", "no action"),
        mistake(lambda x, v, v_new, a: x - a * (v_new - v), "changed", "sign"),
        mistake(lambda x, v, v_new, a: x * (1 + a * (v_new - v) / 1.3), "persons stay apart", "scaled with x"),
        mistake(lambda x, v, v_new, a: x * v_new / v, "changed", "in proportion"),
        mistake(lambda x, v, v_new, a: x + (v_new - v), "changed", "a left out"),
        mistake(lambda x, v, v_new, a: x - a * v, "nothing changed", "u alone"),
        mistake(lambda x, v, v_new, a: x + a * abs(v_new - v), "made smaller", "never smaller"),
        mistake(lambda x, v, v_new, a: max(x + a * (v_new - v), 0), "made smaller", "clamped at 0"),
        mistake(lambda x, v, v_new, a: x + (v_new - v) / a, "changed", "divided by a"),
        mistake(
            lambda x, v, v_new, a: (x + a * (v_new - v) + a * v_new) / 2, "nothing changed", "half the mean person"
        ),
    ],
    also_right=[
        lambda x, v, v_new, a: (x - a * v) + a * v_new,
        lambda x, v, v_new, a: x - a * v + v_new * a,
        lambda x, v, v_new, a: torch.tensor([x + a * (v_new - v)]),
        lambda x, v, v_new, a: np.float32(float(x) + float(a) * (float(v_new) - float(v))),
    ],
    hints=["Abduction: u = x - a v.", "Action and prediction: a v_new + u."],
    explanation="""x - a v + a v_new. DDIM inversion under the factual condition plays the part of u = x - a v, the walk
    back under the new one that of the last step.""",
)


# ---- q6: true or not -------------------------------------------------------------------------------------------------

q6 = choices(
    "Which of these statements are true?",
    {
        "a": "A posterior sample has, on average, twice the squared error of the posterior mean.",
        "b": "If the ventricles obtained have the area asked for, the counterfactual is right.",
        "c": """A network that saw healthy pairs of T1 and T2 alone may show a lesion with the wrong sign, though it is
        plain in the T1.""",
        "d": """Pushing the tissue away without a network does well here because the cohort is made by such a push;
        with another mechanism it could lose.""",
        "e": "A follow-up scan of a patient whose ventricles grew is the true counterfactual of the first.",
    },
    answers="acd",
    feedback={
        "a": "The truth is one more draw: the sample errs by its own spread and by that of the truth (notebook 09).",
        "b": "Somebody else's brain can have the area, too. Effectiveness is one test, identity another.",
        "c": "It has learnt what healthy brightness becomes. A lesion follows another law.",
        "d": "It *is* the mechanism. On patients nobody can tell whether it is.",
        "e": "Years passed, and more than the ventricles changed. That is seeing after time, not doing.",
    },
    hints=["Two are wrong: one mistakes a test for a proof, one mistakes time for an intervention."],
    explanation="True: a, c, d.",
)

summary = Exercises(vars()).summary
