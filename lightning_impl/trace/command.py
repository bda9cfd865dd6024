"""python -m lightning_impl.trace.command REQUEST.json OUT: what a model does, layer by layer and step by
step.

Writes OUT/structure.json and OUT/arrays.npz in Keras's names and layout, for `parity` to compare. A request
holds `experiment`, the configuration of one of this project's models, or `build`, a user's
`package.module:function`, with `inputs` (an .npy file), `weights` (an arrays.npz of the other side) and
`layers` (which of its layers has the weights of which of this side's).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import parametrize

from experiment.protocols import trace as tracing
from experiment.protocols.trace import Arrays, Request
from lightning_impl.layers import weight_layout
from lightning_impl.layers.layer_type import Weight, Weights
from lightning_impl.precision import numerics
from lightning_impl.trace.optimizer import Path, facts, slots
from lightning_impl.trace.target import Subject, hand_over, users


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return tracing.run(sys.argv[1:] if argv is None else argv, trace, Tracer)


class Tracer:
    """A user's model as `python -m parity` asks about it, in the precision of the request."""

    def __init__(self, request: Request) -> None:
        self.request, self._numerics = request, ExitStack()
        self._numerics.enter_context(numerics(request.experiment))
        torch.use_deterministic_algorithms(True, warn_only=True)
        self.subject = users(request)

    def describe(self) -> tuple[dict[str, Any], Arrays]:
        """The structure, and the weights as built; raises TraceError."""
        return describe(self.subject), weights("own", self.subject)

    def trace(self, handover: dict[str, Any]) -> Arrays:
        """Every array of the trace, from the weights of Keras's that `handover` names."""
        hand_over(self.subject, self.request, handover["weights"], handover["layers"])
        return numbers(self.subject)

    def rebuild(self, seed: int, precision: str) -> Arrays:
        """The weights of the model built anew under a seed, in a precision."""
        request = tracing.in_precision(self.request, precision)
        with numerics(request.experiment):
            anew = users(request, seed)
            describe(anew)  # finds which features a flattening put in torch's order
            return weights("own", anew)


def trace(request: Request) -> tuple[dict[str, Any], Arrays]:
    """The structure and the arrays that the request asks for; raises TraceError and DataError."""
    with numerics(request.experiment):
        torch.use_deterministic_algorithms(True, warn_only=True)
        if request.build is None:
            from lightning_impl.trace.own import own  # what a user's model does without

            subject, arrays = own(request)
        else:
            subject, arrays = users(request), {}
        structure = describe(subject)
        if request.steps:
            arrays |= numbers(subject)
    return structure, arrays


def describe(subject: Subject) -> dict[str, Any]:
    """The model's layers in the order in which they act, and its parameter counts; raises TraceError."""
    recording, _ = subject.scan()
    layers = [
        {
            "name": one.name,
            "kind": one.kind,
            "shape": None if one.output is None else list(one.output.shape[1:]),
            "settings": one.settings,
            "inputs": list(one.inputs),
            "weights": _shapes(weights := subject.weights.get(one.name, {})),
            "trainable": any(_trains(weight) for weight in weights.values()),
            "flattened": one.name in subject.flattened,
            "computed": [name for name, weight in weights.items() if weight.is_computed],
        }
        for one in recording.seen
    ]
    subject.notes += [
        f"torch computes the {weight} of {layer['name']} from other parameters: it is compared and loaded as "
        "computed, and trained by these"
        for layer in layers
        for weight in layer["computed"]
    ]
    reordered = [layer["name"] for layer in layers if layer["flattened"] and layer["weights"]]
    if reordered:
        subject.notes.append(
            f"torch flattens channel first before {', '.join(reordered)}: its weights are compared in "
            "Keras's order of features. Reorder Keras's when you load them, or flatten as Keras does: "
            "x.permute(0, 2, 3, 1).flatten(1)"
        )
    seen = {one.name for one in recording.seen}
    untouched, uncovered = _left_over(subject)
    unused = sorted({*(name for name in subject.weights if name not in seen), *untouched})
    structure = tracing.structure(layers, count_parameters(subject), unused, uncovered, subject.notes)
    return structure | {"optimizer": facts(subject.training, subject.weights)}


def count_parameters(subject: Subject) -> dict[str, int]:
    """Parameters, total and trainable, as Keras counts them.

    Two that are added are one, and a tensor that is held beside one that trains, as the second bias of a
    GRU written from one that resets before, is a constant.
    """
    sizes: dict[tuple[int, ...], tuple[int, bool]] = {}
    for weights in subject.weights.values():
        for weight in weights.values():
            # Slices of one tensor differ in their places; a tensor that acts twice is one.
            places = weight.order if not weight.is_computed else None
            start = () if places is None else tuple(places.flatten()[:1].tolist())
            key = (*(id(parameter) for parameter in weight.parameters), weight.value.numel(), *start)
            held = 0 if weight.is_computed else sum(t.numel() for t in weight.tensors if not t.requires_grad)
            size = weight.value.numel()
            sizes[key] = (size - held if _trains(weight) and held < size else size), _trains(weight)
    return tracing.parameter_counts(list(sizes.values()))


