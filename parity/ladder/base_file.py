"""A file of made-up weights of a base in Keras's layout: each array another, and features of order one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from experiment.backbones import BACKBONES
from experiment.data.pretrained import STATISTICS
from experiment.system.files import replacing

RESIDUAL = 0.2  # of the last gamma before an addition: many of them add up


def write(name: str, folder: Path) -> Path:
    """Write the file for a base, unless it is there; returns its path."""
    import h5py

    path = folder / f"{name}.h5"
    if path.is_file():
        return path
    backbone, random = BACKBONES[name], np.random.default_rng(0)
    # About how far preprocessed pixels are from 0.
    pixels = 100.0 / max(backbone.preprocessing.deviation)
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        for place, layer in enumerate(backbone.layers):
            group = f"{layer.name}/{layer.name}"
            if layer.kind != "batch_normalization":
                kernel, *biases = layer.shapes
                # Of a depthwise kernel, an output sums over the pixels of its own channel alone.
                fan_in = int(np.prod(kernel[:2] if layer.kind == "depthwise_conv2d" else kernel[:-1]))
                scale = (2 / fan_in) ** 0.5 / (pixels if place == 0 else 1)
                file[f"{group}/kernel:0"] = scale * random.standard_normal(kernel, np.float32)
                for bias in biases:
                    file[f"{group}/bias:0"] = random.uniform(-0.1, 0.1, bias).astype(np.float32)
                continue
            gamma = RESIDUAL if layer.added else 1.0
            ranges = ((0.5 * gamma, 1.5 * gamma), (-0.1, 0.1), (-0.1, 0.1), (0.5, 1.5))
            for array, shape, (low, high) in zip(STATISTICS, layer.shapes, ranges, strict=True):
                file[f"{group}/{array}:0"] = random.uniform(low, high, shape).astype(np.float32)
    return path
