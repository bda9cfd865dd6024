"""A run spread over two processes, or two devices, is the same run."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from experiment import cli
from experiment.errors import ConfigError
from experiment.runs.record import Run
from experiment.system import distributed, processes

# An odd batch: the two processes never have as many images as one another.
OPTIONS = (
    "--data.name=digits",
    "--data.limit=410",
    "--model.filters=[8,8]",
    "--model.dense_units=16",
    "--training.batch_size=51",
    "--training.precision=float64",
    "--training.dropout_masks=shared",
    "--training.epochs=2",
    "--training.l2=1e-4",
    "--training.label_smoothing=0.1",
    "--training.class_weights=balanced",
    "--run.record_steps=true",
    "--gpus=0",
)
ONE = [sys.executable, "-m", "lightning_impl.train"]
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *ONE[1:]]


def train(command: list[str], *options: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run([*command, *options], capture_output=True, text=True, env=os.environ | environment)


def steps(directory: Path) -> np.ndarray:
    return np.loadtxt(directory / "steps.csv", delimiter=",", skiprows=1)[:, 2]


def trained(command: list[str], directory: Path, *options: str, **environment: str) -> Run:
    done = train(command, *OPTIONS, f"--run.dir={directory}", *options, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return Run(directory)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(ONE, tmp_path_factory.mktemp("one") / "run")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(TWO, tmp_path_factory.mktemp("two") / "run")


def assert_same(run: Run, other: Run) -> None:
    assert len(steps(run.directory)) == 16
    np.testing.assert_allclose(steps(run.directory), steps(other.directory), rtol=1e-9)
    for mine, theirs in zip(run.history(), other.history(), strict=True):
        for key in ("loss", "accuracy", "val_loss", "val_accuracy"):
            assert mine[key] == pytest.approx(theirs[key], rel=1e-9), key
    mine, theirs = (np.load(r.directory / "predictions.npz")["probabilities"] for r in (run, other))
    np.testing.assert_allclose(mine, theirs, atol=1e-9)


def test_two_processes_train_what_one_does(one: Run, two: Run) -> None:
    assert_same(one, two)
    assert one.read_json("environment.json")["processes"] == 1
    assert two.read_json("environment.json")["processes"] == 2


@pytest.mark.slow
def test_batch_norm_of_each_share_is_another_run(one: Run, tmp_path: Path) -> None:
    run = trained(TWO, tmp_path / "run", "--training.sync_batch_norm=false", "--training.epochs=1")
    apart = np.abs(steps(run.directory) / steps(one.directory)[:8] - 1)
    assert apart.max() > 1e-3


@pytest.mark.slow
def test_resumed_by_two_processes_it_is_still_the_same(one: Run, tmp_path: Path) -> None:
    run = trained(TWO, tmp_path / "run", "--training.epochs=1")
    done = train(TWO, "--resume", str(run.directory), "--training.epochs=2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same(one, run)


@pytest.mark.slow
def test_two_processes_say_things_once(tmp_path: Path) -> None:
    done = train(TWO, *OPTIONS, "--training.epochs=1", f"--run.dir={tmp_path}/run")
    assert done.stdout.count("epoch   1/1") == 1
    assert done.stdout.count("test accuracy") == 1


def test_batch_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    done = train(TWO, *OPTIONS, "--training.batch_size=46", f"--run.dir={tmp_path}/run")
    assert done.returncode != 0
    assert "training.batch_size 46: the last batch has 1 of 369 images" in done.stderr
    assert not (tmp_path / "run").exists()


def test_shares_are_of_every_row_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for world in (1, 2, 3, 7):
        monkeypatch.setenv("WORLD_SIZE", str(world))
        for count in (7, 8, 64):
            rows = []
            for rank in range(world):
                monkeypatch.setenv("RANK", str(rank))
                mine = list(range(count))[distributed.share(count)]
                assert count // world <= len(mine) <= -(-count // world)
                rows += mine
            assert rows == list(range(count))


@pytest.mark.parametrize(
    ("side", "argv", "environment", "message"),
    [
        ("lightning", ("--nodes=2",), {}, "torchrun --nnodes 2"),
        ("lightning", ("--training.batch_size=1",), {"WORLD_SIZE": "2"}, "fewer images than processes"),
        ("keras", ("--nodes=2",), {}, "Keras trains in one process"),
        ("keras", (), {"WORLD_SIZE": "2"}, "Keras trains in one process"),
    ],
)
def test_impossible_processes_are_refused(
    side: cli.Framework,
    argv: tuple[str, ...],
    environment: dict[str, str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        cli.train_request(side, ["--gpus=0", *argv])


@pytest.mark.slow
def test_keras_on_two_jax_devices_trains_what_it_does_on_one(tmp_path: Path) -> None:
    keras = [sys.executable, "-m", "keras_impl.train"]
    options = ("--backend=jax", "--training.batch_size=50", "--data.limit=400", "--training.epochs=1")
    runs = [
        trained(keras, tmp_path / name, *options, JAX_ENABLE_X64="1", XLA_FLAGS=flags)
        for name, flags in (("one", ""), ("two", "--xla_force_host_platform_device_count=2"))
    ]
    one, two = (steps(run.directory) for run in runs)
    assert len(one) == 8
    np.testing.assert_allclose(one, two, rtol=2e-6)
    assert not np.array_equal(one, two)  # two devices add up otherwise: they were there


def test_batch_that_jax_cannot_divide_is_refused(tmp_path: Path) -> None:
    keras = [sys.executable, "-m", "keras_impl.train"]
    flags = "--xla_force_host_platform_device_count=2"
    done = train(keras, *OPTIONS, "--backend=jax", f"--run.dir={tmp_path}/run", XLA_FLAGS=flags)
    assert done.returncode == 2
    assert "training.batch_size 51: a batch of 51 train images" in done.stderr
    assert not (tmp_path / "run").exists()


def test_calls_made_together_run_at_once_and_answer_in_order() -> None:
    barrier = threading.Barrier(2, timeout=20)
    first, second = lambda: (barrier.wait(), "first")[1], lambda: (barrier.wait(), "second")[1]
    assert processes.together([first, second]) == ["first", "second"]


def test_what_fails_of_calls_made_together_is_raised() -> None:
    def fail() -> None:
        raise processes.SideError("no good")

    with pytest.raises(processes.SideError, match="no good"):
        processes.together([lambda: None, fail])
