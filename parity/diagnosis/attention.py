"""Attention computed anew, as Keras does it and as those do it who get one thing wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from experiment.protocols.trace import PARTS
from parity.diagnosis.patterns import Explanation, explains
from parity.traces.pair import Pair

SAMPLES = 2


@dataclass(frozen=True)
class Form:
    """One way to compute attention from its projections (N, T, heads * dim).

    power: the scores are divided by dim to this power. of_all: by that of all heads' features instead. over:
    what the softmax runs over, keys or queries.
    """

    heads: int
    power: float = 0.5
    of_all: bool = False
    causal: bool = False
    interleaved: bool = False
    over: str = "keys"

    def outputs(self, query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
        """(N, T, heads * dim), before the last projection."""
        q, k, v = (self._split(array) for array in (query, key, value))
        dim = query.shape[-1] if self.of_all else q.shape[-1]
        scores = np.einsum("nqhd,nkhd->nhqk", q, k) / dim**self.power
        if self.causal:
            later = np.triu(np.ones(scores.shape[-2:], bool), 1)
            scores = np.where(later, -np.inf, scores)
        axis = -1 if self.over == "keys" else -2
        shares = np.exp(scores - scores.max(axis, keepdims=True))
        shares /= shares.sum(axis, keepdims=True)
        joined = np.einsum("nhqk,nkhd->nqhd", shares, v)
        if self.interleaved:
            joined = joined.swapaxes(-1, -2)
        return joined.reshape(*joined.shape[:2], -1)

    def _split(self, array: np.ndarray) -> np.ndarray:
        """(N, T, heads, dim)."""
        if self.interleaved:
            return array.reshape(*array.shape[:2], -1, self.heads).swapaxes(-1, -2)
        return array.reshape(*array.shape[:2], self.heads, -1)

    def mistakes(self, features: int, causal: bool) -> Iterator[tuple[Form, str, str]]:
        """Other forms, each with the cause and the change that it stands for."""
        yield (
            replace(self, power=0.0),
            "torch's attention does not divide its scores by the root of a head's size",
            "divide the scores by head_dim ** 0.5",
        )
        yield (
            replace(self, of_all=True),
            "torch's attention divides its scores by the root of all features, not of a head's",
            "divide the scores by head_dim ** 0.5",
        )
        yield (
            replace(self, power=1.0),
            "torch's attention divides its scores by a head's size, not by its root",
            "divide the scores by head_dim ** 0.5",
        )
        if causal:
            yield (
                replace(self, causal=not self.causal),
                f"torch's attention {'sees' if self.causal else 'masks'} later steps (a causal mask), "
                f"Keras's {'does not' if self.causal else 'sees them'}",
                f"is_causal={self.causal}",
            )
        for heads in range(1, features + 1):
            if features % heads == 0 and heads != self.heads:
                yield (
                    replace(self, heads=heads),
                    f"torch's attention has {heads} head{'' if heads == 1 else 's'}, Keras's {self.heads}",
                    f"num_heads={self.heads}",
                )
        yield (
            replace(self, interleaved=True),
            "torch's attention takes its heads from every so many features, Keras's from features in a row",
            "view(batch, steps, heads, head_dim), then transpose(1, 2)",
        )
        yield (
            replace(self, over="queries"),
            "torch's softmax runs over the queries, Keras's over the keys",
            "softmax(dim=-1) of query @ key.transpose(-2, -1)",
        )


def explain(layer: str, mode: str, pair: Pair) -> Explanation | None:
    """Why an attention's output differs; None for what is no attention, or another difference.

    layer: the attention, or its last projection where it is traced in parts.
    """
    both = pair.both(mode, layer)
    if both is None or both[0].ndim != 3 or both[0].shape != both[1].shape:
        return None
    keras, torch = (array[:SAMPLES] for array in both)
    weights = {name: pair.keras[f"initial/{layer}/{name}"] for name in pair.weights(layer)}
    if "output_kernel" in weights:
        parts = _projected(layer, mode, weights, pair)
        kernel, bias = weights["output_kernel"], weights.get("output_bias", 0.0)
        kernel = kernel.reshape(-1, kernel.shape[-1])
    else:
        parts = _before(layer, mode, pair)
        kernel, bias = weights.get("kernel", np.empty(0)), weights.get("bias", 0.0)
    if parts is None or kernel.ndim != 2 or kernel.shape[0] != parts[2].shape[-1]:
        return None
    features = parts[0].shape[-1]
    square = parts[0].shape[1] == parts[1].shape[1]
    if not features == parts[1].shape[-1] == parts[2].shape[-1]:
        return None

    def outputs(form: Form) -> np.ndarray:
        return form.outputs(*parts) @ kernel + bias

    own = next((form for form in _forms(features, square) if _same(keras, outputs(form))), None)
    if own is None:
        return None
    for form, cause, change in own.mistakes(features, square):
        if explains(keras, torch, outputs(form)):
            return Explanation(cause, "computed anew so, its outputs are torch's", change)
    exchanged = parts[0], parts[2], parts[1]
    if explains(keras, torch, own.outputs(*exchanged) @ kernel + bias):
        return Explanation(
            "torch's attention has key and value exchanged", "computed anew so, its outputs are torch's"
        )
    return None


def _forms(features: int, square: bool) -> Iterator[Form]:
    """Those that Keras's layer, or a user's own, may have."""
    for causal in (False, True) if square else (False,):
        for heads in range(1, features + 1):
            if features % heads == 0:
                yield Form(heads, causal=causal)


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and bool(np.abs(one - other).max() <= 1e-6 * np.abs(one).max())


def _projected(
    layer: str, mode: str, weights: dict[str, np.ndarray], pair: Pair
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Query, key and value of an attention of one input, or of a query and what it attends to."""
    sources = [f"{mode}/{name}" for name in pair.keras.layer(layer)["inputs"]]
    arrays = [pair.keras[key][:SAMPLES] for key in sources if key in pair.keras]
    if not arrays or len(arrays) != len(sources) or any(array.ndim != 3 for array in arrays):
        return None
    query, value = arrays[0], arrays[min(1, len(arrays) - 1)]
    key = arrays[2] if len(arrays) > 2 else value
    parts = []
    for name, array in zip(PARTS[3], (query, key, value), strict=True):
        kernel = weights[f"{name}_kernel"]
        bias = weights.get(f"{name}_bias", np.zeros(kernel.shape[1:]))
        parts.append(array @ kernel.reshape(kernel.shape[0], -1) + bias.reshape(-1))
    return parts[0], parts[1], parts[2]


def _before(layer: str, mode: str, pair: Pair) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Query, key and value (N, T, F): what the three Dense layers before another give, if they fit."""
    names = [name for name in pair.names if f"{mode}/{name}" in pair.keras and pair.weights(name)]
    place = names.index(layer) if layer in names else 0
    arrays = [pair.keras[f"{mode}/{name}"][:SAMPLES] for name in names[max(place - 3, 0) : place]]
    kinds = {pair.keras.layer(name)["kind"] for name in names[max(place - 3, 0) : place]}
    if len(arrays) < 3 or kinds != {"Dense"} or any(array.ndim != 3 for array in arrays):
        return None
    return arrays[0], arrays[1], arrays[2]
