"""The classifier and the data lifted out, in Lightning's own Trainer."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from experiment import randomness
from experiment.config import Augment, Data, Experiment
from experiment.data.dataset import load
from experiment.deploy import prediction
from experiment.deploy.prediction import TrainedRun
from lightning_impl import export, predict
from lightning_impl.callbacks import StepSeeds
from lightning_impl.classifier import Classifier, build_classifier
from lightning_impl.data import Batch, DataModule
from lightning_impl.dropout import SharedDropout

ROOT = Path(__file__).parents[2]
QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
SETTINGS = {
    "data": {"name": "digits", "limit": 90, "image_size": 16},
    "model": {"filters": [4, 8], "dense_units": 8},
    "training": {"dropout_masks": "shared"},
}


@pytest.mark.filterwarnings("ignore")
def test_the_example_learns_and_leaves_lightnings_own_files(tmp_path: Path) -> None:
    main = runpy.run_path(str(ROOT / "examples" / "stock_trainer.py"))["main"]
    assert main(str(tmp_path)) > 0.85
    assert list(tmp_path.glob("checkpoints/*.ckpt"))
    assert list(tmp_path.glob("lightning_logs/version_0/events.out.tfevents.*"))
    [path] = tmp_path.glob("checkpoints/*.ckpt")
    saved = torch.load(path, weights_only=True)["hyper_parameters"]  # plain values alone
    assert (saved["learning_rate"], saved["optimizer"]) == (5e-3, "adamw")


class Watch(Callback):
    """What training draws at every batch, and the learning rate of every step."""

    def __init__(self) -> None:
        self.masks: list[int] = []
        self.images: list[torch.Tensor] = []
        self.rates: list[float] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        [first, *_] = (layer for layer in pl_module.modules() if isinstance(layer, SharedDropout))
        self.masks.append(first.step)
        self.images.append(batch.images)

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])


def fit(classifier: Classifier, **flags: Any) -> Watch:
    dataset, watch = load(Data.model_validate(SETTINGS["data"]), seed=1), Watch()
    data = DataModule(dataset, batch_size=16, seed=3, augment=Augment())
    trainer = pl.Trainer(max_epochs=2, callbacks=[StepSeeds(3), watch], **QUIET, **flags)
    trainer.fit(classifier, data)
    return watch


@pytest.mark.filterwarnings("ignore")
def test_what_a_batch_draws_is_its_own_whatever_is_accumulated() -> None:
    classifier = build_classifier(Experiment.model_validate(SETTINGS), 10)
    plain, accumulated = fit(classifier), fit(classifier, accumulate_grad_batches=2)
    batches = len(plain.masks)
    assert plain.masks == accumulated.masks == list(range(batches))
    assert len(plain.rates) == batches
    assert len(accumulated.rates) == batches // 2
    for one, other in zip(plain.images, accumulated.images, strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(plain.images[0], plain.images[batches // 2]), "another order in the second epoch"


class Stepped(Classifier):
    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.1)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_the_trainers_flags_act_with_every_optimizer(name: Any) -> None:
    experiment = Experiment.model_validate({**SETTINGS, "training": {"optimizer": name}})
    network = build_classifier(experiment, 10).network
    for layer in network.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    settings = {"momentum": 0.9, "nesterov": True} if name == "sgd" else {}
    classifier = Stepped(network, 0.01, name, settings)
    norms: list[float] = []

    class Norms(Callback):
        def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
            gradients = [p.grad.norm() for p in pl_module.parameters() if p.grad is not None]
            norms.append(float(torch.stack(gradients).norm()))

        def on_before_zero_grad(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
            if gradients := [p.grad.norm() for p in pl_module.parameters() if p.grad is not None]:
                clipped.append(float(torch.stack(gradients).norm()))  # what the step before was of

    clipped: list[float] = []
    dataset, before = load(Data.model_validate(SETTINGS["data"]), seed=1), network.state_dict()
    before = {key: value.clone() for key, value in before.items()}
    trainer = pl.Trainer(max_epochs=2, gradient_clip_val=0.05, callbacks=[Norms()], **QUIET)
    trainer.fit(classifier, DataModule(dataset, batch_size=30))
    assert max(norms) > 0.05 >= max(clipped) * 0.9999
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-4)
    assert any(not torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.filterwarnings("ignore")
def test_a_loader_of_images_and_labels_will_do() -> None:
    network = build_classifier(Experiment.model_validate(SETTINGS), 10).network
    random = np.random.default_rng(0)
    images = torch.from_numpy(random.uniform(0, 255, (24, 3, 16, 16)).astype("float32"))
    labels = torch.from_numpy(random.integers(0, 10, 24))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), batch_size=8)
    trainer = pl.Trainer(max_epochs=1, **QUIET)
    trainer.fit(Classifier(network), loader, loader)
    assert {"train_loss", "train_accuracy", "val_loss", "val_accuracy"} <= trainer.callback_metrics.keys()
    predicted: Any = trainer.predict(Classifier(network), loader)
    torch.testing.assert_close(torch.cat(predicted).sum(1), torch.ones(24))


def test_the_order_of_an_epoch_is_the_shared_one() -> None:
    dataset = load(Data.model_validate(SETTINGS["data"]), seed=1)
    loader = DataModule(dataset, batch_size=16, seed=3).train_dataloader()
    batch = next(iter(loader))
    expected = randomness.training_order(3, 0, dataset.train.labels)[:16]
    np.testing.assert_array_equal(batch.labels, dataset.train.labels[expected])


@pytest.mark.slow
def test_a_folder_of_ones_own_is_learnt_and_its_model_deployed(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert runpy.run_path(str(ROOT / "examples" / "own_folder.py"))["main"](str(tmp_path)) > 0.6
    photos = sorted((tmp_path / "photos/test/digit 3").iterdir())
    said = capsys.readouterr().out.splitlines()[-len(photos) :]
    assert all(photo.name in line for photo, line in zip(photos, said, strict=True))
    assert export.main([str(tmp_path / "run")]) == 0
    deploy = runpy.run_path(str(ROOT / "examples" / "deploy.py"))["main"]
    probabilities = deploy(str(tmp_path / "run/model.onnx"), [str(photo) for photo in photos])
    run = TrainedRun.open(tmp_path / "run", "lightning")
    images = prediction.read([tmp_path / "photos/test/digit 3"], 32, prediction.DEFAULTS).images
    np.testing.assert_allclose(probabilities, predict.predictor(run)(images), atol=1e-5)
