"""The vocabulary of source rules: what a Keras layer becomes in torch source.

A rule stands in its family's file: `rule(layer, call)` gives the pieces that do, one after another, what the
Keras layer does. A layer that it cannot write raises Untranslatable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from experiment.protocols.graph import Layer

BEHIND = "Keras pads the odd pixel behind"


class Untranslatable(Exception):
    """A layer has no torch source; the message says why."""


class Relaid(Exception):
    """A rule needs its inputs in the layout that the argument names, first or last."""


class Code(str):
    """A Python expression, written as it stands."""

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True)
class Value:
    """What flows: `shape` as Keras has it, None for what is open. first: torch has the channels first."""

    shape: tuple[int | None, ...]
    first: bool = False
    dtype: str = "float32"

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def channels(self) -> int:
        """Raises Untranslatable where the last axis is open."""
        if not self.shape or self.shape[-1] is None:
            raise Untranslatable(f"its input {self.shape} has an open number of features")
        return self.shape[-1]

    @property
    def space(self) -> tuple[int | None, ...]:
        """The sizes between batch and channels."""
        return self.shape[1:-1]

    def dim(self, axis: int) -> int:
        """Where torch has an axis of Keras's."""
        axis = axis % self.rank
        if not self.first or axis == 0:
            return axis
        return 1 if axis == self.rank - 1 else axis + 1


@dataclass
class CallOf:
    """One call of a layer: the values that it is given, Keras's arguments, and the shapes that it gives.

    args and kwargs: as `experiment.protocols.graph.Call` has them, tensors as Code `{0}`, `{1}`, ... into
    inputs.
    """

    inputs: list[Value]
    outputs: list[Value]
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def input(self) -> Value:
        return self.inputs[0]

    @property
    def output(self) -> Value:
        return self.outputs[0]


@dataclass
class Module:
    """A torch module, as its constructor is written.

    name: of the class, such as nn.Conv2d; without a dot it is one of `keras_semantics`. args: a key that
    begins with * is given by position. suffix: what of the Keras layer it is; "" is what holds its weights.
    part: the Keras weights' unit, where a layer counts as two. inline: how a forward writes it where it has
    no name of its own in Keras. call: how it is called, `{m}` the module.
    """

    name: str
    args: dict[str, Any] = field(default_factory=dict)
    suffix: str = ""
    comment: str = ""
    part: str | None = None
    inline: str | None = None
    call: str = ""
    frozen: bool = False
    first: bool | None = None


@dataclass
class Expression:
    """Python over `{0}`, `{1}`, ...; module: what does the same in a Sequential. first: of what it gives."""

    text: str
    module: Module | None = None
    first: bool | None = None
    comment: str = ""
    pieces: tuple[str, ...] = ()


Piece = Module | Expression
Rule = Callable[[Layer, CallOf], Sequence[Piece]]


@dataclass(frozen=True)
class SourceRule:
    """A rule with the layout that its inputs must have: first or last, of their channels, or any."""

    write: Rule
    layout: str = "any"


def even(sizes: Sequence[Any]) -> Any:
    """One number for equal ones, else a tuple."""
    return sizes[0] if all(size == sizes[0] for size in sizes) else tuple(sizes)


def pad(pairs: Sequence[Sequence[int]], suffix: str = "pad", comment: str = "", value: str = "") -> Module:
    """Padding before and after each axis of space, below zero a crop; value: a number, zero if left out."""
    flat = [amount for pair in reversed(pairs) for amount in pair]
    size = flat[0] if len(set(flat)) == 1 else tuple(flat)
    name = f"nn.{'Constant' if value else 'Zero'}Pad{len(pairs)}d"
    args = {"*padding": size, **({"value": Code(value)} if value else {})}
    return Module(name, args, suffix, comment)


def same_padding(
    space: Sequence[int | None], reach: Sequence[int], strides: Sequence[int]
) -> list[tuple[int, int]] | None:
    """What `same` adds before and after each axis, the odd pixel behind; None where a size is open."""
    pairs = []
    for size, span, stride in zip(space, reach, strides, strict=True):
        if size is None and stride > 1:
            return None
        total = span - 1 if size is None else max((-(-size // stride) - 1) * stride + span - size, 0)
        if stride == 1:
            total = span - 1
        pairs.append((total // 2, total - total // 2))
    return pairs


def channels_last(layer: Layer) -> None:
    """Raise Untranslatable for `data_format="channels_first"`."""
    if layer.settings.get("data_format") == "channels_first":
        raise Untranslatable("data_format is channels_first: build the model with channels_last")


# Keras's constraints, and the function of `keras_semantics` that holds a weight to each.
CONSTRAINTS = {
    "MaxNorm": "max_norm_",
    "MinMaxNorm": "min_max_norm_",
    "NonNeg": "non_negative_",
    "UnitNorm": "unit_norm_",
}


def constrained(layer: Layer) -> None:
    """Raise Untranslatable for a layer that has a constraint of its user's own."""
    for weight, constraint in layer.constraints.items():
        if constraint.get("kind") not in CONSTRAINTS:
            raise Untranslatable(f"its {weight}_constraint is {constraint.get('kind')}, a class of its own")


def without(defaults: dict[str, Any], **args: Any) -> dict[str, Any]:
    """The arguments that differ from torch's defaults."""
    return {name: value for name, value in args.items() if defaults.get(name, ...) != value}
