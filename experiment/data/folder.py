"""The user's own images: a folder of class folders, or an .npz file."""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import PIL

from experiment.data.decoding import CHUNK, DEFAULTS, Reading, decode_files, kept, remarks
from experiment.data.image_files import count_beside, images_below, named_as_image, told
from experiment.data.images import Images
from experiment.data.layout import Layout, find, subfolders
from experiment.errors import DataError
from experiment.system.names import printable, spelling

VALIDATION = ("val", "valid", "validation")  # what the arrays of an .npz file may be called


@dataclass(frozen=True)
class Pool:
    """All images of a data set, and which of them are for training and which for testing."""

    class_names: tuple[str, ...]
    images: Images  # (M, H, W, 3) uint8
    labels: np.ndarray  # (M,) int64
    train: np.ndarray  # (N,) int64, rows of images
    test: np.ndarray | None = None  # the same; None: still to be divided off train
    validation: np.ndarray | None = None  # the same; None: still to be held out
    note: str | None = None
    folders: dict[str, object] = field(default_factory=dict)  # what was taken for which split, for the record


def read_folder(
    root: Path,
    image_size: int,
    cache: Path,
    max_unreadable: float,
    validation: str = "auto",
    reading: Reading = DEFAULTS,
) -> Pool:
    """Read ROOT/CLASS/image, or ROOT/train/CLASS/image with ROOT/test/CLASS/image and ROOT/val/CLASS/image.

    `layout.find` tells which folder is which, and `validation` is its own. Class folders may nest; files
    whose suffix is not an image's are ignored. Images of any mode and size become RGB, `image_size` pixels
    square, resized bilinearly *without keeping their aspect*. The result is kept in `cache`, keyed by every
    relative path, every byte and `reading`. What became of the folders, what was ignored, and unreadable
    files, which are skipped, are told on stderr.

    Raises DataError: no class folders, a class without images to train on, one that only the test or
    validation split has, more than `max_unreadable` (a share) of the files unreadable.
    """
    layout = find(root, validation, named_as_image)
    notes, ignored = [], Counter[str]()
    if layout.note:
        print(f"{root}: {layout.note}", file=sys.stderr)
        notes.append(layout.note)
    class_names, files, rows, numbers = _classes(layout, notes, ignored)
    splits_at = [place for place in (layout.training, layout.test, layout.validation) if place]
    for place in {above for split in splits_at for above in (split, *split.parents)}:
        if place == root or root in place.parents:
            count_beside(place, ignored)
    if said := told(ignored):
        print(said, file=sys.stderr)
        notes.append(said)
    labels = np.array(numbers, dtype=np.int64)

    choices = f"{reading.background.removeprefix('#')}-{reading.bits}bit"
    key = f"folder-{image_size}px-{choices}-{_content_digest(root, files)[:40]}"
    arrays = kept(cache, key, lambda out: decode_files(files, image_size, out, reading))

    places = [printable(str(path.relative_to(root))) for path in files]
    whole, more = readable(root, places, arrays, max_unreadable, reading)
    notes += more
    splits = {split: np.intersect1d(numbered, whole) for split, numbered in rows.items()}
    if missing := set(range(len(class_names))) - set(labels[splits["training"]].tolist()):
        raise DataError(
            f"{layout.training / class_names[min(missing)]} has no readable image: repair or remove it"
        )
    for split, numbered in splits.items():
        if not len(numbered):
            raise DataError(f"{getattr(layout, split)} has no readable image: repair or remove it")
    return Pool(
        tuple(class_names),
        arrays["images"],
        labels,
        splits["training"],
        splits.get("test"),
        splits.get("validation"),
        "; ".join(notes) or None,
        {**layout.folders, "ignored": layout.ignored} if layout.folders else {},
    )


