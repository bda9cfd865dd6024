"""python -m keras_impl.bare: the same model in bare `train_on_batch`, for the benchmarks to compare with.

No augmentation, no record, no callbacks. Takes the options of `train` and prints one line of JSON with
the images per second of each epoch.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence

from experiment import cli, randomness
from experiment.config import Experiment


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    request = cli.train_request("keras", argv)
    cli.use_device("keras", request.experiment)
    return cli.guarded(lambda: report(measure(request.experiment)))


def report(speeds: list[float]) -> int:
    print(json.dumps({"images_per_second": speeds}))
    return 0


def measure(experiment: Experiment) -> list[float]:
    """Images per second of each epoch's training; the first carries the warm-up."""
    import keras
    import numpy as np

    from experiment.datasets import load
    from keras_impl.classifier import compile_model
    from keras_impl.fit import numerics
    from keras_impl.model import build_model

    dataset = load(experiment.data, experiment.seed)
    targets = np.eye(len(dataset.class_names), dtype=keras.config.floatx())
    speeds = []
    with numerics(experiment):
        model = build_model(experiment, len(dataset.class_names))
        compile_model(model, experiment)
        size = experiment.training.batch_size
        for epoch in range(experiment.training.epochs):
            order = randomness.epoch_order(experiment.seed, epoch, len(dataset.train))
            started = time.perf_counter()
            for start in range(0, len(order), size):
                images, labels = dataset.train.batch(order[start : start + size])
                model.train_on_batch(images, targets[labels])  # returns when the step is done
            speeds.append(len(order) / (time.perf_counter() - started))
    return speeds


if __name__ == "__main__":
    sys.exit(main())
