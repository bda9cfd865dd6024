"""Rounding, and how far it moves a training: Keras's own run again, its weights off by 1e-14 of themselves.

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

# Of float64's spacing: some more than two frameworks part by in a pass, so that such a run, too, meets what
# magnifies it (a ReLU's edge, a channel that hardly varies) no later than they do.
SPACINGS = 64
MULTIPLE = 10.0  # of what that moves: one draw may miss how far it can go
SMALL = 1e-6  # as a share: what differs by more within one pass has another cause
TELLS = 1e-5  # of a step's loss: where rounding moves it further, later steps say nothing


def nudged(weights: Arrays) -> Arrays:
    """Every float64 weight off by up to SPACINGS of its last digit's, 1.4e-14 of it."""
    generator = np.random.default_rng(0)
    return {
        key: array * (1 + np.finfo(np.float64).eps * generator.integers(-SPACINGS, SPACINGS + 1, array.shape))
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
    where = f"Keras's own run moves by {moves} where its weights are off by 1e-14 of themselves"
    return replace(found, tolerance=widened, where=where)


def steps_that_tell(pair: Pair) -> int | None:
    """The number of steps of a training that can be compared; None for all.

    Where a training magnifies rounding so much that Keras's own losses move by more than `TELLS`, those are
    the steps before they move by more than `SMALL`.
    """
    losses = pair.keras.get("losses"), pair.torch.get("losses")
    if pair.again is None or not losses[0].size or compare("", *losses, SMALL).passed:
        return None
    own = _own(pair, "losses")
    if own <= TELLS or not np.isfinite(own) or pair.nudged is None:
        return None
    apart = np.abs(losses[0] - pair.nudged["losses"])
    return int(np.argmax(apart > SMALL))


def first_steps(pair: Pair, count: int, tolerance: float) -> list[Check]:
    """The losses of the first steps alone."""
    assert pair.nudged is not None
    keras, torch, own = (side["losses"][:count] for side in (pair.keras, pair.torch, pair.nudged))
    tolerance = max(tolerance, MULTIPLE * float(np.abs(keras - own).max()))
    return [compare(f"loss of the first {count} steps", keras, torch, tolerance)]


def why(count: int, steps: int) -> str:
    """The reason for which no more steps are compared."""
    return (
        f"this training magnifies rounding: compared are {count} of {steps} steps. With weights off by 1e-14 "
        "of themselves Keras's own run soon takes another way: larger batches, or images, keep it longer"
    )


def note(checks: Sequence[Check]) -> str:
    """A sentence on the checks that were let pass on these grounds; "" where none was."""
    taken = [one for one in checks if one.passed and one.where.startswith("Keras's own run")]
    if not taken:
        return ""
    worst = max(taken, key=lambda one: one.largest)
    return (
        "rounding grows in this training: with weights off by 1e-14 of themselves, Keras's own run moves by "
        f"up to {worst.tolerance / MULTIPLE:.0e} ({worst.quantity}); where {MULTIPLE:.0f} times as much is "
        f"more than the tolerance ({len(taken)} of the checks), that much is allowed"
    )


def _own(pair: Pair, key: str) -> float:
    """The largest distance of Keras's two runs in one array."""
    if pair.nudged is None:
        return 0.0
    return compare("", pair.keras.latest(key), pair.nudged.latest(key), 0.0).largest
