"""python -m benchmarks SUITE: what both sides take, measured in fresh processes that take turns.

Suites: train, pipeline, inference, waiting, growth, stages; `python -m benchmarks compare A.json B.json`,
and `python -m benchmarks gpu`: all that only a GPU can show, in one call.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import report
from benchmarks.collect import Samples, collect
from experiment import cli
from experiment.system import environment

SUITES = ("train", "pipeline", "inference", "waiting", "growth", "stages")
COMMANDS = ("compare", "gpu")
TURNS, QUICK_TURNS = 5, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, or 2 for a mistake of the user."""
    argv = list(sys.argv[1:] if argv is None else argv)
    name = argv[0] if argv else "--help"
    if name in COMMANDS:
        return importlib.import_module(f"benchmarks.{name}").main(argv[1:])
    if name not in SUITES:
        print(__doc__)
        return 0 if name in ("-h", "--help") else 2
    suite_of = importlib.import_module(f"benchmarks.{name}").Suite
    parser = cli.PlainParser(
        prog=f"benchmarks {name}", description=(sys.modules[suite_of.__module__].__doc__ or "").strip()
    )
    suite_of.arguments(parser)
    parser.add_argument("--quick", action="store_true", help="fewer cells, fewer and shorter measurements")
    parser.add_argument(
        "--turns", type=int, help=f"processes of each cell (default {TURNS}; --quick: {QUICK_TURNS})"
    )
    parser.add_argument("--out", type=Path, help=f"where the report goes (default runs/benchmark-{name})")
    arguments = parser.parse_args(argv[1:])
    arguments.turns = arguments.turns or (QUICK_TURNS if arguments.quick else TURNS)
    arguments.out = arguments.out or Path(f"runs/benchmark-{name}")
    if arguments.turns < 1:
        parser.error("--turns must be at least 1")

    def command() -> int:
        suite = suite_of(arguments, arguments.out)
        try:
            cells = suite.cells
            about = {"suite": name, "turns": arguments.turns, **suite.about()}
            samples = Samples(arguments.out / "samples.jsonl", about)
            measured = collect(cells, arguments.turns, samples, suite.measure)
        finally:
            suite.close()
        facts = environment.environment("both", "cpu", 0, 0, {})
        values = {
            **about,
            **suite.facts(),
            "command": ["python", "-m", "benchmarks", *argv],
            "environment": facts,
        }
        print(report.write(arguments.out, suite, {**values, "cells": measured}))
        samples.path.unlink()  # all of it is in the report
        return 0

    return cli.guarded(command)


if __name__ == "__main__":
    sys.exit(main())