def readable(
    root: Path,
    places: Sequence[str],
    arrays: Mapping[str, np.ndarray],
    max_unreadable: float,
    reading: Reading,
) -> tuple[np.ndarray, list[str]]:
    """The rows (N,) int64 of the images that could be read, and what is to be known of all, told on stderr.

    places: where each image lies in `root`. arrays: what `decode_files` left. Raises DataError where more
    than `max_unreadable` (a share) of them are unreadable.
    """
    notes, unreadable = [], arrays["unreadable"]
    if len(unreadable):
        names = [
            f"{places[row]}{f' ({reason})' if reason else ''}"
            for row, reason in zip(unreadable[:10], arrays["reasons"], strict=False)
        ]
        more = f" and {len(unreadable) - 10} more" if len(unreadable) > 10 else ""
        message = (
            f"{len(unreadable)} of {len(places)} image files in {root} are unreadable: {', '.join(names)}"
        )
        if len(unreadable) > max_unreadable * len(places):
            raise DataError(f"{message}{more}\nrepair or remove them, or raise --data.max_unreadable")
        print(f"skipped: {message}{more}", file=sys.stderr)
        notes.append(f"{len(unreadable)} of {len(places)} files unreadable and skipped")
    rows = np.setdiff1d(np.arange(len(places)), unreadable)
    for said in remarks(arrays["facts"][rows], reading):
        print(said, file=sys.stderr)
        notes.append(said)
    return rows, notes


def _classes(
    layout: Layout, notes: list[str], ignored: Counter[str]
) -> tuple[list[str], list[Path], dict[str, np.ndarray], list[int]]:
    """Class names, the files of all splits, the rows (N,) int64 of each split, and every file's class.

    A class of another split may differ by case from the one that it must be, which `notes` then tells.
    """
    class_names: list[str] = []
    files: list[Path] = []
    rows: dict[str, np.ndarray] = {}
    numbers: list[int] = []
    known: dict[str, int] = {}
    # Test files before validation files: the order is part of a cache entry's key.
    for split in ("training", "test", "validation"):
        folder = getattr(layout, split)
        if folder is None:
            continue
        listed = _list_images(folder, split == "training", ignored)
        if split == "training":
            class_names = sorted(printable(name) for name in subfolders(folder))
            refuse_twins(class_names, str(folder))
            known = {spelling(name): number for number, name in enumerate(class_names)}
        folded = [name.casefold() for name in known]
        spelt = [spelling(name) for name, _ in listed]
        for name in sorted(set(spelt) - set(known)):
            if folded.count(name.casefold()) == 1:
                number = folded.index(name.casefold())
                notes.append(f"{folder.name}/{name} taken for {class_names[number]}")
                print(f"{folder}: {name}/ taken for the class {class_names[number]}", file=sys.stderr)
                known |= {name: number}
        if strange := sorted(set(spelt) - set(known)):
            raise DataError(
                f"{folder} has class folders that {layout.training} has not: {', '.join(strange[:10])}\n"
                "what is never trained cannot be told: give them training images, or move them away"
            )
        rows[split] = np.arange(len(files), len(files) + len(listed))
        numbers += [known[name] for name in spelt]
        files += [path for _, path in listed]
    return class_names, files, rows, numbers


def refuse_twins(class_names: Sequence[str], where: str) -> None:
    """Raise DataError where two classes have one name, or names that look alike to every reader."""
    seen: dict[str, str] = {}
    for name in class_names:
        if (other := seen.get(spelling(name))) is not None:
            twins = repr(name) if other == name else f"{other!a} and {name!a}, read alike"
            raise DataError(f"{where} has two classes of one name, {twins}: rename or join them")
        seen[spelling(name)] = name


def _list_images(folder: Path, every: bool, ignored: Counter[str]) -> list[tuple[str, Path]]:
    """(class name, path) of every image below the class folders, in sorted order.

    Raises DataError where there are no images at all or, with `every`, in one of the folders.
    """
    listed = []
    for name in subfolders(folder):
        others = Counter[str]()
        found = images_below(folder / name, others)
        ignored.update(others)
        if not found and every:
            raise DataError(f"class folder {folder / name} has no images ({told(others) or 'it is empty'})")
        listed += [(printable(name), path) for path in found]
    if not listed:
        why = told(ignored)
        raise DataError(f"{folder} has no class folders with images in them{f' ({why})' if why else ''}")
    return listed


def _content_digest(root: Path, files: list[Path]) -> str:
    def digests(start: int) -> bytes:
        joined = b""
        for path in files[start : start + CHUNK]:
            try:
                if not path.is_file():  # what has become a pipe would be waited for
                    raise OSError
                content = hashlib.sha256(path.read_bytes()).digest()
            except OSError:  # decoding will count it as unreadable
                content = b"unreadable"
            joined += os.fsencode(path.relative_to(root).as_posix()) + b"\0" + content
        return joined

    total = hashlib.sha256(PIL.__version__.encode())  # decoders change between releases
    with ThreadPoolExecutor() as pool:
        for joined in pool.map(digests, range(0, len(files), CHUNK)):
            total.update(joined)
    return total.hexdigest()


