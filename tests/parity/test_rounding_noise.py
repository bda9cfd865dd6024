"""What training makes of rounding is measured on Keras's side, and allowed tenfold; nothing else is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parity.ladder import rounding_noise, rungs
from parity.traces.pair import Pair
from tests.parity.diagnosis.traced import layer, pair

LAYERS = [layer("conv", "Conv2D", weights={"kernel": [2], "bias": [2]})]
KERNEL = np.ones(2)


def side(bias: float = 0.0, kernel: float = 0.0, losses: float | np.ndarray = 0.0) -> dict[str, np.ndarray]:
    after = {"conv/kernel": KERNEL + kernel, "conv/bias": np.array([bias, 0.0])}
    stages = {f"{stage}/{name}": value for stage in ("step", "final") for name, value in after.items()}
    before = {f"initial/{name}": np.zeros_like(value) for name, value in after.items()}
    return {**before, **stages, "losses": np.full(3, 2.0 + losses)}


def traced(folder: Path, apart: dict[str, Any], own: dict[str, Any] | None) -> Pair:
    """A pair whose sides differ by `apart`, and Keras from itself by `own`; None: nobody measured that."""
    (folder / "pair").mkdir()
    (folder / "own").mkdir()
    both = pair(folder / "pair", LAYERS, side(), side(**apart))
    if own is None:
        return both
    nudged = pair(folder / "own", LAYERS, side(), side(**own)).torch
    return replace(both, again=lambda: nudged)


def failing(both: Pair) -> set[str]:
    checks = [*rungs.one_step(both), *rungs.trajectory(both)]
    return {check.quantity for check in checks if not check.passed}


BIAS, BOTH = {"bias": 1e-6}, {"conv/bias", "final conv/bias"}


@pytest.mark.parametrize(
    ("apart", "own", "failed"),
    [
        (BIAS, {"bias": 2e-7}, set()),
        (BIAS, {"bias": 0.9e-7}, BOTH),  # more than tenfold
        (BIAS, {"kernel": 1e-6}, BOTH),  # another weight's
        (BIAS, None, BOTH),
        ({"losses": 1e-6}, {"losses": 2e-7}, set()),
        ({"losses": 1e-6}, {"losses": 0.9e-7}, {"step loss"}),
    ],
)
def test_ten_times_keras_own_movement_is_allowed(
    tmp_path: Path, apart: dict[str, float], own: dict[str, float] | None, failed: set[str]
) -> None:
    assert failing(traced(tmp_path, apart, own)) == failed


def outputs(folder: Path, apart: float, own: float) -> Pair:
    """A pair whose one layer gives 2, or 2 + apart: relative, so that a share is half of it."""
    both = []
    for name, far in (("pair", apart), ("own", own)):
        (folder / name).mkdir()
        keras, torch = (
            {f"{mode}/conv": np.array([[2.0, 1.0 + by]]) for mode in ("eval", "train")} for by in (0.0, far)
        )
        both.append(pair(folder / name, LAYERS, keras, torch))
    return replace(both[0], again=lambda: both[1].torch)


@pytest.mark.parametrize(
    ("apart", "own", "passes"), [(1e-9, 2e-10, True), (1e-9, 0.9e-10, False), (1e-5, 1e-5, False)]
)
def test_outputs_may_differ_as_much_where_that_is_little(
    tmp_path: Path, apart: float, own: float, passes: bool
) -> None:
    checks = rungs.forward(outputs(tmp_path, apart, own))
    assert all(check.passed for check in checks if check.quantity.startswith("conv")) == passes


@pytest.mark.parametrize(
    ("apart", "own", "steps"),
    [
        (0.1, [0.0, 1e-9, 2e-3], 2),
        (0.1, [1e-5, 1e-4, 2e-3], 0),
        (0.1, [0.0, 0.0, 5e-6], None),  # which tells of another cause
        (1e-7, [0.0, 0.0, 2e-3], None),
        (0.1, [0.0, 0.0, np.nan], None),
    ],
)
def test_steps_that_rounding_moves_far_say_nothing(
    tmp_path: Path, apart: float, own: list[float], steps: int | None
) -> None:
    both = traced(tmp_path, {"losses": apart}, {"losses": np.array(own)})
    assert rounding_noise.steps_that_tell(both) == steps


@pytest.mark.parametrize(("apart", "passes"), [(0.9e-8, True), (1.1e-8, False)])
def test_the_steps_before_are_compared(tmp_path: Path, apart: float, passes: bool) -> None:
    both = traced(tmp_path, {"losses": np.array([0.0, apart, 0.1])}, {"losses": np.array([0.0, 1e-9, 2e-3])})
    (check,) = rounding_noise.first_steps(both, 2, 1e-9)
    assert check.passed == passes


def test_what_is_allowed_is_noted(tmp_path: Path) -> None:
    note = rounding_noise.note(rungs.one_step(traced(tmp_path, BIAS, {"bias": 2e-7})))
    assert "moves by up to 2e-07 (conv/bias)" in note
    assert "(1 of the checks)" in note


def test_nothing_is_noted_where_nothing_is_beyond_the_tolerance(tmp_path: Path) -> None:
    assert rounding_noise.note(rungs.one_step(traced(tmp_path, {}, {"bias": 2e-7}))) == ""


def test_keras_is_run_again_only_where_a_check_fails(tmp_path: Path) -> None:
    def again() -> None:
        raise AssertionError("run again")

    assert failing(replace(traced(tmp_path, {"bias": 1e-11}, None), again=again)) == set()


def test_weights_move_by_their_last_digits() -> None:
    weights = {"raw/0": np.linspace(-3.0, 5.0, 1000), "raw/1": np.arange(3)}
    moved = rounding_noise.nudged(weights)
    share = np.abs(moved["raw/0"] / weights["raw/0"] - 1)
    assert 0.8e-14 < share.max() < 1.5e-14
    assert (share > 0).mean() > 0.95
    np.testing.assert_array_equal(moved["raw/1"], weights["raw/1"])
