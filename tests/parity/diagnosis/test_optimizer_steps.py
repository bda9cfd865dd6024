"""The steps of `parity.diagnosis.optimizer_steps` are torch's own, of every family and setting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from parity.diagnosis.optimizer_steps import FORMS, Way, complete, walk

STEPS, ELEMENTS = 5, 7
RANDOM = np.random.default_rng(0)
START = RANDOM.normal(size=ELEMENTS)
GRADIENTS = RANDOM.normal(size=(STEPS, ELEMENTS))
RATES = np.array([0.1, 0.1, 0.05, 0.05, 0.2])

ADAM = {"beta_1": 0.9, "beta_2": 0.99, "epsilon": 1e-3}
FAMILIES: list[tuple[str, Any, dict[str, Any], dict[str, Any]]] = [
    ("Adam", torch.optim.Adam, {"betas": (0.9, 0.99), "eps": 1e-3}, ADAM),
    (
        "Adam",
        torch.optim.Adam,
        {"betas": (0.9, 0.99), "eps": 1e-3, "amsgrad": True, "weight_decay": 0.1},
        ADAM | {"amsgrad": True, "weight_decay": 0.1, "decay": "coupled"},
    ),
    (
        "Adam",
        torch.optim.AdamW,
        {"betas": (0.9, 0.99), "eps": 1e-3, "weight_decay": 0.1},
        ADAM | {"weight_decay": 0.1, "decay": "decoupled"},
    ),
    ("SGD", torch.optim.SGD, {}, {"momentum": 0.0, "dampening": 0.0}),
    (
        "SGD",
        torch.optim.SGD,
        {"momentum": 0.9, "dampening": 0.1},
        {"momentum": 0.9, "dampening": 0.1},
    ),
    (
        "SGD",
        torch.optim.SGD,
        {"momentum": 0.9, "nesterov": True, "maximize": True},
        {"momentum": 0.9, "nesterov": True, "dampening": 0.0, "maximize": True},
    ),
    (
        "RMSprop",
        torch.optim.RMSprop,
        {"alpha": 0.9, "eps": 1e-3, "centered": True, "momentum": 0.5},
        {"rho": 0.9, "epsilon": 1e-3, "centered": True, "momentum": 0.5},
    ),
    (
        "Adagrad",
        torch.optim.Adagrad,
        {"lr_decay": 0.1, "initial_accumulator_value": 0.2, "eps": 1e-3},
        {"lr_decay": 0.1, "initial_accumulator_value": 0.2, "epsilon": 1e-3},
    ),
    ("Adadelta", torch.optim.Adadelta, {"rho": 0.8, "eps": 1e-3}, {"rho": 0.8, "epsilon": 1e-3}),
    ("Adamax", torch.optim.Adamax, {"betas": (0.9, 0.99), "eps": 1e-3}, ADAM),
    (
        "Nadam",
        torch.optim.NAdam,
        {"betas": (0.9, 0.99), "eps": 1e-3, "momentum_decay": 0.01},
        ADAM | {"momentum_decay": 0.01},
    ),
]


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    """As in a trace: NAdam keeps a product of its own in the default precision."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def way(gradients: np.ndarray = GRADIENTS, norms: np.ndarray | None = None) -> Way:
    own: np.ndarray = np.linalg.norm(gradients, axis=1) if norms is None else norms
    return Way(START, gradients, own, 2 * own, RATES)


def settings(family: str, form: str, **own: Any) -> dict[str, Any]:
    return complete({"family": family, "form": form, "settings": own, "overrides": {}})


@pytest.mark.parametrize(("family", "cls", "arguments", "own"), FAMILIES)
def test_the_steps_are_torchs(family: str, cls: Any, arguments: dict[str, Any], own: dict[str, Any]) -> None:
    parameter = torch.nn.Parameter(torch.from_numpy(START.copy()))
    optimizer = cls([parameter], lr=0.1, **arguments)
    expected = [START]
    for gradient, rate in zip(GRADIENTS, RATES, strict=True):
        optimizer.param_groups[0]["lr"] = float(rate)
        parameter.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
        expected.append(parameter.detach().numpy().copy())
    found = walk(family, settings(family, "torch", **own), way())
    np.testing.assert_allclose(found, np.stack(expected), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    "family", [name for name, forms in FORMS.items() if forms["keras"] != forms["torch"]]
)
def test_the_two_forms_part(family: str) -> None:
    """By more than rounding, where the settings are the same: what a form is for."""
    own = next(own for name, _, _, own in reversed(FAMILIES) if name == family)
    own = {
        name: value for name, value in own.items() if name not in ("lr_decay", "momentum_decay", "maximize")
    }
    torchs = (
        {"lr_decay": 0.1} if family == "Adagrad" else {"momentum_decay": 4e-3} if family == "Nadam" else {}
    )
    keras = walk(family, settings(family, "keras", **own), way())
    theirs = walk(family, settings(family, "torch", **own, **torchs), way())
    assert np.abs(keras - theirs).max() > 1e-6


def test_gradients_are_clipped_before_the_step() -> None:
    norms = np.full(STEPS, 4.0)
    for name, expected in (("clipnorm", 0.5 / 4), ("global_clipnorm", 0.5 / 8)):
        found = walk("SGD", settings("SGD", "keras", **{name: 0.5}), way(norms=norms))
        np.testing.assert_allclose(found[1], START - 0.1 * expected * GRADIENTS[0], rtol=1e-12)
    found = walk("SGD", settings("SGD", "keras", clipvalue=0.5), way())
    np.testing.assert_allclose(found[1], START - 0.1 * np.clip(GRADIENTS[0], -0.5, 0.5), rtol=1e-12)


def test_accumulated_gradients_step_once_by_their_mean() -> None:
    found = walk("SGD", settings("SGD", "keras", gradient_accumulation_steps=2), way())
    np.testing.assert_array_equal(found[1], START)
    np.testing.assert_allclose(found[2], START - 0.1 * GRADIENTS[:2].mean(0), rtol=1e-12)


def test_the_average_takes_the_place_of_the_weights() -> None:
    own = {"ema_momentum": 0.5, "ema_overwrite_frequency": 2}
    found = walk("SGD", settings("SGD", "keras", **own), way())
    first = START - 0.1 * GRADIENTS[0]
    np.testing.assert_allclose(found[1], first, rtol=1e-12)
    np.testing.assert_allclose(found[2], (first + first - 0.1 * GRADIENTS[1]) / 2, rtol=1e-12)
