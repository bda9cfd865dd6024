"""python -m keras_impl.trace.augmented REQUEST.npz OUT.npz: images augmented here, and by
ImageDataGenerator."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from experiment.config import Augment, Experiment
from experiment.errors import DataError
from experiment.protocols import augmentation
from experiment.randomness import GEOMETRY, PARAMETERS, Parameters


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = augmentation.parse("keras", argv)
    return augmentation.run(arguments, replay, stock_pixels, stock_draws)


def replay(images: np.ndarray, parameters: Parameters) -> np.ndarray:
    """The images (N, S, S, 3) as this side's training augments them under the parameters.

    Raises DataError for float64 where the backend computes parts of it in float32.
    """
    import keras

    from keras_impl.augment import KerasAugment, as_inputs
    from keras_impl.precision import numerics

    backend = keras.backend.backend()
    if images.dtype == np.float64 and backend != "tensorflow":
        raise DataError(f"Keras on {backend} computes float64 in part in float32: use --backend tensorflow")
    with numerics(Experiment.model_validate({"training": {"precision": images.dtype.name}})):
        floats = keras.config.floatx()
        inputs = as_inputs(parameters, images.shape[1])
        augmented = KerasAugment(dtype=floats)(images, inputs, training=True)
        return keras.ops.convert_to_numpy(augmented)


def stock_pixels(images: np.ndarray, parameters: Parameters) -> np.ndarray:
    """The images (N, S, S, 3) as ImageDataGenerator.apply_transform leaves them, in their own precision.

    But for the brightness, which gets pixels in float32, ImageDataGenerator's default: in float64 an affine
    map's 255 is 255 + 3e-14 at times, which it takes for an image on another scale and stretches.
    """
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    generator = ImageDataGenerator(fill_mode="nearest", interpolation_order=1, dtype=images.dtype.name)
    pixels = np.empty_like(images)
    for i, image in enumerate(images):
        transform = {name: float(parameters[name][i]) for name in ("theta", "tx", "ty", "zx", "zy")}
        flip = bool(parameters["flip"][i])
        pixels[i] = generator.apply_transform(image, {**transform, "flip_horizontal": flip})
        if others := {name: float(v[i]) for name, v in parameters.items() if name not in GEOMETRY}:
            pixels[i] = generator.apply_transform(pixels[i].astype(np.float32), others)
    return pixels


def stock_draws(settings: Augment, count: int, size: int, seed: int) -> Parameters:
    """What ImageDataGenerator.get_random_transform draws for `count` images of `size` pixels."""
    generator = stock_generator(settings)
    np.random.seed(seed)  # noqa: NPY002  ImageDataGenerator draws from numpy's global generator
    drawn = [generator.get_random_transform((size, size, 3)) for _ in range(count)]
    drawn = [{**one, "flip": bool(one["flip_horizontal"])} for one in drawn]
    names = [name for name in PARAMETERS if drawn[0][name] is not None]
    return {name: np.array([one[name] for one in drawn]) for name in names}


def stock_generator(settings: Augment):
    """ImageDataGenerator with these settings."""
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    return ImageDataGenerator(
        rotation_range=settings.rotation,
        width_shift_range=settings.width_shift,
        height_shift_range=settings.height_shift,
        zoom_range=settings.zoom,
        horizontal_flip=settings.horizontal_flip,
        brightness_range=settings.brightness,
    )


if __name__ == "__main__":
    sys.exit(main())
