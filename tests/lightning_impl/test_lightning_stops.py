"""Signals, full disks and deaths in the middle of a write."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from small_runs import rows
from stopped_runs import TINY, assert_stopped_resumably, exit_code_of, full_disk_after, half_and_dead, stopped

from experiment.config import Experiment
from experiment.runs.record import Run
from lightning_impl.fit import build_trainer
from lightning_impl.train import main


def test_sigterm_ends_training_after_the_step_in_hand(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    assert_stopped_resumably(run, *stopped("lightning_impl", run.directory, signal.SIGTERM))
    epochs = len(run.history())
    assert torch.load(run.checkpoints / "last.ckpt", weights_only=True)["epoch"] + 1 == epochs
    assert main([f"--resume={run.directory}", f"--training.epochs={epochs + 1}"]) == 0
    assert len(run.history()) == epochs + 1


@pytest.mark.slow
def test_slurm_requeues_nothing_on_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SLURM_NTASKS": "1", "SLURM_JOB_ID": "7", "SLURM_PROCID": "0"}.items():
        monkeypatch.setenv(name, value)
    run = Run(tmp_path / "run")
    code, said = stopped("lightning_impl", run.directory, signal.SIGUSR1)
    assert code == 128 + signal.SIGUSR1
    assert f"go on with: --resume {run.directory}" in said
    assert not list(Path().glob("hpc_ckpt*"))


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
    assert sorted(os.listdir(run.checkpoints)) == ["best.ckpt", "last.ckpt"]
    assert torch.load(run.checkpoints / "last.ckpt", weights_only=True)["epoch"] == 0
    assert main([f"--resume={run.directory}"]) == 0
    assert rows(run) == rows(Run(tmp_path / "whole"))


def test_a_writer_that_dies_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Lightning writes in TMPDIR, and copies where that is another file system.
    writer = build_trainer(Experiment(), []).strategy.checkpoint_io
    path = tmp_path / "last.ckpt"
    path.write_text("old")

    def elsewhere(source: str, target: str) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "rename", elsewhere)
    monkeypatch.setattr(shutil, "copyfile", lambda source, target, **options: half_and_dead(target))
    monkeypatch.setattr(torch, "save", lambda values, file: file.write(b"new"))
    assert exit_code_of(lambda: writer.save_checkpoint({}, path)) == 0
    assert path.read_bytes() == b"new"
    monkeypatch.setattr(torch, "save", lambda values, file: half_and_dead(file.name))
    assert exit_code_of(lambda: writer.save_checkpoint({}, path)) == 9
    assert path.read_bytes() == b"new"
