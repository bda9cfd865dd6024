"""`keras_semantics.Adam` as torch's users handle an optimizer, against Keras's Adam written out in numpy."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.optim import lr_scheduler

from lightning_impl.keras_semantics import Adam


class KerasAdam:
    """Keras's Adam in float64: keras/src/optimizers/adam.py with what TensorFlow rounds to float32."""

    def __init__(self, weights: Sequence[np.ndarray], amsgrad: bool = False) -> None:
        self.weights = [np.array(one, np.float64) for one in weights]
        self.m, self.v, self.largest = ([np.zeros_like(one) for one in self.weights] for _ in range(3))
        self.iterations, self.amsgrad = 0, amsgrad

    def step(self, gradients: Sequence[np.ndarray | None], *settings: dict[str, Any]) -> None:
        """settings: lr, and what else differs from Keras's defaults; for all weights, or for each."""
        self.iterations += 1
        for i, gradient in enumerate(gradients):
            if gradient is not None:
                own = {"betas": (0.9, 0.999), "eps": 1e-7, "weight_decay": 0.0} | settings[i % len(settings)]
                self._update(i, gradient, **own)

    def _update(
        self,
        i: int,
        gradient: np.ndarray,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ) -> None:
        self.weights[i] -= lr * float(np.float32(weight_decay)) * self.weights[i]
        powers = [float(np.float32(beta)) ** self.iterations for beta in betas]
        alpha = lr * np.sqrt(1 - powers[1]) / (1 - powers[0])
        self.m[i] += (gradient - self.m[i]) * (1 - betas[0])
        self.v[i] += (gradient**2 - self.v[i]) * (1 - betas[1])
        self.largest[i] = np.maximum(self.largest[i], self.v[i])
        v = self.largest[i] if self.amsgrad else self.v[i]
        self.weights[i] -= alpha * self.m[i] / (np.sqrt(v) + eps)


def leaf(*shape: int) -> Tensor:
    values = np.linspace(-1, 1, int(np.prod(shape))).reshape(shape)
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def gradient(number: int, *shape: int) -> np.ndarray:
    """From 1e-8, where epsilon counts, to 1."""
    random = np.random.default_rng(number)
    return random.normal(size=shape) * 10.0 ** random.integers(-8, 1, shape)


def give(tensor: Tensor, values: np.ndarray | None) -> None:
    tensor.grad = None if values is None else torch.from_numpy(values.copy()).to(tensor.dtype)


def close(tensor: Tensor, expected: np.ndarray, rtol: float = 1e-11) -> None:
    np.testing.assert_allclose(tensor.detach().numpy(), expected, rtol=rtol, atol=1e-14)


def follow(optimizer: Any, weight: Tensor, reference: KerasAdam, steps: int, **settings: Any) -> None:
    """Take as many steps with both, from the same gradients, and compare."""
    for _ in range(steps):
        values = gradient(reference.iterations, *weight.shape)
        give(weight, values)
        optimizer.step()
        reference.step([values], {"lr": 0.01, **settings})
    close(weight, reference.weights[0])


SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2, 0.1),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [2, 5], 0.3),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.8),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 0.1, total_iters=4),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 6),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=12),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 1e-3, 1e-1, step_size_up=3),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, 0.1, 3), lr_scheduler.ExponentialLR(o, 0.9)], [3]
    ),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_torchs_schedulers_act_on_it(name: str) -> None:
    weight, bystander = leaf(5), leaf(5)
    optimizer, stock = Adam([weight], lr=0.01), torch.optim.Adam([bystander], lr=0.01)
    ours, theirs = SCHEDULERS[name](optimizer), SCHEDULERS[name](stock)
    reference, rates = KerasAdam([weight.detach().numpy()]), set()
    for number in range(10):
        values = gradient(number, 5)
        give(weight, values)
        give(bystander, values)
        [group] = stock.param_groups
        rates.add(group["lr"])
        reference.step([values], {"lr": group["lr"], "betas": group["betas"]})
        optimizer.step()
        stock.step()
        assert optimizer.param_groups[0]["lr"] == group["lr"]  # the step leaves it as it was set
        for scheduler in (ours, theirs):
            scheduler.step(*[1.0] if name == "ReduceLROnPlateau" else [])
        assert ours.get_last_lr() == theirs.get_last_lr()
    close(weight, reference.weights[0])
    assert len(rates) > 1


