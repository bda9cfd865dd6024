"""Records what every layer puts out while a model runs, activations inside a layer among them."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import keras
import numpy as np

from experiment.protocols.trace import are_probabilities
from keras_impl.layers.layer_type import Pixels, own_weights
from keras_impl.layers.registry import kind, layer_type, settings, with_padding
from keras_impl.layers.shape import pairs

ENDINGS = ("softmax", "sigmoid")
MASKS = ("mask", "key_mask", "value_mask", "query_mask")
CROPPINGS = (keras.layers.Cropping1D, keras.layers.Cropping2D, keras.layers.Cropping3D)
PADDINGS = (keras.layers.ZeroPadding1D, keras.layers.ZeroPadding2D, keras.layers.ZeroPadding3D)


@dataclass(frozen=True)
class Seen:
    """One layer's output, channels last, as float or integer (N, ...).

    output: None for a part of a layer whose output only the layer itself sees. inputs: the layers that its
    inputs came from, "" for the model's own. settings: as `registry.settings`.
    """

    name: str
    kind: str
    output: np.ndarray | None
    inputs: tuple[str, ...]
    settings: dict[str, Any]


class Recording:
    """While it is entered, `seen` takes up every layer's output as the model runs eagerly.

    A layer goes by the name that `named_leaves` gives it. A layer that ends in an activation is two: itself,
    before it, and `name/activation`. A layer's second call goes by `name@2`.
    masks: of the layers that were given one, which steps (N, T) they take. training: how the model is called.
    """

    def __init__(self, model: keras.Model, training: bool = False) -> None:
        self.training = training
        self.operations = named_leaves(model)
        self.seen: list[Seen] = []
        self.masks: dict[str, np.ndarray] = {}
        self._calls: Counter[str] = Counter()
        self._sources: dict[int, str] = {}  # of each output, by its id
        self._padded: dict[int, Pixels] = {}
        self._alive: list[Any] = []  # so that no id is given twice
        self._pending: tuple[tuple[str, ...], dict[str, Any]] = ((), {})
        self._undo: list[Callable[[], None]] = []

    def __enter__(self) -> Recording:
        for name, operation in self.operations.items():
            self._replace(operation, "call", self._call(name, operation))
            if _ends_in_activation(operation):
                self._replace(operation, "activation", self._activation(name, operation))
        return self

    def __exit__(self, *exception: Any) -> None:
        for undo in reversed(self._undo):
            undo()

    def outputs(self, stage: str) -> dict[str, np.ndarray]:
        """Every output that was recorded, as `stage/layer`."""
        return {f"{stage}/{one.name}": one.output for one in self.seen if one.output is not None}

    def ending_of(self, output: np.ndarray) -> str:
        """The activation that gives an output, softmax, sigmoid or none; else what its numbers say."""
        same = (
            one.kind
            for one in reversed(self.seen)
            if one.output is not None and np.array_equal(one.output, output)
        )
        last = next(same, "")
        return last if last in ENDINGS else "softmax" if are_probabilities(output) else ""

    def _replace(self, owner: Any, name: str, value: Any) -> None:
        self._undo.append(_replace(owner, name, value))

    def _call(self, own_name: str, operation: keras.Operation) -> Callable:
        call: Any = operation.call

        def recorded(*args: Any, **kwargs: Any) -> Any:
            given = [t for t in keras.tree.flatten((args, kwargs)) if hasattr(t, "shape")]
            self._calls[own_name] += 1
            name = self._name(own_name)
            inputs = tuple(self._sources.get(id(tensor), "") for tensor in given)
            mask = next((kwargs[key] for key in MASKS if hasattr(kwargs.get(key), "shape")), None)
            if mask is not None:
                self.masks[name] = np.array(keras.ops.convert_to_numpy(mask))
            padded = self._padded.get(id(given[0]), ()) if given else ()
            shape = tuple(given[0].shape) if given else ()
            facts = settings(operation, shape, padded)
            entry = layer_type(operation)
            if entry is not None and entry.random and kwargs.get("training") and not self.training:
                facts = {**facts, "evaluating": True}
            for part, of in (entry.before(operation) if entry is not None else {}).items():
                seen = with_padding(of.settings(operation, shape), padded)
                self.seen.append(Seen(f"{name}/{part}", of.name(operation), None, inputs, seen))
                inputs = inputs if entry is not None and entry.beside else (f"{name}/{part}",)
            self._pending = (inputs, facts)  # what `_activation` says of the layer
            output = call(*args, **kwargs)
            function = None if entry is None else entry.fused(operation)
            if function is not None:
                self.seen.append(Seen(name, kind(operation), None, inputs, facts))
                self._keep(f"{name}/activation", function, output, (name,), settings(function), operation)
            elif not _ends_in_activation(operation):
                self._keep(name, operation, output, inputs, facts, operation)
            if isinstance(operation, CROPPINGS):
                self._crop(inputs[0], output)
            if isinstance(operation, PADDINGS):
                self._padded[id(output)] = pairs(operation.padding)
            return output

        return recorded

    def _crop(self, source: str, output: Any) -> None:
        """What is cut off what a transposed convolution gives is a part of it, as in torch's padding."""
        place = next((i for i, one in enumerate(self.seen) if one.name == source), None)
        if place is not None and self.seen[place].kind.endswith("Transpose"):
            cut = {name: value for name, value in self.seen[place].settings.items() if name != "cropping"}
            array = np.array(keras.ops.convert_to_numpy(output))
            self.seen[place] = replace(self.seen[place], output=array, settings=cut)

    def _activation(self, own_name: str, layer: Any) -> Callable:
        function = layer.activation

        def recorded(values: Any) -> Any:
            output = function(values)
            name = self._name(own_name)
            self._keep(name, layer, values, *self._pending, layer)
            self._keep(f"{name}/activation", function, output, (name,), settings(function), layer)
            return output

        return recorded

    def _name(self, name: str) -> str:
        number = self._calls[name]
        return name if number == 1 else f"{name}@{number}"

    def _keep(
        self,
        name: str,
        which: Any,
        output: Any,
        inputs: tuple[str, ...],
        facts: dict[str, Any],
        owner: Any,
    ) -> None:
        """Take up an output. owner: the layer, also of an activation that it ends in."""
        tensors = [tensor for tensor in keras.tree.flatten(output) if hasattr(tensor, "shape")]
        if not tensors:
            return
        for tensor in tensors:
            self._sources[id(tensor)] = name
        self._alive += tensors
        entry = layer_type(owner)
        arrays = keras.tree.map_structure(keras.ops.convert_to_numpy, output)
        array = arrays if entry is None else entry.output(owner, arrays)
        while isinstance(array, list | tuple):
            array = array[0]
        self.seen.append(Seen(name, kind(which), np.array(array), inputs, facts))


