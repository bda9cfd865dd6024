"""Downloads from a loopback server, and the readers of published archives."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import resource
import socket
import threading
from http.client import HTTPConnection
from pathlib import Path

import pytest
from loopback import CONTENT, Server, md5

from experiment.data import catalog
from experiment.data.catalog import fetch
from experiment.errors import DataError
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
    assert os.listdir(path.parent) == ["file"]


def test_interrupted_download_resumes_where_it_stopped(server: Server, tmp_path: Path) -> None:
    path, url = tmp_path / "file", f"{server.url}/file"
    server.cut = 100_000
    with pytest.raises(DataError, match="after 100000 of 300000 bytes"):
        fetch(url, path, md5(CONTENT))
    assert os.listdir(tmp_path) == ["file.part"]
    server.cut = None
    fetch(url, path, md5(CONTENT))
    assert path.read_bytes() == CONTENT
    assert server.requests == [("/file", None), ("/file", "bytes=100000-")]


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


def test_checksums_are_torchvisions() -> None:
    spec = importlib.util.find_spec("torchvision")  # read, not imported: that would bring torch
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "datasets"
    source = (folder / "cifar.py").read_text() + (folder / "mnist.py").read_text()
    checksums = [catalog.CIFAR10_CHECKSUM, *sum(catalog.IDX_CHECKSUMS.values(), ())]
    assert len(checksums) == 9
    for checksum in checksums:
        assert f'"{checksum.removeprefix("md5:")}"' in source
    for url in (catalog.CIFAR10_URL, *catalog.IDX_URLS.values()):
        assert f'"{url}"' in source