def test_a_step_falls_as_the_schedule_says() -> None:
    weight = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = Adam([weight], lr=0.01, eps=0.0)
    scheduler, steps = lr_scheduler.StepLR(optimizer, 2, 0.1), []
    for _ in range(6):
        before = weight.item()
        give(weight, np.ones(1))
        optimizer.step()
        scheduler.step()
        steps.append(before - weight.item())
    # To 1e-5, which is what rounding the betas to float32 makes of the first step.
    np.testing.assert_allclose(steps, [0.01, 0.01, 0.001, 0.001, 0.0001, 0.0001], rtol=1e-4)


def test_groups_have_settings_of_their_own_and_the_count_is_the_optimizers() -> None:
    first, second, third = leaf(4), leaf(2, 3), leaf(3)
    groups = [
        {"params": [first], "lr": 0.1, "betas": (0.8, 0.99)},
        {"params": [second], "eps": 1e-3, "weight_decay": 0.1},
    ]
    optimizer = Adam(groups, lr=0.01)
    settings = (
        {"lr": 0.1, "betas": (0.8, 0.99)},
        {"lr": 0.01, "eps": 1e-3, "weight_decay": 0.1},
        {"lr": 0.003},
    )
    reference = KerasAdam([one.detach().numpy() for one in (first, second, third)])
    # The second has no gradient at the first two steps and the fifth; the third joins at the fourth.
    for number in range(9):
        if number == 3:
            optimizer.add_param_group({"params": [third], "lr": 0.003})
        values = [
            gradient(number, 4),
            gradient(10 + number, 2, 3) if number >= 2 and number != 4 else None,
            gradient(20 + number, 3) if number >= 3 else None,
        ]
        for weight, one in zip((first, second, third), values, strict=True):
            give(weight, one)
        optimizer.step()
        reference.step(values, *settings)
        assert optimizer.iterations == number + 1
    for weight, expected in zip((first, second, third), reference.weights, strict=True):
        close(weight, expected)


def test_what_is_no_step_is_not_counted() -> None:
    weight = leaf(3)
    optimizer, reference = Adam([weight], lr=0.01), KerasAdam([weight.detach().numpy()])
    optimizer.step()  # no gradient yet: Keras refuses it

    def fails() -> Tensor:
        raise OverflowError

    follow(optimizer, weight, reference, 2)
    give(weight, None)
    optimizer.step()
    with pytest.raises(OverflowError):
        optimizer.step(fails)
    assert optimizer.iterations == 2
    follow(optimizer, weight, reference, 3)


def test_a_failed_step_is_made_good_by_the_next() -> None:
    weight, other = leaf(3), leaf(3)
    optimizer = Adam([{"params": [weight]}, {"params": [other]}], lr=0.01)
    reference = KerasAdam([other.detach().numpy()])
    for number in range(4):
        values = gradient(number, 3)
        give(weight, values)
        give(other, values)
        if number == 2:
            other.grad = other.grad.to_sparse()  # type: ignore[union-attr]
            with pytest.raises(RuntimeError, match="sparse"):
                optimizer.step()
            assert optimizer.iterations == 2
            give(weight, values)
            give(other, values)
        optimizer.step()
        reference.step([values], {"lr": 0.01})
    close(other, reference.weights[0])
    assert [int(optimizer.state[one]["step"]) for one in (weight, other)] == [4, 4]


def test_a_closure_is_evaluated_once_before_the_step() -> None:
    weight, calls = leaf(3), []
    optimizer, reference = Adam([weight], lr=0.01), KerasAdam([weight.detach().numpy()])

    def closure() -> Tensor:
        calls.append(optimizer.iterations)
        optimizer.zero_grad()
        loss = (weight**2).sum()
        loss.backward()
        return loss

    for _ in range(3):
        expected = (weight.detach() ** 2).sum()
        reference.step([2 * reference.weights[0]], {"lr": 0.01})
        assert optimizer.step(closure) == expected
    assert calls == [0, 1, 2]
    close(weight, reference.weights[0])


