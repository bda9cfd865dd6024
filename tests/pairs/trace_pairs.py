"""python -m pairs.trace_pairs SIDE REQUESTS.json: traces many pairs in one process a side.

Keras's side goes first; torch's then reads what Keras's wrote. REQUESTS.json lists pairs: `name` of the two
builders, the two modules, `folder`, `options` of the trace's request. What a pair raises is written to its
folder, in place of a trace.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from experiment import cli
from experiment.errors import RunError
from experiment.protocols.faults import fault_of
from experiment.protocols.trace import Request
from experiment.runs.record import Run
from parity.traces.matching import MatchError
from parity.traces.pair import Pair

EXPERIMENT = {"training": {"precision": "float64", "learning_rate": 1e-3}}


def main(side: str, file: str) -> None:
    """Trace one side of every pair."""
    room = "keras_impl" if side == "keras" else "lightning_impl"
    command = import_module(f"{room}.trace.command")
    for pair in json.loads(Path(file).read_text()):
        out = Path(pair["folder"]) / side
        out.mkdir(parents=True, exist_ok=True)
        try:
            trace(side, command, pair, out)
        except (RunError, MatchError) as error:
            (out / "refused.txt").write_text(str(error))
        except Exception as error:  # as a trace command tells it
            (out / "refused.txt").write_text(f"unexpected: {fault_of(error, pair['name'])}")


def trace(side: str, command: Any, pair: dict[str, Any], out: Path) -> None:
    """Trace one side of a pair; torch's with the weights of Keras's."""
    request = Request(
        experiment=cli.experiment_from(EXPERIMENT), build=f"{pair[side]}:{pair['name']}", **pair["options"]
    )
    tracer = command.Tracer(request)
    structure, weights = tracer.describe()
    np.savez(out / "weights.npz", **weights)
    Run(out).write_json("structure.json", structure)
    handover = {}
    if side == "torch":
        keras = out.with_name("keras")
        if (keras / "refused.txt").exists():
            return
        matching = Pair.of(keras, out, request.experiment, pair.get("map", {})).matching
        handover = {"weights": str(keras / "weights.npz"), "layers": matching.weighted}
    np.savez(out / "arrays.npz", **tracer.trace(handover))


if __name__ == "__main__":
    main(*sys.argv[1:])
