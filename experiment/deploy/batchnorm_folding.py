"""Folding BatchNorm into the layer behind it, for inference: which goes where, and the weights then.

A BatchNorm that follows a ReLU cannot go into the convolution before it. It can go into the next layer with
weights: y = s x + t in front of W y + b is (W s) x + (b + W t). Zero padding would add zeros where t should
stand, so a convolution takes it only without padding; max pooling lets it pass where no s is negative.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

Affine = tuple[np.ndarray, np.ndarray]  # scale and shift of each channel: (C,), (C,) float64


def affine(
    gamma: np.ndarray, beta: np.ndarray, mean: np.ndarray, variance: np.ndarray, epsilon: float
) -> Affine:
    """What BatchNorm does at inference: gamma (x - mean) / sqrt(variance + epsilon) + beta, all (C,)."""
    scale = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + epsilon)
    return scale, beta - mean * scale


def targets(kinds: Sequence[tuple[str, str]], affines: Mapping[str, Affine]) -> dict[str, str]:
    """BatchNorm layer -> the layer that can take it, of a chain of (name, kind).

    Kinds: batchnorm, convolution (without padding), dense, max pooling, flatten, dropout; all else stops it.
    """
    found: dict[str, str] = {}
    waiting: str | None = None
    for name, kind in kinds:
        if waiting and kind in ("convolution", "dense"):
            found[waiting] = name
        passes = kind in ("flatten", "dropout") or (
            kind == "max pooling" and waiting is not None and (affines[waiting][0] >= 0).all()
        )
        waiting = name if kind == "batchnorm" else waiting if passes else None
    return found


def into(kernel: np.ndarray, bias: np.ndarray, before: Affine) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias of a layer that does what `before` did, too.

    kernel: Keras's layout, (height, width, in, out) or (in, out), in the latter with the channels innermost,
    as flattening leaves them; bias: (out,). Both come back in float64.
    """
    inputs = kernel.shape[-2]
    scale, shift = (np.tile(one, inputs // len(one)) for one in before)
    kernel = kernel.astype(np.float64)
    return kernel * scale[:, None], bias + (kernel * shift[:, None]).reshape(-1, kernel.shape[-1]).sum(0)
