"""Every draw that both sides share, each a function of what it is for and nothing else.

A draw depends on (seed, purpose, epoch, step) alone, never on what was drawn before it: a resumed run
draws what the uninterrupted one would have drawn, and both frameworks draw the same.
"""

from __future__ import annotations

import zlib

import numpy as np

from experiment.config import Augment, Sampling


def generator(seed: int, purpose: str, *position: int) -> np.random.Generator:
    """The generator for one purpose at one position, such as ("augment", epoch, step)."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, _number(purpose), *position])))


def derived_seed(seed: int, purpose: str, *position: int) -> int:
    """A 31-bit seed for a framework's own generator, for one purpose at one position."""
    sequence = np.random.SeedSequence([seed, _number(purpose), *position])
    return int(sequence.generate_state(1)[0] >> 1)


def kernel(seed: int, layer: str, shape: tuple[int, ...]) -> np.ndarray:
    """Initial kernel of a layer, Glorot uniform, in Keras's layout.

    shape: (height, width, in, out) of a convolution or (in, out) of a dense layer. Returns float64.
    U(-a, a) with a = sqrt(6 / (fan_in + fan_out)): Glorot and Bengio 2010, eq. 16; the fans of a
    convolution count its receptive field, as Keras's GlorotUniform does.
    """
    receptive_field = int(np.prod(shape[:-2]))
    limit = np.sqrt(6.0 / (receptive_field * (shape[-2] + shape[-1])))
    return generator(seed, f"kernel {layer}").uniform(-limit, limit, size=shape)


def bias(seed: int, layer: str, units: int, kind: str) -> np.ndarray:
    """Initial bias of a layer: zeros, or "uniform" from U(-0.05, 0.05). Returns (units,) float64."""
    if kind == "zeros":
        return np.zeros(units)
    return generator(seed, f"bias {layer}").uniform(-0.05, 0.05, size=units)


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order in which an epoch visits the training images: a permutation, (count,) int64."""
    return generator(seed, "order", epoch).permutation(count)


def training_order(seed: int, epoch: int, labels: np.ndarray, sampling: Sampling = "shuffle") -> np.ndarray:
    """The positions that an epoch visits, in order, (N,) int64: all of them once, or as `sampling` has it.

    labels: (N,) of the training split. balanced: classes come equally often, but for one image, and so do
    the images of a class.
    """
    if sampling == "shuffle":
        return epoch_order(seed, epoch, len(labels))
    random = generator(seed, "balanced order", epoch)
    classes = random.permutation(np.unique(labels))  # the first of which get the remainder
    drawn = []
    for place, one in enumerate(classes):
        rows = np.flatnonzero(labels == one)
        wanted = len(labels) // len(classes) + (place < len(labels) % len(classes))
        rounds = [random.permutation(rows) for _ in range(-(-wanted // len(rows)))]
        drawn.append(np.concatenate(rounds)[:wanted])
    return random.permutation(np.concatenate(drawn))


GEOMETRY = ("theta", "tx", "ty", "zx", "zy", "flip")  # what `affine_matrices` takes
PARAMETERS = (*GEOMETRY, "brightness")
Parameters = dict[str, np.ndarray]


def augmentation(random: np.random.Generator, count: int, config: Augment, size: int) -> Parameters:
    """One set of augmentation parameters an image, distributed as ImageDataGenerator draws them.

    Returns arrays of (count,): theta in degrees; tx, ty in pixels; zx, zy as factors; flip as bool; and where
    it is configured brightness, a factor. A new parameter is drawn last, so that the others' draws stay. The
    names are ImageDataGenerator's own: tx is drawn from the *height* range and moves columns.
    """

    def uniform(limit: float) -> np.ndarray:
        return random.uniform(-limit, limit, size=count)

    parameters = {
        "theta": uniform(config.rotation),
        "tx": uniform(config.height_shift) * size,
        "ty": uniform(config.width_shift) * size,
        "zx": 1.0 + uniform(config.zoom),
        "zy": 1.0 + uniform(config.zoom),
        "flip": (random.random(count) < 0.5) & config.horizontal_flip,
    }
    if config.brightness is not None:
        parameters["brightness"] = random.uniform(*config.brightness, size=count)
    return parameters


def affine_matrices(parameters: Parameters, size: int) -> np.ndarray:
    """For each image the map from an output pixel to the input position that it shows.

    Returns (N, 2, 3) float64: input (column, row) = matrix @ (column, row, 1) of the output, in pixels.
    The map is centre . R . T . Z . centre^-1 with ImageDataGenerator's matrices (keras
    legacy/preprocessing/image.py, apply_affine_transform); its flip comes after, so it stands rightmost.
    """
    theta = np.deg2rad(parameters["theta"])
    cos, sin = np.cos(theta), np.sin(theta)
    zx, zy, tx, ty = (parameters[name] for name in ("zx", "zy", "tx", "ty"))
    centre = size / 2 - 0.5
    linear = np.stack([np.stack([cos * zx, -sin * zy], -1), np.stack([sin * zx, cos * zy], -1)], -2)
    shift = np.stack([cos * tx - sin * ty, sin * tx + cos * ty], -1)
    offset = shift + centre - linear.sum(-1) * centre
    flip = parameters["flip"]
    offset = np.where(flip[:, None], offset + linear[:, :, 0] * (size - 1), offset)
    linear[flip, :, 0] *= -1
    return np.concatenate([linear, offset[:, :, None]], axis=-1)


# The hash below runs in both frameworks' graphs, so that shared dropout masks need no transfer and no
# order of draws; this is its definition, in numpy. 32-bit wrap-around arithmetic, lowbias32 by C. Wellons.
HASH_SHIFTS = (16, 15, 16)
HASH_FACTORS = (0x7FEB352D, 0x846CA68B - 2**32)


def hash32(values: np.ndarray) -> np.ndarray:
    """A well-mixed function of 32-bit integers: int32 in, int32 out, same shape."""
    bits = values.astype(np.int32).view(np.uint32)
    for shift, factor in zip(HASH_SHIFTS, (*HASH_FACTORS, 1), strict=True):
        bits = (bits ^ (bits >> np.uint32(shift))) * np.uint32(factor % 2**32)
    return bits.view(np.int32)


def dropout_key(seed: int, layer: str) -> int:
    """The key of a layer's shared dropout masks, an int32."""
    return derived_seed(seed, f"dropout {layer}")


