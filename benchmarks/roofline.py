"""The roofline: a model of a training step's work, beside ceilings measured on the machine.

The roofline of Williams, Waterman and Patterson (Communications of the ACM 52, 2009): a step takes at least
its arithmetic at the rate of a large matrix product, and at least its memory traffic at that of a large copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from experiment.config import Experiment
from experiment.data import features
from experiment.data.pretrained import VGG16_BLOCKS, resnet50_shapes

BYTES = {"bfloat16": 2, "float64": 8}  # of a number; 4 of others


class Convolution(NamedTuple):
    """A convolution from (size, size, channels) images to (outputs, outputs, filters)."""

    kernel: int
    size: int
    channels: int
    outputs: int
    filters: int
    block: int  # of the blocks that `model.fine_tune_blocks` counts
    entry: bool = False  # its input is the block's


def work(experiment: Experiment) -> tuple[float, float]:
    """(floating-point operations, bytes of memory traffic) of training on one image.

    Every convolution and dense layer costs two operations a product, three times: forward, and back to its
    input and to its kernel (the first trained layer's input needs no gradient; a frozen layer has the forward
    pass alone, and none where its features are computed once). Traffic counts each such layer's input and
    output once a pass, as if all between were fused, and no weights, which a batch shares.
    """
    model = experiment.model
    layers = list({"cnn": cnn, "vgg16": vgg16, "resnet50": resnet50}[model.name](experiment))
    last = layers[-1]
    trained = last.block + 1 if model.name == "cnn" else model.fine_tune_blocks
    operations, numbers = 0.0, 0.0
    for layer in layers if not features.usable(experiment) else ():
        learns = layer.block > last.block - trained
        first = layer.block == last.block - trained + 1 and layer.entry
        area = layer.outputs**2
        forward = 2 * layer.kernel**2 * area * layer.channels * layer.filters
        operations += forward * (1 if not learns else 2 if first else 3)
        numbers += (layer.size**2 * layer.channels + area * layer.filters) * (3 if learns else 1)
    flat = last.filters * (1 if model.name == "resnet50" else (last.outputs // 2) ** 2)
    for inputs, outputs in ((flat, model.dense_units), (model.dense_units, 10)):
        first = not trained and outputs == model.dense_units
        operations += 2 * (2 if first else 3) * inputs * outputs
        numbers += 3 * (inputs + outputs)
    return operations, numbers * BYTES.get(experiment.training.precision, 4)


def cnn(experiment: Experiment) -> Iterator[Convolution]:
    model = experiment.model
    blocks = [(model.convolutions_per_block, filters) for filters in model.filters]
    return stacked(experiment.data.image_size, blocks, lost=2)


def vgg16(experiment: Experiment) -> Iterator[Convolution]:
    return stacked(experiment.data.image_size, VGG16_BLOCKS, lost=0)


def stacked(size: int, blocks: Sequence[tuple[int, int]], lost: int) -> Iterator[Convolution]:
    """Blocks of 3x3 convolutions, each of which loses `lost` pixels a side length, with a pooling between."""
    channels = 3
    for block, (convolutions, filters) in enumerate(blocks):
        for layer in range(convolutions):
            yield Convolution(3, size, channels, size - lost, filters, block, layer == 0)
            size, channels = size - lost, filters
        size //= 2


def resnet50(experiment: Experiment) -> Iterator[Convolution]:
    """Its first convolution, a block's first and its shortcut's halve the size, stage 2's after a pooling."""
    size = experiment.data.image_size
    for name, (kernel, *_) in resnet50_shapes().items():
        if not name.endswith("_conv"):
            continue
        side, _, channels, filters = kernel
        if name == "conv1_conv":
            yield Convolution(side, size, channels, (size + 1) // 2, filters, 0, True)
            size = (size + 3) // 4
            continue
        stage, entry = int(name[4]), name[-6] in "01" and "_block1_" in name
        if name.endswith("_block1_1_conv"):
            before, size = size, (size + 1) // 2 if stage > 2 else size
        yield Convolution(side, before if entry else size, channels, size, filters, stage - 1, entry)


def seconds(experiment: Experiment, measured: dict[str, float]) -> float:
    """The least time that training on one image can take."""
    operations, traffic = work(experiment)
    return max(operations / measured["operations_per_second"], traffic / measured["bytes_per_second"])
