"""python -m parity exports RUN...: a trained run, four ways of running it, and how far they are apart.

Keras, its TFLite file, Lightning and its ONNX file, on the same weights and the whole test split; the files
in float32 and with each quantisation, batches of 1, 7 and 64, and with the runtimes' shortcuts off.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from experiment import cli
from experiment.backbones import BACKBONES
from experiment.deploy.conversion import config as config_of
from experiment.deploy.export import BATCHES, QUANTIZATIONS
from experiment.deploy.exported import Model, make
from experiment.deploy.model_worker import Worker
from experiment.deploy.run_data import load_all
from experiment.runs.record import Run
from experiment.system import processes
from experiment.system.files import replacing
from experiment.system.names import command_line, printable
from parity.checks import Subject
from parity.exports.comparison import BATCH, Predicted, check, markdown, summary
from parity.ladder import pairs
from parity.ladder.climb import Findings, Place
from parity.report import reporter
from parity.report.results import Exports

TRANSFER = (
    "--data.name=digits",
    "--data.limit=200",
    "--augment.kind=none",
    "--training.epochs=2",
)
# What is exported in the ladder: trained well enough for accuracies to mean something, and the bases' layers.
DIGITS = {
    "cnn": (
        "--data.name=digits",
        "--augment.horizontal_flip=false",
        "--model.filters=[8,16]",
        "--model.dense_units=32",
        "--training.batch_size=32",
        "--training.epochs=20",
        "--training.schedule.kind=cosine",  # at rest: an int8 file then turns few images over
    ),
    **{name: (f"--model.name={name}", *TRANSFER) for name in BACKBONES},
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = cli.PlainParser(prog="parity exports", description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="the directory of a finished run of either side"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/exports"), help="where the report goes")
    parser.add_argument(
        "--quantize", nargs="*", choices=QUANTIZATIONS, default=QUANTIZATIONS, help="which (default all)"
    )
    arguments = parser.parse_args(argv)
    return cli.guarded(lambda: _command(arguments.runs, arguments.out, arguments.quantize, argv))


def _command(runs: Sequence[Path], out: Path, quantizations: Sequence[str], argv: Sequence[str]) -> int:
    findings = Findings()
    record = reporter.Record(out, ["python", "-m", "parity", "exports", *argv])
    with tempfile.TemporaryDirectory(prefix="parity-") as folder:
        place = Place(Path(folder), "cpu", record.show)
        with record.kept(findings):
            for directory in runs:
                rung(directory, printable(directory.resolve().name), quantizations, place, findings)
    with replacing(out / "exports.md") as path:
        tables = [markdown(Exports.model_validate(found)) for found in findings.exports]
        path.write_text(f"Made with `{command_line(record.command)}`.\n\n" + "\n".join(tables))
    return record.conclude(findings)


def rung(directory: Path, name: str, quantizations: Sequence[str], place: Place, findings: Findings) -> None:
    """Export a run every way, run every file, and add what was found.

    Raises SideError where a side fails, RunError for a run that cannot be exported.
    """
    started = time.perf_counter()
    folder = place.folder / "exports" / name.replace(" ", "-").replace(",", "")
    run = Run(directory.resolve())
    models = make(run, folder, quantizations)
    config = config_of(run)
    test = load_all(config, run)[0].test
    images = folder / "images.npy"
    np.save(images, test.batch(np.arange(len(test)))[0])
    predicted = predict(models, images)
    what = f"{config.model.name}, {config.data.name}, {len(test)} test images"
    found = summary(name, what, models, predicted, test.labels)
    findings.exports.append(found.model_dump())
    runs = {model.side: Run(model.path) for model in models if not model.exported}
    for side, one in runs.items():
        facts = one.read_json("environment.json")
        places = ("converted_from", "experiment")  # of this machine
        findings.environment.setdefault(side, {k: v for k, v in facts.items() if k not in places})
    subject = Subject(name, "tensorflow", "float32", "cpu")
    compare = partial(check, models, predicted, test.labels)
    findings.decide("export", compare, subject, what, time.perf_counter() - started, place.watch)


def own_pairs(names: Sequence[str], place: Place, findings: Findings) -> None:
    """Train this project's models shortly, on digits, and export them; raises SideError and RunError."""

    def own_pair(name: str) -> None:
        directory = place.folder / "exports" / f"{name}-trained"
        options = [*DIGITS[name], f"--data.cache={place.folder / 'cache'}", f"--run.dir={directory}"]
        if name in BACKBONES:
            options.append(f"--model.weights={pairs.weights(name, place.folder)}")
        processes.start("lightning_impl.train", [*options, "--gpus=0"])
        # With made-up weights, a base's accuracy says nothing of a quantisation.
        quantizations = QUANTIZATIONS if name not in BACKBONES else ()
        rung(directory, f"{name}, digits", quantizations, place, findings)

    processes.together([partial(own_pair, name) for name in names])
    order = [f"{name}, digits" for name in names]  # whichever was done first
    findings.exports.sort(key=lambda found: order.index(found["name"]))


def predict(models: Iterable[Model], images: Path) -> Predicted:
    """Probabilities of every image from every model, every way: each in a process of its own."""
    found: Predicted = {}
    for model in models:
        with Worker(model.side, model.path) as worker:
            for batch in (BATCH,) if model.quantize else BATCHES:
                found[model.name, str(batch)] = worker.predict(images, batch)
        if model.exported:
            with Worker(model.side, model.path, plain=True) as worker:
                found[model.name, "plain"] = worker.predict(images, BATCH)
    return found
