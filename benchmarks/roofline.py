"""The roofline: a model of a training step's work, beside ceilings measured on the machine.

The roofline of Williams, Waterman and Patterson (Communications of the ACM 52, 2009): a step takes at least
its arithmetic at the rate of a large matrix product, and at least its memory traffic at that of a large copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from experiment.backbones import Backbone
from experiment.config import Experiment
from experiment.data import features

BYTES = {"bfloat16": 2, "float64": 8}  # of a number; 4 of others


class Convolution(NamedTuple):
    """A convolution from (size, size, channels) images to (outputs, outputs, filters).

    products: of one pixel of the output, over all its filters.
    """

    products: int
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
    size = experiment.data.image_size
    if model.backbone is None:
        layers = list(cnn(experiment))
        flat = layers[-1].filters * (layers[-1].outputs // 2) ** 2
        trained = len(model.filters)
    else:
        layers = list(base(model.backbone, size))
        flat, trained = model.backbone.features(size), model.fine_tune_blocks
    last = layers[-1]
    operations, numbers = 0.0, 0.0
    for layer in layers if not features.usable(experiment) else ():
        learns = layer.block > last.block - trained
        first = layer.block == last.block - trained + 1 and layer.entry
        area = layer.outputs**2
        forward = 2 * layer.products * area
        operations += forward * (1 if not learns else 2 if first else 3)
        numbers += (layer.size**2 * layer.channels + area * layer.filters) * (3 if learns else 1)
    for inputs, outputs in ((flat, model.dense_units), (model.dense_units, 10)):
        first = not trained and outputs == model.dense_units
        operations += 2 * (2 if first else 3) * inputs * outputs
        numbers += 3 * (inputs + outputs)
    return operations, numbers * BYTES.get(experiment.training.precision, 4)


def cnn(experiment: Experiment) -> Iterator[Convolution]:
    """Blocks of 3x3 convolutions, each of which loses two pixels a side length, with a pooling between."""
    model, size, channels = experiment.model, experiment.data.image_size, 3
    for block, filters in enumerate(model.filters, 1):
        for layer in range(model.convolutions_per_block):
            products = 9 * channels * filters
            yield Convolution(products, size, channels, size - 2, filters, block, layer == 0)
            size, channels = size - 2, filters
        size //= 2


def base(backbone: Backbone, size: int) -> Iterator[Convolution]:
    """The convolutions of a base, on images of `size` pixels a side."""
    for layer in backbone.layers:
        if layer.kind == "batch_normalization":
            continue
        height, width, channels, filters = layer.shapes[0]
        products = height * width * channels * filters
        before, after = (backbone.side(size, stride) for stride in (layer.before, layer.after))
        outputs = channels if layer.kind == "depthwise_conv2d" else filters
        yield Convolution(products, before, channels, after, outputs, layer.block, layer.entry)


def seconds(experiment: Experiment, measured: dict[str, float]) -> float:
    """The least time that training on one image can take."""
    operations, traffic = work(experiment)
    return max(operations / measured["operations_per_second"], traffic / measured["bytes_per_second"])
