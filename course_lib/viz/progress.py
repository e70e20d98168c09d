"""A line that says what runs, and for how long, while a cell runs; then it is gone.

    for name in progress.each(makers, "Training models"):       # Training models: item 3 of 4, 9 s, about 9 s left
        ...
    with progress.during("Filling the holes", 60):              # Filling the holes: about 60 s on two cores
        ...

The line is no output to keep: at the end it is cleared, and a stored notebook, its slides and its size are as without
it. `clear_output` takes away all else that the cell has shown so far, too, so these stand before a cell's first print
or figure. Where no notebook runs (a script, a test) nothing is shown.
"""

import time
from contextlib import contextmanager

__all__ = ["during", "each"]


def each(items, what):
    """Yield the items one by one, above a line with how many are done, the seconds so far and those that are left.

    `items`: anything to loop over; without a length the line counts, and foretells nothing. A loop that stops early
    leaves its last line: it says how far it came.
    """
    total = len(items) if hasattr(items, "__len__") else None
    begin = time.perf_counter()
    for done, item in enumerate(items):
        _show(f"{what}: {_state(done, total, time.perf_counter() - begin)}")
        yield item
    _clear()


@contextmanager
def during(what, seconds):
    """Show a line while the block runs: what it does, and the `seconds` that it took on two cores."""
    _show(f"{what}: about {_text(seconds)} on two cores")
    yield
    _clear()


def _state(done, total, seconds):
    """ "item 2 of 4, 5 s, about 15 s left", after `done` items in `seconds`; nothing is foretold before the first."""
    if total is None:
        return f"item {done + 1}, {_text(seconds)}"
    left = f", {_text(seconds)}, about {_text(seconds / done * (total - done))} left" if done else ""
    return f"item {done + 1} of {total}{left}"


def _text(seconds):
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _in_notebook():
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")


def _show(line):
    from IPython.display import clear_output

    if _in_notebook():
        clear_output(wait=True)  # the old line goes when the new one is there: no flicker
        print(line, flush=True)


def _clear():
    from IPython.display import clear_output

    if _in_notebook():
        clear_output()
