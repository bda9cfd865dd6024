"""The Keras side's model and data in a stock model.fit, with Keras's own callbacks."""

import sys

import keras

from experiment.config import Augment, Data, Experiment, Model
from experiment.data.dataset import load
from keras_impl.classifier import with_augmentation
from keras_impl.data import DataModule
from keras_impl.model import build_model


def main(folder: str) -> float:
    """Train on scikit-learn's digits; returns the accuracy of the best epoch's weights on the test split."""
    digits, best = Data(name="digits", image_size=16), f"{folder}/best.weights.h5"
    augment = Augment(rotation=10, horizontal_flip=False)
    data = DataModule(load(digits, seed=1), batch_size=16, augment=augment)
    network = build_model(Experiment(data=digits, model=Model(filters=[16, 32], dense_units=64)), classes=10)
    model = with_augmentation(network, size=16)
    model.compile(keras.optimizers.AdamW(5e-3), "categorical_crossentropy", metrics=["accuracy"])
    callbacks = [
        keras.callbacks.ReduceLROnPlateau(patience=2),
        keras.callbacks.EarlyStopping(patience=3),
        keras.callbacks.ModelCheckpoint(best, save_best_only=True, save_weights_only=True),
        keras.callbacks.TensorBoard(folder),
    ]
    # Not shuffled by Keras: the batches come in an order of their own in each epoch.
    model.fit(data.train, validation_data=data.validation, epochs=6, shuffle=False, callbacks=callbacks)
    model.load_weights(best)
    return model.evaluate(data.test, return_dict=True)["accuracy"]


if __name__ == "__main__":
    print(main(*sys.argv[1:] or ["stock_fit"]))
