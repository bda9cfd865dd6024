"""A run, or several side by side, as a page: figures, results, mistakes and configuration, read offline."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiment.runs.record import Run
from experiment.system.files import replacing

FIGURES = {
    "Learning curves": ("curves.png", "loss and accuracy by epoch; the dot is the best epoch"),
    "Confusion matrix": ("confusion.png", "rows are true classes, columns predicted ones"),
    "Calibration": ("calibration.png", "how often predictions of each confidence are right"),
    "Most confident mistakes": ("mistakes.png", "predicted class and its probability, true class"),
    "Training images": ("samples.png", "before and after augmentation"),
}


def write(run: Run, names: Sequence[str]) -> Path:
    """Write a finished run's index.html beside its figures; returns its path. names: of the classes."""
    metrics, about = run.read_json("metrics.json"), run.read_json("environment.json")
    history = run.history()
    parameters = metrics["parameters"]
    facts = [
        ("test accuracy", f"{metrics['test_accuracy']:.2%}"),
        ("test loss", f"{metrics['test_loss']:.4g}"),
        ("macro F1", f"{metrics['macro_f1']:.3f}"),
        ("best epoch", f"{metrics['best_epoch']} of {len(history)}"),
        ("training", f"{metrics['train_seconds']:.0f} s"),
        ("parameters", f"{parameters['total']:,}"),
    ]
    classes = [
        [name, f"{one['precision']:.3f}", f"{one['recall']:.3f}", f"{one['f1']:.3f}", f"{one['support']:,}"]
        for name in names
        if (one := metrics["per_class"].get(name)) is not None
    ]
    confused = [
        [f"{one['true']} taken for {one['predicted']}", f"{one['count']:,}", f"{one['share']:.1%}"]
        for one in metrics["most_confused"]
    ]
    figures = [
        (name, [(file, caption)])
        for name, (file, caption) in FIGURES.items()
        if (run.directory / file).is_file()
    ]
    head = list(history[0]) if history else []
    machine = ("device", "gpu", "cpu", "cores", "python", "platform")
    environment = [[name, str(about[name])] for name in machine if name in about]
    if "versions" in about:
        environment += [[name, version] for name, version in about["versions"].items()]
    side, data = about["framework"].capitalize(), about["data"]["name"]
    lead = f"{side} on {data}, {len(names)} classes; {metrics['status']}"
    lead += f" ({metrics['message']})" if metrics["message"] else ""
    return _render(
        run.directory / "index.html",
        title=run.directory.name,
        lead=lead,
        facts=facts,
        tables=[("Most confused", ["", "test images", "of the class"], confused)],
        figures=figures,
        folded=[
            ("Every class", ["class", "precision", "recall", "F1", "test images"], classes),
            ("Every epoch", head, [[_short(row[name]) for name in head] for row in history]),
            ("Environment", ["", ""], environment),
        ],
        config=(run.directory / "config.yaml").read_text(),
    )


def compare(
    path: Path,
    runs: Sequence[Run],
    results: Sequence[Sequence[str]],
    settings: Sequence[Sequence[str]],
    curves: Path | None = None,
) -> Path:
    """Write a page of runs side by side; returns its path.

    results and settings: rows of cells, the name first and then a cell for each run. curves: a figure of all.
    """
    place = path.parent
    names = [run.directory.name for run in runs]
    beside = [] if curves is None else [("Together", [(_from(place, curves), "learning curves of all")])]
    for name, (file, _) in FIGURES.items():
        images = [
            (_from(place, run.directory / file), run.directory.name)
            for run in runs
            if (run.directory / file).is_file()
        ]
        beside.append((name, images))
    return _render(
        path,
        title=", ".join(names) if len(names) < 5 else f"{len(names)} runs",
        lead="",
        facts=[],
        tables=[
            ("Results", ["", *names], results),
            ("Where the configurations differ", ["", *names], settings),
        ],
        figures=beside,
        folded=[],
        config="",
    )


def _render(path: Path, **values: Any) -> Path:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    text = environment.get_template("runs.html.jinja").render(values)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _from(folder: Path, file: Path) -> str:
    return Path(os.path.relpath(file, folder)).as_posix()


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
