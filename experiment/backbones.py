"""The pretrained bases, one record each: weights, layers that hold them, preprocessing of the images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

Shape = tuple[int, ...]


class Layer(NamedTuple):
    """A layer with weights.

    kind: Keras's, as its files of weights spell it. shapes: of its arrays, in Keras's order and layout: of a
    convolution (height, width, in, out), or (height, width, in, 1) where it is depthwise, and (out,) where it
    has a bias; of a BatchNormalization four times (channels,). block: of those that `model.fine_tune_blocks`
    counts, from 1. before, after: how many pixels of the image a pixel of its input and of its output stands
    for, along each side. entry: its input is the block's. added: its output is added to what goes round it.
    """

    kind: str
    name: str
    shapes: tuple[Shape, ...]
    block: int
    before: int
    after: int
    entry: bool = False
    added: bool = False


class Preprocessing(NamedTuple):
    """What the first layer gets of images in 0..255: (image - mean) / deviation, `bgr` blue first."""

    bgr: bool
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]


@dataclass(frozen=True)
class Backbone:
    """A base as keras.applications defines it, without its top.

    title: as its paper writes it. url: of Keras's weights file. checksum: "md5:HEX", or None where Keras
    publishes none. layers: those with weights, in the order of Keras's model. pads: a stride keeps an odd
    last row, else drops it. pooled: its features are the means over what is left of the image, else all of
    it. stride: how many pixels of the image, along a side, it leaves one of. smallest: the least side of an
    image, pixels.
    """

    title: str
    url: str
    checksum: str | None
    layers: tuple[Layer, ...]
    preprocessing: Preprocessing
    pads: bool
    pooled: bool
    stride: int = 32
    smallest: int = 32

    def side(self, size: int, stride: int) -> int:
        """What a stride leaves of the side of an image of `size` pixels."""
        return -(-size // stride) if self.pads else size // stride

    def features(self, size: int) -> int:
        """How many features it gives of an image of `size` pixels a side."""
        return self.layers[-1].shapes[0][-1] * (1 if self.pooled else self.side(size, self.stride) ** 2)

    @property
    def normalized(self) -> bool:
        """It holds BatchNormalizations."""
        return any(layer.kind == "batch_normalization" for layer in self.layers)

    @property
    def blocks(self) -> int:
        """How many blocks it has."""
        return max(layer.block for layer in self.layers)

    def trained(self, blocks: int) -> set[str]:
        """The names of the layers with weights in the last `blocks` blocks."""
        return {layer.name for layer in self.layers if layer.block > self.blocks - blocks}


APPLICATIONS = "https://storage.googleapis.com/tensorflow/keras-applications"
FILE = "weights_tf_dim_ordering_tf_kernels_notop.h5"
# ImageNet's mean colour, blue first: the "caffe" mode of keras.applications.
CAFFE = Preprocessing(True, (103.939, 116.779, 123.68), (1.0, 1.0, 1.0))

# Convolutions and filters of each block: Simonyan and Zisserman 2015, table 1, column D.
VGG16_BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
# Blocks and filters (of their first two convolutions) of stages 2 to 5: He et al. 2015, table 1, 50 layers.
RESNET50_STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))
RESNET50_EPSILON = 1.001e-5  # of every BatchNormalization in Keras's ResNet
# Expansion, filters, blocks and stride of each stage: Sandler et al. 2018, table 2, at width 1.
MOBILENET_V2_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def vgg16_layers(blocks: Sequence[tuple[int, int]] = VGG16_BLOCKS) -> Iterator[Layer]:
    """VGG16's layers; a pooling ends each block."""
    channels = 3
    for block, (convolutions, filters) in enumerate(blocks, 1):
        for number in range(1, convolutions + 1):
            shapes = ((3, 3, channels, filters), (filters,))
            stride = 2 ** (block - 1)
            name = f"block{block}_conv{number}"
            yield Layer("conv2d", name, shapes, block, stride, stride, number == 1)
            channels = filters


