"""Why the output of a layer differs, the first one at which two models part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from parity.checks import Check
from parity.diagnosis import attention, masks, merges, outputs, pixels, random_layers, sequences, settings
from parity.diagnosis.patterns import Explanation, explains, ratio_of
from parity.traces.pair import Pair

ROUNDED = 4 * float(np.finfo(np.float32).eps)


def of_forward(first: Check, failed: Sequence[Check], pair: Pair) -> Explanation | None:
    """The settings, the statistics or the numbers that part the first layer, or the layers before it."""
    if first.quantity == random_layers.QUANTITY:
        return random_layers.explain(pair)
    layer, _, mode = first.quantity.rstrip(")").partition(" (")
    if layer not in pair.names:
        keras, torch = pair.keras["outputs"], pair.torch["outputs"]
        found = outputs.explain(keras, torch, None)
        where = "every layer that both sides have agrees; after the last, "
        return _elsewhere(found, where) or Explanation(
            "the models' outputs differ though every layer agrees",
            "logits on one side, probabilities on the other?",
            "let both give the same",
        )
    both = pair.both(mode, layer)
    assert both is not None
    keras, torch = both
    facts = pair.keras.layer(layer)
    if not (np.isfinite(keras).all() and np.isfinite(torch).all()):
        return outputs.explain(keras, torch, None)
    if mode == "train" and (found := _in_training(layer, facts["kind"], keras, torch, pair)):
        return found
    theirs, ours = facts["settings"], pair.torch.layer(pair.names[layer])["settings"]
    if (found := settings.explain(theirs, ours, facts["kind"])) is not None:
        return _padded_before(layer, pair) or found
    if facts["kind"] == "Flatten" and _same_numbers(keras, torch):
        return Explanation(
            "the flattening runs in another order (channel first for channel last)",
            "the same values, reordered",
            "bring channels last before it: x.permute(0, 2, 3, 1).flatten(1)",
        )
    if facts["kind"] == "BatchNormalization" and (found := _epsilon(layer, keras, torch, pair)):
        return found
    for of in (masks, merges, attention, sequences):
        if (found := of.explain(layer, mode, pair)) is not None:
            return found
    if (found := _moved(pair)) is not None:
        return found
    if (found := pixels.explain(layer, pair)) is not None:
        return found
    if (found := _rounded(keras, torch)) is not None:
        return found
    alone = pair.alone_before(layer)
    between = ", ".join(
        f"{whose} {name} ({trace.layer(name)['kind']})"
        for whose, trace, names in (("Keras's", pair.keras, alone[0]), ("torch's", pair.torch, alone[1]))
        for name in names
    )
    found = outputs.explain(keras, torch, _source(layer, mode, pair))
    if found is not None:
        return _elsewhere(found, f"after {between}: " if between else "")
    if between:
        return Explanation(
            "a layer that only one side has computes otherwise",
            f"between the last that agree and this: {between}",
            "let both sides have it, or neither",
        )
    return None


def _rounded(keras: np.ndarray, torch: np.ndarray) -> Explanation | None:
    """Numbers that are apart by what float32 rounds away, and no more."""
    if keras.shape != torch.shape:
        return None
    share = float(np.abs(torch - keras).max() / (np.abs(keras).max() or 1.0))
    if share > ROUNDED:
        return None
    return Explanation(
        "a constant or a layer is rounded to float32 on one side, or reckoned in it on both",
        f"{share:.1e} of the largest output",
        "give both sides the same constants, as numbers in float64",
    )


def _elsewhere(found: Explanation | None, where: str) -> Explanation | None:
    return None if found is None else found._replace(evidence=f"{where}{found.evidence}")


def _in_training(
    layer: str, kind: str, keras: np.ndarray, torch: np.ndarray, pair: Pair
) -> Explanation | None:
    """Why a layer differs in training alone: dropout, and BatchNorm that takes other statistics."""
    if kind == "Dropout":
        return Explanation(
            "dropout drops other elements", f"{layer} is the first to part, and in training alone"
        )
    if kind != "BatchNormalization":
        return None
    source = _source(layer, "train", pair)
    if source is None:
        return None
    weights = {name: pair.keras[f"initial/{layer}/{name}"] for name in pair.weights(layer)}
    epsilon = pair.keras.layer(layer)["settings"]["epsilon"]
    axes = tuple(range(source.ndim - 1))
    normalised = {
        "moving": (weights["moving_mean"], weights["moving_variance"]),
        "batch": (source.mean(axes), source.var(axes)),
    }
    outcomes = {
        name: (source - mean) / np.sqrt(variance + epsilon) * weights.get("gamma", 1.0)
        + weights.get("beta", 0.0)
        for name, (mean, variance) in normalised.items()
    }
    if explains(keras, torch, outcomes["batch"]) and explains(torch, keras, outcomes["moving"]):
        return Explanation(
            "Keras's trainable=False stops BatchNorm's statistics and uses the moving ones; "
            "requires_grad=False does not",
            f"in training Keras's {layer} normalises by its moving statistics, torch's by the batch's",
            "keep frozen BatchNorm layers in evaluation: call .eval() on them in train()",
        )
    if explains(keras, torch, outcomes["moving"]) and explains(torch, keras, outcomes["batch"]):
        return Explanation(
            "torch's BatchNorm is in evaluation while Keras's trains",
            f"in training torch's {pair.names[layer]} normalises by moving statistics, Keras's by batch",
            "set layer.trainable = False in Keras, or let torch's train",
        )
    return None


def _epsilon(layer: str, keras: np.ndarray, torch: np.ndarray, pair: Pair) -> Explanation | None:
    variance = pair.keras[f"initial/{layer}/moving_variance"]
    ratio = ratio_of(keras, torch)
    if ratio is None or np.ptp(variance) != 0:
        return None
    epsilon = pair.keras.layer(layer)["settings"]["epsilon"]
    other = (variance[0] + epsilon) / ratio**2 - variance[0]
    return Explanation(
        "BatchNorm's epsilon differs",
        f"outputs {ratio:.8f} times Keras's: epsilon {other:.3g} for {settings.plain(epsilon)}",
        f"eps={settings.plain(epsilon)}",
    )


def _padded_before(layer: str, pair: Pair) -> Explanation | None:
    """Keras pads before a layer by a function, whose pixels are not counted among the layer's padding."""
    theirs, ours = pair.keras.layer(layer), pair.torch.layer(pair.names[layer])
    pads = [name for name in pair.alone_before(layer)[0] if pair.keras.layer(name)["kind"] == "Pad"]
    if not pads or settings.differing(theirs["settings"], ours["settings"]) != ["padding"]:
        return None
    return Explanation(
        f"it is padded by other values, or otherwise: Keras pads by ops.pad before {layer}",
        f"Keras's {pads[0]}; torch's own padding is {ours['settings']['padding']}",
        "pad as ops.pad does: F.pad with the same mode, or the layer's padding_mode",
    )


def _moved(pair: Pair) -> Explanation | None:
    """A kind of layer without weights that both sides have, and have no counterpart for."""
    theirs = {pair.keras.layer(name)["kind"]: name for name in pair.matching.unmatched_keras}
    for name in pair.matching.unmatched_torch:
        if (kind := pair.torch.layer(name)["kind"]) in theirs:
            return Explanation(
                f"{kind} acts at another place",
                f"torch's {name} has no counterpart, nor has {theirs[kind]}",
                f"apply {kind} where Keras's {theirs[kind]} stands",
            )
    return None


def _source(layer: str, mode: str, pair: Pair) -> np.ndarray | None:
    """The input of a layer that takes one, as Keras's side traced it."""
    inputs = pair.keras.layer(layer)["inputs"]
    key = f"{mode}/{inputs[0]}" if len(inputs) == 1 and inputs[0] else ""
    return pair.keras[key] if key in pair.keras else None  # noqa: SIM401  get() gives an empty array


def _same_numbers(one: np.ndarray, other: np.ndarray) -> bool:
    if one.shape != other.shape:
        return False
    return np.allclose(np.sort(one.reshape(len(one), -1)), np.sort(other.reshape(len(one), -1)), rtol=1e-6)
