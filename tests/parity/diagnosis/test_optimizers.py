"""Two optimizers' differences are read from torch's weights on their way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parity.diagnosis import optimizers
from parity.diagnosis.optimizer_steps import Way, complete, walk
from tests.parity.diagnosis.traced import layer, pair

STEPS, ELEMENTS = 4, 6
RANDOM = np.random.default_rng(1)
START = RANDOM.normal(size=ELEMENTS)
GRADIENTS = 1e-3 * RANDOM.normal(size=(STEPS, ELEMENTS))
NORMS = np.linalg.norm(GRADIENTS, axis=1)
ADAM = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "weight_decay": 0.0, "decay": "decoupled"}


def facts(form: str, family: str = "Adam", **settings: Any) -> dict[str, Any]:
    own = {**ADAM, **settings} if family == "Adam" else settings
    return {
        "class": family,
        "family": family,
        "form": form,
        "settings": own,
        "overrides": {},
        "schedule": {},
    }


def explained(
    folder: Path,
    keras: dict[str, Any],
    torch: dict[str, Any],
    actual: dict[str, Any] | None = None,
    rates: tuple[float, float] = (0.01, 0.01),
    clipped: np.ndarray = GRADIENTS,
) -> Any:
    """What is said where torch steps as `actual` does, its facts unless given."""
    every = [np.full(STEPS, rate) for rate in rates]
    way = Way(START, clipped, NORMS, NORMS, every[1])
    actual = torch if actual is None else actual
    values = walk(actual["family"] or "SGD", complete(actual), way)
    arrays = {
        "path/names": ["dense/kernel"],
        "path/values": values[None],
        "path/raw": GRADIENTS[None],
        "path/gradients": clipped[None],
        "path/norms": NORMS[None],
        "path/rates": every[1],
    }
    layers = [layer("dense", weights={"kernel": [6]})]
    both = pair(
        folder, layers, {"rates": every[0]}, arrays, structures=({"optimizer": keras}, {"optimizer": torch})
    )
    return optimizers.explain(both)


def test_equal_optimizers_are_no_cause(tmp_path: Path) -> None:
    assert explained(tmp_path, facts("keras"), facts("keras")) is None


@pytest.mark.parametrize(
    ("keras", "torch", "words"),
    [
        (facts("keras"), facts("torch"), "Adam's epsilon stands before the bias correction in Keras"),
        (facts("keras"), facts("keras", epsilon=1e-8), "Adam's epsilon differs"),
        (facts("keras"), facts("keras", beta_2=0.99), "Adam's second beta differs"),
        (facts("keras", weight_decay=0.1), facts("keras"), "Adam's weight decay differs"),
        (
            facts("keras", weight_decay=0.1),
            facts("keras", weight_decay=0.1, decay="coupled"),
            "weight decay is decoupled in Keras's Adam, coupled",
        ),
        (facts("keras"), facts("torch", "SGD"), "another optimizer: torch's SGD for Keras's Adam"),
        (facts("keras", "") | {"class": "Ftrl"}, facts("torch", "SGD"), "no twin of Keras's Ftrl"),
    ],
)
def test_a_difference_is_named(
    tmp_path: Path, keras: dict[str, Any], torch: dict[str, Any], words: str
) -> None:
    found = explained(tmp_path, keras, torch)
    assert words in found.cause
    assert "epsilon" in found.cause or "epsilon" not in words


def test_only_what_is_felt_is_named(tmp_path: Path) -> None:
    """Nesterov's momentum, and the place of a decay, of optimizers that have neither momentum nor decay."""
    keras = facts("keras", "SGD", momentum=0.0, nesterov=True, decay="decoupled", weight_decay=0.0)
    torch = facts(
        "torch", "SGD", momentum=0.0, nesterov=False, decay="coupled", weight_decay=0.0, dampening=0.0
    )
    assert explained(tmp_path, keras, torch) is None


def test_the_learning_rate_is_named(tmp_path: Path) -> None:
    found = explained(tmp_path, facts("keras"), facts("keras"), rates=(0.01, 0.02))
    assert found.cause == "Adam's learning rate differs"
    assert found.change == "lr=0.01"


def test_a_subclass_that_steps_otherwise_is_found_out(tmp_path: Path) -> None:
    """Torch's facts say torch's place of epsilon, its steps say no bias correction."""
    actual = facts("torch")
    actual["settings"] = {**actual["settings"], "epsilon_place": "uncorrected"}
    found = explained(tmp_path, facts("keras"), facts("torch"), actual)
    assert "in a step without any bias correction" in found.cause


def test_what_no_rule_gives_is_said_to_be_none(tmp_path: Path) -> None:
    keras, torch = facts("keras"), facts("torch")
    actual = facts("torch", "SGD", momentum=0.0, dampening=0.0)
    found = explained(tmp_path, keras, torch, actual)
    assert "does not step as torch.optim's does" in found.cause


@pytest.mark.parametrize("margin", [0.0, 1e-6])
def test_clipping_is_read_from_the_gradients(margin: float) -> None:
    raw = np.stack([GRADIENTS, 3 * GRADIENTS])
    norms = np.stack([NORMS, 3 * NORMS])
    together = np.sqrt(np.square(norms).sum(0))
    limit = 0.5 * float(together.min())
    cut = raw * np.minimum(1, limit / (together + margin))[None, :, None]
    found = optimizers.clipped(raw, cut, norms)
    assert found == pytest.approx({"global_clipnorm": limit, "clip_margin": margin})
    alone = raw * np.minimum(1, limit / norms)[..., None]
    assert optimizers.clipped(raw, alone, norms)["clipnorm"] == pytest.approx(limit)
    assert optimizers.clipped(raw, np.clip(raw, -1e-4, 1e-4), norms) == {"clipvalue": 1e-4}
    assert optimizers.clipped(raw, raw, norms) == {}


def test_a_setting_of_what_one_side_has_not_is_no_cause_of_its_own(tmp_path: Path) -> None:
    """Where torch's SGD has no momentum, that is the cause, and not whose the momentum is."""
    keras = facts("keras", "SGD", momentum=0.9, nesterov=True, weight_decay=0.0, decay="decoupled")
    torch = facts("torch", "SGD", momentum=0.0, nesterov=False, weight_decay=0.0, dampening=0.0)
    assert explained(tmp_path, keras, torch).cause == "SGD's momentum differs"
