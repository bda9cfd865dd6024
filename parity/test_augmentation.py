"""Both sides augment as ImageDataGenerator does, and every way to get it wrong fails where it should."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from experiment import randomness
from experiment.config import Augment, Data
from experiment.data.dataset import load
from experiment.protocols.augmentation import Request
from experiment.randomness import PARAMETERS, Parameters
from experiment.system import processes
from parity.checks import Check, table
from parity.ladder import augmentation, photos, stock_augmentation
from parity.ladder.augmentation import SETTINGS, TRANSFORMS

COUNT, SIZE = 64, 32
PLACED = augmentation.placements(COUNT, SIZE)
MOVING = {*PLACED} - {"flip", "brightness"}
ALL = {"all that places", "all together", "whole pixels", "whole pixels, brightness"}
SHIFTED = {"column shift", "row shift", *ALL}
BRIGHTENED = {"brightness", "all together", "whole pixels, brightness"}
ZOOMED = {"column zoom", "row zoom", *ALL}


@dataclass(frozen=True)
class Rung:
    """The rung as it ran in float64 on TensorFlow, and what it compared."""

    folder: Path
    checks: list[Check]
    reference: dict[str, np.ndarray]
    keras: dict[str, np.ndarray]
    drawn: Parameters

    def fails(self, lightning: dict[str, np.ndarray]) -> set[str]:
        """The transforms that fail for these pixels, against the reference and against Keras's side alike."""
        checks = augmentation.compare_pixels(self.reference, self.keras, lightning, "float64")
        failed = {check.quantity for check in checks if not check.passed}
        found = {
            pair: {name.removesuffix(f" ({pair})") for name in failed if name.endswith(f" ({pair})")}
            for pair in ("keras_impl", "lightning_impl", "both sides")
        }
        assert found["keras_impl"] == set()
        assert found["lightning_impl"] == found["both sides"]
        return found["lightning_impl"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """Digits, and patches of colour photographs, which have no black edge that zeros could hide in."""
    digits, _ = load(Data(name="digits"), 1).train.batch(np.arange(COUNT // 2))
    with np.load(photos.write(tmp_path_factory.mktemp("photos") / "photos.npz")) as file:
        return np.concatenate([digits, file["x_train"][:COUNT:2]])


@pytest.fixture(scope="module")
def rung(tmp_path_factory: pytest.TempPathFactory, images: np.ndarray) -> Rung:
    folder = tmp_path_factory.mktemp("augmentation")
    checks = augmentation.check(images, "tensorflow", "float64", "cpu", folder)
    with np.load(folder / "keras_answer.npz") as answered:
        reference, keras = (augmentation.split(answered[name], PLACED) for name in ("stock", "pixels"))
        drawn = {name: answered[f"drawn_{name}"] for name in PARAMETERS}
    return Rung(folder, checks, reference, keras, drawn)


# === Pixels ===


def test_both_sides_augment_as_image_data_generator(rung: Rung, images: np.ndarray) -> None:
    assert all(check.passed for check in rung.checks), table(rung.checks)
    assert len(rung.checks) == 3 * (len(TRANSFORMS) + 2)
    for transform, pixels in rung.reference.items():
        assert pixels.dtype == np.float64
        assert np.abs(pixels - images).mean() > 1, f"{transform} was to move something"


def test_whole_positions_are_whole_but_for_rounding() -> None:
    matrices = randomness.affine_matrices(PLACED["whole pixels"], SIZE)
    positions = matrices @ np.stack([*np.indices((SIZE, SIZE)).reshape(2, -1), np.ones(SIZE**2)])
    assert np.abs(positions - np.rint(positions)).max() < 1e-12
    below = np.floor(positions) < np.rint(positions)
    assert 0.05 < below.mean() < 0.95, "floor() was to go either way"


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_both_sides_augment_the_same_in_float32(backend: str, images: np.ndarray, tmp_path: Path) -> None:
    checks = augmentation.check(images, backend, "float32", "cpu", tmp_path)
    assert all(check.passed for check in checks), table(checks)
    assert max(check.largest for check in checks) > 1e-8, "this was to be float32"


# === Faults ===


def mirrored(parameters: Parameters) -> Parameters:
    """The same as a flip before the affine map: seen in a mirror, it turns and shifts the other way."""
    sign = np.where(parameters["flip"], -1.0, 1.0)
    return {**parameters, "theta": sign * parameters["theta"], "tx": sign * parameters["tx"]}


# What each fault does to the parameters, and the transforms that must fail, no others.
FAULTS: dict[str, tuple[Callable[[Parameters], Parameters], set[str]]] = {
    "zoom inverted": (lambda p: {**p, "zx": 1 / p["zx"], "zy": 1 / p["zy"]}, ZOOMED),
    "one zoom": (lambda p: {**p, "zy": p["zx"]}, ZOOMED),
    "shifts swapped": (lambda p: {**p, "tx": p["ty"], "ty": p["tx"]}, SHIFTED),
    "rotation the other way": (
        lambda p: {**p, "theta": -p["theta"]},
        {"rotation", *ALL},
    ),
    "flip first": (mirrored, ALL),
    "no flip": (lambda p: {**p, "flip": np.zeros_like(p["flip"])}, {"flip", *ALL}),
    "darker": (lambda p: {**p, "brightness": p["brightness"] - 0.02}, BRIGHTENED),
    "no brightness": (lambda p: {**p, "brightness": np.full(COUNT, np.nan)}, BRIGHTENED),
}
# Faults of the code itself: with both of torch's functions told that corners are aligned, it matters to what
# is moved by pixels alone.
CODE_FAULTS = {
    "zero fill": MOVING,
    "corners aligned": SHIFTED,
    "levels rounded": {*BRIGHTENED, "brightness"},
    "brightness first": {"all together"},
}
FAULTY_CODE = """
import sys
import torch
from torch.nn import functional as F
from lightning_impl import augment
from lightning_impl.trace import augmented

changed, unchanged, *outs = sys.argv[1:]
grid, sample = F.affine_grid, F.grid_sample
augmented.main([changed, outs[0], "--device=cpu"])
F.grid_sample = lambda *given, **options: sample(*given, **{**options, "padding_mode": "zeros"})
augmented.main([unchanged, outs[1], "--device=cpu"])
F.grid_sample = lambda *given, **options: sample(*given, **{**options, "align_corners": True})
F.affine_grid = lambda *given, **options: grid(*given, **{**options, "align_corners": True})
augmented.main([unchanged, outs[2], "--device=cpu"])
F.grid_sample, F.affine_grid = sample, grid
floor = torch.floor
torch.floor = torch.round
augmented.main([unchanged, outs[3], "--device=cpu"])
torch.floor = floor
affine = augment.affine
augment.STEPS["brightness"] = lambda images, factors: images
def late(images, parameters):
    factors = parameters.get("brightness")
    images = images if factors is None else augment.brightness(images, factors)
    return affine(images, augment.randomness.affine_matrices(parameters, images.shape[-1]))
augment.augment = late
augmented.main([unchanged, outs[4], "--device=cpu"])
"""


@pytest.fixture(scope="module")
def faulty(rung: Rung, images: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """What the Lightning side makes of each fault, all in one process."""
    placed = {
        f"{fault}: {transform}": change(parameters)
        for fault, (change, _) in FAULTS.items()
        for transform, parameters in PLACED.items()
    }
    changed, unchanged = rung.folder / "changed.npz", rung.folder / "lightning_request.npz"
    augmentation.request(images, "float64", placed).write(changed)
    outs = [rung.folder / f"faulty{number}.npz" for number in range(1 + len(CODE_FAULTS))]
    command = [sys.executable, "-c", FAULTY_CODE, *map(str, (changed, unchanged, *outs))]
    subprocess.run(command, check=True, env=processes.environment("cpu", "tensorflow"))
    pixels, *others = (np.load(out)["pixels"] for out in outs)
    found = augmentation.split(pixels, placed)
    by_parameters = {fault: {name: found[f"{fault}: {name}"] for name in PLACED} for fault in FAULTS}
    by_code = {fault: augmentation.split(one, PLACED) for fault, one in zip(CODE_FAULTS, others, strict=True)}
    return {**by_parameters, **by_code}


@pytest.mark.parametrize("fault", [*FAULTS, *CODE_FAULTS])
def test_a_fault_fails_in_its_transforms(
    rung: Rung, faulty: dict[str, dict[str, np.ndarray]], fault: str
) -> None:
    meant = FAULTS[fault][1] if fault in FAULTS else CODE_FAULTS[fault]
    assert rung.fails(faulty[fault]) == meant


# === Draws ===


def test_the_sampler_draws_as_image_data_generator(rung: Rung) -> None:
    checks = augmentation.check_draws(rung.folder)
    assert all(check.passed for check in checks), table(checks)
    assert len(checks) == 11
    # tx moves columns and comes from the height range, twice the width range here; so in Keras.
    assert np.abs(rung.drawn["tx"]).max() == pytest.approx(SETTINGS.height_shift * SIZE, rel=1e-3)
    assert np.abs(rung.drawn["ty"]).max() == pytest.approx(SETTINGS.width_shift * SIZE, rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "meant"),
    [
        ({"width_shift": 0.2, "height_shift": 0.1}, {"draws of tx", "draws of ty"}),
        ({"rotation": 31.5}, {"draws of theta"}),
        ({"zoom": 0.35}, {"draws of zx", "draws of zy", "draws of zx / zy"}),
        ({"horizontal_flip": False}, {"flips (shared)"}),
        ({"brightness": [0.4, 1.55]}, {"draws of brightness"}),
    ],
)
def test_another_distribution_fails(rung: Rung, changes: dict, meant: set[str]) -> None:
    settings = Augment.model_validate({**SETTINGS.model_dump(), **changes})
    checks = augmentation.compare_draws(rung.drawn, SIZE, settings)
    assert {check.quantity for check in checks if not check.passed} == meant


def test_zooms_that_hang_together_fail(rung: Rung) -> None:
    together = {**rung.drawn, "zy": 2 - rung.drawn["zx"]}
    checks = augmentation.compare_draws(together, SIZE)
    failed = {check.quantity for check in checks if not check.passed}
    assert failed == {"zx and zy (Keras)", "draws of zx / zy"}


# === Stock torchvision ===


def test_stock_torchvision_differs(images: np.ndarray, tmp_path: Path) -> None:
    found = stock_augmentation.measure(images, tmp_path, repeats=4)
    difference, keras, again, stock = found.values()
    assert difference["same numbers, mean"] > 0.1
    assert 0.02 < difference["numbers turned, mean"] < difference["same numbers, mean"]
    assert keras["filled with black"] == pytest.approx(0, abs=1e-12)
    assert stock["filled with black"] > 0.1
    assert stock["pictures with black"] > 0.9
    # The logarithm of two independent uniform factors' ratio, by numbers: sqrt(2) of one's 0.117.
    assert keras["spread of zx / zy"] == pytest.approx(0.1651, rel=0.02)
    assert stock["spread of zx / zy"] == 0
    # The mean of 1 / z over [0.8, 1.2] is ln(1.5) / 0.4.
    assert keras["magnification"] == pytest.approx(np.log(1.5) / 0.4, abs=4e-3)
    assert stock["magnification"] == pytest.approx(1, abs=4e-3)
    assert (keras["whole shifts"], stock["whole shifts"]) == (0, 1)
    chance = abs(keras["mean"] - again["mean"])
    assert keras["mean"] - stock["mean"] > 4 * chance
    assert keras["mean"] - stock["mean"] > 0.01


def test_requests_hold_what_was_asked(images: np.ndarray) -> None:
    asked = augmentation.request(images, "float32", PLACED)
    assert isinstance(asked, Request)
    assert asked.images.dtype == np.float32
    assert len(asked.images) == COUNT * len(PLACED)
    back = augmentation.split(asked.parameters["tx"], PLACED)
    np.testing.assert_array_equal(back["row shift"], np.zeros(COUNT))
    np.testing.assert_array_equal(back["column shift"], PLACED["column shift"]["tx"])
