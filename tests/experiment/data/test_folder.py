"""Folders of images: layouts and unreadable files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pictures import RED, fill, save
from PIL import Image

from experiment.data.decoding import DEFAULTS, Reading
from experiment.data.folder import Pool, read_folder
from experiment.errors import DataError


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Pool]:
    def read(root: Path, size: int = 8, max_unreadable: float = 0.0, reading: Reading = DEFAULTS) -> Pool:
        return read_folder(root, size, tmp_path / "cache", max_unreadable, reading=reading)

    return read


# === Layouts ===


def test_plain_class_folders_are_left_to_be_divided(read, tmp_path: Path) -> None:
    fill(tmp_path / "d")
    pool = read(tmp_path / "d")
    assert pool.class_names == ("apple", "pear")
    assert pool.images.shape == (6, 8, 8, 3)
    assert pool.images.dtype == np.uint8
    assert pool.images[:, 4, 4, 0].tolist() == [200, 201, 202, 20, 21, 22]
    assert (pool.images[:3, ..., 1:] == RED[1:]).all()
    assert pool.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert pool.train.tolist() == [0, 1, 2, 3, 4, 5]
    assert pool.test is None
    assert pool.note is None


def test_train_and_test_folders(read, tmp_path: Path) -> None:
    fill(tmp_path / "d" / "train", count=2)
    fill(tmp_path / "d" / "test", count=1)
    pool = read(tmp_path / "d")
    assert pool.labels.tolist() == [0, 0, 1, 1, 0, 1]
    assert pool.train.tolist() == [0, 1, 2, 3]
    assert pool.test is not None
    assert pool.test.tolist() == [4, 5]
    assert pool.validation is None


def test_every_folder_is_used_and_named(read, tmp_path: Path, capsys) -> None:
    for name, count in (("Training", 3), ("Testing", 1), ("Valid", 2), ("extra", 1)):
        fill(tmp_path / "d" / name, count=count)
    pool = read(tmp_path / "d")
    assert pool.test is not None
    assert pool.validation is not None
    assert [len(rows) for rows in (pool.train, pool.test, pool.validation)] == [6, 2, 4]
    assert pool.note == (
        "Training/ is the training split, Valid/ is the validation split, Testing/ is the test split, "
        "extra/ ignored"
    )
    assert f"{tmp_path / 'd'}: {pool.note}" in capsys.readouterr().err
    assert pool.folders == {
        "training": "Training",
        "validation": "Valid",
        "test": "Testing",
        "ignored": ["extra"],
    }


def test_without_a_test_folder_some_training_images_are_still_to_be_held_out(read, tmp_path: Path) -> None:
    fill(tmp_path / "d" / "train", count=2)
    fill(tmp_path / "d" / "val", count=1)
    pool = read(tmp_path / "d")
    assert pool.test is None
    assert pool.validation is not None
    assert pool.validation.tolist() == [4, 5]
    as_before = read_folder(tmp_path / "d", 8, tmp_path / "cache", 0.0, "split")
    assert as_before.validation is None
    assert as_before.test is not None
    assert as_before.test.tolist() == [4, 5]


def test_a_test_folder_may_lack_a_class(read, tmp_path: Path) -> None:
    fill(tmp_path / "d" / "train", ("apple", "fig", "pear"), 2)
    fill(tmp_path / "d" / "test", ("fig",), 1)
    (tmp_path / "d" / "test" / "pear").mkdir()
    pool = read(tmp_path / "d")
    assert pool.class_names == ("apple", "fig", "pear")
    assert pool.test is not None
    assert pool.labels[pool.test].tolist() == [1]


def test_an_accent_may_be_spelt_otherwise_in_another_split(read, tmp_path: Path) -> None:
    fill(tmp_path / "d" / "train", ("bee", "caf\u00e9"), 2)
    fill(tmp_path / "d" / "test", ("bee", "cafe\u0301"), 1)
    pool = read(tmp_path / "d")
    assert pool.class_names == ("bee", "caf\u00e9")
    assert pool.labels[pool.test].tolist() == [0, 1]


def test_a_class_may_differ_by_case_in_another_split(read, tmp_path: Path, capsys) -> None:
    fill(tmp_path / "d" / "train", ("A", "Bee", "a"), 2)
    fill(tmp_path / "d" / "test", ("A", "bee"), 1)
    pool = read(tmp_path / "d")
    assert pool.class_names == ("A", "Bee", "a")
    assert pool.labels[pool.test].tolist() == [0, 1]
    assert pool.note.endswith("; test/bee taken for Bee")
    assert "bee/ taken for the class Bee" in capsys.readouterr().err


def test_letters_differ_by_case(read, tmp_path: Path) -> None:
    fill(tmp_path / "d", ("A", "a"), 1)
    assert read(tmp_path / "d").class_names == ("A", "a")


def test_a_name_that_is_no_utf_8(read, tmp_path: Path) -> None:
    fill(tmp_path / "d", ("bee", os.fsdecode(b"caf\xe9")), 1)
    assert read(tmp_path / "d").class_names == ("bee", "caf\\xe9")


def test_train_alone_is_left_to_be_divided(read, tmp_path: Path) -> None:
    fill(tmp_path / "d" / "train")
    pool = read(tmp_path / "d")
    assert pool.class_names == ("apple", "pear")
    assert pool.test is None


def test_a_class_may_be_called_train(read, tmp_path: Path) -> None:
    fill(tmp_path / "d", ("plane", "train"))
    assert read(tmp_path / "d").class_names == ("plane", "train")


def test_nested_uppercase_hidden_and_other_files(read, tmp_path: Path) -> None:
    root = tmp_path / "d"
    fill(root, count=1)
    save(root / "pear" / "sub" / "deeper" / "a.PNG", (99, 0, 0))
    save(root / "pear" / ".hidden.png", RED)
    save(root / "pear" / ".thumbnails" / "b.png", RED)
    save(root / ".git" / "c.png", RED)
    (root / "pear" / "notes.txt").write_text("not an image")
    pool = read(root)
    assert pool.labels.tolist() == [0, 1, 1]
    assert pool.images[:, 0, 0, 0].tolist() == [200, 20, 99]


def strange_in_test(root: Path) -> None:
    fill(root / "train")
    fill(root / "test", ("apple", "fig", "pear"))


def twins(root: Path) -> None:
    fill(root, ("bee", "caf\u00e9", "cafe\u0301"))


def empty_test(root: Path) -> None:
    fill(root / "train")
    (root / "test" / "apple").mkdir(parents=True)


def empty_class(root: Path) -> None:
    fill(root)
    (root / "quince").mkdir()


def flat_splits(root: Path) -> None:
    save(root / "train" / "a.png", RED)
    save(root / "test" / "b.png", RED)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (strange_in_test, "test has class folders that .*train has not: fig"),
        (twins, r"two classes of one name, 'cafe\\u0301' and 'caf\\xe9', read alike"),
        (empty_test, "test has no class folders with images in them"),
        (empty_class, "quince has no images"),
        (flat_splits, "test/, train/: it needs class folders"),
        (lambda root: fill(root / "val"), "it needs class folders, or train/ with class folders"),
        (lambda root: save(root / "a.png", RED), "has no folders: it needs class folders"),
        (lambda root: None, "there is no such directory"),
    ],
)
def test_wrong_layouts_are_data_errors(read, tmp_path: Path, make: Callable, message: str) -> None:
    make(tmp_path / "d")
    with pytest.raises(DataError, match=message):
        read(tmp_path / "d")


# === Unreadable files ===


def test_unreadable_files_are_skipped_named_and_counted(read, tmp_path: Path, capsys) -> None:
    root = tmp_path / "d"
    fill(root, count=10)
    whole = (root / "apple" / "3.png").read_bytes()
    (root / "apple" / "3.png").write_bytes(whole[: len(whole) // 2])
    (root / "pear" / "0.png").write_bytes(b"")
    (root / "pear" / "gone.png").symlink_to(tmp_path / "nowhere")
    Image.fromarray(np.full((9, 9), 1.5, np.float32)).save(root / "pear" / "float.tif")
    for _ in range(2):  # decoded, then from the cache
        pool = read(root, max_unreadable=4 / 22)
        assert pool.train.tolist() == [*range(3), *range(4, 10), *range(11, 20)]
        assert pool.labels[pool.train].tolist() == [0] * 9 + [1] * 9
        assert pool.note == "4 of 22 files unreadable and skipped"
        reason = "(values from 1.5 to 1.5, not 0 to 1, as floats)"
        names = f"apple/3.png, pear/0.png, pear/float.tif {reason}, pear/gone.png\n"
        assert capsys.readouterr().err.endswith(names)
    with pytest.raises(DataError, match=r"4 of 22 image files .* are unreadable: apple/3.png, pear/0.png"):
        read(root, max_unreadable=4 / 22 - 1e-9)


def test_only_ten_unreadable_files_are_named(read, tmp_path: Path) -> None:
    fill(tmp_path / "d", count=13)
    for path in (tmp_path / "d" / "pear").iterdir():
        path.write_bytes(b"?")
    with pytest.raises(DataError) as error:
        read(tmp_path / "d")
    assert str(error.value).count(".png") == 10
    assert "and 3 more" in str(error.value)


def test_class_without_readable_images_is_a_data_error(read, tmp_path: Path) -> None:
    fill(tmp_path / "d", count=1)
    (tmp_path / "d" / "pear" / "0.png").write_bytes(b"?")
    with pytest.raises(DataError, match="pear has no readable image"):
        read(tmp_path / "d", max_unreadable=1.0)
