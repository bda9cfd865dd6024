"""Layers that one side has as one and the other in parts: attention, and a Dense layer of several."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from experiment.protocols.trace import PARTS
from parity.traces.layers import Layer, signature

ATTENTIONS = ("MultiHeadAttention", "GroupedQueryAttention")
PACKED = re.compile(r"q_?k_?v|k_?v|query_key_value|in_proj|c_attn", re.IGNORECASE)  # what several go by


@dataclass(frozen=True)
class Apart:
    """The layers of each side to trace in parts, each with their number."""

    keras: dict[str, int] = field(default_factory=dict)
    torch: dict[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.keras or self.torch)

    def notes(self) -> list[str]:
        """A note for each side that has layers traced in parts."""
        return [
            f"compared in parts (query, key, value), as {other} has them: {side}'s {', '.join(names)}"
            for side, names, other in (("Keras", self.keras, "torch"), ("torch", self.torch, "Keras"))
            if names
        ]


def apart(keras: Iterable[Layer], torch: Iterable[Layer]) -> Apart:
    """What to trace in parts so that both sides have the same layers with weights, as far as that is known.

    Attentions are, where the two sides have not the same number of them; then a Dense layer of the query, key
    and value, or of key and value, where the other side has one for each.
    """
    sides = {"keras": [layer for layer in keras if layer["weights"]]}
    sides["torch"] = [layer for layer in torch if layer["weights"]]
    attentions = {
        side: [layer["name"] for layer in layers if layer["kind"] in ATTENTIONS]
        for side, layers in sides.items()
    }
    opened = Apart()
    if len(attentions["keras"]) != len(attentions["torch"]):
        for side, names in attentions.items():
            getattr(opened, side).update(dict.fromkeys(names, 3))
    counts = {
        side: Counter(
            part for layer in layers for part in _signatures(layer, layer["name"] in getattr(opened, side))
        )
        for side, layers in sides.items()
    }
    for side, other in (("torch", "keras"), ("keras", "torch")):
        likely = sorted(sides[side], key=lambda layer: PACKED.search(layer["name"]) is None)
        for layer in likely:
            whole = signature(layer)
            if counts[side][whole] <= counts[other][whole]:
                continue
            for parts in (3, 2):
                part = _part(layer, parts)
                if part and counts[other][part] - counts[side][part] >= parts:
                    getattr(opened, side)[layer["name"]] = parts
                    counts[side][whole] -= 1
                    counts[side][part] += parts
                    break
    return opened


def _signatures(attention: Layer, opened: bool) -> Iterator[tuple]:
    """Those of a layer, or of its projections."""
    if not opened:
        yield signature(attention)
        return
    weights = attention["weights"]
    for part in (*PARTS[3], "output"):
        kernel = weights[f"{part}_kernel"]
        inputs = kernel[:-1] if part == "output" else kernel[:1]
        shapes = {"kernel": [math.prod(inputs), math.prod(kernel[len(inputs) :])]}
        if f"{part}_bias" in weights:
            shapes["bias"] = [math.prod(weights[f"{part}_bias"])]
        yield signature({"kind": "Dense", "weights": shapes})


def _part(dense: Layer, count: int) -> tuple | None:
    """The signature of each of so many parts of a Dense layer; None for what cannot be one of several."""
    shapes = {name: list(shape) for name, shape in dense["weights"].items()}
    if dense["kind"] != "Dense" or any(shape[-1] % count for shape in shapes.values()):
        return None
    parts = {name: [*shape[:-1], shape[-1] // count] for name, shape in shapes.items()}
    return signature({"kind": "Dense", "weights": parts})