def _shapes(weights: Weights) -> dict[str, list[int]]:
    return {name: list(weight.value.shape) for name, weight in weights.items()}


def _trains(weight: Weight) -> bool:
    return any(parameter.requires_grad for parameter in weight.parameters)


def _left_over(subject: Subject) -> tuple[list[str], list[dict[str, Any]]]:
    """The modules whose parameters no layer has: those that no input reaches, and those without a rule."""
    claimed = {
        id(parameter)
        for weights in subject.weights.values()
        for weight in weights.values()
        for parameter in weight.parameters
    }
    untouched, uncovered = [], []
    for path, module in subject.model.named_modules():
        own = {
            name: parameter
            for name, parameter in module.named_parameters(recurse=False)
            if id(parameter) not in claimed
        }
        touched = {n: list(p.shape) for n, p in own.items() if f"{path}.{n}".strip(".") in subject.touched}
        name = path or type(module).__name__
        if touched:
            uncovered.append({"name": name, "kind": type(module).__name__, "weights": touched})
        elif own:
            untouched.append(name)
    return untouched, uncovered


def numbers(subject: Subject) -> Arrays:
    """Every array of the trace; the model ends as its last step left it."""
    with subject.repeatable():
        return _numbers(subject)


def _numbers(subject: Subject) -> Arrays:
    model = subject.model
    arrays = weights("initial", subject)
    recording, outputs = subject.record(training=False)
    arrays |= recording.outputs("eval") | {f"steps/{name}": a for name, a in recording.steps.items()}
    arrays |= {f"mask/{name}": mask for name, mask in recording.masks.items()}
    for place, output in enumerate(outputs):
        arrays[f"outputs/{place}" if place else "outputs"] = output.numpy(force=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with parametrize.cached():
        _keep_gradients(subject)
        recording, outputs = subject.record(training=True)
        arrays |= recording.outputs("train")
        loss = (
            subject.loss(outputs, subject.batches[0][1]) if subject.own_loss is None else subject.loss_at(0)
        )
        if loss.requires_grad:
            loss.backward()
        arrays["loss"] = loss.numpy(force=True)
        arrays |= of_trained("gradient", subject, lambda tensor: tensor.grad)
    model.load_state_dict(before)
    if subject.training.optimizer is not None and loss.requires_grad:
        arrays |= _steps(subject, arrays)
    arrays["notes"] = np.array(subject.notes, dtype=str)  # those of training, too
    if not subject.dropout:  # which may have come with Keras's weights
        arrays["optimizer"] = np.array(json.dumps(facts(subject.training, subject.weights)))
    return arrays


def _steps(subject: Subject, arrays: Arrays) -> Arrays:
    """What the steps of training make of the weights whose arrays are there as `initial`."""
    training, losses, steps = subject.training, [], Arrays()
    path = Path({} if subject.dropout else subject.weights, training.optimizer)
    for index in range(len(subject.batches)):
        loss, begins = subject.loss_at(index), training.begins
        if begins:
            training.optimizer.zero_grad()
        loss.backward()
        path.gradients(begins)
        training.clip()
        path.clipped()
        training.step()
        path.stepped()
        losses.append(loss.item())
        if index == 0:
            steps |= tracing.changed(weights("step", subject), arrays)
            for slot, values in slots(training.optimizer).items():
                steps |= of_trained(slot, subject, values.get)
    steps["losses"] = np.array(losses)
    return steps | path.arrays() | tracing.changed(weights("final", subject), arrays)


def _keep_gradients(subject: Subject) -> None:
    """Let weights that parametrizations compute keep their gradients, as parameters do."""
    for found in subject.weights.values():
        for tensor in (tensor for weight in found.values() for tensor in weight.tensors):
            if tensor.requires_grad and not tensor.is_leaf:
                tensor.retain_grad()


def weights(prefix: str, subject: Subject) -> Arrays:
    """Every weight and statistic as `prefix/layer/name`."""
    return {
        f"{prefix}/{layer}/{name}": np.array(
            weight_layout.keras_layout(weight, weight.value, subject.flattened.get(layer))
        )
        for layer, found in subject.weights.items()
        for name, weight in found.items()
    }


def of_trained(prefix: str, subject: Subject, of: Callable[[Any], Tensor | None]) -> Arrays:
    """Something of every trained parameter as `prefix/layer/name`; what is None is left out."""
    return {
        f"{prefix}/{layer}/{name}": np.array(
            weight_layout.keras_layout(weight, value, subject.flattened.get(layer))
        )
        for layer, found in subject.weights.items()
        for name, weight in found.items()
        if weight.tensors[0].requires_grad and (value := weight.of(of)) is not None
    }


if __name__ == "__main__":
    sys.exit(main())
