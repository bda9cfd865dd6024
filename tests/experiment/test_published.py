"""The records of published data sets and their readers."""

from __future__ import annotations

import gzip
import importlib.util
import struct
from pathlib import Path

import numpy as np
import pytest

from experiment.config import Data
from experiment.published import PUBLISHED, read_cifar, read_idx

# As https://www.cs.toronto.edu/~kriz/cifar.html tells them.
CIFAR = {
    "cifar10": ("cifar-10-binary.tar.gz", "md5:c32a1d4ab5d03f1284b67883e8d87530"),
    "cifar100": ("cifar-100-binary.tar.gz", "md5:03b5dce01913d631647c71ecec9e9cb8"),
}


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + array.tobytes())


def test_cifar_is_read_plane_by_plane() -> None:
    random = np.random.default_rng(1)
    batches = [random.integers(0, 256, (10, 3074), dtype=np.uint8) for _ in range(3)]
    for batch in batches:
        batch[:, 1] = random.permutation(10)  # after a label that is not asked for
    x_train, y_train, x_test, y_test = read_cifar([b.tobytes() for b in batches], labels=2, classes=10)
    assert (x_train.shape, x_test.shape) == ((20, 32, 32, 3), (10, 32, 32, 3))
    # planes of 1024 red, green, blue values, each row by row
    assert x_train[13, 4, 5].tolist() == batches[1][3, [2 + 133, 2 + 1157, 2 + 2181]].tolist()
    assert x_test[9, 31, 0].tolist() == batches[2][9, [2 + 992, 2 + 2016, 2 + 3040]].tolist()
    assert y_train.tolist() == [*batches[0][:, 1].tolist(), *batches[1][:, 1].tolist()]
    assert y_test.tolist() == batches[2][:, 1].tolist()
    assert y_train.dtype == np.int64


def test_cifar100_has_its_fine_labels() -> None:
    record = PUBLISHED["cifar100"]
    images = [bytes([coarse, fine]) + bytes(3072) for coarse, fine in ((14, 2), (4, 99))]
    _, y_train, _, y_test = record.read([b"".join(images), images[1]])
    assert [record.class_names[label] for label in (*y_train, *y_test)] == ["baby", "worm", "worm"]
    assert len(record.class_names) == 100


@pytest.mark.parametrize(
    ("content", "said"), [(bytes(3072), "not images of 3073"), (b"\x0a" + bytes(3072), "class 10 of 10")]
)
def test_other_content_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_cifar([bytes(3073), content], labels=1, classes=10)


def test_idx_files_are_read() -> None:
    random = np.random.default_rng(2)
    arrays = [random.integers(0, 10, shape, dtype=np.uint8) for shape in ((7, 28, 28), 7, (3, 28, 28), 3)]
    contents = list(map(idx, arrays))
    for read, written in zip(read_idx(contents), arrays, strict=True):
        np.testing.assert_array_equal(read, written)
    contents[2] = gzip.compress(gzip.decompress(contents[2])[:-1])
    with pytest.raises(ValueError, match="not an IDX file"):
        read_idx(contents)


def test_every_record_is_whole() -> None:
    for name, record in PUBLISHED.items():
        assert Data.model_validate({"name": name}).name == name
        assert len(set(record.class_names)) == len(record.class_names) > 1
        assert len(record.files) == 1 or not record.members
        assert all(len(checksum) == len("md5:") + 32 for checksum in record.files.values())


def test_checksums_are_those_of_others() -> None:
    spec = importlib.util.find_spec("torchvision")  # read, not imported: that would bring torch
    assert spec is not None
    assert spec.origin is not None
    source = (Path(spec.origin).parent / "datasets" / "mnist.py").read_text()
    for name, record in PUBLISHED.items():
        files = {url.rsplit("/", 1)[1]: checksum for url, checksum in record.files.items()}
        if name in CIFAR:
            assert files == dict([CIFAR[name]])
        else:
            for url, checksum in record.files.items():
                assert f'"{url.rsplit("/", 1)[0]}/"' in source
                assert f'"{checksum.removeprefix("md5:")}"' in source
