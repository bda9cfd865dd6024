"""CIFAR-10 by name and by `auto`, and what happens when it cannot be had."""

from __future__ import annotations

import hashlib
import http.server
import io
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest

from experiment.config import Data
from experiment.data.dataset import Dataset, load
from experiment.errors import DataError
from experiment.published import PUBLISHED

ARCHIVE = "cifar-10-binary.tar.gz"
NOWHERE = f"http://127.0.0.1:9/{ARCHIVE}"


def config(tmp_path: Path, **changes: object) -> Data:
    return Data.model_validate({"cache": str(tmp_path / "cache"), "image_size": 8} | changes)


def serve_from(
    monkeypatch: pytest.MonkeyPatch, url: str, name: str = "cifar10", checksum: str = "md5:"
) -> None:
    """Let a data set's files be one at this address."""
    monkeypatch.setitem(PUBLISHED, name, PUBLISHED[name]._replace(files={url: checksum}))


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    serve_from(monkeypatch, NOWHERE)
    serve_from(monkeypatch, "http://127.0.0.1:9/images.gz", "mnist")


def batches() -> dict[str, bytes]:
    random = np.random.default_rng(6)
    labels = np.array([*range(10)] * 2, np.uint8)[:, None]
    return {
        name: np.hstack([labels, random.integers(0, 256, (20, 3072), dtype=np.uint8)]).tobytes()
        for name in PUBLISHED["cifar10"].members
    }


def write_archive(
    path: Path, monkeypatch: pytest.MonkeyPatch, url: str = f"http://127.0.0.1:9/{ARCHIVE}"
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in batches().items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())
    checksum = hashlib.md5(buffer.getvalue(), usedforsecurity=False).hexdigest()
    serve_from(monkeypatch, url, checksum=f"md5:{checksum}")


def check_cifar10(data: Dataset) -> None:
    assert data.name == "cifar10"
    assert data.class_names[:2] == ("airplane", "automobile")
    assert (len(data.train), len(data.validation), len(data.test)) == (90, 10, 20)
    assert data.note is None


@pytest.mark.parametrize("name", ["auto", "cifar10"])
@pytest.mark.parametrize("where", ["root", "cache", "unpacked"])
def test_cifar10_in_place_is_used(refused, tmp_path: Path, monkeypatch, name: str, where: str) -> None:
    if where == "unpacked":
        for file, content in batches().items():
            (tmp_path / "root" / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "root" / file).write_bytes(content)
    else:
        write_archive(tmp_path / where / ARCHIVE, monkeypatch)
    settings = config(tmp_path, name=name, root=str(tmp_path / "root"))
    data = load(settings, seed=1)
    check_cifar10(data)
    unread = PUBLISHED["cifar10"]._replace(read=None)  # pyright: ignore[reportArgumentType]
    monkeypatch.setitem(PUBLISHED, "cifar10", unread)
    assert load(settings, seed=1).sha256 == data.sha256


@pytest.mark.parametrize("root", ["root", None])
def test_auto_downloads_what_it_can(tmp_path: Path, monkeypatch, root: str | None) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args) -> None:
            super().__init__(*args, directory=str(tmp_path / "served"))

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/{ARCHIVE}"
        write_archive(tmp_path / "served" / ARCHIVE, monkeypatch, url)
        check_cifar10(load(config(tmp_path, root=root and str(tmp_path / root)), seed=1))
        server.shutdown()
        thread.join()
    assert (tmp_path / (root or "cache") / ARCHIVE).is_file()


def test_auto_falls_back_to_digits_and_says_so(refused, tmp_path: Path, capsys) -> None:
    data = load(config(tmp_path), seed=1)
    assert data.name == "digits"
    assert data.note is not None
    assert data.note.startswith("digits used in place of CIFAR-10: cannot download http://127.0.0.1:9/")
    assert "refused" in data.note
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 1
    assert warnings[0].startswith("WARNING: digits used in place of CIFAR-10")
    assert data.sha256 == load(config(tmp_path, name="digits"), seed=1).sha256


@pytest.mark.parametrize("name", ["cifar10", "mnist"])
def test_a_named_set_never_falls_back(refused, tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError) as error:
        load(config(tmp_path, name=name), seed=1)
    message = str(error.value)
    assert "cannot download http://127.0.0.1:9/" in message
    assert f"put the file at {tmp_path / 'cache'}" in message
    assert "--data.name digits" in message
    assert len(message.splitlines()) == 2


def test_file_in_place_of_a_root_folder_is_a_data_error(refused, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="cannot download"):
        load(config(tmp_path, name="cifar10", root=str(tmp_path / "file")), seed=1)
