"""What a trace looks at: this project's model on its data, or a user's model, with all that trains it."""

from __future__ import annotations

import json
import re
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from experiment import randomness
from experiment.protocols import trace
from experiment.protocols.faults import told
from experiment.protocols.trace import Arrays, LossTerm, Request, TraceError
from keras_impl.dropout import SharedDropout
from keras_impl.layers import rules, weight_layout
from keras_impl.layers.apart import take_apart
from keras_impl.trace.losses import Loss, loss_of
from keras_impl.trace.optimizer import exact_start, notes
from keras_impl.trace.precision import exact_constants, in_one_precision, kept_in_float32
from keras_impl.trace.recorder import Recording, leaves, named_leaves, without_dropout
from keras_impl.trace.signature import arrays_of, inputs_of

CONFIG = "config.json"  # in a .keras file
OF_A_BACKEND = re.compile(r'"module": "keras\.src\.backend\.\w+\.optimizers?\.\w+"')
EAGER_STEPS = 12


@dataclass
class Subject:
    """A compiled model with batches of (inputs, targets, sample weights); `model` is what is traced.

    Of a user's model: its weights as built; a Recording of two samples; the loss of each output, and the
    activation that gives it; whether its user compiled it; and notes on how it was traced.
    """

    model: Any
    trained: Any
    batches: list[tuple[Any, Any, Any]]
    plain: Any  # the first batch's inputs to `model`, not augmented
    dropout: bool = True
    own: Arrays = field(default_factory=dict)
    scanned: Recording | None = None
    losses: Sequence[LossTerm] = ()
    endings: Sequence[str] = ()
    compiled: bool = False
    notes: Sequence[str] = ()

    def record(self, training: bool, index: int = 0) -> tuple[Any, Any]:
        """One eager pass over a batch: the Recording, and the outputs."""

        self.set_step(index)
        exact = nullcontext() if self.dropout else exact_constants(self.model)
        with exact, Recording(self.trained if training else self.model, training) as recording:
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


def users(request: Request) -> Subject:
    """A user's model; raises TraceError."""
    rules.use(request.rules)
    model, inputs = on_inputs(request, request.experiment.seed)
    with exact_constants(model), Recording(model) as recording:
        outputs = arrays_of(_run(request, model, inputs))
    if not outputs:
        raise TraceError(f"{request.build}: gives no tensor")
    built = weights("own", model)
    if request.weights is None:
        unsettle(model, request.experiment.seed)
    else:
        with np.load(request.weights) as arrays:
            model.set_weights([arrays[f"raw/{i}"] for i in range(len(model.weights))])
    endings = [recording.ending_of(output) for output in outputs.values()]
    count = len(keras.tree.flatten(inputs)[0])
    losses = _losses(request, model, [(count, *o.shape[1:]) for o in outputs.values()], endings)
    # A model that its user compiled keeps its optimizer, uncompiled ones get Keras's Adam.
    given = getattr(model, "optimizer", None)
    optimizer = given or keras.optimizers.Adam(request.experiment.training.learning_rate)
    functions, targets = [loss.function for loss in losses], [loss.targets for loss in losses]
    single = len(losses) == 1
    weighted = None if single else [loss.term.weight for loss in losses]
    model.compile(
        optimizer=optimizer,
        loss=functions[0] if single else functions,
        loss_weights=weighted,
        # Making a graph takes TensorFlow longer than a few steps do.
        run_eagerly=keras.backend.backend() == "tensorflow",
    )
    optimizer.build(model.trainable_variables)
    exact_start(optimizer)
    batches = [
        (_part(inputs, p), targets[0][p] if single else [t[p] for t in targets], _shares(losses, p))
        for p in trace.parts(count, request.steps)
    ]
    # To compile a graph takes as long as a dozen steps without one.
    model.run_eagerly = keras.backend.backend() == "tensorflow" and len(batches) <= EAGER_STEPS
    return Subject(
        model,
        model,
        batches,
        batches[0][0],
        dropout=False,
        own=built,
        scanned=recording,
        losses=[loss.term for loss in losses],
        endings=endings,
        compiled=given is not None,
        notes=[*kept_in_float32(model), *notes(model), *(loss.note for loss in losses if loss.note)],
    )


