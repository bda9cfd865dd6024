"""The user's own images: a folder of class folders, or an .npz file."""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL

from experiment.decoding import CHUNK, DEFAULTS, Reading, decode_files, kept, remarks
from experiment.download import Arrays, DataError
from experiment.image_files import count_beside, images_below, told

TEST_FOLDERS = ("test", "val", "validation")


@dataclass(frozen=True)
class Pool:
    """All images of a data set, and which of them are for training and which for testing."""

    class_names: tuple[str, ...]
    images: np.ndarray  # (M, H, W, 3) uint8
    labels: np.ndarray  # (M,) int64
    train: np.ndarray  # (N,) int64, rows of images
    test: np.ndarray | None  # the same; None: still to be divided off train
    note: str | None = None


def read_folder(
    root: Path, image_size: int, cache: Path, max_unreadable: float, reading: Reading = DEFAULTS
) -> Pool:
    """Read ROOT/CLASS/image, or ROOT/train/CLASS/image with ROOT/test/CLASS/image (or val, validation).

    Class folders may nest; files whose suffix is not an image's are ignored, and counted on stderr. Images of
    any mode and size become RGB, `image_size` pixels square, resized bilinearly *without keeping their
    aspect*. The result is kept in `cache`, keyed by every relative path, every byte and `reading`. Unreadable
    files are named on stderr and skipped.

    Raises DataError: no class folders or fewer than two, a class without images, classes that differ
    between train and test, more than `max_unreadable` (a share) of the files unreadable.
    """
    train_folder, test_folder, notes = _layout(root)
    ignored: Counter[str] = Counter()
    train_files = _list_images(train_folder, ignored)
    test_files = _list_images(test_folder, ignored) if test_folder else []
    for folder in {root, train_folder, *([test_folder] if test_folder else [])}:
        count_beside(folder, ignored)
    if said := told(ignored):
        print(said, file=sys.stderr)
        notes.append(said)
    class_names = sorted({name for name, _ in train_files})
    if test_folder:
        difference = set(class_names) ^ {name for name, _ in test_files}
        if difference:
            raise DataError(
                f"{train_folder} and {test_folder} must have the same class folders, "
                f"but only one of them has: {', '.join(sorted(difference))}"
            )
    files = [path for _, path in train_files + test_files]
    labels = np.array([class_names.index(name) for name, _ in train_files + test_files], dtype=np.int64)

    choices = f"{reading.background.removeprefix('#')}-{reading.bits}bit"
    key = f"folder-{image_size}px-{choices}-{_content_digest(root, files)[:40]}"
    arrays = kept(cache, key, lambda out: decode_files(files, image_size, out, reading))

    unreadable = arrays["unreadable"]
    if len(unreadable):
        names = [
            f"{files[row].relative_to(root)}{f' ({reason})' if reason else ''}"
            for row, reason in zip(unreadable[:10], arrays["reasons"], strict=False)
        ]
        more = f" and {len(unreadable) - 10} more" if len(unreadable) > 10 else ""
        message = f"{len(unreadable)} of {len(files)} image files in {root} are unreadable: " + ", ".join(
            names
        )
        if len(unreadable) > max_unreadable * len(files):
            raise DataError(f"{message}{more}\nrepair or remove them, or raise --data.max_unreadable")
        print(f"skipped: {message}{more}", file=sys.stderr)
        notes.append(f"{len(unreadable)} of {len(files)} files unreadable and skipped")
    readable = np.setdiff1d(np.arange(len(files)), unreadable)
    for said in remarks(arrays["facts"][readable], reading):
        print(said, file=sys.stderr)
        notes.append(said)
    train, test = readable[readable < len(train_files)], readable[readable >= len(train_files)]
    for folder, rows in {train_folder: train, **({test_folder: test} if test_folder else {})}.items():
        missing = set(range(len(class_names))) - set(labels[rows].tolist())
        if missing:
            raise DataError(
                f"{folder / class_names[min(missing)]} has no readable image: repair or remove it"
            )
    note = "; ".join(notes) or None
    return Pool(tuple(class_names), arrays["images"], labels, train, test if test_folder else None, note)


