"""How a user's module trains: its optimizer in the words of both sides, its clipping, schedule and loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiment.protocols.trace import TraceError
from lightning_impl import keras_semantics
from lightning_impl.layers import weight_layout
from lightning_impl.trace.losses import has_own_loss, own_loss
from lightning_impl.trace.optimizer import Path, configured, exact_settings, facts, slots, users_training
from lightning_impl.trace.signature import Inputs


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Module(pl.LightningModule):
    """A layer, trained by what its user returns from configure_optimizers."""

    def __init__(self, configure: Callable[[nn.Module], Any], **hyperparameters: Any) -> None:
        super().__init__()
        self.save_hyperparameters(hyperparameters)
        self.layer: Any = nn.Linear(3, 2)
        self.configure = configure

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def configure_optimizers(self) -> Any:
        return self.configure(self)


class Stepping(Module):
    """One that says its loss, logs it, and clips in a hook of its own."""

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        loss = F.mse_loss(self(batch[0]), batch[1])
        self.log("loss", loss)
        return {"loss": loss}

    def configure_gradient_clipping(self, optimizer: Any, *limits: Any) -> None:  # type: ignore[override]
        self.clip_gradients(optimizer, gradient_clip_val=0.5, gradient_clip_algorithm="norm")


def sgd(module: nn.Module) -> Any:
    return torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)


def weights(module: Module) -> dict[str, Any]:
    return {"layer": weight_layout.weights(module.layer)}


@pytest.mark.parametrize("form", ["one", "dictionary", "lists", "dictionaries"])
def test_configure_optimizers_is_read_in_any_of_its_forms(form: str) -> None:
    def configure(module: nn.Module) -> Any:
        optimizer = sgd(module)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        entry = {"scheduler": scheduler, "interval": "step"}
        return {
            "one": optimizer,
            "dictionary": {"optimizer": optimizer, "lr_scheduler": entry},
            "lists": ([optimizer], [entry]),
            "dictionaries": ({"optimizer": optimizer, "lr_scheduler": scheduler}, {"optimizer": optimizer}),
        }[form]

    optimizers, schedulers = configured(Module(configure))
    assert len(optimizers) == (2 if form == "dictionaries" else 1)
    intervals = {"one": [], "dictionary": ["step"], "lists": ["step"], "dictionaries": ["epoch"]}[form]
    assert [entry["interval"] for entry in schedulers] == intervals


def test_the_facts_have_keras_words_and_the_groups_that_differ() -> None:
    def configure(module: Any) -> Any:
        decayed = {"params": [module.layer.weight], "weight_decay": 0.1}
        return torch.optim.Adam(
            [decayed, {"params": [module.layer.bias], "lr": 0.02}], lr=0.01, betas=(0.8, 0.9)
        )

    module = Module(configure)
    found = facts(users_training(module, 1e-3), weights(module))
    assert (found["class"], found["family"], found["form"]) == ("Adam", "Adam", "torch")
    expected = {"beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-8, "weight_decay": 0.1, "decay": "coupled"}
    assert expected.items() <= found["settings"].items()
    assert found["overrides"] == {"layer/bias": {"weight_decay": 0.0, "learning_rate_factor": 2.0}}


def test_a_weight_of_no_group_never_moves() -> None:
    module = Module(lambda module: torch.optim.SGD([module.get_parameter("layer.weight")], lr=0.1))
    assert facts(users_training(module, 1e-3), weights(module))["overrides"] == {
        "layer/bias": {"learning_rate_factor": 0.0}
    }


def test_a_plain_module_gets_keras_adam() -> None:
    training = users_training(nn.Linear(2, 1), 0.02)
    assert isinstance(training.optimizer, keras_semantics.Adam)
    assert facts(training, {})["form"] == "keras"


@pytest.mark.parametrize("by", ["hook", "norm", "value"])
def test_gradients_are_clipped_as_the_module_has_it(by: str) -> None:
    flags: dict[str, Any] = {
        "hook": {},
        "norm": {"gradient_clip_val": 0.5},
        "value": {"gradient_clip_val": 0.5, "gradient_clip_algorithm": "value"},
    }[by]
    module = (Stepping if by == "hook" else Module)(sgd, **flags)
    training = users_training(module, 1e-3)
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    training.clip()
    norm = float(torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None]).norm())
    assert norm == pytest.approx(0.5 * 8**0.5 if by == "value" else 0.5, rel=1e-5)
    named = {"hook": set(), "norm": {"global_clipnorm"}, "value": {"clipvalue"}}[by]
    assert set(training.clipping) == named


def test_a_trace_clips_by_the_norm_itself() -> None:
    parameter = nn.Parameter(torch.zeros(4))
    norms, notes = [], []
    for exact in (False, True):
        parameter.grad = torch.full_like(parameter, 3.0)
        with exact_settings(None, notes) if exact else nullcontext():
            nn.utils.clip_grad_norm_([parameter], 0.5)
        norms.append(float(parameter.grad.norm()))
    assert norms[0] == pytest.approx(0.5 * 6 / (6 + 1e-6), rel=1e-12)
    assert norms[1] == pytest.approx(0.5, rel=1e-12)
    assert "adds 1e-06" in notes[0]


def test_batches_are_accumulated_and_schedules_step_with_the_optimizer() -> None:
    def configure(module: nn.Module) -> Any:
        optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    module = Module(configure, accumulate_grad_batches=2)
    training, before = users_training(module, 1e-3), module.layer.bias.detach().clone()
    rates = []
    for value in (1.0, 3.0, 5.0, 7.0):
        if training.begins:
            training.optimizer.zero_grad()
        (value * module.layer.bias.sum()).backward()
        training.clip()
        rates.append(training.optimizer.param_groups[0]["lr"])
        training.step()
    assert rates == [1.0, 1.0, 0.5, 0.5]
    np.testing.assert_allclose(module.layer.bias.detach(), before - 2.0 - 0.5 * 6.0, rtol=1e-12)


def test_the_loss_is_training_steps_own() -> None:
    module = Stepping(sgd)
    x, y = torch.randn(4, 3), torch.randn(4, 2)
    assert has_own_loss(module)
    assert not has_own_loss(Module(sgd))
    assert own_loss(module, Inputs((x,)), [y], 0).item() == pytest.approx(F.mse_loss(module(x), y).item())
    module.training_step = lambda batch, batch_idx: None  # type: ignore[assignment, method-assign]
    with pytest.raises(TraceError, match="returns no loss"):
        own_loss(module, Inputs((x,)), [y], 0)


def test_slots_are_in_keras_form() -> None:
    module = Module(sgd)
    training = users_training(module, 1e-3)
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, 2.0)
    training.step()
    np.testing.assert_allclose(slots(training.optimizer)["momentums"][module.layer.bias], [-0.2, -0.2])


def test_the_path_holds_each_steps_own_gradient() -> None:
    """Of accumulated gradients the second is what was added."""
    module = Module(sgd)
    path = Path(weights(module), torch.optim.SGD(module.parameters(), lr=0.25))
    for value, begins in ((1.0, True), (3.0, False)):
        (value * module.layer.bias.sum()).backward()
        path.gradients(begins)
        path.clipped()
        path.stepped()
    arrays = path.arrays()
    row = arrays["path/names"].tolist().index("layer/bias")
    assert arrays["path/values"].shape[:2] == (2, 3)
    np.testing.assert_allclose(arrays["path/raw"][row, :, 0], [1.0, 3.0])
    np.testing.assert_allclose(arrays["path/gradients"][row, :, 0], [1.0, 4.0])
    np.testing.assert_allclose(arrays["path/norms"][row], [2**0.5, 3 * 2**0.5])
    assert arrays["path/rates"].tolist() == [0.25, 0.25]
