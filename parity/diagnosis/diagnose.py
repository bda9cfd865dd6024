"""Names the first layer at which two models part, and the likely cause where the pattern is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from parity.checks import Check
from parity.diagnosis.patterns import Explanation, explains, ratio_of
from parity.diagnosis.replay import replayed
from parity.diagnosis.step_causes import of_gradients, of_one_step
from parity.traces.pair import Pair


@dataclass(frozen=True)
class Diagnosis:
    """The first check that failed on a rung, and what would explain it."""

    rung: str
    layer: str
    cause: str
    evidence: str = ""
    change: str = ""


def diagnose(rung: str, checks: Sequence[Check], pair: Pair) -> Diagnosis | None:
    """What the first failed check of a rung says; None where none failed."""
    failed = [check for check in checks if not check.passed]
    if not failed:
        return None
    first = failed[0]
    explain = EXPLANATIONS.get(rung)
    found = explain(first, failed, pair) if explain else None
    layer = first.quantity.split(" (")[0]
    if found is not None:
        return Diagnosis(rung, layer, *found)
    evidence = f"{first.quantity}: {first.largest:.2e} of {first.tolerance:.0e}. {first.where}".strip()
    return Diagnosis(rung, layer, "no known pattern", evidence)


def _structure(first: Check, failed: Sequence[Check], pair: Pair) -> Explanation | None:
    named = [check for check in failed if check.where]
    where = "; ".join(f"{c.quantity}: {c.where}" for c in named[:3]) + ("; ..." if len(named) > 3 else "")
    settings = {
        "momentum": "BatchNorm's momentum differs (Keras's 0.99 is torch's 0.01)",
        "epsilon": "a normalisation's epsilon differs (Keras's 1e-3, torch's 1e-5)",
        "rate": "a dropout rate differs",
        "negative_slope": "LeakyReLU's slope differs (Keras's 0.3, torch's 0.01)",
        "strides": "strides differ",
        "dilation": "dilation differs",
        "groups": "groups differ",
        "pool_size": "pool sizes differ",
        "approximate": "one GELU is exact, the other approximated by tanh",
        "takes its input": "the layers act in another order",
    }
    causes = [cause for word, cause in settings.items() if any(word in check.where for check in named)]
    return Explanation("; ".join(causes) or "the two models have other layers", where)


def _initial_weights(first: Check, failed: Sequence[Check], pair: Pair) -> Explanation | None:
    for layer in pair.names:
        found = pair.both("initial", layer, "kernel")
        if found is None or np.array_equal(*found):
            continue
        keras, torch = found
        if np.array_equal(np.sort(keras.ravel()), np.sort(torch.ravel())):
            return Explanation("the same numbers in another order", f"{layer}/kernel")
        limit = 1 / np.sqrt(np.prod(torch.shape[:-1]))  # of kaiming_uniform(a = sqrt 5): sqrt(1 / fan_in)
        largest = np.abs(torch).max()
        if 0.8 * limit < largest <= limit * (1 + 1e-6):
            text = f"{layer}/kernel reaches {largest:.4f}, and 1 / sqrt(fan in) is {limit:.4f}"
            return Explanation(
                "torch's own initial weights (Kaiming uniform), not Keras's (Glorot uniform)", text
            )
        return Explanation("other initial weights", f"{layer}/kernel")
    return None


def _preprocessing(first: Check, failed: Sequence[Check], pair: Pair) -> Explanation | None:
    sizes = pair.keras["data/epoch0/sizes"], pair.torch["data/epoch0/sizes"]
    if sizes[0].shape != sizes[1].shape or not np.array_equal(*sizes):
        text = f"batches of {_ends(sizes[1])} for Keras's {_ends(sizes[0])}"
        if sizes[1].sum() < sizes[0].sum():
            return Explanation("the last, partial batch is dropped", text)
        return Explanation("batches of other sizes", text)
    means = pair.keras["data/epoch0/means"], pair.torch["data/epoch0/means"]
    if not np.allclose(means[0], means[1]) and np.allclose(
        np.sort(means[0], axis=0), np.sort(means[1], axis=0)
    ):
        return Explanation("the images come in another order (shuffling)", "the same images, at other places")
    return next(filter(None, (_pixels(name, pair) for name in pair.before_weights)), None)


def _pixels(layer: str, pair: Pair) -> Explanation | None:
    found = pair.both("eval", layer)
    if found is None or np.array_equal(*found):
        return None
    keras, torch = found
    if explains(keras, torch, keras[..., ::-1]):
        return Explanation(
            "the colour channels are reversed (RGB for BGR)", f"{layer} agrees with its channels reversed"
        )
    offsets = (torch - keras).reshape(-1, keras.shape[-1])
    if explains(keras, torch, keras + offsets[0]):
        values = ", ".join(f"{value:.3f}" for value in offsets[0])
        return Explanation("a mean colour is not subtracted, or another", f"every pixel is off by ({values})")
    ratio = ratio_of(keras, torch)
    if ratio is not None:
        return Explanation("the pixels are scaled otherwise", f"torch's are {ratio:.12g} times Keras's")
    return None


def _augmentation(first: Check, failed: Sequence[Check], pair: Pair) -> Explanation | None:
    for cause, pixels in replayed(pair):
        if explains(pair.keras["data/augmented"], pair.torch["data/augmented"], pixels):
            return Explanation(cause, "replayed so, the pixels are torch's")
    return None


def _forward(first: Check, failed: Sequence[Check], pair: Pair) -> Explanation | None:
    layer, _, mode = first.quantity.rstrip(")").partition(" (")
    if layer not in pair.names:
        return Explanation(
            "the models' outputs differ though every layer agrees",
            "logits on one side, probabilities on the other?",
        )
    found = pair.both(mode, layer)
    assert found is not None
    keras, torch = found
    facts = pair.keras.layer(layer)
    if keras.shape != torch.shape:
        return Explanation("the output has another shape", first.where)
    if mode == "train" and facts["kind"] == "Dropout":
        return Explanation(
            "dropout drops other elements", f"{layer} is the first to part, and in training alone"
        )
    if facts["kind"] == "Flatten" and np.allclose(np.sort(keras, axis=1), np.sort(torch, axis=1), rtol=1e-6):
        return Explanation(
            "the flattening runs in another order (channel first for channel last)",
            "the same values, reordered",
        )
    if facts["kind"].startswith(("Conv", "MaxPooling", "AveragePooling")):
        return _padding(layer, pair)
    if facts["kind"] == "BatchNormalization" and mode == "eval":
        variance = pair.keras[f"initial/{layer}/moving_variance"]
        ratio = ratio_of(keras, torch)
        if ratio is not None and np.ptp(variance) == 0:
            other = (variance[0] + 1e-3) / ratio**2 - variance[0]
            return Explanation(
                "BatchNorm's epsilon differs",
                f"outputs {ratio:.8f} times Keras's: epsilon {other:.3g} for 0.001",
            )
    return _moved(pair)


def _moved(pair: Pair) -> Explanation | None:
    """A kind of layer without weights that both sides have, and have no counterpart for."""
    theirs = {pair.keras.layer(name)["kind"]: name for name in pair.matching.unmatched_keras}
    for name in pair.matching.unmatched_torch:
        if (kind := pair.torch.layer(name)["kind"]) in theirs:
            return Explanation(
                f"{kind} acts at another place",
                f"torch's {name} has no counterpart, nor has {theirs[kind]}",
            )
    return None


def _padding(layer: str, pair: Pair) -> Explanation | None:
    ours = pair.torch.layer(pair.names[layer])["settings"].get("padding")
    theirs = pair.keras.layer(layer)["settings"].get("padding")
    if ours is not None and theirs is not None and ours != theirs:
        what = "pooling" if "Pooling" in pair.keras.layer(layer)["kind"] else "convolution"
        return Explanation(
            f"the {what} is padded otherwise (Keras's `same` adds the odd pixel behind)",
            f"{layer} adds {ours} pixels for Keras's {theirs}",
        )
    return None


EXPLANATIONS: dict[str, Callable[[Check, Sequence[Check], Pair], Explanation | None]] = {
    "structure": _structure,
    "initial weights": _initial_weights,
    "preprocessing": _preprocessing,
    "augmentation": _augmentation,
    "forward": _forward,
    "loss and gradients": of_gradients,
    "one step": of_one_step,
}


def _ends(sizes: np.ndarray) -> str:
    return f"{len(sizes)} x {sizes[0]}" + (f", the last of {sizes[-1]}" if sizes[-1] != sizes[0] else "")
