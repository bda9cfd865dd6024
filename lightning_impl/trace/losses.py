"""The loss that a user's model is traced with: one for each of its outputs, added up."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from experiment.protocols.trace import LossTerm

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
) -> Tensor:
    """The sum of every output's loss, its terms and endings being those of Keras's model.

    Where both models give logits, or Keras's finishes them in an activation that this one leaves out, the
    loss is reckoned from the logits.
    """
    total = torch.zeros((), dtype=outputs[0].dtype, device=outputs[0].device)
    for output, target, term, ending, theirs in zip(
        outputs, targets, terms, endings, keras_endings, strict=True
    ):
        total = total + _term(output, target, term, ending, theirs)
    return total


def _term(output: Tensor, target: Tensor, term: LossTerm, ending: str, theirs: str) -> Tensor:
    activation = {"crossentropy": "softmax", "binary": "sigmoid"}.get(term.name)
    if activation is None or (term.from_logits and theirs == activation):
        # Keras's loss takes the finished outputs as they are; for a crossentropy that is its softmax twice.
        output, ending = finished([output], [ending], [theirs])[0], ""
    match term.name:
        case "crossentropy":
            return _crossentropy(output, target, ending, term.label_smoothing)
        case "binary":
            return _binary(output, target, ending, term.label_smoothing)
        case "mae":
            return F.l1_loss(output, target)
        case "huber":
            return F.huber_loss(output, target, delta=term.delta)
    return F.mse_loss(output, target)


def _crossentropy(output: Tensor, target: Tensor, ending: str, smoothing: float) -> Tensor:
    output, target = output.flatten(0, -2), target.flatten()
    logs = output.log() if ending == "softmax" else output
    if ending in ("softmax", "log_softmax") and not smoothing:
        return F.nll_loss(logs, target)
    return F.cross_entropy(logs, target, label_smoothing=smoothing)  # the softmax of logarithms is itself


def _binary(output: Tensor, target: Tensor, ending: str, smoothing: float) -> Tensor:
    target = target * (1 - smoothing) + smoothing / 2
    if ending == "sigmoid":
        return F.binary_cross_entropy(output, target)
    return F.binary_cross_entropy_with_logits(output, target)
