"""This project's model on its real data, as a trace looks at it."""

from __future__ import annotations

import keras
import numpy as np

from experiment.data.dataset import load as load_data
from experiment.protocols import trace
from experiment.protocols.trace import Arrays, Request
from experiment.training.lifecycle import class_weights
from keras_impl.classifier import build_classifier
from keras_impl.data import build_data
from keras_impl.trace.target import Subject


def own(request: Request) -> tuple[Subject, Arrays]:
    """This project's model on its real data, and what the data module made of the first two epochs."""

    experiment = request.experiment
    dataset = load_data(experiment.data, experiment.seed)
    weights = class_weights(experiment, dataset)
    classifier = build_classifier(experiment, len(dataset.class_names))
    data = build_data(experiment, dataset)
    batches, arrays, plain = [], {}, None
    floatx = keras.config.floatx()
    for epoch in range(2):
        data.train.epoch = epoch
        loaded = [data.train[step] for step in range(len(data.train))]
        images = [x["images"] if isinstance(x, dict) else x for x, _ in loaded]
        labels = [np.argmax(y, axis=1) for _, y in loaded]
        arrays |= trace.epoch(epoch, [(i.astype(floatx), y) for i, y in zip(images, labels, strict=True)])
        plain = images[0].astype(floatx) if plain is None else plain
        for (x, y), numbers in zip(loaded, labels, strict=True):
            if len(batches) < max(request.steps, 1):
                shares = None if weights is None else np.asarray(weights, floatx)[numbers]
                batches.append((x, y, shares))
    subject = Subject(classifier.model, classifier.trained, batches, plain)
    if experiment.augment.kind == "none":
        arrays["data/augmented"] = plain
    else:
        inputs = dict(batches[0][0])
        augmented = classifier.trained.get_layer("augment")(inputs.pop("images"), inputs, training=True)
        arrays["data/augmented"] = keras.ops.convert_to_numpy(augmented)
    return subject, arrays
