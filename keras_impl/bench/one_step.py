"""python -m keras_impl.bench.one_step BUILD OUT: a Keras model as ONNX, and what one step makes of it.

For `parity converters`. Writes OUT/model.keras, OUT/model.onnx and OUT/keras.npz: inputs `x`, classes `y`,
and the outputs in evaluation `before` and `after` one step of SGD on the crossentropy, without dropout.
KERAS_BACKEND must be torch, whose exporter needs no TensorFlow graph.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from experiment.protocols.trace import build

BATCH, RATE, TOKENS = 4, 0.01, 8


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    name, folder = sys.argv[1:] if argv is None else argv
    out = Path(folder)
    keras.utils.set_random_seed(0)
    model = build(name)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    random = np.random.default_rng(0)
    shape = (BATCH, *model.input_shape[1:])
    whole = "int" in model.inputs[0].dtype
    x = (
        random.integers(0, TOKENS, shape).astype("int32")
        if whole
        else random.uniform(0, 1, shape).astype("float32")
    )
    y = random.integers(0, model.output_shape[-1], BATCH)
    found = {"x": x, "y": y, "before": _outputs(model, x)}
    model.export(out / "model.onnx", format="onnx", verbose=False)
    model.save(out / "model.keras")
    model.compile(keras.optimizers.SGD(RATE), "sparse_categorical_crossentropy")
    model.train_on_batch(x, y)
    np.savez(out / "keras.npz", **found, after=_outputs(model, x))
    return 0


def _outputs(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return np.array(keras.ops.convert_to_numpy(model(x, training=False)))


if __name__ == "__main__":
    sys.exit(main())
