"""A layer as structure.json lists it: what tells it from others, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

Layer = Mapping[str, Any]
Layers = Mapping[str, Layer]


def sources(layers: Layers, name: str, known: Mapping[str, str], side: str) -> tuple[str, ...]:
    """The matched layers that a layer's inputs come from, through those without weights that are not matched.

    The model's own inputs are "". A layer with weights that is not matched resembles none.
    """
    found: set[str] = set()
    for source in layers[name].get("inputs", ()):
        if source in known:
            found.add(known[source])
        elif source in layers and not layers[source]["weights"]:
            found.update(sources(layers, source, known, side))
        else:
            found.add(f"{side} {source}" if source in layers else "")
    return tuple(sorted(found))


def itself(matched: Mapping[str, str]) -> dict[str, str]:
    """Each of Keras's matched names with itself: what `sources` takes for Keras's own layers."""
    return {name: name for name in matched.values()}


def signature(layer: Layer) -> tuple[str, tuple]:
    """A layer's kind, and the names and shapes of its weights."""
    return layer["kind"], tuple(sorted((name, tuple(shape)) for name, shape in layer["weights"].items()))


def full(layer: Layer) -> str:
    """Such as `Dense (kernel 8x4, bias 4)`."""
    shapes = (f"{name} {'x'.join(map(str, shape))}" for name, shape in layer["weights"].items())
    return f"{layer['kind']} ({', '.join(shapes) or 'no weights'})"


def listed(layers: Iterable[Layer], said: Callable[[Layer], str] = lambda layer: layer["kind"]) -> str:
    """Names, each with what is said of its layer: its kind, unless told otherwise."""
    return ", ".join(f"{layer['name']} ({said(layer)})" for layer in layers)
