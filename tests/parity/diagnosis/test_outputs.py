"""Causes read from a layer's numbers: each mistake is named, and equal numbers have none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import special

from parity.diagnosis import outputs, settings

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.normal(size=(6, 5, 5, 4))
FEATURES = RANDOM.normal(size=(12, 7))
SCALE, SHIFT = RANDOM.uniform(0.5, 2, size=4), RANDOM.normal(size=4)


def moved(images: np.ndarray) -> np.ndarray:
    """One row on, as padding in front in place of behind does: the row that comes in is another."""
    rolled = np.roll(images, 1, axis=1)
    rolled[:, 0] = 0.3
    return rolled


FAULTS: dict[str, tuple[np.ndarray, Callable[[np.ndarray], np.ndarray], str]] = {
    "softmax": (
        outputs.ACTIVATIONS["softmax"](FEATURES),
        outputs.ACTIVATIONS["softmax"],
        "softmax on top (twice",
    ),
    "relu": (FEATURES, outputs.ACTIVATIONS["relu"], "torch applies relu on top"),
    "channels": (IMAGES, lambda x: x[..., ::-1], "channels are reversed"),
    "scaled": (IMAGES, lambda x: x / 255, "scaled otherwise"),
    "shifted": (IMAGES, lambda x: x - SHIFT, "shifted"),
    "normalised": (IMAGES, lambda x: x * SCALE + SHIFT, "each channel is scaled and shifted"),
    "order": (FEATURES, lambda x: x[:, RANDOM.permutation(7)], "features come in another order"),
    "moved": (IMAGES, moved, "moved by a pixel"),
    "swapped": (IMAGES, lambda x: x.swapaxes(1, 2), "height and width are swapped"),
    "mirrored": (IMAGES, lambda x: x[:, :, ::-1], "mirrored"),
    "reshaped": (
        IMAGES,
        lambda x: x.transpose(0, 3, 1, 2).reshape(x.shape),
        "the same numbers stand in another",
    ),
    "NaN": (FEATURES, lambda x: np.where(x > 1, np.nan, x), "torch's output holds NaN"),
    "shape": (IMAGES, lambda x: x[:, 1:], "another shape"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_read_from_the_numbers(fault: str) -> None:
    keras, change, words = FAULTS[fault]
    found = outputs.explain(keras, change(keras), None)
    assert found is not None
    assert words in found.cause


def test_a_softmax_over_another_axis_is_named_before_one_too_many() -> None:
    scores = RANDOM.normal(size=(6, 5, 1))
    found = outputs.explain(special.softmax(scores, axis=1), np.ones_like(scores), scores)
    assert found is not None
    assert found.cause == "torch's softmax runs over axis 2 (channels last), Keras's over axis 1"


def test_what_is_left_out_is_named() -> None:
    found = outputs.explain(outputs.ACTIVATIONS["relu"](FEATURES), FEATURES, None)
    assert found is not None
    assert found.cause == "torch leaves relu out"


def test_another_activation_is_named_from_the_input() -> None:
    exact, tanh = (outputs.ACTIVATIONS[name](FEATURES) for name in ("exact gelu", "tanh gelu"))
    found = outputs.explain(exact, tanh, FEATURES)
    assert found is not None
    assert found.cause == "torch applies tanh gelu in its place"


def test_unrelated_numbers_have_no_cause() -> None:
    assert outputs.explain(IMAGES, RANDOM.normal(size=IMAGES.shape), None) is None


@pytest.mark.parametrize(
    ("kind", "keras", "torch", "words", "change"),
    [
        (
            "Conv2D",
            {"padding": [[0, 1], [0, 2]]},
            {"padding": [[1, 0], [1, 1]]},
            "the convolution is padded otherwise",
            "F.pad(x, (0, 2, 0, 1))",
        ),
        (
            "AveragePooling2D",
            {"count_include_pad": False},
            {"count_include_pad": True},
            "count_include_pad",
            "count_include_pad=False",
        ),
        ("BatchNormalization", {"momentum": 0.99}, {"momentum": 0.9}, "momentum", "momentum=0.01"),
        ("LayerNormalization", {"epsilon": 1e-3}, {"epsilon": 1e-5}, "epsilon", "eps=0.001"),
        ("gelu", {"approximate": False}, {"approximate": True}, "GELU", "approximate='none'"),
        (
            "Conv2DTranspose",
            {"cropping": [[0, 1]]},
            {"cropping": [[1, 0]]},
            "cropped on the other side",
            "[0, 1]",
        ),
    ],
)
def test_settings_that_differ_name_the_cause_and_the_change(
    kind: str, keras: settings.Settings, torch: settings.Settings, words: str, change: str
) -> None:
    found = settings.explain(keras, torch, kind)
    assert found is not None
    assert words in found.cause
    assert change in found.change
    assert settings.explain(keras, keras, kind) is None
