"""The readers of published archives: CIFAR-10, MNIST, Fashion-MNIST."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from loopback import Server, md5

from experiment.data import catalog
from experiment.data.catalog import read_cifar10, read_idx
from experiment.errors import DataError

# === CIFAR-10 ===


def python2_batch(data: np.ndarray, labels: np.ndarray) -> bytes:
    """A batch pickled as Python 2 and numpy 1 did for the published archive, opcode by opcode."""
    rows, columns = data.shape
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = b"M" + struct.pack("<H", rows) + b"M" + struct.pack("<H", columns) + b"\x86"
    state = b"(K\x01" + shape + dtype + b"\x89T" + struct.pack("<I", data.size) + data.tobytes() + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels.tolist()) + b"e"
    return b"\x80\x02}(U\x04data" + array + state + b"U\x06labels" + numbers + b"u."


def tar(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def batches() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(1)
    return {
        name: (random.integers(0, 256, (10, 3072), dtype=np.uint8), random.permutation(10))
        for name in catalog.CIFAR10_BATCHES
    }


def test_cifar10_is_downloaded_and_read(
    server: Server, batches: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = tar({name: python2_batch(*batch) for name, batch in batches.items()} | {"readme.html": b"hi"})
    server.files["/cifar-10-python.tar.gz"] = content
    monkeypatch.setattr(catalog, "CIFAR10_URL", f"{server.url}/cifar-10-python.tar.gz")
    monkeypatch.setattr(catalog, "CIFAR10_CHECKSUM", md5(content))
    for place in (tmp_path / "root", tmp_path / "other"):  # the second finds what the first downloaded
        x_train, y_train, x_test, y_test = read_cifar10([place, tmp_path / "root"])
        assert x_train.shape == (50, 32, 32, 3)
        assert x_test.shape == (10, 32, 32, 3)
        # planes of 1024 red, green, blue values, each row by row
        assert x_train[23, 4, 5].tolist() == batches["data_batch_3"][0][3, [133, 1157, 2181]].tolist()
        assert x_test[9, 31, 0].tolist() == batches["test_batch"][0][9, [992, 2016, 3040]].tolist()
        assert y_train.tolist() == np.concatenate([b[1] for b in batches.values()])[:50].tolist()
        assert y_test.tolist() == batches["test_batch"][1].tolist()
        assert y_train.dtype == np.int64
    assert len(server.requests) == 1


def write_unpacked(place: Path, batches: dict) -> Path:
    folder = place / "cifar-10-batches-py"
    folder.mkdir()
    for name, (data, labels) in batches.items():
        (folder / name).write_bytes(pickle.dumps({"data": data, "labels": labels.tolist()}, protocol=2))
    return folder


def test_unpacked_cifar10_is_read(batches: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "CIFAR10_URL", "http://127.0.0.1:9/never")
    write_unpacked(tmp_path, batches)
    x_train, y_train, _, _ = read_cifar10([tmp_path])
    assert x_train[10, 0, 1].tolist() == batches["data_batch_2"][0][0, [1, 1025, 2049]].tolist()
    assert y_train[10] == batches["data_batch_2"][1][0]


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("owned",)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(Malicious(), protocol=2),
        pickle.dumps({"data": np.zeros((10, 3071), np.uint8), "labels": [0] * 10}, protocol=2),
        pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 10]}, protocol=2),
        pickle.dumps({"labels": []}, protocol=2),
        b"half a pi",
        b"",
    ],
    ids=["code", "shape", "label", "key", "garbage", "empty"],
)
def test_bad_batch_is_a_data_error_and_runs_nothing(
    content: bytes, batches: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write_unpacked(tmp_path, batches)
    (folder / "data_batch_4").write_bytes(content)
    with pytest.raises(DataError, match="data_batch_4 is not a CIFAR-10 batch"):
        read_cifar10([tmp_path])
    assert not (tmp_path / "owned").exists()


# === MNIST and Fashion-MNIST ===


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + array.tobytes())


def test_fashion_mnist_is_downloaded_beside_mnist(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(2)
    sets = {}
    for name in ("mnist", "fashion_mnist"):
        arrays = [random.integers(0, 10, shape, dtype=np.uint8) for shape in ((7, 28, 28), 7, (3, 28, 28), 3)]
        files = dict(zip(catalog.IDX_FILES, map(idx, arrays), strict=True))
        server.files |= {f"/{name}/{file}": content for file, content in files.items()}
        monkeypatch.setitem(catalog.IDX_URLS, name, f"{server.url}/{name}/")
        monkeypatch.setitem(catalog.IDX_CHECKSUMS, name, tuple(map(md5, files.values())))
        sets[name] = arrays
    for name in ("mnist", "fashion_mnist", "mnist"):
        for read, written in zip(read_idx(name, [tmp_path]), sets[name], strict=True):
            np.testing.assert_array_equal(read, written)
    assert len(server.requests) == 8
