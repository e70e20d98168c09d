"""Getting a data set: a resumable, verified, atomic download, or the import of an archive that is already here."""

import hashlib
import http.client
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path, PurePosixPath

import numpy as np

from data_fetch import archives, brain_tumours, cache, hippocampus, lidc, mednist, ms_lesions, raw_mri
from data_fetch.errors import DataError, reading, storage
from data_fetch.registry import DATASETS, find

_PACKERS = {module.NAME: module.pack for module in (mednist, hippocampus, lidc, ms_lesions, brain_tumours, raw_mri)}
_BLOCK = 1 << 18  # bytes between two steps of the progress bar
_ATTEMPTS = 4  # in a row without a byte of progress
_PAUSE = 1.0  # seconds before the second attempt; doubles each time
_TIMEOUT = 30.0  # seconds without a byte before an attempt is given up
_ROOM = 2_000_000  # bytes of a download for each megabyte that the list of data sets states: twice as many
_TRANSIENT = (OSError, http.client.HTTPException)  # OSError: no address, no route, reset, timed out, bad certificate


def get(name):
    """Put data set `name` into the cache, downloading its public archive or files unless intact ready arrays are there.

    What is built in is there already. Raises DataError: no public address, no network, wrong checksum or content, full
    disk, read-only cache, unknown name.
    """
    dataset = find(name)
    if name not in _PACKERS:
        return
    if _is_intact(name):
        return
    if dataset.url is None:
        by_hand = dataset.by_hand or "run `python -m data_fetch import FILE` on its archive"
        raise DataError(f"{dataset.title} has no public address: {by_hand}.")
    with cache.locked(name):
        if _is_intact(name):  # made by the process that we waited for
            return
        archive, limit = _archive(dataset), dataset.megabytes * _ROOM
        for path, md5 in dataset.files:
            if not _has(archive / path, md5):
                download(f"{dataset.url}/{path}", archive / path, md5, limit)
        if not dataset.files:
            download(dataset.url, archive, dataset.md5, limit)
        _ingest(archive, dataset, known=bool(dataset.md5 or dataset.files), downloaded=True)


def _has(path, md5):
    """Whether a file is there with this checksum."""
    return path.is_file() and cache.digest(path, "md5") == md5


def _is_intact(name):
    """Whether the cache has the whole data set, and as it was written."""
    with suppress(DataError):  # changed on disk, or not to be read
        if cache.is_ready(name) and not cache.is_part(name):
            cache.verify(name)
            return True
    return False


def import_archive(path):
    """Put the data set that a local archive, folder or array holds into the cache.

    Returns (DataSet, whether its md5, or what it holds, is that of the public one). It is recognised by its top folder
    or the names in it and checked by structure and count. Raises DataError when it is no known data set, incomplete,
    damaged or unsafe, or when the cache cannot be written; what the cache held stays.
    """
    dataset = _recognise(path)
    with reading(path, "check the rights of the file and the disk that it is on"):
        known = Path(path).is_file() and cache.digest(path, "md5") == dataset.md5
    with cache.locked(dataset.name):
        return dataset, _ingest(path, dataset, known)


def _recognise(path):
    for name, _ in archives.members(path):
        for dataset in DATASETS.values():
            has_folder = dataset.folder and PurePosixPath(name).parts[0] == dataset.folder
            if has_folder or (dataset.names and re.match(dataset.names, name)):
                return dataset
    titles = "; ".join(dataset.title for dataset in DATASETS.values() if not dataset.is_built_in)
    raise DataError(f"{path} is none of the course's data sets ({titles}); check the file.")


def _ingest(path, dataset, known, downloaded=False):
    """Pack and store what `path` holds; returns whether it is the public copy.

    known: whether checksums say that it is; else what it holds may say so. What was downloaded must be the public copy.
    """
    members = _progress(archives.members(path), f"reading {Path(path).name}")
    arrays, facts = _PACKERS[dataset.name](members, dataset)
    public = known or fingerprint(arrays) == dataset.content
    if downloaded and not public:
        _remove(dataset)
        raise DataError(
            f"What came from {dataset.url} is not the published {dataset.title} and was thrown away; run the command "
            "again, and if it repeats, get it elsewhere and use `python -m data_fetch import FILE`."
        )
    cache.save(dataset.name, arrays, public_checksum=public, licence=dataset.licence, **facts)
    _remove(dataset)  # the ready arrays carry their own checksums: neither an archive nor a part is needed any more
    return public


def fingerprint(arrays):
    """sha256 of arrays {name: array}: names, types, shapes and numbers, in the order of the names."""
    checksum = hashlib.sha256(usedforsecurity=False)
    for key, array in sorted(arrays.items()):
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        checksum.update(f"{key} {array.dtype.str} {array.shape}\n".encode())
        checksum.update(array.data)
    return checksum.hexdigest()


