"""Optimizers, schedules, clipping and random image layers of written packages against Keras's own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from lightning_impl.semantics import augmentation, optimizers, training

ROOT = Path(__file__).parents[2]
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "RMSprop": {"rho": 0.8, "momentum": 0.5, "centered": True},
    "Adagrad": {"initial_accumulator_value": 0.2},
    "Adadelta": {"lr": 0.5},
    "Adamax": {},
    "Nadam": {},
    "Lion": {"weight_decay": 0.25},
}
SCHEDULES: dict[str, dict[str, Any]] = {
    "ExponentialDecay": {
        "initial_learning_rate": 0.1,
        "decay_steps": 4,
        "decay_rate": 0.5,
        "staircase": True,
    },
    "InverseTimeDecay": {"initial_learning_rate": 0.1, "decay_steps": 4, "decay_rate": 0.5},
    "PolynomialDecay": {"initial_learning_rate": 0.1, "decay_steps": 4, "power": 2.0, "cycle": True},
    "PiecewiseConstantDecay": {"boundaries": [2, 5], "values": [0.3, 0.2, 0.1]},
    "CosineDecay": {"initial_learning_rate": 0.01, "decay_steps": 6, "warmup_target": 0.1, "warmup_steps": 3},
    "CosineDecayRestarts": {"initial_learning_rate": 0.1, "first_decay_steps": 3, "m_mul": 0.8},
}
LAYERS = {
    "RandomRotation": augmentation.RandomRotation((-0.05, 0.1)),
    "RandomTranslation": augmentation.RandomTranslation((-0.1, 0.2), 0.1),
    "RandomZoom": augmentation.RandomZoom((-0.2, 0.1), (0.0, 0.3)),
    "RandomContrast": augmentation.RandomContrast((0.2, 0.5), value_range=(-99, 99)),
    "RandomContrast of one number": augmentation.RandomContrast(0.3, value_range=(-99, 99)),
    "RandomBrightness": augmentation.RandomBrightness((-0.1, 0.3), value_range=(-99, 99)),
    "RandomFlip": augmentation.RandomFlip("horizontal_and_vertical"),
}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def keras(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    out = tmp_path_factory.mktemp("keras") / "pieces.npz"
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(ROOT / "tests/pairs/migrate_pieces.py"), str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(out) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_takes_kerass_steps(name: str, keras: dict[str, np.ndarray]) -> None:
    weight = torch.nn.Parameter(torch.ones(4, 3, dtype=torch.float64))
    optimizer = getattr(optimizers, name)([weight], **{"lr": 1e-2, **OPTIMIZERS[name]})
    for gradient in np.random.default_rng(1).normal(size=(6, 4, 3)):
        weight.grad = torch.from_numpy(gradient)
        optimizer.step()
    assert np.abs(keras[name] - 1).max() > 1e-3
    # Keras on TensorFlow takes momentum and weight decay through float32.
    np.testing.assert_allclose(weight.detach().numpy(), keras[name], rtol=0, atol=2e-9)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_gives_kerass_rates(name: str, keras: dict[str, np.ndarray]) -> None:
    function = getattr(training, re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower())
    rates = [function(step, **SCHEDULES[name]) for step in range(12)]
    assert len(set(rates)) > 2
    np.testing.assert_allclose(rates, keras[name], rtol=2e-6)


@pytest.mark.parametrize("norm", ["clipnorm", "global_clipnorm", "clipvalue"])
def test_gradients_are_clipped_as_keras_clips_them(norm: str, keras: dict[str, np.ndarray]) -> None:
    gradients = np.random.default_rng(1).normal(size=(6, 4, 3))
    weights = nn.ParameterList(torch.zeros(4, 3, dtype=torch.float64) for _ in range(2))
    for index, weight in enumerate(weights):
        weight.grad = torch.from_numpy(gradients[index] * (index + 1))
    training.clip_gradients(weights, **{norm: 0.7})
    moved = np.stack([-weight.grad.numpy() for weight in weights if weight.grad is not None])
    np.testing.assert_allclose(moved, keras[norm], atol=1e-7)


def test_what_is_one_variable_in_keras_is_clipped_as_one() -> None:
    gru, attention = nn.GRU(3, 2), nn.MultiheadAttention(4, 2)
    for parameter in (*gru.parameters(), *attention.parameters()):
        parameter.grad = torch.ones_like(parameter)
    variables = [[tuple(part.shape) for part in one] for one in training.keras_gradients(gru)]
    assert variables == [[(6, 3)], [(6, 2)], [(6,), (6,)]]
    training.clip_gradients(gru, clipnorm=1.0)
    found = {name: parameter.grad for name, parameter in gru.named_parameters() if parameter.grad is not None}
    assert float(torch.stack([found["bias_ih_l0"], found["bias_hh_l0"]]).norm()) == pytest.approx(1.0)
    training.clip_gradients(attention, clipnorm=1.0)
    packed = dict(attention.named_parameters())["in_proj_weight"].grad
    assert packed is not None
    assert [float(part.norm()) for part in packed.chunk(3)] == pytest.approx([1.0] * 3)


@pytest.mark.parametrize("mode", ["reflect", "nearest", "constant"])
def test_images_are_moved_as_keras_moves_them(mode: str, keras: dict[str, np.ndarray]) -> None:
    images = np.random.default_rng(0).uniform(0, 255, (3, 7, 9, 2))
    matrices = torch.tensor(
        [[0.9, -0.2, 1.0, 0.3, 1.1, -0.7], [1, 0, -1.5, 0, 1, 2.25], [1.2, 0, -0.8, 0, 0.7, 0.9]]
    )
    moved = augmentation.affine(
        torch.from_numpy(images).movedim(-1, 1), matrices.double().view(3, 2, 3), mode, 0.0
    )
    np.testing.assert_allclose(moved.movedim(1, -1).numpy(), keras[f"affine/{mode}"], atol=1e-3)


@pytest.mark.parametrize("name", LAYERS)
def test_a_random_layer_draws_from_kerass_distribution(name: str, keras: dict[str, np.ndarray]) -> None:
    torch.manual_seed(0)
    count = len(keras[f"draws/{name}"])
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    ramps = torch.stack([x, y]).expand(count, 2, 32, 32).double()
    layer = LAYERS[name].train()
    drawn = layer(ramps)[:, :, [15, 17], [14, 18]].movedim(1, -1).reshape(count, 4).numpy()
    assert drawn.std(axis=0).max() > 0.01
    for ours, theirs in zip(drawn.T, keras[f"draws/{name}"].T, strict=True):
        assert stats.ks_2samp(ours, theirs).pvalue > 1e-4
    assert torch.equal(layer.eval()(ramps), ramps)
