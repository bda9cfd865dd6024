"""The model and the data lifted out, in Keras's own fit."""

from __future__ import annotations

import runpy
from pathlib import Path

import keras
import numpy as np

from experiment import randomness
from experiment.config import Data
from experiment.data.dataset import load
from keras_impl.data import DataModule

ROOT = Path(__file__).parents[2]


def test_the_example_learns_and_leaves_kerass_own_files(tmp_path: Path) -> None:
    main = runpy.run_path(str(ROOT / "examples" / "stock_fit.py"))["main"]
    assert main(str(tmp_path)) > 0.85
    assert (tmp_path / "best.weights.h5").is_file()
    assert list(tmp_path.glob("train/events.out.tfevents.*"))


def test_every_epoch_of_a_stock_fit_has_its_own_order() -> None:
    dataset = load(Data(name="digits", limit=90, image_size=8), seed=1)
    data = DataModule(dataset, batch_size=32, seed=3)
    seen: list[np.ndarray] = []
    inner = data.train.split.batch

    class Watched:
        indices, labels = data.train.split.indices, data.train.split.labels

        def __len__(self) -> int:
            return len(self.indices)

        def batch(self, positions: np.ndarray):
            seen.append(np.asarray(positions))
            return inner(positions)

    data.train.split = Watched()  # type: ignore[assignment]
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(10, activation="softmax")])
    model.compile("sgd", "categorical_crossentropy")
    model.fit(data.train, epochs=3, shuffle=False, verbose=0)
    assert data.train.epoch == 3
    read = [tuple(positions) for positions in seen]
    for epoch in range(3):
        order = randomness.training_order(3, epoch, dataset.train.labels)
        for start in range(0, len(order), 32):
            assert tuple(order[start : start + 32]) in read
