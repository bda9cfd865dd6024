"""The model of a trained run, from its checkpoint."""

from __future__ import annotations

from experiment.deploy.prediction import TrainedRun
from experiment.errors import RunError
from experiment.runs.record import brief


def load(trained: TrainedRun):
    """The run's model, with its softmax, in evaluation mode, on the CPU; RunError for a damaged checkpoint.

    Without Lightning, whose import takes longer than all else that classifying an image takes.
    """
    import torch

    from lightning_impl.model import Probabilities, build_model

    name = "best.ckpt" if trained.experiment.training.use_best else "last.ckpt"
    path = trained.run.checkpoints / name
    model = Probabilities(build_model(trained.experiment, len(trained.class_names), pretrained=False))
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        model.load_state_dict(state)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise RunError(f"{path}: cannot be read ({brief(error)})") from error
    return model.to(torch.get_default_dtype()).eval()
