"""How a user's model trains: its optimizer in the words of both sides, its penalties and its losses."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, losses, optimizers, regularizers

from keras_impl.trace import optimizer as training
from keras_impl.trace.losses import loss_of


def compiled(optimizer: keras.Optimizer, **arguments) -> keras.Model:
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="dense", **arguments)])
    model.compile(optimizer, "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def test_the_facts_are_the_optimizers() -> None:
    optimizer = optimizers.AdamW(0.01, weight_decay=0.1, epsilon=1e-5, global_clipnorm=2.0)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    found = training.facts(compiled(optimizer))
    assert (found["class"], found["family"], found["form"]) == ("AdamW", "Adam", "keras")
    expected = {"epsilon": 1e-5, "weight_decay": 0.1, "decay": "decoupled", "global_clipnorm": 2.0}
    assert expected.items() <= found["settings"].items()
    assert found["overrides"] == {"dense/bias": {"weight_decay": 0.0}}
    assert found["schedule"] == {}


def test_what_torch_has_no_twin_of_has_no_family() -> None:
    assert training.facts(compiled(optimizers.Ftrl()))["family"] == ""


def test_a_schedule_is_told_and_followed() -> None:
    model = compiled(optimizers.SGD(optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)))
    assert training.facts(model)["schedule"] == {"class": "ExponentialDecay", "interval": "step"}
    rates = []
    for _ in range(3):
        rates.append(training.learning_rate(model.optimizer))
        model.train_on_batch(np.ones((4, 3)), np.ones((4, 2)))
    np.testing.assert_allclose(rates, [0.1, 0.05, 0.025], rtol=1e-6)


def test_an_average_that_waits_for_the_end_is_noted() -> None:
    assert "average" in training.notes(compiled(optimizers.SGD(use_ema=True)))[0]
    assert training.notes(compiled(optimizers.SGD(use_ema=True, ema_overwrite_frequency=2))) == []


@pytest.mark.parametrize(
    ("optimizer", "names"),
    [
        (optimizers.Adamax, {"momentums", "norms"}),
        (optimizers.Adagrad, {"accumulators"}),
        (optimizers.Adadelta, {"accumulated_grads", "accumulated_delta_vars"}),
        (
            lambda: optimizers.RMSprop(momentum=0.9, centered=True),
            {"momentums", "velocities", "average_gradients"},
        ),
        (lambda: optimizers.Adam(amsgrad=True), {"momentums", "velocities", "velocity_hats"}),
        (lambda: optimizers.SGD(gradient_accumulation_steps=2), set()),
    ],
)
def test_slots_go_by_the_names_of_both_sides(optimizer, names: set[str]) -> None:
    model = compiled(optimizer())
    found = training.slots(model.optimizer)
    assert found.keys() == names
    assert all(
        [v.shape for v in kept] == [v.shape for v in model.trainable_variables] for kept in found.values()
    )


def test_penalties_are_told_of_weights_and_outputs() -> None:
    model = compiled(
        optimizers.SGD(),
        kernel_regularizer=regularizers.L1L2(0.25, 0.5),
        activity_regularizer=regularizers.L1(0.125),
    )
    assert training.penalties(model) == {
        "dense/kernel": {"l1": 0.25, "l2": 0.5},
        "dense": {"l1": 0.125, "l2": 0.0},
    }
    kernel = np.array(model.layers[0].kernel)
    expected = 0.25 * np.abs(kernel).sum() + 0.5 * np.square(kernel).sum()
    assert training.weight_penalty(model) == pytest.approx(expected, rel=1e-5)


def test_the_compiled_loss_is_taken_unless_another_is_asked_for() -> None:
    smoothed = losses.CategoricalCrossentropy(label_smoothing=0.1, reduction="sum")
    found = loss_of("auto", (6, 4), "softmax", 0, smoothed)
    assert (found.term.name, found.term.label_smoothing, found.term.reduction) == ("crossentropy", 0.1, "sum")
    assert found.targets.shape == (6, 4)
    assert loss_of("mse", (6, 4), "softmax", 0, smoothed).term.name == "mse"


def test_a_compiled_loss_that_torch_is_without_is_noted() -> None:
    found = loss_of("auto", (6, 4), "softmax", 0, losses.Circle())
    assert (found.term.name, found.term.stands_in) == ("crossentropy", True)
    assert "has no Circle" in found.note


@pytest.mark.parametrize(
    ("loss", "name", "settings", "one_hot"),
    [
        (losses.Tversky(alpha=0.25), "tversky", {"alpha": 0.25, "beta": 0.5}, False),
        ("kl_divergence", "kl_divergence", {}, False),
        (losses.CategoricalHinge(), "categorical_hinge", {}, True),
    ],
)
def test_further_losses_are_known_by_their_functions(
    loss: Any, name: str, settings: dict[str, float], one_hot: bool
) -> None:
    found = loss_of("auto", (6, 4), "softmax", 0, loss)
    assert (found.term.name, found.term.one_hot, found.note) == (name, one_hot, "")
    assert settings.items() <= dict(found.term.settings).items()
    assert found.targets.shape == (6, 4)
