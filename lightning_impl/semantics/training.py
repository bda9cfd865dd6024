"""Keras's learning-rate schedules, as functions of the step from 0, and its clipping of gradients."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn


@torch.no_grad()
def max_norm_(weight: Tensor, max_value: float = 2.0, dim: Sequence[int] = (0,)) -> None:
    """Hold the norms along `dim` to at most `max_value`, as Keras's MaxNorm does."""
    norms = weight.square().sum(tuple(dim), keepdim=True).sqrt()
    weight.mul_(norms.clamp(0, max_value) / (1e-7 + norms))


@torch.no_grad()
def min_max_norm_(
    weight: Tensor,
    min_value: float = 0.0,
    max_value: float = 1.0,
    rate: float = 1.0,
    dim: Sequence[int] = (0,),
) -> None:
    """Bring the norms along `dim` between the bounds, or `rate` of the way, as Keras's MinMaxNorm does."""
    norms = weight.square().sum(tuple(dim), keepdim=True).sqrt()
    wanted = rate * norms.clamp(min_value, max_value) + (1 - rate) * norms
    weight.mul_(wanted / (1e-7 + norms))


@torch.no_grad()
def unit_norm_(weight: Tensor, dim: Sequence[int] = (0,)) -> None:
    """Bring the norms along `dim` to one, as Keras's UnitNorm does."""
    weight.div_(1e-7 + weight.square().sum(tuple(dim), keepdim=True).sqrt())


@torch.no_grad()
def non_negative_(weight: Tensor) -> None:
    """Put zeros in place of what is below, as Keras's NonNeg does."""
    weight.clamp_(min=0)


def exponential_decay(
    step: int, initial_learning_rate: float, decay_steps: int, decay_rate: float, staircase: bool = False
) -> float:
    """Keras's ExponentialDecay."""
    share = step / decay_steps
    return initial_learning_rate * decay_rate ** (math.floor(share) if staircase else share)


def inverse_time_decay(
    step: int, initial_learning_rate: float, decay_steps: int, decay_rate: float, staircase: bool = False
) -> float:
    """Keras's InverseTimeDecay."""
    share = step / decay_steps
    return initial_learning_rate / (1 + decay_rate * (math.floor(share) if staircase else share))


def polynomial_decay(
    step: int,
    initial_learning_rate: float,
    decay_steps: int,
    end_learning_rate: float = 1e-4,
    power: float = 1.0,
    cycle: bool = False,
) -> float:
    """Keras's PolynomialDecay."""
    if cycle:
        decay_steps *= max(1, math.ceil(step / decay_steps))
    left = 1 - min(step, decay_steps) / decay_steps
    return (initial_learning_rate - end_learning_rate) * left**power + end_learning_rate


def piecewise_constant_decay(step: int, boundaries: Sequence[int], values: Sequence[float]) -> float:
    """Keras's PiecewiseConstantDecay: a boundary belongs to the value before it."""
    return values[sum(step > boundary for boundary in boundaries)]


def cosine_decay(
    step: int,
    initial_learning_rate: float,
    decay_steps: int,
    alpha: float = 0.0,
    warmup_target: float | None = None,
    warmup_steps: int = 0,
) -> float:
    """Keras's CosineDecay, with its linear warm-up where there is one."""
    start = initial_learning_rate if warmup_target is None else warmup_target
    if warmup_target is not None:
        if step < warmup_steps:
            return initial_learning_rate + (warmup_target - initial_learning_rate) * step / warmup_steps
        step -= warmup_steps
    share = min(step, decay_steps) / decay_steps
    return start * ((1 - alpha) * 0.5 * (1 + math.cos(math.pi * share)) + alpha)


def cosine_decay_restarts(
    step: int,
    initial_learning_rate: float,
    first_decay_steps: int,
    t_mul: float = 2.0,
    m_mul: float = 1.0,
    alpha: float = 0.0,
) -> float:
    """Keras's CosineDecayRestarts."""
    share, restarts = step / first_decay_steps, 0.0
    if t_mul == 1.0:
        restarts = math.floor(share)
        share -= restarts
    else:
        restarts = math.floor(math.log(1 - share * (1 - t_mul)) / math.log(t_mul))
        share = (share - (1 - t_mul**restarts) / (1 - t_mul)) / t_mul**restarts
    cosine = 0.5 * m_mul**restarts * (1 + math.cos(math.pi * share))
    return initial_learning_rate * ((1 - alpha) * cosine + alpha)


@torch.no_grad()
def keras_gradients(module: nn.Module) -> Iterator[list[Tensor]]:
    """The gradients of each variable that Keras would have: a GRU's two biases are one, and what torch's
    attention packs into one is three.
    """
    for inner in module.modules():
        for name, parameter in inner.named_parameters(recurse=False):
            gradient = parameter.grad
            if gradient is None or (isinstance(inner, nn.GRU) and name.startswith("bias_hh")):
                continue
            if isinstance(inner, nn.MultiheadAttention) and name.startswith("in_proj"):
                yield from ([part] for part in gradient.chunk(3))
                continue
            variable = [gradient]
            if isinstance(inner, nn.GRU) and name.startswith("bias_ih"):
                other = getattr(inner, name.replace("_ih", "_hh")).grad
                variable += [] if other is None else [other]
            yield variable


def clip_gradients(
    module: nn.Module,
    clipnorm: float | None = None,
    clipvalue: float | None = None,
    global_clipnorm: float | None = None,
) -> None:
    """Clip as Keras does: `clipnorm` each gradient by its own norm, `global_clipnorm` all by their
    common one."""
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    if clipnorm is not None:
        for variable in keras_gradients(module):
            norm = torch.stack([part.norm() for part in variable]).norm()
            for part in variable:
                part.mul_(clipnorm / norm.clamp(min=clipnorm))
    if global_clipnorm is not None and gradients:
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        for gradient in gradients:
            gradient.mul_(global_clipnorm / norm.clamp(min=global_clipnorm))
    if clipvalue is not None:
        for gradient in gradients:
            gradient.clamp_(-clipvalue, clipvalue)
