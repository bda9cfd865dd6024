"""Exported files, run by their runtime."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from experiment.deploy import export
from experiment.deploy.prediction import Exported
from experiment.system import devices
from keras_impl import tflite_metadata


def load_exported(path: Path, threads: int | None = None, plain: bool = False) -> Exported:
    """An exported file, run by LiteRT on the CPU; raises RunError for a damaged one.

    threads: all cores unless told. plain: without XNNPACK.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kind = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if plain else OpResolverType.AUTO

    def tensors(details: dict[str, Any], shape: str) -> dict[str, export.Tensor]:
        return {
            name: export.Tensor(np.dtype(tensor["dtype"]).name, tuple(map(int, tensor[shape])))
            for name, tensor in details.items()
        }

    with export.running(f"{path}: cannot be read as a TFLite model"):
        runner = Interpreter(
            model_content=export.content_of(path),
            num_threads=threads or devices.count_cores(),
            experimental_op_resolver_type=kind,
        ).get_signature_runner()
    takes = tensors(runner.get_input_details(), "shape_signature")
    gives = tensors(runner.get_output_details(), "shape")  # of a batch of one
    try:
        with zipfile.ZipFile(path) as archive:
            metadata = json.loads(archive.read(tflite_metadata.FACTS))
    except Exception:  # zipfile, json and the archive's compressions have many kinds, for a foreign one
        metadata = {}

    def predict(images: np.ndarray) -> np.ndarray:
        [probabilities] = runner(images=images).values()
        return probabilities

    return export.described(path, metadata, takes, gives, predict)
