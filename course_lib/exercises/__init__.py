"""Exercises, one module a notebook: `from course_lib.exercises import nb03 as ex`, then `ex.q1.check(...)`."""
