"""Checkpoints as plain arrays: what they hold, and that one made from them is the one that was read."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from small_runs import SMALL, probabilities
from torch import nn

from experiment.config import Experiment
from experiment.deploy.prediction import TrainedRun
from experiment.errors import RunError
from experiment.runs.record import Run
from experiment.training.lifecycle import Session
from lightning_impl import train
from lightning_impl.convert import command as convert
from lightning_impl.convert.checkpoint import read_checkpoints
from lightning_impl.keras_semantics import BatchNorm
from lightning_impl.model import build_model
from lightning_impl.weights import load, warm_start, weights

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
    shutil.copytree(run.directory, directory, ignore=shutil.ignore_patterns("*.ckpt", "predictions.npz"))
    return Run(directory)


def assert_equal(one: Any, other: Any, where: str = "") -> None:
    """Nested values are equal: types, numbers to the last bit, tensors with their layout in memory."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_equal(a, b, f"{where}/{i}")
    elif isinstance(one, torch.Tensor):
        assert (one.dtype, one.stride()) == (other.dtype, other.stride()), where
        assert torch.equal(one, other), where
    else:
        assert one == other, where


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train_run(tmp_path_factory.mktemp("lightning") / "run", *EVENTS)


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
    for name in ("last.ckpt", "best.ckpt"):
        before, after = (torch.load(r.checkpoints / name, weights_only=True) for r in (run, made))
        if name == "best.ckpt":  # to predict with, not to go on from
            before = {key: before[key] for key in after}
        assert_equal(before, after, name)
    np.testing.assert_array_equal(probabilities(run), probabilities(made))
    assert run.read_json("metrics.json") == made.read_json("metrics.json")


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


def test_arrays_are_in_keras_layout() -> None:
    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module("conv", nn.Conv2d(3, 4, kernel_size=(2, 3)))
    model.add_module("norm", BatchNorm(4))
    model.add_module("dense", nn.Linear(5, 6))
    norm = model.get_submodule("norm")
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            tensor.uniform_(0.5, 1.5)  # type: ignore[operator, union-attr]
    found = weights(model.double().eval())
    images = np.random.default_rng(0).normal(size=(2, 6, 7, 3))  # height, width, channels last
    windows = np.lib.stride_tricks.sliding_window_view(images, (2, 3), axis=(1, 2))
    convolved = np.einsum("nyxchw,hwcf->nyxf", windows, found["conv/kernel"]) + found["conv/bias"]
    scale = found["norm/gamma"] / np.sqrt(found["norm/moving_variance"] + 1e-3)
    expected = (convolved - found["norm/moving_mean"]) * scale + found["norm/beta"]
    with torch.inference_mode():
        output = norm(model.get_submodule("conv")(torch.from_numpy(images).permute(0, 3, 1, 2)))
        rows = torch.randn(2, 5, dtype=torch.float64)
        dense = model.get_submodule("dense")(rows)
    np.testing.assert_allclose(output.permute(0, 2, 3, 1), expected, rtol=1e-12)
    np.testing.assert_allclose(dense, rows.numpy() @ found["dense/kernel"] + found["dense/bias"], rtol=1e-12)


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


@pytest.mark.parametrize("name", ["best.ckpt", "last.ckpt"])
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


def test_record_and_learning_rate_must_agree(
    run: Run, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    made = emptied_copy(run, tmp_path / "made")
    shutil.copytree(exported, tmp_path / "arrays")
    last = dict(np.load(exported / "last.npz"))
    np.savez(tmp_path / "arrays/last.npz", **{**last, "learning_rate": np.array(1e-3)})  # type: ignore[arg-type]
    assert convert.main(["import", str(made.directory), str(tmp_path / "arrays")]) == 1
    assert "last did not come through" in capsys.readouterr().err
    assert not (made.directory / "predictions.npz").exists()


def test_other_data_is_refused(
    run: Run, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    made = emptied_copy(run, tmp_path / "made")
    environment = made.read_json("environment.json")
    environment["data"]["sha256"] = "0"
    made.write_json("environment.json", environment)
    with pytest.raises(SystemExit):
        convert.main(["import", str(made.directory), str(exported)])
    assert "other data" in capsys.readouterr().err


def test_warm_start_keeps_every_weight_and_the_old_logits(run: Run) -> None:
    trained = TrainedRun.open(run.directory, "lightning")
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
