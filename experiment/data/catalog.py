"""Published archives: fetch them whole or not at all, and read them without trusting them."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import hashlib
import http.client
import io
import os
import pickle
import struct
import sys
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from experiment.errors import DataError
from experiment.system import files

try:
    import fcntl
except ImportError:  # Windows: two downloads at once are then not serialised
    fcntl = None

CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
CIFAR10_CHECKSUM = "md5:c58f30108f718f92721af3b95e74349a"
CIFAR10_FOLDER = "cifar-10-batches-py"
CIFAR10_BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")

# Both sets use the same four file names, so each has a folder of its own.
IDX_URLS = {
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "fashion_mnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
}
IDX_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
IDX_CHECKSUMS = {
    "mnist": (
        "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "md5:d53e105ee54ea40749a09fcbcd1e9432",
        "md5:9fb629c4189551a2d022fa330f9573f3",
        "md5:ec29112dd5afa0611ce80d1b7f02629c",
    ),
    "fashion_mnist": (
        "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "md5:25c81989df183df01b3e8a0aad5dffbe",
        "md5:bef4ecab320f06d8554ea6380940ec79",
        "md5:bb300cfdad3c16e7a12a480ee83cd310",
    ),
}

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def fetch(
    url: str, path: Path | str, checksum: str, timeout: float = 10.0, instead: str = "--data.name digits"
) -> Path:
    """Download a file to `path` unless it is there, resuming what an earlier call began.

    `checksum` is "md5:HEX" or "sha256:HEX", `timeout` in seconds for connecting and for each read,
    `instead` the setting that needs no download, for the error message. Bytes gather in `path`.part, which
    takes its final name only after the checksum agrees and is deleted when it does not. Returns `path`.

    Raises DataError: server not reached, an HTTP error, connection lost, wrong checksum, disk not writable.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    way_out = f"put the file at {path} yourself, or use {instead}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path.parent):
            if path.exists():
                if (got := _digest(path, checksum)) != checksum:
                    raise DataError(f"{path}: expected {checksum}, got {got}\ndelete it, or use {instead}")
                return path
            _transfer(url, part, timeout)
            if (got := _digest(part, checksum)) != checksum:
                part.unlink()
                raise DataError(f"{url}: expected {checksum}, got {got}\nrun again, or {way_out}")
            os.replace(part, path)
    except urllib.error.HTTPError as error:
        raise DataError(f"cannot download {url}: HTTP {error.code} {error.reason}\n{way_out}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        if isinstance(error, OSError) and error.errno in files.FULL:
            reason = f"{part}: {error.strerror}"
            way_out = f"{files.FULL[error.errno]}, and run again: what has come is kept"
        raise DataError(f"cannot download {url}: {reason}\n{way_out}") from error
    return path


def _transfer(url: str, part: Path, timeout: float) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is left to send: the checksum decides
            error.close()
            return
        raise
    with response:
        resumed = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        have = have if resumed else 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        with (
            part.open("ab" if resumed else "wb") as out,
            tqdm(
                desc=part.stem, total=total, initial=have, unit="B", unit_scale=True, mininterval=0.5
            ) as bar,
        ):
            while block := response.read(1 << 18):
                out.write(block)
                bar.update(len(block))
        size = part.stat().st_size
    if total is not None and size < total:
        raise ConnectionError(f"connection lost after {size} of {total} bytes (run again to resume)")


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder, so that both frameworks' runs may start at once and download once."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another download into {folder}", file=sys.stderr)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(descriptor)


def _digest(path: Path, checksum: str) -> str:
    algorithm = checksum.split(":", 1)[0]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))
    return f"{algorithm}:{digest.hexdigest()}"


def _obtain(url: str, checksum: str, candidates: Sequence[Path]) -> Path:
    """The first candidate that is the file, else the download, which goes to the first candidate's place."""
    for path in candidates:
        if path.is_file() and _digest(path, checksum) == checksum:
            return path
    return fetch(url, candidates[0], checksum)


