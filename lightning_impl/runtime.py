"""Exported files, run by their runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from experiment.deploy import export
from experiment.deploy.prediction import Exported
from experiment.system import devices


def load_exported(path: Path, threads: int | None = None, plain: bool = False) -> Exported:
    """An exported file, run by ONNX Runtime on the CPU; raises RunError for a damaged one.

    threads: all cores unless told. plain: without its graph optimisations.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or devices.count_cores()
    if plain:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4  # errors are raised, too
    with export.running(f"{path}: cannot be read as an ONNX model"):
        session = onnxruntime.InferenceSession(
            export.content_of(path), options, providers=["CPUExecutionProvider"]
        )

    def tensors(nodes) -> dict[str, export.Tensor]:
        """Those of the session, an axis of any size as -1."""
        return {
            node.name: export.Tensor(
                "float32" if node.type == "tensor(float)" else node.type[len("tensor(") : -1],
                tuple(size if isinstance(size, int) else -1 for size in node.shape),
            )
            for node in nodes
        }

    def predict(images: np.ndarray) -> np.ndarray:
        [probabilities] = session.run(None, {"images": images})
        return np.asarray(probabilities)

    metadata = session.get_modelmeta().custom_metadata_map
    return export.described(
        path, metadata, tensors(session.get_inputs()), tensors(session.get_outputs()), predict
    )
