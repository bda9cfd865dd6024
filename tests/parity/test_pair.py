"""What two traces say of where a layer's inputs come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiment.config import Experiment
from parity.ladder.rungs import structure
from parity.traces.pair import Pair


def trace(folder: Path, inputs: dict[str, list[str]]) -> Path:
    """A trace of dense layers of one shape, and of weightless ones whose name begins with `act`."""
    layers: list[dict[str, Any]] = [
        {
            "name": name,
            "kind": "relu" if name.startswith("act") else "Dense",
            "shape": [4],
            "settings": {},
            "inputs": sources,
            "weights": {} if name.startswith("act") else {"kernel": [4, 4]},
            "trainable": True,
        }
        for name, sources in inputs.items()
    ]
    folder.mkdir()
    parameters = {"total": 48, "trainable": 48, "non_trainable": 0}
    (folder / "structure.json").write_text(
        json.dumps({"layers": layers, "parameters": parameters, "unused": []})
    )
    np.savez(folder / "arrays.npz", nothing=np.zeros(1))
    return folder


CHAIN = {"a": [""], "act": ["a"], "b": ["act"], "c": ["b"]}


@pytest.mark.parametrize(
    ("torch", "said"),
    [
        (CHAIN, {}),
        (
            {"a": [""], "b": ["a"], "c": ["b"]},
            {},
        ),  # no activation there: what has no counterpart is passed over
        ({**CHAIN, "c": ["act"]}, {"c": "takes its input from act for Keras's b"}),
        ({**CHAIN, "c": [""]}, {}),  # x + y left no trace: nothing is known
    ],
    ids=["the same", "without an activation", "another layer", "not known"],
)
def test_another_input_is_told(tmp_path: Path, torch: dict[str, list[str]], said: dict[str, str]) -> None:
    keras = trace(tmp_path / "keras", CHAIN)
    pair = Pair.of(keras, trace(tmp_path / "torch", torch), Experiment())
    assert {check.quantity: check.where for check in structure(pair) if not check.passed} == said
