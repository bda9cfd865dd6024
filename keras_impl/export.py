"""python -m keras_impl.export RUN: a trained run as one TFLite file, from uint8 images to probabilities."""

from __future__ import annotations

import json
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiment import cli
from experiment.deploy import export
from experiment.deploy.export import Content
from keras_impl import tflite_metadata
from keras_impl.checkpoint import load
from keras_impl.predict import predictor
from keras_impl.runtime import load_exported


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = export.parse("keras", argv)
    return cli.guarded(lambda: export.export("keras", arguments, write, predictor, load_exported))


def write(content: Content, path: Path) -> None:
    """Write the run's model, of LiteRT's own operations alone, with a batch of any size.

    It holds TFLite Metadata; the class names (labels.txt) and what a deployer needs to know (metadata.json)
    are associated files.
    """
    trained = content.trained
    cli.use_device("keras", trained.experiment)
    import keras

    from keras_impl.batchnorm_folding import fold

    size = trained.experiment.data.image_size
    images = keras.Input((size, size, 3), dtype="uint8", name="images")
    model = load(trained)
    if content.fold:
        model = fold(model)
    probabilities = model(keras.ops.cast(images, "float32"))
    model = keras.Model(images, {"probabilities": probabilities})
    with tempfile.TemporaryDirectory() as folder, export.muted():
        made = Path(folder) / "model.tflite"
        model.export(
            made,
            format="litert",
            verbose=False,
            **converter_settings(content.quantize, content.calibration),
        )
        described = tflite_metadata.describe(made.read_bytes(), size)
    path.write_bytes(described)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(tflite_metadata.LABELS, tflite_metadata.labels(trained.class_names))
        archive.writestr(tflite_metadata.FACTS, json.dumps(content.metadata, indent=1) + "\n")


def converter_settings(quantize: str | None, calibration: np.ndarray | None) -> dict[str, Any]:
    """Attributes of TFLite's converter: builtin operations alone, quantised as asked."""
    import tensorflow as tf

    operations = "TFLITE_BUILTINS_INT8" if quantize == "int8" else "TFLITE_BUILTINS"
    target: dict[str, Any] = {"supported_ops": [getattr(tf.lite.OpsSet, operations)]}
    settings: dict[str, Any] = {"target_spec": target}
    if quantize:
        settings["optimizations"] = [tf.lite.Optimize.DEFAULT]
    if quantize == "dynamic":
        settings["_experimental_disable_per_channel_quantization_for_dense_layers"] = True
    if quantize == "float16":
        target["supported_types"] = [tf.float16]
    if calibration is not None:
        settings["representative_dataset"] = lambda: ([image[None]] for image in calibration)
    return settings


if __name__ == "__main__":
    sys.exit(main())
