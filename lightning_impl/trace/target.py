"""What a trace looks at: this project's model on its data, or a user's model, with all that trains it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiment import randomness
from experiment.config import Experiment
from experiment.data.dataset import load as load_data
from experiment.protocols import trace
from experiment.protocols.faults import told
from experiment.protocols.trace import Arrays, Request, TraceError
from experiment.training.lifecycle import class_weights
from lightning_impl.classifier import Classifier
from lightning_impl.data import DataModule, to_float
from lightning_impl.dropout import SharedDropout
from lightning_impl.keras_semantics import Adam
from lightning_impl.layers import weight_layout
from lightning_impl.precision import use_gpu
from lightning_impl.trace.recorder import Recording, without_dropout


@dataclass
class Subject:
    """A model with all that trains it.

    batches: (inputs, labels) as trained on. plain: the first batch's inputs, not augmented. finish: what
    makes a model's outputs those that its user gets. dropout: whether its masks are shared with the other
    side. The other fields are those of Recording.
    """

    model: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    optimizer: Any
    batches: list[tuple[Tensor, Tensor]]
    plain: Tensor
    finish: Callable[[Tensor], Tensor] = lambda outputs: outputs
    aligned: bool = False
    dropout: bool = True
    flattened: dict[str, np.ndarray] = field(default_factory=dict)

    def record(self, training: bool, index: int = 0) -> tuple[Recording, Tensor]:
        """One pass over a batch: the Recording, and the outputs."""
        self.set_step(index)
        self.model.train(training)
        with Recording(self.model, self.aligned) as recording:
            if training:
                outputs = self.model(self.batches[index][0])
            else:
                with torch.no_grad():
                    outputs = self.finish(self.model(self.plain))
                self.flattened = recording.flattened
        return recording, outputs

    def repeatable(self) -> AbstractContextManager[None]:
        """Until it is left, training draws nothing that the other side does not draw, too."""
        return nullcontext() if self.dropout else without_dropout(self.model)

    def set_step(self, index: int) -> None:
        """Dropout masks shared between the sides are those of this step from here on."""
        for module in self.model.modules():
            if isinstance(module, SharedDropout):
                module.step = index

    def layers(self) -> dict[str, nn.Module]:
        """The layers that have no layers in them, by the names that the Recording gives them."""
        return {
            name.rsplit(".", 1)[-1] if self.aligned else name: module
            for name, module in self.model.named_modules()
            if not any(True for _ in module.children())
        }


def own(request: Request) -> tuple[Subject, Arrays]:
    """This project's model on its real data, and what the data module made of the first two epochs."""
    experiment = request.experiment
    device = torch.device("cuda" if use_gpu(experiment) else "cpu")
    dataset = load_data(experiment.data, experiment.seed)
    weights = class_weights(experiment, dataset)
    classifier = Classifier(experiment.model_dump(), len(dataset.class_names), weights).to(device)
    data = DataModule(dataset, experiment, device, torch.get_default_dtype())
    batches: list[tuple[Tensor, Tensor]] = []
    arrays: Arrays = {}
    loader: Any = data.train_dataloader()
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        plain = [data.on_after_batch_transfer(batch, 0) for batch in loader]
        arrays |= trace.epoch(
            epoch, [(images.movedim(1, -1).numpy(force=True), labels.numpy()) for images, labels in plain]
        )
        for step, (images, labels) in enumerate(plain):
            if len(batches) < max(request.steps, 1):
                batches.append((data.augmented(images, epoch, step).to(device), labels.to(device)))
    loader.sampler.set_epoch(0)
    first = data.on_after_batch_transfer(next(iter(loader)), 0)[0].to(device)
    arrays["data/augmented"] = batches[0][0].movedim(1, -1).numpy(force=True)

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return classifier.loss(logits, labels, classifier.class_weights)

    def finish(logits: Tensor) -> Tensor:
        return F.softmax(logits, dim=1)

    optimizer = classifier.configure_optimizers()
    return Subject(classifier.network, loss, optimizer, batches, first, finish, aligned=True), arrays


def users(request: Request, seed: int | None = None) -> Subject:
    """A user's model, built under the seed of the experiment or another; raises TraceError."""
    torch.manual_seed(request.experiment.seed if seed is None else seed)
    model = users_model(request.build or "").to(torch.get_default_dtype())
    inputs = to_torch(request.inputs())
    try:
        with torch.no_grad():
            outputs = model.eval()(inputs)  # also gives lazy layers their shapes
    except Exception as error:  # whatever the user's model raises
        raise TraceError(f"{request.build}: fails on inputs {tuple(inputs.shape)}: {told(error)}") from error
    if not isinstance(outputs, Tensor):
        raise TraceError(f"{request.build}: gives {type(outputs).__name__}, one tensor was expected")
    shape = tuple(outputs.shape)
    shape = (shape[0], *shape[2:], shape[1]) if len(shape) == 4 else shape
    kind = request.loss(shape)
    labels = to_torch(randomness.targets(request.experiment.seed, shape, kind))
    batches = [(inputs[part], labels[part]) for part in trace.parts(len(inputs), request.steps)]
    subject = Subject(model, LOSSES[kind], None, batches, batches[0][0], dropout=False)
    subject.optimizer = users_optimizer(model, request.experiment)
    return subject


