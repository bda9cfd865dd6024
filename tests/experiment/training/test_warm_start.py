"""A warm start: classes chosen and added, old images replayed, weights grown, and the same on both sides."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_runs import SMALL

from experiment.cli import read_config
from experiment.config import Data, Experiment
from experiment.data.dataset import Dataset, Split, load
from experiment.deploy.run_data import Joined, load_all, merge
from experiment.errors import DataError, RunError
from experiment.runs.record import Run
from experiment.training.warm_start import grown, opened

FIRST = Data(name="digits", classes=["7", "1", "3"])
SECOND = Data(name="digits", classes=["3", "9"])
EXACT = ("--training.precision=float64", "--training.dropout_masks=shared", "--run.record_steps=true")


def images_of(split: Split, label: int) -> np.ndarray:
    return split.batch(np.flatnonzero(split.labels == label))[0]


def test_classes_are_chosen_and_numbered_as_they_are_named() -> None:
    whole, some = load(Data(name="digits"), 1), load(FIRST, 1)
    assert some.class_names == ("7", "1", "3")
    assert some.sha256 != whole.sha256
    for number, digit in enumerate((7, 1, 3)):
        np.testing.assert_array_equal(images_of(some.test, number), images_of(whole.test, digit))
    assert len(some.train) + len(some.validation) == sum(
        np.isin(split.labels, (1, 3, 7)).sum() for split in (whole.train, whole.validation)
    )


def test_classes_may_be_numbers() -> None:
    """YAML reads the name 7 as one."""
    data = Data.model_validate({"name": "digits", "classes": [7, "1"], "thin": {1: 0.1}})
    assert data.classes == ["7", "1"]
    found = load(data, 1)
    assert found.class_names == ("7", "1")
    counts = np.bincount(found.train.labels)
    assert 5 * counts[1] < counts[0]
    with pytest.raises(ValueError, match="named twice"):
        Data.model_validate({"classes": [1, "1"]})


def test_unknown_class_is_named() -> None:
    with pytest.raises(DataError, match="no class 'x' in digits"):
        load(Data(name="digits", classes=["1", "x"]), 1)


@pytest.fixture(scope="module")
def old() -> Dataset:
    return load(FIRST, 1)


@pytest.fixture(scope="module")
def new() -> Dataset:
    return load(SECOND, 1)


def test_merged_classes_are_the_old_ones_then_those_added(old: Dataset, new: Dataset) -> None:
    both = merge(old, new, 0.25, seed=1)
    assert both.class_names == ("7", "1", "3", "9")
    for name in ("train", "validation", "test"):
        before, added, split = (getattr(one, name) for one in (old, new, both))
        kept = len(before) if name == "test" else round(0.25 * len(before))
        assert len(split) == kept + len(added)
        images, labels = split.batch(np.arange(len(split)))
        np.testing.assert_array_equal(images[kept:], added.batch(np.arange(len(added)))[0])
        np.testing.assert_array_equal(labels[kept:], np.array([2, 3])[added.labels])
    # Stratified: each old class keeps its share.
    kept_labels = both.train.labels[: round(0.25 * len(old.train))]
    for number in range(3):
        assert abs((kept_labels == number).sum() - 0.25 * (old.train.labels == number).sum()) <= 1


def test_an_accent_that_is_written_otherwise_makes_no_other_class(old: Dataset, new: Dataset) -> None:
    both = merge(
        replace(old, class_names=("caf\u00e9", "1", "3")),
        replace(new, class_names=("9", "cafe\u0301")),
        0.0,
        seed=1,
    )
    assert both.class_names == ("caf\u00e9", "1", "3", "9")
    np.testing.assert_array_equal(both.train.labels, np.array([3, 0])[new.train.labels])


def test_without_replay_nothing_old_is_trained_on(old: Dataset, new: Dataset) -> None:
    both = merge(old, new, 0.0, seed=1)
    assert len(both.train) == len(new.train)
    assert len(both.validation) == len(new.validation)
    assert set(both.train.labels) == {2, 3}
    assert len(both.test) == len(old.test) + len(new.test)


def test_joined_arrays_are_one() -> None:
    arrays = [np.random.default_rng(i).integers(0, 256, (n, 2, 2, 3), np.uint8) for i, n in enumerate((3, 4))]
    joined, whole = Joined(arrays), np.concatenate(arrays)
    rows = np.array([6, 0, 3, 2, 3])
    np.testing.assert_array_equal(joined[rows], whole[rows])
    np.testing.assert_array_equal(joined[1:5], whole[1:5])
    np.testing.assert_array_equal(joined[4], whole[4])
    np.testing.assert_array_equal(np.array(joined), whole)
    assert joined.shape == whole.shape
    assert joined.nbytes == whole.nbytes


def test_grown_head_keeps_its_logits() -> None:
    old = {"logits/kernel": np.ones((4, 2)), "logits/bias": np.ones(2), "conv/kernel": np.full(3, 7.0)}
    fresh = {"logits/kernel": np.zeros((4, 3)), "logits/bias": np.zeros(3), "conv/kernel": np.zeros(3)}
    found = grown(old, fresh, 2)
    np.testing.assert_array_equal(found["logits/kernel"], [[1, 1, 0]] * 4)
    np.testing.assert_array_equal(found["logits/bias"], [1, 1, 0])
    np.testing.assert_array_equal(found["conv/kernel"], old["conv/kernel"])


def train(side: str, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", f"{side}_impl.train", *SMALL, *EXACT, *options]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def updated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of each side the folder of `first`, a run on five classes, and `second`, which goes on with ten."""
    folders = {}
    for side in ("keras", "lightning"):
        folder = folders[side] = tmp_path_factory.mktemp(side)
        first = ('--data.classes=["0","1","2","3","4"]', f"--run.dir={folder}/first", "--training.epochs=4")
        assert (done := train(side, *first)).returncode == 0, done.stderr
        second = (f"--warm-start={folder}/first", '--data.classes=["5","6","7","8","9"]', "--data.replay=0.5")
        options = (*second, f"--run.dir={folder}/second", "--training.epochs=2")
        assert (done := train(side, *options)).returncode == 0, done.stderr
        assert "on the old test images" in done.stdout
    return folders


