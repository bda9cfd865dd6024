"""The proof of a pair as one function, for a user's own test."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from parity.foreign import inputs as made
from parity.foreign.prove import Request, prove
from parity.foreign.verdict import Verdict, text
from parity.ladder.climb import Findings

Builder = str | Callable[[], Any]


def assert_same(
    keras: Builder,
    torch: Builder,
    *,
    input_shape: Sequence[int] | None = None,
    inputs: np.ndarray | None = None,
    loss: str = "auto",
    steps: int = 8,
    learning_rate: float = 1e-3,
    map: Mapping[str, str] | None = None,
    device: str = "cpu",
    backends: Sequence[str] = (),
) -> Verdict:
    """Assert that a Keras model and a torch module are the same, and return the verdict.

    Both are built and traced in processes of their own, so neither framework is imported here.

    keras, torch: `package.module:function`, or the function itself where it can be imported by its name;
    for Keras also a .keras file. input_shape: of one input, channels last; or inputs: the inputs
    themselves, batch first. map: torch's layers to Keras's, where names and order leave a choice. backends:
    Keras's, to be compared in float32 as well.

    Raises AssertionError, with cause, evidence and what would mend it, where the two differ, and ValueError
    where they cannot be compared.
    """
    if inputs is None:
        if input_shape is None:
            raise ValueError("give input_shape, such as (32, 32, 3), or inputs")
        inputs = made.drawn(input_shape, steps)
    with tempfile.TemporaryDirectory(prefix="parity-") as folder:
        path = Path(folder) / "inputs.npy"
        np.save(path, inputs)
        options = {"inputs_file": str(path), "steps": steps, "loss_name": loss}
        request = Request(name(keras), name(torch), options, learning_rate, map or {}, device, backends)
        verdict = prove(request, Path(folder), Findings())
    if verdict.refused is not None:
        raise ValueError(verdict.refused)
    if verdict.status != "passed":
        raise AssertionError("\n".join(text(verdict)))
    return verdict


def name(builder: Builder) -> str:
    """The name by which another process can import a builder; raises ValueError where there is none."""
    if isinstance(builder, str):
        return builder
    function = getattr(builder, "__qualname__", "")
    if not function.isidentifier() or builder.__module__ == "__main__":
        raise ValueError(f"{builder!r} cannot be imported by a name: move it to the top of a module")
    return f"{builder.__module__}:{function}"
