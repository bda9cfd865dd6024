"""Images -> one uint8 array on disk: decoded in parallel, once, and kept.

Run as a program (`python -m experiment.decoding`) it is one of the decoding processes: it reads requests
from stdin and writes into the shared array. Plain subprocesses and not multiprocessing, whose children
import the caller's main module again, and with it torch or TensorFlow.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from experiment import files
from experiment.devices import count_cores
from experiment.download import DataError

# Below this, starting processes takes longer than decoding in threads.
PROCESSES_FROM = 2000
CHUNK = 256
BUILDING = ".building-"  # what an entry of the cache is called until it is whole


def kept(cache: Path, key: str, build: Callable[[Path], None]) -> dict[str, np.ndarray]:
    """The arrays that `build(folder)` saves as .npy files into a folder, built once for each key.

    Returns {file stem: array}; "images" is memory-mapped and read-only. The folder takes its place in
    `cache` by one rename, with a sha256 of each file that is checked at every call: half-written or
    damaged entries are built again. Raises DataError where `cache` cannot be written.
    """
    entry = cache / "arrays" / key
    try:
        arrays = _intact(entry)
        if arrays is None:
            shutil.rmtree(entry, ignore_errors=True)
            entry.parent.mkdir(parents=True, exist_ok=True)
            _sweep(entry.parent)
            with (
                tempfile.TemporaryDirectory(dir=entry.parent, prefix=BUILDING) as temporary,
                _in_use(Path(temporary)),
            ):
                folder = Path(temporary) / key
                folder.mkdir()
                try:
                    build(folder)
                except OSError as error:
                    if (number := files.fault(error, folder / "images.npy")) is None:
                        raise
                    raise OSError(number, os.strerror(number)) from error
                digests = {path.name: _sha256(path) for path in folder.glob("*.npy")}
                (folder / "sha256.json").write_text(json.dumps(digests))
                try:
                    os.replace(folder, entry)
                except OSError:
                    if not entry.exists():  # it does when another process built the same in the meantime
                        raise
            arrays = _intact(entry)
        if arrays is None:
            raise OSError(f"{entry} is damaged")
    except OSError as error:
        said = error.strerror or error
        raise DataError(f"cannot keep images in {cache}: {said}\nname another --data.cache") from error
    return arrays


@contextmanager
def _in_use(folder: Path) -> Iterator[bool]:
    """Lock a folder that is being built in; gives whether nobody else has."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield files.locked(descriptor, without=False)
    finally:
        os.close(descriptor)


def _sweep(place: Path) -> None:
    """Remove what builds left that were killed: nobody has it in use, and nobody is about to."""
    for folder in place.glob(f"{BUILDING}*"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > 60:
                with _in_use(folder) as free:
                    if free:
                        shutil.rmtree(folder)


def _intact(entry: Path) -> dict[str, np.ndarray] | None:
    try:
        digests = json.loads((entry / "sha256.json").read_text())
        if any(_sha256(entry / name) != digest for name, digest in digests.items()):
            return None
    except (FileNotFoundError, ValueError):
        return None
    images = np.load(entry / "images.npy", mmap_mode="r").view(np.ndarray)
    return {"images": images} | {Path(n).stem: np.load(entry / n) for n in digests if n != "images.npy"}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def blank_images(out: Path, count: int, size: int) -> np.ndarray:
    """Create `out`/images.npy, black (count, size, size, 3) uint8, and return it mapped for writing.

    Raises OSError where it does not fit.
    """
    shape = (count, size, size, 3)
    gigabytes = f"{math.prod(shape) / 1e9:.1f} GB of decoded images"
    if shutil.disk_usage(out).free < math.prod(shape):
        raise OSError(errno.ENOSPC, f"{gigabytes} do not fit on the disk")
    images = np.lib.format.open_memmap(out / "images.npy", "w+", np.uint8, shape)
    if hasattr(os, "posix_fallocate"):  # on a disk that fills up, writing to a mapped file is a SIGBUS
        with (out / "images.npy").open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, (out / "images.npy").stat().st_size)
    return images


