"""What Keras's optimizers, schedules and random image layers compute: python migrate_pieces.py OUT.npz."""

from __future__ import annotations

import sys

import keras
import numpy as np

OPTIMIZERS = {
    "RMSprop": {"rho": 0.8, "momentum": 0.5, "centered": True},
    "Adagrad": {"initial_accumulator_value": 0.2},
    "Adadelta": {"learning_rate": 0.5},
    "Adamax": {},
    "Nadam": {},
    "Lion": {"weight_decay": 0.25},
}
SCHEDULES = {
    "ExponentialDecay": {
        "initial_learning_rate": 0.1,
        "decay_steps": 4,
        "decay_rate": 0.5,
        "staircase": True,
    },
    "InverseTimeDecay": {"initial_learning_rate": 0.1, "decay_steps": 4, "decay_rate": 0.5},
    "PolynomialDecay": {"initial_learning_rate": 0.1, "decay_steps": 4, "power": 2.0, "cycle": True},
    "PiecewiseConstantDecay": {"boundaries": [2, 5], "values": [0.3, 0.2, 0.1]},
    "CosineDecay": {"initial_learning_rate": 0.01, "decay_steps": 6, "warmup_target": 0.1, "warmup_steps": 3},
    "CosineDecayRestarts": {"initial_learning_rate": 0.1, "first_decay_steps": 3, "m_mul": 0.8},
}
STEPS = 12
IMAGES = np.random.default_rng(0).uniform(0, 255, (3, 7, 9, 2))
GRADIENTS = np.random.default_rng(1).normal(size=(6, 4, 3))
MATRICES = np.array([[0.9, -0.2, 1.0, 0.3, 1.1, -0.7], [1, 0, -1.5, 0, 1, 2.25], [1.2, 0, -0.8, 0, 0.7, 0.9]])
DRAWS = 4000


def main(out: str) -> None:
    keras.config.set_floatx("float64")
    keras.utils.set_random_seed(0)
    found = {}
    for name, settings in OPTIMIZERS.items():
        weight = keras.Variable(np.ones((4, 3)))
        optimizer = getattr(keras.optimizers, name)(**{"learning_rate": 1e-2, **settings})
        for gradient in GRADIENTS:
            optimizer.apply([keras.ops.convert_to_tensor(gradient)], [weight])
        found[name] = np.asarray(weight)
    for name, settings in SCHEDULES.items():
        schedule = getattr(keras.optimizers.schedules, name)(**settings)
        found[name] = np.array([float(schedule(step)) for step in range(STEPS)])
    for norm in ("clipnorm", "global_clipnorm", "clipvalue"):
        optimizer = keras.optimizers.SGD(1.0, **{norm: 0.7})
        weights = [keras.Variable(np.zeros((4, 3))) for _ in range(2)]
        optimizer.apply([keras.ops.convert_to_tensor(GRADIENTS[i] * (i + 1)) for i in range(2)], weights)
        found[norm] = np.stack([np.asarray(weight) for weight in weights])
    padded = np.concatenate([MATRICES, np.zeros((3, 2))], axis=1)
    for mode in ("reflect", "nearest", "constant"):
        moved = keras.ops.image.affine_transform(IMAGES, padded, fill_mode=mode)
        found[f"affine/{mode}"] = np.asarray(moved)
    keras.config.set_floatx("float32")  # RandomRotation knows no other on TensorFlow
    ramp = np.stack(np.meshgrid(np.arange(32.0), np.arange(32.0)), axis=-1)
    ramps = np.repeat(ramp[None], DRAWS, axis=0).astype(np.float32)
    for name, layer in {
        "RandomRotation": keras.layers.RandomRotation((-0.05, 0.1)),
        "RandomTranslation": keras.layers.RandomTranslation((-0.1, 0.2), 0.1),
        "RandomZoom": keras.layers.RandomZoom((-0.2, 0.1), (0.0, 0.3)),
        "RandomContrast": keras.layers.RandomContrast((0.2, 0.5), value_range=(-99, 99)),
        "RandomContrast of one number": keras.layers.RandomContrast(0.3, value_range=(-99, 99)),
        "RandomBrightness": keras.layers.RandomBrightness((-0.1, 0.3), value_range=(-99, 99)),
        "RandomFlip": keras.layers.RandomFlip("horizontal_and_vertical"),
    }.items():
        # Two pixels near the centre of a ramp show where they came from.
        found[f"draws/{name}"] = np.asarray(layer(ramps, training=True))[:, [15, 17], [14, 18]].reshape(
            DRAWS, 4
        )
    np.savez(out, allow_pickle=False, **found)


if __name__ == "__main__":
    main(sys.argv[1])