def on_inputs(request: Request, seed: int) -> tuple[keras.Model, Any]:
    """A user's model with all of its weights, and the request's inputs to it; raises TraceError.

    A subclassed model has its weights, and may have its layers, only once it has run.
    """
    model = users_model(request, seed)
    inputs = inputs_of(request, model)
    if not all(layer.built for layer in model._flatten_layers()):
        _run(request, model, inputs)
    named = named_leaves(model)
    take_apart((named[name], count) for name, count in request.apart.items())
    return model, inputs


def _run(request: Request, model: keras.Model, inputs: Any) -> Any:
    """The outputs for two samples; raises TraceError for whatever the user's model raises."""
    try:
        return model(_part(inputs, slice(0, 2)), training=False)
    except TraceError:
        raise
    except Exception as error:
        shapes = ", ".join(str(tuple(array.shape)) for array in keras.tree.flatten(inputs))
        raise TraceError(f"{request.build}: fails on inputs {shapes}: {told(error)}") from error


def _losses(
    request: Request, model: keras.Model, shapes: Sequence[tuple[int, ...]], endings: Sequence[str]
) -> list[Loss]:
    compiled: Any = getattr(model, "loss", None)
    if isinstance(compiled, dict):
        compiled = [compiled.get(name) for name in _output_names(model)]
    each = compiled if isinstance(compiled, list | tuple) else [compiled] * len(shapes)
    seed = request.experiment.seed
    losses = [
        loss_of(request.loss_name, shape, ending, seed + place, given)
        for place, (shape, ending, given) in enumerate(zip(shapes, endings, each, strict=True))
    ]
    if request.class_weights and [loss.term.name for loss in losses] != ["crossentropy"]:
        raise TraceError("--class-weights goes with one output and its crossentropy")
    if request.class_weights and len(request.class_weights) != shapes[0][-1]:
        raise TraceError(f"--class-weights: {len(request.class_weights)} for {shapes[0][-1]} classes")
    of_images = any(len(shape) > 3 for shape in shapes)
    if request.sample_weights and (len(losses) > 1 or of_images):
        raise TraceError(
            "--sample-weights goes with one output, which is no image: Keras's fit weighs no other"
        )
    weighted = _loss_weights(model, len(losses))
    shares = randomness.sample_weights(seed, shapes[0][0]).tolist() if request.sample_weights else []
    if any(given is not None for given in each):  # an output without a loss has none
        losses = [
            replace(loss, function=None, term=replace(loss.term, name="none")) if given is None else loss
            for loss, given in zip(losses, each, strict=True)
        ]
    return [
        replace(
            loss,
            term=replace(
                loss.term,
                weight=weight,
                class_weights=list(request.class_weights),
                sample_weights=shares,
            ),
        )
        for loss, weight in zip(losses, weighted, strict=True)
    ]


def _output_names(model: keras.Model) -> list[str]:
    """The names that Keras gives a model's outputs, in the order in which they are traced."""
    outputs = getattr(model, "_outputs_struct", None)
    return sorted(outputs) if isinstance(outputs, dict) else list(model.output_names)


def _loss_weights(model: keras.Model, count: int) -> list[float]:
    """What a model was compiled with, in the order of its outputs."""
    given: Any = getattr(getattr(model, "_compile_loss", None), "_user_loss_weights", None)
    if isinstance(given, dict):
        given = [given.get(name, 1.0) for name in _output_names(model)]
    if given is None:
        return [1.0] * count
    return [float(weight) for weight in (given if isinstance(given, list | tuple) else [given] * count)]


def _shares(losses: Sequence[Loss], part: slice) -> np.ndarray | None:
    """The weight of every sample of a part: its own, by its class, or the product of both."""
    weights, targets = losses[0].term.class_weights, losses[0].targets[part]
    own = np.asarray(losses[0].term.sample_weights, keras.config.floatx())[part]
    if not weights:
        return own if own.size else None
    classes = (
        targets.argmax(-1)
        if isinstance(losses[0].function, keras.losses.CategoricalCrossentropy)
        else targets
    )
    by_class = np.asarray(weights, keras.config.floatx())[classes]
    return by_class * own if own.size else by_class


def _part(inputs: Any, part: slice) -> Any:
    return keras.tree.map_structure(lambda array: array[part], inputs)


