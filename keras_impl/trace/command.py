"""python -m keras_impl.trace.command REQUEST.json OUT: what a model does, layer by layer and step by step.

Writes OUT/structure.json and OUT/arrays.npz in Keras's names and layout, for `parity` to compare. A request
holds `experiment`, the configuration of one of this project's models, or `build`, a user's
`package.module:function` or .keras file, with `inputs` (an .npy file).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from experiment.protocols import trace as tracing
from experiment.protocols.trace import Arrays, Request
from keras_impl.layers import weight_layout
from keras_impl.model import count_parameters
from keras_impl.optimizers import slots
from keras_impl.precision import numerics
from keras_impl.trace.recorder import leaves
from keras_impl.trace.target import Subject, own, users


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return tracing.run(sys.argv[1:] if argv is None else argv, trace)


def trace(request: Request) -> tuple[dict[str, Any], Arrays]:
    """The structure and the arrays that the request asks for; raises TraceError and DataError."""

    with numerics(request.experiment):
        subject, arrays = own(request) if request.build is None else (users(request), {})
        structure = describe(subject)
        if request.steps:
            arrays |= numbers(subject)
    return structure, arrays


def describe(subject: Subject) -> dict[str, Any]:
    """The model's layers in the order in which they act, and its parameter counts; raises TraceError."""

    recording, _ = subject.record(training=False)
    operations = {operation.name: operation for operation in leaves(subject.model)}
    layers = []
    for one in recording.seen:
        layer = operations.get(one.name)
        shapes: dict[str, dict[str, list[int]]] = {one.name: {}}
        for name, array in weight_layout.arrays(layer).items():
            unit, weight = weight_layout.unit(layer, name)
            shapes.setdefault(unit, {})[weight] = list(array.shape)
        # The depthwise half of a SeparableConv2D comes before the layer itself.
        units = [unit for unit in shapes if unit != one.name]
        for unit in [*units, one.name]:
            itself = unit == one.name
            layers.append(
                {
                    "name": unit,
                    "kind": one.kind,
                    "shape": list(one.output.shape[1:]) if itself else None,
                    "settings": one.settings if itself else recording.depthwise[one.name],
                    "inputs": units if itself and units else list(one.inputs),
                    "weights": shapes[unit],
                    "trainable": bool(getattr(layer, "trainable_variables", [])),
                    "flattened": False,
                }
            )
    seen = {one.name for one in recording.seen}
    unused = sorted(name for name, o in operations.items() if weight_layout.tensors(o) and name not in seen)
    return tracing.structure(layers, count_parameters(subject.model), unused)


def numbers(subject: Subject) -> Arrays:
    """Every array of the trace; the model ends as its last step left it."""
    with subject.repeatable():
        return _numbers(subject)


def _numbers(subject: Subject) -> Arrays:
    trained = subject.trained
    arrays = weights("initial", subject)
    recording, outputs = subject.record(training=False)
    arrays |= {f"eval/{one.name}": one.output for one in recording.seen}
    arrays["outputs"] = keras.ops.convert_to_numpy(outputs)
    before = trained.get_weights()
    recording, _ = subject.record(training=True)
    arrays |= {f"train/{one.name}": one.output for one in recording.seen}
    trained.set_weights(before)
    loss, gradients = gradient(subject)
    trained.set_weights(before)
    arrays["loss"] = keras.ops.convert_to_numpy(loss)
    arrays |= of_trained("gradient", subject, gradients)
    losses = []
    for step, (x, y, shares) in enumerate(subject.batches):
        subject.set_step(step)
        trained.reset_metrics()
        losses.append(trained.train_on_batch(x, y, sample_weight=shares, return_dict=True)["loss"])
        if step == 0:
            arrays |= tracing.changed(weights("step", subject), arrays)
            for slot, variables in slots(trained.optimizer).items():
                arrays |= of_trained(slot, subject, variables)
    arrays["losses"] = np.array(losses, dtype=float)
    return arrays | tracing.changed(weights("final", subject), arrays)


def gradient(subject: Subject) -> tuple[Any, list[Any]]:
    """The loss of the first batch, and its gradient with respect to every trained variable."""
    trained, (x, y, shares) = subject.trained, subject.batches[0]
    subject.set_step(0)
    match keras.backend.backend():
        case "tensorflow":
            import tensorflow as tf

            with tf.GradientTape() as tape:
                outputs = trained(x, training=True)
                loss = trained.compute_loss(x, y, outputs, shares)
            return loss, tape.gradient(loss, [v.value for v in trained.trainable_variables])
        case "jax":
            import jax

            function = jax.value_and_grad(trained.compute_loss_and_updates, has_aux=True)
            owned = (trained.trainable_variables, trained.non_trainable_variables, trained.metrics_variables)
            states = [[v.value for v in variables] for variables in owned]
            kept = [v.value for v in trained.optimizer.variables]
            (loss, _), gradients = function(*states, x, y, shares, training=True, optimizer_variables=kept)
            return loss, gradients
        case _:
            outputs = trained(x, training=True)
            loss = trained.compute_loss(x, y, outputs, shares)
            trained.zero_grad()
            loss.backward()
            return loss, [v.value.grad for v in trained.trainable_variables]


def weights(prefix: str, subject: Subject) -> Arrays:
    """Every weight and statistic as `prefix/layer/name`."""

    found = {}
    for layer in leaves(subject.model):
        for name, array in weight_layout.arrays(layer).items():
            found["/".join((prefix, *weight_layout.unit(layer, name)))] = np.array(array)
    return found


def of_trained(prefix: str, subject: Subject, values: Sequence[Any]) -> Arrays:
    """Something of every trained variable, in Keras's order, as `prefix/layer/name`."""

    owners = {
        id(v): (layer, name)
        for layer in leaves(subject.model)
        for name, v in weight_layout.tensors(layer).items()
    }
    found = {}
    for variable, value in zip(subject.trained.trainable_variables, values, strict=False):
        layer, name = owners[id(variable)]
        found["/".join((prefix, *weight_layout.unit(layer, name)))] = np.array(
            weight_layout.keras_layout(layer, name, value)
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
