"""The records of the pretrained bases: their weights, blocks and strides, as their papers count them."""

from __future__ import annotations

import numpy as np
import pytest

from experiment.backbones import BACKBONES, RESNET50_STAGES

# As Keras counts them, without the top.
PARAMETERS = {"vgg16": 14_714_688, "resnet50": 23_587_712, "mobilenet_v2": 2_257_984}


@pytest.mark.parametrize("name", BACKBONES)
def test_a_base_has_its_number_of_parameters(name: str) -> None:
    shapes = [shape for layer in BACKBONES[name].layers for shape in layer.shapes]
    assert sum(int(np.prod(shape)) for shape in shapes) == PARAMETERS[name]


def test_resnet50_has_the_stages_of_its_paper() -> None:
    assert RESNET50_STAGES == ((3, 64), (4, 128), (6, 256), (3, 512))


@pytest.mark.parametrize("name", BACKBONES)
def test_layers_fit_each_other(name: str) -> None:
    layers = BACKBONES[name].layers
    assert len({layer.name for layer in layers}) == len(layers)
    blocks = [layer.block for layer in layers]
    assert blocks == sorted(blocks)
    assert set(blocks) == set(range(1, BACKBONES[name].blocks + 1))
    for block in set(blocks):
        assert next(layer for layer in layers if layer.block == block).entry
    assert all(layer.after in (layer.before, 2 * layer.before) for layer in layers)
    assert {layer.kind for layer in layers} <= {"conv2d", "depthwise_conv2d", "batch_normalization"}


def test_sides_and_features() -> None:
    vgg16, resnet50 = BACKBONES["vgg16"], BACKBONES["resnet50"]
    assert (vgg16.side(50, 4), resnet50.side(50, 4)) == (12, 13), "pooling drops an odd row, padding keeps it"
    assert (vgg16.features(224), vgg16.features(95)) == (7 * 7 * 512, 2 * 2 * 512)
    assert (resnet50.features(224), resnet50.features(33)) == (2048, 2048)


def test_the_last_blocks_are_named() -> None:
    assert BACKBONES["vgg16"].trained(1) == {f"block5_conv{number}" for number in (1, 2, 3)}
    assert BACKBONES["vgg16"].trained(0) == set()
    names = BACKBONES["resnet50"].trained(5)
    assert {"conv1_conv", "conv1_bn", "conv5_block3_3_bn"} <= names
    assert len(names) == len(BACKBONES["resnet50"].layers)


def test_the_blocks_of_mobilenet_v2_are_its_strides() -> None:
    layers = BACKBONES["mobilenet_v2"].layers
    assert [min(layer.after for layer in layers if layer.block == block) for block in range(1, 6)] == [
        2,
        2,
        4,
        8,
        16,
    ]  # what a block expands first has the size of the block before it
    assert [layer.name for layer in layers if layer.entry] == [
        "Conv1",
        "block_1_expand",
        "block_3_expand",
        "block_6_expand",
        "block_13_expand",
    ]
    assert sum(layer.added for layer in layers) == 10
    last = BACKBONES["mobilenet_v2"].trained(1)
    assert {"block_13_expand", "block_16_project_BN", "Conv_1", "Conv_1_bn"} <= last
    assert not {"block_12_project_BN", "Conv1"} & last
