"""Runs that were killed, at any moment, and go on: as if they had not been."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from small_runs import STOPPED, assert_same_run, moments, probabilities, rows

from experiment.config import Data
from experiment.data.dataset import load
from experiment.deploy.prediction import TrainedRun
from experiment.runs.record import Run
from keras_impl import checkpoint, model, predict
from keras_impl.train import main
from keras_impl.weights import weights


def refused(capsys: pytest.CaptureFixture, *arguments: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") <= 2
    return said


def load_model(run: Path) -> keras.Model:
    return checkpoint.load(TrainedRun.open(run, "keras"))


def predicted(run: Run) -> np.ndarray:
    """Probabilities of the saved model on the test images."""
    test = load(Data(name="digits", limit=60), seed=1).test
    return predict.predictor(TrainedRun.open(run.directory, "keras"))(test.batch(np.arange(len(test)))[0])


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict[str, list[Path]]]:
    """A run that early stopping ended, and what kills at every moment would have left of it."""
    folder = tmp_path_factory.mktemp("stopped")
    with moments(folder / "run", folder) as left:
        assert main([*STOPPED, f"--run.dir={folder / 'run'}"]) == 0
    return Run(folder / "run"), left


@pytest.mark.parametrize(
    ("file", "which"),
    [
        ("history.csv", 1),  # the second epoch's row is there, its checkpoint is not
        ("best.keras", 0),  # of the first epoch: there is no last one yet
        ("best.keras", -1),
        ("last.keras", 0),
        ("last.keras", -1),
        ("history.csv", -1),
        ("resume.keras", -1),  # early stopping has ended training, there are no results
        ("predictions.npz", -1),
    ],
)
def test_a_run_killed_at_any_moment_goes_on_as_if_it_were_not(
    stopped: tuple[Run, dict[str, list[Path]]], tmp_path: Path, file: str, which: int
) -> None:
    whole, left = stopped
    shutil.copytree(left[file][which], tmp_path / "run")
    run = Run(tmp_path / "run")
    assert not run.finished
    assert main([f"--resume={run.directory}"]) == 0
    assert_same_run(run, whole)
    assert run.read_json("metrics.json")["stopped_epoch"] < 9
    assert rows(run)[-1][0] == run.read_json("metrics.json")["stopped_epoch"]


def test_a_damaged_last_checkpoint_leaves_all_as_it_was_and_best_goes_on_exactly(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options = [option for option in STOPPED if "early_stopping" not in option and "epochs" not in option]
    longer, run = Run(tmp_path / "longer"), Run(tmp_path / "run")
    assert main([*options, "--training.epochs=5", f"--run.dir={longer.directory}"]) == 0
    assert main([*options, "--training.epochs=3", f"--run.dir={run.directory}"]) == 0
    before = {path: path.read_bytes() for path in run.directory.iterdir() if path.is_file()}
    path = run.checkpoints / "resume.keras"
    path.write_bytes(path.read_bytes()[:1000])
    more = (f"--resume={run.directory}", "--training.epochs=5")
    said = refused(capsys, *more)
    assert "resume.keras: cannot be read" in said
    assert "--from best" in said
    assert {path: path.read_bytes() for path in run.directory.iterdir() if path.is_file()} == before
    assert main([*more, "--from=best"]) == 0
    assert_same_run(run, longer)


# === A frozen base ===

VGG16 = ("--data.name=digits", "--data.limit=60", "--model.name=vgg16", "--augment.kind=none", "--gpus=0")


def tiny_base(images: Any) -> keras.Model:
    """Five blocks named as VGG16's."""
    x = images
    for block in range(1, 6):
        x = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name=f"block{block}_conv1")(x)
        x = keras.layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
    return keras.Model(keras.utils.get_source_inputs(images), x)


@pytest.fixture
def updated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Run, Run]:
    """A run with a fine-tuned base, one that starts from it with that base frozen, and what a kill left."""
    monkeypatch.setitem(model.BASES, "vgg16", tiny_base)
    options = (*VGG16, f"--data.cache={tmp_path}/cache", "--training.batch_size=20")
    tuned, whole = tmp_path / "tuned", tmp_path / "whole"
    tune = ("--model.weights=random", "--model.fine_tune_blocks=1", "--training.epochs=2")
    assert main([*options, *tune, f"--run.dir={tuned}"]) == 0
    # ImageNet's weights are not fetched, for nothing starts from them.
    monkeypatch.setattr(model, "base_weights", lambda *_: pytest.fail("weights were read"))
    with moments(whole, tmp_path / "left") as left:
        start = (f"--warm-start={tuned}", "--training.epochs=4", f"--run.dir={whole}")
        assert main([*options, *start]) == 0
    return tuned, Run(whole), Run(left["resume.keras"][1])


def test_a_resumed_warm_start_keeps_the_base_that_it_started_from(updated: tuple[Path, Run, Run]) -> None:
    tuned, whole, run = updated
    base, own = (
        {name: array for name, array in weights(load_model(path)).items() if name.startswith("block")}
        for path in (tuned, whole.directory)
    )
    assert len(base) == 10
    for name in base:
        np.testing.assert_array_equal(base[name], own[name])
    for path in (tuned / "checkpoints").iterdir():  # the weights are the run's own by now
        path.unlink()
    assert main([f"--resume={run.directory}"]) == 0
    assert_same_run(run, whole)
    np.testing.assert_array_equal(predicted(run), predicted(whole))
    # The test images are the earlier run's and its own: the same digits twice.
    np.testing.assert_allclose(np.tile(predicted(run), (2, 1)), probabilities(run), atol=1e-6)


def test_a_warm_start_resumes_from_data_that_are_there_alone(
    updated: tuple[Path, Run, Run], capsys: pytest.CaptureFixture
) -> None:
    tuned, _, run = updated
    tuned.rename(tuned.with_name("moved"))
    assert "say where it lies with --warm-start" in refused(capsys, f"--resume={run.directory}")
    assert main([f"--resume={run.directory}", f"--warm-start={tuned.with_name('moved')}"]) == 0
