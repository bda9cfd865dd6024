"""Losses as Keras has them, of outputs and targets (N, ..., C), for each sample: (N, ...), unless said."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

EPSILON = 1e-7  # keras.config.epsilon()
LOG_2 = 0.693147182464599609375


def _smoothed(targets: Tensor, smoothing: float, share: float) -> Tensor:
    return targets * (1 - smoothing) + smoothing * share if smoothing else targets


def _normalised(probabilities: Tensor) -> Tensor:
    """Probabilities whose sum is one, away from zero and one."""
    return (probabilities / probabilities.sum(-1, keepdim=True)).clamp(EPSILON, 1 - EPSILON)


def categorical_crossentropy(outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """The crossentropy of probabilities and rows of targets."""
    targets = _smoothed(targets, label_smoothing, 1 / outputs.shape[-1])
    return -(targets * _normalised(outputs).log()).sum(-1)


def categorical_focal_crossentropy(
    outputs: Tensor,
    targets: Tensor,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
) -> Tensor:
    """The focal loss (Lin et al. 2017) of probabilities, or of logits, and rows of targets."""
    targets = _smoothed(targets, label_smoothing, 1 / outputs.shape[-1])
    likely = _normalised(torch.softmax(outputs, dim=-1) if from_logits else outputs)
    return -(alpha * (1 - likely) ** gamma * targets * likely.log()).sum(-1)


def binary_focal_crossentropy(
    outputs: Tensor,
    targets: Tensor,
    apply_class_balancing: bool = False,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
) -> Tensor:
    """The focal loss of probabilities, or of logits, of two classes; alpha is the share of the second."""
    targets = _smoothed(targets, label_smoothing, 0.5)
    likely = torch.sigmoid(outputs) if from_logits else outputs
    within = likely.clamp(EPSILON, 1 - EPSILON)
    losses = -(targets * within.log() + (1 - targets) * (1 - within).log())
    losses = losses * (1 - (targets * likely + (1 - targets) * (1 - likely))) ** gamma
    if apply_class_balancing:
        losses = losses * (targets * alpha + (1 - targets) * (1 - alpha))
    return losses.mean(-1)


def categorical_generalized_cross_entropy(outputs: Tensor, targets: Tensor, q: float = 0.5) -> Tensor:
    """(1 - p ** q) / q of the probability of the class that `targets` (N, ...) numbers."""
    likely = outputs.gather(-1, targets.long()[..., None])[..., 0]
    return (1 - likely**q) / q


def categorical_hinge(outputs: Tensor, targets: Tensor) -> Tensor:
    """The lead of the right class over the best wrong one, as far as it lacks to one; rows of targets."""
    wrong = ((1 - targets) * outputs).amax(-1)
    return (wrong - (targets * outputs).sum(-1) + 1).clamp(min=0)


def _shortfalls(outputs: Tensor, targets: Tensor) -> Tensor:
    """How much each output lacks of a margin of one; targets are -1 and 1, or 0 and 1 all of them."""
    binary = ((targets == 0) | (targets == 1)).all()
    targets = torch.where(binary, 2 * targets - 1, targets)
    return (1 - targets * outputs).clamp(min=0)


def hinge(outputs: Tensor, targets: Tensor) -> Tensor:
    """The hinge loss; targets are -1 and 1, or 0 and 1 all of them."""
    return _shortfalls(outputs, targets).mean(-1)


def squared_hinge(outputs: Tensor, targets: Tensor) -> Tensor:
    """The squared hinge loss, of targets as for `hinge`."""
    return _shortfalls(outputs, targets).square().mean(-1)


def kl_divergence(outputs: Tensor, targets: Tensor) -> Tensor:
    """The divergence of the targets from the outputs, both probabilities."""
    targets, outputs = targets.clamp(EPSILON, 1), outputs.clamp(EPSILON, 1)
    return (targets * (targets / outputs).log()).sum(-1)


def poisson(outputs: Tensor, targets: Tensor) -> Tensor:
    """The negative log likelihood of counts, without its constant."""
    return (outputs - targets * (outputs + EPSILON).log()).mean(-1)


def log_cosh(outputs: Tensor, targets: Tensor) -> Tensor:
    """log(cosh(error)), with the logarithm of 2 that Keras takes, in float32."""
    error = outputs - targets
    return (error + F.softplus(-2 * error) - LOG_2).mean(-1)


def mean_absolute_percentage_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """The absolute error in percent of the targets."""
    return 100 * ((targets - outputs) / targets.abs().clamp(min=EPSILON)).abs().mean(-1)


def mean_squared_logarithmic_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """The squared error of log(1 + x)."""
    logs = [(values.clamp(min=EPSILON) + 1).log() for values in (outputs, targets)]
    return (logs[0] - logs[1]).square().mean(-1)


def cosine_similarity(outputs: Tensor, targets: Tensor) -> Tensor:
    """The cosine of the angle between outputs and targets, negative so that it can be minimised."""
    return -(F.normalize(outputs, dim=-1, eps=EPSILON) * F.normalize(targets, dim=-1, eps=EPSILON)).sum(-1)


def dice(outputs: Tensor, targets: Tensor) -> Tensor:
    """One minus the Dice coefficient of the whole batch, a scalar."""
    both = (outputs * targets).sum()
    return 1 - 2 * both / (outputs.sum() + targets.sum() + EPSILON)


def tversky(outputs: Tensor, targets: Tensor, alpha: float = 0.5, beta: float = 0.5) -> Tensor:
    """One minus the Tversky index of the whole batch, a scalar; alpha weighs what is missed, as in Keras."""
    both = (outputs * targets).sum()
    missed, invented = ((1 - outputs) * targets).sum(), (outputs * (1 - targets)).sum()
    return 1 - both / (both + alpha * missed + beta * invented + EPSILON)
