"""Losses told apart by their values and gradients, of outputs of classes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from parity.diagnosis.losses import Classified, of_classes

RANDOM = np.random.default_rng(2)
FEATURES, KERNEL = RANDOM.normal(size=(12, 5)), RANDOM.normal(size=(5, 4))
TARGETS = np.arange(12) % 4
WEIGHTS = np.array([1.0, 2.0, 0.5, 1.5])
SHARES = WEIGHTS[TARGETS]


def case(loss, **own) -> Classified:
    """Torch's loss and gradients of a head, by torch itself."""
    kernel = torch.tensor(KERNEL, requires_grad=True)
    bias = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    logits = torch.from_numpy(FEATURES) @ kernel + bias
    value: Tensor = loss(logits, torch.from_numpy(TARGETS))
    value.backward()
    assert kernel.grad is not None
    assert bias.grad is not None
    traced = (FEATURES @ KERNEL, TARGETS, None, 0.0, value.item())
    return replace(Classified(*traced, FEATURES, bias.grad.numpy(), kernel.grad.numpy()), **own)


def weighted(reduction: str):
    return lambda x, y: F.cross_entropy(x, y, torch.from_numpy(WEIGHTS), reduction=reduction)


CASES = {
    "summed": (case(lambda x, y: F.cross_entropy(x, y, reduction="sum")), "adds up the samples"),
    "mean for sum": (case(F.cross_entropy, summed=True), "takes the mean over the samples"),
    "softmax twice": (case(lambda x, y: F.cross_entropy(F.softmax(x, 1), y)), "the softmax acts twice"),
    "Keras's softmax twice": (
        case(F.cross_entropy, twice=True),
        "Keras's loss takes probabilities for logits",
    ),
    "smoothed": (case(lambda x, y: F.cross_entropy(x, y, label_smoothing=0.13)), "label smoothing"),
    "not smoothed": (case(F.cross_entropy, smoothing=0.1), "label smoothing"),
    "mean of weights": (case(weighted("mean"), shares=SHARES), "divided by the sum of the class weights"),
    "no weights": (case(F.cross_entropy, shares=SHARES), "leaves the class weights out"),
    "weights": (case(weighted("mean")), "weighs the classes"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_difference_is_named(name: str) -> None:
    traced, words = CASES[name]
    assert words in next(of_classes(traced)).cause


def test_the_amount_of_smoothing_is_solved_for() -> None:
    assert "0.13 for Keras's 0" in next(of_classes(CASES["smoothed"][0])).evidence


def test_the_ratios_of_class_weights_are_solved_for() -> None:
    assert "ratios 1, 2, 0.5, 1.5 " in next(of_classes(CASES["weights"][0])).evidence


def test_the_same_loss_has_no_cause() -> None:
    assert list(of_classes(case(F.cross_entropy))) == []


def test_a_value_alone_proves_no_smoothing() -> None:
    """Any loss between the two ends is that of some smoothing: without gradients only a round one counts."""
    blind = {"features": None, "bias": None, "kernel": None}
    assert list(of_classes(case(lambda x, y: 1.0123 * F.cross_entropy(x, y), **blind))) == []
    round_one = case(lambda x, y: F.cross_entropy(x, y, label_smoothing=0.1), **blind)
    assert "label smoothing" in next(of_classes(round_one)).cause


def test_gradients_speak_against_a_value() -> None:
    """The loss of a smoothing, the gradients of none."""
    smoothed = CASES["smoothed"][0]
    assert list(of_classes(replace(case(F.cross_entropy), loss=smoothed.loss))) == []
