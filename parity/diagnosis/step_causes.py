"""Why a loss, a gradient or a step differs where the layers' outputs agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from parity.checks import Check
from parity.diagnosis import losses, optimizers, penalties
from parity.diagnosis.patterns import Explanation, explains, ratio_of
from parity.traces.pair import Pair

BETAS = (0.9, 0.999)


def of_gradients(first: Check, failed: Sequence[Check], pair: Pair) -> Explanation | None:
    """A frozen weight, a penalty, a loss of another kind or scale, or other labels."""
    if (found := _not_finite(pair)) is not None:
        return found
    if (
        pair.foreign
        and (found := _held(pair) or _padding(pair) or penalties.explain(pair) or losses.explain(pair))
        is not None
    ):
        return found
    kernels = [
        (layer, weight, pair.keras[f"initial/{layer}/{weight}"])
        for layer in pair.names
        for weight in pair.weights(layer)
        if weight == "kernel" and f"gradient/{layer}/{weight}" in pair.keras
    ]
    difference = float(pair.torch["loss"] - pair.keras["loss"])
    if kernels:
        factor = difference / sum(float(np.square(kernel).sum()) for _, _, kernel in kernels)
        gradients = [(pair.both("gradient", layer, weight), kernel) for layer, weight, kernel in kernels]
        if all(both and explains(*both, both[0] + 2 * factor * kernel) for both, kernel in gradients):
            return Explanation(
                "the L2 penalty has another factor",
                f"the loss is off by {factor:+.3g} times the squared kernels",
            )
    ratios = []
    for layer in pair.names:
        for weight in pair.weights(layer):
            both = pair.both("gradient", layer, weight)
            if both is not None:
                # What the penalty adds is not scaled with the rest: the layers that have none tell.
                ratios += [] if weight == "kernel" else [ratio_of(*both)]
    known = [ratio for ratio in ratios if ratio is not None]
    if len(known) > len(ratios) / 2 and np.ptp(known) < 1e-6 * abs(known[0]):
        return _scaled(known[0])
    if first.quantity == "loss":
        return Explanation(
            "the loss weighs or smooths the labels otherwise",
            f"it is off by {difference:+.3g}",
        )
    return None


def _padding(pair: Pair) -> Explanation | None:
    """An Embedding of torch's that does not train the vector of its padding token."""
    for layer, torch_layer in pair.names.items():
        token = pair.torch.layer(torch_layer)["settings"].get("padding_idx")
        both = pair.both("gradient", layer, "embeddings")
        if token is None or both is None or both[0].shape != both[1].shape:
            continue
        keras, torch = (np.delete(array, token, axis=0) for array in both)
        if both[0][token].any() and not both[1][token].any() and np.allclose(keras, torch, rtol=1e-6):
            return Explanation(
                "torch's Embedding does not train the vector of its padding token (padding_idx)",
                f"the gradient of {layer}'s token {token} is zero in torch alone",
                "leave padding_idx out",
            )
    return None


def _not_finite(pair: Pair) -> Explanation | None:
    """A gradient that is NaN or infinite on one side, or both, of a loss that is finite."""
    sides = {}
    for side, trace in (("Keras's", pair.keras), ("torch's", pair.torch)):
        names = [key for key in trace.keys if key.startswith("gradient/")]
        sides[side] = next((key for key in reversed(names) if not np.isfinite(trace[key]).all()), None)
    found = {side: key.removeprefix("gradient/") for side, key in sides.items() if key is not None}
    if not found or not all(np.isfinite(float(trace["loss"])) for trace in (pair.keras, pair.torch)):
        return None
    return Explanation(
        f"{' and '.join(found)} gradients hold NaN or infinity",
        f"the loss is finite; the last of them is that of {' and '.join(dict.fromkeys(found.values()))}",
        "look behind that layer for a root, a norm or a logarithm of 0, and keep it away from 0",
    )


def _scaled(ratio: float) -> Explanation:
    """What a factor of the whole loss may be."""
    parts = 1 / ratio
    divided = (
        f", as for {round(parts)} accumulated batches"
        if 1.5 < parts < 65 and abs(parts - round(parts)) < 1e-6
        else ""
    )
    return Explanation(
        f"the loss is scaled otherwise{divided}",
        f"every gradient is {ratio:.6g} times Keras's",
        f"divide the loss by {ratio:.6g}",
    )


def _held(pair: Pair) -> Explanation | None:
    """A weight that trains on one side alone."""
    for layer in pair.names:
        for weight in pair.weights(layer):
            keys = f"gradient/{layer}/{weight}", f"gradient/{pair.names[layer]}/{weight}"
            there = keys[0] in pair.keras, keys[1] in pair.torch
            computed = weight in pair.torch.layer(pair.names[layer]).get("computed", ())
            if any(there) and not all(there) and not computed:
                side = "torch's" if there[0] else "Keras's"
                return Explanation(
                    f"{weight} of {layer} is frozen, or reached by no gradient, on {side} side alone",
                    "the other side has its gradient",
                    "freeze it, or let it train, on both sides",
                )
    return None


