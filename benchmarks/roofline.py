"""What the hardware would allow: a model of a training step's work, beside ceilings measured on the machine.

The roofline of Williams, Waterman and Patterson (Communications of the ACM 52, 2009): a step takes at least
its arithmetic at the rate of a large matrix product, and at least its memory traffic at that of a large copy.
"""

from __future__ import annotations

from experiment import features
from experiment.config import Experiment
from experiment.weights import VGG16_BLOCKS

BYTES = {"bfloat16": 2, "float64": 8}  # of a number; 4 of others


def work(experiment: Experiment) -> tuple[float, float]:
    """(floating-point operations, bytes of memory traffic) of training on one image.

    Every convolution and dense layer costs two operations a product, three times: forward, and back to its
    input and to its kernel (the first trained layer's input needs no gradient; a frozen layer has the forward
    pass alone, and none where its features are computed once). Traffic counts each such layer's input and
    output once a pass, as if all between were fused, and no weights, which a batch shares.
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
            if not features.usable(experiment):
                operations += forward * (1 if not learns else 2 if first else 3)
                numbers += (before + size * size * filters) * (3 if learns else 1)
            channels = filters
        size //= 2
    for inputs, outputs in ((size * size * channels, model.dense_units), (model.dense_units, 10)):
        first = not trained and outputs == model.dense_units
        operations += 2 * (2 if first else 3) * inputs * outputs
        numbers += 3 * (inputs + outputs)
    return operations, numbers * BYTES.get(experiment.training.precision, 4)


def seconds(experiment: Experiment, measured: dict[str, float]) -> float:
    """The least time that training on one image can take."""
    operations, traffic = work(experiment)
    return max(operations / measured["operations_per_second"], traffic / measured["bytes_per_second"])
