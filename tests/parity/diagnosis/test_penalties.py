"""Penalties on the weights are read from the gradients of two losses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parity.diagnosis import penalties
from parity.ladder import rungs
from tests.parity.diagnosis.traced import layer, pair

RANDOM = np.random.default_rng(3)
KERNEL, BIAS = RANDOM.normal(size=(4, 3)), RANDOM.normal(size=3)
GRADIENT, BIAS_GRADIENT = RANDOM.normal(size=(4, 3)), RANDOM.normal(size=3)
LAYERS = [layer("dense", weights={"kernel": [4, 3], "bias": [3]})]


def optimizer(weight_decay: float = 0.0, decay: str = "coupled", bias: float | None = None) -> dict[str, Any]:
    settings = {"weight_decay": weight_decay, "decay": decay}
    overrides = {} if bias is None else {"dense/bias": {"weight_decay": bias}}
    return {"class": "Adam", "family": "Adam", "form": "torch", "settings": settings, "overrides": overrides}


def traced(
    folder: Path,
    keras: dict[str, float],
    torch: dict[str, float],
    own: dict[str, Any] | None = None,
    on_bias: float = 0.0,
) -> Any:
    """A pair whose losses hold penalties of these factors on the kernel; torch's has L2 on the bias, too."""

    def arrays(l1: float = 0.0, l2: float = 0.0, bias: float = 0.0) -> dict[str, Any]:
        penalty = l2 * np.square(KERNEL).sum() + l1 * np.abs(KERNEL).sum() + bias * np.square(BIAS).sum()
        return {
            "initial/dense/kernel": KERNEL,
            "initial/dense/bias": BIAS,
            "gradient/dense/kernel": GRADIENT + 2 * l2 * KERNEL + l1 * np.sign(KERNEL),
            "gradient/dense/bias": BIAS_GRADIENT + 2 * bias * BIAS,
            "loss": 1.5 + penalty,
            "penalty": penalty,
        }

    structures = (
        {"penalties": {"dense/kernel": {"l1": 0.0, "l2": 0.0, **keras}} if keras else {}},
        {"optimizer": own or {}},
    )
    return pair(folder, LAYERS, arrays(**keras), arrays(**torch, bias=on_bias), structures=structures)


@pytest.mark.parametrize(
    ("keras", "torch", "own", "words"),
    [
        ({"l2": 0.01}, {}, None, "leaves out Keras's L2 penalty"),
        ({"l1": 0.01}, {}, None, "leaves out Keras's L1 penalty"),
        ({"l1": 0.02, "l2": 0.01}, {}, None, "leaves out Keras's L1L2 penalty"),
        ({"l2": 0.01}, {"l2": 0.005}, None, "L2 penalty has another factor"),
        ({}, {"l2": 0.01}, None, "torch's loss holds an L2 penalty that Keras's has not"),
        (
            {"l2": 0.01},
            {},
            optimizer(0.01),
            "an L2 penalty in the loss (Keras) for weight_decay coupled in Adam (torch)",
        ),
        ({"l2": 0.01}, {}, optimizer(0.01, "decoupled"), "for weight_decay decoupled in Adam (torch)"),
    ],
)
def test_a_penalty_is_named(
    tmp_path: Path, keras: dict[str, float], torch: dict[str, float], own: Any, words: str
) -> None:
    found = penalties.explain(traced(tmp_path, keras, torch, own))
    assert found is not None
    assert words in found.cause


def test_a_penalty_on_the_biases_too_is_told(tmp_path: Path) -> None:
    found = penalties.explain(traced(tmp_path, {}, {"l2": 0.01}, on_bias=0.03))
    assert found is not None
    assert "dense/bias: +0.03 * sum(w ** 2)" in found.evidence


def test_another_difference_is_no_penalty(tmp_path: Path) -> None:
    both = traced(tmp_path, {}, {})
    arrays = dict(np.load(tmp_path / "torch" / "arrays.npz"))
    arrays["gradient/dense/kernel"] = arrays["gradient/dense/kernel"] * 1.1
    np.savez(tmp_path / "torch" / "arrays.npz", **arrays)
    assert penalties.explain(both) is None


@pytest.mark.parametrize(
    ("factor", "bias", "passes"), [(0.02, 0.0, True), (0.01, 0.0, False), (0.02, None, False)]
)
def test_a_coupled_decay_of_the_same_weights_is_the_same_as_a_penalty(
    tmp_path: Path, factor: float, bias: float | None, passes: bool
) -> None:
    """Twice Keras's factor, on the kernel alone: then the optimizer has the same gradients."""
    both = traced(tmp_path, {"l2": 0.01}, {}, optimizer(factor, bias=bias))
    assert all(check.passed for check in rungs.gradients(both)) == passes
    assert bool(penalties.notes(both)) == passes
