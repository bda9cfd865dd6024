"""What the two sides' traces hold, and whose layer is whose."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from experiment.config import Experiment
from parity.traces.layers import is_pixelwise, itself, signature, sources, without_ones
from parity.traces.matching import Matching, check_covered, match

MODES = ("eval", "train")  # what layers give, by the modes of the model


class Trace:
    """What one side's `trace` command wrote; arrays are read when they are asked for."""

    def __init__(self, folder: Path) -> None:
        structure = json.loads((folder / "structure.json").read_text())
        self.layers: list[dict[str, Any]] = structure["layers"]
        self.parameters: dict[str, int] = structure["parameters"]
        self.unused: list[str] = structure["unused"]
        self.uncovered: list[dict[str, Any]] = structure.get("uncovered", [])
        self._optimizer: dict[str, Any] = structure.get("optimizer", {})
        self.penalties: dict[str, dict[str, Any]] = structure.get("penalties", {})
        self.losses: list[dict[str, Any]] = structure.get("losses", [])
        self.endings: list[str] = structure.get("endings", [])
        self._notes: list[str] = structure.get("notes", [])
        self._folder = folder
        self.calls: dict[str, str] = {}
        self._stored: dict[str, str] = {}

    @property
    def notes(self) -> list[str]:
        """How the model was traced, where a reader must know."""
        return list(dict.fromkeys([*self._notes, *self.get("notes").tolist()]))

    @property
    def optimizer(self) -> dict[str, Any]:
        """Its facts, of the one that the steps were taken with."""
        used = self.get("optimizer")
        return json.loads(str(used)) if used.size else self._optimizer

    def renumber(self, calls: Mapping[str, str]) -> None:
        """Let each call of a layer that is called several times have the other name that `calls` gives it."""
        held = {layer["name"]: (layer["inputs"], layer["shape"]) for layer in self.layers}
        known = {new: old for old, new in calls.items()}
        for layer in self.layers:
            inputs, layer["shape"] = held[known.get(layer["name"], layer["name"])]
            layer["inputs"] = [calls.get(name, name) for name in inputs]
        self.calls = dict(calls)
        self._stored = {f"{mode}/{new}": f"{mode}/{old}" for old, new in calls.items() for mode in MODES}

    @cached_property
    def _arrays(self) -> Any:
        return np.load(self._folder / "arrays.npz")

    @cached_property
    def keys(self) -> list[str]:
        return list(self._arrays.files)

    def __getitem__(self, key: str) -> np.ndarray:
        return self._arrays[self._stored.get(key, key)]

    def __contains__(self, key: str) -> bool:
        return key in self._arrays

    def get(self, key: str) -> np.ndarray:
        """The array, or an empty one."""
        return self[key] if key in self else np.empty(0)

    def latest(self, key: str) -> np.ndarray:
        """As `get`; a weight that a stage did not change is as it was at first."""
        stage, _, rest = key.partition("/")
        unchanged = stage in ("step", "final") and key not in self
        return self.get(f"initial/{rest}" if unchanged else key)

    @cached_property
    def by_name(self) -> dict[str, dict[str, Any]]:
        return {layer["name"]: layer for layer in self.layers}

    def layer(self, name: str) -> dict[str, Any]:
        return self.by_name[name]

    def under(self, prefix: str) -> dict[str, np.ndarray]:
        """Every array `prefix/...`, by the rest of its name."""
        return {k.removeprefix(f"{prefix}/"): self[k] for k in self.keys if k.startswith(f"{prefix}/")}


