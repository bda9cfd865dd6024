"""Train, evaluate and record one experiment with PyTorch Lightning."""

from __future__ import annotations

import logging
import shutil
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback

from experiment.config import Experiment
from experiment.data import features
from experiment.data.dataset import Dataset
from experiment.errors import RunError
from experiment.runs.record import Run, brief
from experiment.system import distributed
from experiment.system.environment import environment
from experiment.system.files import replacing
from experiment.tracking.tensorboard import Layers
from experiment.training import lifecycle
from experiment.training.lifecycle import Session
from lightning_impl.callbacks import WholeFiles, build_callbacks
from lightning_impl.classifier import Classifier, build_classifier
from lightning_impl.data import Batch, DataModule, build_data
from lightning_impl.keras_semantics import BatchNorm
from lightning_impl.model import count_parameters
from lightning_impl.precision import PRECISIONS, numerics, to_float, use_gpu
from lightning_impl.trace.recorder import Recording
from lightning_impl.weights import warm_start


def fit(experiment: Experiment, resume: Path | None = None, checkpoint: str = "last") -> int:
    """Train as configured and write the run record; returns the command's exit code.

    resume: the directory of a run to go on with, from its last checkpoint or its best. Raises DataError and
    RunError.
    """
    session = lifecycle.begin(experiment, "lightning", resume, checkpoint)
    with lifecycle.checking(session):
        check_shares(session)
    with numerics(experiment):
        return _train(session)


def _train(session: Session) -> int:
    experiment, dataset, run = session.experiment, session.dataset, session.run
    device = torch.device("cuda", distributed.local_rank()) if use_gpu(experiment) else torch.device("cpu")
    on_features = features.usable(experiment)
    classifier = build_classifier(
        experiment,
        len(dataset.class_names),
        session.class_weights,
        on_features,
        session.pretrained,
    )
    parameters = count_parameters(classifier.network)
    data = build_data(experiment, dataset, device)
    # The weights first: features are made of them.
    checkpoint = restore(session, classifier) if session.resumed else None
    warm_start(session, classifier.network)
    lifecycle.draw_samples(session, augmented_samples(session, data))
    if on_features:
        data = build_data(experiment, base_features(classifier, dataset, experiment, device), device)

    if experiment.training.compile:
        classifier.network.compile()
    restored = len(session.rows)
    with lifecycle.recorder(session, describe(session, device)) as recorder:
        if not lifecycle.is_trained(session):
            trainer = build_trainer(experiment, build_callbacks(experiment, recorder), distributed.world())
            synchronise(classifier, experiment.training.sync_batch_norm)
            trainer.fit(classifier, data, ckpt_path=checkpoint, weights_only=True)
    if distributed.rank() > 0:
        shutil.rmtree(run.directory, ignore_errors=True)
        return 0
    if distributed.world() > 1:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        distributed.leave()
    if not recorder.rows:
        return lifecycle.discard(session, recorder)

    if session.checkpoint == "best" and len(recorder.rows) == restored:
        adopt_best(run)
    name = "best.ckpt" if experiment.training.use_best else "last.ckpt"
    _load(classifier, run.checkpoints / name)
    trainer = build_trainer(experiment, [])
    [scores] = trainer.test(classifier, data, verbose=False)
    predictions = trainer.predict(classifier, data)
    probabilities = torch.cat(predictions).cpu().numpy()  # type: ignore[arg-type]
    graph = layers(classifier, experiment.data.image_size)
    return lifecycle.finish(session, recorder, probabilities, scores["test_loss"], parameters, graph)


def synchronise(classifier: Classifier, wanted: bool) -> None:
    """Let trained BatchNorm layers see the whole batch where it is spread over processes, if wanted."""
    for layer in classifier.modules():
        if isinstance(layer, BatchNorm):
            layer.synchronised = wanted and distributed.world() > 1


def check_shares(session: Session) -> None:
    """Raise RunError where the last batch of an epoch has fewer images than there are processes."""
    size, images = session.experiment.training.batch_size, len(session.dataset.train)
    if distributed.world() > 1 and 0 < images % size < distributed.world():
        raise RunError(
            f"training.batch_size {size}: the last batch has {images % size} of {images} images, fewer than "
            f"there are processes ({distributed.world()}): choose another"
        )


