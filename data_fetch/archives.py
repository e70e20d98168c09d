"""Reading tar and zip archives that strangers made. Members are read into memory; nothing is ever unpacked to disk."""

import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from data_fetch.errors import DataError, first_line

_MEMBER_LIMIT = 64 << 20  # bytes; the largest member of any archive here has under 2 MB, so this stops archive bombs
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError)


def members(path):
    """Yield (name, bytes) of every regular file of a tar (plain, gzip, bzip2, xz) or zip archive, in archive order.

    Raises DataError when the file is missing, is no archive, is cut off or damaged, or holds a member that no honest
    archive of images holds: an absolute path, a path with "..", a link, a device, or more than 64 MiB.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"There is no file {path}; check the path of the archive.")
    try:
        is_zip = zipfile.is_zipfile(path)
        yield from _zip_members(path) if is_zip else _tar_members(path)
    except _DAMAGE as error:
        raise DataError(
            f"{path} is cut off, damaged or no tar or zip archive ({first_line(error)}); copy or download it again."
        ) from error


def _tar_members(path):
    with tarfile.open(path, "r:*") as archive:
        for member in archive:
            if member.isdir():
                _refuse_outside(path, member.name)
                continue
            if not member.isreg():
                raise DataError(
                    f"{path} is refused: {member.name!r} in it is a link or a device; get the archive anew."
                )
            _refuse_outside(path, member.name)
            _refuse_huge(path, member.name, member.size)
            yield _plain(member.name), archive.extractfile(member).read()
        # tarfile takes a missing end mark for the end: only reading to the end of the stream shows a cut gzip
        _read_to_end(archive.fileobj)


def _zip_members(path):
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            _refuse_outside(path, member.filename)
            if member.is_dir():
                continue
            _refuse_huge(path, member.filename, member.file_size)
            yield _plain(member.filename), archive.read(member)


def _read_to_end(stream):
    while stream.read(1 << 20):
        pass


def _plain(name):
    return str(PurePosixPath(name))  # "./a//b" -> "a/b"


def _refuse_outside(path, name):
    path_there = PureWindowsPath(name)  # understands both kinds of slash and drive letters
    if path_there.anchor or ".." in path_there.parts:
        raise DataError(
            f"{path} is refused: {name!r} in it points outside the archive; get it from a source you trust."
        )


def _refuse_huge(path, name, size):
    if size > _MEMBER_LIMIT:
        raise DataError(f"{path} is refused: {name!r} in it has {size >> 20} MB; this is not the expected archive.")
