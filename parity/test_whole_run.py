"""Both sides train the same numbers, through the real commands; and a run that is not aligned is caught."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiment.run import Run
from parity.whole_run import compare, table, train, train_both

DIGITS = ("--data.name=digits", "--augment.horizontal_flip=false")
# Both callbacks act and the loss carries every term. No epoch improves by min_delta, so that training
# stops after 23. The learning rate is low because two correct runs part exponentially: from 1e-14 at the
# first step, at 1e-3 and with batches of 24, to 1e-9 after some 100 steps.
EVENTS = (
    "--training.epochs=30",
    "--training.batch_size=48",
    "--training.learning_rate=3e-4",
    "--training.plateau.patience=2",
    "--training.plateau.factor=0.8",
    "--training.plateau.min_learning_rate=1e-4",
    "--training.early_stopping.patience=22",
    "--training.early_stopping.min_delta=9",
    "--training.early_stopping.restore_best_weights=false",
    "--training.l2=1e-4",
    "--training.label_smoothing=0.1",
    "--training.class_weights=balanced",
)
SMALL = ("--model.filters=[8,16]", "--model.dense_units=32", "--data.limit=700")


@pytest.fixture(scope="module")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    return train_both(tmp_path_factory.mktemp("cnn"), [*DIGITS, *SMALL, *EVENTS])


def test_cnn_trains_the_same(cnn: dict[str, Run]) -> None:
    differences = compare(cnn["keras"], cnn["lightning"])
    assert all(d.passed for d in differences), table(differences)
    rows = cnn["keras"].history()
    steps = len((cnn["keras"].directory / "steps.csv").read_text().splitlines()) - 1
    assert steps >= 300
    assert len({row["learning_rate"] for row in rows}) >= 2, "the plateau was to act"
    assert len(rows) == 23, "early stopping was to act"


def test_vgg16_head_trains_the_same(tmp_path: Path) -> None:
    runs = train_both(
        tmp_path,
        [
            "--data.name=digits",
            "--data.limit=60",
            f"--data.cache={tmp_path}",
            "--model.name=vgg16",
            "--model.weights=random",
            "--augment.kind=none",
            "--training.epochs=20",
            "--training.batch_size=12",
        ],
    )
    differences = compare(runs["keras"], runs["lightning"])
    assert all(d.passed for d in differences), table(differences)


@pytest.mark.parametrize(
    "fault",
    [
        "--training.dropout_masks=own",
        "--augment.zoom=0.2001",
        "--training.l2=0.000101",
        "--training.plateau.patience=3",
    ],
)
def test_a_difference_is_caught(cnn: dict[str, Run], tmp_path: Path, fault: str) -> None:
    faulty = train("lightning", tmp_path / "run", [*DIGITS, *SMALL, *EVENTS, fault])
    failed = {d.quantity for d in compare(cnn["keras"], faulty) if not d.passed}
    assert {"step loss", "predictions"} <= failed
