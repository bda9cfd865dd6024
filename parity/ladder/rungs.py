"""The rungs that two traces decide: from the structure of a model to a first few steps of its training.

Each is a function here, by its name in `RUNGS`, and a row of `tolerances.ROWS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiment.optimizers import SLOTS
from parity.checks import Check, compare
from parity.diagnosis import penalties, random_layers
from parity.diagnosis.settings import differing, plain
from parity.ladder import moving_variance, rounding_noise
from parity.ladder.tolerances import bound
from parity.traces.pair import Pair

# Settings of space that a layer before or after may have in part: where they differ in sum, outputs do.
OF_SPACE = ("padding", "cropping", "amounts", "size", "output_size")


def structure(pair: Pair) -> list[Check]:
    """Kinds, order, shapes, inputs, weights and settings of the matched layers, and the parameter counts."""
    checks = [
        _same(f"parameters, {name}", pair.keras.parameters[name], pair.torch.parameters[name])
        for name in pair.keras.parameters
    ]
    for keras_name, torch_name in pair.names.items():
        keras, torch = pair.keras.layer(keras_name), pair.torch.layer(torch_name)
        wrong = [
            f"{what} {torch[what]} for Keras's {keras[what]}"
            for what in ("kind", "shape", "weights", "trainable")
            if keras[what] != torch[what] and None not in (keras["shape"], torch["shape"])
        ]
        ours, theirs = torch["settings"], keras["settings"]
        wrong += [
            f"{setting} {plain(ours[setting])} for Keras's {plain(theirs[setting])}"
            for setting in differing(theirs, ours)
            if setting not in OF_SPACE
        ]
        wrong += pair.other_inputs(keras_name)
        checks.append(Check(keras_name, float(len(wrong)), 0.0, "; ".join(wrong)))
    unmatched = [*pair.matching.unmatched_keras, *pair.matching.unmatched_torch]
    alone = [name for name in unmatched if _holds_weights(pair, name)]
    checks.append(Check("layers without a counterpart", float(len(alone)), 0.0, ", ".join(alone)))
    unused = [*pair.keras.unused, *pair.torch.unused]
    checks.append(Check("layers that no input reaches", float(len(unused)), 0.0, ", ".join(unused)))
    return checks


def initial_weights(pair: Pair) -> list[Check]:
    """Every weight before training."""
    return _of_weights(pair, "initial", "initial weights", scaled=False)


def preprocessing(pair: Pair) -> list[Check]:
    """Order, sizes and content of two epochs' batches, and what the layers before any weight make of it."""
    tolerance = bound("preprocessing", pair.precision)
    checks = []
    for key in pair.keras.keys:
        if key.startswith("data/epoch"):
            exact = key.endswith(("sizes", "labels"))
            checks.append(
                compare(
                    key.removeprefix("data/").replace("/", ", "),
                    pair.keras[key],
                    pair.torch[key],
                    0.0 if exact else tolerance,
                    scaled=not exact,
                )
            )
    for name in pair.before_weights:
        if (found := pair.both("eval", name)) is not None:
            checks.append(compare(f"{name}'s output", *found, tolerance, scaled=True))
    return checks


def augmentation(pair: Pair) -> list[Check]:
    """The first batch as it is trained on."""
    arrays = pair.keras["data/augmented"], pair.torch["data/augmented"]
    return [compare("the first batch", *arrays, bound("augmentation", pair.precision), scaled=True)]


def forward(pair: Pair) -> list[Check]:
    """Every layer's output on the first batch, evaluating and training, and the model's."""
    tolerance = bound("forward", pair.precision)
    checks = []
    for mode in ("eval", "train"):
        for name in pair.names:
            found = pair.both(mode, name)
            # What finishes a model's outputs (a softmax) acts outside of training alone, on torch's side.
            finishing = mode == "train" and found is not None and not found[1].size and not pair.weights(name)
            if found is not None and not finishing:
                check = compare(f"{name} ({mode})", *found, tolerance, scaled=True)
                checks.append(rounding_noise.check(pair, check, f"{mode}/{name}", _scale(found[0])))
    keys = [key for key in pair.keras.keys if key.split("/")[0] == "outputs"]
    for key in keys:
        which = f"the model's output {key.split('/')[1]}" if "/" in key else "the model's outputs"
        theirs, ours = pair.keras[key], pair.torch.get(key)
        ours = (
            ours.reshape(theirs.shape) if pair.alike(theirs, ours) else ours
        )  # logits (N,) for Keras's (N, 1)
        check = compare(which, theirs, ours, tolerance, scaled=True)
        checks.append(rounding_noise.check(pair, check, key, _scale(pair.keras[key])))
    if pair.foreign:  # both sides are traced without what draws
        drawing = [
            f"{layer['kind']} stands on {side}'s side alone" for side, layer in random_layers.alone(pair)
        ]
        checks.append(Check(random_layers.QUANTITY, float(len(drawing)), 0.0, "; ".join(drawing)))
    return checks


def gradients(pair: Pair) -> list[Check]:
    """The loss of the first batch and every weight's gradient, as shares of the layer's largest."""
    tolerance = bound("loss and gradients", pair.precision)
    loss = compare("loss", pair.keras["loss"], pair.torch["loss"], tolerance, scaled=True)
    checks = [
        rounding_noise.check(pair, loss, "loss", _scale(pair.keras["loss"])),
        *_of_weights(pair, "gradient", "loss and gradients", scaled=True),
    ]
    decayed = [] if all(check.passed for check in checks) else _with_decay(pair, tolerance)
    return decayed if decayed and all(check.passed for check in decayed) else checks


