"""The loss that a user's model is traced with: one for each of its outputs, added up."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiment.protocols.trace import LossTerm, TraceError
from lightning_impl.semantics import losses as keras_losses
from lightning_impl.trace.signature import Inputs

# What takes outputs that end otherwise than Keras's to what Keras's are, by (Keras's ending, torch's).
FINISHES: dict[tuple[str, str], Any] = {
    ("softmax", ""): partial(F.softmax, dim=-1),
    ("softmax", "log_softmax"): torch.exp,
    ("sigmoid", ""): torch.sigmoid,
}


def finished(outputs: Sequence[Tensor], endings: Sequence[str], keras_endings: Sequence[str]) -> list[Tensor]:
    """The outputs (N, ..., C) as Keras's are: probabilities where Keras's are and these their logits."""
    finishes = (FINISHES.get(both) for both in zip(keras_endings, endings, strict=True))
    return [
        output if finish is None else finish(output) for output, finish in zip(outputs, finishes, strict=True)
    ]


def loss_of(
    outputs: Sequence[Tensor],
    targets: Sequence[Tensor],
    terms: Sequence[LossTerm],
    endings: Sequence[str],
    keras_endings: Sequence[str],
    shares: Tensor | None = None,
) -> Tensor:
    """The sum of every output's loss, its terms and endings being those of Keras's model.

    shares: weights of the samples (N,), if any.

    Where both models give logits, or Keras's finishes them in an activation that this one leaves out, the
    loss is reckoned from the logits.
    """
    total = torch.zeros((), dtype=outputs[0].dtype, device=outputs[0].device)
    for output, target, term, ending, theirs in zip(
        outputs, targets, terms, endings, keras_endings, strict=True
    ):
        if term.name != "none":
            losses = _term(output, target, term, ending, theirs)
            if shares is not None:
                losses = losses * shares.reshape(-1, *[1] * (losses.dim() - 1))
            total = total + term.weight * (losses.sum() if term.reduction == "sum" else losses.mean())
    return total


def _term(output: Tensor, target: Tensor, term: LossTerm, ending: str, theirs: str) -> Tensor:
    """The loss of every sample, (N, ...): of numbers, the mean over the last axis."""
    activation = {"crossentropy": "softmax", "binary": "sigmoid"}.get(term.name)
    if activation is None or (term.from_logits and theirs == activation):
        # Keras's loss takes the finished outputs as they are; for a crossentropy that is its softmax twice.
        output, ending = finished([output], [ending], [theirs])[0], ""
    match term.name:
        case "crossentropy":
            return _crossentropy(output, target, ending, term)
        case "binary":
            losses = _binary(output, target, ending, term.label_smoothing)
        case "mae":
            losses = F.l1_loss(output, target, reduction="none")
        case "huber":
            losses = F.huber_loss(output, target, delta=term.delta, reduction="none")
        case "mse":
            losses = F.mse_loss(output, target, reduction="none")
        case name:
            target = rows_of(target, output) if term.one_hot else target
            return getattr(keras_losses, name)(output, target, **term.settings)
    return losses.mean(-1)


def rows_of(classes: Tensor, outputs: Tensor) -> Tensor:
    """Class numbers (N, ...) as rows of zeros and a one, of as many as the outputs have."""
    return F.one_hot(classes.long(), outputs.shape[-1]).to(outputs.dtype)


def _crossentropy(output: Tensor, target: Tensor, ending: str, term: LossTerm) -> Tensor:
    shape = target.shape
    output, target = output.flatten(0, -2), target.flatten()
    smoothing = term.label_smoothing
    logs = output.log() if ending == "softmax" else output
    if ending in ("softmax", "log_softmax") and not smoothing:
        losses = F.nll_loss(logs, target, reduction="none")
    else:  # the softmax of logarithms is itself
        losses = F.cross_entropy(logs, target, label_smoothing=smoothing, reduction="none")
    if term.class_weights:
        losses = losses * torch.as_tensor(term.class_weights).to(losses)[target]
    return losses.reshape(shape)


def _binary(output: Tensor, target: Tensor, ending: str, smoothing: float) -> Tensor:
    target = target * (1 - smoothing) + smoothing / 2
    if ending == "sigmoid":
        return F.binary_cross_entropy(output, target, reduction="none")
    return F.binary_cross_entropy_with_logits(output, target, reduction="none")


def is_lightning(model: nn.Module) -> bool:
    """True of a LightningModule; Lightning, seconds to import, is there where the model needs it alone."""
    lightning = sys.modules.get("lightning.pytorch")
    return lightning is not None and isinstance(model, lightning.LightningModule)


def overrides(model: nn.Module, hook: str) -> bool:
    """True of a LightningModule that has a hook of its own."""
    if not is_lightning(model):
        return False
    return getattr(type(model), hook, None) is not getattr(
        sys.modules["lightning.pytorch"].LightningModule, hook
    )


def has_own_loss(model: nn.Module) -> bool:
    """True of a LightningModule that says how it trains, and leaves the steps to Lightning."""
    return overrides(model, "training_step") and getattr(model, "automatic_optimization", True)


def own_loss(
    model: nn.Module, inputs: Inputs, labels: Sequence[Tensor], index: int, shares: Tensor | None = None
) -> Tensor:
    """The loss that training_step has for (inputs, targets), a scalar; raises TraceError where it has none.

    shares: weights of the samples (N,), which are then the third of the batch. Several inputs, or outputs,
    come as a tuple; inputs that go by names as a dictionary.
    """
    values: Any = dict(inputs.kwargs) or (inputs.args[0] if len(inputs.args) == 1 else inputs.args)
    batch: tuple[Any, ...] = (values, labels[0] if len(labels) == 1 else tuple(labels))
    batch += () if shares is None else (shares,)
    step: Any = model.training_step
    arguments = [batch, index, 0][: len(inspect.signature(step).parameters)]
    result = step(*arguments)
    loss = result.get("loss") if isinstance(result, Mapping) else result
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise TraceError("it returns no loss, a scalar tensor")
    return loss.reshape(())
