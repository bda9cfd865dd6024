"""`keras_semantics.SGD` as torch's users handle an optimizer, against Keras's SGD written out in numpy."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.optim import lr_scheduler

from lightning_impl import optimizers
from lightning_impl.keras_semantics import SGD, AdamW

NESTEROV = {"momentum": 0.9, "nesterov": True}


class KerasSGD:
    """Keras's SGD in float64: keras/src/optimizers/sgd.py, with what TensorFlow rounds to float32."""

    def __init__(
        self,
        weight: Tensor,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        self.weight = weight.detach().numpy().copy()
        self.momentum, self.decay = float(np.float32(momentum)), float(np.float32(weight_decay))
        self.m, self.nesterov = np.zeros_like(self.weight), nesterov

    def step(self, gradient: np.ndarray, lr: float) -> None:
        self.weight -= self.weight * self.decay * lr
        self.m = self.m * self.momentum - gradient * lr
        if self.momentum and not self.nesterov:
            self.weight += self.m
        else:
            self.weight += self.m * self.momentum - gradient * lr


def leaf(*shape: int) -> Tensor:
    values = np.linspace(-1, 1, int(np.prod(shape))).reshape(shape)
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def gradient(number: int) -> np.ndarray:
    return np.random.default_rng(number).standard_normal(5)


def follow(optimizer: Any, weight: Tensor, reference: KerasSGD, rates: list[float], first: int = 0) -> None:
    """Steps at these learning rates, each compared with the reference's."""
    for number, lr in enumerate(rates, first):
        for group in optimizer.param_groups:
            group["lr"] = lr
        weight.grad = torch.from_numpy(gradient(number))
        optimizer.step()
        reference.step(gradient(number), lr)
        np.testing.assert_allclose(weight.detach(), reference.weight, rtol=1e-12, atol=1e-14)
        kept = optimizers.slots(optimizer).get("momentums", {})
        if reference.momentum:
            np.testing.assert_allclose(kept[weight], reference.m, rtol=1e-11, atol=1e-14)
        else:
            assert not kept


# Falls, rises, is zero for a while and goes on.
RATES = [0.1, 0.1, 0.01, 0.05, 0.0, 0.0, 0.02, 0.02]


@pytest.mark.parametrize("rates", [RATES, [0.0, 0.0, *RATES]], ids=["changing", "zero at first"])
@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize(
    "settings",
    [{}, {"momentum": 0.9}, NESTEROV, {**NESTEROV, "weight_decay": 0.3}, {"weight_decay": 0.3}],
    ids=["plain", "momentum", "nesterov", "nesterov, decay", "decay"],
)
def test_every_step_is_kerass_while_the_learning_rate_changes(
    settings: dict[str, Any], foreach: bool, rates: list[float]
) -> None:
    weight = leaf(5)
    optimizer = SGD([weight], foreach=foreach, **settings)
    follow(optimizer, weight, KerasSGD(weight, **settings), rates)


@pytest.mark.parametrize(
    "schedule",
    [
        lambda o: lr_scheduler.StepLR(o, 2, 0.1),
        lambda o: lr_scheduler.CosineAnnealingLR(o, 5),  # ends at zero
        lambda o: lr_scheduler.LambdaLR(o, lambda step: step / 4),  # begins at zero
    ],
    ids=["step", "cosine", "warm-up"],
)
def test_torchs_schedulers_act_on_it(schedule: Callable[[Any], Any]) -> None:
    weight = leaf(5)
    optimizer = SGD([weight], lr=0.1, **NESTEROV)
    reference, scheduler, rates = KerasSGD(weight, **NESTEROV), schedule(optimizer), []
    for number in range(8):
        rates.append(optimizer.param_groups[0]["lr"])
        weight.grad = torch.from_numpy(gradient(number))
        optimizer.step()
        reference.step(gradient(number), rates[-1])
        assert optimizer.param_groups[0]["lr"] == rates[-1]  # the step leaves it as it was set
        scheduler.step()
    np.testing.assert_allclose(weight.detach(), reference.weight, rtol=1e-12)
    assert len(set(rates)) > 1


def test_a_weight_whose_gradient_comes_late_or_stays_away_is_kerass() -> None:
    weight, bystander = leaf(5), leaf(5)
    optimizer, reference = SGD([weight, bystander], lr=0.1, **NESTEROV), KerasSGD(bystander, **NESTEROV)
    for number, lr in enumerate(RATES):
        optimizer.param_groups[0]["lr"] = lr
        weight.grad = torch.from_numpy(gradient(number))
        bystander.grad = None
        if number in (1, 3, 6, 7):  # Keras passes over the others
            bystander.grad = torch.from_numpy(gradient(number))
            reference.step(gradient(number), lr)
        optimizer.step()
        np.testing.assert_allclose(bystander.detach(), reference.weight, rtol=1e-12)


WAYS: dict[str, Callable[[Any, Tensor], Any]] = {
    "state": lambda optimizer, weight: loaded(SGD([weight], lr=0.7), optimizer.state_dict()),
    "copy": lambda optimizer, weight: of_weight(deepcopy(optimizer), weight),
    "pickle": lambda optimizer, weight: of_weight(pickle.loads(pickle.dumps(optimizer)), weight),
}


def loaded(optimizer: Any, state: dict[str, Any]) -> Any:
    optimizer.load_state_dict(deepcopy(state))
    return optimizer


def of_weight(optimizer: Any, weight: Tensor) -> Any:
    """A copied optimizer, which has a copy of the weight, of the weight itself."""
    [group] = optimizer.param_groups
    optimizer.state[weight] = optimizer.state.pop(group["params"][0])
    group["params"] = [weight]
    return optimizer


@pytest.mark.parametrize("way", WAYS)
def test_it_goes_on_from_a_copy(way: str) -> None:
    weight = leaf(5)
    optimizer, reference = SGD([weight], **NESTEROV), KerasSGD(weight, **NESTEROV)
    follow(optimizer, weight, reference, RATES[:4])
    follow(WAYS[way](optimizer, weight), weight, reference, RATES[3:], first=4)


@pytest.mark.parametrize("settings", [{"momentum": 0.9}, NESTEROV], ids=["momentum", "nesterov"])
def test_state_goes_to_torchs_sgd_and_comes_from_it(settings: dict[str, Any]) -> None:
    weight = leaf(5)
    optimizer, reference = SGD([weight], lr=0.1, **settings), KerasSGD(weight, **settings)
    follow(optimizer, weight, reference, [0.1] * 3)
    stock = loaded(torch.optim.SGD([weight], lr=0.7), optimizer.state_dict())
    stock.param_groups[0]["momentum"] = reference.momentum  # torch does not round it
    follow(stock, weight, reference, [0.1] * 3, first=3)
    follow(loaded(SGD([weight], lr=0.7), stock.state_dict()), weight, reference, RATES, first=6)


@pytest.mark.parametrize("fused", [False, True])
def test_a_gradient_scaler_leaves_out_a_step_with_infinite_gradients(fused: bool) -> None:
    weight = leaf(5)
    optimizer = SGD([weight], lr=0.1, weight_decay=0.3, fused=fused, **NESTEROV)
    reference, scaler = KerasSGD(weight, weight_decay=0.3, **NESTEROV), torch.amp.GradScaler("cpu")
    for number in range(4):
        values = torch.from_numpy(gradient(number))
        weight.grad = scaler.scale(torch.full_like(values, np.inf) if number == 2 else values)
        scaler.step(optimizer)
        scaler.update()
        if number != 2:
            reference.step(gradient(number), 0.1)
    np.testing.assert_allclose(weight.detach(), reference.weight, rtol=1e-12)


def test_a_closure_is_evaluated_once_before_the_step() -> None:
    weight, calls = leaf(5), []
    optimizer, reference = SGD([weight], lr=0.1, **NESTEROV), KerasSGD(weight, **NESTEROV)

    def closure() -> Tensor:
        calls.append(1)
        optimizer.zero_grad()
        loss = (weight**2).sum()
        loss.backward()
        return loss

    for step in range(1, 4):
        expected = float((weight**2).sum())
        reference.step(2 * reference.weight, 0.1)
        assert float(optimizer.step(closure)) == expected
        assert len(calls) == step
    np.testing.assert_allclose(weight.detach(), reference.weight, rtol=1e-12)


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(ValueError, match="lr, not learning_rate"):
        SGD([{"params": [leaf(5)], "learning_rate": 0.1}])
    with pytest.raises(ValueError, match="Nesterov momentum requires a momentum"):
        SGD([leaf(5)], nesterov=True)


# === The record ===


@pytest.mark.parametrize(
    ("name", "settings", "kept"),
    [
        ("adam", {}, {"momentums", "velocities"}),
        ("adamw", {"weight_decay": 0.1}, {"momentums", "velocities"}),
        ("sgd", NESTEROV, {"momentums"}),
        ("sgd", {}, set()),
    ],
)
def test_slots_come_back_to_the_last_bit(name: Any, settings: dict[str, Any], kept: set[str]) -> None:
    weight, again = leaf(5), leaf(5)
    optimizer = optimizers.build_optimizer(name, [weight], 0.03, settings)
    for number in range(3):
        weight.grad = torch.from_numpy(gradient(number))
        optimizer.step()
    found = optimizers.slots(optimizer)
    assert found.keys() == kept
    other = optimizers.build_optimizer(name, [again], 0.03, settings)
    values = {slot: {again: of_weight[weight]} for slot, of_weight in found.items()}
    optimizers.restore_slots(other, values, 3)
    for slot, of_weight in optimizers.slots(other).items():
        assert torch.equal(of_weight[again], found[slot][weight])
    again.data.copy_(weight.data)
    for one in (weight, again):
        one.grad = torch.from_numpy(gradient(3))
    optimizer.step()
    other.step()
    torch.testing.assert_close(again, weight, rtol=1e-14, atol=0)


def test_adamw_decays_every_weight_whatever_state_it_is_given() -> None:
    weight, bystander = leaf(5), leaf(5)
    stock = torch.optim.Adam([bystander], lr=0.1, weight_decay=0.2)
    bystander.grad = torch.zeros_like(bystander)
    stock.step()
    optimizer = AdamW([weight], lr=0.1)
    assert optimizer.param_groups[0]["weight_decay"] == 0.004
    optimizer.load_state_dict(stock.state_dict())  # whose decay is not decoupled
    before, moments = weight.detach().clone(), optimizers.slots(optimizer)["momentums"][weight].clone()
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    decayed = before * (1 - 0.1 * float(np.float32(0.2)))
    after = optimizers.slots(optimizer)["momentums"][weight]
    torch.testing.assert_close(after, 0.9 * moments, rtol=1e-12, atol=0)  # no decay in it
    moved = (decayed - weight).detach()  # of a small second moment, with bias corrections for t = 2
    assert moved.abs().max() > 0.05
