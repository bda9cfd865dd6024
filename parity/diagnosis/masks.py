"""Causes of a layer that leaves out masked steps of a sequence on one side alone."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from parity.diagnosis.patterns import Explanation
from parity.traces.pair import Pair, Trace

AGREE = 1e-6  # as a share of a layer's largest output: sequences without a masked step


def explain(layer: str, mode: str, pair: Pair) -> Explanation | None:
    """Why a layer of a sequence differs where one side alone has a mask, or another than the other side."""
    alone = pair.alone_before(layer)
    theirs, its = _first(pair.keras, [layer, *alone[0]])
    ours, own = _first(pair.torch, [pair.names[layer], *alone[1]])
    both = pair.both(mode, layer)
    if both is None or both[0].shape != both[1].shape or 2 not in (theirs.ndim, ours.ndim):
        return None
    if theirs.ndim == ours.ndim:
        return _other_lengths(theirs, ours)
    mask = theirs if theirs.ndim == 2 else ours
    sources = [pair.keras.layer(name)["shape"] for name in pair.keras.layer(its or layer)["inputs"] if name]
    whole = mask.sum(axis=1) == (sources[0][0] if sources and sources[0] else mask.shape[1])
    apart = np.abs(both[1] - both[0]).reshape(len(mask), -1).max(axis=1)
    if (apart[whole] > AGREE * np.abs(both[0]).max()).any() or not apart[~whole].any():
        return None
    masked = int((~whole).sum())
    told = f"only the {masked} of {len(mask)} sequences with masked steps differ"
    if theirs.ndim == 2:
        return Explanation(
            f"Keras's {its} leaves masked steps out (mask_zero or Masking), torch's takes them all",
            told,
            "pack the sequences (pack_padded_sequence), or weigh their steps by the mask",
        )
    return Explanation(
        f"torch's {own} leaves padded steps out (packed sequences), Keras's takes them all",
        told,
        "do not pack the sequences, or let Keras mask them (mask_zero=True)",
    )


def _first(trace: Trace, names: Iterable[str]) -> tuple[np.ndarray, str]:
    """The mask of the first of some layers that has one, and the layer's name; both empty without any."""
    return next(((mask, n) for n in names if (mask := trace.get(f"mask/{n}")).ndim == 2), (np.empty(0), ""))


def _other_lengths(keras: np.ndarray, torch: np.ndarray) -> Explanation | None:
    steps = keras.sum(axis=1), torch.sum(axis=1)
    if np.array_equal(*steps):
        return None
    place = int(np.flatnonzero(steps[0] != steps[1])[0])
    return Explanation(
        "the two leave out other steps of a sequence",
        f"of sequence {place} torch takes {steps[1][place]} steps, Keras {steps[0][place]}",
        "give pack_padded_sequence the lengths of Keras's mask",
    )