@dataclass
class Pair:
    """Two traces and whose layer is whose: `names` leads from Keras's layers to torch's, in their order."""

    keras: Trace
    torch: Trace
    matching: Matching
    experiment: Experiment
    foreign: bool = False  # a user's models, not this project's
    again: Callable[[], Trace | None] | None = None  # runs Keras's side with weights off by 1e-14

    @classmethod
    def of(
        cls, keras: Path, torch: Path, experiment: Experiment, given: dict[str, str] | None = None
    ) -> Pair:
        """Read two traces and match their layers; raises MatchError where that would be guessing."""
        one, other = Trace(keras), Trace(torch)
        check_covered(one.uncovered, other.uncovered)
        return cls(one, other, match(one.layers, other.layers, given or {}), experiment)

    def __post_init__(self) -> None:
        """Say of torch's layers what Keras's are where the two mean the same: a Dense layer is a convolution
        of single pixels, a Reshape may flatten, and an axis of one element may be left out.
        """
        for keras_name, torch_name in self.names.items():
            keras, torch = self.keras.layer(keras_name), self.torch.layer(torch_name)
            same = signature(keras) == signature(torch) and keras["kind"] != torch["kind"]
            if same and all(layer["kind"] == "Dense" or is_pixelwise(layer) for layer in (keras, torch)):
                torch.update(kind=keras["kind"], weights=keras["weights"], settings={})
            if keras["shape"] and without_ones(keras["shape"]) == without_ones(torch["shape"]):
                torch["shape"] = keras["shape"]
                if {keras["kind"], torch["kind"]} == {"Flatten", "Reshape"}:
                    torch.update(kind=keras["kind"], settings=keras["settings"])

    @property
    def precision(self) -> str:
        return self.experiment.training.precision

    @cached_property
    def names(self) -> dict[str, str]:
        both = {**self.matching.weighted, **self.matching.plain}
        turned = {keras: torch for torch, keras in both.items()}
        return {
            layer["name"]: turned[layer["name"]] for layer in self.keras.layers if layer["name"] in turned
        }

    @cached_property
    def nudged(self) -> Trace | None:
        """Keras's side traced `again`."""
        return None if self.again is None else self.again()

    @property
    def notes(self) -> list[str]:
        """Notes of both sides on how their models were traced."""
        return list(dict.fromkeys([*self.keras.notes, *self.torch.notes]))

    def flattened_shapes(self) -> dict[str, tuple[int, ...]]:
        """Of each of Keras's layers that acts on flattened images, their shape before."""
        shapes = {}
        for layer in self.keras.layers:
            for source in layer["inputs"]:
                flatten = self.keras.by_name.get(source)
                if flatten is None or flatten["kind"] != "Flatten":
                    continue
                before = [self.keras.by_name[name]["shape"] for name in flatten["inputs"] if name]
                if before and before[0] is not None:
                    shapes[layer["name"]] = tuple(before[0])
        return shapes

    @property
    def before_weights(self) -> list[str]:
        """Keras's names of the matched layers that come before the first with weights."""
        return list(takewhile(lambda name: not self.weights(name), self.names))

    def both(self, stage: str, layer: str, weight: str = "") -> tuple[np.ndarray, np.ndarray] | None:
        """One array of both sides, by Keras's name of the layer; empty where one has none, None if both."""
        tail = f"/{weight}" if weight else ""
        keys = f"{stage}/{layer}{tail}", f"{stage}/{self.names[layer]}{tail}"
        if keys[0] not in self.keras and keys[1] not in self.torch:
            return None
        if stage in ("step", "final"):  # what did not change is kept as `initial` alone
            keys = _changed(self.keras, keys[0]), _changed(self.torch, keys[1])
        torch_layer = self.torch.layer(self.names[layer])
        if weight in torch_layer.get("computed", ()) and keys[1] not in self.torch:
            return None  # torch keeps its gradient, or its moments, of what it is computed from
        if not weight and None in (self.keras.layer(layer)["shape"], torch_layer["shape"]):
            return None  # seen on one side alone
        # What only one side has differs in shape, and so is infinitely far.
        keras, torch = self.keras.latest(keys[0]), self.torch.latest(keys[1])
        return keras, torch.reshape(keras.shape) if self.alike(keras, torch) else torch

    @staticmethod
    def alike(keras: np.ndarray, torch: np.ndarray) -> bool:
        """Whether two arrays have one shape but for axes of one element."""
        return keras.size > 0 and without_ones(keras.shape) == without_ones(torch.shape)

    def other_inputs(self, layer: str) -> list[str]:
        """What a layer takes its inputs from, in words, where that is another layer on the other side."""
        known = {torch: keras for keras, torch in self.names.items()}
        # Two concatenations, or two sums, may be one of all their parts.
        parts = {t: k for t, k in known.items() if self.keras.layer(k)["kind"] not in ("Concatenate", "Add")}
        for names in (known, parts):
            theirs = sources(self.keras.by_name, layer, itself(names), "Keras")
            ours = sources(self.torch.by_name, self.names[layer], names, "torch")
            # "" stands for the model's inputs, and for what left no trace: x + y in a layer's own code.
            if ours == theirs or "" in (*ours, *theirs):
                return []
        return [f"takes its input from {', '.join(ours)} for Keras's {', '.join(theirs)}"]

    def alone_before(self, layer: str) -> tuple[list[str], list[str]]:
        """Keras's and torch's layers without a counterpart that lie right before a matched one."""
        found: tuple[list[str], list[str]] = ([], [])
        sides = (
            (self.keras, layer, self.matching.unmatched_keras),
            (self.torch, self.names[layer], self.matching.unmatched_torch),
        )
        for place, (trace, name, alone) in enumerate(sides):
            waiting = list(trace.layer(name)["inputs"])
            while waiting:
                source = waiting.pop()
                if source in alone and source not in found[place]:
                    found[place].append(source)
                    waiting += trace.layer(source)["inputs"]
        return found

    def weights(self, layer: str) -> Iterable[str]:
        return self.keras.layer(layer)["weights"]


def _changed(trace: Trace, key: str) -> str:
    return key if key in trace else f"initial/{key.split('/', 1)[1]}"
