"""Whole trainings of Keras models by fit, and of their packages by a Trainer, in float64.

    python tests/pairs/fitted.py keras|torch FOLDER

Keras's side writes FOLDER/NAME/{graph,data.npz,keras.npz}, torch's the package and FOLDER/NAME/torch.npz.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import migrated

SAMPLES, HELD_OUT, BATCH, EPOCHS = 40, 16, 8, 4
ROWS = 0  # in place of a number of classes: rows of zeros and a one


def cnn():
    """This project's CNN without dropout, whose draws differ by nature."""
    import keras

    from experiment.config import Experiment
    from keras_impl.model import build_model

    settings = {"block_dropout": [0.0, 0.0], "head_dropout": 0.0}
    model = build_model(Experiment.model_validate({"model": settings}), 10)
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def transfer(name):
    """This project's transfer from a base whose last block is trained."""

    def build():
        import keras

        from experiment.config import Experiment
        from keras_impl.model import build_model

        settings = {"name": name, "weights": "random", "fine_tune_blocks": 1, "head_dropout": 0.0}
        model = build_model(Experiment.model_validate({"model": settings}), 10)
        model.compile(keras.optimizers.Adam(1e-4), "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    return build


def regularised():
    import keras
    from keras import layers, regularizers

    body = [
        layers.Conv2D(6, 3, activation="relu", kernel_regularizer=regularizers.L2(2**-7)),
        layers.BatchNormalization(),
    ]
    body += [layers.Flatten(), layers.Dense(4, bias_regularizer=regularizers.L1(2**-10))]
    model = keras.Sequential([keras.Input((8, 8, 3)), *body])
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.RMSprop(1e-3, momentum=0.9), loss, metrics=["accuracy"])
    return model


def callbacks():
    import keras

    return [
        keras.callbacks.ReduceLROnPlateau(patience=1, factor=0.3, min_delta=0.5),
        keras.callbacks.EarlyStopping(patience=3, min_delta=10.0, restore_best_weights=True),
    ]


# Of each model its targets' shape, their number of classes, and the callbacks that it is trained with.
MODELS = {
    "cnn": (cnn, (), 10, callbacks),
    "vgg16": (transfer("vgg16"), (), 10, None),
    "resnet50": (transfer("resnet50"), (), 10, None),
    "scheduled": (migrated.scheduled, (), 2, None),
    "averaged": (migrated.averaged, (1,), 2, None),
    "regularised": (regularised, (4,), ROWS, None),
}


def targets(shape, classes, random, count):
    if classes == ROWS:
        return np.eye(shape[0])[random.integers(shape[0], size=count)]
    return random.integers(classes, size=(count, *shape))


def _compute_in(precision):
    import keras

    keras.config.set_floatx(precision)
    keras.config.set_dtype_policy(precision)


def keras_side(out: Path) -> None:
    import keras

    from keras_impl.trace import graph

    for name, (build, shape, classes, told) in MODELS.items():
        keras.utils.clear_session()
        _compute_in("float32")
        keras.utils.set_random_seed(3)
        model = build()
        graph.read(model, name, told and f"fitted:{told.__name__}").write(out / name / "graph")
        weights = model.get_weights()
        _compute_in("float64")
        model = build()
        model.set_weights(weights)
        random = np.random.default_rng(1)
        arrays = {}
        for part, count in (("train", SAMPLES), ("val", HELD_OUT)):
            top = 255 if len(model.input_shape) == 4 else 1
            arrays[f"{part}_x"] = random.uniform(0, top, size=(count, *model.input_shape[1:]))
            arrays[f"{part}_y"] = targets(shape, classes, random, count)
        np.savez(out / name / "data.npz", **arrays)
        options = {"batch_size": BATCH, "epochs": EPOCHS, "shuffle": False, "verbose": 0}
        history = model.fit(
            *(arrays["train_x"], arrays["train_y"]),
            validation_data=(arrays["val_x"], arrays["val_y"]),
            callbacks=told and told(),
            **options,
        ).history
        found = {key: np.array(values) for key, values in history.items() if key != "learning_rate"}
        found["predictions"] = model.predict(arrays["val_x"], verbose=0)
        np.savez(out / name / "keras.npz", **found)  # type: ignore[arg-type]


def torch_side(out: Path) -> None:
    import importlib

    import lightning.pytorch as pl
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    from lightning_impl.migrate import command

    class History(pl.Callback):
        def __init__(self) -> None:
            self.rows: dict[str, list[float]] = {}

        def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
            for key, value in trainer.callback_metrics.items():
                self.rows.setdefault(key, []).append(float(value))

    sys.path.insert(0, str(out))
    for name in MODELS:
        torch.set_default_dtype(torch.float32)
        package = out / f"fitted_{name}"
        package.mkdir()
        request = {"graph": str(out / name / "graph"), "out": str(package), "layers": [], "stub": False}
        command.run({**request, "answer": str(out / name / "answer.json")})
        torch.set_default_dtype(torch.float64)
        own = importlib.import_module(f"fitted_{name}.lightning_module")
        module, arrays = own.build().double(), np.load(out / name / "data.npz")
        loaders = []
        for part in ("train", "val"):
            x = torch.from_numpy(arrays[f"{part}_x"])
            x = x.movedim(-1, 1) if x.ndim == 4 else x
            y = torch.from_numpy(arrays[f"{part}_y"])
            loaders.append(DataLoader(TensorDataset(x, y), batch_size=BATCH))
        history = History()
        trainer = pl.Trainer(
            max_epochs=EPOCHS,
            callbacks=[history, *own.callbacks()],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            accelerator="cpu",
            default_root_dir=out / name,
        )
        trainer.fit(module, *loaders)
        found = {key: np.array(values) for key, values in history.rows.items()}
        module.eval()
        with torch.no_grad():
            inputs = loaders[1].dataset.tensors[0]
            found["predictions"] = module.probabilities(module(inputs)).numpy()
        np.savez(out / name / "torch.npz", **found)  # type: ignore[arg-type]


if __name__ == "__main__":
    {"keras": keras_side, "torch": torch_side}[sys.argv[1]](Path(sys.argv[2]))
