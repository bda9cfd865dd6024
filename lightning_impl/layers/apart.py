"""Modules that are traced in parts, where the other side has a layer for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from experiment.protocols.trace import PARTS
from lightning_impl.layers import registry
from lightning_impl.layers.layer_type import LayerType, Weight, Weights


def take_apart(modules: Iterable[tuple[nn.Module, int]]) -> None:
    """Let `layer_type` see an attention as its projections, and a Linear of several parts as so many.

    modules: each with its number of parts. The last part goes by the module's own name.
    """
    for module, count in modules:
        whole = registry.layer_type(module)
        assert whole is not None
        attention = whole.name(module) == "MultiHeadAttention"
        registry.APART[module] = _projections(whole) if attention else _in_parts(whole, count)


def _projections(attention: LayerType) -> LayerType:
    """Query, key and value before, and what is left is the output."""

    def part(name: str) -> LayerType:
        def weights(layer: Any) -> Weights:
            found = attention.weights(layer)
            return {
                weight: _flat(found[f"{name}_{weight}"], name == "output")
                for weight in ("kernel", "bias")
                if f"{name}_{weight}" in found
            }

        return LayerType("Dense", weights=weights, channels=-1, random=True)

    parts = {name: part(name) for name in PARTS[3]}
    dropout = {"dropout": LayerType("Dropout", settings=lambda layer: {"rate": layer.dropout})}
    return replace(
        part("output"), before=lambda layer: parts | (dropout if layer.dropout else {}), beside=True
    )


def _flat(weight: Weight, output: bool) -> Weight:
    """Without an axis for the heads: (features, heads * dim), of the output (heads * dim, features)."""

    def view(*tensors: Tensor) -> Tensor:
        value = weight.view(*tensors)
        if output or value.dim() < 2:
            return value.flatten(0, -2) if value.dim() > 2 else value
        return value.flatten(1) if value.dim() > 2 else value.flatten()

    return replace(weight, view=view)


def _in_parts(dense: LayerType, count: int) -> LayerType:
    def part(place: int) -> LayerType:
        def weights(layer: Any) -> Weights:
            return {
                name: replace(weight, view=partial(_slice, weight.view, place, count))
                for name, weight in dense.weights(layer).items()
            }

        return replace(dense, weights=weights)

    *before, _ = PARTS[count]
    return replace(
        part(count - 1),
        output=lambda layer, output: output.chunk(count, -1)[-1],
        before=lambda layer: {name: part(place) for place, name in enumerate(before)},
        beside=True,
    )


def _slice(view: Callable[..., Tensor], place: int, count: int, *tensors: Tensor) -> Tensor:
    return view(*tensors).chunk(count, -1)[place]
