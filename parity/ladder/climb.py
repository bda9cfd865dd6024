"""Climbs the ladder: traces both sides of a pair, compares them rung by rung, keeps what was found."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from experiment import cli
from experiment.runs.record import Run, step_losses
from experiment.system import processes
from parity.checks import Check, Rung
from parity.diagnosis.diagnose import diagnose
from parity.ladder import augmentation, pairs, photos, stock_augmentation, whole_run
from parity.ladder.rungs import RUNGS, USERS
from parity.ladder.tolerances import REASONS, TRACE, WHOLE_RUN
from parity.traces.pair import Pair

# TensorFlow computes in float64 throughout and is the reference; the others round parts of it to float32.
COMBINATIONS = (
    ("tensorflow", "float64"),
    ("tensorflow", "float32"),
    ("jax", "float32"),
    ("torch", "float32"),
)
UNPROVEN = "unproven on CUDA: no GPU here"
ORDER = ("weights", *REASONS, "unfinished")
Watch = Callable[[Rung], None]


@dataclass
class Findings:
    """What the report shows; every list is plain values but for the rungs."""

    rungs: list[Rung] = field(default_factory=list)
    diagnoses: list[dict[str, Any]] = field(default_factory=list)
    trajectories: list[dict[str, Any]] = field(default_factory=list)
    layers: list[dict[str, Any]] = field(default_factory=list)
    exports: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    stock_augmentation: dict[str, dict[str, float]] | None = None
    environment: dict[str, Any] = field(default_factory=dict)

    @property
    def ordered(self) -> list[Rung]:
        """The rungs from the lowest to the highest, each with those of its name."""
        return sorted(self.rungs, key=lambda rung: ORDER.index(rung.name))

    @property
    def passed(self) -> bool:
        proved = [rung for rung in self.rungs if not rung.skipped]
        return bool(proved) and all(rung.status == "passed" for rung in proved)


@dataclass(frozen=True)
class Place:
    """Where a ladder is climbed: files go to `folder`, `watch` is told of every rung."""

    folder: Path
    device: str
    watch: Watch


def own_pairs(
    names: Sequence[str], combinations: Sequence[tuple[str, str]], place: Place, findings: Findings
) -> None:
    """Climb from structure to a few steps with this project's models; raises SideError where a side fails."""
    place.folder.mkdir(parents=True, exist_ok=True)
    data, cache = photos.write(place.folder / "photos.npz"), place.folder / "cache"
    for name in names:
        traced: dict[str, Path] = {}
        for backend, precision in combinations:
            folder = place.folder / name / precision
            values = pairs.setup(name, str(data), str(cache), precision)
            request = {"experiment": values, "steps": pairs.STEPS}
            started = time.perf_counter()
            if precision not in traced:
                traced[precision] = processes.trace("lightning", folder, request, place.device, backend)
            keras = processes.trace("keras", folder, request, place.device, backend)
            pair = Pair.of(keras, traced[precision], cli.experiment_from(values))
            climb(name, pair, backend, place, findings, tuple(RUNGS), time.perf_counter() - started)
            if name == names[0]:
                _images(pair, backend, place, findings)


def climb(
    name: str,
    pair: Pair,
    backend: str,
    place: Place,
    findings: Findings,
    rungs: Sequence[str] = USERS,
    seconds: float = 0.0,
) -> None:
    """Compare two traces rung by rung; the first rung that fails is diagnosed. seconds: what tracing took."""
    told, checked = False, {}
    for rung in rungs:
        started = time.perf_counter()
        checks = checked[rung] = RUNGS[rung](pair)
        took = time.perf_counter() - started + seconds / len(rungs)
        findings.rungs.append(Rung(rung, name, backend, pair.precision, place.device, checks, "", took))
        place.watch(findings.rungs[-1])
        found = None if told else diagnose(rung, checks, pair)
        if found is not None:
            findings.diagnoses.append(
                {"pair": name, "backend": backend, "precision": pair.precision, **asdict(found)}
            )
            told = True
    findings.layers.append(_by_layer(name, pair, backend, checked))
    notes = [f"{name}: {text}" for text in pair.matching.notes]
    findings.notes += [note for note in notes if note not in findings.notes]


