"""Draws that both sides share: functions of their arguments, with the distributions they claim."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from experiment import randomness
from experiment.config import Augment
from experiment.randomness import affine_matrices, augmentation, dropout_mask, hash32

COUNT = 20_000


def parameters(**values: float | bool) -> dict[str, np.ndarray]:
    """One image's parameters, neutral but for those given."""
    neutral = {"theta": 0.0, "tx": 0.0, "ty": 0.0, "zx": 1.0, "zy": 1.0, "flip": False}
    return {name: np.array([value]) for name, value in (neutral | values).items()}


def shown(size: int, column: float, row: float, **values: float | bool) -> list[float]:
    """The input position that an output pixel shows."""
    (matrix,) = affine_matrices(parameters(**values), size)
    return (matrix @ [column, row, 1]).tolist()


def draws(**changes: Any) -> dict[str, np.ndarray]:
    generator = randomness.generator(1, "augment", 0, 0)
    return augmentation(generator, COUNT, Augment.model_validate(changes), size=50)


# === Functions of their arguments ===


@pytest.mark.parametrize(
    ("draw", "first", "others"),
    [
        (
            lambda *position: randomness.generator(*position).random(8),
            (1, "a", 2, 3),
            [(2, "a", 2, 3), (1, "b", 2, 3), (1, "a", 3, 3), (1, "a", 2, 4), (1, "a", 3, 2)],
        ),
        (randomness.derived_seed, (1, "a", 2, 3), [(2, "a", 2, 3), (1, "b", 2, 3), (1, "a", 3, 2)]),
        (randomness.kernel, (1, "conv1", (4, 5)), [(2, "conv1", (4, 5)), (1, "conv2", (4, 5))]),
        (randomness.bias, (1, "conv1", 8, "uniform"), [(2, "conv1", 8, "uniform"), (1, "b", 8, "uniform")]),
        (randomness.epoch_order, (1, 0, 99), [(2, 0, 99), (1, 1, 99)]),
        (randomness.dropout_key, (1, "dropout1"), [(2, "dropout1"), (1, "dropout2")]),
        (dropout_mask, (7, 0, (200,), 0.5), [(8, 0, (200,), 0.5), (7, 1, (200,), 0.5)]),
    ],
)
def test_draws_depend_on_every_argument_and_nothing_else(
    draw: Callable[..., Any], first: tuple, others: list[tuple]
) -> None:
    expected = draw(*first)
    randomness.generator(3, "between").random()
    np.testing.assert_array_equal(draw(*first), expected)
    for other in others:
        assert not np.array_equal(draw(*other), expected)


def test_draws_are_pinned_across_versions() -> None:
    assert randomness.derived_seed(1, "golden", 2, 3) == 1261085382
    drawn = randomness.generator(1, "golden", 2, 3).random(2)
    assert drawn.tolist() == [0.9971001552969524, 0.2630257167561947]


def test_derived_seeds_have_31_bits() -> None:
    seeds = [randomness.derived_seed(1, "range", n) for n in range(200)]
    assert 0 <= min(seeds) < max(seeds) < 2**31


# === Initial weights and order ===


@pytest.mark.parametrize(
    ("shape", "fans"), [((3, 3, 32, 64), 9 * (32 + 64)), ((5, 1, 40, 100), 5 * 140), ((300, 80), 380)]
)
def test_kernels_are_glorot_uniform(shape: tuple[int, ...], fans: int) -> None:
    kernel, limit = randomness.kernel(1, "layer", shape), (6 / fans) ** 0.5
    assert kernel.shape == shape
    assert kernel.dtype == np.float64
    assert 0.999 * limit < abs(kernel).max() <= limit
    # The variance of n uniform draws scatters by a factor of sqrt(4 / 5 / n), their mean by sqrt(1 / 3 / n).
    assert kernel.var() == pytest.approx(limit**2 / 3, rel=4 * (0.8 / kernel.size) ** 0.5)
    assert abs(kernel.mean()) < 4 * limit * (1 / 3 / kernel.size) ** 0.5


def test_biases_are_zero_or_uniform() -> None:
    assert randomness.bias(1, "conv1", 7, "zeros").tolist() == [0.0] * 7
    bias = randomness.bias(1, "conv1", COUNT, "uniform")
    assert bias.shape == (COUNT,)
    assert bias.min() == pytest.approx(-0.05, abs=1e-4)
    assert bias.max() == pytest.approx(0.05, abs=1e-4)
    assert abs(bias.mean()) < 4 * 0.05 * (1 / 3 / COUNT) ** 0.5


