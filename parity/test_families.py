"""A pair for each family of layers, inputs and outputs, traced by the two trace commands and compared."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiment import cli
from experiment.system import processes
from parity.checks import Check
from parity.ladder.rungs import RUNGS, USERS
from parity.traces.pair import Pair

TESTS = Path(__file__).parents[1] / "tests"
STEPS = 2
POWER = ("keras_power", "torch_power")
# Of each pair the shape of its inputs; of those that differ, the first rung that fails, and where.
SHAPES: dict[str, list[tuple[int, ...]]] = {
    "conv1d": [(20, 6)],
    "conv3d": [(6, 8, 8, 2)],
    "transposed": [(5, 5, 3)],
    "transposed1d": [(7, 3)],
    "separable": [(12, 4)],
    "einsum": [(6, 8)],
    "norms": [(6, 6, 8)],
    "frozen": [(6, 6, 3)],
    "adapted": [(5,)],
    "preprocessed": [(8, 8, 3)],
    "recurrent": [(7, 5)],
    "reset_before": [(7, 5)],
    "bidirectional": [(7, 5)],
    "cells": [(7, 5)],
    "stacked": [(7, 5)],
    "time_distributed": [(4, 6, 6, 2)],
    "attention": [(6, 8)],
    "vision_transformer": [(8, 8, 3)],
    "shapes": [(6, 6, 4)],
    "merges": [(6,)],
    "operations": [(5, 5, 3)],
    "activations": [(6,)],
    "random": [(8, 8, 3)],
    "block": [(6, 6, 4)],
    "functions": [(8, 8, 3)],
    "subclasses": [(8, 8, 3)],
    "unbuilt": [(8, 8, 3)],
    "plain_adamw": [(6,)],
    "plain_sgd": [(6,)],
    "plain_rmsprop": [(6,)],
    "normed_weights": [(6, 6, 3)],
    "pixelwise": [(6, 6, 3)],
    "repeated_names": [(10, 10, 3)],
    "several": [(5,), (6, 6, 2)],
    "multi_label": [(6,)],
    "segmentation": [(6, 6, 2)],
    "kept_in_float32": [(6,)],
    "compiled": [(6,)],
    "by_rule": [(6,)],
    "without_rule": [(6,)],
}
OPTIONS: dict[str, dict[str, Any]] = {
    "compiled": {"loss_name": "compiled"},
    "by_rule": {"rules": [f"Power=pairs.family_rules:{rule}" for rule in POWER]},
    "vision_transformer": {
        "rules": ["ClassToken=pairs.family_rules:token", "Positions=pairs.family_rules:positions"]
    },
}
DIFFERENT = {
    "reset_before": ("structure", "reset_after True for Keras's False"),
    "normed_weights": ("one step", ""),
}
NOTED = {
    "recurrent": "torch's cells.2 has two biases: their sum is compared",
    "plain_adamw": "torch's module configures no optimizer: it was trained by Keras's AdamW",
    "normed_weights": "torch computes the kernel of 0 from other parameters",
    "several": "in training torch's model gives 3 outputs: compared on the first 2",
    "kept_in_float32": "computes in float32 by .float()",
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both sides' traces of every pair, in a folder of its name."""
    out = tmp_path_factory.mktemp("families")
    requests = []
    for name, shapes in SHAPES.items():
        random = np.random.default_rng(1)
        inputs = {f"input_{i}": random.uniform(size=(8 * STEPS, *shape)) for i, shape in enumerate(shapes)}
        (out / name).mkdir()
        np.savez(out / name / "inputs.npz", **inputs)  # type: ignore[arg-type]
        options = {"inputs_file": str(out / name / "inputs.npz"), "drawn": True, "steps": STEPS}
        modules = {"keras": "pairs.families_keras", "torch": "pairs.families_torch"}
        options |= OPTIONS.get(name, {})
        requests.append({"name": name, **modules, "folder": str(out / name), "options": options})
    (out / "requests.json").write_text(json.dumps(requests))
    for side in ("keras", "torch"):
        environment = processes.environment("cpu", "tensorflow")
        environment["PYTHONPATH"] += f":{TESTS}"
        command = [sys.executable, "-m", "pairs.trace_pairs", side, str(out / "requests.json")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    return out


def pair_of(folder: Path) -> Pair:
    refused = [file.read_text() for file in folder.glob("*/refused.txt")]
    assert refused == []
    experiment = cli.experiment_from({"training": {"precision": "float64"}})
    return Pair.of(folder / "keras", folder / "torch", experiment)


def failures(pair: Pair) -> dict[str, list[Check]]:
    checks = {rung: [check for check in RUNGS[rung](pair) if not check.passed] for rung in USERS}
    return {rung: failed for rung, failed in checks.items() if failed}


@pytest.mark.parametrize("name", [name for name in SHAPES if name != "without_rule"])
def test_a_family_is_the_same_on_both_sides(folder: Path, name: str) -> None:
    pair = pair_of(folder / name)
    weighted = [layer["name"] for layer in pair.keras.layers if layer["weights"]]
    assert weighted
    assert set(weighted) <= set(pair.matching.weighted.values())
    failed = failures(pair)
    if name in DIFFERENT:
        rung, where = DIFFERENT[name]
        assert next(iter(failed)) == rung
        assert any(where in check.where for check in failed[rung])
    else:
        assert failed == {}


@pytest.mark.parametrize("name", NOTED)
def test_what_a_reader_must_know_is_noted(folder: Path, name: str) -> None:
    assert any(NOTED[name] in note for note in pair_of(folder / name).notes)


def test_layers_without_a_rule_are_named_together(folder: Path) -> None:
    refused = (folder / "without_rule" / "torch" / "refused.txt").read_text()
    assert refused.splitlines() == [
        "no rule says how to compare the weights of",
        "  Keras's power, Power (exponent 6)",
        "  torch's 0, Power (exponent 1x6)",
        "Write one for each: --layer Power=package.module:rule (see --help).",
    ]


def changed_trace(change: Callable[[np.ndarray], np.ndarray], file: Path, key: str) -> None:
    with np.load(file) as loaded:
        arrays = dict(loaded)
    np.savez(file, **{**arrays, key: change(arrays[key])})


@pytest.mark.parametrize(
    ("name", "key", "rung"),
    [
        ("conv1d", "eval/1", "forward"),
        ("recurrent", "gradient/cells.0/recurrent_kernel", "loss and gradients"),
        ("several", "outputs/1", "forward"),
    ],
)
def test_another_number_is_found(folder: Path, tmp_path: Path, name: str, key: str, rung: str) -> None:
    for side in ("keras", "torch"):
        (tmp_path / side).mkdir()
        for file in (folder / name / side).iterdir():
            (tmp_path / side / file.name).write_bytes(file.read_bytes())
    changed_trace(lambda array: array + 1e-6, tmp_path / "torch" / "arrays.npz", key)
    assert list(failures(pair_of(tmp_path))) == [rung]