def unpacked_cifar10(places: Sequence[Path]) -> Path | None:
    """The first complete `cifar-10-batches-py` folder in `places`, or None."""
    for folder in (place / CIFAR10_FOLDER for place in places):
        if all((folder / name).is_file() for name in CIFAR10_BATCHES):
            return folder
    return None


def read_cifar10(places: Sequence[Path]) -> Arrays:
    """Read CIFAR-10 from the first of `places` that has it, unpacked or as the archive, else download it.

    Returns x_train (50000, 32, 32, 3) uint8, y_train (50000,) int64, x_test (10000, ...), y_test.
    Raises DataError as `fetch` does, and for a batch file that is not one.
    """
    if folder := unpacked_cifar10(places):
        batches = [_read_batch((folder / name).read_bytes(), folder / name) for name in CIFAR10_BATCHES]
    else:
        path = _obtain(CIFAR10_URL, CIFAR10_CHECKSUM, [p / Path(CIFAR10_URL).name for p in places])
        members: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        with tarfile.open(path) as archive:
            for member in archive:
                name = member.name.removeprefix(f"{CIFAR10_FOLDER}/")
                if name in CIFAR10_BATCHES and (file := archive.extractfile(member)):
                    members[name] = _read_batch(file.read(), path / name)
        batches = [members[name] for name in CIFAR10_BATCHES]
    images, labels = zip(*batches, strict=True)
    return np.concatenate(images[:5]), np.concatenate(labels[:5]), images[5], labels[5]


class _BatchUnpickler(pickle.Unpickler):
    """Admits what an array of numbers is pickled with, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        admitted = {
            # numpy's own, under its path before and since numpy 2, found without importing a private module
            ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
            ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            # how Python 3 pickles bytes for Python 2; other codecs could inflate a small file without bound
            ("_codecs", "encode"): lambda text, _: codecs.encode(text, "latin1"),
        }
        if (module, name) not in admitted:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return admitted[module, name]


def _read_batch(content: bytes, path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        # latin1: the published files are Python 2 pickles
        batch = _BatchUnpickler(io.BytesIO(content), encoding="latin1").load()
        data, labels = np.asarray(batch["data"]), np.asarray(batch["labels"], dtype=np.int64)
        if (
            data.dtype != np.uint8
            or data.shape != (len(labels), 3072)
            or not np.isin(labels, range(10)).all()
        ):
            raise ValueError(f"data {data.dtype} {data.shape} with {len(labels)} labels")
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to spell
        raise DataError(
            f"{path} is not a CIFAR-10 batch: {error}\nreplace it, or use --data.name digits"
        ) from error
    return np.ascontiguousarray(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), labels


def read_idx(name: str, places: Sequence[Path]) -> Arrays:
    """Read MNIST or Fashion-MNIST (`name`: mnist, fashion_mnist) from `places`, else download it.

    The files may lie in PLACE/NAME or in PLACE. Returns x_train (60000, 28, 28) uint8, y_train (60000,)
    int64, x_test (10000, 28, 28), y_test. Raises DataError as `fetch` does, and for a damaged file.
    """
    arrays = []
    for filename, checksum in zip(IDX_FILES, IDX_CHECKSUMS[name], strict=True):
        candidates = [folder / filename for place in places for folder in (place / name, place)]
        path = _obtain(IDX_URLS[name] + filename, checksum, candidates)
        content = gzip.decompress(path.read_bytes())
        # big-endian: two zeros, type 8 (uint8), number of axes, their lengths, the numbers
        zeros, kind, axes = struct.unpack(">HBB", content[:4])
        shape = struct.unpack(f">{axes}I", content[4 : 4 + 4 * axes])
        if (zeros, kind) != (0, 8) or len(content) != 4 + 4 * axes + int(np.prod(shape)):
            raise DataError(f"{path} is not an IDX file of bytes\ndelete it, or use --data.name digits")
        arrays.append(np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape))
    x_train, y_train, x_test, y_test = arrays
    return x_train, y_train.astype(np.int64), x_test, y_test.astype(np.int64)