def _by_layer(name: str, pair: Pair, backend: str, checked: dict[str, list[Check]]) -> dict[str, Any]:
    checks = {
        check.quantity: check.largest for rung in ("forward", "loss and gradients") for check in checked[rung]
    }

    def gradient(layer: str) -> float | None:
        found = [largest for quantity, largest in checks.items() if quantity.startswith(f"{layer}/")]
        return max(found, default=None)

    return {
        "pair": name,
        "backend": backend,
        "precision": pair.precision,
        "tolerance": TRACE["forward"][pair.precision],
        "names": list(pair.names),
        "eval": [checks.get(f"{layer} (eval)") for layer in pair.names],
        "train": [checks.get(f"{layer} (train)") for layer in pair.names],
        "gradient": [gradient(layer) for layer in pair.names],
    }


def _images(pair: Pair, backend: str, place: Place, findings: Findings) -> None:
    """Both sides against ImageDataGenerator, on the traced images; its draws, and torchvision's, once."""
    started = time.perf_counter()
    epochs = [pair.keras[f"data/epoch{epoch}/{which}"] for epoch in (0, 1) for which in ("first", "last")]
    images = np.concatenate(epochs).astype(np.uint8)
    folder = place.folder / "augmentation" / f"{backend}-{pair.precision}"
    folder.mkdir(parents=True, exist_ok=True)
    checked = np.resize(images, (64, *images.shape[1:]))
    rungs = {"augmentation": augmentation.check(checked, backend, pair.precision, place.device, folder)}
    if pair.precision == "float64":
        rungs["augmentation draws"] = augmentation.check_draws(folder)
        findings.stock_augmentation = stock_augmentation.measure(images, folder)
    for name, checks in rungs.items():
        took = (time.perf_counter() - started) / len(rungs)
        against = ("ImageDataGenerator", backend, pair.precision, place.device)
        findings.rungs.append(Rung(name, *against, checks, "against Keras's own ImageDataGenerator", took))
        place.watch(findings.rungs[-1])


def whole_runs(runs: dict[str, Sequence[str]], place: Place, findings: Findings) -> None:
    """Train both sides as each entry's options say, and compare their records; raises SideError."""
    for name, options in runs.items():
        started = time.perf_counter()
        cache = f"--data.cache={place.folder / 'cache'}"
        folder = place.folder / "runs" / name.replace(" ", "-").replace(",", "")
        records = whole_run.train_both(folder, [cache, *options], place.device)
        checks = whole_run.compare_runs(records["keras"], records["lightning"])
        took = time.perf_counter() - started
        steps = {side: step_losses(run) for side, run in records.items()}
        note = f"{len(steps['keras'])} steps"
        findings.rungs.append(
            Rung("whole run", name, "tensorflow", "float64", place.device, checks, note, took)
        )
        place.watch(findings.rungs[-1])
        findings.trajectories.append(
            {
                "name": f"{name}, {len(steps['keras'])} steps",
                **{side: losses.tolist() for side, losses in steps.items()},
                "tolerance": WHOLE_RUN["step loss"],
                "learning_rate": _learning_rates(records["keras"], len(steps["keras"])),
            }
        )
        if found := whole_run.diagnose(checks, records):
            findings.diagnoses.append(
                {"pair": name, "backend": "tensorflow", "precision": "float64", **found}
            )
        for side, run in records.items():
            facts = run.read_json("environment.json")
            findings.environment[side] = {k: v for k, v in facts.items() if k != "experiment"}


def _learning_rates(run: Run, steps: int) -> list[float]:
    rows = run.history_columns()["learning_rate"]
    return list(np.repeat(rows, steps // len(rows)))


def unproven(names: Sequence[str], findings: Findings) -> None:
    """Add the rungs that only a GPU could decide, as skipped ones."""
    findings.rungs += [
        Rung(rung, name, "all", "float64", "cuda", note=UNPROVEN, skipped=True)
        for name in names
        for rung in (*RUNGS, "whole run")
    ]


def without_float64(runs: Sequence[str], place: Place, findings: Findings) -> None:
    """Add the whole runs as skipped ones: where TensorFlow is left out, no backend computes in float64."""
    note = "no TensorFlow here: Keras's other backends compute parts of float64 in float32"
    for name in runs:
        rung = Rung("whole run", name, "tensorflow", "float64", place.device, note=note, skipped=True)
        findings.rungs.append(rung)
        place.watch(rung)