def _with_decay(pair: Pair, tolerance: float) -> list[Check]:
    """The gradients as the optimizers have them, where a penalty in Keras's loss is torch's coupled decay."""
    decayed = penalties.as_decay(pair)
    if not decayed or "penalty" not in pair.keras:
        return []
    loss = pair.keras["loss"] - pair.keras["penalty"]
    checks = [compare("loss without penalty", loss, pair.torch["loss"], tolerance, scaled=True)]
    for layer in pair.names:
        both = {weight: pair.both("gradient", layer, weight) for weight in pair.weights(layer)}
        arrays = {
            weight: (found[0], decayed.get(f"{layer}/{weight}", found[1]))
            for weight, found in both.items()
            if found is not None
        }
        largest = (
            max((float(np.abs(keras).max(initial=0.0)) for keras, _ in arrays.values()), default=0.0) or 1.0
        )
        checks += [
            compare(f"{layer}/{weight} with decay", keras / largest, torch / largest, tolerance)
            for weight, (keras, torch) in arrays.items()
        ]
    return checks


def one_step(pair: Pair) -> list[Check]:
    """After one step: every weight and statistic, and what the optimizer keeps of each weight.

    In float32 a weight counts where its gradient is at least `FIRM` of its layer's largest: Adam divides a
    gradient by its own size, and of the others that leaves the sign of rounding noise.
    """
    checks = _of_weights(pair, "step", "one step", scaled=False, firm=pair.precision == "float32")
    for slot in _slots(pair):
        # After one step they are the gradient, or its square, times a constant.
        checks += _of_weights(pair, slot, "loss and gradients", scaled=True, label=f"{slot} of ")
    if not checks:  # of gradients that are gathered for a later step, or of a model that is all frozen
        checks = [Check("weights that the first step moves", 0.0, 0.0, "none on either side")]
    return checks


def trajectory(pair: Pair) -> list[Check]:
    """The loss of every traced step, and the weights after the last."""
    tolerance = bound("trajectory", pair.precision)
    keras, torch = pair.keras.get("losses"), pair.torch.get("losses")
    if penalties.as_decay(pair):
        keras = keras - pair.keras["penalties"]  # which torch's optimizer has, and not its loss
    losses = rounding_noise.check(pair, compare("step loss", keras, torch, tolerance), "losses")
    if not keras.size and not torch.size:
        losses = Check("step loss", 0.0, tolerance, "nothing trains on either side")
    return [losses, *_of_weights(pair, "final", "trajectory", scaled=False, label="final ")]


RUNGS: dict[str, Callable[[Pair], list[Check]]] = {
    "structure": structure,
    "initial weights": initial_weights,
    "preprocessing": preprocessing,
    "augmentation": augmentation,
    "forward": forward,
    "loss and gradients": gradients,
    "one step": one_step,
    "trajectory": trajectory,
}
FIRM = 1e-2
FURTHER_SLOTS = (  # of a user's optimizer
    "velocity_hats",
    "norms",
    "average_gradients",
    "accumulators",
    "accumulated_grads",
    "accumulated_delta_vars",
)

# Those that a user's pair has: its weights are handed over, its data are one array.
USERS = ("structure", "forward", "loss and gradients", "one step", "trajectory")


def _of_weights(
    pair: Pair, stage: str, rung: str, scaled: bool, label: str = "", firm: bool = False
) -> list[Check]:
    tolerance, checks = bound(rung, pair.precision), []
    for layer in pair.names:
        found = {weight: pair.both(stage, layer, weight) for weight in pair.weights(layer)}
        arrays = {weight: both for weight, both in found.items() if both is not None}
        largest = max((float(np.abs(keras).max(initial=0.0)) for keras, _ in arrays.values()), default=0.0)
        for weight, (keras, torch) in arrays.items():
            # A bias before BatchNorm has a gradient that cancels: its share is of the layer's largest.
            scale = largest if scaled and largest else 1.0
            gradient = pair.keras[key] if (key := f"gradient/{layer}/{weight}") in pair.keras else None
            if label and pair.foreign and gradient is None and not torch.size:
                continue  # Keras keeps slots of weights that no loss depends on, torch does not
            if firm and gradient is not None and keras.shape == torch.shape:
                counted = np.abs(gradient) >= FIRM * np.abs(gradient).max()
                keras, torch = keras[counted], torch[counted]
            check = compare(f"{label}{layer}/{weight}", keras / scale, torch / scale, tolerance)
            if weight == "moving_variance" and not check.passed:
                check = moving_variance.check(pair, layer, stage, check.quantity, tolerance) or check
            check = rounding_noise.check(pair, check, f"{stage}/{layer}/{weight}", scale)
            checks.append(check)
    return checks


def _scale(array: np.ndarray) -> float:
    """What `compare` divides by."""
    return float(np.abs(array).max(initial=0.0)) or 1.0


def _slots(pair: Pair) -> Sequence[str]:
    """What both sides' optimizers keep of each weight."""
    if not pair.foreign:
        return SLOTS  # which both sides must have
    kept = [{key.split("/")[0] for key in side.keys} for side in (pair.keras, pair.torch)]
    return [name for name in (*SLOTS, *FURTHER_SLOTS) if name in kept[0] & kept[1]]


def _same(quantity: str, keras: Any, torch: Any) -> Check:
    equal = keras == torch
    return Check(quantity, 0.0 if equal else 1.0, 0.0, "" if equal else f"{torch} for Keras's {keras}")


def _holds_weights(pair: Pair, name: str) -> bool:
    layers = [*pair.keras.layers, *pair.torch.layers]
    return any(layer["name"] == name and layer["weights"] for layer in layers)
