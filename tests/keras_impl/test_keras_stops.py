"""Signals, full disks and deaths in the middle of a write."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_runs import rows
from stopped_runs import TINY, assert_stopped_resumably, exit_code_of, full_disk_after, half_and_dead, stopped

from experiment.runs.record import Run
from keras_impl.callbacks import SaveCheckpoints
from keras_impl.train import main


def test_sigterm_ends_training_after_the_step_in_hand(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    assert_stopped_resumably(run, *stopped("keras_impl", run.directory, signal.SIGTERM))
    epochs = len(run.history())
    assert main([f"--resume={run.directory}", f"--training.epochs={epochs + 1}"]) == 0
    assert len(run.history()) == epochs + 1


def test_a_full_disk_keeps_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [*TINY, "--training.epochs=3"]
    assert main([*argv, f"--run.dir={tmp_path / 'whole'}"]) == 0
    run = Run(tmp_path / "cut")
    capsys.readouterr()
    with full_disk_after(2, monkeypatch):
        assert main([*argv, f"--run.dir={run.directory}"]) == 1
    error, way_out = capsys.readouterr().err.splitlines()
    assert error.startswith(f"error: {run.checkpoints}/")
    assert "cannot be written (File too large)" in error
    assert way_out == f"go on with: --resume {run.directory}"
    assert sorted(os.listdir(run.checkpoints)) == [
        "best.keras",
        "last.keras",
        "resume-best.keras",
        "resume.keras",
    ]
    assert main([f"--resume={run.directory}"]) == 0
    assert rows(run) == rows(Run(tmp_path / "whole"))


def test_a_writer_that_dies_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    names = ("best.keras", "last.keras", "resume.keras")
    for name in names:
        (tmp_path / name).write_text("old")
    recorder: Any = SimpleNamespace(run=SimpleNamespace(checkpoints=tmp_path), last_is_best=True)
    dying: Any = SimpleNamespace(save=half_and_dead)
    saving = SaveCheckpoints(recorder, SimpleNamespace(model=dying, trained=dying))  # type: ignore[arg-type]
    assert exit_code_of(lambda: saving.on_epoch_end(0)) == 9
    assert [(tmp_path / name).read_text() for name in names] == ["old"] * 3
