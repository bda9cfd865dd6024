"""Each Keras-like piece against Keras's definition written out in numpy, and against torch's own default."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lightning_impl.keras_semantics import Adam, BatchNorm, Flatten, ReduceLROnPlateau


@pytest.mark.parametrize("shape", [(16, 5), (4, 5, 3, 3)])
def test_batch_norm_keeps_the_biased_variance(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(shape, dtype=torch.float64) * 3 + 1
    norm = BatchNorm(5).double()
    output = norm(inputs)
    axes = tuple(axis for axis in range(len(shape)) if axis != 1)
    mean, variance = inputs.numpy().mean(axes), inputs.numpy().var(axes)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    np.testing.assert_allclose(norm.running_mean, 0.01 * mean, rtol=1e-12)
    np.testing.assert_allclose(norm.running_var, 0.99 + 0.01 * variance, rtol=1e-12)
    by_channel = [1 if axis in axes else 5 for axis in range(len(shape))]
    expected = (inputs.numpy() - mean.reshape(by_channel)) / np.sqrt(variance + 1e-3).reshape(by_channel)
    np.testing.assert_allclose(output.detach(), expected, atol=1e-12)
    stock = (torch.nn.BatchNorm1d if len(shape) == 2 else torch.nn.BatchNorm2d)(5, momentum=0.01).double()
    stock(inputs)
    assert (stock.running_var - norm.running_var).abs().max() > 1e-3  # type: ignore[operator]


def test_batch_norm_gradients_and_evaluation_are_those_of_torch() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(6, 4, 5, 5, dtype=torch.float64)
    ours, stock = BatchNorm(4).double(), torch.nn.BatchNorm2d(4, eps=1e-3).double()
    gradients = []
    for norm in (ours, stock):
        leaf = inputs.clone().requires_grad_()
        (norm(leaf) ** 3).sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-12, atol=1e-12)
    stock.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours.eval()(inputs), stock.eval()(inputs), rtol=0, atol=0)


def test_frozen_batch_norm_neither_updates_nor_uses_the_batch() -> None:
    norm = BatchNorm(3).requires_grad_(False)
    inputs = torch.randn(8, 3) * 5
    torch.testing.assert_close(norm.train()(inputs), inputs / np.sqrt(1 + 1e-3))
    assert norm.running_mean is not None
    assert norm.running_mean.abs().max() == 0


def test_batch_norm_takes_a_batch_of_one() -> None:
    norm = BatchNorm(3)
    assert norm(torch.randn(1, 3)).abs().max() < 1e-5
    assert norm.running_var is not None
    torch.testing.assert_close(norm.running_var, torch.full((3,), 0.99))


def test_flatten_runs_fastest_over_channels() -> None:
    inputs = torch.arange(24).reshape(1, 2, 3, 4)
    np.testing.assert_array_equal(Flatten()(inputs)[0], inputs[0].permute(1, 2, 0).numpy().ravel())


def test_adam_takes_the_steps_of_keras() -> None:
    rate, beta1, beta2, epsilon = 0.01, 0.9, 0.999, 1e-7
    random = np.random.default_rng(0)
    gradients = random.normal(size=(30, 7)) * 10.0 ** np.arange(-9, -2)
    weights, m, v = np.ones(7), np.zeros(7), np.zeros(7)
    ours = torch.ones(7, dtype=torch.float64, requires_grad=True)
    stock = torch.ones(7, dtype=torch.float64, requires_grad=True)
    optimizers = [(Adam([ours], lr=rate), ours), (torch.optim.Adam([stock], lr=rate, eps=epsilon), stock)]
    for t, gradient in enumerate(gradients, 1):
        # keras/src/optimizers/adam.py, update_step, with the powers as TensorFlow computes them.
        alpha = rate * np.sqrt(1 - float(np.float32(beta2)) ** t) / (1 - float(np.float32(beta1)) ** t)
        m += (gradient - m) * (1 - beta1)
        v += (gradient**2 - v) * (1 - beta2)
        weights -= alpha * m / (np.sqrt(v) + epsilon)
        for optimizer, leaf in optimizers:
            leaf.grad = torch.from_numpy(gradient.copy())
            optimizer.step()
    np.testing.assert_allclose(ours.detach(), weights, rtol=1e-12)
    assert np.abs(stock.detach().numpy() - weights).max() > 1e-3


def test_adam_goes_on_from_its_state() -> None:
    def run(steps: int, optimizer: Any, leaf: torch.Tensor) -> None:
        for _ in range(steps):
            leaf.grad = torch.sin(leaf.detach() * 9)
            optimizer.step()

    whole = torch.ones(3, requires_grad=True)
    run(6, Adam([whole]), whole)
    first = torch.ones(3, requires_grad=True)
    before = Adam([first])
    run(3, before, first)
    second = first.detach().clone().requires_grad_()
    after = Adam([second])
    after.load_state_dict(before.state_dict())
    run(3, after, second)
    assert torch.equal(whole, second)


def test_plateau_acts_when_keras_does() -> None:
    # Keras, patience 2, min_delta 0.1, cooldown 1: best 1.0; 0.95 is no improvement, nor is 0.92: halved
    # after the third; then one epoch of cooldown, and two more without improvement halve it again.
    losses = [1.0, 0.95, 0.92, 0.91, 0.91, 0.91, 0.5]
    expected = [1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.25]
    optimizer = Adam([torch.ones(1, requires_grad=True)], lr=1.0)
    plateau = ReduceLROnPlateau(2, 0.5, 0.1, 1, 0.0)
    rates = []
    for loss in losses:
        trainer: Any = SimpleNamespace(
            callback_metrics={"val_loss": torch.tensor(loss)}, optimizers=[optimizer]
        )
        plateau.on_train_epoch_end(trainer, None)  # type: ignore[arg-type]
        rates.append(optimizer.param_groups[0]["learning_rate"])
    assert rates == expected


def test_plateau_stops_at_the_floor_and_keeps_its_state() -> None:
    optimizer = Adam([torch.ones(1, requires_grad=True)], lr=1.0)
    trainer: Any = SimpleNamespace(callback_metrics={"val_loss": torch.tensor(1.0)}, optimizers=[optimizer])
    plateau = ReduceLROnPlateau(1, 0.1, 0.0, 0, 0.05)
    for _ in range(5):
        again = ReduceLROnPlateau(1, 0.1, 0.0, 0, 0.05)
        again.load_state_dict(plateau.state_dict())
        plateau = again
        plateau.on_train_epoch_end(trainer, None)  # type: ignore[arg-type]
    assert optimizer.param_groups[0]["learning_rate"] == 0.05
