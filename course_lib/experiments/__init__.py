"""Measurements that take too long for a notebook: one study a module, each with its record in ``records``.

:func:`load`, :func:`tensors` and :func:`pictures` read a record, and import no study. ``python -m
course_lib.experiments NAME`` measures what it lacks.
"""

from course_lib.experiments.record import load, pictures, tensors

__all__ = ["load", "pictures", "tensors"]
