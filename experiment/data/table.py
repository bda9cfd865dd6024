"""A data set in pieces, for one that is larger than memory.

A folder of shards holds class_names.txt, a name a line, reading.json, how image files were read, and for each
of train and test, and for validation where there is such a split, numbered from 00000,
train-00000-images.npy, (N, S, S, 3) uint8, and train-00000-labels.npy, (N,) integers from 0. Training reads
the rows of each batch where they lie (--data.name shards --data.root OUT): what grows in memory with their
number is their labels, rows, order and digests, 32 bytes an image. Further options are those of train that
choose data: --data.name cifar10.
"""

from __future__ import annotations

import dataclasses
import errno
import json
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import Any, cast

import numpy as np

from experiment.data.decoding import DEFAULTS, Reading
from experiment.data.folder import Pool
from experiment.errors import DataError
from experiment.system.files import replacing
from experiment.system.names import printable

OPEN = 256  # files at a time
SPLITS = ("train", "test", "validation")
READING = "reading.json"  # how image files were read


class Shards:
    """The images of several .npy files as one array (M, S, S, 3) uint8: only what is asked for is read.

    Not memory-mapped: pages that were looked at would count as the process's memory.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths, self.offsets, counts, shapes = list(paths), [], [], set()
        for path in paths:
            array = _mapped(path)
            if (
                array.dtype != np.uint8
                or array.ndim != 4
                or array.shape[3] != 3
                or not array.flags.c_contiguous
            ):
                raise DataError(f"{path}: {array.dtype} {array.shape}, shards hold uint8 (N, S, S, 3)")
            self.offsets.append(array.offset)
            counts.append(len(array))
            shapes.add(array.shape[1:])
        if len(shapes) > 1:
            raise DataError(f"{paths[0].parent}: the shards differ in their images' size: {sorted(shapes)}")
        self.starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.shape = (int(self.starts[-1]), *shapes.pop())
        self.nbytes = int(np.prod(self.shape))
        self._files: dict[int, FileIO] = {}

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        rows = np.asarray(rows, dtype=np.int64)
        if rows.ndim == 0:
            return self[rows[None]][0]
        images = np.empty((len(rows), *self.shape[1:]), np.uint8)
        shards = np.searchsorted(self.starts, rows, side="right") - 1
        # Rows that lie one after another are read at once.
        ends = [*(np.flatnonzero((np.diff(rows) != 1) | np.diff(shards).astype(bool)) + 1), len(rows)]
        start = 0
        for end in ends if len(rows) else []:
            self._read(int(shards[start]), int(rows[start]), images[start:end])
            start = end
        return images

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype)

    def _read(self, shard: int, row: int, out: np.ndarray) -> None:
        file = self._files.get(shard)
        if file is None:
            if len(self._files) == OPEN:
                self._files.pop(next(iter(self._files))).close()
            file = self._files[shard] = FileIO(self.paths[shard])
        stride = self.nbytes // len(self)
        file.seek(self.offsets[shard] + (row - int(self.starts[shard])) * stride)
        wanted = memoryview(cast(Any, out.reshape(-1)))
        while wanted:
            if not (count := file.readinto(wanted)):
                raise DataError(f"{self.paths[shard]}: ends early: write it again")
            wanted = wanted[count:]


def read_shards(root: Path, image_size: int, reading: Reading = DEFAULTS) -> Pool:
    """The pool of a folder of shards; raises DataError where it is none, or of other images than wanted.

    reading: how a run reads image files later, which must be how the images of the shards were read.
    """
    listing = root / "class_names.txt"
    try:
        if listing.exists() and not listing.is_file():
            raise OSError(errno.EINVAL, "no regular file")  # a pipe would be waited for
        text = listing.read_text("utf-8", "surrogateescape")
    except OSError as error:
        raise DataError(f"{root}: no folder of shards ({error.strerror}: class_names.txt)") from error
    class_names = [printable(name) for name in text.removesuffix("\n").split("\n")]
    if (root / READING).is_file():
        try:
            written = dataclasses.asdict(Reading(**json.loads((root / READING).read_text())))
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{root / READING}: cannot be read ({error}): write the shards again") from error
        for key, value in written.items():
            if value != getattr(reading, key):
                raise DataError(f"{root} was written with data.{key} {value}: --data.{key} '{value}'")
    paths = {split: sorted(root.glob(f"{split}-*-images.npy")) for split in SPLITS}
    if missing := [split for split in ("train", "test") if not paths[split]]:
        raise DataError(
            f"{root} has no {missing[0]}-00000-images.npy: write it with python -m experiment shards"
        )
    images = Shards([path for split in SPLITS for path in paths[split]])
    if images.shape[1:3] != (image_size, image_size):
        raise DataError(
            f"{root} holds images of {images.shape[1]} pixels: --data.image_size {images.shape[1]}"
        )
    labels, counts = [], {}
    for split in SPLITS:
        counts[split] = 0
        for path in paths[split]:
            of_shard = _mapped(path.with_name(path.name.replace("-images.npy", "-labels.npy")))
            if of_shard.shape != (len(_mapped(path)),) or not np.issubdtype(of_shard.dtype, np.integer):
                raise DataError(
                    f"{path}: {len(_mapped(path))} images, but labels {of_shard.shape} {of_shard.dtype}"
                )
            labels.append(of_shard.astype(np.int64))
            counts[split] += len(of_shard)
    joined = np.concatenate(labels)
    if joined.min() < 0 or joined.max() >= len(class_names):
        raise DataError(f"{root}: labels reach {joined.max()}, class_names.txt has {len(class_names)} names")
    ends = np.cumsum([counts[split] for split in SPLITS])
    train, test, validation = np.split(np.arange(len(joined)), ends[:-1])
    own = validation if len(validation) else None
    return Pool(tuple(class_names), images, joined, train, test, own)


class Writer:
    """Writes shards of at most `size` images of one split into a folder."""

    def __init__(self, root: Path, split: str, size: int) -> None:
        self.root, self.split, self.size, self.number = root, split, size, 0

    def add(self, images: np.ndarray, labels: np.ndarray) -> None:
        """One shard: uint8 (N, S, S, 3) and (N,) integers, N at most `size`."""
        for kind, array in (("images", images), ("labels", labels)):
            with replacing(self.root / f"{self.split}-{self.number:05}-{kind}.npy") as path:
                np.save(path, array)
        self.number += 1


def _mapped(path: Path) -> np.memmap:
    try:
        if path.exists() and not path.is_file():
            raise ValueError("no regular file")  # a pipe would be waited for
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    assert isinstance(array, np.memmap)
    return array
