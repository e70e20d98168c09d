"""Downloads from a local server that can cut, refuse, slow down or change what it sends."""

import errno
import hashlib
import http.server
import re
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from helpers.archives import (
    COUNTS,
    MS_GRID,
    fails,
    kspace,
    lidc_members,
    mednist_members,
    ms_members,
    npy,
    snapshot,
    write_tar,
)

from data_fetch import DataError, __main__, archives, cache, download, lidc, mednist, ms_lesions, raw_mri, registry


class Server(http.server.ThreadingHTTPServer):
    """Serves the bytes of `files` by path, one byte string under every other; `faults` holds one action for each of the
    next requests."""

    def __init__(self, content):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.faults, self.ranges, self.with_range, self.length = content, [], [], True, True
        self.files, self.paths = {}, []
        self.url = f"http://127.0.0.1:{self.server_port}/MedNIST.tar.gz"

    def handle_error(self, request, address):
        """A client that hangs up early is no fault of the server's."""


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        content = server.files.get(self.path, server.content)
        server.ranges.append(wanted)
        server.paths.append(self.path)
        fault = server.faults.pop(0) if server.faults else None
        if isinstance(fault, int) and fault >= 400:
            return self.send_error(fault)
        start = int(re.match(r"bytes=(\d+)-", wanted)[1]) if wanted and server.with_range else 0
        if start >= len(content):
            return self.send_error(416)
        body = content[start:]
        self.send_response(206 if wanted and server.with_range else 200)
        if server.length is not None:
            self.send_header("Content-Length", str(len(body)) if server.length is True else server.length)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)
        self.wfile.flush()
        if fault == "cut":
            self.connection.close()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "_PAUSE", 0.01)
    content = write_tar(tmp_path / "source.tar.gz", mednist_members()).read_bytes()
    server = Server(content)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    known = replace(registry.DATASETS["mednist"], url=server.url, md5=hashlib.md5(content).hexdigest(), counts=COUNTS)
    monkeypatch.setitem(registry.DATASETS, "mednist", known)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def parts():
    return cache.root() / "downloads" / "MedNIST.tar.gz.part"


def test_get_then_nothing_to_do(server, capsys):
    assert __main__.main(["get", "mednist"]) == 0
    assert "CC BY-SA" in capsys.readouterr().out
    assert len(mednist.load("all")[0]) == sum(COUNTS.values())
    assert cache.manifest("mednist")["public_checksum"] is True
    assert list((cache.root() / "downloads").iterdir()) == []
    assert __main__.main(["get", "mednist"]) == 0
    assert server.ranges == [None]


def test_connection_lost_twice_goes_on_where_it_stopped(server):
    server.faults = ["cut", "cut"]
    download.get("mednist")
    size = len(server.content)
    assert server.ranges[0] is None
    assert server.ranges[1] == f"bytes={size // 2}-"
    assert len(server.ranges) == 3
    assert mednist.is_available()


def test_a_later_run_goes_on_where_an_earlier_one_was_killed(server):
    parts().parent.mkdir(parents=True)
    parts().write_bytes(server.content[:1000])
    download.get("mednist")
    assert server.ranges == ["bytes=1000-"]


def test_what_a_killed_download_left_goes_once_the_data_are_there(server, tmp_path):
    """Got elsewhere and imported: the part has nothing to wait for."""
    parts().parent.mkdir(parents=True)
    parts().write_bytes(server.content[:1000])
    download.import_archive(tmp_path / "source.tar.gz")
    assert list(parts().parent.iterdir()) == []


def test_server_that_ignores_range(server):
    server.with_range = False
    parts().parent.mkdir(parents=True)
    parts().write_bytes(server.content[:1000])
    download.get("mednist")
    assert mednist.is_available()


@pytest.mark.parametrize("leftover", ["garbage", "whole", "too long"])
def test_leftovers_of_any_kind(server, leftover):
    parts().parent.mkdir(parents=True)
    content = {"garbage": b"x" * 1000, "whole": server.content, "too long": server.content + b"x"}[leftover]
    parts().write_bytes(content)
    download.get("mednist")
    assert mednist.is_available()


def test_server_errors_are_tried_again(server):
    server.faults = [503, 500, 429]
    download.get("mednist")
    assert len(server.ranges) == 4


def test_moved_address_fails_at_once(server, capsys):
    server.faults = [404]
    message = fails(capsys, "get", "mednist")
    assert "404" in message
    assert server.url in message
    assert "import FILE" in message
    assert len(server.ranges) == 1


def test_tampered_download_is_thrown_away(server, capsys):
    server.content = server.content[:-1] + bytes([server.content[-1] ^ 1])
    message = fails(capsys, "get", "mednist")
    assert "published checksum" in message
    assert server.url in message
    assert not mednist.is_available()
    assert not parts().exists()


def test_tampered_download_leaves_what_was_there(server, capsys):
    download.get("mednist")
    path = next(cache.root().glob("mednist-images-*.npy"))
    path.write_bytes(path.read_bytes()[:-1] + b"?")  # so that `get` has something to do
    before = snapshot(cache.root())
    server.content += b"x"
    fails(capsys, "get", "mednist")
    assert snapshot(cache.root()) == before


