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
    shapes, trainable = {}, {}
    for operation in leaves(subject.model):
        for unit, found in weight_layout.units(operation).items():
            shapes[unit] = {name: list(weight.value.shape) for name, weight in found.items()}
            trainable[unit] = bool(getattr(operation, "trainable_variables", []))
    layers = [
        {
            "name": one.name,
            "kind": one.kind,
            "shape": None if one.output is None else list(one.output.shape[1:]),
            "settings": one.settings,
            "inputs": list(one.inputs),
            "weights": shapes.get(one.name, {}),
            "trainable": trainable.get(one.name, False),
            "flattened": False,
        }
        for one in recording.seen
    ]
    seen = {one.name for one in recording.seen}
    unused = sorted(name for name, found in shapes.items() if found and name not in seen)
    return tracing.structure(layers, count_parameters(subject.model), unused)


def numbers(subject: Subject) -> Arrays:
    """Every array of the trace; the model ends as its last step left it."""
    with subject.repeatable():
        return _numbers(subject)


def _numbers(subject: Subject) -> Arrays:
    trained = subject.trained
    arrays = weights("initial", subject)
    recording, outputs = subject.record(training=False)
    arrays |= recording.outputs("eval")
    arrays["outputs"] = keras.ops.convert_to_numpy(outputs)
    before = trained.get_weights()
    recording, _ = subject.record(training=True)
    arrays |= recording.outputs("train")
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
            optimizer = trained.optimizer
            for name, attribute in (("momentums", "_momentums"), ("velocities", "_velocities")):
                arrays |= of_trained(name, subject, getattr(optimizer, attribute, []))
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
            adam = [v.value for v in trained.optimizer.variables]
            (loss, _), gradients = function(*states, x, y, shares, training=True, optimizer_variables=adam)
            return loss, gradients
        case _:
            outputs = trained(x, training=True)
            loss = trained.compute_loss(x, y, outputs, shares)
            trained.zero_grad()
            loss.backward()
            return loss, [v.value.grad for v in trained.trainable_variables]


def weights(prefix: str, subject: Subject) -> Arrays:
    """Every weight and statistic as `prefix/layer/name`."""

    return {
        f"{prefix}/{layer}/{name}": np.array(weight.value)
        for operation in leaves(subject.model)
        for layer, found in weight_layout.units(operation).items()
        for name, weight in found.items()
    }


def of_trained(prefix: str, subject: Subject, values: Sequence[Any]) -> Arrays:
    """Something of every trained variable, in Keras's order, as `prefix/layer/name`."""

    owners = {
        id(weight.variable): (f"{prefix}/{layer}/{name}", weight)
        for operation in leaves(subject.model)
        for layer, found in weight_layout.units(operation).items()
        for name, weight in found.items()
    }
    arrays = {}
    for variable, value in zip(subject.trained.trainable_variables, values, strict=False):
        key, weight = owners[id(variable)]
        arrays[key] = np.array(weight.of(value))
    return arrays


if __name__ == "__main__":
    sys.exit(main())
