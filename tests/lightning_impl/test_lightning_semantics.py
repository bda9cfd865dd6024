"""Each Keras-like piece against Keras's definition written out in numpy, and against torch's own default."""

from __future__ import annotations

from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from lightning_impl.keras_semantics import Adam, BatchNorm, Flatten, ReduceLROnPlateau, layers
from lightning_impl.keras_semantics.callbacks import EarlyStopping


@pytest.mark.parametrize("shape", [(16, 5), (4, 5, 3), (4, 5, 3, 3), (2, 5, 3, 3, 2)])
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
    kinds = {
        2: torch.nn.BatchNorm1d,
        3: torch.nn.BatchNorm1d,
        4: torch.nn.BatchNorm2d,
        5: torch.nn.BatchNorm3d,
    }
    stock = kinds[len(shape)](5, momentum=0.01).double()
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


def test_batch_norm_learns_nothing_from_a_batch_of_none() -> None:
    norm = BatchNorm(3)
    assert norm(torch.zeros(0, 3, 2, 2)).shape == (0, 3, 2, 2)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    torch.testing.assert_close(norm.running_mean, torch.zeros(3))
    torch.testing.assert_close(norm.running_var, torch.ones(3))


@pytest.mark.parametrize("part", ["weight", "bias"])
def test_batch_norm_is_frozen_whole_or_not_at_all(part: str) -> None:
    norm = BatchNorm(3)
    getattr(norm, part).requires_grad_(False)
    norm(torch.ones(4, 3))
    assert norm.running_mean is not None
    torch.testing.assert_close(norm.running_mean, torch.full((3,), 0.01))


def test_batch_norm_heeds_the_momentum_that_torch_code_sets() -> None:
    batches = [torch.randn(8, 3, generator=torch.Generator().manual_seed(n)) for n in range(4)]
    norm = BatchNorm(3)
    torch.optim.swa_utils.update_bn(batches, torch.nn.Sequential(norm))  # momentum None: the plain mean
    means, variances = zip(*[(one.mean(0), one.var(0, unbiased=False)) for one in batches], strict=True)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    torch.testing.assert_close(norm.running_mean, torch.stack(means).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack(variances).mean(0))
    norm.momentum = 0.5
    before = norm.running_mean.clone()
    norm(batches[0])
    torch.testing.assert_close(norm.running_mean, (before + means[0]) / 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_batch_norm_over_processes_sums_in_float32(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "_sum_over_processes", lambda values: 2 * values)  # two of one kind
    inputs = (torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0)) + 4).to(dtype)
    alone, together = BatchNorm(3), BatchNorm(3)
    together.synchronised = True
    expected = alone(inputs.float())
    output = together(inputs)
    assert output.dtype == dtype
    torch.testing.assert_close(
        output.float(), expected, rtol=1e-2, atol=1e-2 if dtype != torch.float32 else 1e-5
    )
    torch.testing.assert_close(together.running_mean, alone.running_mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(together.running_var, alone.running_var, rtol=1e-5, atol=1e-6)


def test_the_pieces_can_be_traced_exported_and_copied() -> None:
    net = torch.nn.Sequential(BatchNorm(3), Flatten())
    inputs = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    net(inputs)
    expected = net.eval()(inputs)
    traced = (
        torch.fx.symbolic_trace(net),
        torch.export.export(net, (inputs,)).module(),
        deepcopy(net),
    )
    for one in traced:
        torch.testing.assert_close(one(inputs), expected)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (1, 2, 3, 4), (2, 3, 4, 2, 5), (0, 2, 3, 4)])
def test_flatten_runs_fastest_over_channels(shape: tuple[int, ...]) -> None:
    inputs = torch.arange(int(np.prod(shape))).reshape(shape)
    expected = np.moveaxis(inputs.numpy(), 1, -1).reshape(shape[0], int(np.prod(shape[1:])))
    np.testing.assert_array_equal(Flatten()(inputs), expected)


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
        rates.append(optimizer.param_groups[0]["lr"])
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
    assert optimizer.param_groups[0]["lr"] == 0.05


class Slope(pl.LightningModule):
    """One weight, whose gradient is the batch's mean; val_loss as the test says, validation by validation."""

    def __init__(self, optimizers: list[Any], losses: list[float], logged: str = "val_loss") -> None:
        super().__init__()
        self.weight = optimizers[0].param_groups[0]["params"][0]
        self.optimizers_, self.losses, self.logged = optimizers, iter(losses), logged
        self.automatic_optimization = len(optimizers) == 1

    def configure_optimizers(self) -> Any:
        if len(self.optimizers_) > 1:
            return self.optimizers_
        scheduler = torch.optim.lr_scheduler.StepLR(self.optimizers_[0], 2, 0.1)
        return [self.optimizers_[0]], [{"scheduler": scheduler, "interval": "step"}]

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        return (self.weight * batch[0].mean(0)).sum()

    def validation_step(self, batch: Any) -> None:
        if not self.trainer.sanity_checking:
            self.log(self.logged, next(self.losses))

    test_step = validation_step