def unsettle(model: keras.Model, seed: int) -> None:
    """Move every weight that is one number throughout, as biases and statistics are at first; round all to
    float32, so that a trace in float32 starts from the same numbers.

    From zeros and ones a bias that is left out, a mean in place of a variance, or two channels swapped would
    not show.
    """
    for name, layer in named_leaves(model).items():
        for weight_name, weight in weight_layout.weights(layer).items():
            value = keras.ops.convert_to_numpy(weight.variable)
            moved = trace.unsettled(value, seed, f"{name}/{weight_name}")
            weight.variable.assign(moved.astype(np.float32) if moved.dtype == np.float64 else moved)


def weights(prefix: str, model: keras.Model) -> Arrays:
    """Every weight and statistic as `prefix/layer/name`."""
    return {
        f"{prefix}/{unit}/{weight_name}": np.array(weight.value)
        for name, layer in named_leaves(model).items()
        for unit, found in weight_layout.units(name, layer).items()
        for weight_name, weight in found.items()
    }


@contextmanager
def _repeatable(model: keras.Model) -> Iterator[None]:
    with without_dropout(model), exact_constants(model):
        yield


def users_model(request: Request, seed: int) -> keras.Model:
    """The model that `package.module:function` builds, or that a .keras file holds; raises TraceError."""
    name = request.build or ""
    keras.utils.clear_session(free_memory=False)  # layers are named as in a process of their own
    keras.utils.set_random_seed(seed)
    if name.endswith(".keras"):
        return _from_file(name)
    with in_one_precision():
        model = trace.build(name)
    if not isinstance(model, keras.Model):
        raise TraceError(f"{name}: gives {trace.described(model)}; it must return a keras.Model")
    return model


def _from_file(name: str) -> keras.Model:
    """A saved model, in the precision of the trace: a file keeps that of its own. Raises TraceError."""
    precision = keras.config.floatx()
    keras.config.set_floatx("float32")  # some metrics cannot be built in another
    try:
        with _of_no_backend(name) as file:
            saved = keras.saving.load_model(file)
            config = _config(file)
    except Exception as error:  # zipfile, h5py, json and Keras raise many kinds for a damaged file
        raise TraceError(f"{name}: {_why_not(name, error)}") from error
    finally:
        keras.config.set_floatx(precision)
    text = json.dumps(keras.saving.serialize_keras_object(saved))
    for key in ("dtype", "name"):
        text = text.replace(f'"{key}": "float32"', f'"{key}": "{keras.config.floatx()}"')
    described = json.loads(text)
    if described.get("compile_config"):  # the file's learning rate has more digits than float32
        compiled = json.loads(config)["compile_config"]
        described["compile_config"] = {**compiled, "metrics": None, "weighted_metrics": None}
    model = keras.saving.deserialize_keras_object(described)
    model.set_weights(saved.get_weights())
    return model


def _config(file: str) -> str:
    with zipfile.ZipFile(file) as archive:
        return archive.read(CONFIG).decode()


@contextmanager
def _of_no_backend(name: str) -> Iterator[str]:
    """A .keras file that names no backend's own optimizer: one saved on torch would import torch here."""
    config = _config(name)
    plain = OF_A_BACKEND.sub('"module": "keras.optimizers"', config)
    if plain == config:
        yield name
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.keras"
        with zipfile.ZipFile(name) as archive, zipfile.ZipFile(file, "w") as copy:
            for member in archive.namelist():
                copy.writestr(member, plain if member == CONFIG else archive.read(member))
        yield str(file)


def _why_not(name: str, error: Exception) -> str:
    """Why a file gives no model, and the way out."""
    if not Path(name).is_file():
        return "no such file"
    said = str(error)
    if "unsafe" in said or "Lambda" in said:
        return (
            "holds a Lambda, whose Python code is never run from a file: "
            "give a function that builds the model and loads the weights (package.module:function)"
        )
    if "custom" in said or "Could not locate" in said or "Unknown layer" in said:
        return (
            "holds a class that is not Keras's own: give a function that builds the model and loads the "
            f"weights (package.module:function); Keras says {told(error)}"
        )
    return f"cannot be read as a Keras model ({told(error)})"
