"""Causes that show in gradients and in a step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from parity.checks import Check
from parity.diagnosis import step_causes
from parity.diagnosis.diagnose import diagnose
from parity.traces.pair import Pair
from tests.parity.diagnosis.traced import layer, pair

STATISTICS = {"moving_mean": [2], "moving_variance": [2], "gamma": [2], "beta": [2]}
LAYERS = [
    layer("conv", "Conv2D", weights={"kernel": [2]}),
    layer("bn_conv", "BatchNormalization", weights=STATISTICS, settings={"momentum": 0.9}),
]


def moved(mean: float, variance: float) -> dict[str, np.ndarray]:
    """BatchNorm's statistics before and after a step that moves them so far."""
    before = {"moving_mean": np.zeros(2), "moving_variance": np.ones(2)}
    after = {"moving_mean": np.full(2, mean), "moving_variance": np.full(2, 1 + variance)}
    arrays = {f"initial/bn_conv/{name}": value for name, value in before.items()}
    arrays |= {f"step/bn_conv/{name}": value for name, value in after.items()}
    return arrays | {"train/bn_conv": np.zeros((5, 2)), "initial/conv/kernel": np.ones(2)}


@pytest.mark.parametrize(
    ("mean", "variance", "cause"),
    [(0.2, 0.1, "BatchNorm's momentum differs"), (0.1, 0.1 * (2 * 5 / 4 - 1), "the unbiased variance")],
)
def test_statistics_are_those_of_the_layer_that_is_named(
    tmp_path: Path, mean: float, variance: float, cause: str
) -> None:
    """Of bn_conv, not of conv, with whose name its own ends."""
    both = pair(tmp_path, LAYERS, moved(0.1, 0.1), moved(mean, variance))
    failed = [Check("final bn_conv/moving_mean", 1.0, 1e-9), Check("bn_conv/moving_variance", 1.0, 1e-9)]
    found = step_causes.of_trajectory(failed[0], failed, both)
    assert found is not None
    assert cause in found.cause


EMBEDDING = {"weights": {"embeddings": [3, 2]}}


def embedded(folder: Path, torch: np.ndarray) -> Pair:
    keras = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    arrays = [
        {"gradient/e/embeddings": g, "loss": 1.0, "initial/e/embeddings": keras} for g in (keras, torch)
    ]
    own = layer("e", "Embedding", **EMBEDDING)
    return pair(folder, [own], *arrays, torch_layers=[{**own, "settings": {"padding_idx": 1}}])


def test_a_padding_token_that_is_not_trained_is_told(tmp_path: Path) -> None:
    both = embedded(tmp_path, np.array([[1.0, 2.0], [0.0, 0.0], [5.0, 6.0]]))
    found = step_causes.of_gradients(Check("e/embeddings", 1.0, 1e-9), [], both)
    assert found is not None
    assert "padding_idx" in found.cause


def test_other_tokens_that_differ_have_another_cause(tmp_path: Path) -> None:
    both = embedded(tmp_path, np.array([[1.0, 2.0], [0.0, 0.0], [5.0, 7.0]]))
    found = step_causes.of_gradients(Check("e/embeddings", 1.0, 1e-9), [], both)
    assert found is None or "padding_idx" not in found.cause


def test_what_was_measured_stands_where_the_search_for_a_cause_fails(tmp_path: Path) -> None:
    both = pair(tmp_path, LAYERS, {}, {})  # no arrays to look at
    found = diagnose("loss and gradients", [Check("conv/kernel", 2.0, 1e-9)], both)
    assert found is not None
    assert (found.layer, found.cause) == (
        "conv/kernel",
        "not found: the search for it ended in KeyError: 'loss is not a file in the archive'",
    )
    assert found.evidence.startswith("conv/kernel: 2.00e+00 of 1e-09")
