"""A file of made-up ResNet50 weights in Keras's layout: each array another, and features of order one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from experiment.data.pretrained import STATISTICS, resnet50_shapes
from experiment.system.files import replacing

INPUTS = 100.0  # about how far preprocessed pixels are from 0
RESIDUAL = 0.2  # of a block's last gamma: sixteen blocks add up


def write(path: Path) -> Path:
    """Write the file, unless it is there; returns its path."""
    import h5py

    if path.is_file():
        return path
    random = np.random.default_rng(0)
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        for name, shapes in resnet50_shapes().items():
            if len(shapes) == 2:
                fan_in = int(np.prod(shapes[0][:-1]))
                scale = (2 / fan_in) ** 0.5 / (INPUTS if name == "conv1_conv" else 1)
                file[f"{name}/{name}/kernel:0"] = scale * random.standard_normal(shapes[0], np.float32)
                file[f"{name}/{name}/bias:0"] = random.uniform(-0.1, 0.1, shapes[1]).astype(np.float32)
                continue
            gamma = RESIDUAL if name.endswith("_3_bn") else 1.0
            ranges = ((0.5 * gamma, 1.5 * gamma), (-0.1, 0.1), (-0.1, 0.1), (0.5, 1.5))
            for array, shape, (low, high) in zip(STATISTICS, shapes, ranges, strict=True):
                file[f"{name}/{name}/{array}:0"] = random.uniform(low, high, shape).astype(np.float32)
    return path
