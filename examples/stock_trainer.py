"""The Lightning side's classifier and data in a stock L.Trainer, with Lightning's logger and callbacks."""

import sys

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

from experiment.config import Augment, Data, Experiment, Model
from experiment.data.dataset import load
from lightning_impl.classifier import Classifier
from lightning_impl.data import DataModule
from lightning_impl.model import build_model


def main(folder: str) -> float:
    """Train on scikit-learn's digits; returns the accuracy of the best epoch's weights on the test split."""
    digits = Data(name="digits", image_size=16)
    augment = Augment(rotation=10, horizontal_flip=False)
    data = DataModule(load(digits, seed=1), batch_size=16, augment=augment)
    network = build_model(Experiment(data=digits, model=Model(filters=[16, 32], dense_units=64)), classes=10)
    best = ModelCheckpoint(f"{folder}/checkpoints", monitor="val_loss")
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=6,
        logger=TensorBoardLogger(folder),
        callbacks=[best, EarlyStopping("val_loss", patience=3)],
        accumulate_grad_batches=2,
        gradient_clip_val=1.0,
    )
    trainer.fit(Classifier(network, learning_rate=5e-3, optimizer="adamw"), data)
    classifier = Classifier.load_from_checkpoint(best.best_model_path, network=network, weights_only=True)
    return trainer.test(classifier, data)[0]["test_accuracy"]


if __name__ == "__main__":
    print(main(*sys.argv[1:] or ["stock_trainer"]))
