"""How far rounding alone moves a training: Keras's own run again, its weights off by their last digit.

Training magnifies rounding: Adam makes a whole step of a gradient that cancels to noise (a bias's before
BatchNorm), and BatchNorm over a few values divides by a small deviation. No two frameworks, nor two runs of
one on other hardware, can agree more closely than a model agrees with itself under such a change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from experiment.protocols.trace import Arrays
from parity.checks import Check, compare
from parity.traces.pair import Pair

MULTIPLE = (
    100.0  # of what one such run shows: where a channel hardly varies, one draw may miss how far it can go
)
SMALL = 1e-6  # as a share: what differs by more within one pass has another cause
TELLS = 1e-3  # of a step's loss: where rounding moves it further, later steps say nothing


def nudged(weights: Arrays) -> Arrays:
    """Every float64 weight up or down by a unit in its last place, or as it is."""
    generator = np.random.default_rng(0)
    return {
        key: array * (1 + np.finfo(np.float64).eps * generator.integers(-1, 2, array.shape))
        if array.dtype == np.float64
        else array
        for key, array in weights.items()
    }


def check(pair: Pair, found: Check, key: str, scale: float = 1.0) -> Check:
    """A failed check with the tolerance that Keras's own run allows, where there is one and that is wider.

    key: what was compared, `stage/layer/weight`, `mode/layer` or `losses`, in Keras's names. scale: what both
    were divided by.
    """
    within_one_pass = not key.startswith(("step/", "final/", "losses"))
    if found.passed or pair.again is None or (within_one_pass and found.largest > SMALL):
        return found
    widened = MULTIPLE * _own(pair, key) / scale
    if not found.largest <= widened:
        return found
    moves = f"{widened / MULTIPLE:.1e}"
    where = f"Keras's own run moves by {moves} where its weights are off by their last digit"
    return replace(found, tolerance=widened, where=where)


def incomparable(pair: Pair) -> str:
    """Why the steps of a training cannot be compared; "" where they can, or where they agree."""
    losses = pair.keras.get("losses"), pair.torch.get("losses")
    if pair.again is None or not losses[0].size or compare("", *losses, SMALL).passed:
        return ""
    own = _own(pair, "losses")
    if own <= TELLS or not np.isfinite(own):
        return ""
    return (
        "this training magnifies rounding: with weights off by their last digit, a step's loss moves by "
        f"{own:.1e} in Keras alone. Steps after the first say nothing: give it larger batches, or images"
    )


def note(checks: Sequence[Check]) -> str:
    """What was let pass on these grounds, for a reader; "" where nothing was."""
    taken = [one for one in checks if one.passed and one.where.startswith("Keras's own run")]
    if not taken:
        return ""
    worst = max(taken, key=lambda one: one.largest)
    return (
        "rounding grows in this training: with weights off by their last digit, Keras's own run moves by up "
        f"to {worst.tolerance / MULTIPLE:.0e} ({worst.quantity}); where {MULTIPLE:.0f} times as much is more "
        f"than the tolerance ({len(taken)} of the checks), that much is allowed"
    )


def _own(pair: Pair, key: str) -> float:
    """How far Keras's own run moves in one array."""
    if pair.nudged is None:
        return 0.0
    return compare("", pair.keras.latest(key), pair.nudged.latest(key), 0.0).largest
