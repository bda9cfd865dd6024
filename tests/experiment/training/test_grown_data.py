"""A warm start from images that others were added to: which are old is told by their content."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiment.config import Experiment
from experiment.data.dataset import Dataset
from experiment.deploy.run_data import load_all
from experiment.errors import DataError, RunError
from experiment.runs.record import Run
from experiment.training import warm_start


def fill(folder: Path, count: int, first: int) -> None:
    """Images of random pixels; each number makes one image, wherever it lies."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(first, first + count):
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")


def old_images(root: Path) -> Path:
    fill(root / "apple", 20, 0)
    fill(root / "pear", 20, 100)
    return root


@pytest.fixture
def place(tmp_path: Path) -> Path:
    old_images(tmp_path / "old")
    return tmp_path


def experiment(place: Path, root: str, **changes: object) -> Experiment:
    data = {"name": "folder", "root": str(place / root), "image_size": 8, "cache": str(place / "cache")}
    data |= changes.pop("data", {})  # type: ignore[operator]
    model = {"filters": [4], "block_dropout": [0.1], "convolutions_per_block": 1}
    return Experiment.model_validate({"data": data, "model": model} | changes)


def trained(place: Path, name: str, wanted: Experiment) -> Run:
    """The record of a run that has ended, as far as its data go."""
    dataset, _ = load_all(wanted)
    wanted = wanted.model_copy(update={"run": wanted.run.model_copy(update={"dir": str(place / name)})})
    run = Run.create(wanted, "keras", dataset.name)
    facts = {"class_names": list(dataset.class_names), "sha256": dataset.sha256}
    run.write_json("environment.json", {"framework": "keras", "data": facts})
    run.write_json("metrics.json", {})
    warm_start.record(run, dataset)
    return run


def seen(dataset: Dataset, split: str) -> set[bytes]:
    rows = getattr(dataset, split)
    return {image.tobytes() for image in rows.batch(np.arange(len(rows)))[0]}


def every(dataset: Dataset) -> set[bytes]:
    return seen(dataset, "train") | seen(dataset, "validation") | seen(dataset, "test")


def warm(place: Path, root: str, run: Run, **changes: object) -> tuple[Dataset, dict[str, slice]]:
    return load_all(experiment(place, root, warm_start=str(run.directory), **changes))


def test_a_class_is_added_by_its_folder_alone(place: Path) -> None:
    run = trained(place, "first", experiment(place, "old"))
    fill(place / "new" / "quince", 10, 200)
    dataset, parts = warm(place, "new", run)
    assert dataset.class_names == ("apple", "pear", "quince")
    assert parts == {"old": slice(0, 8), "new": slice(8, 10)}
    assert (len(dataset.train), len(dataset.validation)) == (7, 1)
    assert set(dataset.train.labels) == {2}


def test_the_old_folder_with_the_new_one_beside_it_gives_the_same_data(place: Path) -> None:
    run = trained(place, "first", experiment(place, "old"))
    fill(place / "new" / "quince", 10, 200)
    alone, parts = warm(place, "new", run, data={"replay": 0.5})
    shutil.copytree(place / "old", place / "joint")
    shutil.copytree(place / "new" / "quince", place / "joint" / "quince")
    copied, copied_parts = warm(place, "joint", run, data={"replay": 0.5})
    shutil.copytree(place / "new" / "quince", place / "old" / "quince")
    grown, grown_parts = warm(place, "old", run, data={"replay": 0.5})
    assert parts == copied_parts == grown_parts
    assert alone.sha256 == copied.sha256 == grown.sha256
    for split in ("train", "validation", "test"):
        for other in (copied, grown):
            assert getattr(other, split).labels.tolist() == getattr(alone, split).labels.tolist()
            assert seen(other, split) == seen(alone, split)
    assert not seen(grown, "train") & (seen(grown, "test") | seen(grown, "validation"))


def test_images_added_to_an_old_class_are_new_as_well(place: Path) -> None:
    run = trained(place, "first", experiment(place, "old"))
    before = every(load_all(experiment(place, "old"))[0])
    fill(place / "old" / "apple", 10, 50)
    fill(place / "old" / "quince", 10, 200)
    dataset, parts = warm(place, "old", run)
    assert dataset.class_names == ("apple", "pear", "quince")
    assert parts == {"old": slice(0, 8), "new": slice(8, 12)}
    assert np.bincount(dataset.test.labels).tolist() == [4 + 2, 4, 2]
    added = seen(dataset, "train") | seen(dataset, "validation")
    assert not added & before
    assert len(added) == 16


def test_what_was_taken_away_is_missed(place: Path) -> None:
    run = trained(place, "first", experiment(place, "old"))
    fill(place / "old" / "quince", 10, 200)
    (place / "old" / "apple" / "0.png").unlink()
    with pytest.raises(RunError, match=r"(?s)sha256 differs.*its images must be there still"):
        warm(place, "old", run)


