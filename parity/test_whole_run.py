"""Both sides train the same numbers, through the real commands; and a run that is not aligned is caught."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiment.backbones import BACKBONES
from experiment.data.pretrained import base_weights
from experiment.optimizers import OPTIMIZERS, Name
from experiment.runs.record import HISTORY, Run, step_losses
from parity.checks import compare, table
from parity.ladder import whole_run
from parity.ladder.pairs import weights
from parity.ladder.whole_run import CNN, HEAD, compare_runs, diagnose, train, train_both

# As the ladder's own run of the CNN, of half the images, and stopped after eight epochs.
QUICK = (*CNN, "--data.limit=370", "--training.early_stopping.patience=7")


@pytest.fixture(scope="module")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    return train_both(tmp_path_factory.mktemp("cnn"), QUICK)


def test_cnn_trains_the_same(cnn: dict[str, Run]) -> None:
    checks = compare_runs(cnn["keras"], cnn["lightning"])
    assert all(check.passed for check in checks), table(checks)
    assert {"weights", "statistics", "momentums", "velocities"} <= {check.quantity for check in checks}
    rows = cnn["keras"].history()
    assert len(step_losses(cnn["keras"])) == 8 * 7, "6 full batches and a partial one"
    assert len({row["learning_rate"] for row in rows}) >= 2, "the plateau was to act"
    assert len(rows) == 8, "early stopping was to act"


@pytest.mark.slow
def test_cnn_trains_the_same_for_hundreds_of_steps(tmp_path: Path) -> None:
    runs = train_both(tmp_path, CNN)
    checks = compare_runs(runs["keras"], runs["lightning"])
    assert all(check.passed for check in checks), table(checks)
    assert len(step_losses(runs["keras"])) == 23 * 14


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(OPTIMIZERS.keys() - {"adam"}))
def test_every_optimizer_trains_the_same(name: Name, tmp_path: Path) -> None:
    runs = train_both(tmp_path, whole_run.OPTIMIZERS[name])
    checks = compare_runs(runs["keras"], runs["lightning"])
    assert all(check.passed for check in checks), table(checks)
    assert ("velocities" in {check.quantity for check in checks}) == (name != "sgd")
    assert "momentums" in {check.quantity for check in checks}
    assert len(step_losses(runs["keras"])) == 10 * 14
    assert len({row["learning_rate"] for row in runs["keras"].history()}) >= 4, "the plateau was to act"
    losses = step_losses(runs["keras"])
    fault = {"adamw": "adamw_coupled", "sgd": "sgd_velocity"}[name]
    faulty = train("lightning", tmp_path / "run", whole_run.OPTIMIZERS[name], mutation=fault, weights=False)
    assert np.abs(step_losses(faulty) - losses).max() > 1e-6
    assert losses[-14:].mean() < losses[:14].mean() - 0.2, "it was to learn"


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_the_head_of_a_base_trains_the_same(tmp_path: Path, name: str) -> None:
    base = (f"--model.name={name}", f"--model.weights={weights(name, tmp_path)}")
    runs = train_both(tmp_path, [*base, *HEAD, f"--data.cache={tmp_path}"])
    checks = compare_runs(runs["keras"], runs["lightning"])
    assert all(check.passed for check in checks), table(checks)
    assert len(step_losses(runs["keras"])) >= 300


@pytest.mark.slow
def test_a_fine_tuned_base_trains_the_same_and_its_frozen_blocks_stay(tmp_path: Path) -> None:
    file = weights("mobilenet_v2", tmp_path)
    base = ("--model.name=mobilenet_v2", f"--model.weights={file}", "--model.fine_tune_blocks=1")
    small = ("--data.name=digits", "--data.limit=60", "--training.epochs=2", "--training.batch_size=12")
    runs = train_both(tmp_path, [*base, *small, "--training.l2=1e-4", f"--data.cache={tmp_path}"])
    checks = compare_runs(runs["keras"], runs["lightning"])
    assert all(check.passed for check in checks), table(checks)
    assert {"weights", "statistics", "momentums", "velocities"} <= {check.quantity for check in checks}
    given, trained = base_weights("mobilenet_v2", file, "nowhere"), BACKBONES["mobilenet_v2"].trained(1)
    for run in runs.values():
        with np.load(run.directory / "weights" / "last.npz") as last:
            for name in (name for name in given if name.endswith("BN")):
                same = np.array_equal(last[f"weights/{name}/moving_variance"], given[name][3].astype(float))
                assert same == (name not in trained), name


@pytest.mark.slow
def test_brightness_trains_the_same(tmp_path: Path) -> None:
    runs = train_both(tmp_path, [*CNN, "--augment.brightness=[0.6,1.4]", "--training.epochs=8"])
    checks = compare_runs(runs["keras"], runs["lightning"])
    assert all(check.passed for check in checks), table(checks)
    assert len(step_losses(runs["keras"])) == 8 * 14


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", ["--training.dropout_masks=own", "--augment.zoom=0.2001", "--training.l2=0.000101"]
)
def test_a_difference_is_caught(cnn: dict[str, Run], tmp_path: Path, fault: str) -> None:
    faulty = train("lightning", tmp_path / "run", [*QUICK, fault])
    failed = {check.quantity for check in compare_runs(cnn["keras"], faulty) if not check.passed}
    assert {"step loss", "predictions", "weights"} <= failed


@pytest.mark.parametrize(
    ("apart", "cause"),
    [
        (1e-14 * np.exp(np.arange(300) / 14), "rounding that training enlarged"),
        (np.where(np.arange(300) < 200, 1e-13, 1e-6), "a step that is taken otherwise"),
        (np.full(300, 1e-6), "a step that is taken otherwise"),
        (np.where(np.arange(300) < 200, 1e-13, np.nan), "a step that is taken otherwise"),
    ],
    ids=["growth", "jump", "from the start", "not a number"],
)
def test_growth_is_told_from_a_fault(tmp_path: Path, apart: np.ndarray, cause: str) -> None:
    records = {}
    for side, values in {"keras": np.full(300, 2.0), "lightning": 2 + apart}.items():
        records[side] = Run(tmp_path / side)
        records[side].directory.mkdir()
        rows = "".join(f"1,{step},{loss!r}\n" for step, loss in enumerate(values.tolist()))
        (tmp_path / side / "steps.csv").write_text(f"epoch,step,loss\n{rows}")
        (tmp_path / side / "history.csv").write_text(f"{','.join(HISTORY)}\n{'1,' * (len(HISTORY) - 1)}1\n")
    losses = [step_losses(run) for run in records.values()]
    checks = [compare("step loss", losses[0], losses[1], 1e-9)]
    found = diagnose(checks, records)
    assert found is not None
    assert cause in found["cause"]
