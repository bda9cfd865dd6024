"""Traces and pairs made of arrays, without any framework."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiment import cli
from parity.traces.matching import Matching
from parity.traces.pair import Pair, Trace


def layer(name: str, kind: str = "Dense", **facts: Any) -> dict[str, Any]:
    """A layer as structure.json has it."""
    own = {"shape": [2], "settings": {}, "inputs": [""], "weights": {}, "trainable": True, "flattened": False}
    return {"name": name, "kind": kind, **own, **facts}


def pair(
    folder: Path,
    layers: list[dict[str, Any]],
    keras: Mapping[str, Any],
    torch: Mapping[str, Any],
    torch_layers: list[dict[str, Any]] | None = None,
    structures: tuple[Mapping[str, Any], Mapping[str, Any]] = ({}, {}),
    foreign: bool = True,
) -> Pair:
    """A pair of these arrays, whose layers of the same names are matched."""
    sides = []
    torch_layers = layers if torch_layers is None else torch_layers
    for name, own, arrays, more in (
        ("keras", layers, keras, structures[0]),
        ("torch", torch_layers, torch, structures[1]),
    ):
        (folder / name).mkdir()
        structure = {"layers": own, "parameters": {}, "unused": [], **more}
        (folder / name / "structure.json").write_text(json.dumps(structure))
        np.savez(folder / name / "arrays.npz", **{key: np.asarray(value) for key, value in arrays.items()})  # type: ignore[arg-type]
        sides.append(Trace(folder / name))
    names = [[one["name"] for one in own] for own in (layers, torch_layers)]
    both = [name for name in names[1] if name in names[0]]
    weights = {one["name"]: bool(one["weights"]) for one in torch_layers}
    matching = Matching(
        {name: name for name in both if weights[name]},
        {name: name for name in both if not weights[name]},
        [name for name in names[0] if name not in both],
        [name for name in names[1] if name not in both],
    )
    experiment = cli.experiment_from({"training": {"precision": "float64"}})
    return Pair(sides[0], sides[1], matching, experiment, foreign)
