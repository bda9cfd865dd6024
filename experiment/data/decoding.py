"""Images -> one uint8 array on disk: decoded in parallel, once, and kept.

Run as a program (`python -m experiment.data.decoding`) it is one of the decoding processes: it reads requests
from stdin and writes into the shared array. Plain subprocesses and not multiprocessing, whose children
import the caller's main module again, and with it torch or TensorFlow.
"""

from __future__ import annotations

import errno
import hashlib
import io
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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from experiment.data.image_files import formats
from experiment.errors import DataError
from experiment.system import files
from experiment.system.devices import count_cores
from experiment.system.progress import Bar

# Below this, starting processes takes longer than decoding in threads.
PROCESSES_FROM = 2000
CHUNK = 256
BUILDING = ".building-"  # what an entry of the cache is called until it is whole
PHOTOMETRIC = 262  # the tag of a TIFF file that says what its values mean
DEPTHS = (8, 10, 12, 14, 16, 24, 32)  # bits a channel that are in use


class UnfitError(ValueError):
    """A file that is not read as an image; the message says why."""


@dataclass(frozen=True)
class Reading:
    """The choices that are made in turning image files into numbers: `background` and `bits` of `Data`."""

    background: str = "#ffffff"
    bits: int = 16


Facts = tuple[int, int, int, int]  # of an image, see Picture
ORDINARY: Facts = (0, 0, -1, -1)
DEFAULTS = Reading()  # of a file that says nothing


class Picture(NamedTuple):
    """An image as a model takes it, uint8 (S, S, 3), and what is to be known of the file.

    facts: 1 where it had transparent parts, else 0; 1 where nothing of it is seen on the ground, else 0; the
    largest value of a grey image whose file does not say what is white; the largest that a colour image of 16
    bits a channel can hold, by its upper 8. The last two are -1 for other images.
    """

    pixels: np.ndarray
    facts: Facts


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
                files.lock(Path(temporary)),
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


