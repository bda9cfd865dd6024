"""What happens around the steps of a training run."""

from __future__ import annotations

import keras
import numpy as np
from keras.callbacks import Callback, EarlyStopping, LearningRateScheduler, ReduceLROnPlateau

from experiment import randomness
from experiment.config import Experiment
from experiment.system.files import replacing
from experiment.training.recorder import Recorder
from keras_impl.classifier import Classifier
from keras_impl.data import Batches
from keras_impl.dropout import SharedDropout
from keras_impl.model import named_layers

# What training goes on from, after the last epoch and after the best.
RESUME = {"last": "resume.keras", "best": "resume-best.keras"}


def build_callbacks(
    experiment: Experiment, recorder: Recorder, classifier: Classifier, batches: Batches
) -> list[Callback]:
    """The callbacks of the configured training, in the order in which they act at the end of an epoch."""
    training = experiment.training
    callbacks: list[Callback] = []
    if training.schedule.kind != "constant":
        callbacks.append(LearningRateScheduler(lambda epoch: learning_rate(experiment, epoch)))
    callbacks += [StepSeeds(experiment.seed, classifier, batches), Record(recorder, batches)]
    plateau = training.plateau
    if plateau.patience is not None:
        callbacks.append(
            ReduceLROnPlateau(
                "val_loss",
                patience=plateau.patience,
                factor=plateau.factor,
                min_delta=plateau.min_delta,
                cooldown=plateau.cooldown,
                min_lr=plateau.min_learning_rate,
            )
        )
    stopping = training.early_stopping
    if stopping.patience is not None:
        # The best weights come back from checkpoints/best.keras, so that a resumed run has them too.
        mode = "min" if training.monitor == "val_loss" else "max"
        callbacks.append(
            EarlyStopping(
                training.monitor, patience=stopping.patience, min_delta=stopping.min_delta, mode=mode
            )
        )
    callbacks.append(SaveCheckpoints(recorder, classifier))
    return [*callbacks, Resume(experiment, recorder.rows, callbacks)]


class StepSeeds(Callback):
    """Makes every step's dropout a function of (seed, epoch, step), so that a resumed run repeats it."""

    def __init__(self, seed: int, classifier: Classifier, batches: Batches) -> None:
        super().__init__()
        self.seed, self.batches = seed, batches
        self.layers = [
            layer
            for layer in named_layers(classifier.model).values()
            if isinstance(layer, keras.layers.Dropout | SharedDropout)
        ]

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.batches.epoch = epoch
        for layer in self.layers:
            # Each training step advances the second number by one.
            seed = randomness.derived_seed(self.seed, f"dropout {layer.name}")
            state = np.array([seed, epoch * len(self.batches)], dtype="uint32")
            layer.seed_generator.state.assign(state)


class Record(Callback):
    """Reports steps and epochs to the run record."""

    def __init__(self, recorder: Recorder, batches: Batches) -> None:
        super().__init__()
        self.recorder, self.batches = recorder, batches

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.learning_rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        self.recorder.epoch_begin(epoch)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        assert logs is not None
        size = self.batches.batch_size
        images = min(size, len(self.batches.split) - batch * size)
        self.recorder.step(images, lambda: (float(logs["loss"]), float(logs["accuracy"])))

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        assert logs is not None
        names = ("loss", "accuracy", "val_loss", "val_accuracy")
        values = {name: float(logs[name]) for name in names}
        self.recorder.epoch_end(**values, learning_rate=self.learning_rate)


class Resume(Callback):
    """Brings the callbacks that count epochs to where they were after the recorded ones.

    Stands last, because Keras's callbacks forget their counts when training begins.
    """

    def __init__(
        self, experiment: Experiment, rows: list[dict[str, float]], callbacks: list[Callback]
    ) -> None:
        super().__init__()
        self.learning_rate, self.rows = experiment.training.learning_rate, list(rows)
        self.counting = [c for c in callbacks if isinstance(c, EarlyStopping | ReduceLROnPlateau)]

    def on_train_begin(self, logs: dict | None = None) -> None:
        if any(isinstance(callback, ReduceLROnPlateau) for callback in self.counting):
            self.model.optimizer.learning_rate = self.learning_rate  # reduced again below
        for row in self.rows:
            for callback in self.counting:
                callback.on_epoch_end(int(row["epoch"]) - 1, dict(row))
        self.model.stop_training = False


class SaveCheckpoints(Callback):
    """Writes checkpoints/last.keras after every epoch, best.keras after the best, and `RESUME` beside each.

    The first two are the model alone; the others are what is trained, with its optimizer.
    """

    def __init__(self, recorder: Recorder, classifier: Classifier) -> None:
        super().__init__()
        self.recorder, self.classifier = recorder, classifier

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        checkpoints = self.recorder.run.checkpoints
        models = {"last.keras": self.classifier.model, RESUME["last"]: self.classifier.trained}
        if self.recorder.last_is_best:
            models = {RESUME["best"]: self.classifier.trained, "best.keras": self.classifier.model, **models}
        for name, model in models.items():
            with replacing(checkpoints / name) as path:
                model.save(path)


def learning_rate(experiment: Experiment, epoch: int) -> float:
    training = experiment.training
    return training.learning_rate * training.schedule.factor(epoch, training.epochs)