@contextmanager
def without_dropout(model: keras.Model) -> Iterator[None]:
    """Every layer that draws in training is off, so that two frameworks' own draws do not part them."""
    undo = [
        _replace(layer, "call", _evaluating(layer.call))
        for layer in leaves(model)
        if (entry := layer_type(layer)) is not None
        and entry.random
        and "training" in inspect.signature(layer.call).parameters
    ]
    try:
        yield
    finally:
        for one in undo:
            one()


def _evaluating(call: Callable) -> Callable:
    """A layer's call as in evaluation, whatever it is told."""

    def evaluating(*args: Any, training: Any = None, **kwargs: Any) -> Any:
        return call(*args, training=False, **kwargs)

    return evaluating


def leaves(model: Any) -> list[keras.Operation]:
    """Every layer and operation of a model that is no input, those made of others opened, each once."""
    return [operation for _, operation in _leaves(model, ())]


def named_leaves(model: Any) -> dict[str, keras.Operation]:
    """As `leaves`, by their names; those that share one go by their path, such as `block_1/conv`."""
    found = _leaves(model, ())
    names = Counter(operation.name for _, operation in found)
    paths = Counter(path for path, _ in found)
    named: dict[str, keras.Operation] = {}
    for path, operation in found:
        name = operation.name if names[operation.name] == 1 else "/".join(path)
        if paths[path] > 1 or name in named:
            name = next(f"{name}#{n}" for n in range(1, len(found) + 1) if f"{name}#{n}" not in named)
        named[name] = operation
    return named


def _leaves(model: Any, path: Sequence[str]) -> list[tuple[tuple[str, ...], keras.Operation]]:
    found: dict[int, tuple[tuple[str, ...], keras.Operation]] = {}
    inner = getattr(model, "operations", None) or getattr(model, "layers", None) or model._layers
    for operation in inner:
        place = (*path, operation.name)
        if is_composite(operation):
            for inner_path, one in _leaves(operation, place):
                found.setdefault(id(one), (inner_path, one))
        elif not isinstance(operation, keras.layers.InputLayer):
            found.setdefault(id(operation), (place, operation))
    return list(found.values())


def without_record(model: Any) -> dict[str, tuple[Any, list[Any]]]:
    """The layers with weights of their own that no record has, each by its name and with those weights."""
    found: dict[str, tuple[Any, list[Any]]] = {
        name: (layer, [weight.variable for weight in weights.values()])
        for name, layer in named_leaves(model).items()
        if layer_type(layer) is None
        and (weights := own_weights(layer) if isinstance(layer, keras.Layer) else {})
    }
    held = {id(v) for layer in leaves(model) if isinstance(layer, keras.Layer) for v in layer.weights}
    for layer in model._flatten_layers():
        own = [v for v in layer._trainable_variables + layer._non_trainable_variables if id(v) not in held]
        if is_composite(layer) and (own := [v for v in own if "seed_generator" not in v.path]):
            found[layer.name] = (layer, own)
    return found


def is_composite(operation: Any) -> bool:
    """Whether an operation is a model, or a user's layer, made of other layers and without a record."""
    if isinstance(operation, keras.Model):
        return True
    return layer_type(operation) is None and bool(getattr(operation, "_layers", []))


def _replace(owner: Any, name: str, value: Any) -> Callable[[], None]:
    """Set an attribute; returns what sets it back."""
    before, own = getattr(owner, name), name in vars(owner)
    setattr(owner, name, value)
    return partial(setattr, owner, name, before) if own else partial(delattr, owner, name)


def _ends_in_activation(operation: keras.Operation) -> bool:
    function = vars(operation).get("activation")
    is_layer = isinstance(operation, keras.Layer) and not isinstance(operation, keras.layers.Activation)
    return is_layer and function is not None and kind(function) != "linear" and bool(operation.weights)
