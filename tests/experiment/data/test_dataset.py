"""Stratified splits, limits, batches, and data sets that need no download."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from pictures import fill
from PIL import Image

from experiment.config import Data
from experiment.data import dataset as datasets
from experiment.data.dataset import Split, load
from experiment.errors import DataError


def config(tmp_path: Path, **changes: object) -> Data:
    return Data.model_validate({"cache": str(tmp_path / "cache"), "image_size": 8} | changes)


def npz(tmp_path: Path, train_counts: list[int], test_counts: list[int], side: int = 8) -> Path:
    """Labels shuffled, every image of one grey value that no other has: rows can be told apart."""
    random, arrays = np.random.default_rng(0), {}
    first = 0
    for split, counts in (("train", train_counts), ("test", test_counts)):
        values = np.arange(first, first + sum(counts), dtype=np.uint8)
        first += len(values)
        arrays[f"x_{split}"] = np.broadcast_to(values[:, None, None], (len(values), side, side))
        arrays[f"y_{split}"] = random.permutation(np.repeat(np.arange(len(counts)), counts))
    np.savez(tmp_path / "a.npz", **arrays)
    return tmp_path / "a.npz"


def counts(split: Split) -> list[int]:
    return np.bincount(split.labels).tolist()


def pixels(split: Split) -> list[int]:
    images, _ = split.batch(np.arange(len(split)))
    return images[:, 0, 0, 0].tolist()


# === Splits ===


def test_validation_split_is_stratified_disjoint_and_complete(tmp_path: Path) -> None:
    path = npz(tmp_path, [60, 30, 10], [5, 5, 5])
    data = load(config(tmp_path, name="npz", root=str(path), validation_share=0.2), seed=3)
    assert counts(data.train) == [48, 24, 8]
    assert counts(data.validation) == [12, 6, 2]
    assert sorted(pixels(data.train) + pixels(data.validation)) == list(range(100))
    assert pixels(data.test) == list(range(100, 115))
    truth = np.load(path)["y_train"]
    for split in (data.train, data.validation):
        assert split.labels.tolist() == truth[pixels(split)].tolist()
        assert split.labels.dtype == split.indices.dtype == np.int64


def test_split_depends_on_seed_alone(tmp_path: Path) -> None:
    settings = config(tmp_path, name="npz", root=str(npz(tmp_path, [60, 40], [5, 5])), limit=50)
    first, same, other = (load(settings, seed) for seed in (1, 1, 2))
    for split in ("train", "validation", "test"):
        assert getattr(first, split).indices.tolist() == getattr(same, split).indices.tolist()
        assert getattr(first, split).indices.tolist() == sorted(getattr(first, split).indices)
    assert set(first.validation.indices) != set(other.validation.indices)
    assert {*first.train.indices, *first.validation.indices} != {
        *other.train.indices,
        *other.validation.indices,
    }
    assert first.sha256 == same.sha256 == other.sha256
    unlimited = settings.model_copy(update={"limit": None})
    assert set(load(unlimited, 1).validation.indices) != set(load(unlimited, 2).validation.indices)


def test_every_class_keeps_one_training_image(tmp_path: Path) -> None:
    root = str(npz(tmp_path, [1, 2, 17], [1, 1, 1]))
    data = load(config(tmp_path, name="npz", root=root, validation_share=0.99), seed=1)
    assert counts(data.train) == [1, 1, 1]
    assert counts(data.validation) == [0, 1, 16]


def test_validation_gets_one_image_at_least(tmp_path: Path) -> None:
    root = str(npz(tmp_path, [3, 3], [1, 1]))
    data = load(config(tmp_path, name="npz", root=root, validation_share=0.01), seed=1)
    assert (len(data.train), len(data.validation)) == (5, 1)


def test_nothing_to_hold_out_is_a_data_error(tmp_path: Path) -> None:
    settings = {"name": "npz", "root": str(npz(tmp_path, [1, 1, 1], [1, 1, 1]))}
    with pytest.raises(DataError, match="leave none to hold out"):
        load(config(tmp_path, **settings), seed=1)
    assert len(load(config(tmp_path, **settings, validation="test"), seed=1).validation) == 3


def test_validation_on_the_test_split(tmp_path: Path) -> None:
    root = str(npz(tmp_path, [9, 9], [4, 2]))
    data = load(config(tmp_path, name="npz", root=root, validation="test"), seed=1)
    assert counts(data.train) == [9, 9]
    assert pixels(data.validation) == pixels(data.test) == list(range(18, 24))


def test_limit_is_stratified_and_precedes_the_validation_split(tmp_path: Path) -> None:
    root = str(npz(tmp_path, [60, 30, 10], [15, 15, 2]))
    data = load(config(tmp_path, name="npz", root=root, limit=20, validation_share=0.25), seed=1)
    assert counts(data.train) == [9, 4, 2]
    assert counts(data.validation) == [3, 2]
    # 20 of 32 in proportion: 9.4, 9.4, 1.25; the remaining image goes to the first of the largest remainders
    assert counts(data.test) == [10, 9, 1]
    whole = load(config(tmp_path, name="npz", root=root, limit=500), seed=1)
    assert (len(whole.train) + len(whole.validation), len(whole.test)) == (100, 32)


def test_batch_copies_what_was_asked_for(tmp_path: Path) -> None:
    data = load(config(tmp_path, name="npz", root=str(npz(tmp_path, [9, 9], [4, 2]))), seed=1)
    images, labels = data.test.batch([5, 0, 5])
    assert images.shape == (3, 8, 8, 3)
    assert images[:, 7, 7, 2].tolist() == [23, 18, 23]
    assert labels.tolist() == data.test.labels[[5, 0, 5]].tolist()
    assert images.dtype == np.uint8
    assert type(images) is np.ndarray
    images[:] = 0
    assert pixels(data.test)[0] == 18
    assert [len(a) for a in data.test.batch([])] == [0, 0]


# === Data sets by name ===


def test_digits(tmp_path: Path) -> None:
    data = load(config(tmp_path, name="digits", image_size=16), seed=1)
    assert data.name == "digits"
    assert data.class_names == tuple("0123456789")
    assert data.train.images.shape == (1797, 16, 16, 3)
    assert (len(data.train), len(data.validation), len(data.test)) == (1294, 144, 359)
    assert data.note is None
    all_counts = np.bincount(np.concatenate([data.train.labels, data.validation.labels, data.test.labels]))
    assert all_counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert np.abs(np.bincount(data.test.labels) - all_counts * 0.2).max() < 1
    other = load(config(tmp_path, name="digits", image_size=16), seed=2)
    assert other.test.indices.tolist() == data.test.indices.tolist()
    assert not (tmp_path / "cache").exists()


def test_digits_use_the_whole_range(tmp_path: Path) -> None:
    images = load(config(tmp_path, name="digits", image_size=8), seed=1).train.images
    # the first digit's first row is 0 0 5 13 9 1 0 0 of 16
    assert images[0, 0, :, 1].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]


def test_sha256_is_of_content(tmp_path: Path) -> None:
    def digest(side: int = 8, **changes: object) -> str:
        return load(config(tmp_path, name="npz", root=str(tmp_path / "a.npz"), **changes), seed=1).sha256

    npz(tmp_path, [9, 9], [4, 2])
    first = digest()
    assert len(first) == 64
    assert digest(limit=4, validation_share=0.5) == first
    assert digest(image_size=16) != first
    arrays = dict(np.load(tmp_path / "a.npz"))
    for key in arrays:
        changed = arrays[key].copy()
        changed[0] = 1 - changed[0] if key[0] == "y" else 255 - changed[0]
        np.savez(tmp_path / "a.npz", **(arrays | {key: changed}))
        assert digest() != first, key
    np.savez(tmp_path / "a.npz", **arrays, class_names=np.array(["ant", "bee"]))
    assert digest() != first
    np.savez_compressed(tmp_path / "a.npz", **arrays)  # other bytes, the same content
    assert digest() == first


def test_folder_is_divided_four_to_one_whatever_the_seed(tmp_path: Path) -> None:
    for name, count in (("ant", 10), ("bee", 20)):
        (tmp_path / "d" / name).mkdir(parents=True)
        for i in range(count):
            Image.new("L", (9, 9), i).save(tmp_path / "d" / name / f"{i}.png")
    settings = config(tmp_path, name="folder", root=str(tmp_path / "d"), validation_share=0.25)
    first, other = (load(settings, seed) for seed in (1, 2))
    assert counts(first.test) == [2, 4]
    assert counts(first.train) == [6, 12]
    assert counts(first.validation) == [2, 4]
    assert first.test.indices.tolist() == other.test.indices.tolist()
    assert not set(first.test.indices) & {*first.train.indices, *first.validation.indices}


def test_npz_is_resized_bilinearly_and_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(5).integers(0, 256, (4, 12, 10), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x_train=noise, y_train=[0, 1, 0, 1], x_test=noise[:2], y_test=[0, 1])
    settings = config(tmp_path, name="npz", root=str(tmp_path / "a.npz"), validation="test")
    data = load(settings, seed=1)
    expected = np.asarray(Image.fromarray(noise[2]).resize((8, 8), Image.Resampling.BILINEAR))
    for channel in range(3):
        np.testing.assert_array_equal(data.train.images[2, ..., channel], expected)
    monkeypatch.setattr(datasets, "read_npz", None)
    assert load(settings, seed=1).sha256 == data.sha256


def test_what_vanished_since_the_command_line_was_read_is_a_data_error(tmp_path: Path) -> None:
    settings = config(tmp_path, name="npz", root=str(npz(tmp_path, [2, 2], [1, 1])))
    (tmp_path / "a.npz").unlink()
    with pytest.raises(DataError, match=r"cannot read the data: .*a.npz"):
        load(settings, seed=1)


def test_a_class_is_thinned_in_training_and_not_in_the_test_split(tmp_path: Path) -> None:
    whole = load(config(tmp_path, name="digits"), seed=1)
    thinned = load(config(tmp_path, name="digits", thin={"3": 0.05}), seed=1)
    before = np.add(counts(whole.train), counts(whole.validation))
    after = np.add(counts(thinned.train), counts(thinned.validation))
    expected = before.copy()
    expected[3] = round(0.05 * before[3])
    assert after.tolist() == expected.tolist()
    assert counts(thinned.train)[3] >= 5
    assert counts(thinned.test) == counts(whole.test)
    assert thinned.sha256 == whole.sha256


def test_a_class_that_is_not_there_cannot_be_thinned(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data.thin: no class 'cat' in digits: it has 0, 1"):
        load(config(tmp_path, name="digits", thin={"cat": 0.5}), seed=1)


def test_a_class_is_known_however_its_accents_are_written(tmp_path: Path) -> None:
    fill(tmp_path / "photos", ("cafe\u0301", "tea"), count=6)
    settings = {"name": "folder", "root": str(tmp_path / "photos")}
    found = load(config(tmp_path, **settings, classes=["tea", "caf\u00e9"], thin={"caf\u00e9": 0.2}), seed=1)
    assert found.class_names == ("tea", "cafe\u0301")
    assert (counts(found.train), counts(found.validation)) == ([4, 1], [1])
    with pytest.raises(ValueError, match="named twice"):
        config(tmp_path, **settings, classes=["cafe\u0301", "caf\u00e9"])


# === All but black ===


ONES, BYTES = np.array([0, 1], np.uint8), np.array([0, 255], np.uint8)
TWICE = np.array([0, 1 / 255], np.float32)  # divided by 255


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        (
            ONES,
            ONES,
            "no value above 1 in the training images and no value above 1 in the test images, where",
        ),
        (TWICE, TWICE, "no value above 1 in the training images and no value above 1 in the test images"),
        (BYTES, TWICE, "WARNING: no value above 1 in the test images, where 255 is white"),
        (16 * ONES, BYTES, "WARNING: no value above 16 in the training images, where 255 is white"),
        (17 * ONES, 18 * TWICE, None),
        (BYTES, 255 * TWICE, None),
    ],
)
def test_images_that_were_scaled_wrongly_are_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture, train: np.ndarray, test: np.ndarray, said: str | None
) -> None:
    arrays = {}
    for split, values in (("train", train), ("test", test)):
        arrays[f"x_{split}"] = np.tile(values[:, None, None], (20, 8, 8))
        arrays[f"y_{split}"] = np.tile([0, 1], 20)
    np.savez(tmp_path / "a.npz", **arrays)
    for _ in range(2):  # read, and from the cache
        dataset = load(config(tmp_path, name="npz", root=str(tmp_path / "a.npz")), 1)
        warned = capsys.readouterr().err
        if said is None:
            assert (warned, dataset.note) == ("", None)
        else:
            assert said in warned
            assert warned.startswith("WARNING: ")
            assert "multiply 0 and 1 by 255" in warned
            assert dataset.note is not None
            assert said.removeprefix("WARNING: ") in dataset.note


def test_the_digits_are_not_dark(tmp_path: Path) -> None:
    assert load(config(tmp_path, name="digits"), 1).note is None


def test_a_named_pipe_is_no_npz_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.npz")
    with pytest.raises(DataError, match=r"a\.npz: no regular file"):
        load(config(tmp_path, name="npz", root=str(tmp_path / "a.npz")), 1)


def test_folders_are_read_as_configured(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "d" / name).mkdir(parents=True)
        for i in range(3):
            Image.new("LA", (8, 8), (255, 0)).save(tmp_path / "d" / name / f"{i}.png")
            Image.fromarray(np.full((8, 8), 4095, np.uint16)).save(tmp_path / "d" / name / f"deep{i}.png")
    data = config(tmp_path, name="folder", root=str(tmp_path / "d"), background="#010203", bits=12)
    images = load(data, 1).train.images
    assert {tuple(image[0, 0]) for image in np.asarray(images)} == {(1, 2, 3), (255, 255, 255)}


# === Too few classes, and splits of the data's own ===


def refused(tmp_path: Path, **changes: object) -> str:
    with pytest.raises(DataError) as caught:
        load(config(tmp_path, **changes), seed=1)
    return str(caught.value)


def test_fewer_than_two_classes_are_refused_wherever_they_come_from(tmp_path: Path) -> None:
    said = refused(tmp_path, name="digits", classes=["3"])
    assert said == "digits has training images of one class alone, 3: a classifier needs at least 2"
    folder = tmp_path / "d"
    (folder / "ant").mkdir(parents=True)
    for i in range(9):
        Image.new("L", (9, 9), i).save(folder / "ant" / f"{i}.png")
    said = refused(tmp_path, name="folder", root=str(folder))
    assert (
        said == f"folder {folder} has training images of one class alone, ant: a classifier needs at least 2"
    )
    root = str(npz(tmp_path, [9], [3]))
    assert "of one class alone, 0: a" in refused(tmp_path, name="npz", root=root)
    with np.load(root) as arrays:
        np.savez(root, **arrays, class_names=np.array(["ant", "bee"]))
    assert "of one class alone, ant: a" in refused(tmp_path, name="npz", root=root)
    root = str(npz(tmp_path, [9, 9], [3, 3]))
    assert "of one class alone, " in refused(tmp_path, name="npz", root=root, limit=1, validation="test")


def test_chosen_classes_without_test_images_are_refused(tmp_path: Path) -> None:
    root = str(npz(tmp_path, [9, 9, 9], [3]))
    for limit in (None, 9):
        said = refused(tmp_path, name="npz", root=root, classes=["1", "2"], limit=limit)
        assert "has no test images of 1, 2: add some" in said


def test_a_test_split_may_lack_a_class(tmp_path: Path) -> None:
    data = load(config(tmp_path, name="npz", root=str(npz(tmp_path, [9, 9, 9], [3, 0, 3]))), seed=1)
    assert data.class_names == ("0", "1", "2")
    assert counts(data.test) == [3, 0, 3]


def with_validation(tmp_path: Path, first: int) -> str:
    path = npz(tmp_path, [20, 20], [4, 2])
    values = np.arange(first, first + 6, dtype=np.uint8)
    images = np.broadcast_to(values[:, None, None], (6, 8, 8))
    with np.load(path) as arrays:
        np.savez(path, **arrays, x_val=images, y_val=np.array([0, 1, 0, 1, 0, 1]))
    return str(path)


def test_validation_images_of_the_data_are_used_and_none_are_held_out(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    settings = config(tmp_path, name="npz", root=with_validation(tmp_path, 100))
    data = load(settings, seed=1)
    assert (len(data.train), len(data.test)) == (40, 6)
    assert pixels(data.validation) == list(range(100, 106))
    assert data.validation.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert len(load(settings.model_copy(update={"limit": 4}), seed=1).validation) == 4
    for validation in ("split", "test"):
        other = load(settings.model_copy(update={"validation": validation}), seed=1)
        assert not {*range(100, 106)} & {*pixels(other.train), *pixels(other.validation)}
        assert other.sha256 != data.sha256
        assert other.note == f"its own validation images ignored (data.validation {validation})"
        assert other.note in capsys.readouterr().err
    assert data.note is None


def test_validation_images_count_in_the_sha256_where_they_are_used(tmp_path: Path) -> None:
    digests: dict[str, list[str]] = {"auto": [], "split": []}
    for first in (100, 101):
        settings = config(tmp_path, name="npz", root=with_validation(tmp_path, first))
        for validation, found in digests.items():
            found.append(load(settings.model_copy(update={"validation": validation}), seed=1).sha256)
    assert digests["auto"][0] != digests["auto"][1]
    assert digests["split"][0] == digests["split"][1]


def test_the_sha256_of_a_set_stays_what_it_was(tmp_path: Path) -> None:
    """A run is resumed, exported and promoted by it: these two were written down when it was first made."""
    assert load(config(tmp_path, name="digits"), seed=1).sha256 == (
        "b977b062c9ccdac5df70d43ad88903568598b9657c08e6118fb5a367ca1342ce"
    )
    assert load(config(tmp_path, name="npz", root=str(npz(tmp_path, [9, 9], [4, 2]))), seed=1).sha256 == (
        "c76d8da11c07177add2b72d218fc7373eefcef06115f87e3f7f36c6279a35625"
    )
