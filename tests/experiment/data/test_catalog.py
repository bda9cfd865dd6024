"""Downloads from a loopback server, and the files of published data sets where they lie."""

from __future__ import annotations

import hashlib
import io
import os
import resource
import socket
import tarfile
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from loopback import CONTENT, Server, md5
from urllib3.connection import HTTPConnection

from experiment.data.catalog import contents, fetch, unpacked
from experiment.errors import DataError
from experiment.published import Arrays, Published
from experiment.system.files import full


@pytest.fixture
def refused_url(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/"


def test_whole_download_happens_once(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    for _ in range(2):
        assert fetch(f"{server.url}/file", path, md5(CONTENT)) == path
        assert path.read_bytes() == CONTENT
    assert server.requests == [("/file", None)]
    assert server.encodings == {"identity"}, "packed once more it would have another checksum"
    assert os.listdir(path.parent) == ["file"]


def test_interrupted_download_resumes_where_it_stopped(server: Server, tmp_path: Path) -> None:
    path, url = tmp_path / "file", f"{server.url}/file"
    server.cut = 6 * 2**14  # what of a block has come is lost with the connection
    with pytest.raises(DataError, match="after 98304 of 300000 bytes"):
        fetch(url, path, md5(CONTENT))
    assert os.listdir(tmp_path) == ["file.part"]
    server.cut = None
    fetch(url, path, md5(CONTENT))
    assert path.read_bytes() == CONTENT
    assert server.requests == [("/file", None), ("/file", "bytes=98304-")]


def test_server_without_ranges_makes_it_start_over(server: Server, tmp_path: Path) -> None:
    server.ranges_known = False
    (tmp_path / "file.part").write_bytes(b"x" * 1000)
    fetch(f"{server.url}/file", tmp_path / "file", md5(CONTENT))
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_complete_part_needs_no_bytes(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT)
    fetch(f"{server.url}/file", tmp_path / "file", md5(CONTENT))
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.requests == [("/file", "bytes=300000-")]


def test_a_full_disk_keeps_what_has_come(server: Server, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(DataError, match=r"file\.part: File too large\nraise the limit") as caught:
            fetch(f"{server.url}/file", tmp_path / "file", md5(CONTENT))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert full(caught.value)
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:100_000]
    fetch(f"{server.url}/file", tmp_path / "file", md5(CONTENT))
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_wrong_content_leaves_no_file(server: Server, tmp_path: Path) -> None:
    server.files["/file"] = CONTENT[:-1] + b"?"
    with pytest.raises(DataError) as error:
        fetch(f"{server.url}/file", tmp_path / "file", md5(CONTENT))
    assert md5(CONTENT) in str(error.value)
    assert md5(server.files["/file"]) in str(error.value)
    assert os.listdir(tmp_path) == []


def test_wrong_file_in_place_is_named_and_kept(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"delete it"):
        fetch(f"{server.url}/file", tmp_path / "file", md5(CONTENT))
    assert (tmp_path / "file").read_bytes() == b"mine"
    assert server.requests == []


def test_sha256_is_checked(server: Server, tmp_path: Path) -> None:
    good = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
    assert fetch(f"{server.url}/file", tmp_path / "a", good).stat().st_size == 300_000
    with pytest.raises(DataError, match="expected sha256:0000"):
        fetch(f"{server.url}/file", tmp_path / "b", "sha256:" + "0" * 64)


def test_http_error_names_url_and_way_out(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        fetch(f"{server.url}/absent", tmp_path / "w.h5", md5(b""), instead="--model.weights random")
    message = str(error.value)
    assert "/absent: HTTP 404" in message
    assert f"put the file at {tmp_path / 'w.h5'}" in message
    assert "--model.weights random" in message
    assert len(message.splitlines()) == 2


def test_refused_connection_is_not_tried_again(
    refused_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, tried = HTTPConnection.connect, []
    monkeypatch.setattr(HTTPConnection, "connect", lambda self: (tried.append(self.timeout), connect(self)))
    with pytest.raises(DataError, match="refused"):
        fetch(refused_url + "file", tmp_path / "file", md5(CONTENT))
    assert tried == [10.0]


def test_silent_server_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(DataError, match="timed out"):
        fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/", tmp_path / "file", md5(b""), timeout=0.2)


def test_two_downloads_at_once_ask_once(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "file"
    threads = [
        threading.Thread(target=fetch, args=(f"{server.url}/file", path, md5(CONTENT))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_unwritable_place_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="cannot download"):
        fetch("http://127.0.0.1:9/x", tmp_path / "file" / "below", md5(b""))


# === Published data sets ===


def never(_: Sequence[bytes]) -> Arrays:
    raise AssertionError


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as written:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            written.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_members_of_an_archive_are_downloaded_once_and_read_in_order(server: Server, tmp_path: Path) -> None:
    packed = archive({"set/b.bin": b"second", "set/readme.html": b"hi", "set/a.bin": b"first"})
    server.files["/set.tar.gz"] = packed
    record = Published((), {f"{server.url}/set.tar.gz": md5(packed)}, never, ("set/a.bin", "set/b.bin"))
    for place in (tmp_path / "root", tmp_path / "other"):  # the second finds what the first downloaded
        assert contents("one", record, [place, tmp_path / "root"]) == [b"first", b"second"]
    assert len(server.requests) == 1
    assert (tmp_path / "root" / "set.tar.gz").read_bytes() == packed


def test_an_unpacked_archive_is_read(server: Server, tmp_path: Path) -> None:
    record = Published((), {f"{server.url}/set.tar.gz": md5(b"")}, never, ("set/a.bin", "set/b.bin"))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.bin").write_bytes(b"first")
    assert unpacked(record, [tmp_path]) == []  # not all of it
    (tmp_path / "set" / "b.bin").write_bytes(b"second")
    assert contents("one", record, [tmp_path / "none", tmp_path]) == [b"first", b"second"]
    assert server.requests == []


def test_sets_whose_files_have_one_name_lie_apart(server: Server, tmp_path: Path) -> None:
    records = {}
    for name in ("one", "two"):
        files = {f"/{name}/{file}": f"{name} {file}".encode() for file in ("images.gz", "labels.gz")}
        server.files |= files
        records[name] = Published((), {server.url + f: md5(content) for f, content in files.items()}, never)
    for name in ("one", "two", "one"):
        assert contents(name, records[name], [tmp_path]) == [
            f"{name} images.gz".encode(),
            f"{name} labels.gz".encode(),
        ]
    assert len(server.requests) == 4
    for file in ("images.gz", "labels.gz"):  # where a user has put them
        (tmp_path / "two" / file).replace(tmp_path / file)
    contents("two", records["two"], [tmp_path])
    assert len(server.requests) == 4


def test_an_archive_of_pickles_is_not_read_and_that_is_said(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    packed = archive({"a.bin": b"first"})
    server.files["/set-binary.tar.gz"] = packed
    record = Published((), {f"{server.url}/set-binary.tar.gz": md5(packed)}, never, ("a.bin",))
    (tmp_path / "set-python.tar.gz").write_bytes(b"pickles")
    assert contents("one", record, [tmp_path]) == [b"first"]
    assert f"{tmp_path / 'set-python.tar.gz'} is not read" in capsys.readouterr().err