def test_an_old_image_is_known_under_another_name_and_in_another_split(place: Path) -> None:
    run = trained(place, "first", experiment(place, "old"))
    fill(place / "new" / "train" / "apple", 12, 0)  # two of them new to neither
    fill(place / "new" / "train" / "quince", 10, 200)
    fill(place / "new" / "test" / "quince", 3, 300)
    shutil.copy(place / "old" / "pear" / "100.png", place / "new" / "test" / "quince" / "x.png")
    dataset, parts = warm(place, "new", run)
    assert set(dataset.train.labels) == {2}
    assert parts["new"] == slice(8, 11)


def test_the_same_images_may_be_trained_on_again(place: Path) -> None:
    run = trained(place, "first", experiment(place, "old"))
    dataset, parts = warm(place, "old", run)
    assert parts == {"old": slice(0, 8), "new": slice(8, 16)}
    assert np.bincount(dataset.train.labels).tolist() == [14, 15]


def test_a_run_that_was_updated_finds_its_images_again(place: Path) -> None:
    """Each of three runs added a class to one folder; all of them are loaded, as resume and promote do."""
    names, digests = ["apple", "pear"], []
    run = trained(place, "run 0", experiment(place, "old"))
    chain = [(run, experiment(place, "old"))]
    for i, added in enumerate(("quince", "fig"), 1):
        fill(place / "old" / added, 10, 1000 * i)
        names.append(added)
        wanted = experiment(place, "old", warm_start=str(run.directory), data={"replay": 0.5})
        dataset, _ = load_all(wanted)
        assert list(dataset.class_names) == names
        run = trained(place, f"run {i}", wanted)
        chain.append((run, wanted))
    fill(place / "old" / "lime", 10, 5000)
    for run, wanted in chain:
        digests.append(load_all(wanted, run)[0].sha256)
        assert digests[-1] == run.data_sha256
    assert len(set(digests)) == 3


def test_a_run_of_before_images_were_recorded(place: Path) -> None:
    run = trained(place, "first", experiment(place, "old"))
    (run.directory / "images.npz").unlink()
    fill(place / "old" / "quince", 10, 200)
    dataset, parts = warm(place, "old", run)
    assert dataset.class_names == ("apple", "pear", "quince")
    assert parts == {"old": slice(0, 8), "new": slice(8, 10)}
    (run.directory / "images.npz").write_bytes(b"PK")
    assert warm(place, "old", run)[0].sha256 == dataset.sha256


def test_classes_that_were_chosen_are_found_in_the_folder_that_grew(place: Path) -> None:
    fill(place / "old" / "fig", 20, 500)
    chosen = experiment(place, "old", data={"classes": ["pear", "apple"]})
    run = trained(place, "first", chosen)
    fill(place / "old" / "cherry", 10, 200)
    dataset, _ = load_all(chosen, run)
    assert dataset.sha256 == run.data_sha256
    both, _ = warm(place, "old", run, data={"classes": ["cherry"]})
    assert both.class_names == ("pear", "apple", "cherry")


def test_new_images_without_test_images(place: Path) -> None:
    run = trained(place, "first", experiment(place, "old"))
    fill(place / "new" / "train" / "quince", 10, 200)
    fill(place / "new" / "train" / "pear", 3, 100)
    fill(place / "new" / "test" / "pear", 3, 103)  # old ones
    for limit in (None, 5):
        _, parts = warm(place, "new", run, data={"limit": limit})
        assert parts == {"old": slice(0, 8), "new": slice(8, 8)}


def test_nothing_new_to_train_on_is_refused(place: Path) -> None:
    run = trained(place, "first", experiment(place, "old"))
    fill(place / "new" / "train" / "pear", 3, 100)
    fill(place / "new" / "test" / "pear", 3, 300)
    with pytest.raises(DataError, match="has no new training images: add some"):
        warm(place, "new", run)


def test_new_images_for_validation_alone_are_refused(place: Path) -> None:
    run = trained(place, "first", experiment(place, "old"))
    fill(place / "new" / "train" / "pear", 3, 100)
    fill(place / "new" / "val" / "pear", 3, 300)
    with pytest.raises(DataError, match="has no new training images: add some"):
        warm(place, "new", run)


def test_arrays_may_grow_too(place: Path) -> None:
    pixels = [np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8) for i in range(60)]
    x, y = np.array(pixels), np.repeat([0, 1, 2], 20)

    def write(classes: int) -> None:
        old, new = slice(0, 20 * classes, 2), slice(1, 20 * classes, 2)
        np.savez(place / "a.npz", x_train=x[old], y_train=y[old], x_test=x[new], y_test=y[new])

    write(2)
    wanted = experiment(place, "a.npz", data={"name": "npz"})
    run = trained(place, "first", wanted)
    write(3)
    dataset, parts = warm(place, "a.npz", run, data={"name": "npz"})
    assert dataset.class_names == ("0", "1", "2")
    assert parts == {"old": slice(0, 20), "new": slice(20, 30)}
    assert set(dataset.train.labels) == {2}
