"""The report on an update says what the runs say, and fails where replay does not help."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from experiment.runs.record import Run
from parity.studies import update
from parity.studies.study import Row

FACTS = {"cpu": "a CPU", "cores": 2, "git_revision": "abc", "utc": "2026-11-23"}
STEPS = ("first classes", "update, no replay", "update, replay")


def rows(*old: float) -> list[Row]:
    names = [(step, side) for step in STEPS for side in update.SIDES]
    return [
        {
            "step": step,
            "side": side,
            "old classes": one,
            "new classes": 0.5,
            "both": 0.4,
            "training images": 9,
        }
        for (step, side), one in zip(names, old, strict=True)
    ]


def test_replay_must_help_on_both_sides() -> None:
    assert update.helped(rows(0.6, 0.6, 0.1, 0.1, 0.3, 0.2))
    assert not update.helped(rows(0.6, 0.6, 0.1, 0.2, 0.3, 0.2))


def test_the_report_names_classes_and_scores(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write_json("environment.json", FACTS)
    given = argparse.Namespace(first=2, replay=0.2)
    path = update.write(
        tmp_path, rows(0.6, 0.6, 0.1, 0.1, 0.3, 0.2), run, ["a", "b", "c"], given, "the command"
    )
    text = path.read_text()
    assert "Trained on a, b; then" in text
    assert "20% of the old training images keeps more" in text
    assert "| update, replay | lightning | 0.2 | 0.5 | 0.4 | 9 |" in text
    assert len(json.loads((tmp_path / "update.json").read_text())["rows"]) == 6
    assert (tmp_path / "accuracy.png").stat().st_size > 10_000


def test_a_row_is_of_old_and_new_test_images(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write_json("environment.json", {"data": {"training_images": {"a": 3, "b": 4}}})
    sets = {"old": {"accuracy": 0.25}, "new": {"accuracy": 0.75}}
    run.write_json("metrics.json", {"test_accuracy": 0.5, "test_sets": sets})
    assert list(update.row_of("one", "keras", run).values()) == ["one", "keras", 0.25, 0.75, 0.5, 7]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--replay=0"], "--replay must lie in"),
        (["--first=10", "--data.name=digits"], "there are 10 classes"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit, match="2"):
        update.main([*options, "--gpus=0", f"--out={tmp_path}"])
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_both_sides_keep_more_with_replay(tmp_path: Path) -> None:
    options = ["--data.name=digits", "--gpus=0", "--model.filters=[8,16]", "--training.epochs=12"]
    options += ["--training.batch_size=16", "--augment.horizontal_flip=false", "--epochs=6", "--replay=0.5"]
    assert update.main([f"--out={tmp_path}", *options]) == 0
    assert len(json.loads((tmp_path / "update.json").read_text())["rows"]) == 6