def fit(module: pl.LightningModule, epochs: int, callbacks: list[Any], **more: Any) -> None:
    batches = torch.arange(32.0).reshape(8, 2, 2) - 15
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(batches.flatten(0, 1)), batch_size=2)
    one = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.zeros(1)))
    options: dict[str, Any] = {"enable_checkpointing": False, "logger": False, "enable_progress_bar": False}
    options |= {"accelerator": "cpu", "enable_model_summary": False, "max_epochs": epochs, **more}
    pl.Trainer(callbacks=callbacks, **options).fit(module, loader, one)


@pytest.mark.filterwarnings("ignore")
def test_adam_under_a_stock_trainer_with_its_flags() -> None:
    # Two batches are added up to one step, whose gradient is clipped at norm 1; the rate falls every 2 steps.
    weight = torch.zeros(2, requires_grad=True)
    module = Slope([Adam([weight], lr=0.01)], [1.0] * 9)
    fit(module, 2, [], accumulate_grad_batches=2, gradient_clip_val=1.0)
    batches = (np.arange(32.0).reshape(8, 2, 2) - 15).mean(1)
    w, m, v = np.zeros(2), np.zeros(2), np.zeros(2)
    for t in range(1, 9):
        step = (t - 1) % 4
        gradient = batches[2 * step : 2 * step + 2].mean(0)
        gradient = gradient / max(1.0, float(np.linalg.norm(gradient)) + 1e-6)
        powers = [float(np.float32(beta)) ** t for beta in (0.9, 0.999)]
        m += (gradient - m) * 0.1
        v += (gradient**2 - v) * 0.001
        rate = 0.01 * 0.1 ** ((t - 1) // 2)
        w -= rate * np.sqrt(1 - powers[1]) / (1 - powers[0]) * m / (np.sqrt(v) + 1e-7)
    np.testing.assert_allclose(weight.detach(), w, rtol=1e-4)
    assert module.optimizers_[0].iterations == 8


@pytest.mark.filterwarnings("ignore")
def test_plateau_counts_validations_in_a_stock_trainer() -> None:
    # Validated every other epoch: 1.0, then nothing better. Patience 2 is two validations, not two epochs.
    rates = []

    class Watch(pl.Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            rates.append([float(g["lr"]) for o in trainer.optimizers for g in o.param_groups])

    weights = [torch.zeros(2, requires_grad=True) for _ in range(3)]
    optimizers = [
        torch.optim.SGD([{"params": weights[0], "lr": 0.1}, {"params": weights[1], "lr": 0.01}]),
        torch.optim.Adam([weights[2]], lr=torch.tensor(0.5), foreach=False),
    ]
    plateau = ReduceLROnPlateau(patience=2, factor=0.5, min_learning_rate=0.008, monitor="score", mode="max")
    module = Slope(optimizers, [1.0, 0.9, 1.0, 2.0], "score")
    fit(module, 8, [plateau, Watch()], check_val_every_n_epoch=2)
    assert rates == [[0.1, 0.01, 0.5]] * 5 + [[0.05, 0.008, 0.25]] * 3
    assert plateau.best == 2.0


@pytest.mark.filterwarnings("ignore")
def test_plateau_names_the_metric_that_is_missing() -> None:
    module = Slope([Adam([torch.zeros(2, requires_grad=True)])], [1.0], "other")
    with pytest.raises(RuntimeError, match="looks at val_loss, which nothing logs; there are: other"):
        fit(module, 1, [ReduceLROnPlateau()])


def test_plateau_refuses_what_keras_refuses() -> None:
    with pytest.raises(ValueError, match="factor"):
        ReduceLROnPlateau(factor=1.0)
    with pytest.raises(ValueError, match="mode"):
        ReduceLROnPlateau(mode="least")


@pytest.mark.parametrize(
    ("values", "options", "stopped", "best"),
    [
        ([1.0, 0.9, 0.95, 0.97, 0.5], {"patience": 2}, 3, 1),
        ([0.5, 0.6, 0.6, 0.6], {"patience": 2, "mode": "max"}, 3, 1),
        ([1.0, 0.95, 0.9], {"patience": 2, "min_delta": 0.2}, 2, 0),
        (
            [1.0, 0.9, 0.8],
            {"patience": 1, "baseline": 0.5},
            None,
            2,
        ),  # it waits for what is better than before
        ([3.0, 1.0, 2.0, 2.0], {"patience": 1, "start_from_epoch": 2}, 3, 2),
        ([1.0, 2.0], {"patience": 0}, 1, 0),
    ],
)
def test_early_stopping_is_keras_own(
    values: list[float], options: dict[str, Any], stopped: int | None, best: int
) -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    callback = EarlyStopping(restore_best_weights=True, **options)
    trainer: Any = SimpleNamespace(should_stop=False, callback_metrics={}, check_val_every_n_epoch=1)
    ended = None
    for epoch, value in enumerate(values):
        torch.nn.init.constant_(network.weight, epoch)
        trainer.current_epoch, trainer.callback_metrics = epoch, {"val_loss": torch.tensor(value)}
        callback.on_train_epoch_end(trainer, network)  # type: ignore[arg-type]
        if trainer.should_stop:
            ended = epoch
            break
    callback.on_train_end(trainer, network)  # type: ignore[arg-type]
    assert (ended, network.weight.item()) == (stopped, best)