def test_epoch_order_is_a_permutation() -> None:
    order = randomness.epoch_order(1, 0, 1000)
    assert order.dtype == np.int64
    assert sorted(order) == list(range(1000))


def test_a_balanced_epoch_shows_every_class_and_every_image_of_it_equally_often() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [70, 27, 4]))
    order = randomness.training_order(1, 5, labels, "balanced")
    assert order.shape == labels.shape
    assert sorted(np.bincount(labels[order])) == [33, 34, 34]
    often = np.bincount(order, minlength=len(labels))
    assert set(often[labels == 0]) == {0, 1}
    assert set(often[labels == 1]) == {1, 2}
    assert set(often[labels == 2]) <= {8, 9}
    assert labels[order[:40]].tolist() != sorted(labels[order[:40]]), "the classes are mixed"
    np.testing.assert_array_equal(order, randomness.training_order(1, 5, labels, "balanced"))
    assert (order != randomness.training_order(1, 6, labels, "balanced")).any()
    assert (order != randomness.training_order(2, 5, labels, "balanced")).any()


def test_without_sampling_an_epoch_is_shuffled() -> None:
    order = randomness.training_order(4, 2, np.zeros(90, int))
    np.testing.assert_array_equal(order, randomness.epoch_order(4, 2, 90))


# === Augmentation ===


def test_augmentation_fills_its_ranges_evenly() -> None:
    drawn = draws(rotation=20, width_shift=0.1, height_shift=0.3, zoom=0.25)
    # tx comes from the height range: ImageDataGenerator's swap.
    middles_and_limits = {"theta": (0, 20), "tx": (0, 15), "ty": (0, 5), "zx": (1, 0.25), "zy": (1, 0.25)}
    for name, (middle, limit) in middles_and_limits.items():
        values = drawn[name] - middle
        assert values.shape == (COUNT,)
        assert values.min() == pytest.approx(-limit, rel=0.01)
        assert values.max() == pytest.approx(limit, rel=0.01)
        assert abs(values.mean()) < 4 * limit * (1 / 3 / COUNT) ** 0.5
    assert drawn["flip"].dtype == bool
    assert abs(drawn["flip"].mean() - 0.5) < 4 * (0.25 / COUNT) ** 0.5
    assert drawn["flip"].shape == (COUNT,)


def test_augmentation_draws_are_independent() -> None:
    correlations = np.corrcoef(list(draws().values()))
    assert abs(correlations - np.eye(6)).max() < 4.5 / COUNT**0.5


def test_brightness_fills_its_range_and_leaves_the_other_draws_alone() -> None:
    drawn = draws(brightness=[0.4, 1.5])
    factors = drawn.pop("brightness")
    assert factors.shape == (COUNT,)
    assert (factors.min(), factors.max()) == pytest.approx((0.4, 1.5), abs=1e-3)
    assert abs(factors.mean() - 0.95) < 4 * 0.55 * (1 / 3 / COUNT) ** 0.5
    without = draws()
    assert drawn.keys() == without.keys() == {*randomness.GEOMETRY}
    for name, values in without.items():
        np.testing.assert_array_equal(drawn[name], values)


def test_no_range_means_no_change() -> None:
    drawn = draws(rotation=0, width_shift=0, height_shift=0, zoom=0, horizontal_flip=False)
    assert all((drawn[name] == value[0]).all() for name, value in parameters().items())


def test_height_range_moves_columns_and_width_range_moves_rows() -> None:
    shift = {"rotation": 0, "zoom": 0, "horizontal_flip": False}
    for unused, still in (("width_shift", 1), ("height_shift", 0)):
        offsets = affine_matrices(draws(**shift, **{unused: 0}), 50)[:, :, 2]
        assert (offsets[:, still] == 0).all()
        assert offsets[:, 1 - still].std() > 1


# === Affine matrices, by hand ===


@pytest.mark.parametrize(
    ("values", "output", "position"),
    [
        ({}, (2, 5), (2, 5)),
        ({"tx": 3}, (2, 5), (5, 5)),
        ({"ty": 3}, (2, 5), (2, 8)),
        ({"flip": True}, (2, 5), (7, 5)),
        ({"flip": True, "tx": 3}, (2, 5), (10, 5)),
        ({"theta": 90}, (2, 5), (4, 2)),
        ({"theta": 90, "tx": 3}, (2, 5), (4, 5)),
        ({"zx": 2, "zy": 2}, (0, 9), (-4.5, 13.5)),
        ({"zx": 2}, (0, 9), (-4.5, 9)),
        ({"zy": 0.5}, (0, 9), (0, 6.75)),
        ({"theta": 90, "zx": 2, "flip": True}, (2, 5), (4, 9.5)),
    ],
)
def test_affine_matrices_by_hand(values: dict, output: tuple, position: tuple) -> None:
    assert shown(10, *output, **values) == pytest.approx(position, abs=1e-12)


