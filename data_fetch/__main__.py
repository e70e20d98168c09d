"""python -m data_fetch list | get NAME | import FILE | verify [NAME] | where | pack NAME FILE | unpack FILE"""

import argparse
import sys

from data_fetch import cache, download, packing
from data_fetch.errors import DataError
from data_fetch.registry import DATASETS, find


def main(arguments=None):
    """Run one verb; returns the exit status: 0, or 1 with one sentence on standard error."""
    parser = argparse.ArgumentParser(prog="python -m data_fetch", description="Fetch and check the course's data.")
    verbs = parser.add_subparsers(
        dest="verb", required=True, metavar="list | get | import | verify | where | pack | unpack"
    )
    verbs.add_parser("list", help="the data sets, their size and licence, and which are here")
    verbs.add_parser("get", help="download a data set").add_argument("name", choices=list(DATASETS))
    verbs.add_parser("import", help="take a data set from an archive or a folder on this machine").add_argument("file")
    verify = verbs.add_parser("verify", help="check what is in the cache against its checksums")
    verify.add_argument("name", nargs="?", choices=list(DATASETS))
    verbs.add_parser("where", help="the cache folder")
    pack = verbs.add_parser("pack", help="one small file of a data set, to carry to a machine without a network")
    pack.add_argument("name", choices=[name for name, dataset in DATASETS.items() if not dataset.is_built_in])
    pack.add_argument("file")
    pack.add_argument("--images", type=int, default=packing.IMAGES, help="so many of MedNIST (default: %(default)s)")
    verbs.add_parser("unpack", help="take a data set from such a file").add_argument("file")
    options = parser.parse_args(arguments)
    try:
        return _VERBS[options.verb](options)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"error: {error.filename or 'a file'} failed ({error.strerror}); check it and run again.", file=sys.stderr
        )
        return 1
    except KeyboardInterrupt:
        print("error: stopped; run the command again to go on.", file=sys.stderr)
        return 130


def _list(options):
    for dataset in DATASETS.values():
        print(f"{dataset.name:13} {_state(dataset):12} {dataset.title}\n{'':13} {dataset.contents}")
        print(f"{'':13} licence: {dataset.licence}\n{'':13} source: {dataset.citation}")
        if dataset.by_hand:
            print(f"{'':13} to get it: {dataset.by_hand}")
        print()
    return 0


def _state(dataset):
    if dataset.is_built_in:
        return "built in"
    if cache.is_ready(dataset.name):
        return "here, a part" if cache.is_part(dataset.name) else "here"
    return f"{dataset.megabytes} MB away" if dataset.url else "to be imported"


def _get(options):
    dataset = find(options.name)
    download.get(options.name)
    place = "" if dataset.is_built_in else f" in {cache.root()}"
    print(f"{dataset.title} is ready{place}. Licence: {dataset.licence}.")
    return 0


def _import(options):
    dataset, public = download.import_archive(options.file)
    print(f"{dataset.title} is ready in {cache.root()}. Licence: {dataset.licence}.")
    if public:
        print("The archive's checksum is the public one." if dataset.md5 else "What it holds is the public copy's.")
    elif dataset.content:
        print("Note: what it holds is not the public copy's, so it is as trustworthy as where you have it from.")
    elif dataset.md5:
        print(
            "Note: the archive was checked by structure and count only; its checksum is not the public one "
            f"(md5 {dataset.md5}), so it is as trustworthy as where you have it from."
        )
    return 0


def _verify(options):
    names = [options.name] if options.name else [name for name in DATASETS if cache.has_trace(name)]
    for name in names:
        if not find(name).is_built_in:
            cache.verify(name)
        print(f"{name}: intact")
    if not names:
        print(f"Nothing to verify: {cache.root()} holds no data set.")
    return 0


def _pack(options):
    print(f"{options.file}: {packing.pack(options.name, options.file, options.images) / 1e6:.1f} MB")
    return 0


def _unpack(options):
    print(f"{find(packing.unpack(options.file)).title} is ready in {cache.root()}.")
    return 0


def _where(options):
    print(cache.root())
    return 0


_VERBS = {
    "list": _list,
    "get": _get,
    "import": _import,
    "verify": _verify,
    "where": _where,
    "pack": _pack,
    "unpack": _unpack,
}

if __name__ == "__main__":
    sys.exit(main())
