"""Reading what holds a data set: tar and zip archives that strangers made, a folder that one was unpacked to, an array.

Members are read into memory; nothing is ever unpacked to disk.

What an archive says of itself is not believed: a few kilobytes can announce, or unpack to, gigabytes. So tarfile and
zipfile get a stream that gives them no more than an honest archive needs, for each header and in all.
"""

import bz2
import gzip
import io
import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from data_fetch.errors import DataError, first_line, reading, shown

_MEMBER_LIMIT = 64 << 20  # bytes; the largest member of any archive here has under 2 MB
_HEADER_LIMIT = 1 << 20  # bytes that a tar spends on what stands before one member: long names, extended headers
_LIST_LIMIT = 16 << 20  # bytes of a zip's list of its members; MedNIST's has 5 MB
_TOTAL_LIMIT = 1 << 30  # bytes unpacked; MedNIST has 125 MB
_COUNT_LIMIT = 200_000  # members; MedNIST has 58,961
_DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError),
    # what the libraries raise on headers that make no sense: encrypted or nested without end, odd numbers and names
    *(RuntimeError, NotImplementedError, ValueError, struct.error, OverflowError),
)
_ARRAY = b"\x93NUMPY"
_UNPACKERS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}  # by the first bytes


def members(path):
    """Yield (name, bytes) of every regular file of a tar (plain, gzip, bzip2, xz) or zip archive, in archive order.

    Of a folder: of every file in it and in those below, but for hidden and very large ones. Of a NumPy file (.npy): of
    that file itself.

    Raises DataError when the file is missing, cannot be read, is no archive, is cut off or damaged, or holds what no
    honest archive of images holds: an absolute path, a path with "..", a file without a name, a link, a device, a
    member of more than 64 MiB, headers of more than 1 MiB, more than 1 GiB or 200,000 members in all.
    """
    path = Path(path)
    if path.is_dir():
        yield from _folder_members(path)
        return
    if not path.is_file():
        raise DataError(f"There is no file {path}; check the path of the archive.")
    with reading(path, "check the rights of the file and the disk that it is on"), open(path, "rb") as file:
        try:
            is_array = file.read(6) == _ARRAY
            file.seek(0)
            is_zip = not is_array and zipfile.is_zipfile(file)
            file.seek(0)
            kind = _array_member if is_array else _zip_members if is_zip else _tar_members
            yield from kind(path, file)
        except _DAMAGE as error:
            if isinstance(error, OSError) and error.errno:  # the system's own error, not a library's
                raise
            raise _damaged(path, first_line(error)) from error


def nifti(name, content, limit, check, dtype):
    """Voxels (X, Y, Z) of that type, and the affine (4, 4), of a member of an archive, by its name and its bytes: a
    compressed NIfTI file.

    limit : bytes that it may unpack to. check(image) raises DataError for a header that is not the expected one. Raises
    DataError, too, where the file cannot be read, is larger, or has voxels that are NaN, infinite or beyond that type.
    """
    import nibabel

    try:
        with gzip.open(io.BytesIO(content)) as file:
            unpacked = file.read(limit + 1)
        if len(unpacked) > limit:
            raise ValueError(f"it unpacks to more than {limit >> 20} MB")
        image = nibabel.Nifti1Image.from_bytes(unpacked)
        check(image)
        with np.errstate(over="ignore"):  # what the type cannot hold becomes infinite, and is refused
            voxels = image.get_fdata(dtype=dtype)
    except DataError:
        raise
    except Exception as error:  # nibabel raises many kinds on damaged headers
        raise refused(name, f"is no readable NIfTI file ({first_line(error)})") from error
    if not np.isfinite(voxels).all():
        raise refused(name, "has voxels that are NaN or infinite")
    return voxels, image.affine


def refused(name, why):
    """A DataError that says why a member of an archive is not what it should be."""
    return DataError(f"{shown(name)} in the archive {why}; get the archive anew.")


class _Bounded(io.RawIOBase):
    """A stream to be read, of which `allow` says how many bytes may come next; beyond them, or beyond the limit of the
    whole, `read` raises DataError, and before it makes room for what was asked."""

    def __init__(self, path, stream):
        super().__init__()
        self._path, self._stream, self._left = path, stream, 0

    def allow(self, count):
        self._left = count

    def read(self, size=-1):
        if size > self._left:
            raise _unexpected(self._path, "a header or list in it is far too long")
        content = self._stream.read(size if size >= 0 else self._left + 1)
        self._left -= len(content)
        if self._left < 0 or self._stream.tell() > _TOTAL_LIMIT:
            raise _unexpected(self._path, f"it unpacks to more than {_TOTAL_LIMIT >> 20} MB")
        return content

    def seek(self, place, whence=io.SEEK_SET):
        if whence == io.SEEK_SET and place > _TOTAL_LIMIT:
            raise _unexpected(self._path, f"it unpacks to more than {_TOTAL_LIMIT >> 20} MB")
        return self._stream.seek(place, whence)

    def tell(self):
        return self._stream.tell()

    def readable(self):
        return True

    def seekable(self):
        return True


