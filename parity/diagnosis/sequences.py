"""Causes of a layer that takes another step, or another mean, of a sequence than Keras's."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from parity.diagnosis.patterns import Explanation, explains
from parity.traces.pair import Pair


def explain(layer: str, mode: str, pair: Pair) -> Explanation | None:
    """Why a Dense layer's output differs after a recurrent one whose states agree; None for another."""
    inputs = pair.keras.layer(layer)["inputs"]
    before = inputs[0] if len(inputs) == 1 else ""
    both, weights = pair.both(mode, layer), list(pair.weights(layer))
    if both is None or "kernel" not in weights or before not in pair.names:
        return None
    steps = pair.torch.get(f"steps/{pair.names[before]}")
    kernel = pair.keras[f"initial/{layer}/kernel"]
    bias = pair.keras[f"initial/{layer}/bias"] if "bias" in weights else 0.0
    if steps.ndim != 3 or kernel.shape[0] != steps.shape[-1]:
        return None
    for cause, taken in _parts(steps, pair.keras.layer(before)["kind"].startswith("Bidirectional")):
        if explains(*both, taken @ kernel + bias):
            told = f"computed anew so from what {pair.names[before]} gives, its outputs are torch's"
            return Explanation(cause, told, "take what Keras's layer returns: the last states, h_n")
    return None


def _parts(steps: np.ndarray, both_ways: bool) -> Iterator[tuple[str, np.ndarray]]:
    """Of a sequence (N, T, F), the ways to take one vector of it, each with the words for it."""
    if both_ways:
        units = steps.shape[-1] // 2
        yield (
            "torch takes the last step of both ways, which of the backward one is the first that it makes",
            steps[:, -1],
        )
        yield (
            "torch has the two ways exchanged",
            np.concatenate([steps[:, 0, units:], steps[:, -1, :units]], axis=-1),
        )
    yield "torch takes the first step of the sequence, Keras the last", steps[:, 0]
    yield "torch takes the mean of all steps, Keras the last", steps.mean(1)
    yield "torch takes the largest of all steps, Keras the last", steps.max(1)
    yield "torch takes the sum of all steps, Keras the last", steps.sum(1)
    yield "torch takes the last step of the sequence", steps[:, -1]
    for step in range(1, steps.shape[1] - 1):
        yield f"torch takes step {step} of the sequence (counted from 0), Keras the last", steps[:, step]
