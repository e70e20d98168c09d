"""A learner's answer may loop, fill the memory or print without end: `limited` ends all three.

The answer runs in a thread of its own. That works in a Jupyter kernel on Linux, macOS and Windows; a signal would work
on the first two only, and would wait for the end of a long product of matrices as well. After SECONDS an exception is
raised inside the thread, which ends any loop written in Python. Two things remain:

- A single long call into compiled code cannot be broken off. If it lets other threads run (sleep, most of NumPy and
  PyTorch), the check ends in time, says that the answer goes on in the background, and the exception waits for the
  call's end. The same holds for a loop with a bare `except:` inside.
- If it does not (`10**10**9`, `sum(itertools.count())`), no part of Python can act: only a restart of the kernel helps.
  `list(itertools.count())` ends at the limit of memory, after some seconds.

Memory is limited on Linux, which Colab is too, where the system would otherwise end the whole kernel. Elsewhere the
system's own limit holds.
"""

import contextlib
import ctypes
import io
import sys
import threading
import time

__all__ = ["BYTES", "LETTERS", "SECONDS", "Stop", "TooLong", "counted", "limited"]

SECONDS = 2.5  # of the answer itself; what a check works out besides does not count
BYTES = 2 * 2**30  # beyond what the kernel has already
LETTERS = 5000  # of what an answer prints


class TooLong(Exception):
    """The answer ran for longer than SECONDS. `stopped` is false if it goes on in the background."""

    def __init__(self, stopped):
        super().__init__(stopped)
        self.stopped = stopped


class Stop(BaseException):
    """Raised inside the answer's thread. No Exception, so that an answer's `except Exception:` lets it through."""


class _Clock:
    """Seconds that passed while it ran. One thread starts and stops it, another reads it."""

    def __init__(self):
        self._state = 0.0, time.monotonic()  # seconds so far, and since when it runs: changed together

    @property
    def runs(self):
        return self._state[1] is not None

    def seconds(self):
        before, since = self._state
        return before if since is None else before + time.monotonic() - since

    def run(self, on):
        self._state = self.seconds(), time.monotonic() if on else None


_here = threading.local()


@contextlib.contextmanager
def counted(on):
    """Whether the time within counts against the answer: its own work does, that of the check's author does not."""
    clock = getattr(_here, "clock", None)
    if clock is None:
        yield
        return
    before = clock.runs
    clock.run(on)
    try:
        yield
    finally:
        clock.run(before)


def limited(work):
    """work() -> its result, or the exception that it raised. Raises TooLong after SECONDS."""
    outcome, clock = [], _Clock()

    def run():
        _here.clock = clock
        try:  # a second Stop may arrive while the first is handled
            try:
                outcome.append((work(), None))
            except Stop:
                pass
            except BaseException as error:  # SystemExit, too, would otherwise end the thread without a word
                outcome.append((None, error))
        except Stop:
            pass

    worker = threading.Thread(target=run, name="an answer", daemon=True)
    with contextlib.redirect_stdout(_Brief(sys.stdout)), _memory_limit():
        worker.start()
        try:
            while worker.is_alive() and clock.seconds() < SECONDS:
                worker.join(0.05)
        finally:  # also when the learner interrupts the kernel
            stopped = _stop(worker)
    if not outcome:
        raise TooLong(stopped)
    result, error = outcome[0]
    if error is not None:
        raise error
    return result


def _stop(worker):
    """End the thread if it still runs -> whether it ended. An answer may catch the first exception: try again."""
    for seconds in (0.2, 0.1):
        if worker.is_alive():
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(worker.ident), ctypes.py_object(Stop))
            worker.join(seconds)
    return not worker.is_alive()


@contextlib.contextmanager
def _memory_limit():
    """Let requests for more than BYTES fail at once, as MemoryError, while this holds."""
    if sys.platform != "linux":
        yield
        return
    import resource

    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    ceilings = [limit for limit in (soft, hard, used + BYTES) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(ceilings), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


class _Brief(io.TextIOBase):
    """A stream that passes on the first LETTERS characters and then falls silent."""

    def __init__(self, stream):
        self._stream, self._left = stream, LETTERS

    def write(self, text):
        if self._left > 0:
            self._stream.write(text[: self._left])
            self._left -= len(text)
            if self._left <= 0:
                self._stream.write("\n[The rest of what your answer prints is left out.]\n")
        return len(text)

    def flush(self):
        self._stream.flush()
