"""python -m experiment runs [RUN or FOLDER]...: list runs in a table, or compare some side by
side."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from experiment import cli
from experiment.errors import RunError
from experiment.evaluation import figures
from experiment.runs.record import Run, step_losses
from experiment.tracking import page
from experiment.tracking.mlflow import settings

# The columns of the list, beside the keys that are filtered or sorted by.
COLUMNS = ("framework", "data", "model.name", "status", "epochs", "val_accuracy", "test_accuracy", "macro_f1")
COMPARED = ("framework", "data", "parameters", "trainable", "status", "best_epoch", "epochs", "val_accuracy")
RESULTS = ("test_accuracy", "test_loss", "macro_f1", "ece", "seconds")
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = cli.PlainParser(
        prog="experiment runs",
        description="List the runs below folders, or compare runs side by side: results, and how their "
        "configurations differ.",
    )
    parser.add_argument(
        "paths", type=Path, nargs="*", metavar="RUN|FOLDER", help="runs, or folders of them (default runs/)"
    )
    parser.add_argument(
        "--filter",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="list runs of which this holds (=, !=, <, <=, >, >=); more than one: all of them",
    )
    parser.add_argument("--sort", metavar="KEY", help="list by this key, lowest first; -KEY: highest first")
    parser.add_argument("--figure", type=Path, help="draw the learning curves together into this PNG")
    parser.add_argument(
        "--page", type=Path, help="write the comparison, with every figure, as this HTML file"
    )
    argv = list(sys.argv[1:] if argv is None else argv)
    for place, one in enumerate(argv[:-1]):
        if one == "--sort":  # its key may begin with a minus, which argparse would take for an option
            argv[place : place + 2] = [f"--sort={argv[place + 1]}"]
            break
    given = parser.parse_args(argv)
    return cli.guarded(lambda: _main(given.paths, given.filter, given.sort, given.figure, given.page))


def _main(
    paths: Sequence[Path],
    filters: Sequence[str],
    sort: str | None,
    figure: Path | None,
    to: Path | None,
) -> int:
    runs = find(paths or [Path("runs")])
    known = {run.directory: listing(run) for run in runs}
    damaged = any("damage" in one for one in known.values())
    if not paths or filters or sort or damaged or not all(map(_is_run, paths)):
        runs = chosen(runs, known, filters, sort)
        print(_table(_rows(runs, known, filters, sort)))
        for run in runs:
            if "damage" in known[run.directory]:
                print(f"damaged: {known[run.directory]['damage']}", file=sys.stderr)
        runs = [run for run in runs if "damage" not in known[run.directory]]
    else:
        for run in runs:
            if not run.finished:
                raise RunError(f"{run.directory}: not a finished run (no metrics.json)")
        print(table([known[run.directory] for run in runs], [run.directory.name for run in runs]))
        if len(runs) > 1:
            print(f"\n{difference(runs, known)}")
        print("\nfigures")
        for run in runs:
            for name in ("samples.png", "curves.png", "confusion.png", "calibration.png"):
                print(f"  {run.directory / name}")
    if figure is not None:
        draw(figure, [run for run in runs if run.history()])
        print(f"  {figure}")
        if len(losses := _steps(runs)) == 2:
            beside = figure.with_stem(f"{figure.stem}_steps")
            figures.step_by_step(beside, losses, "two runs, step by step")
            print(f"  {beside}")
    if to is not None:
        runs = [run for run in runs if run.finished]
        print(f"  {write_page(to, runs, known, figure)}")
    return 0


def write_page(path: Path, runs: Sequence[Run], known: Mapping[Path, Any], curves: Path | None) -> Path:
    """Write the comparison of finished runs as a page; returns its path. Raises RunError.

    known: as in `chosen`. curves: a figure of all, if there is one.
    """
    if not runs:
        raise RunError(f"--page {path}: no run is finished")
    facts = [known[run.directory] for run in runs]
    results = [
        [key.replace("_", " "), *(_text(one.get(key), key) for one in facts)] for key in COMPARED + RESULTS
    ]
    try:
        return page.compare(path, runs, results, _differing(runs, known), curves)
    except OSError as error:
        raise RunError(f"--page {path}: cannot be written ({error.strerror})") from error


def _steps(runs: Sequence[Run]) -> dict[str, np.ndarray]:
    """The losses of the steps of two runs that recorded as many; else nothing."""
    recorded = [run for run in runs if (run.directory / "steps.csv").is_file()]
    losses = {run.directory.name: step_losses(run) for run in recorded} if len(runs) == 2 else {}
    return losses if len({values.shape for values in losses.values()}) == 1 else {}


def find(paths: Sequence[Path]) -> list[Run]:
    """The runs that are named, and those below the folders that are; raises RunError where there is none."""
    found: list[Run] = []
    for path in paths:
        if not path.is_dir():
            raise RunError(f"{path}: no such run or folder")
        below = [path] if _is_run(path) else sorted(file.parent for file in path.rglob("config.yaml"))
        found += [Run(directory) for directory in below if _is_run(directory)]
    if not found:
        raise RunError(f"no run in {', '.join(map(str, paths))}")
    return found


def _is_run(path: Path) -> bool:
    return (path / "config.yaml").is_file() and (path / "checkpoints").is_dir()


def facts(run: Run) -> dict[str, Any]:
    """The values that a run is filtered and sorted by: its results, and its settings by dotted key."""
    found: dict[str, Any] = {
        "status": "unfinished",
        **settings(cli.read_config(run.directory / "config.yaml")),
    }
    history = run.history()
    if (run.directory / "environment.json").is_file():
        environment = run.read_json("environment.json")
        found |= {"framework": environment["framework"], "data": environment["data"]["name"]}
    if history:
        best = max(row["val_accuracy"] for row in history)
        found |= {"epochs": len(history), "val_accuracy": best, "seconds": sum(r["seconds"] for r in history)}
    if run.finished:
        metrics = run.read_json("metrics.json")
        found["status"] = metrics["status"]
        found |= {key: metrics[key] for key in ("best_epoch", *RESULTS) if key in metrics}
        found |= {
            "parameters": metrics["parameters"]["total"],
            "trainable": metrics["parameters"]["trainable"],
        }
        found["ece"] = metrics.get("calibration", {}).get("ece")
    return found


def listing(run: Run) -> dict[str, Any]:
    """The facts of a run; of one that cannot be read, that it is damaged and how."""
    try:
        return facts(run)
    except RunError as error:
        return {"status": "damaged", "damage": str(error)}


def chosen(
    runs: list[Run], known: Mapping[Path, dict[str, Any]], filters: Sequence[str], sort: str | None
) -> list[Run]:
    """The runs of which every filter holds, sorted; raises RunError for a meaningless filter or key.

    known: the facts of each, by its directory.
    """
    keys = set().union(*known.values())
    for condition in filters:
        match = re.fullmatch(r"([\w.]+)\s*(!=|<=|>=|=|<|>)\s*(.*)", condition)
        if match is None:
            raise RunError(f"--filter {condition}: give KEY=VALUE, KEY<VALUE and the like")
        key, operator, value = match.groups()
        _check(key, keys)
        runs = [run for run in runs if _holds(known[run.directory].get(key), operator, value)]
    if sort is not None:
        key = sort.removeprefix("-")
        _check(key, keys)
        ranked = [run for run in runs if known[run.directory].get(key) is not None]
        ranked.sort(key=lambda run: _comparable(known[run.directory][key]), reverse=sort.startswith("-"))
        runs = ranked + [run for run in runs if run not in ranked]
    return runs


def difference(runs: Sequence[Run], known: Mapping[Path, dict[str, Any]]) -> str:
    """The settings in which runs differ, a line each; known: as in `chosen`."""
    rows = _differing(runs, known)
    if not rows:
        return "the configurations are the same"
    return _table([["configuration", *(run.directory.name for run in runs)], *rows])


def _differing(runs: Sequence[Run], known: Mapping[Path, dict[str, Any]]) -> list[list[str]]:
    """The settings in which runs differ: the key, and each run's value."""
    keys = settings(cli.read_config(runs[0].directory / "config.yaml"))
    rows = [[key, *(_text(known[run.directory].get(key)) for run in runs)] for key in keys]
    return [row for row in rows if len(set(row[1:])) > 1]