@pytest.mark.slow
def test_both_sides_go_on_alike(updated: dict[str, Path]) -> None:
    for name in ("first", "second"):
        losses = [
            np.loadtxt(updated[side] / name / "steps.csv", delimiter=",", skiprows=1)[:, 2]
            for side in updated
        ]
        assert len(losses[0]) > 8
        np.testing.assert_allclose(losses[0], losses[1], rtol=1e-9)


@pytest.mark.slow
def test_update_tells_old_test_images_from_new_ones(updated: dict[str, Path]) -> None:
    for folder in updated.values():
        first, second = (Run(folder / name).read_json("metrics.json") for name in ("first", "second"))
        names = Run(folder / "second").read_json("environment.json")["data"]["class_names"]
        assert names == [str(digit) for digit in range(10)]
        sets = second["test_sets"]
        assert sets["old"]["images"] == sum(one["support"] for one in first["per_class"].values())
        assert set(sets) == {"old", "new"}


@pytest.mark.slow
def test_resumed_update_keeps_its_data(updated: dict[str, Path]) -> None:
    folder = updated["lightning"]
    command = [sys.executable, "-m", "lightning_impl.train", "--resume", str(folder / "second")]
    done = subprocess.run([*command, "--training.epochs=3"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(Run(folder / "second").history()) == 3
    assert set(Run(folder / "second").read_json("metrics.json")["test_sets"]) == {"old", "new"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--warm-start=nowhere",), "warm_start nowhere: not a finished run"),
        (("--data.replay=0.5",), "name one"),
        (("--warm-start={lightning}/first", "--model.dense_units=8"), "has model.dense_units 16, not 8"),
        (("--warm-start={keras}/first",), "parity convert"),
    ],
)
def test_impossible_warm_starts_are_refused(
    options: tuple[str, ...], message: str, updated: dict[str, Path]
) -> None:
    done = train("lightning", *(option.format(**updated) for option in options))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_update_goes_over_to_the_other_side_and_out_as_a_file(
    updated: dict[str, Path], tmp_path: Path
) -> None:
    run = str(updated["keras"] / "second")
    for command in (
        ["parity", "convert", run, "--to", "lightning", "--out", str(tmp_path / "made")],
        ["keras_impl.export", run, "--quantize", "int8", "--output", str(tmp_path / "model.tflite")],
    ):
        done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert Run(tmp_path / "made").read_json("metrics.json")["test_sets"].keys() == {"old", "new"}


@pytest.mark.slow
def test_warm_start_from_data_that_changed_is_refused(updated: dict[str, Path], tmp_path: Path) -> None:
    first = Run(shutil.copytree(updated["lightning"] / "first", tmp_path / "first"))
    facts = first.read_json("environment.json")
    facts["data"]["sha256"] = "another"
    first.write_json("environment.json", facts)
    second = read_config(updated["lightning"] / "second" / "config.yaml")
    load_all(second)
    with pytest.raises(RunError, match="trained on other data than is there now"):
        load_all(second.model_copy(update={"warm_start": str(first.directory)}))


@pytest.mark.parametrize(("key", "before", "now"), [("background", "#ffffff", "black"), ("bits", 16, 12)])
def test_images_must_be_read_as_before(tmp_path: Path, key: str, before: object, now: object) -> None:
    """Its weights know what is white."""
    first = Experiment.model_validate({"run": {"dir": str(tmp_path / "first")}, "data": {"name": "digits"}})
    run = Run.create(first, "keras", "digits")
    run.write_json("environment.json", {"framework": "keras", "data": {"class_names": ["0", "1"]}})
    run.write_json("metrics.json", {})
    values = {"warm_start": str(run.directory), "data": {"name": "digits", key: now}}
    kept = Experiment.model_validate({**values, "data": {"name": "digits"}})
    assert opened(kept, "keras") is not None
    changed = Experiment.model_validate(values)
    found = getattr(changed.data, key)
    with pytest.raises(RunError, match=rf"data.{key} {before}, not {found}: it must be the same"):
        opened(changed, "keras")
