"""Features of a frozen base: when they serve, and that each is computed once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiment.config import Experiment
from experiment.data.dataset import Dataset, Split
from experiment.data.features import BATCH, replace_images, usable

WEIGHTS = [np.arange(6.0).reshape(2, 3), np.zeros(2)]


class Base:
    """A frozen base that counts what it is given: mean and maximum of each image."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, images: np.ndarray) -> np.ndarray:
        assert images.flags.c_contiguous
        self.batches.append(len(images))
        return np.stack([images.mean((1, 2, 3)), images.max((1, 2, 3))], axis=1)


@pytest.fixture
def dataset() -> Dataset:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (BATCH + 64, 4, 4, 3), dtype=np.uint8)
    order = random.permutation(len(images))
    splits = (Split(images, rows % 3, rows) for rows in np.split(order, [250, len(images) - 20]))
    return Dataset("digits", ("a", "b", "c"), *splits, sha256="ab", note=None)


def experiment(tmp_path: Path, **values: Any) -> Experiment:
    return Experiment.model_validate({"data": {"cache": str(tmp_path / "cache")}, **values})


@pytest.mark.parametrize(
    ("model", "blocks", "augment", "expected"),
    [
        ("vgg16", 0, "none", True),
        ("vgg16", 1, "none", False),
        ("vgg16", 0, "keras", False),
        ("vgg16", 0, "torchvision", False),
        ("cnn", 0, "none", False),
    ],
)
def test_features_serve_a_frozen_base_without_augmentation(
    model: str, blocks: int, augment: str, expected: bool
) -> None:
    values = {"model": {"name": model, "fine_tune_blocks": blocks}, "augment": {"kind": augment}}
    assert usable(Experiment.model_validate(values)) is expected


def test_every_image_is_replaced_by_its_own_features(dataset: Dataset, tmp_path: Path) -> None:
    replaced = replace_images(dataset, WEIGHTS, Base(), experiment(tmp_path), "keras")
    for name in ("train", "validation", "test"):
        old, new = getattr(dataset, name), getattr(replaced, name)
        images, labels = old.batch(np.arange(len(old)))
        features, new_labels = new.batch(np.arange(len(new)))
        np.testing.assert_array_equal(features, Base()(images))
        np.testing.assert_array_equal(new_labels, labels)
    assert (replaced.class_names, replaced.sha256) == (dataset.class_names, dataset.sha256)


def test_the_features_are_computed_once_in_batches_and_kept_on_disk(dataset: Dataset, tmp_path: Path) -> None:
    base, idle = Base(), Base()
    first = replace_images(dataset, WEIGHTS, base, experiment(tmp_path), "keras")
    assert base.batches == [BATCH, 64]
    again = replace_images(dataset, WEIGHTS, idle, experiment(tmp_path), "keras")
    assert idle.batches == []
    np.testing.assert_array_equal(again.train.images, first.train.images)
    np.testing.assert_array_equal(again.test.images, first.test.images)
    assert not np.asarray(again.train.images).flags.writeable  # a map of the kept file
    assert len(list((tmp_path / "cache" / "arrays").glob("features-*"))) == 1


def test_images_that_no_split_uses_are_not_computed(dataset: Dataset, tmp_path: Path) -> None:
    few = {name: getattr(dataset, name) for name in ("train", "validation", "test")}
    few = {name: replace(s, labels=s.labels[:5], indices=s.indices[:5]) for name, s in few.items()}
    base = Base()
    replaced = replace_images(replace(dataset, **few), WEIGHTS, base, experiment(tmp_path), "keras")
    assert base.batches == [15]
    for name, split in few.items():
        images, _ = split.batch(np.arange(5))
        np.testing.assert_array_equal(getattr(replaced, name).batch(np.arange(5))[0], Base()(images))


def test_other_weights_precision_data_or_framework_are_computed_anew(
    dataset: Dataset, tmp_path: Path
) -> None:
    usual = experiment(tmp_path)
    others = [
        (dataset, [WEIGHTS[0], np.array([0.0, 1e-9])], usual, "keras"),
        (dataset, WEIGHTS, experiment(tmp_path, training={"precision": "bfloat16"}), "keras"),
        (mirrored(dataset), WEIGHTS, usual, "keras"),
        (dataset, WEIGHTS, usual, "lightning"),
    ]
    for data, weights, settings, framework in [(dataset, WEIGHTS, usual, "keras"), *others]:
        base = Base()
        replace_images(data, weights, base, settings, framework)
        assert base.batches == [BATCH, 64]


def test_a_base_that_fails_leaves_no_file(dataset: Dataset, tmp_path: Path) -> None:
    def failing(images: np.ndarray) -> np.ndarray:
        raise MemoryError

    with pytest.raises(MemoryError):
        replace_images(dataset, WEIGHTS, failing, experiment(tmp_path), "keras")
    assert list((tmp_path / "cache" / "arrays").iterdir()) == []


def mirrored(dataset: Dataset) -> Dataset:
    # Same sha256, which does not name the order of rows: the features must follow the images all the same.
    images = dataset.train.images[::-1]
    names = ("train", "validation", "test")
    return replace(dataset, **{name: replace(getattr(dataset, name), images=images) for name in names})
