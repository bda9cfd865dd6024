"""Training on several devices: Keras's DataParallel, which of its backends JAX alone has."""

from __future__ import annotations

import keras
from keras.distribution import DataParallel

from experiment.errors import RunError
from experiment.training.lifecycle import Session


def distribute(session: Session) -> None:
    """Spread every batch over the wanted GPUs, or over the CPU devices that JAX was told to show.

    Raises RunError where a batch cannot be divided evenly: JAX has no uneven shares.
    """
    if keras.backend.backend() != "jax":
        return
    experiment, devices = session.experiment, keras.distribution.list_devices()
    devices = devices[: experiment.gpus or (len(devices) if "cpu" in devices[0] else 1)]
    if len(devices) < 2:
        return
    size, dataset = experiment.training.batch_size, session.dataset
    for name in ("train", "validation"):
        images = len(getattr(dataset, name))
        if odd := [one for one in (size, images % size) if one % len(devices)]:
            raise RunError(
                f"training.batch_size {size}: a batch of {odd[0]} {name} images (of {images}) cannot be "
                f"divided among {len(devices)} devices: choose another"
            )
    keras.distribution.set_distribution(DataParallel(devices=devices, auto_shard_dataset=False))
