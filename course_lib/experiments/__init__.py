"""Measurements that take too long for a notebook: one study a module, each with its record in ``records``.

:func:`load` reads a record, and imports no study; ``python -m course_lib.experiments NAME`` measures what it lacks.
"""

from course_lib.experiments.record import load

__all__ = ["load"]
