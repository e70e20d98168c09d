"""One exception for everything that can go wrong with data, each with one sentence: what, which file, what to do."""

import errno
from contextlib import contextmanager

_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EISDIR}
_FULL = {errno.ENOSPC, errno.EDQUOT} if hasattr(errno, "EDQUOT") else {errno.ENOSPC}


class DataError(Exception):
    """Data cannot be fetched, read or stored. The message is one sentence that names the file and the remedy."""


def first_line(error):
    """What another library's exception says, short enough to stand in brackets."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")


def shown(name, most=80):
    """A name from a stranger's file as it may stand in a sentence: quoted, on one line, and not too long."""
    name = str(name)
    return repr(name if len(name) <= most else name[: most - 3] + "...")


@contextmanager
def reading(path, remedy):
    """Turn the operating system's errors while reading `path` into a `DataError` that ends in the remedy."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or first_line(error)}); {remedy}.") from error


@contextmanager
def storage(folder):
    """Turn the operating system's errors while writing under `folder` into one `DataError` each."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DataError(
                f"The disk is full: {folder} could not be written; free some space, or set COURSE_DATA to a folder "
                "on another disk, and run the command again (what was there before is intact)."
            ) from error
        if error.errno in _READ_ONLY:
            raise DataError(
                f"The cache folder {folder} cannot be written ({error.strerror}); set COURSE_DATA to a folder that "
                "you may write to and run the command again."
            ) from error
        raise DataError(
            f"Writing to {folder} failed ({error.strerror or error}); check the disk, or set COURSE_DATA to another "
            "folder, and run the command again."
        ) from error
