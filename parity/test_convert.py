"""A trained run of one side becomes one of the other: same predictions, same training, and back again."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from keras_files import arrays

from experiment.deploy import conversion
from experiment.deploy.conversion import OTHER
from experiment.runs.record import Run
from parity.checks import table
from parity.convert import main
from parity.ladder.whole_run import IDENTITY, compare_runs

SMALL = (
    "--data.name=digits",
    "--data.limit=200",
    "--model.filters=[4,8]",
    "--model.dense_units=16",
    "--training.batch_size=50",
)
# No epoch after the first improves by min_delta: the learning rate falls after epochs 3 and 5, and training
# stops after 5, on counts that begin before the conversion and end after it.
EVENTS = (
    "--training.learning_rate=3e-4",
    "--training.plateau.patience=2",
    "--training.plateau.factor=0.8",
    "--training.plateau.min_delta=9",
    "--training.early_stopping.patience=4",
    "--training.early_stopping.min_delta=9",
)
VGG16 = (
    "--data.name=digits",
    "--data.limit=60",
    "--model.name=vgg16",
    "--model.weights=random",
    "--model.dense_units=16",
    "--augment.kind=none",
    "--training.batch_size=12",
)


def run_command(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def convert(run: Run, to: str) -> Run:
    assert main([str(run.directory), "--to", to]) == 0
    return Run(run.directory.with_name(f"{run.directory.name}-{to}"))


def largest_difference(one: Run, other: Run) -> float:
    found = [np.load(run.directory / "predictions.npz")["probabilities"] for run in (one, other)]
    return float(np.abs(found[0] - found[1]).max())


@pytest.fixture(scope="module")
def keras_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    directory = tmp_path_factory.mktemp("keras") / "run"
    options = [*SMALL, *EVENTS, "--training.epochs=3", "--gpus=0", "--backend=tensorflow"]
    run_command("keras_impl.train", *options, f"--run.dir={directory}")
    return Run(directory)


def test_round_trip_is_exact(keras_run: Run, capsys: pytest.CaptureFixture) -> None:
    there = convert(keras_run, "lightning")
    assert capsys.readouterr().out.splitlines()[-1] == str(there.directory)
    back = convert(there, "keras")
    assert largest_difference(keras_run, there) <= 1e-6
    assert largest_difference(keras_run, back) == 0
    for name in ("best", "last", "resume"):
        before, after = (arrays(run.checkpoints / f"{name}.keras") for run in (keras_run, back))
        assert before.keys() == after.keys()
        for key, array in before.items():
            assert array.dtype == after[key].dtype
            np.testing.assert_array_equal(array, after[key], err_msg=f"{name} {key}")
    moments = [key for key in before if key.startswith("optimizer/vars")]
    assert len(moments) == 2 + 2 * 22  # iterations, learning rate; two for each trained array
    assert all(np.abs(before[key]).max() > 0 for key in moments)
    records = [{path.name for path in run.directory.iterdir()} for run in (keras_run, there, back)]
    assert records[0] == records[1] == records[2]
    assert [path.name for path in keras_run.directory.parent.glob(".*")] == []
    environments = [run.read_json("environment.json") for run in (there, back)]
    assert [e["framework"] for e in environments] == ["lightning", "keras"]
    assert environments[0]["converted_from"]["run"] == str(keras_run.directory)
    assert environments[0]["converted_from"]["backend"] == environments[1]["backend"] == "tensorflow"
    metrics = [run.read_json("metrics.json") for run in (keras_run, there, back)]
    assert metrics[0]["test_loss"] == pytest.approx(metrics[1]["test_loss"], rel=1e-6)
    assert metrics[0]["calibration"]["ece"] == pytest.approx(metrics[1]["calibration"]["ece"], abs=1e-6)
    for name in ("test_loss", "calibration"):  # of predictions that differ by rounding
        del metrics[0][name], metrics[1][name]
    assert metrics[0] == metrics[1]


@pytest.mark.parametrize(
    ("spoil", "to", "said"),
    [
        (lambda run: (run / "config.yaml").unlink(), "lightning", "not a run directory"),
        (lambda run: (run / "metrics.json").unlink(), "lightning", "--resume it first"),
        (lambda run: None, "keras", "is a keras run already"),
        (lambda run: run.with_name("run-lightning").mkdir(), "lightning", "exists: name another place"),
        (lambda run: (run / "predictions.npz").write_bytes(b"PK"), "lightning", "predictions.npz: cannot"),
    ],
)
def test_what_cannot_be_converted_is_refused(
    keras_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch, spoil, to: str, said: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(keras_run.directory, run)
    spoil(run)
    monkeypatch.setattr(conversion, "command", lambda *_: None)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SystemExit) as refused:
        main([str(run), "--to", to])
    assert refused.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") <= 2
    assert sorted(tmp_path.iterdir()) == before


def test_stock_augmentation_cannot_become_keras(
    keras_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = Run(tmp_path / "run")
    shutil.copytree(keras_run.directory, run.directory)
    run.write_json("environment.json", {**run.read_json("environment.json"), "framework": "lightning"})
    path = run.directory / "config.yaml"
    values = yaml.safe_load(path.read_text())
    values["augment"]["kind"] = "torchvision"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(SystemExit):
        main([str(run.directory), "--to", "keras"])
    assert "torchvision" in capsys.readouterr().err


@pytest.mark.slow
def test_truncated_checkpoint_is_refused(
    keras_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = Run(tmp_path / "run")
    shutil.copytree(keras_run.directory, run.directory)
    path = run.checkpoints / "last.keras"
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(SystemExit) as refused:
        main([str(run.directory), "--to", "lightning"])
    assert refused.value.code == 2
    assert "last.keras: cannot be read" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def turn_kernel(found: dict[str, np.ndarray]) -> None:
    found["weights/conv2/kernel"] = found["weights/conv2/kernel"].swapaxes(0, 1)


def swap_statistics(found: dict[str, np.ndarray]) -> None:
    mean, variance = "weights/bn1/moving_mean", "weights/bn1/moving_variance"
    found[mean], found[variance] = found[variance], found[mean]


@pytest.mark.slow
@pytest.mark.parametrize("fault", [turn_kernel, swap_statistics])
def test_a_wrong_array_is_caught(
    keras_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch, fault
) -> None:
    honest = conversion.command

    def faulty(side: str, action: str, run: Run, folder: Path) -> None:
        honest(side, action, run, folder)
        if action == "export":
            found = dict(np.load(folder / "best.npz"))
            fault(found)
            np.savez(folder / "best.npz", **found)

    monkeypatch.setattr(conversion, "command", faulty)
    assert main([str(keras_run.directory), "--to", "lightning", "--out", str(tmp_path / "made")]) == 1
    assert "does not predict what the old one did" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("side", ["keras", "lightning"])
@pytest.mark.parametrize("options", [SMALL, VGG16], ids=["cnn", "vgg16"])
def test_training_goes_on_the_same(tmp_path: Path, side: str, options: tuple[str, ...]) -> None:
    run = Run(tmp_path / "run")
    more = ("--gpus=0", f"--data.cache={tmp_path}/cache", "--training.epochs=2", f"--run.dir={run.directory}")
    run_command(f"{side}_impl.train", *IDENTITY, *options, *EVENTS, *more)
    made = convert(run, OTHER[side])
    assert largest_difference(run, made) <= 1e-12
    for one, its in ((run, side), (made, OTHER[side])):
        run_command(f"{its}_impl.train", f"--resume={one.directory}", "--training.epochs=9")
        run_command(f"{its}_impl.convert.command", "export", str(one.directory), f"{one.directory}/weights")
    checks = compare_runs(run, made)
    assert all(check.passed for check in checks), table(checks)
    rates = [row["learning_rate"] for row in made.history()]
    assert rates == [3e-4] * 3 + [3e-4 * 0.8] * 2, "the plateau and the early stopping were to act"
    assert made.read_json("metrics.json")["weights_of_epoch"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("--backend=torch",),
        ("--backend=jax", "--training.precision=float64"),
        ("--backend=tensorflow", "--training.precision=bfloat16"),
    ],
    ids="-".join,
)
def test_every_backend_and_precision_converts(tmp_path: Path, options: tuple[str, ...]) -> None:
    more = [*options, "--training.epochs=2", "--gpus=0", f"--run.dir={tmp_path / 'run'}"]
    run_command("keras_impl.train", *SMALL, *more)
    there = convert(Run(tmp_path / "run"), "lightning")
    back = convert(there, "keras")
    before, after = (arrays(run.checkpoints / "resume.keras") for run in (Run(tmp_path / "run"), back))
    for key, array in before.items():
        if "seed_generator" not in key:
            np.testing.assert_array_equal(array, after[key], err_msg=key)
    run_command("lightning_impl.train", f"--resume={there.directory}", "--training.epochs=3")
    assert len(there.history()) == 3
