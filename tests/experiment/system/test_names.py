"""Names that can be written, printed and drawn."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from experiment.config import Experiment
from experiment.evaluation import figures
from experiment.system.names import command_line, printable, spelling
from experiment.tracking import mlflow


def test_a_name_can_be_written_anywhere() -> None:
    plain = ["$5 \\frac{", "🦊 R&D <b>", "שלום", "café", "日本語"]
    assert [printable(name) for name in plain] == plain
    hidden = [os.fsdecode(b"caf\xe9"), "a\nb", "\x1b[31m", "a\u2028b", "\ud800", "a\x85"]
    shown = ["caf\\xe9", "a\\nb", "\\x1b[31m", "a\\u2028b", "\\ud800", "a\\x85"]
    assert [printable(name) for name in hidden] == shown


def test_a_command_can_be_written_as_well() -> None:
    assert command_line(["predict", os.fsdecode(b"caf\xe9 1"), "a\nb"]) == r"predict 'caf\xe9 1' 'a\nb'"


def test_one_name_is_spelt_in_one_way() -> None:
    assert spelling("cafe\u0301") == spelling("caf\u00e9") == "caf\u00e9"
    assert spelling("A") != spelling("a")


def test_a_run_may_lie_where_the_name_is_no_utf_8(tmp_path: Path) -> None:
    name = os.fsdecode(b"run\xe9")
    figures.confusion(tmp_path / "m.png", np.eye(2, dtype=int), ["a", "b"], name)
    history = {key: [1.0, 2.0] for key in ("epoch", "loss", "accuracy", "val_loss", "val_accuracy")}
    figures.side_by_side(tmp_path / "s.png", {name: history}, name)
    settings = mlflow.settings(Experiment.model_validate({"data": {"root": "a\nb"}}))
    assert settings["data.root"] == "a\\nb"