def test_get_mends_a_changed_cache(server):
    download.get("mednist")
    path = next(cache.root().glob("mednist-images-*.npy"))
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    download.get("mednist")
    cache.verify("mednist")


def test_no_network(server, capsys, monkeypatch):
    closed = replace(registry.DATASETS["mednist"], url="http://127.0.0.1:9/MedNIST.tar.gz")
    monkeypatch.setitem(registry.DATASETS, "mednist", closed)
    message = fails(capsys, "get", "mednist")
    assert "cannot be reached" in message
    assert "import FILE" in message
    assert closed.url in message


def test_silent_server_times_out(server, capsys, monkeypatch):
    import socket

    monkeypatch.setattr(download, "_TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/MedNIST.tar.gz"
        monkeypatch.setitem(registry.DATASETS, "mednist", replace(registry.DATASETS["mednist"], url=url))
        assert "cannot be reached" in fails(capsys, "get", "mednist")


@pytest.mark.parametrize("length", [True, None, "", "many", "1" * 5000, str(1 << 40), "-5"])
def test_a_download_larger_than_it_can_be_is_left_and_deleted(length, server, capsys, monkeypatch):
    """Whatever the server says of its length, or does not say."""
    monkeypatch.setitem(registry.DATASETS, "mednist", replace(registry.DATASETS["mednist"], megabytes=1))
    server.content, server.length = bytes(9_000_000), length
    message = fails(capsys, "get", "mednist")
    assert "more than 2 MB" in message or "cannot be reached" in message
    assert "import FILE" in message
    assert list((cache.root() / "downloads").iterdir()) == []


def test_a_part_larger_than_it_can_be_is_begun_anew(server, monkeypatch):
    monkeypatch.setitem(registry.DATASETS, "mednist", replace(registry.DATASETS["mednist"], megabytes=1))
    parts().parent.mkdir(parents=True)
    parts().write_bytes(bytes(3_000_000))
    download.get("mednist")
    assert server.ranges == [None]
    assert mednist.is_available()


@pytest.mark.parametrize("length", ["", "many", "-5"])
def test_a_length_that_is_none_does_not_matter(length, server):
    server.length = length
    download.get("mednist")
    assert mednist.is_available()


def test_four_at_once_fetch_it_once(server, tmp_path):
    """Processes, not threads: the first fetches, the others wait and find it there."""
    code = f"""
import dataclasses
from data_fetch import download, registry
known = registry.DATASETS["mednist"]
changed = dict(url={server.url!r}, md5={registry.DATASETS["mednist"].md5!r}, counts={COUNTS!r})
registry.DATASETS["mednist"] = dataclasses.replace(known, **changed)
download.get("mednist")
"""
    command = [sys.executable, "-c", code]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for process in processes:
        message = process.communicate(timeout=120)[1]
        assert process.returncode == 0, message
    assert server.ranges == [None]
    cache.verify("mednist")
    assert list((cache.root() / "downloads").iterdir()) == []


class FullDisk:
    def __init__(self, file, room):
        self.file, self.room = file, room

    def __enter__(self):
        return self

    def __exit__(self, *arguments):
        self.file.close()

    def write(self, block):
        if len(block) > self.room:
            self.file.write(block[: self.room])
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= len(block)
        return self.file.write(block)

    def flush(self):
        self.file.flush()


def test_full_disk_keeps_what_came_and_the_next_run_goes_on(server, capsys, monkeypatch):
    with monkeypatch.context() as limited:
        real = download._open_part
        limited.setattr(download, "_BLOCK", 256)
        limited.setattr(download, "_open_part", lambda part, mode: FullDisk(real(part, mode), 700))
        message = fails(capsys, "get", "mednist")
        assert "disk is full" in message
        assert "downloads" in message
    assert len(server.ranges) == 1  # no point in trying again
    assert parts().stat().st_size == 700
    download.get("mednist")
    assert server.ranges[1] == "bytes=700-"


def test_read_only_cache(server, capsys, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(download, "open", refuse, raising=False)
    message = fails(capsys, "get", "mednist")
    assert "cannot be written" in message
    assert "Read-only" in message
    assert "COURSE_DATA" in message
    assert server.ranges == [None]


def test_interrupt_is_no_traceback(server, capsys, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "_fetch_rest", stop)
    assert "run the command again" in fails(capsys, "get", "mednist")


def test_existing_target_stays_until_the_new_one_is_whole(server, tmp_path):
    target = tmp_path / "archive"
    target.write_bytes(b"old")
    with pytest.raises(DataError, match="checksum"):
        download.download(server.url, target, "0" * 32)
    assert target.read_bytes() == b"old"


# --- sets that are no archive with a checksum


def test_one_array_is_fetched_like_an_archive(server, monkeypatch):
    server.content = npy(kspace())
    md5 = hashlib.md5(server.content).hexdigest()
    known = replace(registry.DATASETS["raw_mri"], url=server.url.replace("MedNIST.tar.gz", "k.npy"), md5=md5)
    monkeypatch.setitem(registry.DATASETS, "raw_mri", known)
    server.faults = ["cut"]
    download.get("raw_mri")
    assert server.ranges == [None, f"bytes={len(server.content) // 2}-"]
    assert raw_mri.load().shape == (8, 230, 180)
    assert list((cache.root() / "downloads").iterdir()) == []


@pytest.fixture
def many_files(server, monkeypatch):
    """The MS data as files of the server: {path: bytes}."""
    members = {name.partition("/")[2]: content for name, content in ms_members().items() if "LICENSE" not in name}
    server.files = {f"/raw/commit/{name}": content for name, content in members.items()}
    files = tuple((name, hashlib.md5(content).hexdigest()) for name, content in members.items())
    counts = {"persons": 3, "scanned": (2,), "grid": MS_GRID}
    url = server.url.replace("MedNIST.tar.gz", "raw/commit")
    known = replace(registry.DATASETS["ms_lesions"], url=url, files=files, counts=counts)
    monkeypatch.setitem(registry.DATASETS, "ms_lesions", known)
    return members


def test_files_are_fetched_one_by_one(server, many_files, capsys):
    server.faults = [None, "cut", 503]
    assert __main__.main(["get", "ms_lesions"]) == 0
    assert "Licence: CC BY." in capsys.readouterr().out
    assert list(dict.fromkeys(server.paths)) == list(server.files)
    assert [person.number for person in ms_lesions.load()] == [1, 2, 3]
    assert cache.manifest("ms_lesions")["public_checksum"] is True
    assert list((cache.root() / "downloads").iterdir()) == []
    asked = len(server.paths)
    download.get("ms_lesions")
    assert len(server.paths) == asked


def test_files_that_are_there_already_are_not_fetched_again(server, many_files, capsys):
    last = list(server.files)[-1]
    good, server.files[last] = server.files[last], b"another file"
    message = fails(capsys, "get", "ms_lesions")
    assert "published checksum" in message
    assert last in message
    assert not ms_lesions.is_available()
    server.files[last] = good
    server.paths.clear()
    download.get("ms_lesions")
    assert server.paths == [last]
    assert ms_lesions.is_available()


def test_an_import_removes_what_came_of_the_files(server, many_files, tmp_path, capsys):
    server.files[list(server.files)[-1]] = b"another file"
    fails(capsys, "get", "ms_lesions")
    assert list((cache.root() / "downloads").rglob("*.gz"))
    download.import_archive(write_tar(tmp_path / "ms.tar", ms_members(), "w"))
    assert list((cache.root() / "downloads").iterdir()) == []


@pytest.fixture
def packed_anew(server, monkeypatch, tmp_path):
    """LIDC at an address whose archive has no checksum that lasts, from a server that cannot go on in the middle."""
    counts = {"persons": 4, "nodules": 5, "slices": 14}
    server.content = write_tar(tmp_path / "lidc.tar.gz", lidc_members(128)).read_bytes()
    server.with_range, server.length = False, None
    known = replace(registry.DATASETS["lidc"], url=server.url.replace("MedNIST", "commit"), counts=counts)
    arrays, _ = lidc.pack(archives.members(tmp_path / "lidc.tar.gz"), known)
    monkeypatch.setitem(registry.DATASETS, "lidc", replace(known, content=download.fingerprint(arrays)))
    return cache.root() / "downloads" / "commit.tar.gz.part"


def test_what_has_no_checksum_is_known_by_its_content(server, packed_anew):
    packed_anew.parent.mkdir(parents=True)
    packed_anew.write_bytes(b"a part of another packing")
    download.get("lidc")
    assert server.ranges == [None]
    assert len(lidc.load("all").images) == 14
    assert cache.manifest("lidc")["public_checksum"] is True
    assert list(packed_anew.parent.iterdir()) == []


def test_another_content_is_thrown_away(server, packed_anew, capsys, tmp_path):
    download.get("lidc")
    path = next(cache.root().glob("lidc-images-*.npy"))
    path.write_bytes(path.read_bytes()[:-1] + b"?")  # so that `get` has something to do
    before = snapshot(cache.root())
    members = lidc_members(128)
    name = next(name for name in members if name.endswith("0001/nodule-0/images/slice-0.png"))
    members[name] = members[name.replace("0001", "0009")]
    server.content = write_tar(tmp_path / "other.tar.gz", members).read_bytes()
    message = fails(capsys, "get", "lidc")
    assert "is not the published LIDC" in message
    assert server.url.replace("MedNIST", "commit") in message
    assert snapshot(cache.root()) == before


def test_an_archive_cut_where_nobody_said_its_length(server, packed_anew, capsys):
    server.faults = ["cut"]
    assert "cut off, damaged" in fails(capsys, "get", "lidc")
    assert not lidc.is_available()
    download.get("lidc")
    assert lidc.is_available()
