"""One kind of layer: the record of which every file of this package holds a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

Settings = dict[str, Any]
Shape = Sequence[int]  # of the batch that a layer got, channels last
Pixels = Sequence[Sequence[int]]  # before and after each axis of space


@dataclass(frozen=True)
class Weight:
    """A variable, and the view of it, or of anything of its shape, in the layout that both sides write."""

    variable: Any
    view: Callable[[np.ndarray], np.ndarray] = lambda array: array

    @property
    def value(self) -> np.ndarray:
        return self.of(self.variable)

    def of(self, quantity: Any) -> np.ndarray:
        """The variable's value, its gradient or a moment, in the layout that both sides write."""
        return self.view(keras.ops.convert_to_numpy(quantity))


Weights = dict[str, Weight]


def own_weights(layer: Any) -> Weights:
    """All of a layer's weights and statistics by their names; a random generator's state is none."""
    variables = [v for v in layer.weights if "seed_generator" not in v.path]
    names = [v.name for v in variables]
    # A layer made of others may hold two of one name.
    return {v.name if names.count(v.name) == 1 else v.path: Weight(v) for v in variables}


def no_weights(layer: Any) -> Weights:
    """Those of a layer whose variables are constants, or that has none."""
    return {}


def prefixed(parts: Mapping[str, Any]) -> Weights:
    """The weights of a layer's own layers, each by its part's name and its own: `query_kernel`."""
    return {
        f"{part}_{weight.variable.name}": weight
        for part, layer in parts.items()
        for weight in own_weights(layer).values()
    }


def attributes(*names: str, **renamed: str) -> Callable[[Any, Shape], Settings]:
    """Settings that a layer's attributes hold, by their own names or by `setting = attribute`."""
    held = {name: name for name in names} | renamed

    def settings(layer: Any, shape: Shape) -> Settings:
        values = {name: getattr(layer, attribute) for name, attribute in held.items()}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    return settings


@dataclass(frozen=True)
class LayerType:
    """One kind of layer.

    classes: Keras's layers and operations of this kind. kind: Keras's name, of its layer or of its activation
    function. settings: those that change the numbers, from the layer and the shape of the batch that it got.
    weights: in the layout that both sides write; what is no weight to both sides is left out. output: of all
    that the layer gives, what is compared. before: the parts of the layer that act before what is left of it,
    by their names; to torch they are layers of their own. beside: these act on the layer's own inputs.
    fused: an activation that it ends in where that cannot be seen apart from it. random: it draws, in
    training alone. constants: attributes whose values TensorFlow takes through float32, and what they are in
    float64. around: of a layer around another, its record, given a function that finds the other's.
    """

    kind: str | Callable[[Any], str]
    classes: tuple[type, ...] = ()
    settings: Callable[[Any, Shape], Settings] = field(default=lambda layer, shape: {})
    weights: Callable[[Any], Weights] = own_weights
    output: Callable[[Any, Any], Any] = field(default=lambda layer, output: output)
    before: Callable[[Any], Mapping[str, LayerType]] = field(default=lambda layer: {})
    beside: bool = False
    fused: Callable[[Any], Any] = field(default=lambda layer: None)
    random: bool = False
    constants: Callable[[Any], Mapping[str, Any]] = field(default=lambda layer: {})
    around: Callable[[Any, Callable[[Any], LayerType | None]], LayerType] | None = None

    def name(self, layer: Any) -> str:
        """Keras's name of a layer of this kind."""
        return self.kind if isinstance(self.kind, str) else self.kind(layer)


def exact(*names: str) -> Callable[[Any], Mapping[str, Any]]:
    """The constants that a layer's attributes of some names are, in float64."""
    return lambda layer: {name: np.float64(getattr(layer, name)) for name in names}


def padded_by(pairs: Pixels, padded: Pixels) -> Pixels:
    """What a layer adds to each side, and what was added before it."""
    if len(padded) != len(pairs):
        return pairs
    return [[a + c, b + d] for (a, b), (c, d) in zip(pairs, padded, strict=True)]
