"""What the ablation makes of runs that part, and that its table cannot be empty of findings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from experiment.runs.record import Run
from parity.__main__ import main
from parity.studies import ablation

# The loss of every step where an alignment is off; all others train as Keras does.
LOSSES = {
    "": [2.0, 1.5, 1.0, 0.5],
    "adam_stock": [2.0, 1.5 + 2e-6, 1.0 - 1e-3, 0.7],
    "plateau": [2.0, 1.5, 1.0],
}
ALL = ablation.DEFAULTS[-1][2]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[float]]:
    """Stands in for the two `train` commands; the losses may be changed."""
    losses = {**LOSSES, ALL: [2.0, 1.9, 1.8, 1.7]}

    def train(directory: Path, side: str, mutations: str = "", options: Sequence[str] = ()) -> Run:
        directory.mkdir(parents=True)
        rows = "".join(f"1,{i},{loss!r}\n" for i, loss in enumerate(losses.get(mutations, losses[""])))
        (directory / "steps.csv").write_text(f"epoch,step,loss\n{rows}")
        return Run(directory)

    def accuracy(directory: Path, side: str, seed: int, mutations: str = "", options=()) -> float:
        return 0.9 - 0.1 * bool(mutations) + seed / 1000

    monkeypatch.setattr(ablation, "_identity", train)
    monkeypatch.setattr(ablation, "_accuracy", accuracy)
    return losses


def test_a_row_says_when_runs_part_and_by_how_much(trained: dict, tmp_path: Path) -> None:
    assert main(["ablation", "--seeds", "3", "--out", str(tmp_path)]) == 0
    rows = {row["name"]: row for row in json.loads((tmp_path / "ablation.json").read_text())["rows"]}
    assert len(rows) == len(ablation.DEFAULTS)
    assert rows["all aligned"]["first_step"] is None
    assert rows["all aligned"]["mean_difference"] == 0
    adam = rows["Adam"]
    assert adam["first_step"] == 2
    assert adam["loss_difference"] == pytest.approx(0.2)
    assert adam["final_loss"] == 0.7
    np.testing.assert_allclose(adam["accuracies"], [0.801, 0.802, 0.803])
    assert adam["mean_difference"] == pytest.approx(-0.1)
    assert rows["plateau"]["first_step"] == 4, "a run that ends sooner parts where it ends"


def test_it_fails_where_aligned_runs_part(trained: dict, tmp_path: Path) -> None:
    trained[""] = [2.0, 1.5, 1.0, 0.5]
    trained[ALL] = LOSSES[""]
    assert main(["ablation", "--seeds", "0", "--out", str(tmp_path)]) == 1
