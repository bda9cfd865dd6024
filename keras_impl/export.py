"""python -m keras_impl.export RUN: a trained run as one TFLite file, from uint8 images to probabilities."""

from __future__ import annotations

import json
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiment import cli, export
from experiment.lifecycle import RunError
from experiment.prediction import Exported, TrainedRun
from keras_impl.predict import load, predict


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = export.parse("keras", argv)
    return cli.guarded(lambda: export.export("keras", arguments, write, predict, load_exported))


def write(trained: TrainedRun, path: Path, metadata: dict[str, str]) -> None:
    """Write the run's model, of LiteRT's own operations alone, with a batch of any size.

    The class names (labels.txt) and the metadata (metadata.json) are associated files: a zip archive behind
    the model, as TFLite Metadata has them.
    """
    cli.use_device("keras", trained.experiment)
    import keras
    import tensorflow as tf

    size = trained.experiment.data.image_size
    images = keras.Input((size, size, 3), dtype="uint8", name="images")
    probabilities = load(trained)(keras.ops.cast(images, "float32"))
    model = keras.Model(images, keras.layers.Identity(name="probabilities")(probabilities))
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "model.tflite"
        model.export(
            made,
            format="litert",
            verbose=False,
            target_spec={"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]},
        )
        path.write_bytes(made.read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("labels.txt", "\n".join(trained.class_names) + "\n")
        archive.writestr("metadata.json", json.dumps(metadata, indent=1) + "\n")


def load_exported(path: Path) -> Exported:
    """An exported file, run by LiteRT on the CPU; raises RunError for a damaged one."""
    from ai_edge_litert.interpreter import Interpreter

    try:
        runner = Interpreter(model_content=path.read_bytes()).get_signature_runner()
        with zipfile.ZipFile(path) as archive:
            metadata = json.loads(archive.read("metadata.json"))
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        raise RunError(f"{path}: cannot be read as a TFLite model with its metadata") from error

    def predict(images: np.ndarray) -> np.ndarray:
        [probabilities] = runner(images=images).values()
        return probabilities

    return export.described(path, metadata, predict)


if __name__ == "__main__":
    sys.exit(main())
