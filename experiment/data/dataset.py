"""A named data set -> uint8 images, labels and class names, the same for both frameworks."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from experiment.config import Data
from experiment.data import catalog
from experiment.data.decoding import Reading, blank_images, kept
from experiment.data.folder import Pool, read_folder, read_npz, refuse_twins
from experiment.data.images import Images
from experiment.data.table import read_table
from experiment.errors import DataError
from experiment.published import PUBLISHED
from experiment.randomness import generator
from experiment.system.names import spelling

__all__ = ["DataError", "Dataset", "Split", "load", "stratified"]

TEST_SHARE = 0.2
DARK = 16  # of 255: a set whose brightest value is not above it was scaled wrongly
OWN = ("folder", "npz", "parquet")  # the user's own images, which may change
SPLITS = ("train", "test", "validation")
BATCH = 1024  # images hashed at once


@dataclass(frozen=True)
class Split:
    """Some images of an array that several splits share."""

    images: Images  # (M, H, W, 3) uint8, or features (M, F)
    labels: np.ndarray  # (N,) int64, in the order of this split
    indices: np.ndarray  # (N,) int64, the row of images for each position

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, positions: np.ndarray | list[int]) -> tuple[np.ndarray, np.ndarray]:
        """The images (B, H, W, 3) uint8, copied into memory, and labels (B,) int64 at these positions."""
        positions = np.asarray(positions, dtype=np.int64)
        return self.images[self.indices[positions]], self.labels[positions]


@dataclass(frozen=True)
class Dataset:
    """Three splits of images, and what they are of."""

    name: str  # what was really used: "digits" where auto fell back
    class_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    # hex; of class names, then labels and images of the whole training and test split (and validation split,
    # where the data have one of their own), in order
    sha256: str
    note: str | None  # what the user should know: a fall-back, skipped files
    digests: np.ndarray | None = None  # (M,) uint64, of each row of images that is used, 0 of the others
    folders: dict[str, object] = field(default_factory=dict)  # what was taken for which split
    own_validation: bool = False  # the data have a validation split: none was held out

    def __post_init__(self) -> None:
        if any(split.images is not self.train.images for split in (self.validation, self.test)):
            raise ValueError("the splits of a data set are rows of one array of images")

    @property
    def images(self) -> Images:
        """What all splits are rows of."""
        return self.train.images


@dataclass(frozen=True)
class Recorded:
    """Images that a run saw, as its record tells: how they are known where others were added."""

    class_names: tuple[str, ...]
    digests: np.ndarray | None  # (K,) uint64; None: an earlier record, which tells the classes alone


def load(
    config: Data, seed: int, recorded: Recorded | None = None, known: np.ndarray | None = None
) -> Dataset:
    """Load the data set that `config` names; draw `limit`, `thin` and validation by `seed`, stratified.

    The division into training and test images never depends on `seed`, nor does `sha256`. Every class keeps
    at least one training image when validation images are held out.

    recorded: leave out what was added to the user's own images since. known: digests of images that an
    earlier run has had: they are left out of the user's own, unless nothing else is there, and a single
    class then suffices.
    Raises DataError: data that cannot be had, read or divided as asked.
    """
    try:
        name, pool = _read(config)
    except OSError as error:
        raise DataError(f"cannot read the data: {error}\nmake it readable, or change --data.root") from error
    place = f"{config.name} {config.root}" if name in OWN else name
    refuse_twins(pool.class_names, place)
    digests = np.zeros(len(pool.images), np.uint64)
    if name in OWN:
        if known is not None or (recorded is not None and recorded.digests is not None):
            _digest(pool.images, _rows(pool), digests)
        pool = _narrowed(pool, digests, recorded, known)
    train, test = pool.train, pool.test
    if not len(train):
        raise DataError(f"{place} has no new training images: add some")
    if test is None:
        train, test = _hold_out(train, pool.labels, TEST_SHARE, generator(0, "test split"))
    pool, whole = replace(pool, train=train, test=test), pool
    if config.classes is not None:
        wanted = [_number("data.classes", one, pool, name) for one in config.classes]
        pool = _renumbered(pool, [pool.class_names[number] for number in wanted])
    labels, train, test = pool.labels, pool.train, pool.test
    assert test is not None
    own, note = pool.validation, pool.note
    if own is not None and config.validation != "auto":
        said = f"its own validation images ignored (data.validation {config.validation})"
        print(f"{place}: {said}", file=sys.stderr)
        own, note = None, "; ".join(filter(None, (note, said)))
    sha256 = _content(pool, [train, test, *([] if own is None else [own])], digests)
    if said := _dark(pool.images, {"training": train, "test": test, "validation": own}):
        print(f"WARNING: {said}", file=sys.stderr)
        note = "; ".join(filter(None, (note, said)))
    if name in OWN:
        rows = _rows(whole)
        _digest(pool.images, rows[digests[rows] == 0], digests)
    if config.limit:
        train = train[stratified(labels[train], config.limit, generator(seed, "limit train"))]
        test = test[stratified(labels[test], config.limit, generator(seed, "limit test"))]
        if own is not None:
            own = own[stratified(labels[own], config.limit, generator(seed, "limit validation"))]
    for one, share in config.thin.items():
        of_class = labels[train] == _number("data.thin", one, pool, name)
        few = max(1, round(share * of_class.sum()))
        kept_rows = stratified(labels[train[of_class]], few, generator(seed, f"thin {one}"))
        train = np.sort(np.concatenate([train[~of_class], train[of_class][kept_rows]]))
    if known is None and len(trained := np.unique(labels[train])) < 2:
        only = "one class alone, " + pool.class_names[trained[0]] if len(trained) else "no class"
        raise DataError(f"{place} has training images of {only}: a classifier needs at least 2")
    if known is None and not len(test):
        raise DataError(f"{place} has no test images of {', '.join(pool.class_names)}: add some")
    if own is not None and not len(own):
        own = None
    if config.validation == "test":
        validation = test
    elif own is not None:
        validation = own
    else:
        share, random = config.validation_share, generator(seed, "validation split")
        train, validation = _hold_out(train, labels, share, random)
    splits = [Split(pool.images, labels[rows], rows) for rows in (train, validation, test)]
    return Dataset(
        name,
        pool.class_names,
        *splits,
        sha256=sha256,
        note=note,
        digests=digests,
        folders=pool.folders,
        own_validation=own is not None,
    )


def _rows(pool: Pool) -> np.ndarray:
    """Every row that belongs to a split, in order."""
    splits = (pool.train, pool.test, pool.validation)
    return np.sort(np.concatenate([rows for rows in splits if rows is not None]))


def _narrowed(pool: Pool, digests: np.ndarray, recorded: Recorded | None, known: np.ndarray | None) -> Pool:
    """A pool without the images that `recorded` lacks and without `known` ones; their digests become 0."""
    rows = _rows(pool)
    wanted = np.ones(len(digests), bool)
    if recorded is not None and recorded.digests is not None:
        wanted &= np.isin(digests, recorded.digests)
    elif recorded is not None:
        numbers = [i for i, name in enumerate(pool.class_names) if name in recorded.class_names]
        wanted &= np.isin(pool.labels, numbers)
    names = () if recorded is None else recorded.class_names
    if known is not None and not (old := np.isin(digests, known))[rows[wanted[rows]]].all():
        wanted &= ~old
        names = ()
    if wanted[rows].all():
        return pool
    digests[~wanted] = 0
    splits = {
        split: None if (rows := getattr(pool, split)) is None else rows[wanted[rows]] for split in SPLITS
    }
    pool = replace(pool, **splits)
    left = set(pool.labels[_rows(pool)].tolist())
    classes = [name for i, name in enumerate(pool.class_names) if i in left or name in names]
    return _renumbered(pool, classes)


def _number(setting: str, wanted: str | int, pool: Pool, name: str) -> int:
    """The class that a setting names, however its accents are written; raises DataError where it is none."""
    known = [spelling(one) for one in pool.class_names]
    if (spelt := spelling(str(wanted))) not in known:
        raise DataError(f"{setting}: no class {wanted!r} in {name}: it has {', '.join(pool.class_names)}")
    return known.index(spelt)


def _renumbered(pool: Pool, classes: list[str]) -> Pool:
    numbers = np.full(len(pool.class_names), -1)
    numbers[[pool.class_names.index(one) for one in classes]] = np.arange(len(classes))
    labels = numbers[pool.labels]
    splits = {
        split: None if (rows := getattr(pool, split)) is None else rows[labels[rows] >= 0] for split in SPLITS
    }
    return replace(pool, class_names=tuple(classes), labels=labels, **splits)


def _read(config: Data) -> tuple[str, Pool]:
    cache, size = Path(config.cache).expanduser(), config.image_size
    root = Path(config.root).expanduser() if config.root else None
    places = [root, cache] if root else [cache]
    if config.name == "digits":
        return "digits", _digits(size)
    if config.name == "auto":
        try:
            return "cifar10", _published("cifar10", places, cache, size)
        except (DataError, OSError) as error:
            note = f"digits used in place of CIFAR-10: {str(error).splitlines()[0]}"
            print(f"WARNING: {note} (--data.name cifar10 to insist)", file=sys.stderr)
            return "digits", replace(_digits(size), note=note)
    if config.name in OWN:
        if root is None:
            raise DataError(f"data.name {config.name} needs --data.root")
        reading = Reading(config.background, config.bits)
        if config.name == "npz":
            return "npz", _npz(root, cache, size)
        if config.name == "parquet":
            return "parquet", read_table(root, size, cache, config.max_unreadable, reading)
        return "folder", read_folder(root, size, cache, config.max_unreadable, config.validation, reading)
    return config.name, _published(config.name, places, cache, size)


def _hold_out(
    rows: np.ndarray, labels: np.ndarray, share: float, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Divide rows into (kept, held out), stratified; every class keeps one, and one at least is held out."""
    held = stratified(labels[rows], max(1, round(share * len(rows))), random, keep=1)
    if not len(held):
        raise DataError(
            f"{len(rows)} training images, at most one of each class, leave none to hold out\n"
            "add images, raise --data.limit, or use --data.validation test"
        )
    return np.delete(rows, held), rows[held]


