"""The `augmented` command: what training does, and what ImageDataGenerator does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from experiment import randomness
from experiment.config import Augment, Experiment
from experiment.data.dataset import load
from experiment.errors import DataError
from experiment.protocols.augmentation import Request
from keras_impl.classifier import build_classifier
from keras_impl.data import build_data
from keras_impl.trace import augmented

EXPERIMENT = Experiment.model_validate(
    {
        "seed": 7,
        "data": {"name": "digits", "limit": 100},
        "augment": {"height_shift": 0.3},
        "model": {"filters": [4, 4], "dense_units": 4},
        "training": {"batch_size": 20},
    }
)


def test_replay_is_what_training_sees() -> None:
    dataset = load(EXPERIMENT.data, EXPERIMENT.seed)
    batches = build_data(EXPERIMENT, dataset).train
    batches.epoch = 2
    inputs: Any = batches[3][0]
    layer = build_classifier(EXPERIMENT, 10).trained.get_layer("augment")
    placed = {name: array for name, array in inputs.items() if name != "images"}
    trained_on = keras.ops.convert_to_numpy(layer(inputs["images"], placed, training=True))
    generator = randomness.generator(EXPERIMENT.seed, "augment", 2, 3)
    parameters = randomness.augmentation(generator, len(trained_on), EXPERIMENT.augment, 32)
    replayed = augmented.replay(inputs["images"].astype(np.float32), parameters)
    assert replayed.dtype == np.float32
    np.testing.assert_array_equal(replayed, trained_on)
    assert np.abs(replayed - inputs["images"]).mean() > 1


def test_draws_repeat_and_follow_the_settings() -> None:
    settings = Augment(rotation=0, height_shift=0.3, width_shift=0.1, zoom=0, horizontal_flip=False)
    drawn = augmented.stock_draws(settings, 200, 50, seed=4)
    assert {name: values.shape for name, values in drawn.items()} == dict.fromkeys(drawn, (200,))
    for name, values in augmented.stock_draws(settings, 200, 50, seed=4).items():
        np.testing.assert_array_equal(values, drawn[name])
    assert 12 < np.abs(drawn["tx"]).max() <= 15  # the height range: ImageDataGenerator's swap
    assert 4 < np.abs(drawn["ty"]).max() <= 5
    assert (drawn["theta"] == 0).all()
    assert (drawn["zx"] == 1).all()
    assert drawn["flip"].dtype == bool
    assert not drawn["flip"].any()
    assert augmented.stock_draws(Augment(), 200, 50, seed=4)["flip"].mean() == pytest.approx(0.5, abs=0.15)


def test_float64_is_refused_where_it_would_not_be_float64(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parameters = augmented.stock_draws(Augment(), 2, 8, seed=1)
    Request(np.zeros((2, 8, 8, 3)), parameters).write(tmp_path / "request.npz")
    for variable in ("CUDA_VISIBLE_DEVICES", "KERAS_BACKEND"):
        monkeypatch.setenv(variable, "")  # the command sets them
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(DataError, match="in part in float32"):
        augmented.replay(np.zeros((2, 8, 8, 3)), parameters)
    with pytest.raises(SystemExit) as exit:
        augmented.main([str(tmp_path / "request.npz"), str(tmp_path / "out.npz"), "--device=cpu"])
    assert exit.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out.npz").exists()