def build_trainer(experiment: Experiment, callbacks: list[Callback], processes: int = 1) -> pl.Trainer:
    """A Trainer on the configured device that leaves output and checkpoints to the given callbacks."""
    for noisy in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # Batches are indexed whole from memory: worker processes would only copy them.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    return pl.Trainer(
        accelerator="gpu" if use_gpu(experiment) else "cpu",
        devices=distributed.local_world() if processes > 1 else 1,
        num_nodes=experiment.nodes if processes > 1 else 1,
        strategy="ddp" if processes > 1 else "auto",
        max_epochs=experiment.training.epochs,
        precision=PRECISIONS[experiment.training.precision],  # type: ignore[arg-type]
        callbacks=callbacks,
        plugins=[WholeFiles()],
        logger=False,
        enable_checkpointing=bool(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


@torch.no_grad()
def layers(classifier: Classifier, size: int) -> Layers:
    """Name, kind and inputs of every layer, in the order in which they run."""
    network = classifier.network.eval()
    with Recording(network, aligned=True) as recording:
        network.forward(torch.zeros(1, 3, size, size, device=classifier.device))  # not what was compiled
    return [(seen.name, seen.kind, seen.inputs) for seen in recording.seen]


def augmented_samples(session: Session, data: DataModule) -> np.ndarray | None:
    """`lifecycle.samples` augmented as in the first epoch: float (25, S, S, 3), or None."""
    if data.augment is None:
        return None
    images, labels = map(torch.from_numpy, lifecycle.samples(session.dataset, session.experiment))
    images = to_float(images, torch.get_default_dtype())
    with torch.random.fork_rng():
        augmented = data.augmented(Batch(images, labels, epoch=0, step=0, first=0, total=len(labels)))
    return augmented.permute(0, 2, 3, 1).numpy()


@torch.inference_mode()
def base_features(
    classifier: Classifier, dataset: Dataset, experiment: Experiment, device: torch.device
) -> Dataset:
    """The data set with every image replaced by what the frozen base makes of it: (N, features)."""
    base = classifier.network.get_submodule("base").to(device).eval()

    def compute(images: np.ndarray) -> np.ndarray:
        batch = to_float(torch.from_numpy(images).to(device), torch.get_default_dtype())
        return base(batch).cpu().numpy()

    weights = [parameter.numpy(force=True) for parameter in base.parameters()]
    base.train()
    return features.replace_images(dataset, weights, compute, experiment, "lightning")


def describe(session: Session, device: torch.device) -> dict[str, object]:
    """Where the run happens, for environment.json."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return environment(
        "lightning", name, torch.get_num_threads(), session.experiment.seed, session.data_facts
    )


def restore(session: Session, classifier: Classifier) -> Path:
    """Give a classifier the weights of a resumed run's checkpoint; returns the file, for the Trainer."""
    assert session.source is not None
    folder = Run(session.source).checkpoints

    def load_checkpoint(checkpoint: str) -> int:
        if session.experiment.training.use_best:
            _load(classifier, folder / "best.ckpt")  # which the end will want
        path = folder / f"{checkpoint}.ckpt"
        state = _load(classifier, path)
        if not state.get("optimizer_states"):
            raise RunError(f"{path}: holds no optimizer to go on with")
        return state["epoch"] + 1

    lifecycle.restore(session, load_checkpoint, folder / "last.ckpt")
    return folder / f"{session.checkpoint}.ckpt"


def _load(classifier: Classifier, path: Path) -> dict[str, Any]:
    """Give a classifier the weights of a checkpoint, and return all of it; RunError for a damaged file."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        classifier.load_state_dict(state["state_dict"])
    except Exception as error:  # torch raises many kinds for a damaged file
        raise RunError(f"{path}: cannot be read ({brief(error)})") from error
    return state


def adopt_best(run: Run) -> None:
    """Make the best epoch's checkpoint the last one's, where no later epoch was trained."""
    with replacing(run.checkpoints / "last.ckpt") as path:
        shutil.copyfile(run.checkpoints / "best.ckpt", path)
