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
    input_shape: Sequence[int] | Sequence[Sequence[int]] | None = None,
    inputs: np.ndarray | Mapping[str, np.ndarray] | None = None,
    loss: str = "auto",
    steps: int = 8,
    learning_rate: float = 1e-3,
    map: Mapping[str, str] | None = None,
    device: str = "cpu",
    backends: Sequence[str] = (),
    class_weights: Sequence[float] = (),
    sample_weights: bool = False,
) -> Verdict:
    """Assert that a Keras model and a torch module are the same, and return the verdict.

    Both are built and traced in processes of their own, so neither framework is imported here.

    keras, torch: `package.module:function`, or the function itself where it can be imported by its name; for
    Keras also a .keras file. input_shape: of the input, channels last, or one of each input; or inputs: the
    inputs themselves, batch first, by name where there are several. map: torch's layers to Keras's, where
    names and order leave a choice. backends: Keras's, to be compared in float32 as well. class_weights: of
    the classes in Keras's loss, as its fit takes them. sample_weights: weigh samples by drawn numbers.

    Raises AssertionError, with cause, evidence and what would mend it, where the two differ, and ValueError
    where they cannot be compared.
    """
    if inputs is None:
        if input_shape is None:
            raise ValueError("give input_shape, such as (32, 32, 3), or inputs")
        shapes = [input_shape] if all(isinstance(size, int) for size in input_shape) else input_shape
        arrays = made.drawn(shapes, steps)  # type: ignore[arg-type]
    else:
        arrays = made.named([inputs]) if isinstance(inputs, np.ndarray) else dict(inputs)
    with tempfile.TemporaryDirectory(prefix="parity-") as folder:
        path = Path(folder) / "inputs.npz"
        np.savez(path, **arrays)  # type: ignore[arg-type]
        options = {
            "inputs_file": str(path),
            "drawn": inputs is None,
            "steps": steps,
            "loss_name": loss,
            "class_weights": list(class_weights),
            "sample_weights": sample_weights,
        }
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
