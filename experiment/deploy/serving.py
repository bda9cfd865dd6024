"""What `serve` does, the same on both sides: a model in a process of its own that classifies on request.

Requests come as lines of JSON on stdin, answers go as lines of JSON to stdout:
{"images": FILE.npy, "batch": B, "out": FILE.npy}    -> {}, and all images' probabilities are in FILE
{"images": FILE.npy, "batch": B, "repeat": SECONDS}  -> {"calls": [S, S, ...]}: the first batch, repeated
An error is answered with {"error": message}; the process ends when its stdin does.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from experiment.cli import Framework, PlainParser
from experiment.deploy.export import deployable
from experiment.deploy.prediction import SUFFIXES, Classify, Exported, Predictor, in_batches, open_model
from experiment.system import devices

WARM_UP = 3  # calls that are not timed


def parse(framework: Framework, argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line of `python -m <framework>_impl.serve`; exits with 2 on a mistake."""
    parser = PlainParser(
        prog=f"{framework}_impl.serve",
        description="Classify for another process: requests on stdin, answers on stdout, as lines of JSON.",
    )
    suffix = SUFFIXES[framework]
    parser.add_argument("model", type=Path, metavar="MODEL", help=f"a finished run, or an exported {suffix}")
    parser.add_argument(
        "--threads", type=int, default=devices.count_cores(), help="default: one for each core"
    )
    parser.add_argument(
        "--plain", action="store_true", help="an exported file without its runtime's shortcuts"
    )
    return parser.parse_args(argv)


def main(
    arguments: argparse.Namespace,
    framework: Framework,
    predictor: Predictor,
    load: Callable[[Path, int, bool], Exported],
) -> int:
    """Answer requests until stdin ends; returns 0. Raises RunError for a model that cannot be opened."""
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for variable in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ[variable] = str(arguments.threads)
    model = open_model(
        arguments.model,
        framework,
        lambda trained: predictor(deployable(trained)),
        lambda path: load(path, arguments.threads, arguments.plain),
    )

    def answer(values: dict[str, Any]) -> None:
        print(json.dumps(values), file=answers, flush=True)

    reading = asdict(model.reading)
    answer({"class_names": model.class_names, "image_size": model.image_size, "reading": reading})
    for line in sys.stdin:
        try:
            answer(_answer(json.loads(line), model.predict))
        except Exception as error:  # of a runtime, on a request; the next may be in order
            answer({"error": f"{type(error).__name__}: {error}"})
    return 0


def _answer(request: dict[str, Any], classify: Classify) -> dict[str, Any]:
    images, size = np.load(request["images"]), request["batch"]
    if "repeat" not in request:
        np.save(request["out"], in_batches(classify, images, size))
        return {}
    batch = np.ascontiguousarray(images[:size])
    for _ in range(WARM_UP):
        classify(batch)
    calls, end = [], time.perf_counter() + request["repeat"]
    while not calls or time.perf_counter() < end:
        started = time.perf_counter()
        classify(batch)
        calls.append(time.perf_counter() - started)
    return {"calls": calls}
