"""Bounds, combinations and schedules of an experiment."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from experiment.backbones import BACKBONES, vgg16_layers
from experiment.config import Augment, Data, Experiment, Schedule
from experiment.data.decoding import DEFAULTS, Reading


def refusal(**values: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        Experiment.model_validate(values)
    return str(caught.value)


def factors(epochs: int, **settings: Any) -> list[float]:
    schedule = Schedule.model_validate(settings)
    return [schedule.factor(epoch, epochs) for epoch in range(epochs)]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"sed": 1}, "sed"),
        ({"training": {"epoch": 3}}, "training.epoch"),
        ({"training": {"schedule": {"knd": "step"}}}, "training.schedule.knd"),
        ({"seed": 2**31}, "seed"),
        ({"gpus": -1}, "gpus"),
        ({"data": {"image_size": 7}}, "data.image_size"),
        ({"data": {"background": "blackish"}}, "blackish: no colour, as white, black or #808080 are"),
        ({"data": {"background": "#ffffff80"}}, "no colour"),
        ({"data": {"bits": 0}}, "data.bits"),
        ({"data": {"bits": 33}}, "data.bits"),
        ({"data": {"validation_share": 0}}, "data.validation_share"),
        ({"augment": {"zoom": 1}}, "augment.zoom"),
        ({"model": {"head_dropout": 1}}, "model.head_dropout"),
        ({"model": {"block_dropout": [0.2, 1.0]}}, "model.block_dropout"),
        ({"model": {"filters": [32, 0]}}, "model.filters"),
        ({"training": {"learning_rate": 0}}, "training.learning_rate"),
        ({"training": {"precision": "float16"}}, "training.precision"),
        ({"training": {"class_weights": [1.0, -1.0]}}, "class_weights"),
    ],
)
def test_unknown_keys_and_values_out_of_bounds_are_named(values: dict[str, Any], named: str) -> None:
    assert named in refusal(**values)


@pytest.mark.parametrize(
    ("training", "named"),
    [
        ({"momentum": 0.9}, "training.momentum is no setting of adam: leave it null, or set "),
        ({"momentum": 0.0}, "training.optimizer to sgd"),
        ({"nesterov": False}, "training.nesterov is no setting of adam"),
        ({"weight_decay": 0.1}, "training.optimizer to adamw or sgd"),
        ({"optimizer": "adamw", "momentum": 0.9}, "training.momentum is no setting of adamw"),
        ({"optimizer": "sgd", "nesterov": True}, "training.nesterov needs a training.momentum above 0"),
        ({"optimizer": "sgd", "momentum": 1.0}, "training.momentum"),
        ({"optimizer": "adamw", "weight_decay": -1e-3}, "training.weight_decay"),
        ({"optimizer": "rmsprop"}, "training.optimizer"),
    ],
)
def test_settings_of_another_optimizer_are_refused(training: dict[str, Any], named: str) -> None:
    assert named in refusal(training=training)


@pytest.mark.parametrize(
    ("training", "settings"),
    [
        ({}, {}),
        ({"optimizer": "adamw"}, {"weight_decay": 4e-3}),
        ({"optimizer": "adamw", "weight_decay": 0.0}, {"weight_decay": 0.0}),
        ({"optimizer": "sgd"}, {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0}),
        (
            {"optimizer": "sgd", "momentum": 0.9, "nesterov": True},
            {"momentum": 0.9, "nesterov": True, "weight_decay": 0.0},
        ),
    ],
)
def test_what_is_not_set_is_kerass_default(training: dict[str, Any], settings: dict[str, Any]) -> None:
    assert Experiment.model_validate({"training": training}).training.optimizer_settings == settings


def test_two_masters_of_the_learning_rate_are_refused() -> None:
    plateau = {"patience": 2}
    assert "training.plateau" in refusal(training={"plateau": plateau, "schedule": {"kind": "step"}})
    Experiment.model_validate({"training": {"plateau": plateau}})
    Experiment.model_validate({"training": {"schedule": {"kind": "step"}}})


def test_blocks_that_leave_no_pixel_are_refused() -> None:
    four = {"filters": [4] * 4, "block_dropout": [0.0] * 4}
    # Two 3x3 convolutions and a pooling: 76 -> 36 -> 16 -> 6 -> 1, and 75 -> 35 -> 15 -> 5 -> 0.
    Experiment.model_validate({"model": four, "data": {"image_size": 76}})
    assert "4 blocks" in refusal(model=four, data={"image_size": 75})
    Experiment.model_validate({"model": {**four, "name": "vgg16"}, "data": {"image_size": 32}})
    assert "vgg16 needs at least 32" in refusal(model={"name": "vgg16"}, data={"image_size": 31})


def test_each_block_of_the_cnn_has_a_dropout_rate() -> None:
    assert "1 rates for 2 blocks" in refusal(model={"block_dropout": [0.1]})


def test_an_experiment_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Experiment().training.epochs = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_cosine_falls_from_one_through_the_middle_to_the_final_factor() -> None:
    assert factors(5, kind="cosine", final_factor=0.2) == pytest.approx(
        [1.0, 0.2 + 0.4 * (1 + 0.5**0.5), 0.6, 0.2 + 0.4 * (1 - 0.5**0.5), 0.2], abs=1e-15
    )
    assert factors(3, kind="cosine") == pytest.approx([1.0, 0.5, 0.0], abs=1e-15)
    assert factors(1, kind="cosine") == [1.0]
    assert Schedule(kind="cosine", final_factor=0.2).factor(9, 5) == pytest.approx(0.2)


def test_step_drops_after_every_step_epochs() -> None:
    assert factors(5, kind="step", step_epochs=2, step_factor=0.5) == [1.0, 1.0, 0.5, 0.5, 0.25]


def test_constant_stays_at_one() -> None:
    assert factors(3, kind="constant", final_factor=0.5, step_epochs=1) == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("colour", ["black", "#000", "#000000", "rgb(0, 0, 0)"])
def test_a_colour_is_kept_in_one_form(colour: str) -> None:
    assert Data(background=colour).background == "#000000"


def test_what_runs_and_files_say_nothing_of_is_read_as_by_default() -> None:
    assert Reading(Data().background, Data().bits) == DEFAULTS


def test_classes_that_are_no_utf_8_are_written_as_they_are_shown() -> None:
    data = Data(classes=["caf\udce9", 7], thin={"caf\udce9": 0.5})
    assert (data.classes, data.thin) == (["caf\\xe9", "7"], {"caf\\xe9": 0.5})


@pytest.mark.parametrize("factors", [[0.5], [0.5, 1.0, 1.5], [1.2, 0.8], [-0.1, 1.0]])
def test_brightness_takes_two_factors(factors: list[float]) -> None:
    assert "augment.brightness takes two factors" in refusal(augment={"brightness": factors})
    assert Augment.model_validate({"brightness": [0.8, 1.2]}).brightness == [0.8, 1.2]


def test_torchvision_has_no_brightness() -> None:
    assert "augment.brightness" in refusal(augment={"kind": "torchvision", "brightness": [0.8, 1.2]})


def test_blocks_to_fine_tune_are_at_most_those_of_the_base(monkeypatch: pytest.MonkeyPatch) -> None:
    few = replace(BACKBONES["vgg16"], layers=tuple(vgg16_layers([(1, 4)] * 3)))
    monkeypatch.setitem(BACKBONES, "vgg16", few)
    assert Experiment.model_validate({"model": {"name": "vgg16", "fine_tune_blocks": 3}})
    fault = refusal(model={"name": "vgg16", "fine_tune_blocks": 4})
    assert "model.fine_tune_blocks 4: vgg16 has 3 blocks" in fault


@pytest.mark.parametrize("name", BACKBONES)
def test_a_base_has_its_smallest_image(name: str) -> None:
    smallest = BACKBONES[name].smallest
    assert Experiment.model_validate({"model": {"name": name}, "data": {"image_size": smallest}})
    fault = refusal(model={"name": name}, data={"image_size": smallest - 1})
    assert f"{name} needs at least {smallest}" in fault