def stratified(labels: np.ndarray, wanted: int, random: np.random.Generator, keep: int = 0) -> np.ndarray:
    """Sorted positions of `wanted` labels, in proportion to the classes (largest remainders).

    `keep` of each class are never drawn; fewer than `wanted` come back where that leaves too few.
    """
    classes, counts = np.unique(labels, return_counts=True)
    available = np.maximum(counts - keep, 0)
    wanted = min(wanted, int(available.sum()))
    quota = wanted * counts / max(len(labels), 1)
    take = np.minimum(np.floor(quota).astype(int), available)
    while take.sum() < wanted:
        take[np.argmax(np.where(take < available, quota - take, -np.inf))] += 1
    drawn = [
        random.permutation(np.flatnonzero(labels == one))[:n] for one, n in zip(classes, take, strict=True)
    ]
    return np.sort(np.concatenate([np.empty(0, np.int64), *drawn]))


def _content(pool: Pool, splits: list[np.ndarray], digests: np.ndarray) -> str:
    """The sha256 of a data set; `digests` gets those of its images, which are read but once."""
    content = hashlib.sha256(json.dumps(pool.class_names).encode())
    for rows in splits:
        content.update(json.dumps([len(rows), *pool.images.shape[1:]]).encode())
        content.update(pool.labels[rows].astype("<i8").tobytes())
        _digest(pool.images, rows, digests, content)
    return content.hexdigest()