def built(name: str) -> nn.Module:
    """The torch module that `package.module:function` builds; raises TraceError."""
    model = trace.build(name)
    if not isinstance(model, nn.Module):
        raise TraceError(f"{name}: gives {trace.described(model)}; it must return a torch.nn.Module")
    return model


def users_model(name: str) -> nn.Module:
    """As `built`; TraceError too for weights that no layer holds, since Keras can have none there."""
    model = built(name)
    for path, module in model.named_modules():
        own = [weight for weight, _ in module.named_parameters(recurse=False)]
        if own and any(True for _ in module.children()):
            raise TraceError(
                f"{name}: {path or 'the model'} ({type(module).__name__}) has weights of its own beside its "
                f"layers ({', '.join(own)}): move them into a layer that Keras has, too"
            )
    return model


def users_optimizer(model: nn.Module, experiment: Experiment) -> Any:
    """What a LightningModule configures, else Keras's Adam at the configured learning rate."""
    optimizer, _ = configured(model)
    if optimizer is not None:
        return optimizer
    return Adam([p for p in model.parameters() if p.requires_grad], lr=experiment.training.learning_rate)


def configured(model: nn.Module) -> tuple[Any, Any]:
    """The first optimizer and the first scheduler that configure_optimizers gives, in any of its forms.

    None for what there is not. Raises TraceError where it fails.
    """
    try:
        given: Any = model.configure_optimizers() if isinstance(model, pl.LightningModule) else None
    except Exception as error:  # whatever the user's function raises
        raise TraceError(f"configure_optimizers fails: {told(error)}") from error
    schedulers: Any = None
    if isinstance(given, tuple | list) and given and isinstance(given[0], tuple | list):
        given, schedulers = given[0], given[1]  # lists of both
    if isinstance(given, tuple | list):
        given = given[0] if given else None
    if isinstance(given, dict):
        given, schedulers = given["optimizer"], given.get("lr_scheduler")
    if isinstance(schedulers, tuple | list):
        schedulers = schedulers[0] if schedulers else None
    return given, schedulers["scheduler"] if isinstance(schedulers, dict) else schedulers


def hand_over(subject: Subject, weights: str, layers: Mapping[str, str]) -> None:
    """Give each layer the weights of Keras's layer that `layers` names; raises TraceError.

    weights: a weights.npz of Keras's side. Where Keras's model gives probabilities and this one their logits,
    its outputs are finished by a softmax.
    """
    subject.record(training=False)  # finds which features a flattening put in torch's order
    theirs: dict[str, Arrays] = {}
    with np.load(weights) as arrays:
        outputs = arrays["outputs"]
        for key in arrays.files:
            if key.startswith("initial/"):
                layer, name = key.removeprefix("initial/").rsplit("/", 1)
                theirs.setdefault(layer, {})[name] = arrays[key]
    for name, theirs_name in layers.items():
        layer = subject.layers().get(name)
        if layer is None or not weight_layout.weights(layer):
            continue  # a function, or a layer without weights
        try:
            weight_layout.load(layer, theirs[theirs_name], subject.flattened.get(name))
        except ValueError as error:
            raise TraceError(f"layer {name} cannot take the weights of {theirs_name}: {error}") from error
    if trace.are_probabilities(outputs):
        _, ours = subject.record(training=False)
        if not trace.are_probabilities(ours.numpy(force=True)):
            subject.finish = partial(F.softmax, dim=-1)


def to_torch(inputs: np.ndarray) -> Tensor:
    """Inputs (N, ...) with images channels last -> in torch's layout and the default float type."""
    tensor = torch.from_numpy(inputs)
    if tensor.is_floating_point():
        tensor = tensor.to(torch.get_default_dtype())
    return to_float(tensor, tensor.dtype) if tensor.dim() == 4 else tensor


def crossentropy(outputs: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of logits, or of probabilities, which are told by their sums; averaged over the batch."""
    if trace.are_probabilities(outputs.numpy(force=True)):
        return F.nll_loss(outputs.log(), labels)
    return F.cross_entropy(outputs, labels)


LOSSES = {"crossentropy": crossentropy, "mse": F.mse_loss}
