"""Whether an explanation gives the numbers that were found."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

LEFT = 1e-3  # of the difference, where an explanation holds


class Explanation(NamedTuple):
    """Why two sides differ: cause, evidence, and the change of torch's side that would mend it."""

    cause: str
    evidence: str = ""
    change: str = ""


def explains(keras: np.ndarray, torch: np.ndarray, candidate: np.ndarray) -> bool:
    """Whether `candidate` is what torch has, but for a thousandth of what parts torch from Keras."""
    if not keras.shape == torch.shape == candidate.shape:
        return False
    apart = float(np.abs(torch - keras).max())
    return apart > 0 and float(np.abs(torch - candidate).max()) <= LEFT * apart


def ratio_of(keras: np.ndarray, torch: np.ndarray) -> float | None:
    """The factor other than 1 between two arrays where it is the same everywhere, else None."""
    if keras.shape != torch.shape or not np.abs(keras).max():
        return None
    factor = float((keras * torch).sum() / np.square(keras).sum())
    return factor if explains(keras, torch, factor * keras) else None
