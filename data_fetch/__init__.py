"""Data of the course: what there is (`registry`), how it gets here (`download`), and how it is read (the rest).

Nothing here imports torch, MONAI or `course_lib`; heavy libraries are imported inside the functions that need them.
"""

from data_fetch.errors import DataError

__all__ = ["DataError"]
