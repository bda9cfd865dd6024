"""Which call of a shared layer is which, where the two sides make them in another order."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count, takewhile

import numpy as np

from parity.traces.layers import without_ones
from parity.traces.pair import Trace

ALIKE = 1e-3  # of the largest: calls on other inputs differ by more


def in_keras_order(keras: Trace, torch: Trace, weighted: Mapping[str, str]) -> dict[str, str]:
    """New names of torch's calls of layers that are called several times, so that each has that of Keras's
    call that gives the same; empty where all have it already. Layers whose calls do not all pair stay.

    weighted: Keras's names of torch's layers with weights.
    """
    renamed: dict[str, str] = {}
    for ours, theirs in weighted.items():
        mine, other = _calls(torch, ours), _calls(keras, theirs)
        if len(mine) < 2 or len(mine) != len(other):
            continue
        left, order = list(mine), []
        for call, own in zip(other, mine, strict=True):
            # Of several that give the same, its own number's before any other.
            alike = [name for name in left if _alike(keras, call, torch, name)]
            order.append(own if own in alike else next(iter(alike), None))
            left = [name for name in left if name != order[-1]]
        if None not in order:
            renamed |= {old: new for old, new in zip(order, mine, strict=True) if old and old != new}
    return renamed


def _calls(trace: Trace, name: str) -> list[str]:
    further = takewhile(trace.by_name.__contains__, (f"{name}@{number}" for number in count(2)))
    return [name, *further]


def _alike(keras: Trace, keras_name: str, torch: Trace, torch_name: str) -> bool:
    theirs, ours = keras.get(f"eval/{keras_name}"), torch.get(f"eval/{torch_name}")
    if not theirs.size or without_ones(theirs.shape) != without_ones(ours.shape):
        return False
    largest = np.abs(theirs).max()
    return bool(np.abs(ours.reshape(theirs.shape) - theirs).max() <= ALIKE * largest)
