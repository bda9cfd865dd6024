"""What stands before and after training: data, class weights, resuming, results."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from experiment import randomness
from experiment.cli import read_config
from experiment.config import Experiment
from experiment.data.dataset import Dataset, Split
from experiment.errors import DataError, RunError
from experiment.runs.record import release
from experiment.training import lifecycle
from experiment.training.lifecycle import Session, begin, class_weights
from experiment.training.recorder import Interrupted, Recorder

ROOT = Path(__file__).parents[3]
METRICS = {"loss": 1.0, "accuracy": 0.5, "val_accuracy": 0.25, "learning_rate": 1e-3}
PARAMETERS = {"total": 10, "trainable": 8, "non_trainable": 2}


def experiment(tmp_path: Path, **values: Any) -> Experiment:
    """Few small digits, into tmp_path/run."""
    data = {"name": "digits", "image_size": 16, "limit": 60, "cache": str(tmp_path / "cache")}
    return Experiment.model_validate(
        {"data": data, "run": {"dir": str(tmp_path / "run")}, "model": {"name": "cnn"}, **values}
    )


def trained(session: Session, losses: list[float], interrupt: bool = False) -> Recorder:
    """The record of a training run with these validation losses."""
    images = len(session.dataset.train)
    with Recorder(session.run, session.experiment, images, session.rows) as recorder:
        for epoch, loss in enumerate(losses, len(session.rows)):
            recorder.epoch_begin(epoch)
            recorder.step(images, lambda: (1.0, 0.5))
            recorder.epoch_end(val_loss=loss, **METRICS)
        if interrupt:
            raise Interrupted("interrupted in epoch 2, step 1")
    session.run.write_json(
        "environment.json",
        {"framework": "keras", "data": {"name": "digits", "sha256": session.dataset.sha256}},
    )
    return recorder


def finish(session: Session, recorder: Recorder) -> int:
    """Results of a model that is right on every test image but the first."""
    labels = session.dataset.test.labels.copy()
    labels[0] = (labels[0] + 1) % 10
    return lifecycle.finish(session, recorder, np.eye(10)[labels] * 0.91 + 0.009, 0.5, PARAMETERS)


def refusal(experiment: Experiment, framework: str, run: Path) -> str:
    with pytest.raises(RunError) as caught:
        begin(experiment, framework, run)
    return str(caught.value)


# === Class weights ===


@pytest.fixture
def skewed() -> Dataset:
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 1, 2, 2])
    split = Split(np.zeros((10, 8, 8, 3), np.uint8), labels, np.arange(10))
    return Dataset("npz", ("a", "b", "c"), split, split, split, sha256="", note=None)


def weighted(value: Any) -> Experiment:
    return Experiment.model_validate({"training": {"class_weights": value}})


def test_balanced_weights_are_inverse_to_the_counts(skewed: Dataset) -> None:
    weights = class_weights(weighted("balanced"), skewed)
    assert weights == pytest.approx([10 / 15, 10 / 9, 10 / 6], rel=1e-15)


def test_a_class_without_training_images_gets_a_finite_weight(skewed: Dataset) -> None:
    skewed.train.labels[:] = np.repeat([0, 1], 5)
    assert class_weights(weighted("balanced"), skewed) == pytest.approx([10 / 15, 10 / 15, 10 / 3])


def test_given_weights_are_taken_as_they_are_one_a_class(skewed: Dataset) -> None:
    assert class_weights(weighted(None), skewed) is None
    assert class_weights(weighted([1, 2.5, 0]), skewed) == [1.0, 2.5, 0.0]
    with pytest.raises(DataError, match="2 weights for 3 classes"):
        class_weights(weighted([1, 2]), skewed)


# === Before training ===


def test_begin_loads_the_data_and_makes_the_record(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    wanted = experiment(tmp_path, training={"class_weights": [1.0] * 10})
    session = begin(wanted, "keras", None)
    assert session.dataset.train.images.shape[1:] == (16, 16, 3)
    assert "digits, 10 classes; 54 training, 6 validation, 60 test images" in capsys.readouterr().out
    facts = session.data_facts
    counts = facts.pop("training_images")
    assert isinstance(counts, dict)
    assert list(counts) == list("0123456789")
    assert sum(counts.values()) == 54
    assert counts["3"] == (session.dataset.train.labels == 3).sum()
    assert facts == {
        "name": "digits",
        "sha256": session.dataset.sha256,
        "note": None,
        "class_names": list("0123456789"),
        "images": {"train": 54, "validation": 6, "test": 60},
        "folders": {},
        "identical_images": {"test_in_train": 0, "validation_in_train": 0, "test_in_validation": 0},
        "remarks": ["no validation images of 6, 7, 8, 9: the best epoch is chosen without"],
    }
    assert session.class_weights == [1.0] * 10
    assert (session.rows, session.resumed) == ([], False)
    assert read_config(tmp_path / "run" / "config.yaml").training == wanted.training


def test_begin_refuses_a_place_that_is_taken(tmp_path: Path) -> None:
    begin(experiment(tmp_path), "keras", None)
    with pytest.raises(RunError, match="exists"):
        begin(experiment(tmp_path), "keras", None)


def test_wrong_class_weights_leave_no_run_behind(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 weights for 10 classes"):
        begin(experiment(tmp_path, training={"class_weights": [1, 2]}), "keras", None)
    assert not (tmp_path / "run").exists()


def test_samples_are_what_the_first_epoch_sees_first(tmp_path: Path) -> None:
    session = begin(experiment(tmp_path), "keras", None)
    images, labels = lifecycle.samples(session.dataset, session.experiment.model_copy(update={"seed": 3}))
    expected = session.dataset.train.batch(randomness.epoch_order(3, 0, 54)[:25])
    np.testing.assert_array_equal(images, expected[0])
    np.testing.assert_array_equal(labels, expected[1])


# === Resuming ===


def test_a_stopped_run_is_reopened_with_its_epochs(tmp_path: Path) -> None:
    first = begin(experiment(tmp_path), "keras", None)
    trained(first, [2.0, 1.0, 1.5])
    run = first.run.directory
    session = begin(experiment(tmp_path, training={"epochs": 30}), "keras", run)
    assert session.resumed
    assert session.rows == first.run.history()
    session.keep_epochs(2)
    assert [row["epoch"] for row in session.rows] == [1, 2]


def test_resume_refuses_another_framework_other_data_and_an_empty_run(tmp_path: Path) -> None:
    session = begin(experiment(tmp_path), "keras", None)
    run = session.run.directory
    assert "no epoch was finished" in refusal(experiment(tmp_path), "keras", run)
    trained(session, [2.0])
    assert "is a keras run" in refusal(experiment(tmp_path), "lightning", run)
    other = experiment(tmp_path, data={"name": "digits", "image_size": 17})
    assert "other data" in refusal(other, "keras", run)
    assert read_config(run / "config.yaml").data.image_size == 16


def test_a_completed_run_is_resumed_only_for_more_epochs(tmp_path: Path) -> None:
    session = begin(experiment(tmp_path, training={"epochs": 5}), "keras", None)
    finish(session, trained(session, [2.0, 1.0]))  # early stopping ended it
    run = session.run.directory
    for epochs in (2, 5):
        said = refusal(experiment(tmp_path, training={"epochs": epochs}), "keras", run)
        assert "ended after 2 epochs" in said
        assert "--training.epochs" in said
    assert len(begin(experiment(tmp_path, training={"epochs": 6}), "keras", run).rows) == 2


def test_an_interrupted_run_is_resumed_as_planned_but_not_for_less(tmp_path: Path) -> None:
    session = begin(experiment(tmp_path, training={"epochs": 5}), "keras", None)
    finish(session, trained(session, [2.0, 1.0, 0.5], interrupt=True))
    run = session.run.directory
    assert "ended after 3" in refusal(experiment(tmp_path, training={"epochs": 2}), "keras", run)
    assert begin(experiment(tmp_path, training={"epochs": 5}), "keras", run).resumed


# === After training ===


def test_a_finished_run_holds_every_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session = begin(experiment(tmp_path), "keras", None)
    recorder = trained(session, [2.0, 1.0, 1.5])
    images, _ = lifecycle.samples(session.dataset, session.experiment)
    lifecycle.draw_samples(session, images * 1.2)
    assert finish(session, recorder) == 0
    run = session.run
    texts = {
        "index.html",
        "config.yaml",
        "environment.json",
        "history.csv",
        "metrics.json",
        "predictions.npz",
    }
    pictures = {"curves.png", "confusion.png", "samples.png", "calibration.png", "mistakes.png"}
    release()
    assert set(os.listdir(run.directory)) == texts | pictures | {"checkpoints", "tensorboard"}
    for name in pictures:
        with Image.open(run.directory / name) as picture:
            assert min(picture.size) > 100

    metrics = run.read_json("metrics.json")
    assert {"precision", "recall", "f1"} <= str_keys(metrics)
    expected = {
        "status": "completed",
        "message": "",
        "parameters": PARAMETERS,
        "test_loss": 0.5,
        "test_accuracy": 59 / 60,
        "monitor": "val_loss",
        "best_epoch": 2,
        "stopped_epoch": 3,
        "weights_of_epoch": 3,
        "train_seconds": sum(row["seconds"] for row in recorder.rows),
    }
    assert {key: metrics[key] for key in expected} == expected
    with np.load(run.directory / "predictions.npz") as file:
        np.testing.assert_array_equal(file["y_true"], session.dataset.test.labels)
        assert (file["probabilities"].argmax(1) != file["y_true"]).sum() == 1
        assert file["probabilities"].shape == (60, 10)

    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == str(run.directory)
    assert "test accuracy 0.9833, test loss 0.5000, best epoch 2, 10 parameters (8 trainable)" in said.out
    assert said.err == ""


def test_new_images_of_which_none_are_for_testing(tmp_path: Path) -> None:
    session = begin(experiment(tmp_path), "keras", None)
    session.tests = {"old": slice(0, 60), "new": slice(60, 60)}
    assert finish(session, trained(session, [2.0])) == 0
    assert session.run.read_json("metrics.json")["test_sets"] == {"old": {"images": 60, "accuracy": 59 / 60}}


def str_keys(values: Any) -> set[str]:
    """Every key of nested dictionaries and lists."""
    inner = values.values() if isinstance(values, dict) else values if isinstance(values, list) else ()
    return set(values if isinstance(values, dict) else ()).union(*map(str_keys, inner))


def test_an_interrupted_run_returns_1_and_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = begin(experiment(tmp_path), "keras", None)
    assert finish(session, trained(session, [2.0], interrupt=True)) == 1
    metrics = session.run.read_json("metrics.json")
    assert (metrics["status"], metrics["message"]) == ("interrupted", "interrupted in epoch 2, step 1")
    assert f"--resume {session.run.directory}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stopping", "epoch"),
    [({}, 3), ({"patience": 1}, 2), ({"patience": 1, "restore_best_weights": False}, 3)],
)
def test_the_model_left_is_the_best_where_early_stopping_restores_it(
    tmp_path: Path, stopping: dict[str, Any], epoch: int
) -> None:
    session = begin(experiment(tmp_path, training={"early_stopping": stopping}), "keras", None)
    assert session.experiment.training.use_best == (epoch == 2)
    finish(session, trained(session, [2.0, 1.0, 1.5]))
    assert session.run.read_json("metrics.json")["weights_of_epoch"] == epoch


@pytest.mark.parametrize(
    ("values", "name", "batch", "flip"),
    [
        ({}, "digits", 32, False),
        ({}, "cifar10", 64, True),
        ({"training": {"epochs": 3}}, "digits", 64, True),  # its user's own
        ({"data": {"name": "digits"}}, "digits", 64, True),
    ],
)
def test_digits_that_stand_in_get_their_recipe(
    values: dict[str, Any], name: str, batch: int, flip: bool
) -> None:
    given = Experiment.model_validate(values)
    found = lifecycle.with_recipe(given, SimpleNamespace(name=name))  # type: ignore[arg-type]
    assert (found.training.batch_size, found.augment.horizontal_flip) == (batch, flip)
    if batch == 32:
        recipe = read_config(ROOT / "configs/digits.yaml")
        assert found.training == recipe.training
        assert found.augment == recipe.augment


def test_a_finished_run_has_a_page(tmp_path: Path) -> None:
    session = begin(experiment(tmp_path), "keras", None)
    finish(session, trained(session, [0.5, 0.4]))
    page = (session.run.directory / "index.html").read_text()
    for file in re.findall(r'src="([^"]+)"', page):
        assert (session.run.directory / file).is_file()
    assert 'src="curves.png"' in page
    assert 'src="confusion.png"' in page
    accuracy = session.run.read_json("metrics.json")["test_accuracy"]
    assert f"{accuracy:.2%}" in page
    assert "batch_size: 64" in page
    assert "http" not in page  # it is read offline
