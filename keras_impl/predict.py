"""python -m keras_impl.predict RUN IMAGE...: classify images with a trained run or its export."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiment import cli
from experiment.deploy import prediction
from experiment.deploy.prediction import Classify, Exported, TrainedRun
from experiment.errors import RunError
from experiment.runs.record import brief


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = prediction.parse("keras", argv)
    return cli.guarded(lambda: prediction.main(arguments, "keras", predictor, load_exported))


def load_exported(path: Path) -> Exported:
    """A file that `export` wrote; raises RunError for a damaged one."""
    from keras_impl.export import load_exported

    return load_exported(path)


def predictor(trained: TrainedRun) -> Classify:
    """The run's model, ready to classify."""
    cli.use_device("keras", trained.experiment)
    import keras

    from keras_impl.fit import numerics

    with numerics(trained.experiment):
        model = load(trained)

    def classify(images: np.ndarray) -> np.ndarray:
        with numerics(trained.experiment):
            return np.asarray(model.predict_on_batch(images.astype(keras.config.floatx())))

    return classify


def load(trained: TrainedRun):
    """The run's model; raises RunError for a damaged checkpoint."""
    from keras_impl.model import build_model

    name = "best.keras" if trained.experiment.training.use_best else "last.keras"
    path = trained.run.checkpoints / name
    model = build_model(trained.experiment, len(trained.class_names), pretrained=False)
    try:
        model.load_weights(path)
    except Exception as error:  # h5py and Keras raise many kinds for a damaged file
        raise RunError(f"{path}: cannot be read ({brief(error)})") from error
    return model


if __name__ == "__main__":
    sys.exit(main())
