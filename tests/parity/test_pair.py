"""What two traces say of where a layer's inputs come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiment.config import Experiment
from parity.ladder.rungs import structure
from parity.traces.calls import in_keras_order
from parity.traces.pair import Pair, Trace

KINDS = {"act": "relu", "cat": "Concatenate"}


def trace(folder: Path, inputs: dict[str, list[str]]) -> Path:
    """A trace of dense layers of one shape, and of weightless ones whose name begins as in KINDS."""
    layers: list[dict[str, Any]] = [
        {
            "name": name,
            "kind": KINDS.get(name[:3], "Dense"),
            "shape": [4],
            "settings": {},
            "inputs": sources,
            "weights": {} if name[:3] in KINDS else {"kernel": [4, 4]},
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


@pytest.mark.parametrize(("parts", "failed"), [(["a", "b", "c"], 0), (["a", "c"], 1)])
def test_a_concatenation_may_be_made_of_others(tmp_path: Path, parts: list[str], failed: int) -> None:
    block = {"a": [""], "act": ["a"], "b": ["act"], "cat": ["a", "b"], "c": ["cat"]}
    keras = trace(tmp_path / "keras", {**block, "cat2": ["cat", "c"], "d": ["cat2"]})
    torch = trace(tmp_path / "torch", {**block, "cat2": parts, "d": ["cat2"]})
    wrong = [check.where for check in structure(Pair.of(keras, torch, Experiment())) if not check.passed]
    assert len(wrong) == failed, wrong


@pytest.mark.parametrize(
    ("kind", "shape", "failed"), [("Flatten", [4], 0), ("Flatten", [2, 2], 1), ("Permute", [4], 1)]
)
def test_a_reshape_may_flatten(tmp_path: Path, kind: str, shape: list[int], failed: int) -> None:
    folders = [trace(tmp_path / side, {"one": [""], "flat": ["one"]}) for side in ("keras", "torch")]
    for folder, (its, sizes) in zip(folders, [("Reshape", [4]), (kind, shape)], strict=True):
        facts = json.loads((folder / "structure.json").read_text())
        facts["layers"][1].update(kind=its, shape=sizes, weights={})
        (folder / "structure.json").write_text(json.dumps(facts))
    pair = Pair.of(folders[0], folders[1], Experiment(), {"flat": "flat"})
    assert sum(not check.passed for check in structure(pair)) == failed


def shared(folder: Path, later: str, **given: np.ndarray) -> Trace:
    """A trace of one layer that is called twice, `later` taking the second call's output."""
    kept = trace(folder, {"a": [""], "a@2": [""], later: ["a@2"]})
    np.savez(kept / "arrays.npz", **{f"eval/{name}": array for name, array in given.items()})  # type: ignore[arg-type]
    return Trace(kept)


ONES, TWOS = np.ones((2, 4)), 2 * np.ones((2, 4))


def test_calls_of_a_shared_layer_in_another_order_are_told_apart_by_what_they_give(tmp_path: Path) -> None:
    keras = shared(tmp_path / "keras", "b", a=ONES, **{"a@2": TWOS})
    torch = shared(tmp_path / "torch", "b", a=TWOS * (1 + 1e-9), **{"a@2": ONES})
    order = in_keras_order(keras, torch, {"a": "a"})
    assert order == {"a": "a@2", "a@2": "a"}
    torch.renumber(order)
    np.testing.assert_allclose(torch["eval/a"], ONES)
    np.testing.assert_allclose(torch["eval/a@2"], TWOS)
    assert torch.layer("b")["inputs"] == ["a"]


@pytest.mark.parametrize(
    ("first", "second"),
    [(ONES, TWOS), (TWOS, TWOS), (3 * ONES, ONES)],
    ids=["in order", "no two alike", "one of its own"],
)
def test_calls_keep_their_order_where_no_other_is_better(
    tmp_path: Path, first: np.ndarray, second: np.ndarray
) -> None:
    keras = shared(tmp_path / "keras", "b", a=ONES, **{"a@2": TWOS})
    torch = shared(tmp_path / "torch", "b", a=first, **{"a@2": second})
    assert in_keras_order(keras, torch, {"a": "a"}) == {}
