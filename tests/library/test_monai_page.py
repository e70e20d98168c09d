"""docs/monai.md against the MONAI that is installed: its programs print what stands there, before and after each mend.

When a new MONAI has mended a trap itself, the line that a mend replaces is gone: then the page wants a new sentence.
"""

import contextlib
import importlib
import io
import re
import types
from pathlib import Path

import pytest
import torch

from course_lib import conformance
from course_lib.samplers import ddim_step, ddpm_step
from course_lib.schedules import Discrete, RectifiedFlow

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "monai.md").read_text(encoding="utf-8")
BEFORE, *SECTIONS = re.split(r"^## ", PAGE, flags=re.MULTILINE)
REPORTS = {section.splitlines()[0]: section for section in SECTIONS if "```diff" in section}


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def mended(diff):
    """{name: class} of a module of MONAI's in which each text after a minus has become the one after a plus."""
    first, *lines = diff.splitlines()
    name = first.removeprefix("# ")
    installed = importlib.import_module(name)
    source = Path(installed.__file__).read_text(encoding="utf-8")
    for old, new in re.findall(r"^-(.*)\n((?:\+.*\n?)+)", "\n".join(lines), re.MULTILINE):
        new = re.sub(r"^\+", "", new, flags=re.MULTILINE).rstrip("\n")
        assert old in source, f"{old!r} is no longer in {first}"
        source = re.sub(rf"^( *)(.*){re.escape(old)}", lambda m, new=new: put(m[1], m[2], new), source, flags=re.M)
    module = types.ModuleType(name)
    module.__package__ = installed.__package__
    exec(compile(source, first, "exec"), module.__dict__)
    return {key: value for key, value in vars(module).items() if getattr(value, "__module__", None) == name}


def put(indent, before, new):
    """New lines in the place of an old text: each further one begins where the first line does."""
    return indent + before + new.replace("\n", "\n" + indent)


def printed(programs, classes=()):
    """What the programs of a report print, after the common one, with some classes in the place of MONAI's."""
    (common,), heard = blocks(BEFORE, "python"), io.StringIO()
    names = {}
    exec(common, names)
    names.update({name: value for name, value in dict(classes).items() if name in names})
    with contextlib.redirect_stdout(heard):
        for program in programs:
            exec(program, names)
    return heard.getvalue()


@pytest.mark.parametrize("report", REPORTS)
def test_programs_print_what_stands_there_before_and_after_the_mend(report):
    programs, (diff,) = blocks(REPORTS[report], "python"), blocks(REPORTS[report], "diff")
    before, after = blocks(REPORTS[report], "text")
    assert alike(printed(programs), before)
    assert alike(printed(programs, mended(diff)), after)
    assert not alike(before, after)


NUMBER = r"-?\d+(?:\.\d+)?"


def alike(text, other):
    """Whether two texts are one but for their decimals, which may differ by one in the last place, or by 2 per cent."""
    pairs = list(zip(re.findall(NUMBER, text), re.findall(NUMBER, other)))
    close = [a == b if "." not in b else abs(float(a) - float(b)) <= slack(b) for a, b in pairs]
    return re.sub(NUMBER, "#", text) == re.sub(NUMBER, "#", other) and all(close)


def slack(number):
    return max(1.01 * 10.0 ** -len(number.partition(".")[2]), 0.02 * abs(float(number)))


def test_unlike_texts_are_told_apart():
    assert alike("5 steps: 0.275, [999, 0]\n", "5 steps: 0.276, [999, 0]\n")
    for other in ("5 steps: 0.285, [999, 0]\n", "5 steps: 0.275, [998, 0]\n", "5 strides: 0.275, [999, 0]\n"):
        assert not alike("5 steps: 0.275, [999, 0]\n", other)


def at(scheduler, steps):
    scheduler.set_timesteps(steps)
    return scheduler


