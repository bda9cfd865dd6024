"""A layer as structure.json lists it: what tells it from others, and what is said of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

ROLE = re.compile(
    r"(?:(?:to|w|lin|linear|fc|dense|proj)_?)?(q|k|v)(?:ueries|uery|eys|ey|alues|alue|al)?(?:_.*|\d*)",
    re.IGNORECASE,
)
Layer = Mapping[str, Any]
Layers = Mapping[str, Layer]


def sources(
    layers: Layers, name: str, known: Mapping[str, str], side: str, passed: set[str] | None = None
) -> tuple[str, ...]:
    """The matched layers that a layer's inputs come from, through those without weights that are not matched.

    The model's own inputs are "". A layer with weights that is not matched resembles none. passed: layers
    that were passed through already.
    """
    found: set[str] = set()
    passed = set() if passed is None else passed
    for source in layers[name].get("inputs", ()):
        if source in known:
            found.add(known[source])
        elif source in layers and not layers[source]["weights"]:
            if source not in passed:  # a chain of sums reaches each by many ways
                passed.add(source)
                found.update(sources(layers, source, known, side, passed))
        else:
            found.add(f"{side} {source}" if source in layers else "")
    return tuple(sorted(found))


def pooled(layers: Layers, name: str) -> tuple[str, ...]:
    """The kinds of pooling that stand between a layer and those with weights before it."""
    kinds, passed, waiting = set(), set(), list(layers[name].get("inputs", ()))
    while waiting:
        source = waiting.pop()
        if source in layers and source not in passed and not layers[source]["weights"]:
            passed.add(source)
            waiting += layers[source].get("inputs", ())
            if "Pooling" in layers[source]["kind"]:
                kinds.add(layers[source]["kind"])
    return tuple(sorted(kinds))


def activations(layers: Layers) -> dict[str, tuple[str, ...]]:
    """The activations that take each layer's output, by the layer's name; none where there is none."""
    found: dict[str, list[str]] = {}
    for layer in layers.values():
        if layer["kind"][0].islower():
            for source in layer.get("inputs", ()):
                found.setdefault(source, []).append(layer["kind"])
    return {name: tuple(sorted(kinds)) for name, kinds in found.items()}


def itself(matched: Mapping[str, str]) -> dict[str, str]:
    """Each of Keras's matched names with itself: what `sources` takes for Keras's own layers."""
    return {name: name for name in matched.values()}


def signature(layer: Layer) -> tuple[str, tuple]:
    """A layer's kind, and the names and shapes of its weights; a convolution of single pixels is a Dense."""
    kind = "Dense" if _of_single_pixels(layer) else layer["kind"]
    shapes = layer["weights"].items()
    if kind == "Dense":
        shapes = ((name, shape[-2:] if name == "kernel" else shape) for name, shape in shapes)
    return kind, tuple(sorted((name, tuple(shape)) for name, shape in shapes))


def is_pixelwise(layer: Layer) -> bool:
    """Whether a layer is a convolution that takes each pixel by itself, as a Dense layer does."""
    settings = layer.get("settings", {})
    return (
        _of_single_pixels(layer)
        and all(size == 1 for size in settings.get("strides", ()))
        and not any(map(any, settings.get("padding", ())))
    )


def _of_single_pixels(layer: Layer) -> bool:
    """Whether a layer's weights are those of a Dense one. Its strides may be others than its counterpart's:
    which is whose must not hang on them.
    """
    kernel, groups = layer["weights"].get("kernel", ()), layer.get("settings", {}).get("groups", 1)
    return layer["kind"] in ("Conv1D", "Conv2D", "Conv3D") and {*kernel[:-2], groups} == {1}


def without_ones(shape: Iterable[int] | None) -> tuple[int, ...] | None:
    """A shape without its axes of one element, which one side may keep and the other leave out."""
    return None if shape is None else tuple(size for size in shape if size != 1)


def full(layer: Layer) -> str:
    """Such as `Dense (kernel 8x4, bias 4)`."""
    shapes = (f"{name} {size(shape)}" for name, shape in layer["weights"].items())
    return f"{layer['kind']} ({', '.join(shapes) or 'no weights'})"


def by_roles(layers: Iterable[Layer]) -> list[Layer]:
    """The layers in their order, but of an attention query before key before value, by their names."""
    ordered = list(layers)
    weighted = [place for place, layer in enumerate(ordered) if layer["weights"]]
    for places in zip(weighted, weighted[1:], weighted[2:], strict=False):
        three = [ordered[place] for place in places]
        roles = ["qkv".find(_role(layer["name"])) for layer in three]
        if sorted(roles) == [0, 1, 2] and len({layer["name"].rpartition(".")[0] for layer in three}) == 1:
            for place, role in zip(places, range(3), strict=True):
                ordered[place] = three[roles.index(role)]
    return ordered


def _role(name: str) -> str:
    """q, k or v of a projection of an attention, such as `attn.to_q` and `key_proj`; `none` of any other."""
    found = ROLE.fullmatch(re.split(r"[./]", name)[-1])
    return found[1].lower() if found else "none"


def size(shape: Iterable[int]) -> str:
    """A shape as in `3x3x4x8`."""
    return "x".join(map(str, shape))


def listed(layers: Iterable[Layer], said: Callable[[Layer], str] = lambda layer: layer["kind"]) -> str:
    """Names, each with what is said of its layer: its kind, unless told otherwise."""
    return ", ".join(f"{layer['name']} ({said(layer)})" for layer in layers)