def test_hooks_run_once_a_step() -> None:
    torch.optim.Adam([leaf(1)])  # torch wraps the step of every class that has had an instance
    weight, seen = leaf(3), []
    optimizer = Adam([weight], lr=0.01)
    optimizer.register_step_pre_hook(lambda *_: seen.append(optimizer.param_groups[0]["lr"]))
    optimizer.register_step_post_hook(lambda *_: seen.append(optimizer.param_groups[0]["eps"]))
    give(weight, np.ones(3))
    optimizer.step()
    assert seen == [0.01, 1e-7]


@pytest.mark.parametrize("fused", [None, True, False])
def test_a_gradient_scaler_leaves_out_a_step_with_infinite_gradients(fused: bool | None) -> None:
    weight = leaf(3)
    optimizer, reference = Adam([weight], lr=0.01, fused=fused), KerasAdam([weight.detach().numpy()])
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    for number in range(6):
        values = gradient(number, 3)
        optimizer.zero_grad(set_to_none=False)
        if number == 3:
            scaler.scale((weight * torch.inf).sum()).backward()
        else:
            scaler.scale((weight * torch.from_numpy(values)).sum()).backward()
            reference.step([values], {"lr": 0.01})
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_([weight], 1e9)
        scaler.step(optimizer)
        scaler.update()
    assert optimizer.iterations == 5
    close(weight, reference.weights[0])
    assert scaler.get_scale() == 32.0