def _digest(images: Images, rows: np.ndarray, digests: np.ndarray, content: Any = None) -> None:
    """Put a digest of each of these rows into `digests`, and all their bytes into `content`."""
    for start in range(0, len(rows), BATCH):
        here = rows[start : start + BATCH]
        batch = np.ascontiguousarray(images[here])
        if content is not None:
            content.update(batch)
        joined = b"".join(hashlib.blake2b(image, digest_size=8).digest() for image in batch)
        digests[here] = np.frombuffer(joined, "<u8")


def _dark(images: Images, splits: dict[str, np.ndarray | None]) -> str | None:
    """Warning of a split that is all but black (divided once too often, or never scaled), or None."""
    dark = {}
    for name, rows in splits.items():
        brightest = None
        for start in range(0, 0 if rows is None else len(rows), BATCH):
            assert rows is not None
            brightest = max(brightest or 0, int(images[rows[start : start + BATCH]].max()))
            if brightest > DARK:
                break
        if brightest is not None and brightest <= DARK:
            dark[name] = brightest
    if not dark:
        return None
    found = " and ".join(f"no value above {most} in the {name} images" for name, most in dark.items())
    return (
        f"{found}, where 255 is white: they are all but black. Give bytes from 0 to 255 (multiply 0 and 1 by "
        "255), or floats from 0 to 1 (divide by their range once, not twice)"
    )


