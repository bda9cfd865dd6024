"""Layers that draw in training, on both sides and on one."""

from __future__ import annotations

from pathlib import Path

from parity.diagnosis import random_layers
from parity.diagnosis.diagnose import diagnose
from parity.ladder import rungs
from tests.parity.diagnosis.traced import layer, pair

HALF = {"settings": {"rate": 0.5}}


def test_a_layer_that_draws_on_one_side_alone_fails(tmp_path: Path) -> None:
    layers = [layer("flip", "RandomFlip"), layer("drop", "Dropout", **HALF)]
    both = pair(
        tmp_path, layers, {}, {}, [layer("drop", "Dropout", **HALF), layer("path", "DropPath", **HALF)]
    )
    assert [(side, one["name"]) for side, one in random_layers.alone(both)] == [
        ("Keras", "flip"),
        ("torch", "path"),
    ]
    check = rungs.forward(both)[-1]
    assert not check.passed
    diagnosis = diagnose("forward", [check], both)
    assert diagnosis is not None
    assert diagnosis.cause == check.where
    assert check.where == "RandomFlip stands on Keras's side alone; DropPath stands on torch's side alone"


def test_what_both_sides_have_is_told(tmp_path: Path) -> None:
    layers = [layer("drop", "Dropout", **HALF)]
    both = pair(tmp_path, layers, {}, {}, [layer("0", "Dropout", **HALF)])  # not matched, of one kind
    assert random_layers.alone(both) == []
    assert "Dropout act" in random_layers.notes(both)[0]


def test_what_draws_nothing_is_none(tmp_path: Path) -> None:
    never = layer("drop", "Dropout", settings={"rate": 0.0})
    assert random_layers.alone(pair(tmp_path, [never, layer("resize", "Resizing")], {}, {}, [])) == []
