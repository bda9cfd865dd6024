"""The loss that a user's model is traced with: one for each of its outputs, added up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from experiment import randomness
from experiment.protocols.trace import FURTHER_LOSSES, LossTerm, TraceError

# Keras's losses that torch's side has as well, by the names of their classes, but for the further ones.
COMPILED = {
    "SparseCategoricalCrossentropy": "crossentropy",
    "CategoricalCrossentropy": "crossentropy",
    "BinaryCrossentropy": "binary",
    "MeanSquaredError": "mse",
    "MeanAbsoluteError": "mae",
    "Huber": "huber",
}


@dataclass(frozen=True)
class Loss:
    """A loss of one output: Keras's own, what torch's side needs to know of it, and targets."""

    function: Any
    term: LossTerm
    targets: np.ndarray
    note: str = ""


def loss_of(name: str, shape: tuple[int, ...], ending: str, seed: int, compiled: Any = None) -> Loss:
    """The loss of one output of a user's model; raises TraceError for a compiled one that torch is without.

    `auto` takes the compiled one where torch has it, too. shape: of the output, with the number of all
    samples. ending: the activation that gives it, if known.
    compiled: as the model was compiled with it.
    """
    note = ""
    if name == "auto" and compiled is not None:
        try:
            _compiled(compiled)
            name = "compiled"
        except TraceError as error:
            note = f"{str(error).removeprefix('--loss compiled: ')}; another stands in for it"
    if name == "compiled":
        function, term = _compiled(compiled)
    else:
        kind = _kind(name, shape, ending)
        from_logits = kind in ("crossentropy", "binary") and ending not in ("softmax", "sigmoid")
        term = LossTerm(kind, from_logits, stands_in=bool(note))
        function = _function(term)
    targets = randomness.targets(seed, shape, term.name)
    if term.one_hot:
        targets = np.eye(shape[-1])[targets]
    return Loss(function, term, targets, note)


def _kind(name: str, shape: Sequence[int], ending: str) -> str:
    """As asked; `auto` goes by the activation, and without one takes (N, C), C above 1, for classes."""
    if name != "auto":
        return name
    if ending == "sigmoid":
        return "binary"
    return "crossentropy" if ending == "softmax" or (len(shape) == 2 and shape[1] > 1) else "mse"


def _function(term: LossTerm) -> Any:
    if term.name == "crossentropy":
        return keras.losses.SparseCategoricalCrossentropy(from_logits=term.from_logits)
    if term.name == "binary":
        return keras.losses.BinaryCrossentropy(from_logits=term.from_logits)
    return keras.losses.MeanSquaredError()


def _compiled(compiled: Any) -> tuple[Any, LossTerm]:
    function = keras.losses.get(compiled)
    if function is None:
        raise TraceError("--loss compiled: the Keras model is not compiled with a loss")
    if not isinstance(function, keras.losses.Loss):
        classes = (getattr(keras.losses, name) for name in dir(keras.losses))
        losses = (c for c in classes if isinstance(c, type) and issubclass(c, keras.losses.Loss))
        cls = next((c for c in losses if _plain(c.__name__) == _plain(function.__name__)), None)
        function = function if cls is None else cls()
    name = COMPILED.get(type(function).__name__) or getattr(
        getattr(function, "fn", function), "__name__", type(function).__name__
    )
    settings = dict(getattr(function, "_fn_kwargs", {}))
    further = name in FURTHER_LOSSES and settings.pop("axis", None) in (None, -1)
    if name not in COMPILED.values() and not further:
        known = ", ".join((*COMPILED, *FURTHER_LOSSES))
        told = type(function).__name__ if isinstance(function, keras.losses.Loss) else name
        raise TraceError(f"--loss compiled: torch's side has no {told}; it has {known}")
    term = LossTerm(
        name,
        reduction="sum" if function.reduction == "sum" else "mean",
        one_hot=name in randomness.OF_ROWS or isinstance(function, keras.losses.CategoricalCrossentropy),
    )
    if further:
        return function, replace(term, settings=settings)
    return function, replace(
        term,
        from_logits=bool(settings.get("from_logits", False)),
        label_smoothing=float(settings.get("label_smoothing", 0.0)),
        delta=float(settings.get("delta", 1.0)),
    )


def _plain(name: str) -> str:
    return name.replace("_", "").lower()