def candidates():
    """{first cell of a row: (draw, schedule, formula or None)}: the table of the page, MONAI's rows."""
    from monai.networks.schedulers import DDIMScheduler, DDPMScheduler, PNDMScheduler, RFlowScheduler

    by_monai, table, free = conformance.by_monai, Discrete.linear(1000), {"clip_sample": False}
    continuous = {"use_discrete_timesteps": False}
    return {
        "course, `ddim_step`": (conformance.by_step(ddim_step), table, ddim_step),
        "MONAI, `DDIMScheduler`": (by_monai(lambda n: at(DDIMScheduler(1000, **free), n)), table, ddim_step),
        "MONAI, the same with a table of n": (by_monai(lambda n: DDIMScheduler(n, **free)), table, ddim_step),
        "MONAI, `DDPMScheduler`": (by_monai(lambda n: at(DDPMScheduler(1000, **free), n)), table, ddpm_step),
        "MONAI, `DDPMScheduler` with a table of n": (by_monai(lambda n: DDPMScheduler(n, **free)), table, ddpm_step),
        "MONAI, `PNDMScheduler`": (by_monai(lambda n: at(PNDMScheduler(1000), n)), table, None),
        "MONAI, the same, `skip_prk_steps=True`": (
            by_monai(lambda n: at(PNDMScheduler(1000, skip_prk_steps=True), n)),
            table,
            None,
        ),
        "MONAI, `RFlowScheduler`": (by_monai(lambda n: at(RFlowScheduler(1000), n)), RectifiedFlow(), ddim_step),
        "MONAI, the same, `use_discrete_timesteps=False`": (
            by_monai(lambda n: at(RFlowScheduler(1000, **continuous), n)),
            RectifiedFlow(),
            ddim_step,
        ),
    }


def row(name, draw, schedule, formula):
    """A row of the table, measured."""
    found = conformance.spreads(draw, schedule, steps=(50, 10))
    off = None if formula is None else conformance.off_its_formula(draw, schedule, formula)
    cells = [name, *(f"{value:.2f}" for value in found.values()), shown(off)]
    return "| " + " | ".join(cells) + " |"


def printed_row(name):
    """The row of the page that begins with a name."""
    (found,) = [line for line in PAGE.splitlines() if line.startswith(f"| {name} |")]
    return found


def shown(off):
    """A share as the table shows it."""
    if off is None:
        return "(none of one evaluation)"
    return "below 0.0001" if off < 1e-4 else f"{off:.2f}"


def test_the_table_of_the_page_is_what_is_measured():
    for name, candidate in candidates().items():
        assert alike(row(name, *candidate), printed_row(name))


def test_the_table_with_diffusers_too():
    diffusers = pytest.importorskip("diffusers")
    if diffusers.__version__ not in PAGE:
        pytest.skip("the page was measured with another diffusers")
    for name, candidate in of_diffusers(diffusers).items():
        assert alike(row(name, *candidate), printed_row(name))


def of_diffusers(diffusers):
    """Its rows."""
    table, by = Discrete.linear(1000), conformance.by_diffusers
    options = {"num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}

    def ddim(spacing):
        return lambda n: at(diffusers.DDIMScheduler(**options, clip_sample=False, timestep_spacing=spacing), n)

    def ddpm(n):
        return at(diffusers.DDPMScheduler(**options, clip_sample=False), n)

    rows = {f"diffusers, `DDIMScheduler`, {name}": (by(ddim(name)), table, ddim_step) for name in SPACINGS}
    return rows | {"diffusers, `DDPMScheduler`": (by(ddpm), table, ddpm_step)}


SPACINGS = ("leading", "trailing", "linspace")


def test_a_mend_keeps_what_was_right():
    """At all 1000 steps, where the traps are not, the mended DDIM and DDPM are those of MONAI; a beta worked out from
    two entries of a table in single precision is right to about 1e-4 of itself."""
    from monai.networks import schedulers

    x = torch.linspace(-2, 2, 8).reshape(8, 1, 1)
    for name in ("DDIMScheduler", "DDPMScheduler"):
        start = f"# monai.networks.schedulers.{name[:4].lower()}\n"
        (diff,) = [d for text in REPORTS.values() for d in blocks(text, "diff") if d.startswith(start)]
        ends = []
        for scheduler in (getattr(schedulers, name)(1000), mended(diff)[name](1000)):
            torch.manual_seed(0)
            state = x
            for k in scheduler.timesteps[::7]:
                state, _ = scheduler.step(torch.sin(state), int(k), state)
            ends.append(state)
        torch.testing.assert_close(*ends, rtol=0, atol=2e-4)