def resnet50_layers() -> Iterator[Layer]:
    """ResNet50's layers: its five blocks are the stem and the four stages, each at half the side of the last.

    A stage's first convolution strides, and so does its shortcut's; stage 2 follows a pooling.
    """
    yield Layer("conv2d", "conv1_conv", ((7, 7, 3, 64), (64,)), 1, 1, 2, True)
    yield normalization("conv1_bn", 64, 1, 2)
    channels = 64
    for stage, (blocks, filters) in enumerate(RESNET50_STAGES, 2):
        after = 2**stage
        for block in range(1, blocks + 1):
            name, last = f"conv{stage}_block{block}", 4 * filters
            before = after // 2 if block == 1 and stage > 2 else after
            sides = {"1": (1, channels, filters), "2": (3, filters, filters)}
            sides |= {"0": (1, channels, last)} if block == 1 else {}
            sides |= {"3": (1, filters, last)}
            for number, (side, inputs, outputs) in sides.items():
                shapes = ((side, side, inputs, outputs), (outputs,))
                seen = before if number in "01" else after
                entry = block == 1 and number in "01"
                yield Layer("conv2d", f"{name}_{number}_conv", shapes, stage, seen, after, entry)
                if number in "12":
                    yield normalization(f"{name}_{number}_bn", outputs, stage, after)
            for number in (n for n in sides if n in "03"):
                yield normalization(f"{name}_{number}_bn", last, stage, after, added=number == "3")
            channels = last


def mobilenet_v2_layers() -> Iterator[Layer]:
    """MobileNetV2's layers, without biases: its five blocks are those at one size of the image each.

    Of a block's inverted residuals the first strides, in its depthwise convolution; the stem opens the first
    block, and the last convolution ends the last.
    """
    yield Layer("conv2d", "Conv1", ((3, 3, 3, 32),), 1, 1, 2, True)
    yield normalization("bn_Conv1", 32, 1, 2)
    channels, stride, block, number = 32, 2, 1, 0
    for expansion, filters, repeats, first in MOBILENET_V2_STAGES:
        for repeat in range(repeats):
            name = f"block_{number}" if number else "expanded_conv"
            strides = repeat == 0 and first == 2
            block += strides
            wide, after = expansion * channels, stride * (2 if strides else 1)
            if number:
                shapes = ((1, 1, channels, wide),)
                yield Layer("conv2d", f"{name}_expand", shapes, block, stride, stride, strides)
                yield normalization(f"{name}_expand_BN", wide, block, stride)
            yield Layer("depthwise_conv2d", f"{name}_depthwise", ((3, 3, wide, 1),), block, stride, after)
            yield normalization(f"{name}_depthwise_BN", wide, block, after)
            yield Layer("conv2d", f"{name}_project", ((1, 1, wide, filters),), block, after, after)
            yield normalization(f"{name}_project_BN", filters, block, after, added=repeat > 0)
            channels, stride, number = filters, after, number + 1
    yield Layer("conv2d", "Conv_1", ((1, 1, channels, 1280),), block, stride, stride)
    yield normalization("Conv_1_bn", 1280, block, stride)


def normalization(name: str, channels: int, block: int, stride: int, added: bool = False) -> Layer:
    """A BatchNormalization."""
    return Layer("batch_normalization", name, ((channels,),) * 4, block, stride, stride, added=added)


BACKBONES = {
    "vgg16": Backbone(
        title="VGG16",
        url=f"{APPLICATIONS}/vgg16/vgg16_{FILE}",
        checksum="md5:6d6bbae143d832006294945121d1f1fc",
        layers=tuple(vgg16_layers()),
        preprocessing=CAFFE,
        pads=False,
        pooled=False,
    ),
    "resnet50": Backbone(
        title="ResNet50",
        url=f"{APPLICATIONS}/resnet/resnet50_{FILE}",
        checksum="md5:4d473c1dd8becc155b73f8504c6f6626",
        layers=tuple(resnet50_layers()),
        preprocessing=CAFFE,
        pads=True,
        pooled=True,
    ),
    "mobilenet_v2": Backbone(
        title="MobileNetV2",
        url=f"{APPLICATIONS}/mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
        checksum=None,
        layers=tuple(mobilenet_v2_layers()),
        preprocessing=Preprocessing(False, (127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
        pads=True,
        pooled=True,
    ),
}
