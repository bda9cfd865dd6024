"""Climbs the ladder: traces both sides of a pair, compares them rung by rung, keeps what was found."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiment import cli
from experiment.runs.record import Run, step_losses
from experiment.system import processes
from parity.checks import Check, Rung, Subject
from parity.diagnosis.diagnose import diagnose
from parity.ladder import augmentation, pairs, photos, rounding_noise, stock_augmentation, whole_run
from parity.ladder.rungs import RUNGS, USERS
from parity.ladder.tolerances import ROWS, bound
from parity.traces.pair import Pair

# TensorFlow computes in float64 throughout and is the reference; the others round parts of it to float32.
COMBINATIONS = (
    ("tensorflow", "float64"),
    ("tensorflow", "float32"),
    ("jax", "float32"),
    ("torch", "float32"),
)
UNPROVEN = "unproven on CUDA: no GPU here"
ORDER = (*ROWS, "unfinished")
Watch = Callable[[Rung], None]


@dataclass(frozen=True)
class Place:
    """Where a ladder is climbed: files go to `folder`, `watch` is told of every rung."""

    folder: Path
    device: str
    watch: Watch


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

    def decide(
        self,
        name: str,
        compare: Callable[[], Sequence[Check]],
        subject: Subject,
        note: str = "",
        before: float = 0.0,
        watch: Watch | None = None,
    ) -> Rung:
        """Run a rung's function, keep what it found and tell of it. before: seconds spent on it already."""
        started = time.perf_counter()
        checks = compare()
        rung = Rung(name, *subject, checks, note, before + time.perf_counter() - started)
        return self.keep(rung, watch)

    def skip(self, name: str, subject: Subject, note: str, watch: Watch | None = None) -> Rung:
        """Keep a rung that nothing could decide; the note says why."""
        return self.keep(Rung(name, *subject, note=note, skipped=True), watch)

    def keep(self, rung: Rung, watch: Watch | None = None) -> Rung:
        """Keep a rung, and tell of it; raises KeyError where the table of tolerances has no row for it."""
        if rung.name not in ORDER:
            raise KeyError(f"rung {rung.name}: parity/ladder/tolerances.py has no row for it")
        self.rungs.append(rung)
        if watch is not None:
            watch(rung)
        return rung

    @property
    def ordered(self) -> list[Rung]:
        """The rungs from the lowest to the highest, each with those of its name."""
        return sorted(self.rungs, key=lambda rung: ORDER.index(rung.name))

    @property
    def passed(self) -> bool:
        proved = [rung for rung in self.rungs if not rung.skipped]
        return bool(proved) and all(rung.status == "passed" for rung in proved)


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
            sides = ("keras",) if precision in traced else ("keras", "lightning")
            keras, *torch = processes.together(
                [partial(processes.trace, side, folder, request, place.device, backend) for side in sides]
            )
            traced[precision] = torch[0] if torch else traced[precision]
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
    subject = Subject(name, backend, pair.precision, place.device)
    for rung in rungs:
        function, before, note = partial(RUNGS[rung], pair), seconds / len(rungs), ""
        if rung == "trajectory" and (count := rounding_noise.steps_that_tell(pair)) is not None:
            note = rounding_noise.why(count, len(pair.keras["losses"]))
            if not count:
                findings.skip(rung, subject, note, place.watch)
                continue
            tolerance = bound("trajectory", pair.precision)
            function = partial(rounding_noise.first_steps, pair, count, tolerance)
        checks = findings.decide(rung, function, subject, note, before, place.watch).checks
        checked[rung] = checks
        if not all(check.passed for check in checks):
            pair.again = None  # what follows from this is no rounding
        found = None if told else diagnose(rung, checks, pair)
        if found is not None:
            findings.diagnoses.append(
                {"pair": name, "backend": backend, "precision": pair.precision, **asdict(found)}
            )
            told = True
    findings.layers.append(_by_layer(name, pair, backend, checked))
    notes = [f"{name}: {text}" for text in pair.matching.notes]
    findings.notes += [note for note in notes if note not in findings.notes]


def _by_layer(name: str, pair: Pair, backend: str, checked: dict[str, Sequence[Check]]) -> dict[str, Any]:
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
        "tolerance": bound("forward", pair.precision),
        "names": list(pair.names),
        "eval": [checks.get(f"{layer} (eval)") for layer in pair.names],
        "train": [checks.get(f"{layer} (train)") for layer in pair.names],
        "gradient": [gradient(layer) for layer in pair.names],
    }


def _images(pair: Pair, backend: str, place: Place, findings: Findings) -> None:
    """Both sides against ImageDataGenerator, on the traced images; its draws, and torchvision's, once."""
    epochs = [pair.keras[f"data/epoch{epoch}/{which}"] for epoch in (0, 1) for which in ("first", "last")]
    images = np.concatenate(epochs).astype(np.uint8)
    folder = place.folder / "augmentation" / f"{backend}-{pair.precision}"
    folder.mkdir(parents=True, exist_ok=True)
    checked = np.resize(images, (64, *images.shape[1:]))
    subject = Subject("ImageDataGenerator", backend, pair.precision, place.device)
    note = "against Keras's own ImageDataGenerator"
    pixels = partial(augmentation.check, checked, backend, pair.precision, place.device, folder)
    findings.decide("augmentation", pixels, subject, note, watch=place.watch)
    if pair.precision == "float64":
        draws = partial(augmentation.check_draws, folder)
        findings.decide("augmentation draws", draws, subject, note, watch=place.watch)
        findings.stock_augmentation = stock_augmentation.measure(images, folder)


def whole_runs(runs: dict[str, Sequence[str]], place: Place, findings: Findings) -> None:
    """Train both sides as each entry's options say, and compare their records; raises SideError."""
    for name, options in runs.items():
        started = time.perf_counter()
        cache = f"--data.cache={place.folder / 'cache'}"
        folder = place.folder / "runs" / name.replace(" ", "-").replace(",", "")
        records = whole_run.train_both(folder, [cache, *options], place.device)
        steps = {side: step_losses(run) for side, run in records.items()}
        rung = findings.decide(
            "whole run",
            partial(whole_run.compare_runs, records["keras"], records["lightning"]),
            Subject(name, "tensorflow", "float64", place.device),
            f"{len(steps['keras'])} steps",
            time.perf_counter() - started,
            place.watch,
        )
        findings.trajectories.append(
            {
                "name": f"{name}, {len(steps['keras'])} steps",
                **{side: losses.tolist() for side, losses in steps.items()},
                "tolerance": bound("whole run", "step loss"),
                "learning_rate": _learning_rates(records["keras"], len(steps["keras"])),
            }
        )
        if found := whole_run.diagnose(rung.checks, records):
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
    for name in names:
        for rung in (*RUNGS, "whole run"):
            findings.skip(rung, Subject(name, "all", "float64", "cuda"), UNPROVEN)


def without_float64(runs: Sequence[str], place: Place, findings: Findings) -> None:
    """Add the whole runs as skipped ones: where TensorFlow is left out, no backend computes in float64."""
    note = "no TensorFlow here: Keras's other backends compute parts of float64 in float32"
    for name in runs:
        findings.skip("whole run", Subject(name, "tensorflow", "float64", place.device), note, place.watch)
