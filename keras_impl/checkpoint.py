"""The model of a trained run, from its checkpoint."""

from __future__ import annotations

from experiment.deploy.prediction import TrainedRun
from experiment.errors import RunError
from experiment.runs.record import brief


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
