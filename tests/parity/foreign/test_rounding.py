"""Float32 against float64: a side that computes less exactly than the other is found, rounding is not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from experiment.config import Experiment
from parity.foreign import rounding
from parity.traces.matching import Matching
from parity.traces.pair import Pair, Trace

RANDOM = np.random.default_rng(0)
EXACT = {
    "eval/dense": RANDOM.normal(size=(8, 5)),
    "train/dense": RANDOM.normal(size=(8, 5)),
    "outputs": RANDOM.normal(size=(8, 5)),
    "loss": np.array(1.234567890123),
    "gradient/dense/kernel": RANDOM.normal(size=(4, 5)),
    "gradient/dense/bias": 1e-7
    * RANDOM.normal(size=5),  # cancels: its rounding is that of the kernel's terms
}
DENSE = {
    "name": "dense",
    "kind": "Dense",
    "inputs": [""],
    "weights": {"kernel": [4, 5], "bias": [5]},
    "shape": [5],
}


def trace(folder: Path, arrays: dict[str, np.ndarray]) -> Trace:
    folder.mkdir()
    structure = {"layers": [DENSE], "parameters": {}, "unused": []}
    (folder / "structure.json").write_text(json.dumps(structure))
    np.savez(folder / "arrays.npz", **arrays)  # type: ignore[arg-type]
    return Trace(folder)


def single(seed: int, noise: float = 0.0) -> dict[str, np.ndarray]:
    """The arrays in float32; noise: relative, of a kernel that rounds more."""
    random = np.random.default_rng(seed)
    scale = {name: np.abs(array).max() for name, array in EXACT.items()}
    scale["gradient/dense/bias"] = scale["gradient/dense/kernel"]
    return {
        name: (array + (noise + 6e-8) * scale[name] * random.normal(size=array.shape)).astype(np.float32)
        for name, array in EXACT.items()
    }


@pytest.fixture
def reference(tmp_path: Path) -> Pair:
    keras, torch = (trace(tmp_path / side, EXACT) for side in ("keras64", "torch64"))
    return Pair(keras, torch, Matching({"dense": "dense"}, {}), Experiment())


def test_rounding_of_either_side_passes(reference: Pair, tmp_path: Path) -> None:
    rungs = rounding.compare(
        reference, trace(tmp_path / "keras", single(1)), trace(tmp_path / "torch", single(2))
    )
    quantities = {check.quantity for checks in rungs.values() for check in checks}
    assert quantities == {
        "dense (eval)",
        "dense (train)",
        "the model's outputs",
        "loss",
        "dense/kernel",
        "dense/bias",
    }
    assert rounding.explain(rungs) is None


@pytest.mark.parametrize("coarse", ["keras", "torch"])
@pytest.mark.parametrize("bits", [8, 10], ids=["bfloat16", "TF32"])
def test_a_side_in_half_precision_is_found(reference: Pair, tmp_path: Path, coarse: str, bits: int) -> None:
    noise = {"keras": 0.0, "torch": 0.0, coarse: 2.0**-bits}
    traces = [trace(tmp_path / side, single(i, noise[side])) for i, side in enumerate(("keras", "torch"))]
    explained = rounding.explain(rounding.compare(reference, *traces))
    assert explained is not None
    rung, layer, cause = explained
    assert (rung, layer) == ("forward", "dense")
    assert "less exactly than float32" in cause.cause
