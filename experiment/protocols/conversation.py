"""A side's tracing process that stays while a pair is compared: requests in on stdin, replies out on stdout.

One JSON object a line, each request answered by one reply. A request is `{"do": "describe"}`, `{"do":
"trace", ...}` with what Keras's side hands over, or `{"do": "rebuild"}`. Arrays and structure are written to
files; a reply is empty, or says under `error` what went wrong.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from experiment.errors import DataError, RunError
from experiment.protocols.faults import fault_of
from experiment.runs.record import Run

Arrays = dict[str, np.ndarray]


class Tracer(Protocol):
    """One side's model, and what can be asked of it."""

    def describe(self) -> tuple[dict[str, Any], Arrays]:
        """The structure, and the weights: `own/LAYER/NAME` as built, `initial/LAYER/NAME` as traced."""
        ...

    def trace(self, handover: dict[str, Any]) -> Arrays:
        """Every array of the trace. handover: `weights`, a file of the other side's, and `layers`."""
        ...

    def rebuild(self) -> Arrays:
        """The weights `own/LAYER/NAME` of a model built anew under another seed."""
        ...


def serve(build: str, open_tracer: Callable[[], Tracer], out: Path) -> int:
    """Answer requests until stdin ends; returns the exit code of the command.

    Writes out/structure.json and out/weights.npz (describe), out/arrays.npz (trace) and out/rebuilt.npz
    (rebuild). Whatever the user's code prints goes to stderr.
    """
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    sys.stdout.flush()
    os.dup2(2, 1)
    out.mkdir(parents=True, exist_ok=True)
    tracer: Tracer | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            tracer = tracer or open_tracer()
            _answer(request, tracer, out)
            reply: dict[str, str] = {}
        except (DataError, RunError) as error:
            reply = {"error": str(error)}
        except (Exception, SystemExit) as error:  # whatever a user's model raises
            reply = {"error": fault_of(error, build)}
        replies.write(json.dumps(reply) + "\n")
    replies.flush()
    sys.stderr.flush()
    os._exit(0)  # threads that a user's model left running must not hold the process


def _answer(request: dict[str, Any], tracer: Tracer, out: Path) -> None:
    if request["do"] == "describe":
        structure, weights = tracer.describe()
        np.savez(out / "weights.npz", **weights)  # type: ignore[arg-type]
        Run(out).write_json("structure.json", structure)
    elif request["do"] == "trace":
        np.savez(out / "arrays.npz", **tracer.trace(request))  # type: ignore[arg-type]
    else:
        np.savez(out / "rebuilt.npz", **tracer.rebuild())  # type: ignore[arg-type]
