"""Images on both sides of a division, and classes with too few."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pictures import fill
from PIL import Image

from experiment.config import Data
from experiment.data.audit import identical, remarks
from experiment.data.dataset import Dataset, Split, load
from experiment.data.write_table import main

SIZE = 8


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


def npz(folder: Path) -> Path:
    """30 training, 9 validation and 6 test images: some of them are copies, as COPIES has it."""
    train, validation, test = images(30), images(9, 1), images(6, 2)
    test[:2] = train[[4, 4]]
    validation[0] = train[7]
    test[3:6] = validation[1:4]
    path = folder / "a.npz"
    y = np.arange(30) % 2
    np.savez(path, x_train=train, y_train=y, x_val=validation, y_val=y[:9], x_test=test, y_test=y[:6])
    return path


COPIES = {"test_in_train": 2, "validation_in_train": 1, "test_in_validation": 3}


def data(name: str, root: Path, cache: Path, **more: object) -> Dataset:
    values = {"name": name, "root": str(root), "image_size": SIZE, "cache": str(cache / "cache")}
    return load(Data.model_validate(values | more), 1)


def folder_of(root: Path, found: Dataset) -> None:
    for split, name in (("train", "Training"), ("validation", "Val"), ("test", "Testing")):
        pictures, labels = getattr(found, split).batch(np.arange(len(getattr(found, split))))
        for i, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
            path = root / name / f"class {label}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)


def test_copies_are_counted_whatever_the_source(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = npz(tmp_path)
    found = data("npz", path, tmp_path)
    assert identical(found) == COPIES
    folder_of(tmp_path / "d", found)
    assert identical(data("folder", tmp_path / "d", tmp_path)) == COPIES
    out = tmp_path / "shards"
    assert (
        main(
            [
                str(out),
                "--size=4",
                "--data.name=npz",
                f"--data.root={path}",
                "--data.image_size=8",
                f"--data.cache={tmp_path}",
            ]
        )
        == 0
    )
    assert "30 train, 6 test, 9 validation images" in capsys.readouterr().out
    assert identical(data("parquet", out, tmp_path)) == COPIES
    assert (
        "2 of 6 test images lie in the training split, too, byte for byte: the test accuracy is too high"
        in remarks(found)
    )
    assert identical(data("npz", path, tmp_path, validation="test")) == {"test_in_train": 2}


def test_only_images_that_are_used_count(tmp_path: Path) -> None:
    found = data("npz", npz(tmp_path), tmp_path)
    fewer = [row for row in range(30) if row != 4]
    train = Split(found.train.images, found.train.labels[fewer], found.train.indices[fewer])
    assert (
        identical(
            Dataset(
                found.name, found.class_names, train, found.validation, found.test, "", None, found.digests
            )
        )["test_in_train"]
        == 0
    )


def test_digits_have_no_copies(tmp_path: Path) -> None:
    assert set(identical(load(Data(name="digits", image_size=16), 1)).values()) == {0}


# === Too few ===


def labelled(train: list[int], validation: list[int], test: list[int]) -> Dataset:
    splits, first, pictures = [], 0, images(1)
    for numbers in (train, validation, test):
        rows = np.arange(first, first + sum(numbers))
        splits.append(Split(pictures, np.repeat(np.arange(len(numbers)), numbers), rows))
        first += len(rows)
    names = ("ant", "bee", "cow", "dog", "elk", "fox", "gnu")[: len(train)]
    return Dataset("npz", names, *splits, sha256="", note=None)


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        (([5, 5], [1, 1], [2, 2]), []),
        (
            ([5, 1], [1, 0], [2, 0]),
            ["one image alone of bee: it is trained on and neither validated nor tested"],
        ),
        (([5, 1], [1, 1], [2, 3]), ["one training image alone of bee: hardly enough to learn from"]),
        (([5, 0], [1, 1], [2, 3]), ["no training images of bee: it cannot be learned"]),
        (([5, 5], [1, 0], [2, 3]), ["no validation images of bee: the best epoch is chosen without"]),
        (([5, 5], [1, 1], [2, 0]), ["no test images of bee: support 0, scores 0"]),
        (
            ([5] * 7, [1] * 7, [1] + [0] * 6),
            ["no test images of bee, cow, dog, elk, fox and 1 more: support 0, scores 0"],
        ),
    ],
)
def test_classes_with_too_few_images_are_named(counts: tuple[list[int], ...], said: list[str]) -> None:
    assert remarks(labelled(*counts)) == said


def test_one_image_of_a_class_in_a_folder(tmp_path: Path) -> None:
    fill(tmp_path / "d", count=9)
    fill(tmp_path / "d", ("fig",), 1)
    found = data("folder", tmp_path / "d", tmp_path)
    assert "one image alone of fig: it is trained on and neither validated nor tested" in remarks(found)
