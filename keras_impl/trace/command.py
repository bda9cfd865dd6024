"""python -m keras_impl.trace.command REQUEST.json OUT: what a model does, layer by layer and step by step.

Writes OUT/structure.json and OUT/arrays.npz in Keras's names and layout, for `parity` to compare. A request
holds `experiment`, the configuration of one of this project's models, or `build`, a user's
`package.module:function` or .keras file, with `inputs` (an .npy file).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import keras
import numpy as np

from experiment.protocols import trace as tracing
from experiment.protocols.trace import Arrays, Request
from keras_impl.layers import weight_layout
from keras_impl.precision import numerics
from keras_impl.trace import optimizer as training
from keras_impl.trace.recorder import named_leaves, without_record
from keras_impl.trace.signature import arrays_of
from keras_impl.trace.target import Subject, on_inputs, users, weights


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return tracing.run(sys.argv[1:] if argv is None else argv, trace, Tracer)


class Tracer:
    """A user's model as `python -m parity` asks about it, in the precision of the request."""

    def __init__(self, request: Request) -> None:
        self.request, self._numerics = request, ExitStack()
        self._numerics.enter_context(numerics(request.experiment))
        self.subject = users(request)

    def describe(self) -> tuple[dict[str, Any], Arrays]:
        """The structure, and the weights as built and as traced; raises TraceError."""
        raw = {f"raw/{i}": array for i, array in enumerate(self.subject.model.get_weights())}
        initial = weights("initial", self.subject.model)
        return describe(self.subject), self.subject.own | initial | raw

    def trace(self, handover: dict[str, Any]) -> Arrays:
        """Every array of the trace; the weights stay Keras's own."""
        return numbers(self.subject)

    def rebuild(self, seed: int, precision: str) -> Arrays:
        """The weights of the model built anew under a seed, in a precision."""
        with numerics(tracing.in_precision(self.request, precision).experiment):
            return weights("own", on_inputs(self.request, seed)[0])


def trace(request: Request) -> tuple[dict[str, Any], Arrays]:
    """The structure and the arrays that the request asks for; raises TraceError and DataError."""

    with numerics(request.experiment):
        if request.build is None:
            from keras_impl.trace.own import own  # what a user's model does without

            subject, arrays = own(request)
        else:
            subject, arrays = users(request), {}
        structure = describe(subject)
        if request.steps:
            arrays |= numbers(subject)
    return structure, arrays


def describe(subject: Subject) -> dict[str, Any]:
    """The model's layers in the order in which they act, and its parameter counts; raises TraceError."""

    recording = subject.scanned or subject.record(training=False)[0]
    shapes, trainable = {}, {}
    for name, operation in recording.operations.items():
        for unit, found in weight_layout.units(name, operation).items():
            shapes[unit] = {weight: list(view.value.shape) for weight, view in found.items()}
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
    counts = count_parameters(subject.model)
    structure = tracing.structure(layers, counts, unused, uncovered(subject.model), subject.notes)
    structure |= {"losses": [asdict(term) for term in subject.losses], "endings": subject.endings}
    if not subject.dropout:
        structure |= {
            "optimizer": training.facts(subject.trained, len(subject.batches))
            | {"compiled": subject.compiled},
            "penalties": training.penalties(subject.model),
        }
    return structure


def count_parameters(model: Any) -> dict[str, int]:
    """Parameters, total and trainable, without what is no weight to both sides (constants, random states)."""
    trained = {id(v) for v in model.trainable_variables}
    return tracing.parameter_counts(
        [
            (math.prod(weight.variable.shape), id(weight.variable) in trained)
            for name, operation in named_leaves(model).items()
            for found in weight_layout.units(name, operation).values()
            for weight in found.values()
        ]
    )


def uncovered(model: Any) -> list[dict[str, Any]]:
    """The layers with weights that no record says how to compare, as name, kind and weights."""
    return [
        {"name": name, "kind": type(layer).__name__, "weights": {v.name: list(v.shape) for v in variables}}
        for name, (layer, variables) in without_record(model).items()
    ]


