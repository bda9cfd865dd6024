"""One kind of layer: the record of which every file of this package holds a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
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

    axis: of the channels of the tensor that it mainly acts on. shapes: of the tensors that it was given.
    output: of its result. native: it is torch's own, not torch.nn.functional's of the same name.
    """

    name: str
    args: Sequence[Any]
    kwargs: dict[str, Any]
    axis: int
    shapes: Sequence[Sequence[int]]
    output: Sequence[int]
    native: bool = False

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
        """A gradient, or a moment, of this weight: zeros where one of its tensors has none, None where all.

        What is added has the same gradient as what it is added to.
        """
        tensors = self.tensors
        values = [quantity(tensor) for tensor in tensors]
        if all(value is None for value in values):
            return None
        filled = (torch.zeros_like(t) if v is None else v for t, v in zip(tensors, values, strict=True))
        return self.view(*filled)

    @property
    def parameters(self) -> list[Tensor]:
        """What the tensors are, or are computed from, in the module."""
        return [tensor for name in (*self.names, *self.added) for tensor in _behind(self.module, name)]

    @property
    def of_added(self) -> list[Tensor]:
        """The second set of tensors, which is added to the first."""
        return [tensor for name in self.added for tensor in _behind(self.module, name)]

    @property
    def is_computed(self) -> bool:
        """Whether this is no selection of elements of parameters, but computed from them."""
        for name, tensor in zip(self.names, self.tensors, strict=True):
            if _behind(self.module, name)[0] is not tensor:
                return True
        order, tensors = self.order, self.tensors
        return order is None or not _same(_flat(tensors)[order], self.view(*tensors))

    @property
    def order(self) -> Tensor | None:
        """Which of the tensors' elements stands at each place of this weight; None where it is no order."""
        sizes = [tensor.numel() for tensor in self.tensors]
        places = torch.arange(sum(sizes)).split(sizes)
        try:
            order = self.view(*(p.view(t.shape) for p, t in zip(places, self.tensors, strict=True)))
        except RuntimeError:
            return None  # a function of floating-point numbers
        within = order.dtype == torch.int64 and 0 <= int(order.min()) <= int(order.max()) < sum(sizes)
        return order if within else None

    @torch.no_grad()
    def write(self, value: Tensor) -> None:
        """Give the tensors a value in Keras's layout: the inverse of `value`; what is added becomes zero.

        Raises ValueError where the tensors are computed from others that cannot give this value.
        """
        order, tensors = self.order, self.tensors  # once: spectral_norm's are others at every look
        flat = _flat(tensors)
        if order is None or not _same(flat[order], self.view(*tensors)):
            raise ValueError(f"{' and '.join(self.names)} are computed with before they act")
        flat[order.flatten()] = value.to(flat).flatten()
        for name, tensor, part in zip(
            self.names, tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True
        ):
            _assign(self.module, name, part.view(tensor.shape))
        for name in self.added:
            _assign(self.module, name, torch.zeros_like(attrgetter(name)(self.module)))


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same numbers, NaN among them."""
    return torch.equal(torch.nan_to_num(one), torch.nan_to_num(other))


def _behind(module: nn.Module, path: str) -> list[Tensor]:
    """What a module's tensor is computed from: itself, or what a parametrization keeps in its place."""
    owner, name = _owner(module, path)
    if parametrize.is_parametrized(owner, name):
        return list(owner.parametrizations[name].parameters())  # type: ignore[union-attr, operator]
    direction = owner._parameters.get(f"{name}_v")  # torch.nn.utils.weight_norm
    length = owner._parameters.get(f"{name}_g")
    return [getattr(owner, name)] if direction is None or length is None else [length, direction]


def _assign(module: nn.Module, path: str, value: Tensor) -> None:
    owner, name = _owner(module, path)
    behind = _behind(module, path)
    if parametrize.is_parametrized(owner, name):
        with suppress(NotImplementedError):  # it has no inverse
            setattr(owner, name, value)
    elif len(behind) == 2:
        length, direction = behind
        direction.copy_(value)
        length.copy_(value.norm(dim=[i for i, size in enumerate(length.shape) if size == 1], keepdim=True))
        return
    else:
        behind[0].copy_(value)
        return
    if not torch.allclose(getattr(owner, name), value, rtol=1e-6):
        kinds = ", ".join(type(p).__name__ for p in owner.parametrizations[name])  # type: ignore[union-attr, index]
        raise ValueError(f"its {name} is computed by {kinds}, which cannot give any value")


def _owner(module: nn.Module, path: str) -> tuple[nn.Module, str]:
    owner, _, name = path.rpartition(".")
    return module.get_submodule(owner), name


Weights = dict[str, Weight]


def _no_settings(layer: nn.Module) -> Settings:
    return {}


def _no_weights(layer: nn.Module) -> Weights:
    return {}


@dataclass(frozen=True)
class LayerType:
    """One kind of layer in Keras's words.

    kind: Keras's name, of its layer or of its activation function. classes: torch's modules of this kind;
    named: other libraries', by the names of their classes. functions: names of the functions that stand for
    it where no module does; on_parameter: of those that do so where they act on a block's own parameter.
    settings: those that change the numbers, under Keras's names and with Keras's meaning. weights: in Keras's
    names and layout, of a module or of anything with such tensors. of_call: the settings of a function's
    call. positions: the places of a function's arguments that are weights, by their names. is_layer: tells a
    call that is this layer from one that is none. merges: it acts on several layers' outputs. output: of all
    that it gives, what is compared, None for nothing. steps: of a layer that is compared by its last state,
    the whole sequence (N, T, F). before: its parts that act before what is left of it, to Keras layers of
    their own. beside: these act on the layer's own inputs. channels: the axis of the channels in its output
    where the layer says so, else None. random: it draws, in training alone. looped: all of its calls are one.
    """

    kind: str | Callable[[Any], str]
    classes: tuple[type[nn.Module], ...] = ()
    functions: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    on_parameter: tuple[str, ...] = ()
    settings: Callable[[Any], Settings] = _no_settings
    weights: Callable[[Any], Weights] = _no_weights
    of_call: Callable[[Call], Settings] = field(default=lambda call: {})
    positions: Callable[[Call], Mapping[str, int]] = field(default=lambda call: {})
    is_layer: Callable[[Call], bool] = field(default=lambda call: True)
    merges: bool = False
    output: Callable[[Any, Any], Tensor | None] = field(default=lambda layer, output: _first(output))
    steps: Callable[[Any, Any], Tensor] | None = None
    before: Callable[[Any], Mapping[str, LayerType]] = field(default=lambda layer: {})
    beside: bool = False
    channels: int | None = None
    random: bool = False
    looped: bool = False

    def name(self, layer: nn.Module | Call) -> str:
        """Keras's name of a module, or of a call, of this kind."""
        return self.kind if isinstance(self.kind, str) else self.kind(layer)


def _first(output: Any) -> Tensor:
    while isinstance(output, list | tuple):
        output = output[0]
    return output


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