def _resize(images: np.ndarray, out: np.ndarray) -> None:
    """Resize (N, h, w) grey or (N, h, w, 3) RGB uint8 images bilinearly into `out` (N, H, W, 3)."""
    height, width = out.shape[1:3]
    for source, target in zip(images, out, strict=True):
        if source.shape[:2] != (height, width):
            source = np.asarray(Image.fromarray(source).resize((width, height), Image.Resampling.BILINEAR))
        target[...] = source if source.ndim == 3 else source[..., None]


def _digits(size: int) -> Pool:
    from sklearn.datasets import load_digits  # here: it takes a second that no other data set needs

    sixteenths, labels = load_digits(return_X_y=True)
    grey = np.rint(sixteenths.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    images = np.empty((len(grey), size, size, 3), np.uint8)
    _resize(grey, images)
    return Pool(tuple("0123456789"), images, labels.astype(np.int64), np.arange(len(grey)), None)


def _published(name: str, places: list[Path], cache: Path, size: int) -> Pool:
    record = PUBLISHED[name]
    content = hashlib.sha256("".join(record.files.values()).encode())
    if own := catalog.unpacked(record, places):  # of no known checksum
        content = hashlib.sha256(b"".join(path.read_bytes() for path in own))

    def read() -> tuple[Sequence[str], tuple[np.ndarray, ...]]:
        try:
            return record.class_names, record.read(catalog.contents(name, record, places))
        except ValueError as error:
            where = own[0].parent if own else name
            raise DataError(
                f"{where}: not what was published ({error})\nreplace it, or use --data.name digits"
            ) from error

    return _read_once(name, content.hexdigest(), cache, size, read)


def _npz(path: Path, cache: Path, size: int) -> Pool:
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise DataError(f"{path}: no regular file: name an .npz file")
    with path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    return _read_once("arrays", content, cache, size, lambda: read_npz(path))


def _read_once(
    name: str,
    content: str,
    cache: Path,
    size: int,
    read: Callable[[], tuple[Sequence[str], tuple[np.ndarray, ...]]],
) -> Pool:
    def build(out: Path) -> None:
        class_names, arrays = read()
        starts = np.cumsum([0, *map(len, arrays[::2])])
        images = blank_images(out, int(starts[-1]), size)
        for split, source, start, end in zip(SPLITS, arrays[::2], starts, starts[1:], strict=False):
            _resize(source, images[start:end])
            np.save(out / f"{split}.npy", np.arange(start, end))
        np.save(out / "labels.npy", np.concatenate(arrays[1::2]))
        np.save(out / "class_names.npy", np.array(class_names))

    arrays = kept(cache, f"{name}-{size}px-{content[:40]}", build)
    class_names = tuple(arrays["class_names"].tolist())
    images, labels, train, test = (arrays[key] for key in ("images", "labels", "train", "test"))
    return Pool(class_names, images, labels, train, test, arrays.get("validation"))
