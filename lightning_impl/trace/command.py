"""python -m lightning_impl.trace.command REQUEST.json OUT: what a model does, layer by layer and step by
step.

Writes OUT/structure.json and OUT/arrays.npz in Keras's names and layout, for `parity` to compare. A request
holds `experiment`, the configuration of one of this project's models, or `build`, a user's
`package.module:function`, with `inputs` (an .npy file), `weights` (an arrays.npz of the other side) and
`layers` (which of its layers has the weights of which of this side's).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiment.protocols import trace as tracing
from experiment.protocols.trace import Arrays, Request, TraceError
from lightning_impl.layers import weight_layout
from lightning_impl.model import count_parameters
from lightning_impl.precision import numerics
from lightning_impl.trace.target import Subject, hand_over, own, users


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
        hand_over(self.subject, handover["weights"], handover["layers"])
        return numbers(self.subject)

    def rebuild(self) -> Arrays:
        """The weights of the model built anew under another seed."""
        anew = users(self.request, seed=self.request.experiment.seed + 1)
        describe(anew)  # finds which features a flattening put in torch's order
        return weights("own", anew)


def trace(request: Request) -> tuple[dict[str, Any], Arrays]:
    """The structure and the arrays that the request asks for; raises TraceError and DataError."""
    with numerics(request.experiment):
        torch.use_deterministic_algorithms(True, warn_only=True)
        subject, arrays = own(request) if request.build is None else (users(request), {})
        structure = describe(subject)
        if request.steps:
            arrays |= numbers(subject)
    return structure, arrays


def describe(subject: Subject) -> dict[str, Any]:
    """The model's layers in the order in which they act, and its parameter counts; raises TraceError."""
    recording, _ = subject.record(training=False)
    modules = subject.layers()
    shapes = {name: _shapes(name, module) for name, module in modules.items()}
    layers = [
        {
            "name": one.name,
            "kind": one.kind,
            "shape": list(one.output.shape[1:]),
            "settings": one.settings,
            "inputs": list(one.inputs),
            "weights": shapes.get(one.name, {}),
            "trainable": one.name in modules and any(p.requires_grad for p in modules[one.name].parameters()),
            "flattened": one.name in subject.flattened,
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
    model = subject.model
    arrays = weights("initial", subject)
    recording, outputs = subject.record(training=False)
    arrays |= {f"eval/{one.name}": one.output for one in recording.seen}
    arrays["outputs"] = recording.outputs(outputs)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    recording, outputs = subject.record(training=True)
    arrays |= {f"train/{one.name}": one.output for one in recording.seen}
    loss = subject.loss(outputs, subject.batches[0][1])
    loss.backward()
    arrays["loss"] = loss.numpy(force=True)
    arrays |= of_trained("gradient", subject, lambda parameter: parameter.grad)
    model.load_state_dict(before)
    losses = []
    optimizer = subject.optimizer
    for step, (inputs, labels) in enumerate(subject.batches):
        subject.set_step(step)
        loss = subject.loss(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step == 0:
            arrays |= tracing.changed(weights("step", subject), arrays)
            arrays |= of_trained("momentums", subject, lambda p: optimizer.state[p].get("exp_avg"))
            arrays |= of_trained("velocities", subject, lambda p: optimizer.state[p].get("exp_avg_sq"))
    arrays["losses"] = np.array(losses)
    return arrays | tracing.changed(weights("final", subject), arrays)


def weights(prefix: str, subject: Subject) -> Arrays:
    """Every weight and statistic as `prefix/layer/name`."""
    return {
        f"{prefix}/{layer}/{name}": np.array(array)
        for layer, module in subject.layers().items()
        for name, array in weight_layout.arrays(module, subject.flattened.get(layer)).items()
    }


def of_trained(prefix: str, subject: Subject, of: Callable[[Any], Tensor | None]) -> Arrays:
    """Something of every trained parameter as `prefix/layer/name`; what is None is left out."""
    return {
        f"{prefix}/{layer}/{name}": np.array(
            weight_layout.keras_layout(weight, value, subject.flattened.get(layer))
        )
        for layer, module in subject.layers().items()
        for name, weight in weight_layout.weights(module).items()
        if weight.tensors[0].requires_grad and (value := weight.of(of)) is not None
    }


def _shapes(name: str, module: Any) -> dict[str, list[int]]:
    try:
        return {weight: list(array.shape) for weight, array in weight_layout.arrays(module).items()}
    except ValueError as error:
        raise TraceError(f"layer {name}: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