def dropout_threshold(rate: float) -> int:
    """An element is kept when its 24-bit hash is at least this: the rate in units of 2^-24."""
    return round(rate * 2**24)


def dropout_mask(key: int, step: int, shape: tuple[int, ...], rate: float) -> np.ndarray:
    """Which elements a shared dropout layer keeps at one training step (counted from 0 over the run).

    shape: of the layer's input in Keras's layout (batch first, channels last). Returns bool, same shape.
    """
    stream = hash32(np.array([key ^ int(hash32(np.array([step]))[0])]))
    elements = np.arange(int(np.prod(shape)), dtype=np.int32)
    uniform24 = (hash32(hash32(elements) ^ stream).view(np.uint32) >> np.uint32(8)).astype(np.int64)
    return (uniform24 >= dropout_threshold(rate)).reshape(shape)


def _number(purpose: str) -> int:
    return zlib.crc32(purpose.encode())


# The losses of classes that take them as rows of zeros and a one, beside Keras's CategoricalCrossentropy.
OF_ROWS = ("categorical_focal_crossentropy", "categorical_hinge")
OF_CLASSES = ("crossentropy", "categorical_generalized_cross_entropy", *OF_ROWS)
OF_TWO = ("binary", "binary_focal_crossentropy", "hinge", "squared_hinge", "dice", "tversky")
OF_POSITIVE = ("poisson", "mean_squared_logarithmic_error", "mean_absolute_percentage_error")


def sample_weights(seed: int, count: int) -> np.ndarray:
    """Weights of the samples of a traced model, from 0.5 to 2, (count,) float64."""
    return generator(seed, "sample weights").uniform(0.5, 2.0, size=count)


def targets(seed: int, shape: tuple[int, ...], loss: str) -> np.ndarray:
    """What a traced model of unknown purpose is trained towards: the same on both sides.

    shape: of the model's output (N, ..., C). loss: by its name in `experiment.protocols.trace.LossTerm`.
    Returns class numbers (N, ...) int64 for the losses of classes, else float64 of `shape`: zeros and ones,
    probabilities, positive numbers, or for a regression numbers of a normal distribution.
    """
    random = generator(seed, "targets")
    if loss in OF_CLASSES:
        return random.integers(shape[-1], size=shape[:-1])
    if loss in OF_TWO:
        return random.integers(2, size=shape).astype(np.float64)
    if loss == "kl_divergence":
        return random.dirichlet(np.ones(shape[-1]), size=shape[:-1])
    if loss in OF_POSITIVE:
        return random.exponential(size=shape)
    return random.standard_normal(shape)
