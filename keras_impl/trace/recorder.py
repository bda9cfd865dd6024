"""Records what every layer puts out while a model runs, activations inside a layer among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_impl.layers.layer_type import LayerType
from keras_impl.layers.registry import kind, layer_type, settings, with_padding

DROPOUTS = (
    keras.layers.Dropout,  # SpatialDropout among them
    keras.layers.AlphaDropout,
    keras.layers.GaussianDropout,
)


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

    A layer that ends in an activation is two: itself, before it, and `name/activation`. A layer's second call
    goes by `name@2`.
    """

    def __init__(self, model: keras.Model) -> None:
        self.operations = leaves(model)
        self.seen: list[Seen] = []
        self._calls: Counter[str] = Counter()
        self._sources: dict[int, str] = {}  # of each output, by its id
        self._padded: dict[int, Sequence[Sequence[int]]] = {}
        self._alive: list[Any] = []  # so that no id is given twice
        self._pending: tuple[tuple[str, ...], dict[str, Any]] = ((), {})
        self._undo: list[Callable[[], None]] = []

    def __enter__(self) -> Recording:
        for operation in self.operations:
            self._replace(operation, "call", self._call(operation))
            if _ends_in_activation(operation):
                self._replace(operation, "activation", self._activation(operation))
        return self

    def __exit__(self, *exception: Any) -> None:
        for undo in reversed(self._undo):
            undo()

    def outputs(self, stage: str) -> dict[str, np.ndarray]:
        """Every output that was recorded, as `stage/layer`."""
        return {f"{stage}/{one.name}": one.output for one in self.seen if one.output is not None}

    def _replace(self, owner: Any, name: str, value: Any) -> None:
        self._undo.append(_replace(owner, name, value))

    def _call(self, operation: keras.Operation) -> Callable:
        call: Any = operation.call

        def recorded(*args: Any, **kwargs: Any) -> Any:
            given = [t for t in keras.tree.flatten((args, kwargs)) if hasattr(t, "shape")]
            self._calls[operation.name] += 1
            name = self._name(operation)
            inputs = tuple(self._sources.get(id(tensor), "") for tensor in given)
            padded = self._padded.get(id(given[0]), ()) if given else ()
            facts = settings(operation, given[0].shape if given else (), padded)
            for part, entry in _parts(operation).items():
                seen = with_padding(entry.settings(operation, given[0].shape), padded)
                self.seen.append(Seen(f"{name}/{part}", entry.name(operation), None, inputs, seen))
                inputs = (f"{name}/{part}",)
            self._pending = (inputs, facts)  # what `_activation` says of the layer
            output = call(*args, **kwargs)
            if not _ends_in_activation(operation):
                self._keep(name, operation, output, inputs, facts)
            if isinstance(operation, keras.layers.ZeroPadding2D):
                self._padded[id(output)] = operation.padding
            return output

        return recorded

    def _activation(self, layer: Any) -> Callable:
        function = layer.activation

        def recorded(values: Any) -> Any:
            output = function(values)
            name = self._name(layer)
            self._keep(name, layer, values, *self._pending)
            self._keep(f"{name}/activation", function, output, (name,), settings(function))
            return output

        return recorded

    def _name(self, operation: keras.Operation) -> str:
        number = self._calls[operation.name]
        return operation.name if number == 1 else f"{operation.name}@{number}"

    def _keep(
        self, name: str, which: Any, output: Any, inputs: tuple[str, ...], facts: dict[str, Any]
    ) -> None:
        if not hasattr(output, "shape"):
            return
        self._sources[id(output)] = name
        self._alive.append(output)
        array = np.array(keras.ops.convert_to_numpy(output))
        if kind(which).startswith("Global"):
            array = array.reshape(array.shape[0], -1)  # keepdims or not
        self.seen.append(Seen(name, kind(which), array, inputs, facts))


@contextmanager
def without_dropout(model: keras.Model) -> Iterator[None]:
    """Every dropout is off, so that two frameworks' own masks do not part them."""
    undo = [_replace(layer, "rate", 0.0) for layer in leaves(model) if isinstance(layer, DROPOUTS)]
    try:
        yield
    finally:
        for one in undo:
            one()


def leaves(model: Any) -> list[keras.Operation]:
    """Every layer and operation of a model that is no input, those made of others opened, each once."""
    found: dict[int, keras.Operation] = {}
    inner = getattr(model, "operations", None) or getattr(model, "layers", None) or model._layers
    for operation in inner:
        if is_composite(operation):
            found |= {id(one): one for one in leaves(operation)}
        elif not isinstance(operation, keras.layers.InputLayer):
            found[id(operation)] = operation
    return list(found.values())


def is_composite(operation: Any) -> bool:
    """Whether an operation is a model, or a user's layer, made of other layers."""
    own = type(operation).__module__.startswith("keras.")
    return isinstance(operation, keras.Model) or bool(not own and getattr(operation, "_layers", []))


def _parts(operation: Any) -> Mapping[str, LayerType]:
    entry = layer_type(operation)
    return {} if entry is None else entry.before


def _replace(owner: Any, name: str, value: Any) -> Callable[[], None]:
    """Set an attribute; returns what sets it back."""
    before, own = getattr(owner, name), name in vars(owner)
    setattr(owner, name, value)
    return lambda: setattr(owner, name, before) if own else delattr(owner, name)


def _ends_in_activation(operation: keras.Operation) -> bool:
    function = vars(operation).get("activation")
    is_layer = isinstance(operation, keras.Layer) and not isinstance(operation, keras.layers.Activation)
    return is_layer and function is not None and kind(function) != "linear" and bool(operation.weights)
