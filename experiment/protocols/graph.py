"""A model as Keras's side reads it and torch's side writes source from it: graph.json and weights.npz.

Layers, their settings in Keras's words, what flows from which to which, and what the model was compiled with.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from experiment.errors import RunError
from experiment.system.files import replacing

FORMAT = 1
Arrays = dict[str, np.ndarray]


@dataclass
class Layer:
    """A layer or an operation of `keras.ops`.

    kind: Keras's class name. module: where the class stands. settings: Keras's config without names,
    initializers and regularizers. weights: shapes by name, in Keras's layout. frozen: `trainable = False`.
    penalties: regularizers by the weight that they act on, `activity` among them. graph: of a nested model.
    """

    name: str
    kind: str
    module: str = "keras"
    settings: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, list[int]] = field(default_factory=dict)
    frozen: bool = False
    penalties: dict[str, Any] = field(default_factory=dict)
    graph: Graph | None = None

    @property
    def constraints(self) -> dict[str, Any]:
        """The constraints that weights are held to, by the weight, as Keras describes them."""
        ends = "_constraint"
        return {k.removesuffix(ends): v for k, v in self.settings.items() if k.endswith(ends) and v}

    @property
    def of_keras(self) -> bool:
        """Whether Keras brings the class."""
        return self.module.split(".")[0] == "keras"


@dataclass
class Call:
    """One call of a layer.

    Tensors stand in args and kwargs as {"tensor": index}, constants as {"array": key}.
    """

    layer: str
    args: list[Any]
    kwargs: dict[str, Any]
    outputs: list[int]


@dataclass
class Tensor:
    """What flows between calls: its shape with None for what is open (the batch first), and its dtype."""

    shape: list[int | None]
    dtype: str


@dataclass
class Graph:
    """A model: its calls in the order in which a reader follows them, inputs and outputs as in Call.

    kind: Sequential or Functional; `Subclass` for a model whose Python code alone says what it computes, with
    why no graph could be read from that in `refused`.
    """

    name: str
    kind: str
    layers: dict[str, Layer] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    inputs: Any = None
    outputs: Any = None
    input_names: list[str] = field(default_factory=list)
    refused: str = ""

    def every_layer(self, path: str = "") -> Iterator[tuple[str, Layer]]:
        """Each layer that is no model, with its path through nested models."""
        for layer in self.layers.values():
            if layer.graph is not None:
                yield from layer.graph.every_layer(f"{path}{layer.name}/")
            else:
                yield f"{path}{layer.name}", layer


@dataclass
class Migration:
    """A graph with its arrays, and `training`: what the model was compiled with, or None.

    arrays: weights as `PATH/NAME` with the path of the layer through nested models, constants as `array/N`.
    source: what the user named. callbacks: Keras's, by class, with their settings.
    """

    graph: Graph
    arrays: Arrays
    source: str = ""
    training: dict[str, Any] | None = None
    callbacks: list[dict[str, Any]] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Write graph.json and weights.npz into a folder that is there or can be made."""
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "weights.npz") as path:
            np.savez(path, allow_pickle=False, **self.arrays)
        values = {
            "format": FORMAT,
            "source": self.source,
            "graph": asdict(self.graph),
            "training": self.training,
            "callbacks": self.callbacks,
        }
        with replacing(folder / "graph.json") as path:
            path.write_text(json.dumps(values, indent=1))

    @classmethod
    def read(cls, folder: Path) -> Migration:
        """Read what `write` wrote; raises RunError for another format."""
        values = json.loads((folder / "graph.json").read_text())
        if values["format"] != FORMAT:
            raise RunError(f"{folder / 'graph.json'}: of format {values['format']}, {FORMAT} was expected")
        with np.load(folder / "weights.npz") as arrays:
            return cls(
                _graph(values["graph"]),
                dict(arrays),
                values["source"],
                values["training"],
                values["callbacks"],
            )


def tensors(value: Any) -> Iterator[int]:
    """The tensors in arguments or outputs, by their indices and in their order."""
    if isinstance(value, dict):
        if "tensor" in value:
            yield value["tensor"]
        else:
            for inner in value.values():
                yield from tensors(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from tensors(inner)


def _graph(values: dict[str, Any]) -> Graph:
    layers = {name: _layer(layer) for name, layer in values["layers"].items()}
    calls = [Call(**call) for call in values["calls"]]
    return Graph(
        **{**values, "layers": layers, "calls": calls, "tensors": [Tensor(**t) for t in values["tensors"]]}
    )


def _layer(values: dict[str, Any]) -> Layer:
    return Layer(**{**values, "graph": None if values["graph"] is None else _graph(values["graph"])})
