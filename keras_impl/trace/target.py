"""What a trace looks at: this project's model on its data, or a user's model, with all that trains it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import keras
import numpy as np

from experiment import randomness
from experiment.data.dataset import load as load_data
from experiment.protocols import trace
from experiment.protocols.trace import Arrays, Request, TraceError, user_object
from experiment.training.lifecycle import class_weights
from keras_impl.classifier import Classifier
from keras_impl.data import DataModule
from keras_impl.dropout import SharedDropout
from keras_impl.layers.layer_type import own_weights
from keras_impl.trace.recorder import Recording, leaves, without_dropout


@dataclass
class Subject:
    """A compiled model with batches of (inputs, targets, sample weights); `model` is what is traced."""

    model: Any
    trained: Any
    batches: list[tuple[Any, Any, Any]]
    plain: Any  # the first batch's inputs to `model`, not augmented
    dropout: bool = True

    def record(self, training: bool, index: int = 0) -> tuple[Any, Any]:
        """One eager pass over a batch: the Recording, and the outputs."""

        self.set_step(index)
        with Recording(self.trained if training else self.model) as recording:
            if training:
                outputs = self.trained(self.batches[index][0], training=True)
            else:
                outputs = self.model(self.plain, training=False)
        return recording, outputs

    def repeatable(self) -> AbstractContextManager[None]:
        """Until it is left, training draws nothing that the other side does not draw, too."""
        return nullcontext() if self.dropout else _repeatable(self.model)

    def set_step(self, index: int) -> None:
        """Dropout masks shared between the sides are those of this step from here on."""
        for layer in leaves(self.model):
            if isinstance(layer, SharedDropout):
                layer.seed_generator.state.assign(np.array([0, index], dtype="uint32"))


def own(request: Request) -> tuple[Subject, Arrays]:
    """This project's model on its real data, and what the data module made of the first two epochs."""

    experiment = request.experiment
    dataset = load_data(experiment.data, experiment.seed)
    weights = class_weights(experiment, dataset)
    classifier = Classifier(experiment, len(dataset.class_names))
    data = DataModule(dataset, experiment)
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
        x = batches[0][0]
        augmented = classifier.trained.get_layer("augment")(x["images"], x["matrices"], training=True)
        arrays["data/augmented"] = keras.ops.convert_to_numpy(augmented)
    return subject, arrays


def users(request: Request) -> Subject:
    """A user's model; raises TraceError."""
    keras.utils.set_random_seed(request.experiment.seed)
    model = users_model(request.build or "")
    inputs = request.inputs()
    if np.issubdtype(inputs.dtype, np.floating):
        inputs = inputs.astype(keras.config.floatx())
    try:
        outputs = model(inputs, training=False)
    except Exception as error:  # whatever the user's model raises
        raise TraceError(f"{request.build}: fails on inputs {inputs.shape}: {trace.told(error)}") from error
    if not hasattr(outputs, "shape"):
        raise TraceError(f"{request.build}: gives {type(outputs).__name__}, one tensor was expected")
    unsettle(model, request.experiment.seed)
    outputs = keras.ops.convert_to_numpy(outputs)
    kind = request.loss(outputs.shape)
    targets = randomness.targets(request.experiment.seed, outputs.shape, kind)
    losses = {
        "crossentropy": keras.losses.SparseCategoricalCrossentropy(
            from_logits=not trace.are_probabilities(outputs)
        ),
        "mse": keras.losses.MeanSquaredError(),
    }
    # A model that its user compiled keeps its optimizer, uncompiled ones get Keras's Adam.
    optimizer = getattr(model, "optimizer", None) or keras.optimizers.Adam(
        request.experiment.training.learning_rate
    )
    model.compile(optimizer=optimizer, loss=losses[kind])
    optimizer.build(model.trainable_variables)
    parts = trace.parts(len(inputs), request.steps)
    return Subject(
        model, model, [(inputs[p], targets[p], None) for p in parts], inputs[parts[0]], dropout=False
    )


def unsettle(model: keras.Model, seed: int) -> None:
    """Move every weight that is one number throughout, as biases and statistics are at first.

    From zeros and ones a bias that is left out, a mean in place of a variance, or two channels swapped would
    not show.
    """
    for layer in leaves(model):
        if isinstance(layer, keras.Layer):
            for name, weight in own_weights(layer).items():
                value = keras.ops.convert_to_numpy(weight.variable)
                weight.variable.assign(trace.unsettled(value, seed, f"{layer.name}/{name}"))


@contextmanager
def _repeatable(model: keras.Model) -> Iterator[None]:
    with without_dropout(model), exact_constants(model):
        yield


@contextmanager
def exact_constants(model: keras.Model) -> Iterator[None]:
    """Constants that TensorFlow takes through float32 keep their digits in float64.

    These are the scale of Rescaling, the slope of leaky_relu, the constants of gelu and SGD's momentum: 1e-7
    to 1e-9 that would hide what a float64 trace can show, and that are nothing beside float32's own rounding.
    Adam's betas stay: `keras_semantics.Adam`, of the other side, rounds them as well.
    """
    if keras.backend.backend() != "tensorflow" or keras.config.floatx() != "float64":
        yield
        return
    from keras.src.backend import nn

    rescalings = [layer for layer in leaves(model) if isinstance(layer, keras.layers.Rescaling)]
    constants = [(layer, name) for layer in rescalings for name in ("scale", "offset")]
    if isinstance(model.optimizer, keras.optimizers.SGD):
        constants.append((model.optimizer, "momentum"))
    with ExitStack() as stack:
        for owner, name in constants:
            stack.enter_context(patch.object(owner, name, np.float64(getattr(owner, name))))
        stack.enter_context(patch.object(nn, "leaky_relu", _leaky_relu))
        stack.enter_context(patch.object(nn, "gelu", _gelu))
        yield


def _leaky_relu(x: Any, negative_slope: float = 0.2) -> Any:
    return keras.ops.where(x > 0, x, x * negative_slope)


def _gelu(x: Any, approximate: bool = True) -> Any:
    if approximate:
        return 0.5 * x * (1 + keras.ops.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
    return 0.5 * x * (1 + keras.ops.erf(x / math.sqrt(2)))


def users_model(name: str) -> keras.Model:
    """The model that `package.module:function` builds, or that a .keras file holds; raises TraceError."""
    try:
        model = _from_file(name) if name.endswith(".keras") else user_object(name)()
    except TraceError:
        raise
    except Exception as error:  # whatever the user's function, or Keras of a file, raises
        raise TraceError(f"{name}: gives no model: {trace.told(error)}") from error
    if not isinstance(model, keras.Model):
        raise TraceError(f"{name}: gives {type(model).__name__}, a keras.Model was expected")
    return model


def _from_file(name: str) -> Any:
    """A saved model, in the precision of the trace: a file keeps that of its own."""
    saved = keras.saving.load_model(name)
    config = json.dumps(keras.saving.serialize_keras_object(saved))
    for key in ("dtype", "name"):
        config = config.replace(f'"{key}": "float32"', f'"{key}": "{keras.config.floatx()}"')
    model = keras.saving.deserialize_keras_object(json.loads(config))
    model.set_weights(saved.get_weights())
    return model
