"""A side's tracing process that stays while a pair is compared: requests in on stdin, replies out on stdout.

One JSON object a line, each answered by one. A model is built for `{"do": "describe", "request": {...},
"out": FOLDER}`; `{"do": "trace", ...}`, with what Keras's side hands over, and `{"do": "rebuild", "seed": N,
"precision": NAME}` are about the model that was built last. Arrays and structure go to files; a reply
is empty, or says under `error` what went wrong.
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

    def rebuild(self, seed: int, precision: str) -> Arrays:
        """The weights `own/LAYER/NAME` of a model built anew under a seed, in a precision."""
        ...


def serve(open_tracer: Callable[[dict[str, Any]], Tracer]) -> int:
    """Answer requests until stdin ends; returns the exit code of the command.

    open_tracer: builds the model of a request. Writes OUT/structure.json and OUT/weights.npz (describe),
    OUT/arrays.npz (trace) and OUT/rebuilt.npz (rebuild). Whatever the user's code prints goes to stderr.
    """
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    sys.stdout.flush()
    os.dup2(2, 1)
    tracer: Tracer | None = None
    build, out = "", Path()
    for line in sys.stdin:
        request, reply = json.loads(line), {}
        try:
            if request["do"] == "describe":
                build, out = request["request"]["build"], Path(request["out"])
                tracer = None  # before the next takes its place in memory
                tracer = open_tracer(request["request"])
            assert tracer is not None, "nothing has been described"
            _answer(request, tracer, out)
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
        out.mkdir(parents=True, exist_ok=True)
        np.savez(out / "weights.npz", **weights)  # type: ignore[arg-type]
        Run(out).write_json("structure.json", structure)
    elif request["do"] == "trace":
        np.savez(out / "arrays.npz", **tracer.trace(request))  # type: ignore[arg-type]
    else:
        np.savez(out / "rebuilt.npz", **tracer.rebuild(request["seed"], request["precision"]))  # type: ignore[arg-type]