@pytest.mark.parametrize("size", [9, 12])
def test_affine_matrices_show_what_scipy_shows(size: int) -> None:
    """The steps of keras legacy/preprocessing/image.py, apply_affine_transform, then the flip."""
    config = Augment(rotation=40, width_shift=0.3, height_shift=0.2, zoom=0.5)
    drawn = augmentation(randomness.generator(1, "test"), 20, config, size)
    assert 0 < drawn["flip"].sum() < 20
    image, out = np.random.default_rng(0).random((size, size)), np.indices((size, size))[::-1]
    for i, matrix in enumerate(affine_matrices(drawn, size)):
        theta, tx, ty, zx, zy, flip = (values[i] for values in drawn.values())
        cos, sin, centre = np.cos(np.radians(theta)), np.sin(np.radians(theta)), size / 2 - 0.5
        whole = (
            np.array([[1, 0, centre], [0, 1, centre], [0, 0, 1]])
            @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
            @ np.array([[1, 0, tx], [0, 1, ty], [0, 0, 1]])
            @ np.diag([zx, zy, 1])
            @ np.array([[1, 0, -centre], [0, 1, -centre], [0, 0, 1]])
        )
        whole = whole[np.ix_([1, 0, 2], [1, 0, 2])]  # (column, row) to (row, column)
        expected = ndimage.affine_transform(image, whole[:2, :2], whole[:2, 2], order=1, mode="nearest")
        columns, rows = np.einsum("ij,jyx->iyx", matrix, [*out, np.ones((size, size))])
        seen = ndimage.map_coordinates(image, [rows, columns], order=1, mode="nearest")
        np.testing.assert_allclose(seen, expected[:, ::-1] if flip else expected, atol=1e-12)


# === Shared dropout masks ===


def lowbias32(x: int) -> int:
    """C. Wellons, Prospecting for Hash Functions (2018), in Python's unbounded integers."""
    x ^= x >> 16
    x = x * 0x7FEB352D % 2**32
    x ^= x >> 15
    x = x * 0x846CA68B % 2**32
    return x ^ (x >> 16)


def test_hash_is_lowbias32() -> None:
    values = [0, 1, 2, 12345, 2**31 - 1, 2**31, 2**32 - 1]
    values += np.random.default_rng(0).integers(0, 2**32, 50).tolist()
    hashed = hash32(np.array(values, dtype=np.uint32).view(np.int32))
    assert hashed.dtype == np.int32
    assert hashed.view(np.uint32).tolist() == [lowbias32(value) for value in values]


def test_mask_by_hand() -> None:
    key, step, rate = 1234, 5, 0.3
    stream = lowbias32(key ^ lowbias32(step))
    kept = [(lowbias32(lowbias32(i) ^ stream) >> 8) / 2**24 >= rate for i in range(24)]
    assert dropout_mask(key, step, (2, 3, 4), rate).tolist() == np.reshape(kept, (2, 3, 4)).tolist()
    assert 0 < sum(kept) < 24


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5, 0.9])
def test_masks_keep_their_share(rate: float) -> None:
    count = 0
    for step in range(5):
        mask = dropout_mask(99, step, (10, 20, 100), rate)
        assert mask.shape == (10, 20, 100)
        assert mask.dtype == bool
        count += mask.sum()
    assert abs(count / 100_000 - (1 - rate)) <= 4 * (rate * (1 - rate) / 100_000) ** 0.5


def test_masks_of_neighbours_steps_and_keys_are_uncorrelated() -> None:
    masks = [dropout_mask(key, step, (COUNT,), 0.5) - 0.5 for key in (7, 8, 9) for step in (0, 1, 2)]
    correlations = np.corrcoef(masks) - np.eye(9)
    assert abs(correlations).max() < 4.5 / COUNT**0.5
    for lag in (1, 2, 10, 64):
        for mask in masks:
            assert abs(np.corrcoef(mask[lag:], mask[:-lag])[0, 1]) < 4.5 / COUNT**0.5