def of_one_step(first: Check, failed: Sequence[Check], pair: Pair) -> Explanation | None:
    """BatchNorm's momentum or its variance, or the way in which Adam is written."""
    quantities = [check.quantity.rsplit(" ", 1)[-1] for check in failed]  # without what it is of a weight
    for layer in pair.names:
        if any(quantity.startswith(f"{layer}/moving_") for quantity in quantities):
            found = _statistics(layer, pair)
            if found is not None:
                return found
    return optimizers.explain(pair) or _adam(pair)


def of_trajectory(first: Check, failed: Sequence[Check], pair: Pair) -> Explanation | None:
    """What a first step does not show: a schedule, momentum, clipping; else what one step would show."""
    return of_one_step(first, failed, pair)


def _statistics(layer: str, pair: Pair) -> Explanation | None:
    momentum = pair.keras.layer(layer)["settings"]["momentum"]
    moves = {}
    for name in ("moving_mean", "moving_variance"):
        before, after = pair.both("initial", layer, name), pair.both("step", layer, name)
        if before is None or after is None:
            return None
        moves[name] = [a - b for a, b in zip(after, before, strict=True)]
    causes, evidence = [], []
    ratio = ratio_of(*moves["moving_mean"]) or 1.0
    share = (1 - momentum) * ratio
    if abs(ratio - 1) > 1e-6:
        causes.append("BatchNorm's momentum differs")
        evidence.append(
            f"{layer}'s moving mean moves {ratio:.6g} times as far: momentum {1 - share:.6g} "
            f"for {momentum:.6g}"
        )
    # What each side took for the batch's variance: a move is (1 - momentum) * (variance - before).
    before = pair.keras[f"initial/{layer}/moving_variance"]
    keras, torch = moves["moving_variance"]
    ratio = ratio_of(keras / (1 - momentum) + before, torch / share + before)
    count = int(np.prod(pair.keras[f"train/{layer}"].shape[:-1]))
    if ratio is not None and abs(ratio / (count / (count - 1)) - 1) < 1e-6:
        causes.append("BatchNorm's moving variance takes up the unbiased variance (Bessel's correction)")
        evidence.append(
            f"{layer}'s variance is {ratio:.8f} times Keras's, n/(n-1) is {count / (count - 1):.8f}"
        )
    return Explanation("; ".join(causes), "; ".join(evidence)) if causes else None


def _adam(pair: Pair) -> Explanation | None:
    """Which way to write Adam gives torch's step from torch's moments (t = 1, Keras's default betas)."""
    for layer, weight in _stepped(pair):
        moments = pair.both("momentums", layer, weight), pair.both("velocities", layer, weight)
        if any(both is None or both[0].shape != both[1].shape for both in moments):
            continue
        assert moments[0] is not None
        assert moments[1] is not None
        both = [one for one in moments if one is not None]
        if any(float(np.abs(one - other).max()) > 1e-9 * float(np.abs(one).max()) for one, other in both):
            return Explanation("Adam's moments differ (its betas, or the gradient)", f"{layer}/{weight}")
        before, after = pair.both("initial", layer, weight), pair.both("step", layer, weight)
        assert before is not None
        assert after is not None
        keras, torch = after[0] - before[0], after[1] - before[1]
        ways = _ways(moments[0][1], moments[1][1])
        large = np.abs(ways[0][1]) > 0.5 * np.abs(ways[0][1]).max()
        rate = np.median(keras[large] / ways[0][1][large])
        for cause, way in ways[1:]:
            if explains(keras, torch, rate * way):
                return Explanation(cause, f"so reckoned, {layer}/{weight} moves as torch's does")
    return None


def _stepped(pair: Pair) -> Iterator[tuple[str, str]]:
    """The trained weights, those first that a step parts most."""
    found = []
    for layer in pair.names:
        for weight in pair.weights(layer):
            both = pair.both("step", layer, weight)
            if both is not None and both[0].shape == both[1].shape and not weight.startswith("moving"):
                found.append((-float(np.abs(both[0] - both[1]).max()), layer, weight))
    return ((layer, weight) for _, layer, weight in sorted(found))


def _ways(m: np.ndarray, v: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Adam's first step, without the learning rate, as Keras on TensorFlow takes it and as others do."""
    exact = [1 - beta for beta in BETAS]
    rounded = [1 - float(np.float32(beta)) for beta in BETAS]

    def step(first: Sequence[float], inside: Sequence[float], epsilon: float) -> np.ndarray:
        # epsilon is divided by the bias correction where it stands beside sqrt(v), before it.
        return np.sqrt(first[1]) / first[0] * m / (np.sqrt(v) + epsilon * np.sqrt(inside[1]))

    before = (1.0, 1.0)
    return [
        ("Keras", step(rounded, before, 1e-7)),
        (
            "Adam's bias correction takes its betas exactly (Keras on TensorFlow rounds them to float32)",
            step(exact, before, 1e-7),
        ),
        ("Adam adds epsilon after the bias correction (torch's place for it)", step(rounded, exact, 1e-7)),
        ("Adam is torch's own: epsilon 1e-8, after the bias correction", step(exact, exact, 1e-8)),
        ("Adam adds epsilon after the bias correction, and its betas are exact", step(exact, exact, 1e-7)),
    ]