def _subfolders(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _layout(root: Path) -> tuple[Path, Path | None, list[str]]:
    """The folder of training classes, that of test classes if there is one, and what was ignored."""
    if not root.is_dir():
        raise DataError(f"data.root {root}: there is no such directory")
    names = _subfolders(root)
    named = [name for name in ("train", *TEST_FOLDERS) if name in names]
    # A class may be called "train" too (with trucks beside it): it then holds images and no folders.
    splits = [name for name in named if _subfolders(root / name)]
    if not splits and set(names) - set(named):
        return root, None, []
    if "train" not in splits:
        found = ", ".join(f"{name}/" for name in names) or "no folders"
        raise DataError(f"{root} has {found}: it needs class folders, or train/ with class folders in it")
    tests = [name for name in TEST_FOLDERS if name in splits]
    notes = [f"{name}/ ignored" for name in named if name not in ("train", *tests[:1])]
    return root / "train", root / tests[0] if tests else None, notes


def _list_images(folder: Path, ignored: Counter[str]) -> list[tuple[str, Path]]:
    """(class name, path) of every image below the class folders, in sorted order."""
    names = _subfolders(folder)
    if len(names) < 2:
        raise DataError(f"{folder} has {len(names)} class folders: a classifier needs at least 2")
    listed = []
    for name in names:
        others: Counter[str] = Counter()
        found = images_below(folder / name, others)
        ignored += others
        if not found:
            raise DataError(f"class folder {folder / name} has no images ({told(others) or 'it is empty'})")
        listed += [(name, path) for path in found]
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


def read_npz(path: Path) -> tuple[list[str], Arrays]:
    """Read x_train, y_train, x_test, y_test and, where it is there, class_names from an .npz file.

    Images are (N, H, W), (N, H, W, 1) or (N, H, W, 3), uint8 or floats in [0, 1]; labels are numbers from 0,
    (N,) or (N, 1), or one-hot (N, classes). Returns class names, then (N, H, W) or (N, H, W, 3) uint8 and
    (N,) int64, training before test. Raises DataError where the file is not like that.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            keys = {name.removesuffix(".npy") for name in archive.namelist()}
        if missing := {"x_train", "y_train", "x_test", "y_test"} - keys:
            raise DataError(
                f"{path} has no {', '.join(sorted(missing))}: add them, named as Keras names them"
            )
        with np.load(path, allow_pickle=False) as file:
            names = np.asarray(file["class_names"]).astype(str).tolist() if "class_names" in keys else []
            x_train, x_test = (_npz_images(f"{path}: {key}", file[key]) for key in ("x_train", "x_test"))
            y_train, y_test = (_npz_labels(f"{path}: {key}", file[key]) for key in ("y_train", "y_test"))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"cannot read {path}: {error}\nwrite it with numpy.savez, of plain numbers"
        ) from error
    for split, images, labels in (("train", x_train, y_train), ("test", x_test, y_test)):
        if len(images) != len(labels) or not len(images):
            raise DataError(f"{path}: {len(images)} images in x_{split}, {len(labels)} labels in y_{split}")
    found = np.unique(y_train)
    classes = len(names) or len(found)
    if found[-1] >= classes or y_test.max() >= classes or classes < 2:
        given = f"class_names has {classes} names" if names else f"y_train has {classes} classes"
        raise DataError(
            f"{path}: {given}, but the labels reach {max(found[-1], y_test.max())}: "
            "number at least 2 classes from 0 without gaps"
        )
    return names or [str(label) for label in found], (x_train, y_train, x_test, y_test)


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
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    elif labels.ndim == 2 and np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all():
        labels = labels.argmax(axis=1)
    if labels.ndim != 1:
        raise DataError(f"{name} has shape {labels.shape}: give (N,), (N, 1) or one-hot (N, classes)")
    whole = labels.astype(np.int64)
    if (whole != labels).any() or (whole < 0).any():
        raise DataError(f"{name} has labels that are negative or not whole: number the classes from 0")
    return whole