def decode_files(files: list[Path], size: int, out: Path) -> None:
    """Decode `files` into `out`/images.npy (M, size, size, 3) uint8, in their order.

    Rows of unreadable files stay black and are listed in `out`/unreadable.npy (K,) int64. Every image
    becomes RGB: first frame, EXIF orientation applied, transparency dropped, 16-bit grey scaled to 8 bits;
    then it is resized bilinearly, aspect not kept. Raises OSError where `out` is too small or not writable,
    DataError when a file brings a decoding process down.
    """
    blank_images(out, len(files), size)
    requests = [
        {"array": str(out / "images.npy"), "start": i, "paths": [str(p) for p in files[i : i + CHUNK]]}
        for i in range(0, len(files), CHUNK)
    ]
    unreadable: list[int] = []
    bar = tqdm(desc="decoding", total=len(files), unit="image", mininterval=0.5)
    with bar, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow's, on files that decode all the same
        decode = _decode_in_threads if len(files) < PROCESSES_FROM else _decode_in_processes
        for request, failed in zip(requests, decode(requests), strict=True):
            unreadable += failed
            bar.update(len(request["paths"]))
    np.save(out / "unreadable.npy", np.array(unreadable, dtype=np.int64))


def _decode_in_threads(requests: list[dict]) -> Iterator[list[int]]:
    with ThreadPoolExecutor() as pool:
        yield from pool.map(_decode_chunk, requests)


def _decode_in_processes(requests: list[dict]) -> Iterator[list[int]]:
    package_home = str(Path(__file__).parents[1])
    path = [package_home, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
    command = [sys.executable, "-P", "-W", "ignore", "-m", "experiment.decoding"]
    count = min(len(requests), count_cores())
    idle: queue.SimpleQueue[subprocess.Popen] = queue.SimpleQueue()

    def ask(request: dict) -> list[int]:
        worker = idle.get()
        assert worker.stdin
        assert worker.stdout
        try:
            worker.stdin.write(json.dumps(request) + "\n")
            worker.stdin.flush()
            if answer := worker.stdout.readline():
                return json.loads(answer)
        except BrokenPipeError:
            pass
        finally:
            idle.put(worker)
        first, last = request["paths"][0], request["paths"][-1]
        raise DataError(f"a decoding process died between {first} and {last}\nremove the file that kills it")

    with ExitStack() as stack:
        for _ in range(count):
            worker = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
            )
            stack.callback(_end, worker)
            idle.put(worker)
        pool = stack.enter_context(ThreadPoolExecutor(count))
        yield from pool.map(ask, requests)


def _end(worker: subprocess.Popen) -> None:
    assert worker.stdin
    assert worker.stdout
    with suppress(BrokenPipeError):  # of a request that a dead process never took
        worker.stdin.close()
    worker.stdout.close()
    worker.wait()


def _decode_chunk(request: dict) -> list[int]:
    """Decode one chunk of files into rows of the array; the rows of unreadable files come back."""
    images = np.load(request["array"], mmap_mode="r+")
    failed = []
    for row, path in enumerate(request["paths"], start=request["start"]):
        try:
            images[row] = decode(path, images.shape[1])
        except Exception:  # decoders raise whatever a damaged file leads them into
            failed.append(row)
    return failed


def decode(file: str | Path | IO[bytes], size: int) -> np.ndarray:
    """One image file as uint8 (size, size, 3), as `decode_files` makes it; raises what its decoder raises."""
    with Image.open(file) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith(("F", "I")):  # convert() would clip at 255
            grey = np.asarray(image)
            if image.mode == "F" or grey.min() < 0 or grey.max() > 65535:
                raise ValueError("only 8 and 16 bits have an agreed range")
            image = Image.fromarray(np.rint(grey / 257).astype(np.uint8))
        return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process by closing its stdin
    for line in sys.stdin:
        print(json.dumps(_decode_chunk(json.loads(line))), flush=True)
