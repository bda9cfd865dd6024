"""What a trace looks at: this project's model on its data, or a user's model, with all that trains it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from experiment import randomness
from experiment.protocols import trace
from experiment.protocols.faults import told
from experiment.protocols.trace import Arrays, LossTerm, Request, TraceError
from lightning_impl.dropout import SharedDropout
from lightning_impl.layers import rules, weight_layout
from lightning_impl.layers.apart import take_apart
from lightning_impl.layers.layer_type import Weights
from lightning_impl.layers.registry import layer_type
from lightning_impl.trace.losses import finished, has_own_loss, loss_of, own_loss, rows_of
from lightning_impl.trace.optimizer import Training, exact_settings, users_training
from lightning_impl.trace.precision import WithoutCasts, in_one_precision
from lightning_impl.trace.recorder import IMAGES, Recording, without_dropout
from lightning_impl.trace.signature import Inputs, inputs_of, outputs_of, to_float
from lightning_impl.trace.stand_in import as_keras


@dataclass
class Subject:
    """A model with all that trains it.

    batches: (inputs, labels) as trained on; plain: the first batch's inputs, not augmented. Both are what
    `call` gives to the model. finish: what makes a model's outputs those that its user gets. dropout: whether
    its masks are shared with the other side. notes: on how the model is traced. weights, flattened and
    touched: as the last Recording in evaluation has them. scanned: of a user's model, see `scan`. own_loss:
    of a batch by its number, as a LightningModule's training_step has it.
    """

    model: nn.Module
    loss: Callable[[Any, Any], Tensor]
    training: Training
    batches: list[tuple[Any, Any]]
    plain: Any
    finish: Callable[[Any], Any] = lambda outputs: outputs
    call: Callable[[nn.Module, Any], Any] = lambda model, inputs: model(inputs)
    aligned: bool = False
    dropout: bool = True
    channels: Mapping[int, int] = field(default_factory=lambda: IMAGES)
    notes: list[str] = field(default_factory=list)
    flattened: dict[str, np.ndarray] = field(default_factory=dict)
    weights: dict[str, Weights] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)
    scanned: tuple[Recording, Any] | None = None
    own_loss: Callable[[int], Tensor] | None = None

    def record(self, training: bool, index: int = 0) -> tuple[Recording, Any]:
        """One pass over a batch: the Recording, and the outputs."""
        self.set_step(index)
        self.model.train(training)
        with parametrize.cached(), Recording(self.model, self.aligned, self.channels) as recording:
            if training:
                outputs = self.call(self.model, self.batches[index][0])
            else:
                with torch.no_grad():
                    outputs = self.finish(self.call(self.model, self.plain))
                self.take_up(recording)
        return recording, outputs

    def scan(self) -> tuple[Recording, Any]:
        """What is known of a user's model before it is traced, from a pass of few samples in evaluation."""
        return self.record(training=False) if self.scanned is None else self.scanned

    def take_up(self, recording: Recording) -> None:
        """Know the weights that a Recording in evaluation found."""
        self.flattened, self.touched = recording.flattened, recording.touched
        self.weights = self._all_weights(recording)

    def _all_weights(self, recording: Recording) -> dict[str, Weights]:
        """Those of every layer that acted, and of every module of a kind that is known and did not."""
        weights = {name: found for name, found in recording.weights.items() if found}
        claimed = {
            id(p) for found in weights.values() for weight in found.values() for p in weight.parameters
        }
        for name, module in self.model.named_modules():
            known = layer_type(module)
            idle = not any(id(parameter) in claimed for parameter in module.parameters())
            if known is not None and idle and (found := known.weights(module)):
                weights[name.rsplit(".", 1)[-1] if self.aligned else name] = found
        return weights

    def repeatable(self) -> AbstractContextManager[None]:
        """Until it is left, training draws nothing that the other side does not draw, too."""
        return nullcontext() if self.dropout else _repeatable(self)

    def loss_at(self, index: int) -> Tensor:
        """The loss of a batch, in training."""
        self.set_step(index)
        if self.own_loss is not None:
            return self.own_loss(index)
        inputs, labels = self.batches[index]
        return self.loss(self.call(self.model, inputs), labels)

    def set_step(self, index: int) -> None:
        """Dropout masks shared between the sides are those of this step from here on."""
        for module in self.model.modules():
            if isinstance(module, SharedDropout):
                module.step = index


