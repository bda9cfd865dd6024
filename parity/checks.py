"""What a rung of the ladder finds: one check a quantity, each with its bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np


@dataclass(frozen=True)
class Check:
    """The largest difference found in one quantity, and how large it may be."""

    quantity: str
    largest: float
    tolerance: float
    where: str = ""

    @property
    def passed(self) -> bool:
        return self.largest <= self.tolerance  # false for NaN, too


class Subject(NamedTuple):
    """What a rung compares, and where: a pair of models on a backend, in a precision, on a device."""

    pair: str
    backend: str
    precision: str
    device: str


@dataclass(frozen=True)
class Rung:
    """One rung of one pair on one backend: passed, failed, or skipped with a note that says why."""

    name: str
    pair: str
    backend: str
    precision: str
    device: str
    checks: Sequence[Check] = ()
    note: str = ""
    seconds: float = 0.0
    skipped: bool = False

    @property
    def status(self) -> str:
        if self.skipped:
            return "skipped"
        # A rung that compared nothing has proved nothing.
        return "passed" if self.checks and all(check.passed for check in self.checks) else "failed"

    @property
    def worst(self) -> Check | None:
        """The check nearest to its bound, or furthest beyond it."""
        return max(self.checks, key=used, default=None)

    def as_json(self) -> dict[str, Any]:
        checks = [{**asdict(check), "passed": check.passed} for check in self.checks]
        return {**asdict(self), "checks": checks, "status": self.status}


def used(check: Check) -> float:
    """How much of its tolerance a check uses: above 1 it fails."""
    if np.isnan(check.largest):
        return np.inf
    if check.tolerance:
        return check.largest / check.tolerance
    return np.inf if check.largest else 0.0


def compare(
    quantity: str, one: np.ndarray, other: np.ndarray, tolerance: float, scaled: bool = False
) -> Check:
    """The largest absolute difference of two arrays; a differing shape counts as infinitely far.

    scaled: divided by the largest magnitude of `one` where that is above 0, so that it reads as a share.
    """
    if one.shape != other.shape:
        return Check(quantity, np.inf, tolerance, f"shapes {one.shape} and {other.shape}")
    if one.size == 0:
        return Check(quantity, np.inf, tolerance, "nothing to compare")
    scale = float(np.abs(one).max()) if scaled else 1.0
    distances = np.abs(one.astype(np.float64) - other.astype(np.float64)) / (scale or 1.0)
    beyond = np.argwhere(~(distances <= tolerance))
    where = f"first beyond it at {tuple(map(int, beyond[0]))}" if len(beyond) else ""
    return Check(quantity, float(distances.max()), tolerance, where)


def table(checks: Sequence[Check]) -> str:
    """The checks as aligned text, one a line."""
    lines = []
    for c in checks:
        verdict = "passed" if c.passed else "FAILED"
        lines.append(f"{c.quantity:<14} {c.largest:.1e} of {c.tolerance:.0e}  {verdict}  {c.where}")
    return "\n".join(lines)
