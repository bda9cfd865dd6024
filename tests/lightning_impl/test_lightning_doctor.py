from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader

from experiment.config import Experiment
from experiment.protocols.trace import TraceError
from lightning_impl import keras_semantics
from lightning_impl.classifier import build_classifier
from lightning_impl.doctor.command import examine
from lightning_impl.doctor.defaults import Finding


@pytest.fixture
def users(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of a user's, importable as `users`."""
    module = ModuleType("users")
    monkeypatch.setitem(sys.modules, "users", module)
    return module


def findings(users: Any, model: Any, training: Any = None, **given: Any) -> list[Finding]:
    users.build = lambda: model
    users.training = training
    return examine("users:build", "users:training" if training else "", **given)


def settled(module: nn.Module) -> nn.Module:
    """With Keras's initial weights, so that only what a test plants is found."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    return module


ADDED = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1))
LAYERS: list[tuple[nn.Module, set[str]]] = [
    (nn.BatchNorm2d(4), {"momentum=0.01", "eps=0.001", "lightning_impl.keras_semantics.BatchNorm"}),
    (nn.BatchNorm1d(4, eps=1e-3, momentum=0.01), {"lightning_impl.keras_semantics.BatchNorm"}),
    (keras_semantics.BatchNorm(4), set()),
    (nn.LayerNorm(8), {"eps=0.001"}),
    (nn.LayerNorm(8, eps=1e-3), set()),
    (nn.LayerNorm(8, eps=1e-6), set()),  # chosen, and so no default
    (nn.GroupNorm(2, 4), {"eps=0.001"}),
    (nn.LeakyReLU(), {"negative_slope=0.3"}),
    (nn.LeakyReLU(0.3), set()),
    (nn.GELU(), set()),
    (nn.GELU("tanh"), {"approximate='none'"}),
    (nn.MaxPool2d(3, 2, 1), {"padding=0, ceil_mode=True (window 3, stride 2); or ZeroPadding2D in Keras"}),
    (nn.MaxPool2d(2), set()),
    (nn.MaxPool2d(2, ceil_mode=True), {"ceil_mode=False for `valid`"}),
    (nn.AvgPool2d(2, padding=0), set()),
    (nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), {"align_corners=False"}),
    (nn.Upsample(scale_factor=2, mode="bilinear"), set()),
    (nn.Linear(64, 8), {"nn.init.xavier_uniform_(weight), nn.init.zeros_(bias)"}),
    (nn.Conv2d(8, 8, 3), {"nn.init.xavier_uniform_(weight), nn.init.zeros_(bias)"}),
    (settled(nn.Conv2d(8, 8, 3)), set()),
    (settled(nn.Conv2d(8, 8, 3, padding="same")), set()),
    (settled(nn.Conv2d(8, 8, 3, padding=1)), set()),
    (nn.Embedding(100, 8), {"nn.init.uniform_(w, -0.05, 0.05)"}),
    (nn.LSTM(4, 4), {"copy Keras's weights; bias_hh = 0"}),
    (nn.CrossEntropyLoss(), set()),
    (nn.CrossEntropyLoss(weight=torch.ones(3)), {"reduction='none', then the mean"}),
    (nn.CrossEntropyLoss(reduction="sum"), {"reduction='mean'"}),
    (nn.PReLU(), {"compare by hand"}),
]


@pytest.mark.parametrize(("layer", "remedies"), LAYERS, ids=[str(layer) for layer, _ in LAYERS])
def test_layers(users: ModuleType, layer: nn.Module, remedies: set[str]) -> None:
    found = findings(users, nn.Sequential(layer))
    assert {finding.remedy for finding in found} == remedies
    assert {finding.where for finding in found} <= {"0"}


def test_average_counts_its_padding(users: ModuleType) -> None:
    found = findings(users, nn.Sequential(nn.AvgPool2d(3, 2, 1)))
    assert "count_include_pad=False" in {finding.remedy for finding in found}


def test_stride_with_symmetric_padding(users: ModuleType) -> None:
    [found] = findings(users, settled(nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1))))
    assert found.torch == "pads 1, 1 on both sides"


WEIGHTS = [nn.Parameter(torch.ones(3))]
TRAINING: list[tuple[Any, set[str]]] = [
    (torch.optim.Adam(WEIGHTS), {"eps=1e-07", "lightning_impl.keras_semantics.Adam"}),
    (torch.optim.Adam(WEIGHTS, eps=1e-7), {"lightning_impl.keras_semantics.Adam"}),
    (keras_semantics.Adam(WEIGHTS), set()),
    (
        torch.optim.AdamW(WEIGHTS),
        {"eps=1e-07", "weight_decay=0.004", "lightning_impl.keras_semantics.AdamW"},
    ),
    (
        torch.optim.Adam(WEIGHTS, eps=1e-7, weight_decay=0.1),
        {"lightning_impl.keras_semantics.Adam", "L2(0.05) in Keras, on the same weights"},
    ),
    (keras_semantics.AdamW(WEIGHTS), set()),
    (keras_semantics.SGD(WEIGHTS, momentum=0.9, weight_decay=0.1), set()),
    (torch.optim.SGD(WEIGHTS), {"lr=0.01"}),
    (torch.optim.SGD(WEIGHTS, lr=0.1), set()),
    (
        torch.optim.SGD(WEIGHTS, lr=0.1, momentum=0.9),
        {"a constant learning rate, or lightning_impl.keras_semantics.SGD"},
    ),
    (torch.optim.RMSprop(WEIGHTS), {"lr=0.001", "alpha=0.9", "eps=1e-07", "subclass RMSprop"}),
    (torch.optim.NAdam(WEIGHTS, lr=0.1, eps=1e-7), {"momentum_decay=1"}),
    (torch.optim.LBFGS(WEIGHTS), {"trace one step"}),
    (
        EarlyStopping("val_loss"),
        {"patience=0", "load ModelCheckpoint's best_model_path where Keras restores the best"},
    ),
    (DataLoader([1, 2, 3], drop_last=True), {"drop_last=False"}),  # type: ignore[arg-type]
    (DataLoader([1, 2, 3]), set()),  # type: ignore[arg-type]
    (pl.Trainer(gradient_clip_val=1.0, logger=False, enable_checkpointing=False), {"Keras: global_clipnorm"}),
]


@pytest.mark.parametrize(("thing", "remedies"), TRAINING, ids=[str(i) for i in range(len(TRAINING))])
def test_training_objects(users: ModuleType, thing: Any, remedies: set[str]) -> None:
    found = findings(users, nn.Identity(), lambda: {"one": [thing]})
    assert {finding.remedy for finding in found} == remedies
    assert {finding.where for finding in found} <= {f"{type(thing).__name__} (training)"}


def test_schedulers(users: ModuleType) -> None:
    optimizer = keras_semantics.Adam(WEIGHTS)
    plateau, steps = lr_scheduler.ReduceLROnPlateau(optimizer), lr_scheduler.StepLR(optimizer, 3)
    [found, other] = findings(users, nn.Identity(), lambda: [plateau, steps])
    assert "more than `patience`" in found.torch
    assert "once an epoch" in other.torch


class Module(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(4 * 6 * 6, 3)
        self.loss = nn.CrossEntropyLoss()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.leaky_relu(F.dropout(F.max_pool2d(x, 2)))
        return F.softmax(self.dense(x.flatten(1)), dim=1)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, dampening=0.1, momentum=0.5)
        return [optimizer], [lr_scheduler.ReduceLROnPlateau(optimizer)]

    def configure_callbacks(self) -> Any:
        return EarlyStopping("val_loss", patience=7)


def test_what_a_lightning_module_configures_and_what_a_pass_shows(
    users: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    found = findings(users, settled(Module()), input_shape=(12, 12, 4), gpu=True)
    places = {finding.where for finding in found}
    assert places == {
        "SGD (configure_optimizers)",
        "ReduceLROnPlateau (configure_optimizers)",
        "EarlyStopping (configure_callbacks)",
        "dense",
        "leaky_relu#1",
        "evaluating twice",
        "the outputs",
        "torch.backends.cudnn",
    }
    assert "dampening=0" in {finding.remedy for finding in found}


def test_this_projects_own_model_has_none(users: ModuleType) -> None:
    classifier = build_classifier(Experiment(), 10)
    assert findings(users, classifier.network, input_shape=(32, 32, 3)) == []


@pytest.mark.parametrize(
    ("model", "training", "given", "message"),
    [
        (3, None, {}, "gives an object of type int"),
        (nn.Linear(3, 2), None, {"input_shape": (5,)}, "fails on inputs"),
        (nn.Identity(), lambda: 1 / 0, {}, "ZeroDivisionError"),
        (nn.LSTM(3, 2), None, {"input_shape": (4, 3)}, "gives tuple"),
    ],
)
def test_mistakes_are_told(users: ModuleType, model: Any, training: Any, given: dict, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        findings(users, model, training, **given)