@contextmanager
def _repeatable(subject: Subject) -> Iterator[None]:
    with without_dropout(subject.model), exact_settings(subject.training.optimizer, subject.notes):
        yield


def users(request: Request, seed: int | None = None) -> Subject:
    """A user's model, built under the seed of the experiment or another; raises TraceError."""
    rules.use(request.rules)
    torch.manual_seed(request.experiment.seed if seed is None else seed)
    model = built(request.build or "").to(torch.get_default_dtype())
    modules = dict(model.named_modules())
    take_apart((modules[name], count) for name, count in request.apart.items() if name in modules)
    casts = WithoutCasts(torch.get_default_dtype())
    with in_one_precision(casts):
        inputs, *scanned = inputs_of(request, model)

    def call(model: nn.Module, inputs: Inputs) -> Any:
        with in_one_precision(casts):
            return inputs(model)

    batches: list[Any] = [
        (inputs.part(part), part) for part in trace.parts(len(inputs.tensors[0]), request.steps)
    ]
    subject = Subject(
        model,
        _untold,
        Training(model, None),
        batches,
        batches[0][0],
        call=call,
        dropout=False,
        channels=inputs.channels,
        scanned=(scanned[0], scanned[1]),
    )
    subject.take_up(scanned[0])
    _hold_added(subject)
    subject.notes += casts.notes
    subject.training = users_training(model, request.experiment.training.learning_rate)
    subject.notes += subject.training.notes
    return subject


def _untold(outputs: Any, labels: Any) -> Tensor:
    """The loss before Keras's side has said which it is."""
    raise TraceError("a user's model has no loss before Keras's weights are handed over")


def _hold_added(subject: Subject) -> None:
    """Hold the second of two biases that are added at what it is: trained both, their sum moves twice as far.

    The gradient of each is that of the sum.
    """
    for name, weights in subject.weights.items():
        second = [parameter for weight in weights.values() for parameter in weight.of_added]
        for parameter in second:
            parameter.requires_grad_(False)
        if second:
            subject.notes.append(
                f"torch's {name} has two biases: their sum is compared, and the second is held while training"
            )


def built(name: str) -> nn.Module:
    """The torch module that `package.module:function` builds; raises TraceError."""
    model = trace.build(name)
    if not isinstance(model, nn.Module):
        raise TraceError(f"{name}: gives {trace.described(model)}; it must return a torch.nn.Module")
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise TraceError(f"{name}: gives a ScriptModule: give the nn.Module that it was made from")
    if "torch._dynamo" in sys.modules:  # something was compiled, and is to be seen through
        torch.compiler.set_stance("force_eager")
    original = getattr(model, "_orig_mod", model)
    return original if isinstance(original, nn.Module) else model


def hand_over(subject: Subject, request: Request, weights: str, layers: Mapping[str, str]) -> None:
    """Give each layer the weights of Keras's layer that `layers` names; raises TraceError.

    weights: a weights.npz of Keras's side, whose structure.json beside it says the loss of each output, and
    the activation that gives it.
    """
    theirs: dict[str, Arrays] = {}
    with np.load(weights) as arrays:
        for key in arrays.files:
            if key.startswith("initial/"):
                layer, name = key.removeprefix("initial/").rsplit("/", 1)
                theirs.setdefault(layer, {})[name] = arrays[key]
    for name, theirs_name in layers.items():
        if name not in subject.weights:
            continue  # without weights
        try:
            own, its = subject.weights[name], theirs.get(theirs_name, {})
            shared = own.keys() & its.keys()  # what one side is without, the structure rung tells
            weight_layout.write(
                {weight: own[weight] for weight in own if weight in shared},
                {weight: its[weight] for weight in its if weight in shared},
                subject.flattened.get(name),
            )
        except ValueError as error:
            raise TraceError(f"layer {name} cannot take the weights of {theirs_name}: {error}") from error
    structure = json.loads(Path(weights).with_name("structure.json").read_text())
    _take_loss(subject, request, [LossTerm(**term) for term in structure["losses"]], structure["endings"])
    if not subject.training.given and subject.training.optimizer is not None:
        subject.training = as_keras(subject.training, structure["optimizer"], subject.weights, layers)
        subject.notes += subject.training.notes