def numbers(subject: Subject) -> Arrays:
    """Every array of the trace; the model ends as its last step left it."""
    with subject.repeatable():
        return _numbers(subject)


def _numbers(subject: Subject) -> Arrays:
    trained = subject.trained
    arrays = weights("initial", subject.model)
    recording, outputs = subject.record(training=False)
    arrays |= recording.outputs("eval") | {f"mask/{name}": mask for name, mask in recording.masks.items()}
    arrays |= arrays_of(outputs)
    if not subject.dropout and hasattr(subject.plain, "shape"):
        arrays["inputs"] = np.asarray(subject.plain)
    before = trained.get_weights()
    recording, outputs = subject.record(training=True)
    arrays |= recording.outputs("train")
    if not subject.dropout:
        arrays |= _of_the_loss(subject, outputs)
    trained.set_weights(before)
    loss, gradients = gradient(subject)
    trained.set_weights(before)
    arrays["loss"] = keras.ops.convert_to_numpy(loss)
    arrays |= of_trained("gradient", subject, gradients)
    return arrays | _steps(subject, arrays) if trained.trainable_variables else arrays


def _of_the_loss(subject: Subject, outputs: Any) -> Arrays:
    """What the loss of the first batch is made of: outputs and targets of each output, and the penalties."""
    given = list(arrays_of(outputs).values())
    _, targets, shares = subject.batches[0]
    targets = [targets] if len(given) == 1 else targets
    arrays = {f"loss/outputs/{place}": array for place, array in enumerate(given)}
    arrays |= {f"loss/targets/{place}": np.asarray(target) for place, target in enumerate(targets)}
    arrays |= {} if shares is None else {"loss/shares": np.asarray(shares)}
    if len(given) > 1:
        functions = subject.trained.loss
        each = [
            f(t, g) if f else keras.ops.zeros(()) for f, t, g in zip(functions, targets, given, strict=True)
        ]
        arrays["loss/each"] = np.array([float(keras.ops.convert_to_numpy(loss)) for loss in each])
    return arrays | training.penalty(subject.model)


def _steps(subject: Subject, arrays: Arrays) -> Arrays:
    """What the steps of training make of the weights whose arrays are there as `initial`."""
    trained, steps = subject.trained, Arrays()
    losses, rates, penalties = [], [], []
    with training.rows_summed(trained.optimizer) as notes:
        for step, (x, y, shares) in enumerate(subject.batches):
            subject.set_step(step)
            trained.reset_metrics()
            penalties.append(training.weight_penalty(subject.model))
            rates.append(training.learning_rate(trained.optimizer))
            losses.append(trained.train_on_batch(x, y, sample_weight=shares, return_dict=True)["loss"])
            if step == 0:
                steps |= tracing.changed(weights("step", subject.model), arrays)
                for name, kept in training.slots(trained.optimizer).items():
                    steps |= of_trained(name, subject, kept)
    steps["notes"] = np.array(notes, dtype=str)
    steps |= {"losses": np.array(losses, dtype=float), "rates": np.array(rates)}
    steps["penalties"] = np.array(penalties)
    return steps | tracing.changed(weights("final", subject.model), arrays)


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


def of_trained(prefix: str, subject: Subject, values: Sequence[Any]) -> Arrays:
    """Something of every trained variable that has it, in Keras's order, as `prefix/layer/name`."""

    given = {
        id(variable): value
        for variable, value in zip(subject.trained.trainable_variables, values, strict=False)
        if value is not None  # the gradient of what no loss depends on
    }
    return {
        f"{prefix}/{layer}/{name}": np.array(weight.of(given[id(weight.variable)]))
        for leaf, operation in named_leaves(subject.model).items()
        for layer, found in weight_layout.units(leaf, operation).items()
        for name, weight in found.items()
        if id(weight.variable) in given
    }


if __name__ == "__main__":
    sys.exit(main())
