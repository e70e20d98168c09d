"""The lines of the library beside the formula that they compute: taken from the code itself, so the two cannot drift.

listing(inverse.dps)
"""

import ast
import html
import inspect
import textwrap

from course_lib.viz.html import Page

__all__ = ["listing"]

LOOK = "color:inherit;background:none;font-size:14px;line-height:1.35;overflow-x:auto;margin:4px 0 12px"


def listing(*functions):
    """The code of functions, without their docstrings, each below the name of its module: a Page.

    Raises TypeError for what is no function that was written in Python.
    """
    parts = [(f"{function.__module__}.{function.__qualname__}", _code(function)) for function in functions]
    shown = [f"<b>{html.escape(name)}</b><pre style='{LOOK}'>{html.escape(code)}</pre>" for name, code in parts]
    return Page(
        f'<div class="course-listing">{"".join(shown)}</div>', "\n\n".join(f"{name}\n\n{code}" for name, code in parts)
    )


def _code(function):
    """The lines of a function from `def` on, without its docstring and the empty line after it."""
    if not inspect.isfunction(function):
        raise TypeError(f"listing shows functions that were written in Python; got {function!r:.80}")
    code = textwrap.dedent(inspect.getsource(function))
    node = ast.parse(code).body[0]
    lines = code.rstrip().splitlines()
    first = node.body[0]
    if ast.get_docstring(node, clean=False) is not None:
        lines[first.lineno - 1 : first.end_lineno] = []
        while lines[first.lineno - 1 : first.lineno] == [""]:
            del lines[first.lineno - 1]
    return "\n".join(lines[node.lineno - 1 :])
