"""The weights of pretrained bases, from the Keras files that both sides read."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from experiment.data.catalog import fetch
from experiment.errors import DataError

# Convolutions and filters of each block: Simonyan and Zisserman 2015, table 1, column D.
VGG16_BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
# Blocks and filters (of their first two convolutions) of stages 2 to 5: He et al. 2015, table 1, 50 layers.
RESNET50_STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))
RESNET50_EPSILON = 1.001e-5  # of every BatchNormalization in Keras's ResNet
MEAN_COLOUR = (103.939, 116.779, 123.68)  # of ImageNet, blue first, as both nets' preprocessing has it

APPLICATIONS = "https://storage.googleapis.com/tensorflow/keras-applications"
FILE = "weights_tf_dim_ordering_tf_kernels_notop.h5"
IMAGENET = {
    "vgg16": (f"{APPLICATIONS}/vgg16/vgg16_{FILE}", "md5:6d6bbae143d832006294945121d1f1fc"),
    "resnet50": (f"{APPLICATIONS}/resnet/resnet50_{FILE}", "md5:4d473c1dd8becc155b73f8504c6f6626"),
}
NAMES = {"vgg16": "VGG16", "resnet50": "ResNet50"}
KERAS3 = {2: "conv2d", 4: "batch_normalization"}  # groups in its files, by how many arrays a layer has
STATISTICS = ("gamma", "beta", "moving_mean", "moving_variance")

Shapes = dict[str, tuple[tuple[int, ...], ...]]
Layers = dict[str, list[np.ndarray]]


def base_weights(model: str, source: str, cache: str) -> Layers:
    """The arrays of every layer of a base that has any, by layer name, in Keras's order.

    Of a convolution kernel (height, width, in, out) and bias (out,); of a BatchNormalization gamma, beta,
    moving mean and moving variance (channels,).
    model: vgg16 or resnet50. source: "imagenet" (downloaded once into `cache`), a Keras weights file, or
    "random" (gives none). Raises DataError where the file cannot be had or does not hold the model's layers.
    """
    if source == "random":
        return {}
    path = Path(source).expanduser()
    if source == "imagenet":
        url, checksum = IMAGENET[model]
        path = Path(cache).expanduser() / url.rsplit("/", 1)[1]
        if not path.is_file():
            fetch(url, path, checksum, instead="--model.weights random")
    return _read(path, {"vgg16": vgg16_shapes, "resnet50": resnet50_shapes}[model](), NAMES[model])


def vgg16_shapes() -> Shapes:
    """The shapes of VGG16's arrays, by layer, in the order of its layers."""
    shapes: Shapes = {}
    channels = 3
    for block, (convolutions, filters) in enumerate(VGG16_BLOCKS, 1):
        for number in range(1, convolutions + 1):
            shapes[f"block{block}_conv{number}"] = ((3, 3, channels, filters), (filters,))
            channels = filters
    return shapes


def resnet50_shapes() -> Shapes:
    """The shapes of ResNet50's arrays, by layer, in the order of Keras's model."""
    shapes: Shapes = {"conv1_conv": ((7, 7, 3, 64), (64,)), "conv1_bn": ((64,),) * 4}
    channels = 64
    for stage, (blocks, filters) in enumerate(RESNET50_STAGES, 2):
        for block in range(1, blocks + 1):
            name, last = f"conv{stage}_block{block}", 4 * filters
            sides = {"1": (1, channels, filters), "2": (3, filters, filters)}
            sides |= {"0": (1, channels, last)} if block == 1 else {}
            sides |= {"3": (1, filters, last)}
            for number, (side, inputs, outputs) in sides.items():
                shapes[f"{name}_{number}_conv"] = ((side, side, inputs, outputs), (outputs,))
                if number in "12":
                    shapes[f"{name}_{number}_bn"] = ((outputs,),) * 4
            for number in (n for n in sides if n in "03"):
                shapes[f"{name}_{number}_bn"] = ((last,),) * 4
            channels = last
    return shapes


def _read(path: Path, shapes: Shapes, called: str) -> Layers:
    import h5py  # costs start-up, and only these bases need it

    found: Layers = {}
    counts: Counter[str] = Counter()
    try:
        with h5py.File(path) as file:
            # Keras 3 writes layers/conv2d_K/vars/0, K in the order of the layers of a kind (no _0);
            # Keras's own, older files conv1_conv/conv1_conv/kernel:0 or block1_conv1/block1_conv1_W_1:0.
            root: Any = file.get("layers", file)
            for name, expected in shapes.items():
                kind = KERAS3[len(expected)]
                numbered = f"{kind}_{counts[kind]}" if counts[kind] else kind
                counts[kind] += 1
                arrays = _arrays(root[numbered if numbered in root else name], len(expected))
                if tuple(array.shape for array in arrays) != expected:
                    held = _and(array.shape for array in arrays)
                    raise DataError(f"{path}: {name} holds {held}, {called} has {_and(expected)}")
                found[name] = arrays
    except (OSError, KeyError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: not a Keras weights file of {called} without its top ({error})") from error
    return found


def _arrays(group: Any, count: int) -> list[np.ndarray]:
    """A layer's arrays in Keras's order."""
    import h5py

    found: dict[str, np.ndarray] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name.rsplit("/", 1)[-1].split(":")[0]] = item[()]

    group.visititems(visit)
    if len(found) != count:
        expected = "a kernel and a bias were" if count == 2 else f"{count} were"
        raise ValueError(f"{group.name} holds {len(found)} arrays, {expected} expected")
    if count == 2:
        return sorted(found.values(), key=lambda array: -array.ndim)
    names = [str(i) for i in range(count)] if "0" in found else STATISTICS
    return [found[name] for name in names]


def _and(shapes: Any) -> str:
    return " and ".join(str(tuple(shape)) for shape in shapes)
