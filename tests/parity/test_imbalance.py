"""The report on a rare class says what the runs say, and fails where no remedy helps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from experiment.runs.record import Run
from parity.studies import imbalance

FACTS = {
    "data": {"training_images": {"cat": 225, "dog": 4500}},
    "cpu": "a CPU",
    "cores": 2,
    "git_revision": "abc",
    "utc": "2026-11-23",
}


def rows(*recalls: float) -> list[dict[str, Any]]:
    names = [(name, side) for name in imbalance.REMEDIES for side in imbalance.SIDES]
    return [
        dict(zip(imbalance.HEADS, (*name, recall, 0.5, 0.4, 0.6, 0.7), strict=True))
        for name, recall in zip(names, recalls, strict=True)
    ]


def test_a_remedy_must_help_on_both_sides() -> None:
    assert imbalance.helped(rows(0.1, 0.1, 0.3, 0.2, 0.4, 0.4))
    assert not imbalance.helped(rows(0.1, 0.1, 0.3, 0.1, 0.4, 0.4))
    assert not imbalance.helped(rows(0.1, 0.5, 0.3, 0.6, 0.4, 0.4))


def test_the_report_names_counts_and_scores(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write_json("environment.json", FACTS)
    path = imbalance.write(tmp_path, rows(0.1, 0.12, 0.3, 0.2, 0.4, 0.41), run, "cat", 0.05, "the command")
    text = path.read_text()
    assert "225 training images of cat, 4500 of the most frequent" in text
    assert "Both remedies raise" in text
    assert "| balanced sampling | lightning | 0.41 |" in text
    assert json.loads((tmp_path / "imbalance.json").read_text())["share"] == 0.05
    assert (tmp_path / "recall.png").stat().st_size > 10_000
    path = imbalance.write(tmp_path, rows(0.5, 0.12, 0.3, 0.2, 0.4, 0.41), run, "cat", 0.05, "the command")
    assert "do NOT both raise" in path.read_text()


def test_a_row_is_of_the_rare_class(tmp_path: Path) -> None:
    run = Run(tmp_path)
    scores = {"recall": 0.25, "precision": 0.5, "f1": 1 / 3, "support": 4}
    run.write_json(
        "metrics.json", {"per_class": {"cat": scores, "dog": {}}, "macro_f1": 0.6, "test_accuracy": 0.71}
    )
    row = imbalance.row_of("none", "keras", run, "cat")
    assert list(row.values()) == ["none", "keras", 0.25, 0.5, 0.3333, 0.6, 0.71]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--share=0"], "--share must lie in"),
        (["--training.epochs=0"], "training.epochs"),
        (["--data.nmae=digits"], "did you mean --data.name?"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture, options: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as refused:
        imbalance.main([*options, f"--out={tmp_path}"])
    assert refused.value.code == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_class_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as refused:
        imbalance.main(["--data.name=digits", "--gpus=0", f"--out={tmp_path}"])
    assert refused.value.code == 2
    assert "no class 'cat' in digits" in capsys.readouterr().err


@pytest.mark.slow
def test_both_sides_are_trained_and_compared(tmp_path: Path) -> None:
    options = ["--data.name=digits", "--gpus=0", "--model.filters=[8,16]", "--training.epochs=12"]
    options += ["--training.batch_size=16", "--augment.horizontal_flip=false"]
    assert imbalance.main(["--rare=8", "--share=0.05", f"--out={tmp_path}", *options]) == 0
    found = json.loads((tmp_path / "imbalance.json").read_text())
    assert len(found["rows"]) == 6
    assert found["facts"]["data"]["training_images"]["8"] < 10
