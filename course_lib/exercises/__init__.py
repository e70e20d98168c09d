"""Exercises, one module a notebook: `from course_lib.exercises import nb03 as ex`, then `ex.q1.check(...)`.

`engine` makes the questions of a module, `exercise` grades an answer and shows what was found, `reading` takes answers
in any form, `limits` ends those that never would; `objectives` says what each exercise is for.
"""
