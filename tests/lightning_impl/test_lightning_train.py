from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import SMALL, compiled_and_eager_losses, kill_after, probabilities, rows

from experiment.runs.record import Run
from lightning_impl.train import main

EVENTS = ("--training.plateau.patience=1", "--training.plateau.min_delta=0.5", "--training.epochs=5")


def train(directory: Path, *arguments: str) -> Run:
    assert main([*SMALL, f"--run.dir={directory}", *arguments]) == 0
    return Run(directory)


def test_run_record_is_complete(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = train(tmp_path / "run", "--training.epochs=2", "--run.record_steps=true")
    assert capsys.readouterr().out.splitlines()[-1] == str(run.directory)
    names = {path.name for path in run.directory.iterdir()}
    assert names == {
        "index.html",
        "config.yaml",
        "environment.json",
        "history.csv",
        "steps.csv",
        "metrics.json",
        "predictions.npz",
        "curves.png",
        "confusion.png",
        "calibration.png",
        "mistakes.png",
        "samples.png",
        "checkpoints",
        "tensorboard",
    }
    assert {path.name for path in run.checkpoints.iterdir()} == {"best.ckpt", "last.ckpt"}
    metrics, history = run.read_json("metrics.json"), run.history()
    assert metrics["status"] == "completed"
    assert len(history) == 2
    labels = np.load(run.directory / "predictions.npz")["y_true"]
    found = probabilities(run)
    assert found.shape == (359, 10)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    assert metrics["test_accuracy"] == pytest.approx((found.argmax(1) == labels).mean())
    assert metrics["test_loss"] == pytest.approx(-np.log(found[np.arange(359), labels]).mean(), rel=1e-5)
    steps = np.loadtxt(run.directory / "steps.csv", delimiter=",", skiprows=1)
    first = steps[steps[:, 0] == 1][:, 2]
    assert len(first) == 8  # 360 images in batches of 50, the last of 10
    assert np.average(first, weights=[50] * 7 + [10]) == pytest.approx(history[0]["loss"], rel=1e-5)


@pytest.mark.slow
def test_same_seed_same_run_and_other_seed_another(tmp_path: Path) -> None:
    first, second = train(tmp_path / "a", "--training.epochs=1"), train(tmp_path / "b", "--training.epochs=1")
    other = train(tmp_path / "c", "--training.epochs=1", "--seed=2")
    assert rows(first) == rows(second)
    assert rows(first) != rows(other)


def test_killed_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", *EVENTS)
    cut = tmp_path / "cut"
    kill_after(2, "lightning_impl", *SMALL, *EVENTS, f"--run.dir={cut}")
    assert len(Run(cut).history()) == 2
    assert main([f"--resume={cut}"]) == 0
    assert rows(Run(cut)) == rows(whole)
    assert len({row["learning_rate"] for row in whole.history()}) > 1  # the plateau acted
    assert (probabilities(Run(cut)) == probabilities(whole)).all()
    ends = [torch.load(d / "checkpoints/last.ckpt", weights_only=True) for d in (cut, whole.directory)]
    for name, tensor in ends[0]["state_dict"].items():
        assert torch.equal(tensor, ends[1]["state_dict"][name]), name
    states = [end["optimizer_states"][0]["state"] for end in ends]
    assert all(torch.equal(states[0][i]["exp_avg_sq"], states[1][i]["exp_avg_sq"]) for i in states[0])


@pytest.mark.slow
def test_finished_run_resumes_only_for_more_epochs(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    longer = train(tmp_path / "longer", "--training.epochs=2")
    run = train(tmp_path / "run", "--training.epochs=1")
    with pytest.raises(SystemExit) as refused:
        main([f"--resume={run.directory}"])
    assert refused.value.code == 2
    assert "--training.epochs" in capsys.readouterr().err
    assert main([f"--resume={run.directory}", "--training.epochs=2"]) == 0
    assert rows(run) == rows(longer)


def test_early_stopping_restores_the_best_weights(tmp_path: Path) -> None:
    run = train(
        tmp_path / "run",
        "--training.epochs=12",
        "--training.early_stopping.patience=2",
        "--training.early_stopping.min_delta=0.3",
    )
    metrics = run.read_json("metrics.json")
    assert metrics["stopped_epoch"] == metrics["best_epoch"] + 2 < 12
    assert metrics["weights_of_epoch"] == metrics["best_epoch"]
    best = torch.load(run.checkpoints / "best.ckpt", weights_only=True)
    assert best["epoch"] + 1 == metrics["best_epoch"]


def test_diverging_run_stops_and_keeps_the_last_good_checkpoint(tmp_path: Path, monkeypatch) -> None:
    from lightning_impl.classifier import Classifier

    honest = Classifier.loss

    def diverging(self: Classifier, *arguments):
        loss = honest(self, *arguments)
        return loss * float("nan") if self.trainer.current_epoch == 1 and self.training else loss

    monkeypatch.setattr(Classifier, "loss", diverging)
    assert main([*SMALL, f"--run.dir={tmp_path / 'run'}", "--training.epochs=3"]) == 1
    run = Run(tmp_path / "run")
    assert len(run.history()) == 1
    metrics = run.read_json("metrics.json")
    assert metrics["status"] == "non_finite"
    assert "epoch 2" in metrics["message"]
    assert np.isfinite(probabilities(run)).all()


def test_run_without_a_finished_epoch_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([*SMALL, f"--run.dir={tmp_path / 'run'}", "--training.l2=1e38"]) == 1
    assert "the loss became" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("precision", ["bfloat16", "float64"])
def test_precisions(tmp_path: Path, precision: str) -> None:
    run = train(tmp_path / "run", "--training.epochs=1", f"--training.precision={precision}")
    assert probabilities(run).dtype == (np.float64 if precision == "float64" else np.float32)
    np.testing.assert_allclose(probabilities(run).sum(1), 1, atol=1e-6)


def test_vgg16_head_trains_on_cached_features(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = (
        "--model.name=vgg16",
        "--model.weights=random",
        "--data.limit=60",
        f"--data.cache={tmp_path}",
        "--training.epochs=2",
    )
    cached = train(tmp_path / "cached", *arguments, "--augment.kind=none")
    assert "computed once" in capsys.readouterr().out
    assert cached.read_json("metrics.json")["parameters"] == {
        "total": 14_714_688 + 512 * 16 + 16 + 16 * 10 + 10,
        "trainable": 512 * 16 + 16 + 16 * 10 + 10,
        "non_trainable": 14_714_688,
    }
    # An augmentation that moves nothing takes the long way, through the base at every step.
    still = (
        "--augment.rotation=0",
        "--augment.width_shift=0",
        "--augment.height_shift=0",
        "--augment.zoom=0",
    )
    whole = train(tmp_path / "whole", *arguments, *still, "--augment.horizontal_flip=false")
    np.testing.assert_allclose(rows(cached), rows(whole), rtol=1e-5)
    np.testing.assert_allclose(probabilities(cached), probabilities(whole), atol=1e-6)


def test_stock_torchvision_augmentation_trains(tmp_path: Path) -> None:
    stock = train(tmp_path / "stock", "--augment.kind=torchvision", "--training.epochs=1")
    again = train(tmp_path / "again", "--augment.kind=torchvision", "--training.epochs=1")
    keras = train(tmp_path / "keras", "--training.epochs=1")
    assert rows(stock) == rows(again)
    assert rows(stock) != rows(keras)


@pytest.mark.slow
def test_a_compiled_run_trains_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, compile = [], torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: [seen.append(self), compile(self)][1])
    compiled, eager = compiled_and_eager_losses(train, tmp_path)
    assert len(seen) == 1, "one of the two was compiled"
    np.testing.assert_allclose(compiled, eager, rtol=0, atol=1e-9)
    assert len(compiled) == 16
