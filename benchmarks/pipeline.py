"""Input throughput: batches read, shuffled and augmented, without a model."""

from __future__ import annotations

from benchmarks import throughput
from benchmarks.throughput import Way


class Suite(throughput.Suite):
    """The suite's cells, and how one is measured."""

    title = "Input: images read and augmented a second"
    notes = (
        "Batches as `train` makes them, with rotation, shift, zoom and flip of each image, and no model: a "
        "window is an epoch, the first is left out. The tutorial's are an `ImageDataGenerator`'s."
    )
    base = "the tutorial's ImageDataGenerator"
    images = 25600
    ways = {  # noqa: RUF012
        base: Way(
            "keras_impl.bench.baselines", ("--mode=tutorial_input", "--backend=tensorflow"), "tensorflow"
        ),
        "Lightning": Way("lightning_impl.bench.baselines", ("--mode=input",)),
        "Lightning, torchvision's transforms": Way(
            "lightning_impl.bench.baselines", ("--mode=input", "--augment.kind=torchvision")
        ),
        "Keras on TensorFlow": Way(
            "keras_impl.bench.baselines", ("--mode=input", "--backend=tensorflow"), "tensorflow"
        ),
        "Keras on JAX": Way("keras_impl.bench.baselines", ("--mode=input", "--backend=jax"), "jax"),
        "Keras on torch": Way("keras_impl.bench.baselines", ("--mode=input", "--backend=torch")),
    }
    quick = (base, "Lightning", "Keras on TensorFlow")
