"""One kind of layer: the record of which every file of this package holds a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

Settings = dict[str, Any]
Pixels = Sequence[Sequence[int]]  # before and after each axis of space


@dataclass(frozen=True)
class Call:
    """A function that was called on tensors.

    axis: of the first tensor's channels. shapes: of the tensors that it was given. output: of its result.
    """

    name: str
    args: Sequence[Any]
    kwargs: dict[str, Any]
    axis: int
    shapes: Sequence[Sequence[int]]
    output: Sequence[int]

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """An argument by its position or its name."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)


@dataclass(frozen=True)
class Weight:
    """A weight in Keras's layout: a linear view of one or several tensors of a module.

    names: of the tensors, from the module (`out_proj.weight`). view: takes them, or gradients or moments of
    theirs, to Keras's layout; it moves and selects elements and does nothing else. added: a second set of
    tensors of the same shapes, whose view is added to the first's. by_row: it has a row for each feature of
    flattened images.
    """

    module: nn.Module
    names: tuple[str, ...]
    view: Callable[..., Tensor] = lambda tensor: tensor
    added: tuple[str, ...] = ()
    by_row: bool = False

    @property
    def tensors(self) -> list[Tensor]:
        return [attrgetter(name)(self.module) for name in self.names]

    @property
    def value(self) -> Tensor:
        value = self.view(*self.tensors)
        if self.added:
            value = value + self.view(*(attrgetter(name)(self.module) for name in self.added))
        return value

    def of(self, quantity: Callable[[Tensor], Tensor | None]) -> Tensor | None:
        """A gradient, or a moment, of this weight; None where one of its tensors has none.

        What is added has the same gradient as what it is added to.
        """
        values = [quantity(tensor) for tensor in self.tensors]
        return None if any(value is None for value in values) else self.view(*values)

    @torch.no_grad()
    def write(self, value: Tensor) -> None:
        """Give the tensors a value in Keras's layout: the inverse of `value`; what is added becomes zero.

        Raises ValueError where the tensors are computed from others that cannot give this value.
        """
        tensors = self.tensors
        sizes = [tensor.numel() for tensor in tensors]
        places = torch.arange(sum(sizes)).split(sizes)
        # The view of each element's place says where it comes to stand.
        order = self.view(*(place.view(t.shape) for place, t in zip(places, tensors, strict=True)))
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        flat[order.flatten()] = value.to(flat).flatten()
        for name, tensor, part in zip(self.names, tensors, flat.split(sizes), strict=True):
            self._assign(name, part.view(tensor.shape))
        for name in self.added:
            self._assign(name, torch.zeros_like(attrgetter(name)(self.module)))

    def _assign(self, path: str, value: Tensor) -> None:
        path, _, name = path.rpartition(".")
        owner = self.module.get_submodule(path)
        if not parametrize.is_parametrized(owner, name):
            getattr(owner, name).copy_(value)
            return
        setattr(owner, name, value)
        if not torch.allclose(getattr(owner, name), value, rtol=1e-6):
            kinds = ", ".join(type(p).__name__ for p in owner.parametrizations[name])  # type: ignore[union-attr]
            raise ValueError(f"its {name} is computed by {kinds}, which cannot give any value")


Weights = dict[str, Weight]


def _no_settings(layer: nn.Module) -> Settings:
    return {}


def _no_weights(layer: nn.Module) -> Weights:
    return {}


@dataclass(frozen=True)
class LayerType:
    """One kind of layer in Keras's words.

    classes: torch's modules of this kind. functions: names of the functions that stand for it where no module
    does. kind: Keras's name, of its layer or of its activation function. settings: those that change the
    numbers, under Keras's names and with Keras's meaning. weights: in Keras's names and layout.
    of_call: the settings of a function's call. is_layer: tells a call that is this layer from one that is
    none. channels: the axis of the channels in its output where the layer says so, else None.
    """

    kind: str | Callable[[Any], str]
    classes: tuple[type[nn.Module], ...] = ()
    functions: tuple[str, ...] = ()
    settings: Callable[[Any], Settings] = _no_settings
    weights: Callable[[Any], Weights] = _no_weights
    of_call: Callable[[Call], Settings] = field(default=lambda call: {})
    is_layer: Callable[[Call], bool] = field(default=lambda call: True)
    channels: int | None = None

    def name(self, layer: nn.Module | Call) -> str:
        """Keras's name of a module, or of a call, of this kind."""
        return self.kind if isinstance(self.kind, str) else self.kind(layer)


def own(layer: nn.Module, view: Callable[[Tensor], Tensor] | None = None, **names: str) -> Weights:
    """The weights that a module has of its own by `torch's name = Keras's`; those it is without are left out.

    view: to Keras's layout, of all of them.
    """
    return {
        keras: Weight(layer, (name,), view or (lambda tensor: tensor))
        for name, keras in names.items()
        if getattr(layer, name, None) is not None
    }


def each(value: Any, dimensions: int) -> list[int]:
    """One number for each axis of space, from one for all of them or a tuple."""
    return list(value) if isinstance(value, tuple | list) else [value] * dimensions


def padded_by(pairs: Pixels, padded: Pixels) -> Pixels:
    """What a layer adds to each side, and what was added before it."""
    if len(padded) != len(pairs):
        return pairs
    return [[a + c, b + d] for (a, b), (c, d) in zip(pairs, padded, strict=True)]
