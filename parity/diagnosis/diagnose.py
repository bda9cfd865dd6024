"""Names the first layer at which two models part, and the likely cause where the pattern is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiment.protocols.faults import told
from parity.checks import Check
from parity.diagnosis import settings
from parity.diagnosis.forward_causes import of_forward
from parity.diagnosis.patterns import Explanation, explains, ratio_of
from parity.diagnosis.replay import replayed
from parity.diagnosis.step_causes import of_gradients, of_one_step, of_trajectory
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
    if rung == "structure":  # a layer tells more than the counts of all parameters
        first = next((check for check in failed if check.quantity in pair.names), first)
    explain = EXPLANATIONS.get(rung)
    layer = first.quantity.split(" (")[0]
    evidence = f"{first.quantity}: {first.largest:.2e} of {first.tolerance:.0e}. {first.where}".strip()
    try:
        found = explain(first, failed, pair) if explain else None
    except Exception as error:  # what was measured stands, whatever becomes of the search for its cause
        return Diagnosis(rung, layer, f"not found: the search for it ended in {told(error)}", evidence)
    if found is not None:
        return Diagnosis(rung, layer, *found)
    return Diagnosis(rung, layer, "no known pattern", evidence)


def _structure(first: Check, failed: Sequence[Check], pair: Pair) -> Explanation | None:
    named = [check for check in failed if check.where]
    where = "; ".join(f"{c.quantity}: {c.where}" for c in named[:3]) + ("; ..." if len(named) > 3 else "")
    causes: dict[str, str] = {}
    for check in named:
        if check.quantity not in pair.names:
            continue
        keras, torch = pair.keras.layer(check.quantity), pair.torch.layer(pair.names[check.quantity])
        if keras["weights"].keys() != torch["weights"].keys():
            causes.update([_other_weights(keras["weights"], torch["weights"])])
        if (found := settings.explain(keras["settings"], torch["settings"], keras["kind"])) is not None:
            causes[found.cause] = found.change
        elif keras["kind"] != torch["kind"]:
            causes[f"a layer of another kind, {torch['kind']} for Keras's {keras['kind']}"] = ""
        elif keras["trainable"] != torch["trainable"] and keras["weights"] and torch["weights"]:
            causes["a layer is frozen on one side alone"] = "freeze it, or let it train, on both sides"
    if (frozen := _frozen(pair)) is not None:
        causes = {frozen.cause: frozen.change, **{c: m for c, m in causes.items() if "is frozen" not in c}}
    if any("takes its input" in check.where for check in named):
        causes.setdefault("the layers act in another order", "apply them in Keras's order")
    words = "; ".join(causes) or "the two models have other layers"
    return Explanation(words, where, "; ".join(filter(None, causes.values())))


def _frozen(pair: Pair) -> Explanation | None:
    """That all of one model is frozen, and none, or not all, of the other."""
    weighted = [name for name in pair.names if pair.weights(name)]
    sides = {
        "Keras": [pair.keras.layer(name)["trainable"] for name in weighted],
        "torch": [pair.torch.layer(pair.names[name])["trainable"] for name in weighted],
    }
    for side, other in (("Keras", "torch"), ("torch", "Keras")):
        if weighted and not any(sides[side]) and any(sides[other]):
            how = "trainable = False" if side == "Keras" else "requires_grad_(False)"
            return Explanation(
                f"the whole model is frozen on {side}'s side alone",
                f"{how} on all of {side}'s {len(weighted)} layers with weights",
                "freeze both, or let both train",
            )
    return None


def _other_weights(keras: Mapping[str, Any], torch: Mapping[str, Any]) -> tuple[str, str]:
    """The weights that one side's layer is without, in words, and the change that mends it."""
    lacking = [name for name in keras if name not in torch]
    more = [name for name in torch if name not in keras]
    causes = [f"torch's layers have no {' and no '.join(lacking)}"] if lacking else []
    causes += [f"torch's layers have a {' and a '.join(more)}, Keras's none"] if more else []
    changes = [f"give them a {' and a '.join(lacking)}, as Keras's have"] if lacking else []
    changes += [f"leave the {name} out, or hold it at {1 if name == 'gamma' else 0}" for name in more]
    return " and ".join(causes), " and ".join(changes)


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


EXPLANATIONS: dict[str, Callable[[Check, Sequence[Check], Pair], Explanation | None]] = {
    "structure": _structure,
    "initial weights": _initial_weights,
    "preprocessing": _preprocessing,
    "augmentation": _augmentation,
    "forward": of_forward,
    "loss and gradients": of_gradients,
    "one step": of_one_step,
    "trajectory": of_trajectory,
}


def _ends(sizes: np.ndarray) -> str:
    return f"{len(sizes)} x {sizes[0]}" + (f", the last of {sizes[-1]}" if sizes[-1] != sizes[0] else "")
