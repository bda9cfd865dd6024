"""VGG16's pretrained convolutions, from the one Keras file that both sides read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from experiment.download import DataError, fetch

# Convolutions and filters of each block: Simonyan and Zisserman 2015, table 1, column D.
VGG16_BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))

IMAGENET_URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/vgg16/"
    "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
IMAGENET_CHECKSUM = "md5:6d6bbae143d832006294945121d1f1fc"


def vgg16_weights(source: str, cache: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Kernel (height, width, in, out) and bias (out,) of every convolution of VGG16, by layer name.

    source: "imagenet" (downloaded once into `cache`), a Keras weights file, or "random" (gives none).
    Raises DataError where the file cannot be had or does not hold VGG16's convolutions.
    """
    if source == "random":
        return {}
    path = Path(source).expanduser()
    if source == "imagenet":
        path = Path(cache).expanduser() / IMAGENET_URL.rsplit("/", 1)[1]
        if not path.is_file():
            fetch(IMAGENET_URL, path, IMAGENET_CHECKSUM, instead="--model.weights random")
    return _read(path)


def _read(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    import h5py  # costs start-up, and only VGG16 needs it

    weights = {}
    try:
        with h5py.File(path) as file:
            # Keras 3 writes layers/conv2d_K/vars/0 and 1, K in the order of the layers (none for the first);
            # Keras's own, older file block1_conv1/block1_conv1_W_1:0.
            root: Any = file.get("layers", file)
            channels, layer = 3, 0
            for block, (convolutions, filters) in enumerate(VGG16_BLOCKS, 1):
                for number in range(1, convolutions + 1):
                    name = f"block{block}_conv{number}"
                    numbered = f"conv2d_{layer}" if layer else "conv2d"
                    kernel, bias = _arrays(root[numbered if numbered in root else name])
                    if kernel.shape != (3, 3, channels, filters) or bias.shape != (filters,):
                        raise DataError(
                            f"{path}: {name} holds {kernel.shape} and {bias.shape}, VGG16 has "
                            f"(3, 3, {channels}, {filters}) and ({filters},)"
                        )
                    weights[name] = (kernel, bias)
                    channels, layer = filters, layer + 1
    except (OSError, KeyError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: not a Keras weights file of VGG16 without its top ({error})") from error
    return weights


def _arrays(group: Any) -> tuple[np.ndarray, np.ndarray]:
    import h5py

    found: list[np.ndarray] = []
    group.visititems(lambda _, item: found.append(item[()]) if isinstance(item, h5py.Dataset) else None)
    if len(found) != 2:
        raise ValueError(f"{group.name} holds {len(found)} arrays, a kernel and a bias were expected")
    kernel, bias = sorted(found, key=lambda array: -array.ndim)
    return kernel, bias