def _take_loss(
    subject: Subject, request: Request, terms: Sequence[LossTerm], keras_endings: Sequence[str]
) -> None:
    """Give a user's model the loss of Keras's outputs, with targets; raises TraceError."""
    recording, outputs = subject.scan()
    tensors = outputs_of(outputs)
    if len(tensors) != len(terms):
        counts = f"{_counted(len(tensors))} for Keras's {len(terms)}"
        raise TraceError(f"{request.build}: the model gives {counts}: both must give the same")
    endings = [recording.ending_of(tensor) for tensor in tensors]
    orders = [recording.order_of(tensor) for tensor in tensors]
    own_orders = [recording.own_order(tensor) for tensor in tensors]
    seed = request.experiment.seed
    targets = []
    total = max(part.stop for _, part in subject.batches)
    for place, (tensor, order, term) in enumerate(zip(tensors, orders, terms, strict=True)):
        shape = (total, *order(tensor).shape[1:])
        targets.append(to_float(randomness.targets(seed + place, shape, term.name)))
    count = len(targets)  # of a batch's labels; weights of the samples come after them
    if terms[0].sample_weights:
        targets.append(to_float(np.asarray(terms[0].sample_weights)))
    subject.batches = [(inputs, [target[part] for target in targets]) for inputs, part in subject.batches]

    def in_order(outputs: Any) -> list[Tensor]:
        found = outputs_of(outputs)
        if len(found) > len(orders):
            note = f"in training torch's model gives {_counted(len(found))}: compared "
            note += "on the first" if len(orders) == 1 else f"on the first {len(orders)}"
            subject.notes += [note] if note not in subject.notes else []
        return [order(tensor) for order, tensor in zip(orders, found, strict=False)]

    subject.finish = lambda outputs: finished(in_order(outputs), endings, keras_endings)
    subject.loss = lambda outputs, labels: loss_of(
        in_order(outputs), labels[:count], terms, endings, keras_endings, *labels[count:]
    )
    if not has_own_loss(subject.model):
        return
    if any(term.stands_in for term in terms):
        subject.notes.append("torch's training_step was not run: Keras's own loss is not traced, either")
        return

    def own(index: int, rows: bool = False) -> Tensor:
        inputs, given = subject.batches[index]
        labels = [own_order(label) for own_order, label in zip(own_orders, given[:count], strict=True)]
        if rows:
            labels = [rows_of(label, tensor) for label, tensor in zip(labels, tensors, strict=True)]
        with in_one_precision(casts):
            return own_loss(subject.model, inputs, labels, index, *given[count:])

    casts = WithoutCasts(torch.get_default_dtype())
    failure = _tried(subject, own)
    if failure is not None and all(term.one_hot for term in terms):
        as_rows = partial(own, rows=True)
        if _tried(subject, as_rows) is None:
            own, failure = as_rows, None
    batch = "inputs, targets, sample weights" if terms[0].sample_weights else "inputs, targets"
    if failure is None:
        subject.own_loss = own
        subject.notes.append(f"torch's loss is that of its training_step(({batch}), batch_idx)")
    else:
        subject.notes.append(
            f"torch's training_step cannot be called without a Trainer, on ({batch}): {failure}; "
            "its loss is that of --loss in its place"
        )


def _tried(subject: Subject, own: Callable[[int], Tensor]) -> str | None:
    """Why a model's own loss of the first batch cannot be had; None where it can."""
    buffers = {name: value.clone() for name, value in subject.model.named_buffers()}
    try:
        subject.model.train()
        with torch.enable_grad():
            own(0)
    except Exception as error:  # whatever the user's training_step raises
        return told(error)
    finally:
        with torch.no_grad():
            for name, value in subject.model.named_buffers():
                value.copy_(buffers[name]) if name in buffers else None
    return None


def _counted(count: int) -> str:
    return f"{count} output{'' if count == 1 else 's'}"
