"""What is done to pixels before the first weights is read from what these give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from parity.diagnosis import pixels
from tests.parity.diagnosis.traced import layer, pair

RANDOM = np.random.default_rng(4)
IMAGES = RANDOM.uniform(size=(2, 11, 11, 3))
KERNEL, BIAS = RANDOM.normal(size=(3, 3, 3, 5)), RANDOM.normal(size=5)
SETTINGS = {"strides": [2, 1], "padding": [[1, 0], [1, 1]], "dilation": [1, 1]}


def resized(mode: str, size: int = 7, **arguments) -> np.ndarray:
    """By torch itself."""
    tensor = torch.from_numpy(IMAGES).movedim(-1, 1)
    return F.interpolate(tensor, (size, size), mode=mode, **arguments).movedim(1, -1).numpy()


def explained(folder: Path, keras: np.ndarray, torchs: np.ndarray) -> str:
    """The cause where the convolution is given these pixels."""
    outputs = [pixels.convolved(images, KERNEL, SETTINGS) + BIAS for images in (keras, torchs)]
    layers = [
        layer("resizing", "Resizing"),
        layer(
            "conv",
            "Conv2D",
            inputs=["resizing"],
            settings=SETTINGS,
            shape=list(outputs[0].shape[1:]),
            weights={"kernel": list(KERNEL.shape), "bias": [5]},
        ),
    ]
    arrays = {
        "inputs": IMAGES,
        "eval/resizing": keras,
        "eval/conv": outputs[0],
        "initial/conv/kernel": KERNEL,
        "initial/conv/bias": BIAS,
    }
    found = pixels.explain("conv", pair(folder, layers, arrays, {"eval/conv": outputs[1]}))
    return "" if found is None else found.cause


def test_the_convolution_is_torchs() -> None:
    tensor = F.pad(torch.from_numpy(IMAGES).movedim(-1, 1), (1, 1, 1, 0))
    expected = F.conv2d(tensor, torch.from_numpy(KERNEL).permute(3, 2, 0, 1), stride=(2, 1))
    found = pixels.convolved(IMAGES, KERNEL, SETTINGS)
    np.testing.assert_allclose(found, expected.movedim(1, -1).numpy(), rtol=1e-12, atol=1e-12)


WAYS = {
    "bilinear with half-pixel centres": ("bilinear", {"align_corners": False}),
    "bilinear with antialias": ("bilinear", {"antialias": True}),
    "bilinear with align_corners": ("bilinear", {"align_corners": True}),
    "nearest": ("nearest", {}),
    "nearest with half-pixel centres": ("nearest-exact", {}),
    "bicubic (a = -0.75)": ("bicubic", {"align_corners": False}),
    "bicubic with antialias": ("bicubic", {"antialias": True}),
    "area": ("area", {}),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [7, 16])
def test_the_ways_to_resize_are_torchs(way: str, size: int) -> None:
    mode, arguments = WAYS[way]
    matrix = pixels.WAYS[way](11, size)
    found = np.einsum("ah,bw,nhwc->nabc", matrix, matrix, IMAGES)
    np.testing.assert_allclose(found, resized(mode, size, **arguments), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("way", [name for name in WAYS if name != "bilinear with half-pixel centres"])
def test_another_way_to_resize_is_named(tmp_path: Path, way: str) -> None:
    mode, arguments = WAYS[way]
    cause = explained(tmp_path, resized("bilinear"), resized(mode, **arguments))
    assert f"torch's is {way}, Keras's bilinear with half-pixel centres" in cause


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x / 255, "the pixels are scaled otherwise"),
        (lambda x: x - [0.4, 0.5, 0.6], "a mean colour is not subtracted"),
        (lambda x: (x - [0.4, 0.5, 0.6]) / [0.2, 0.3, 0.4], "scaled and shifted otherwise"),
        (lambda x: x[..., ::-1], "RGB for BGR"),
        (lambda x: x**2, ""),
    ],
)
def test_another_preprocessing_is_named(tmp_path: Path, change, words: str) -> None:
    keras = resized("bilinear")
    cause = explained(tmp_path, keras, change(keras))
    assert words in cause
    assert bool(words) == bool(cause)
