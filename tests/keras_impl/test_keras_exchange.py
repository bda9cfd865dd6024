"""Checkpoints as plain arrays: what they hold, and that one made from them is the one that was read."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np
import pytest
from keras_files import arrays
from small_runs import SMALL, probabilities

from experiment.config import Experiment
from experiment.deploy.prediction import TrainedRun
from experiment.errors import RunError
from experiment.runs.record import Run
from experiment.training.lifecycle import Session
from keras_impl import train
from keras_impl.convert import command as convert
from keras_impl.convert.checkpoint import read_checkpoints
from keras_impl.model import build_model
from keras_impl.weights import load, warm_start, weights

EVENTS = (
    "--data.validation_share=0.3",
    "--training.epochs=4",
    "--training.plateau.patience=1",
    "--training.plateau.factor=0.8",
    "--training.plateau.min_delta=9",
    "--training.early_stopping.patience=2",
    "--training.early_stopping.min_delta=9",
)
COSINE = ("--training.epochs=2", "--training.schedule.kind=cosine", "--training.dropout_masks=shared")
VGG16 = (
    "--model.name=vgg16",
    "--model.weights=random",
    "--data.limit=60",
    "--augment.kind=none",
    "--training.epochs=1",
)


def train_run(directory: Path, *options: str) -> Run:
    assert train.main([*SMALL, *options, f"--data.cache={directory}-cache", f"--run.dir={directory}"]) == 0
    return Run(directory)


def emptied_copy(run: Run, directory: Path) -> Run:
    """The record without its checkpoints and predictions, as an import finds it."""
    shutil.copytree(run.directory, directory, ignore=shutil.ignore_patterns("*.keras", "predictions.npz"))
    return Run(directory)


def stored(path: Path) -> dict[str, np.ndarray]:
    """Every array of a .keras file but the random states, which each epoch sets."""
    return {name: array for name, array in arrays(path).items() if "seed_generator" not in name}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train_run(tmp_path_factory.mktemp("keras") / "run", *EVENTS)


@pytest.fixture(scope="module")
def exported(run: Run) -> Path:
    folder = run.directory.with_name("arrays")
    assert convert.main(["export", str(run.directory), str(folder)]) == 0
    return folder


def test_a_checkpoint_made_from_arrays_is_the_one_that_training_left(
    run: Run, exported: Path, tmp_path: Path
) -> None:
    assert_remade(run, exported, tmp_path / "made")


@pytest.mark.slow
@pytest.mark.parametrize("options", [COSINE, VGG16], ids=["cosine", "vgg16"])
def test_so_is_one_of_another_training(tmp_path: Path, options: tuple[str, ...]) -> None:
    run = train_run(tmp_path / "run", *options)
    assert convert.main(["export", str(run.directory), str(tmp_path / "arrays")]) == 0
    assert_remade(run, tmp_path / "arrays", tmp_path / "made")


def assert_remade(run: Run, exported: Path, directory: Path) -> None:
    made = emptied_copy(run, directory)
    assert convert.main(["import", str(made.directory), str(exported)]) == 0
    for name in ("best.keras", "last.keras", "resume.keras"):
        before, after = (stored(r.checkpoints / name) for r in (run, made))
        assert before.keys() == after.keys()
        if name != "resume.keras":  # to predict with, not to go on from: VGG16's head holds an optimizer, too
            before = {key: array for key, array in before.items() if "/optimizer/" not in key}
        assert before
        for key, array in before.items():
            assert array.dtype == after[key].dtype
            np.testing.assert_array_equal(array, after[key], err_msg=f"{name} {key}")
    np.testing.assert_allclose(probabilities(run), probabilities(made), rtol=0, atol=1e-7)
    ours, theirs = run.read_json("metrics.json"), made.read_json("metrics.json")
    assert ours.pop("test_loss") == pytest.approx(theirs.pop("test_loss"), rel=1e-6)
    calibration = ours.pop("calibration"), theirs.pop("calibration")
    for key, value in calibration[0].items():
        np.testing.assert_allclose(value, calibration[1][key], rtol=0, atol=1e-6, err_msg=key)
    assert ours == theirs


def test_events_came_before_the_export(run: Run, exported: Path) -> None:
    rates = [row["learning_rate"] for row in run.history()]
    np.testing.assert_allclose(rates, [1e-3, 1e-3, 8e-4])
    last = np.load(exported / "last.npz")
    assert last["iterations"] == 3 * 6  # 280 images in batches of 50
    assert last["learning_rate"] == pytest.approx(6.4e-4)
    kinds = [name.split("/")[0] for name in last]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "weights": 32,
        "momentums": 22,
        "velocities": 22,
        "iterations": 1,
        "learning_rate": 1,
    }
    assert last["momentums/conv1/kernel"].shape == last["weights/conv1/kernel"].shape == (3, 3, 3, 8)
    best = np.load(exported / "best.npz")
    assert set(best) == {name for name in last if name.startswith("weights/")}
    assert (best["weights/bn1/moving_mean"] != last["weights/bn1/moving_mean"]).all()


def test_moments_go_by_the_name_of_their_weight(run: Run, exported: Path) -> None:
    optimizer = keras.saving.load_model(run.checkpoints / "resume.keras").optimizer
    named = {variable.name: keras.ops.convert_to_numpy(variable) for variable in optimizer.variables}
    last = np.load(exported / "last.npz")
    for layer in ("conv2", "dense", "logits"):
        np.testing.assert_array_equal(last[f"momentums/{layer}/kernel"], named[f"{layer}_kernel_momentum"])
        np.testing.assert_array_equal(last[f"velocities/{layer}/kernel"], named[f"{layer}_kernel_velocity"])
    assert (last["velocities/dense/kernel"] >= 0).all()


def test_load_gives_back_what_weights_found() -> None:
    settings = {"filters": [4], "block_dropout": [0], "dense_units": 8}
    models = [build_model(Experiment.model_validate({"model": settings, "seed": s}), 3) for s in (1, 2)]
    found = weights(models[0])
    load(models[1], found)
    for name, array in weights(models[1]).items():
        np.testing.assert_array_equal(array, found[name], err_msg=name)
    with pytest.raises(RunError, match="conv1/kernel"):
        load(models[1], {**found, "conv1/kernel": found["conv1/kernel"][:2]})
    with pytest.raises(RunError, match="bn9/gamma"):
        load(models[1], {**found, "bn9/gamma": found["bn1/gamma"]})


@pytest.mark.parametrize("name", ["best.keras", "last.keras", "resume.keras"])
def test_damaged_checkpoint_is_refused(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture, name: str
) -> None:
    copy = Run(tmp_path / "run")
    shutil.copytree(run.directory, copy.directory)
    path = copy.checkpoints / name
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(SystemExit) as refused:
        convert.main(["export", str(copy.directory), str(tmp_path / "arrays")])
    assert refused.value.code == 2
    assert f"{name}: cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "arrays").exists()


def test_record_and_checkpoint_must_be_of_one_step(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    copy = Run(tmp_path / "run")
    shutil.copytree(run.directory, copy.directory)
    copy.write_history(copy.history()[:2])
    with pytest.raises(SystemExit):
        convert.main(["export", str(copy.directory), str(tmp_path / "arrays")])
    assert "is of step 18, the record of 2 epochs ends at step 12" in capsys.readouterr().err


def test_warm_start_keeps_every_weight_and_the_old_logits(run: Run) -> None:
    trained = TrainedRun.open(run.directory, "keras")
    model = build_model(trained.experiment, 12)
    fresh, nothing = weights(model), cast(Any, None)
    warm_start(Session(trained.experiment, nothing, run, None, warm=trained), model)
    found = weights(model)
    checkpoint = read_checkpoints(trained)["best"]
    for name, values in found.items():
        of_run = checkpoint[f"weights/{name}"]
        if name.startswith("logits/"):
            np.testing.assert_array_equal(values[..., :10], of_run)
            np.testing.assert_array_equal(values[..., 10:], fresh[name][..., 10:])
        else:
            np.testing.assert_array_equal(values, of_run)
    assert not np.array_equal(found["conv1/kernel"], fresh["conv1/kernel"])
