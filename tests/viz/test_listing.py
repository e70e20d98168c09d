"""Code beside its formula: it is the library's, whole but for the docstring."""

import inspect
import re

import pytest

from course_lib import inverse, samplers
from course_lib.viz.listing import listing


def test_it_shows_every_line_but_the_docstring():
    text = repr(listing(samplers.heun_step))
    name, _, code = text.partition("\n\n")
    assert name == "course_lib.samplers.heun_step"
    assert code.startswith("def heun_step(denoiser, x_t, t, s,") and '"""' not in code
    source = inspect.getsource(samplers.heun_step).rstrip()
    docstring = re.search(r' *""".*?"""\n', source, re.DOTALL).group()
    assert code == source.replace(docstring, "")


def test_what_is_shown_runs_and_gives_the_same():
    """Inner functions stay, and an empty line after the docstring goes."""
    code = repr(listing(inverse.ddnm)).partition("\n\n")[2]
    own = dict(vars(inverse))
    exec(code, own)
    assert own["ddnm"].__code__.co_names == inverse.ddnm.__code__.co_names
    assert "\n\n    def consistent" in code and code.splitlines()[1] != ""


def test_the_page_is_escaped_and_several_stand_in_one():
    markup = listing(inverse.dps, inverse.diffpir)._repr_mimebundle_()["text/html"]
    assert markup.count("<pre") == 2 and "course_lib.inverse.diffpir" in markup
    assert "x_s &lt;- " not in markup  # of the docstring


def test_what_is_no_function_is_refused():
    with pytest.raises(TypeError, match="functions that were written in Python"):
        listing(len)
