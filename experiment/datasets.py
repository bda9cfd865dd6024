"""A named data set -> uint8 images, labels and class names, the same for both frameworks."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from experiment import download
from experiment.config import Data
from experiment.decoding import Reading, blank_images, kept
from experiment.download import Arrays, DataError
from experiment.folder import Pool, read_folder, read_npz
from experiment.randomness import generator
from experiment.shards import read_shards

__all__ = ["DataError", "Dataset", "Split", "load", "stratified"]

DIGITS = [str(digit) for digit in range(10)]
CLASSES = {
    "cifar10": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    "mnist": DIGITS,
    "fashion_mnist": [
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ],
}
TEST_SHARE = 0.2
DARK = 16  # of 255: a set whose brightest value is not above it was scaled wrongly


@dataclass(frozen=True)
class Split:
    """Some images of an array that several splits share."""

    images: np.ndarray  # (M, H, W, 3) uint8, perhaps memory-mapped, or Shards
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
    sha256: str  # hex; of class names, then labels and images of the whole training and test split, in order
    note: str | None  # what the user should know: a fall-back, skipped files


def load(config: Data, seed: int) -> Dataset:
    """Load the data set that `config` names; draw `limit`, `thin` and validation by `seed`, stratified.

    The division into training and test images never depends on `seed`, nor does `sha256`. Every class keeps
    at least one training image when validation images are held out.
    Raises DataError: data that cannot be had, read or divided as asked.
    """
    try:
        name, pool = _read(config)
    except OSError as error:
        raise DataError(f"cannot read the data: {error}\nmake it readable, or change --data.root") from error
    labels, train, test = pool.labels, pool.train, pool.test
    if test is None:
        train, test = _hold_out(train, labels, TEST_SHARE, generator(0, "test split"))
    if config.classes is not None:
        pool, train, test = _only(pool, train, test, [str(one) for one in config.classes], name)
        labels = pool.labels
    sha256 = _content(pool, train, test)
    if said := _dark(pool, train, test):
        print(f"WARNING: {said}", file=sys.stderr)
        pool = replace(pool, note="; ".join(filter(None, (pool.note, said))))
    if config.limit:
        train = train[stratified(labels[train], config.limit, generator(seed, "limit train"))]
        test = test[stratified(labels[test], config.limit, generator(seed, "limit test"))]
    for one, share in config.thin.items():
        if one not in pool.class_names:
            raise DataError(f"data.thin: no class {one!r} in {name}: it has {', '.join(pool.class_names)}")
        of_class = labels[train] == pool.class_names.index(one)
        few = max(1, round(share * of_class.sum()))
        kept_rows = stratified(labels[train[of_class]], few, generator(seed, f"thin {one}"))
        train = np.sort(np.concatenate([train[~of_class], train[of_class][kept_rows]]))
    validation = test
    if config.validation == "split":
        share, random = config.validation_share, generator(seed, "validation split")
        train, validation = _hold_out(train, labels, share, random)
    splits = [Split(pool.images, labels[rows], rows) for rows in (train, validation, test)]
    return Dataset(name, pool.class_names, *splits, sha256=sha256, note=pool.note)


def _only(
    pool: Pool, train: np.ndarray, test: np.ndarray, classes: list[str], name: str
) -> tuple[Pool, np.ndarray, np.ndarray]:
    """A pool of these classes alone, numbered as they are named, and the rows of its two splits."""
    if missing := [one for one in classes if one not in pool.class_names]:
        raise DataError(
            f"data.classes: no class {missing[0]!r} in {name}: it has {', '.join(pool.class_names)}"
        )
    numbers = np.full(len(pool.class_names), -1)
    numbers[[pool.class_names.index(one) for one in classes]] = np.arange(len(classes))
    labels = numbers[pool.labels]
    train, test = train[labels[train] >= 0], test[labels[test] >= 0]
    return replace(pool, class_names=tuple(classes), labels=labels, train=train, test=test), train, test


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
    if config.name in ("folder", "npz", "shards"):
        if root is None:
            raise DataError(f"data.name {config.name} needs --data.root")
        reading = Reading(config.background, config.bits)
        if config.name == "folder":
            return "folder", read_folder(root, size, cache, config.max_unreadable, reading)
        return config.name, _npz(root, cache, size) if config.name == "npz" else read_shards(
            root, size, reading
        )
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
    return np.sort(np.concatenate(drawn))


def _content(pool: Pool, train: np.ndarray, test: np.ndarray) -> str:
    digest = hashlib.sha256(json.dumps(pool.class_names).encode())
    for rows in (train, test):
        digest.update(json.dumps([len(rows), *pool.images.shape[1:]]).encode())
        digest.update(pool.labels[rows].astype("<i8").tobytes())
        for start in range(0, len(rows), 1024):
            digest.update(pool.images[rows[start : start + 1024]].tobytes())
    return digest.hexdigest()


def _dark(pool: Pool, train: np.ndarray, test: np.ndarray) -> str | None:
    """What is to be said where a split is all but black: it was divided once too often, or never scaled."""
    dark = {}
    for name, rows in (("training", train), ("test", test)):
        brightest = 0
        for start in range(0, len(rows), 1024):
            brightest = max(brightest, int(pool.images[rows[start : start + 1024]].max()))
            if brightest > DARK:
                break
        if brightest <= DARK:
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
    return Pool(tuple(DIGITS), images, labels.astype(np.int64), np.arange(len(grey)), None)


def _published(name: str, places: list[Path], cache: Path, size: int) -> Pool:
    checksums = download.IDX_CHECKSUMS.get(name, download.CIFAR10_CHECKSUM)
    content = hashlib.sha256("".join(checksums).encode())
    folder = download.unpacked_cifar10(places) if name == "cifar10" else None
    if folder:
        content = hashlib.sha256(b"".join((folder / n).read_bytes() for n in download.CIFAR10_BATCHES))

    def read() -> tuple[list[str], Arrays]:
        arrays = download.read_cifar10(places) if name == "cifar10" else download.read_idx(name, places)
        return CLASSES[name], arrays

    return _read_once(name, content.hexdigest(), cache, size, read)


def _npz(path: Path, cache: Path, size: int) -> Pool:
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise DataError(f"{path}: no regular file: name an .npz file")
    with path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    return _read_once("npz", content, cache, size, lambda: read_npz(path))


def _read_once(
    name: str, content: str, cache: Path, size: int, read: Callable[[], tuple[list[str], Arrays]]
) -> Pool:
    def build(out: Path) -> None:
        class_names, (x_train, y_train, x_test, y_test) = read()
        count = len(x_train)
        images = blank_images(out, count + len(x_test), size)
        _resize(x_train, images[:count])
        _resize(x_test, images[count:])
        np.save(out / "labels.npy", np.concatenate([y_train, y_test]))
        np.save(out / "train.npy", np.arange(count))
        np.save(out / "test.npy", np.arange(count, len(images)))
        np.save(out / "class_names.npy", np.array(class_names))

    arrays = kept(cache, f"{name}-{size}px-{content[:40]}", build)
    class_names = tuple(arrays["class_names"].tolist())
    return Pool(class_names, arrays["images"], arrays["labels"], arrays["train"], arrays["test"])