def table(known: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """Results of runs as columns of text; known: the facts of each."""
    rows = []
    for key in COMPARED + RESULTS:
        rows.append([key.replace("_", " "), *(_text(facts.get(key), key) for facts in known)])
    return _table([["", *names], *rows])


def draw(path: Path, runs: Sequence[Run]) -> None:
    """Draw the learning curves of runs into one figure; raises RunError where it cannot be written."""
    if not runs:
        raise RunError(f"--figure {path}: no run has an epoch to draw")
    names = [run.directory.name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run.directory) for run in runs]
    histories = {name: run.history_columns() for name, run in zip(names, runs, strict=True)}
    try:
        figures.side_by_side(path, histories, "learning curves")
    except OSError as error:
        raise RunError(f"--figure {path}: cannot be written ({error.strerror})") from error


def _rows(
    runs: Sequence[Run], known: Mapping[Path, dict[str, Any]], filters: Sequence[str], sort: str | None
) -> list[list[str]]:
    more = [re.split(r"[!<>=]", one)[0].strip() for one in filters] + (
        [sort.removeprefix("-")] if sort else []
    )
    keys = list(dict.fromkeys([*COLUMNS, *more]))
    rows = [["run", *keys]]
    for run in runs:
        rows.append([str(run.directory), *(_text(known[run.directory].get(key), key) for key in keys)])
    return rows


def _check(key: str, keys: set[str]) -> None:
    if key not in keys:
        near = get_close_matches(key, keys, n=1)
        raise RunError(f"no run has a {key}" + (f": did you mean {near[0]}?" if near else ""))


def _holds(found: Any, operator: str, value: str) -> bool:
    if found is None:
        return operator == "!=" and value != "None"
    try:
        pair: tuple[Any, Any] = (float(found), float(value))
    except (TypeError, ValueError):
        pair = (_text(found), value)
    return OPERATORS[operator](*pair)


def _comparable(value: Any) -> tuple[bool, Any]:
    number = isinstance(value, int | float)
    return number, value if number else str(value)


def _text(value: Any, key: str = "") -> str:
    if value is None:
        return "–" if key else "null"
    if key in ("parameters", "trainable"):
        return f"{value:,}"
    if key == "seconds":
        return f"{value:.1f}"
    if key in ("val_accuracy", *RESULTS):
        return f"{value:.4f}"
    return str(value)


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [list(rows[0]), ["-" * width for width in widths], *map(list, rows[1:])]
    return "\n".join(
        f"{line[0]:<{widths[0]}}  "
        + "  ".join(f"{cell:>{width}}" for cell, width in zip(line[1:], widths[1:], strict=True))
        for line in lines
    )
