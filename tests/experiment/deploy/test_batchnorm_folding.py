"""BatchNorm folded into the next layer: where it may go, and that the numbers stay."""

from __future__ import annotations

import numpy as np
import pytest

from experiment.deploy.batchnorm_folding import affine, into, targets

RISING = (np.array([1.0, 0.5]), np.array([0.0, 0.0]))
FALLING = (np.array([1.0, -0.5]), np.array([0.0, 0.0]))


def test_affine_is_batchnorm() -> None:
    draw = np.random.default_rng(0)
    x, gamma, beta, mean = draw.normal(size=(4, 5, 3))
    variance = draw.uniform(0.5, 2, 3)
    scale, shift = affine(gamma[0], beta[0], mean[0], variance, 1e-3)
    expected = gamma[0] * (x - mean[0]) / np.sqrt(variance + 1e-3) + beta[0]
    np.testing.assert_allclose(x * scale + shift, expected, rtol=1e-12)


def test_a_dense_layer_takes_the_channels_of_flattened_images() -> None:
    draw = np.random.default_rng(0)
    images, kernel, bias = draw.normal(size=(2, 4, 4, 3)), draw.normal(size=(48, 5)), draw.normal(size=5)
    scale, shift = draw.normal(size=(2, 3))
    expected = (images * scale + shift).reshape(2, 48) @ kernel + bias
    folded, moved = into(kernel, bias, (scale, shift))
    np.testing.assert_allclose(images.reshape(2, 48) @ folded + moved, expected, rtol=1e-12)


def test_a_convolution_takes_them_at_every_position() -> None:
    draw = np.random.default_rng(0)
    window, kernel, bias = draw.normal(size=(3, 3, 2)), draw.normal(size=(3, 3, 2, 5)), draw.normal(size=5)
    scale, shift = draw.normal(size=(2, 2))
    expected = np.einsum("hwi,hwio->o", window * scale + shift, kernel) + bias
    folded, moved = into(kernel, bias, (scale, shift))
    np.testing.assert_allclose(np.einsum("hwi,hwio->o", window, folded) + moved, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("between", "scale", "found"),
    [
        ([], FALLING, {"bn": "last"}),
        (["dropout", "flatten"], FALLING, {"bn": "last"}),
        (["max pooling"], RISING, {"bn": "last"}),
        (["max pooling"], FALLING, {}),  # the smallest would become the largest
        (["relu"], RISING, {}),
    ],
)
def test_what_stands_between(between: list[str], scale: tuple, found: dict[str, str]) -> None:
    for last in ("convolution", "dense"):
        chain = [("first", "convolution"), ("bn", "batchnorm"), *[(one, one) for one in between]]
        assert targets([*chain, ("last", last)], {"bn": scale}) == found
    assert targets([*chain, ("padded", "other"), ("last", "dense")], {"bn": scale}) == {}