WAYS: dict[str, dict[str, Any]] = {
    "fused": {"fused": True},
    "foreach": {"foreach": True},
    "one by one": {"foreach": False},
    "neither": {"fused": False},
    "differentiable": {"differentiable": True},
    "amsgrad": {"amsgrad": True},
    "maximize": {"maximize": True},
    "weight decay": {"weight_decay": 0.1},
    "weight decay, foreach": {"weight_decay": 0.1, "foreach": True},
    "no first moment": {"betas": (0.0, 0.9)},
    "tensor": {"lr": torch.tensor(0.01, dtype=torch.float64)},
    "tensor, fused": {"lr": torch.tensor(0.01, dtype=torch.float64), "fused": True},
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_step_is_kerass(way: str) -> None:
    weight, options = leaf(2, 3), {"lr": 0.01, **WAYS[way]}
    parameter = weight.clone() if options.get("differentiable") else weight
    optimizer = Adam([parameter], **options)
    reference = KerasAdam([weight.detach().numpy()], options.get("amsgrad", False))
    settings = {key: options[key] for key in ("betas", "weight_decay") if key in options}
    for number in range(8):
        values = gradient(number, 2, 3)
        give(parameter, values)
        optimizer.step()
        values = -values if options.get("maximize") else values
        reference.step([values], {"lr": 0.01, **settings})
    # Where it is to be derived, torch counts and corrects in float32.
    close(parameter, reference.weights[0], rtol=1e-4 if way == "differentiable" else 1e-11)
    assert float(optimizer.param_groups[0]["lr"]) == 0.01


def test_other_kinds_of_number() -> None:
    values = [gradient(number, 4, 2) for number in range(6)]
    reference = KerasAdam([np.ones((4, 2))])
    numbers = torch.view_as_complex(torch.ones(4, 2, dtype=torch.float64)).requires_grad_()
    short = torch.ones(4, 2, dtype=torch.bfloat16, requires_grad=True)
    single = torch.ones(4, 2, dtype=torch.float32, requires_grad=True)
    optimizer = Adam([{"params": [numbers]}, {"params": [short, single]}, {"params": []}], lr=0.01)
    for one in values:
        numbers.grad = torch.view_as_complex(torch.from_numpy(one))
        give(short, one)
        give(single, one)
        optimizer.step()
        reference.step([one], {"lr": 0.01})
    close(torch.view_as_real(numbers), reference.weights[0])
    np.testing.assert_allclose(single.detach(), reference.weights[0], atol=1e-5)
    np.testing.assert_allclose(short.detach().float(), reference.weights[0], atol=2e-2)


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(ValueError, match="capturable"):
        Adam([leaf(1)], capturable=True)
    with pytest.raises(ValueError, match="eps, not epsilon"):
        Adam([{"params": [leaf(1)], "epsilon": 1e-3}])
    with pytest.raises(ValueError, match="lr, not learning_rate"):
        Adam([leaf(1)]).add_param_group({"params": [leaf(1)], "learning_rate": 1e-3})


def saved_and_loaded(optimizer: Any, weight: Tensor, kind: type) -> Any:
    """A new optimizer of the kind that goes on where another stands."""
    other = kind([weight], lr=0.5)
    other.load_state_dict(pickle.loads(pickle.dumps(optimizer.state_dict())))
    return other


@pytest.mark.parametrize("way", ["state", "pickle", "deepcopy"])
def test_it_goes_on_from_a_copy(way: str) -> None:
    weight = leaf(3)
    optimizer, reference = Adam([weight], lr=0.01), KerasAdam([weight.detach().numpy()])
    follow(optimizer, weight, reference, 3)
    if way == "state":
        copied = saved_and_loaded(optimizer, weight, Adam)
    elif way == "pickle":
        copied = pickle.loads(pickle.dumps(optimizer))
    else:
        copied = deepcopy(optimizer)
    assert copied.iterations == 3
    [weight] = copied.param_groups[0]["params"]
    follow(copied, weight, reference, 3)


def test_state_goes_to_torchs_adam_and_comes_from_it() -> None:
    weight, stock_weight = leaf(3), leaf(3)
    optimizer, stock = Adam([weight], lr=0.01), torch.optim.Adam([stock_weight], lr=0.01, eps=1e-7)
    reference = KerasAdam([weight.detach().numpy()])
    follow(optimizer, weight, reference, 3)
    theirs = saved_and_loaded(optimizer, weight, torch.optim.Adam)
    assert theirs.param_groups[0]["lr"] == 0.01
    assert theirs.param_groups[0]["eps"] == 1e-7
    assert set(theirs.param_groups[0]) == set(stock.param_groups[0])
    give(weight, np.ones(3))
    theirs.step()
    [state] = theirs.state.values()
    assert int(state["step"]) == 4

    reference = KerasAdam([stock_weight.detach().numpy()])
    for number in range(3):  # torch's steps, of which Keras's moments are the same
        values = gradient(number, 3)
        give(stock_weight, values)
        stock.step()
        reference.step([values], {"lr": 0.01})
    reference.weights[0] = stock_weight.detach().numpy().copy()
    back = saved_and_loaded(stock, stock_weight, Adam)
    assert back.iterations == 3
    follow(back, stock_weight, reference, 3)


def test_a_state_of_before_is_understood() -> None:
    # Until 2026-11 lr and eps were those of the last step, and the user's stood beside them.
    weight = leaf(3)
    optimizer, reference = Adam([weight], lr=0.01), KerasAdam([weight.detach().numpy()])
    follow(optimizer, weight, reference, 3)
    state = optimizer.state_dict()
    [group] = state["param_groups"]
    group.update(lr=0.0123, eps=1.8e-6, learning_rate=0.01, epsilon=1e-7, steps=3)
    again = Adam([weight], lr=0.5)
    again.load_state_dict(state)
    assert again.param_groups[0].keys() == optimizer.param_groups[0].keys()
    assert (again.param_groups[0]["lr"], again.param_groups[0]["eps"]) == (0.01, 1e-7)
    follow(again, weight, reference, 3)


def test_a_cleared_state_begins_anew() -> None:
    weight = leaf(3)
    optimizer = Adam([weight], lr=0.01)
    follow(optimizer, weight, KerasAdam([weight.detach().numpy()]), 3)
    optimizer.state.clear()
    follow(optimizer, weight, KerasAdam([weight.detach().numpy()]), 3)
    assert optimizer.iterations == 3


def test_it_keeps_no_parameter_that_its_user_replaced() -> None:
    # As programs that grow or prune their tensors do: the state moves to the new one.
    weight = leaf(3)
    optimizer, reference = Adam([weight], lr=0.01), KerasAdam([weight.detach().numpy()])
    follow(optimizer, weight, reference, 2)
    state, new = optimizer.state.pop(weight), weight.detach().clone().requires_grad_()
    optimizer.param_groups[0]["params"][0] = new
    optimizer.state[new] = state
    follow(optimizer, new, reference, 2)
    assert optimizer.iterations == 4
    assert weight not in optimizer._stepped