def _remove(dataset):
    """Delete what was downloaded of a data set, whole or in part."""
    if dataset.url is None:
        return
    if dataset.files:
        shutil.rmtree(_archive(dataset), ignore_errors=True)
    for leftover in (_archive(dataset), _part(_archive(dataset))):
        with suppress(OSError):
            leftover.unlink()


def _archive(dataset):
    """Where the downloaded archive of a data set, or the folder of its files, waits to be read."""
    return cache.root() / "downloads" / PurePosixPath(dataset.url).name


def _part(target):
    """Where what has arrived of a download waits for the rest."""
    return Path(f"{target}.part")


def _progress(iterable, label):
    from tqdm import tqdm

    return tqdm(iterable, desc=label, unit=" files", mininterval=0.5, leave=False)


def download(url, target, md5, limit=None):
    """Download `url` to `target`; afterwards `target` is whole and has checksum `md5`, or it is as it was before.

    md5: None where the archive is packed anew for each download, so that what it holds must be checked instead.
    limit: bytes beyond which the file cannot be the one that is meant; nothing more is fetched, nothing is kept.

    What has arrived waits in `target`.part, and a later call goes on from there (HTTP Range). Network faults are tried
    again with growing pauses. Raises DataError with the remedy.
    """
    part = _part(target)
    with storage(part.parent):
        part.parent.mkdir(parents=True, exist_ok=True)
        if limit is not None and part.exists() and part.stat().st_size > limit:
            part.unlink()
        if md5 is None:
            part.unlink(missing_ok=True)  # the rest would be of another packing
    resumed = part.exists() and part.stat().st_size > 0
    _fetch_all(url, part, limit)
    if resumed and not _has(part, md5):
        part.unlink()  # the first half may be of another version or damaged: once more, from the start
        _fetch_all(url, part, limit)
    if md5 is not None and not _has(part, md5):
        part.unlink()
        raise DataError(
            f"The file from {url} does not have the published checksum (md5 {md5}) and was thrown away; run the "
            "command again, and if it repeats, get the archive elsewhere and use `python -m data_fetch import FILE`."
        )
    with storage(part.parent):
        os.replace(part, target)


def _fetch_all(url, part, limit):
    """Append to `part` until it is as long as the server says."""
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            return _fetch_rest(url, part, limit)
        except _TRANSIENT as error:
            if isinstance(error, urllib.error.HTTPError) and error.code < 500 and error.code not in (408, 429):
                raise DataError(
                    f"{url} answers {error.code} {error.reason}; the address may have moved: get the archive elsewhere "
                    "and use `python -m data_fetch import FILE`."
                ) from error
            moved = part.exists() and part.stat().st_size > before
            failures = 0 if moved else failures + 1
            if failures == _ATTEMPTS:
                raise DataError(
                    f"{url} cannot be reached ({getattr(error, 'reason', error) or 'connection lost'}); check the "
                    "network and run the command again (it goes on where it stopped), or copy the archive from another "
                    "machine and use `python -m data_fetch import FILE`."
                ) from error
            time.sleep(_PAUSE * 2 ** max(failures - 1, 0))


def _fetch_rest(url, part, limit):
    """One request for what is missing after the bytes of `part`; raises ConnectionError when it ends early."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing after these bytes: whole, or too long; the checksum decides
            return
        raise
    with response:
        if response.status != 206:
            have = 0  # the server ignores Range and sends everything
        length = response.headers.get("Content-Length", "")
        total = have + int(length) if re.fullmatch("[0-9]{1,18}", length) else None
        _refuse_huge(url, part, max(have, total or 0), limit)
        with _open_part(part, "ab" if have else "wb") as file, _bar(part.stem, have, total) as bar:
            while block := response.read(_BLOCK):
                _refuse_huge(url, part, have + len(block), limit)
                with storage(part.parent):
                    file.write(block)
                    file.flush()
                have += len(block)
                bar.update(len(block))
    if total is not None and have < total:
        raise ConnectionError(f"connection lost after {have} of {total} bytes")


def _refuse_huge(url, part, size, limit):
    """DataError, without what came so far, where a download is or would be larger than it can be."""
    if limit is not None and size > limit:
        with storage(part.parent):
            part.unlink(missing_ok=True)
        raise DataError(
            f"The file from {url} has more than {limit / 1e6:.0f} MB, is not the one that was meant and was deleted; "
            "get the archive elsewhere and use `python -m data_fetch import FILE`."
        )


def _open_part(part, mode):
    with storage(part.parent):
        return open(part, mode)


def _bar(label, done, total):
    from tqdm import tqdm

    return tqdm(desc=label, initial=done, total=total, unit="B", unit_scale=True, unit_divisor=1024)