def _folder_members(path):
    """What lies on this machine is unpacked already, and no bomb: what is too large for a data set is passed over."""
    top = path.resolve().name
    for folder, below, names in os.walk(path):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for file in (Path(folder, name) for name in sorted(names) if not name.startswith(".")):
            with reading(file, "check its rights"):
                if not file.is_file() or file.stat().st_size > _MEMBER_LIMIT:
                    continue
                content = file.read_bytes()
            yield f"{top}/{file.relative_to(path).as_posix()}", content


def _array_member(path, file):
    _refuse_huge(path, path.name, path.stat().st_size)
    yield f"{path.stem}.npy", file.read()


def _tar_members(path, file):
    start = file.read(6)
    file.seek(0)
    unpack = next((unpack for magic, unpack in _UNPACKERS.items() if start.startswith(magic)), None)
    stream = _Bounded(path, unpack(file) if unpack else file)
    stream.allow(_HEADER_LIMIT)
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        for count, member in enumerate(archive):
            _refuse_outside(path, member.name)
            _refuse_many(path, count)
            if not (member.isdir() or member.isreg()) or member.issparse():
                raise DataError(
                    f"{path} is refused: {shown(member.name)} in it is a link or a device, and no regular file; get "
                    "the archive anew."
                )
            if member.isreg():
                _refuse_nameless(path, member.name)
                _refuse_huge(path, member.name, member.size)
                stream.allow(member.size)
                yield _plain(member.name), archive.extractfile(member).read()
            stream.allow(_HEADER_LIMIT)
        # tarfile takes a missing end mark for the end: only reading to the end of the stream shows a cut gzip
        stream.allow(_TOTAL_LIMIT)
        while stream.read(_HEADER_LIMIT):
            pass


def _zip_members(path, file):
    stream = _Bounded(path, file)
    stream.allow(_LIST_LIMIT)
    total = 0
    with zipfile.ZipFile(stream) as archive:
        for count, member in enumerate(archive.infolist()):
            _refuse_outside(path, member.filename)
            _refuse_many(path, count)
            if member.filename and member.is_dir():
                continue
            _refuse_nameless(path, member.filename)
            _refuse_huge(path, member.filename, member.file_size)
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                # zipfile unpacks bzip2 and LZMA without a limit
                raise DataError(
                    f"{path} is refused: {shown(member.filename)} in it is packed in an unusual way; unpack it and "
                    "make a common zip or tar archive of the folder."
                )
            total += member.file_size
            if total > _TOTAL_LIMIT:
                raise _unexpected(path, f"it unpacks to more than {_TOTAL_LIMIT >> 20} MB")
            stream.allow(_MEMBER_LIMIT + _HEADER_LIMIT)
            with archive.open(member) as unpacked:
                # never more than was said, whatever comes; `read()` without a number would unpack all of it first
                content = unpacked.read(member.file_size)
                unpacked.read(1)  # checks the sum where nothing had to be read
            if len(content) != member.file_size:
                raise _damaged(path, f"{shown(member.filename)} is shorter than its entry says")
            yield _plain(member.filename), content


def _plain(name):
    return str(PurePosixPath(name))  # "./a//b" -> "a/b"


def _refuse_outside(path, name):
    path_there = PureWindowsPath(name)  # understands both kinds of slash and drive letters
    if path_there.anchor or ".." in path_there.parts:
        raise DataError(
            f"{path} is refused: {shown(name)} in it points outside the archive; get it from a source you trust."
        )


def _refuse_nameless(path, name):
    if not PurePosixPath(name).parts:
        raise _unexpected(path, f"a file in it has no name, just {shown(name)}")


def _refuse_huge(path, name, size):
    if size < 0:  # a tar can say so, and would be read in a circle
        raise _damaged(path, f"{shown(name)} has less than no bytes")
    if size > _MEMBER_LIMIT:
        raise _unexpected(path, f"{shown(name)} in it has {size >> 20} MB")


def _refuse_many(path, count):
    if count >= _COUNT_LIMIT:
        raise _unexpected(path, f"it has more than {_COUNT_LIMIT:,} members")


def _damaged(path, why):
    return DataError(f"{path} is cut off, damaged or no tar or zip archive ({why}); copy or download it again.")


def _unexpected(path, why):
    return DataError(f"{path} is refused: {why}; this is not the expected archive.")
