"""What the hardware would allow: a model of a training step's work, and ceilings measured on this machine.

The roofline of Williams, Waterman and Patterson (Communications of the ACM 52, 2009): a step takes at least
its arithmetic at the rate of a large matrix product, and at least its memory traffic at that of a large copy.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from experiment.config import Experiment
from experiment.weights import VGG16_BLOCKS

SIDE, BYTES = 2048, 2**28


def work(experiment: Experiment) -> tuple[float, float]:
    """(floating-point operations, bytes of memory traffic) of training on one image, in float32.

    Every convolution and dense layer costs two operations a product, three times: forward, and back to its
    input and to its kernel (the first layer's input needs no gradient; a frozen layer has the forward pass
    alone). Traffic counts each such layer's input and output once a pass, as if all between were fused, and
    no weights, which a batch shares.
    """
    model, size, channels = experiment.model, experiment.data.image_size, 3
    operations, numbers = 0.0, 0.0
    if model.name == "cnn":
        blocks = [(model.convolutions_per_block, filters) for filters in model.filters]
        trained = len(blocks)
    else:
        blocks, trained = list(VGG16_BLOCKS), model.fine_tune_blocks
    for number, (convolutions, filters) in enumerate(blocks):
        learns = number >= len(blocks) - trained
        for layer in range(convolutions):
            before = size * size * channels
            size -= 2 if model.name == "cnn" else 0
            forward = 2 * 9 * size * size * channels * filters
            first = number == len(blocks) - trained and layer == 0
            operations += forward * (1 if not learns else 2 if first else 3)
            numbers += (before + size * size * filters) * (3 if learns else 1)
            channels = filters
        size //= 2
    features = size * size * channels
    for inputs, outputs in ((features, model.dense_units), (model.dense_units, 10)):
        operations += 2 * 3 * inputs * outputs
        numbers += 3 * (inputs + outputs)
    return operations, 4.0 * numbers


def ceilings() -> dict[str, float]:
    """Operations a second of a large float32 matrix product; bytes, read and written, of a large copy."""
    draw = np.random.default_rng(0)
    one, other = draw.random((2, SIDE, SIDE), dtype=np.float32)
    memory = np.ones(BYTES // 4, np.float32)
    target = np.empty_like(memory)
    return {
        "operations_per_second": 2 * SIDE**3 / _fastest(lambda: one @ other),
        "bytes_per_second": 2 * BYTES / _fastest(lambda: np.copyto(target, memory)),
    }


def seconds(experiment: Experiment, measured: dict[str, float]) -> float:
    """The least time that training on one image can take."""
    operations, traffic = work(experiment)
    return max(operations / measured["operations_per_second"], traffic / measured["bytes_per_second"])


def _fastest(call: Callable[[], object], times: int = 5) -> float:
    call()
    found = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return min(found)
