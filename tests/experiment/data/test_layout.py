"""Which folder is which split, and which is a class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pictures import RED, fill, save

from experiment.data.folder import read_folder
from experiment.data.layout import Layout, find, role
from experiment.errors import DataError


def layout(root: Path, validation: str = "auto") -> Layout:
    return find(root, validation, lambda name: name.endswith(".png"))


@pytest.mark.parametrize(
    ("split", "names"),
    [
        (
            "training",
            "train Training seg_train images_train train_set train2017 trainset TrainData trainval train_val",
        ),
        ("validation", "val valid Validation dev VAL val_images seg_dev validation-set"),
        ("test", "test Testing TEST seg_test test_set testset test.images evaluation"),
        ("unlabelled", "pred seg_pred unlabeled Predictions"),
        (None, "trainer test_tube train_station contest latest valve developer images train_test"),
    ],
)
def test_the_split_that_a_name_speaks_of(split: str | None, names: str) -> None:
    assert {name: role(name) for name in names.split()} == dict.fromkeys(names.split(), split)
    assert role("Train Set") == "training"


@pytest.mark.parametrize(
    ("training", "test", "validation"),
    [
        ("train", "test", "val"),
        ("train", "Test", "valid"),
        ("Training", "Testing", "Validation"),
        ("TRAIN", "TEST", "DEV"),
        ("seg_train", "seg_test", "seg_dev"),
        ("images_train", "images_test", "images_val"),
        ("Train Set", "Test Set", "Val Set"),
        ("seg_train/seg_train", "seg_test/seg_test", "seg_val/seg_val"),
        ("data/train", "data/test", "data/val"),
        ("archive/chest_xray/train", "archive/chest_xray/test", "archive/chest_xray/val"),
        ("train/images", "test/images", "val/images"),
    ],
)
def test_splits_of_any_spelling(tmp_path: Path, training: str, test: str, validation: str) -> None:
    for folder in (training, test, validation):
        fill(tmp_path / folder, count=1)
    found = layout(tmp_path)
    assert found.folders == {"training": training, "validation": validation, "test": test}
    assert (found.training, found.test) == (tmp_path / training, tmp_path / test)
    assert found.note == (
        f"{training}/ is the training split, {validation}/ is the validation split, {test}/ is the test split"
    )
    assert found.ignored == []


def test_what_kaggle_ships_of_the_intel_images(tmp_path: Path) -> None:
    for split in ("train", "test"):
        fill(tmp_path / f"seg_{split}" / f"seg_{split}", ("forest", "sea"), 1)
    save(tmp_path / "seg_pred" / "seg_pred" / "5.png", RED)
    found = layout(tmp_path)
    assert found.folders == {
        "training": "seg_train/seg_train",
        "validation": None,
        "test": "seg_test/seg_test",
    }
    assert found.ignored == ["seg_pred"]
    assert found.note is not None
    assert found.note.endswith("seg_pred/ ignored (no class folders in it)")


@pytest.mark.parametrize("name", ["train", "test", "Train", "val", "Testing", "bullet train"])
def test_a_class_beside_others_may_be_named_as_a_split(tmp_path: Path, name: str) -> None:
    fill(tmp_path, ("bus", "car", name), 1)
    found = layout(tmp_path)
    assert (found.training, found.folders) == (tmp_path, {})
    assert found.note == (None if " " in name else f"{name}/ taken for a class")


def test_it_is_one_among_the_classes_of_a_split_as_well(tmp_path: Path) -> None:
    for split in ("train", "test"):
        fill(tmp_path / split, ("bus", "test", "train"), 1)
    assert layout(tmp_path).folders == {"training": "train", "validation": None, "test": "test"}
    pool = read_folder(tmp_path, 8, tmp_path / "cache", 0.0)
    assert pool.class_names == ("bus", "test", "train")


def test_a_class_named_train_may_have_folders_beside_its_images(tmp_path: Path) -> None:
    fill(tmp_path, ("bus", "car", "train"), 1)
    fill(tmp_path / "train", ("steam",), 1)
    assert layout(tmp_path).folders == {}


def test_folders_without_images_beside_the_splits_are_ignored_aloud(tmp_path: Path) -> None:
    fill(tmp_path / "train", count=1)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.xml").write_text("<a/>")
    save(tmp_path / "test" / "1.png", RED)
    found = layout(tmp_path)
    assert found.ignored == ["labels", "test"]
    assert found.note == (
        "train/ is the training split, a share of train/ is held out as the test split, labels/ ignored, "
        "test/ ignored (no class folders in it)"
    )


@pytest.mark.parametrize("validation", ["split", "test"])
def test_where_no_validation_folder_is_wanted_it_is_the_test_split_or_ignored(
    tmp_path: Path, validation: str
) -> None:
    for split in ("train", "val"):
        fill(tmp_path / split, count=1)
    assert layout(tmp_path, validation).folders == {"training": "train", "validation": None, "test": "val"}
    fill(tmp_path / "test", count=1)
    found = layout(tmp_path, validation)
    assert found.folders == {"training": "train", "validation": None, "test": "test"}
    assert found.ignored == ["val"]
    assert found.note is not None
    assert found.note.endswith(f"val/ ignored (data.validation {validation})")


def two_of_one(root: Path) -> None:
    for split in ("train", "val", "dev"):
        fill(root / split)


def nested_class_or_split(root: Path) -> None:
    fill(root, ("bus", "car"))
    fill(root / "train", ("steam", "diesel"))


def test_beside_classes(root: Path) -> None:
    fill(root, ("bus", "car"))
    fill(root / "test", ("bus", "car"))


test_beside_classes.__test__ = False  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (two_of_one, "dev/ and val/ both name the validation split: leave one"),
        (nested_class_or_split, r"is train/ the training split, or a class like bus/, car/\?"),
        (test_beside_classes, "test/ holds bus/, car/, which stand beside it, too"),
        (lambda root: fill(root, ("Training", "Testing")), "it needs class folders, or train/ with class"),
        (lambda root: save(root / "train" / "train" / "a.png", RED), "it needs class folders"),
    ],
)
def test_what_cannot_be_told_is_refused(tmp_path: Path, make: Callable, message: str) -> None:
    make(tmp_path)
    with pytest.raises(DataError, match=message):
        layout(tmp_path)


def test_splits_within_the_class_folders_are_taken_together_aloud(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        fill(tmp_path / name, ("test", "train"), 1)
    found = layout(tmp_path)
    assert found.folders == {}
    assert found.note == "each class folder holds test/, train/: what is in them is taken together"


def test_two_classes_with_words_of_splits_in_their_names(tmp_path: Path) -> None:
    fill(tmp_path, ("bullet train", "crash test"), 1)
    assert layout(tmp_path).folders == {}


def test_what_macos_adds_to_an_archive_is_no_class(tmp_path: Path) -> None:
    fill(tmp_path, count=1)
    save(tmp_path / "__MACOSX" / "apple" / "._0.png", RED)
    pool = read_folder(tmp_path, 8, tmp_path / ".cache", 0.0)
    assert pool.class_names == ("apple", "pear")