def read_npz(path: Path) -> tuple[list[str], tuple[np.ndarray, ...]]:
    """Read x_train, y_train, x_test, y_test and, where they are there, x_val, y_val and class_names.

    Images are (N, H, W), (N, H, W, 1) or (N, H, W, 3), uint8 or floats in [0, 1]; labels are numbers from 0,
    (N,) or (N, 1), or one-hot (N, classes). Returns class names, then (N, H, W) or (N, H, W, 3) uint8 and
    (N,) int64 of training, test and, where it is there, validation (x_valid and x_validation are, too).
    Raises DataError where the file is not like that.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            keys = {name.removesuffix(".npy") for name in archive.namelist()}
        if missing := {"x_train", "y_train", "x_test", "y_test"} - keys:
            raise DataError(
                f"{path} has no {', '.join(sorted(missing))}: add them, named as Keras names them"
            )
        splits = ["train", "test", *(one for one in VALIDATION if {f"x_{one}", f"y_{one}"} <= keys)][:3]
        if ignored := sorted(
            keys - {f"{kind}_{split}" for kind in "xy" for split in splits} - {"class_names"}
        ):
            print(f"{path}: {', '.join(map(printable, ignored))} ignored", file=sys.stderr)
        with np.load(path, allow_pickle=False) as file:
            names = _npz_names(str(path), file["class_names"]) if "class_names" in keys else []
            images = {one: _npz_images(f"{path}: x_{one}", file[f"x_{one}"]) for one in splits}
            labels = {one: _npz_labels(f"{path}: y_{one}", file[f"y_{one}"]) for one in splits}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"cannot read {path}: {error}\nwrite it with numpy.savez, of plain numbers"
        ) from error
    for split in splits:
        counts = len(images[split]), len(labels[split])
        if counts[0] != counts[1] or not counts[0]:
            raise DataError(f"{path}: {counts[0]} images in x_{split}, {counts[1]} labels in y_{split}")
    found = np.unique(labels["train"])
    classes, highest = len(names) or len(found), max(found[-1], *(labels[one].max() for one in splits))
    if highest >= classes:
        given = f"class_names has {classes} names" if names else f"y_train has {classes} classes"
        raise DataError(
            f"{path}: {given}, but the labels reach {highest}: number at least 2 classes from 0 without gaps"
        )
    arrays = [array for split in splits for array in (images[split], labels[split])]
    return names or [str(label) for label in found], tuple(arrays)


def _npz_names(where: str, names: np.ndarray) -> list[str]:
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise DataError(f"{where}: class_names is {names.dtype} {names.shape}: give a list of names")
    found = [
        printable(one.decode("utf-8", "surrogateescape") if isinstance(one, bytes) else one)
        for one in names.tolist()
    ]
    refuse_twins(found, f"{where}: class_names")
    return found


def _npz_images(name: str, images: np.ndarray) -> np.ndarray:
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    if not (images.ndim == 3 or (images.ndim == 4 and images.shape[-1] == 3)):
        raise DataError(f"{name} has shape {images.shape}: give (N, H, W), (N, H, W, 1) or (N, H, W, 3)")
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.floating):
        raise DataError(f"{name} is {images.dtype}: give uint8, or floats in [0, 1]")
    if not ((images >= 0) & (images <= 1)).all():  # false for NaN too
        raise DataError(f"{name} has values outside [0, 1]: divide by their range, or give uint8")
    return np.rint(images * 255).astype(np.uint8)


def _npz_labels(name: str, labels: np.ndarray) -> np.ndarray:
    if labels.dtype.kind not in "buif":
        raise DataError(f"{name} holds {labels.dtype}: number the classes from 0, of plain numbers")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    elif labels.ndim == 2 and np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all():
        labels = labels.argmax(axis=1)
    if labels.ndim != 1:
        raise DataError(f"{name} has shape {labels.shape}: give (N,), (N, 1) or one-hot (N, classes)")
    with np.errstate(invalid="ignore"):  # of NaN and infinity, which are not whole
        whole = labels.astype(np.int64)
    if (whole != labels).any() or (whole < 0).any():
        raise DataError(f"{name} has labels that are negative or not whole: number the classes from 0")
    return whole
