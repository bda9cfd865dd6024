"""Weights as they are: every mistake of loading them is caught, and named."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from parity.foreign.weights import Weights, compare, look_initialised

RANDOM = np.random.default_rng(0)
KERAS: dict[str, dict[str, np.ndarray]] = {
    "conv": {"kernel": RANDOM.normal(size=(3, 3, 3, 8)), "bias": RANDOM.normal(size=8)},
    "conv_again": {"kernel": RANDOM.normal(size=(3, 3, 8, 8)), "bias": RANDOM.normal(size=8)},
    "conv_third": {"kernel": RANDOM.normal(size=(3, 3, 8, 8)), "bias": RANDOM.normal(size=8)},
    "bn": {
        name: RANDOM.uniform(0.5, 2, size=8) for name in ("gamma", "beta", "moving_mean", "moving_variance")
    },
    "dense": {"kernel": RANDOM.normal(size=(2 * 3 * 8, 5)), "bias": RANDOM.normal(size=5)},
    "lstm": {"kernel": RANDOM.normal(size=(6, 16)), "bias": RANDOM.normal(size=16)},
}
KINDS = {
    **dict.fromkeys(("conv", "conv_again", "conv_third"), "Conv2D"),
    "bn": "BatchNormalization",
    "dense": "Dense",
    "lstm": "LSTM",
}
FLATTENED = {"dense": (2, 3, 8)}

Change = Callable[[dict[str, dict[str, np.ndarray]]], None]


def copied() -> dict[str, dict[str, np.ndarray]]:
    return {
        layer: {name: array.copy() for name, array in weights.items()} for layer, weights in KERAS.items()
    }


def put(layer: str, name: str, change: Callable[[np.ndarray], np.ndarray]) -> Change:
    def changed(torch: dict[str, dict[str, np.ndarray]]) -> None:
        torch[layer][name] = change(torch[layer][name])

    return changed


def exchange(torch: dict[str, dict[str, np.ndarray]]) -> None:
    torch["conv_again"], torch["conv_third"] = torch["conv_third"], torch["conv_again"]


def exchange_statistics(torch: dict[str, dict[str, np.ndarray]]) -> None:
    bn = torch["bn"]
    bn["gamma"], bn["moving_variance"] = bn["moving_variance"], bn["gamma"]


def channel_first(kernel: np.ndarray) -> np.ndarray:
    return kernel.reshape(2, 3, 8, 5).transpose(2, 0, 1, 3).reshape(48, 5)


def gates(array: np.ndarray) -> np.ndarray:
    i, f, c, o = np.split(array, 4, axis=-1)
    return np.concatenate([i, c, f, o], axis=-1)


MISTAKES: dict[str, tuple[Change, str, str]] = {
    "height and width": (
        put("conv", "kernel", lambda k: k.swapaxes(0, 1)),
        "conv",
        "height and width are swapped",
    ),
    "in and out": (
        put("conv_again", "kernel", lambda k: k.swapaxes(2, 3)),
        "conv_again",
        "inputs and outputs are",
    ),
    "flipped": (put("conv", "kernel", lambda k: k[::-1, ::-1]), "conv", "height and width run backwards"),
    "BGR": (put("conv", "kernel", lambda k: k[:, :, ::-1]), "conv", "inputs run backwards"),
    "flatten": (put("dense", "kernel", channel_first), "dense", "follow torch's flattening"),
    "gates": (put("lstm", "kernel", gates), "lstm", "gates are in the order input, cell, forget, output"),
    "two biases": (put("lstm", "bias", lambda b: 2 * b), "lstm", "2 times Keras's (added twice?)"),
    "not loaded": (put("bn", "moving_mean", np.zeros_like), "bn", "moving_mean was not loaded"),
    "another layer's": (exchange, "conv_again", "has the weights of Keras's conv_third"),
    "another weight": (exchange_statistics, "bn", "the gamma is Keras's moving_variance"),
    "deviation": (put("bn", "moving_variance", np.sqrt), "bn", "standard deviations"),
    "half": (
        put("dense", "kernel", lambda k: k.astype(np.float16).astype(np.float64)),
        "dense",
        "rounded to float16",
    ),
    "shuffled": (
        put("dense", "bias", lambda b: b[[2, 0, 1, 4, 3]]),
        "dense",
        "the same numbers in another order",
    ),
    "shape": (put("dense", "kernel", lambda k: k[:-1]), "dense", "other numbers"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_loading_weights_is_caught_and_named(mistake: str) -> None:
    change, layer, words = MISTAKES[mistake]
    torch = copied()
    change(torch)
    compared = compare(KERAS, torch, KINDS, FLATTENED)
    assert not compared.same
    assert compared.related
    assert compared.layer == layer
    assert compared.cause is not None
    assert words in compared.cause.cause


def test_the_same_weights_are_the_same() -> None:
    rounded: dict[str, Weights] = {
        layer: {name: array.astype(np.float32) for name, array in weights.items()}
        for layer, weights in KERAS.items()
    }
    compared = compare(KERAS, rounded, KINDS, FLATTENED)
    assert compared.same
    assert len(compared.checks) == sum(map(len, KERAS.values()))


def test_independent_weights_are_unrelated() -> None:
    random = np.random.default_rng(1)
    torch = {
        layer: {name: random.normal(size=array.shape) for name, array in weights.items()}
        for layer, weights in KERAS.items()
    }
    compared = compare(KERAS, torch, KINDS, FLATTENED)
    assert not compared.same
    assert not compared.related


def test_equal_zeros_relate_nothing() -> None:
    keras = {"dense": {"kernel": RANDOM.normal(size=(4, 4)), "bias": np.zeros(4)}}
    torch = {"dense": {"kernel": RANDOM.normal(size=(4, 4)), "bias": np.zeros(4)}}
    assert not compare(keras, torch, {"dense": "Dense"}, {}).related


def test_initial_weights_are_known_by_their_bound() -> None:
    bound = 1 / np.sqrt(48)
    drawn = {"dense": {"kernel": RANDOM.uniform(-bound, bound, size=(48, 50)), "bias": np.zeros(50)}}
    assert look_initialised(drawn)
    glorot = np.sqrt(6 / (48 + 50))
    assert look_initialised({"dense": {"kernel": RANDOM.uniform(-glorot, glorot, size=(48, 50))}})
    trained = {"dense": {"kernel": drawn["dense"]["kernel"] * 1.2, "bias": np.zeros(50)}}
    assert not look_initialised(trained)