def _sweep(place: Path) -> None:
    """Remove what builds left that were killed: nobody has it in use, and nobody is about to."""
    for folder in place.glob(f"{BUILDING}*"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > 60:
                with files.lock(folder, without=False) as free:
                    if free is not None:
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


def decode_files(files: list[Path], size: int, out: Path, reading: Reading) -> None:
    """Decode `files` as `decode` does into `out`/images.npy (M, size, size, 3) uint8, in their order.

    `out`/facts.npy (M, 4) int64 holds the facts of each. Rows of unreadable files stay black, with the facts
    of an ordinary image; they are listed in `out`/unreadable.npy (K,) int64, and the reasons, as far as they
    are known, in `out`/reasons.npy (K,) text. Raises OSError where `out` is too small or not writable,
    DataError when a file brings a decoding process down.
    """
    chunks = [[str(path) for path in files[i : i + CHUNK]] for i in range(0, len(files), CHUNK)]
    requests = [{"paths": paths, "place": f"between {paths[0]} and {paths[-1]}"} for paths in chunks]
    _decode_all(requests, [len(paths) for paths in chunks], size, out, reading)


def decode_table(
    tables: Sequence[tuple[Path, Sequence[int]]], column: str, size: int, out: Path, reading: Reading
) -> None:
    """Decode a column of images of Parquet files, as `decode_files` does files.

    tables: each file, with how many rows each of its row groups has, which are read one at a time.
    """
    groups = [(path, number, rows) for path, counts in tables for number, rows in enumerate(counts)]
    requests = [
        {"table": str(path), "group": number, "column": column, "place": f"in row group {number} of {path}"}
        for path, number, _ in groups
    ]
    _decode_all(requests, [rows for *_, rows in groups], size, out, reading)


def _decode_all(
    requests: list[dict[str, Any]], counts: Sequence[int], size: int, out: Path, reading: Reading
) -> None:
    """Answer requests for so many images each, in order."""
    whole, start = sum(counts), 0
    blank_images(out, whole, size)
    settings = {"array": str(out / "images.npy"), "background": reading.background, "bits": reading.bits}
    for request, count in zip(requests, counts, strict=True):
        request |= {**settings, "start": start}
        start += count
    failed: dict[int, str] = {}
    facts: list[Facts] = []
    with Bar("decoding", whole, "images") as bar, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow's, on files that decode all the same
        decode = _decode_in_threads if whole < PROCESSES_FROM else _decode_in_processes
        for answer in decode(requests):
            failed |= {int(row): reason for row, reason in answer["failed"].items()}
            facts += answer["facts"]
            bar.update(len(answer["facts"]))
    np.save(out / "unreadable.npy", np.array(list(failed), dtype=np.int64))
    np.save(out / "reasons.npy", np.array(list(failed.values()), dtype=np.str_))
    np.save(out / "facts.npy", np.array(facts, dtype=np.int64).reshape(-1, len(ORDINARY)))


def _decode_in_threads(requests: list[dict]) -> Iterator[dict]:
    with ThreadPoolExecutor() as pool:
        yield from pool.map(_decode_chunk, requests)


def _decode_in_processes(requests: list[dict]) -> Iterator[dict]:
    package_home = str(Path(__file__).parents[2])
    path = [package_home, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
    command = [sys.executable, "-P", "-W", "ignore", "-m", "experiment.data.decoding"]
    count = min(len(requests), count_cores())
    idle: queue.SimpleQueue[subprocess.Popen] = queue.SimpleQueue()

    def ask(request: dict) -> dict:
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
        raise DataError(f"a decoding process died {request['place']}\nremove the file that kills it")

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


def _decode_chunk(request: dict) -> dict:
    """Decode a chunk of images into rows of the array; back come all facts, and the rows that failed."""
    images = np.load(request["array"], mmap_mode="r+")
    reading = Reading(request["background"], request["bits"])
    failed, facts = {}, []
    sources = request["paths"] if "paths" in request else _of_table(request)
    for row, source in enumerate(sources, start=request["start"]):
        try:
            picture = decode(source, images.shape[1], reading)
        except Exception as error:  # decoders raise whatever a damaged file leads them into
            failed[row] = str(error) if isinstance(error, UnfitError) else ""
            facts.append(ORDINARY)
        else:
            images[row] = picture.pixels
            facts.append(picture.facts)
    return {"failed": failed, "facts": facts}


def _of_table(request: dict[str, Any]) -> Iterator[io.BytesIO]:
    """The files that a row group of a Parquet file holds, an empty one for none."""
    import pyarrow.parquet as pq  # here: other data sets need none of it

    with pq.ParquetFile(request["table"]) as table:
        column = table.read_row_group(request["group"], [request["column"]]).column(0)
        for value in column:
            yield io.BytesIO((value.as_py() or {}).get("bytes") or b"")


def decode(file: str | Path | IO[bytes], size: int, reading: Reading) -> Picture:
    """One image file as a model takes it.

    Its first frame becomes RGB: EXIF orientation applied, transparency laid over a ground, more than 8 bits
    scaled to 8; then it is resized bilinearly, aspect not kept. parity/deployed.py does the same.

    Raises UnfitError for a file that is not to be opened and for values of no agreed range, else what the
    decoder raises.
    """
    if isinstance(file, str | Path) and Path(file).exists() and not Path(file).is_file():
        raise UnfitError("no regular file")  # a pipe would be waited for
    with Image.open(file, formats=formats()) as opened:
        raw = " ".join(str(tile.args) for tile in opened.tile)  # names what the file holds: RGB;16B
        white, wide = _white(opened, raw), ";16" in raw
        inverted = getattr(opened, "tag_v2", {}).get(PHOTOMETRIC) == 0
        opened.load()
        try:
            image = ImageOps.exif_transpose(opened)
        except Exception:  # damaged EXIF, of many kinds, says nothing, and the pixels were read
            image = opened.copy()
    grey = colour = -1
    if image.mode.startswith(("F", "I")):
        if white is None:
            grey = int(np.asarray(image).max())
        image = _scaled(image, white or 2**reading.bits - 1, inverted)
    elif wide:  # of which Pillow keeps the upper 8 bits
        colour = 256 * int(np.asarray(image.convert("RGB")).max()) + 255
    transparent = vanished = False
    if image.has_transparency_data:
        if image.mode in ("La", "RGBa"):  # multiplied by their alpha
            image = image.convert(image.mode.upper())
        image = image.convert("RGBA")
        ground = Image.new("RGB", image.size, reading.background)
        ground.paste(image, mask=image)
        alpha = np.asarray(image.getchannel("A"))
        transparent = bool(alpha.min() < 255)
        vanished = transparent and bool(np.ptp(alpha)) and not np.ptp(np.asarray(ground), axis=(0, 1)).any()
        image = ground
    pixels = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return Picture(np.asarray(pixels), (int(transparent), int(vanished), grey, colour))


def _white(opened: Image.Image, raw: str) -> int | None:
    """The value that stands for white where a file of floats or of more than 8 bits says it, else None."""
    if opened.mode == "F":
        return 1
    if opened.format in ("PPM", "JPEG2000"):  # whose headers say how many bits: Pillow scales them
        return 65535
    return 4095 if "I;12" in raw else None


def _scaled(image: Image.Image, white: int, inverted: bool) -> Image.Image:
    """A grey image of any depth in 8 bits, with its transparency; convert() would clip at 255.

    inverted: 0 is white, in a TIFF file; of 8 bits and fewer Pillow turns that round itself.
    """
    values = np.asarray(image)
    if not ((values >= 0) & (values <= white)).all():  # false for NaN, too
        wanted = "0 to 1, as floats" if image.mode == "F" else f"0 to {white} (data.bits)"
        raise UnfitError(f"values from {values.min():g} to {values.max():g}, not {wanted}")
    levels = np.rint(values / (white / 255)).astype(np.uint8)
    scaled = Image.fromarray(255 - levels if inverted else levels)
    if isinstance(hidden := image.info.get("transparency"), int):
        scaled.putalpha(Image.fromarray(np.where(values == hidden, 0, 255).astype(np.uint8)))
    return scaled


def remarks(facts: Sequence[Facts] | np.ndarray, reading: Reading) -> list[str]:
    """Remarks on images that were read, a line each.

    facts: (N, 4), those of each. How many were transparent, and whether values of more than 8 bits a channel
    come out dark: where half of these images or more stay below a quarter of the white that was assumed.
    """
    table = np.asarray(facts, dtype=np.int64).reshape(-1, len(ORDINARY))
    said = []
    transparent, vanished = table[:, :2].sum(axis=0)
    if transparent:
        lost = f", on which {vanished} can no longer be seen" if vanished else ""
        found = f"{transparent} of {len(table)} images have transparent parts"
        said.append(f"{found}: laid over {reading.background}{lost} (data.background)")
    for peaks, kind in ((table[:, 2], "grey"), (table[:, 3], "colour")):
        assumed, peaks = reading.bits if kind == "grey" else 16, peaks[peaks >= 0]
        dark = peaks[peaks < 2 ** (assumed - 2)]
        bits = next(bits for bits in DEPTHS if max(dark, default=0) < 2**bits)
        if not len(dark) or 2 * len(dark) < len(peaks) or bits >= assumed:
            continue
        top = 2**bits - 1
        mend = f"train with --data.bits {bits}" if kind == "grey" else "convert them to 8 bits a channel"
        said.append(
            f"{len(dark)} of {len(peaks)} {kind} images of more than 8 bits a channel hold no value above "
            f"{top}, dark where {2**assumed - 1} is white; if {top} is white: {mend}"
        )
    return said


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process by closing its stdin
    for line in sys.stdin:
        print(json.dumps(_decode_chunk(json.loads(line))), flush=True)
