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

MULTIPLE = 10.0  # of what one such run shows: the sides' sums differ in more places than the last digits do
LARGEST = 1e-4  # of a step's loss: what is further off has another cause


def nudged(weights: Arrays) -> Arrays:
    """Every float64 weight up or down by a unit in its last place, or as it is."""
    generator = np.random.default_rng(0)
    return {
        key: array * (1 + np.finfo(np.float64).eps * generator.integers(-1, 2, array.shape))
        if array.dtype == np.float64
        else array
        for key, array in weights.items()
    }


def check(pair: Pair, found: Check, key: str) -> Check:
    """A failed check with the tolerance that Keras's own run allows, where there is one and that is wider.

    key: what was compared, `stage/layer/weight` or `losses`, in Keras's names.
    """
    if not found.passed and (own := _own(pair, key)) is not None:
        widened = MULTIPLE * own
        if found.largest <= widened:
            where = f"Keras's own run moves by {own:.1e} where its weights are off by their last digit"
            return replace(found, tolerance=widened, where=where)
    return found


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


def _own(pair: Pair, key: str) -> float | None:
    """How far Keras's own run moves in one array, or None where it was not, or need not be, made."""
    losses = pair.keras.get("losses"), pair.torch.get("losses")
    if pair.again is None or not compare("", *losses, LARGEST).passed or pair.nudged is None:
        return None
    return compare("", pair.keras.latest(key), pair.nudged.latest(key), 0.0).largest
