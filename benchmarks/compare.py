"""python -m benchmarks compare A.json B.json: two reports of one suite, cell by cell, as ratios."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import stats
from benchmarks.collect import Cell
from experiment import cli
from experiment.errors import ConfigError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = cli.PlainParser(prog="benchmarks compare", description="B against A, cell by cell.")
    parser.add_argument("a", type=Path, metavar="A.json", help="results.json of a report")
    parser.add_argument("b", type=Path, metavar="B.json", help="results.json of another, of the same suite")
    arguments = parser.parse_args(argv)
    with cli.refusing():
        one, other = read(arguments.a), read(arguments.b)
    if one["suite"] != other["suite"]:
        cli.fail(f"{arguments.a} is of suite {one['suite']}, {arguments.b} of {other['suite']}")
    rows = compare(one, other)
    if not rows:
        cli.fail(f"{arguments.a} and {arguments.b} have no cell in common")
    table = Table("cell", "A", "B", "B / A", "95 % interval", "")
    for name, medians, (ratio, low, high) in rows:
        verdict = "no difference shown" if low <= 1 <= high else "B is more" if ratio > 1 else "B is less"
        table.add_row(
            name, *(f"{m:.4g}" for m in medians), f"{ratio:.3f}", f"{low:.3f} to {high:.3f}", verdict
        )
    Console().print(table)
    return 0


def read(path: Path) -> dict[str, Any]:
    """A report's values; raises ConfigError where the file is none."""
    try:
        values = json.loads(path.read_text())
        _ = values["suite"], values["cells"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: cannot be read as the results.json of a benchmark ({error})") from error
    return values


def compare(
    one: dict[str, Any], other: dict[str, Any]
) -> list[tuple[str, list[float], tuple[float, float, float]]]:
    """(cell, both medians, (ratio, low, high)) of every cell that both reports have."""
    suite = importlib.import_module(f"benchmarks.{one['suite']}").Suite
    found = []
    numbers = [
        {
            Cell(cell["name"], cell["setting"]).key: [suite.value(sample) for sample in cell["samples"]]
            for cell in report["cells"]
        }
        for report in (one, other)
    ]
    for key, first in numbers[0].items():
        if second := numbers[1].get(key):
            medians = [stats.spread(first)[0], stats.spread(second)[0]]
            found.append((str(Cell(*json.loads(key))), medians, stats.ratio(second, first)))
    return found
