"""python -m lightning_impl.export RUN: a trained run as one ONNX file, from uint8 images to probabilities."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiment import cli, export
from experiment.lifecycle import RunError
from experiment.prediction import Exported, TrainedRun
from lightning_impl.predict import load, predict

OPSET = 20


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = export.parse("lightning", argv)
    return cli.guarded(lambda: export.export("lightning", arguments, write, predict, load_exported))


def write(trained: TrainedRun, path: Path, metadata: dict[str, str]) -> None:
    """Write the run's model in float32, with a batch of any size and the metadata inside."""
    import onnx
    import torch
    from torch import Tensor, nn

    class Deployed(nn.Module):
        """uint8 (N, S, S, 3) -> probabilities (N, classes)."""

        def __init__(self, classifier: nn.Module) -> None:
            super().__init__()
            self.classifier = classifier

        def forward(self, images: Tensor) -> Tensor:
            return self.classifier(images.movedim(-1, 1).to(torch.float32))

    size = trained.experiment.data.image_size
    model = Deployed(load(trained).to(torch.float32)).eval()
    images = torch.zeros((2, size, size, 3), dtype=torch.uint8)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model,
            (images,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["probabilities"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(metadata)
    program.save(str(path), external_data=False)
    onnx.checker.check_model(str(path), full_check=True)


def load_exported(path: Path) -> Exported:
    """An exported file, run by ONNX Runtime on the CPU; raises RunError for a damaged one."""
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has many kinds for a damaged file
        raise RunError(f"{path}: cannot be read as an ONNX model") from error

    def predict(images: np.ndarray) -> np.ndarray:
        [probabilities] = session.run(None, {"images": images})
        return np.asarray(probabilities)

    return export.described(path, session.get_modelmeta().custom_metadata_map, predict)


if __name__ == "__main__":
    sys.exit(main())
