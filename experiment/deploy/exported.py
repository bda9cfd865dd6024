"""The ways to run one model's weights: a run of each side, and every file exported from the two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiment.cli import Framework
from experiment.deploy import conversion
from experiment.deploy.prediction import SUFFIXES, framework_of
from experiment.runs.record import Run
from experiment.system import processes

SIDES: dict[Framework, tuple[str, str]] = {"keras": ("Keras", "TFLite"), "lightning": ("Lightning", "ONNX")}
SHORTCUTS = {"TFLite": "XNNPACK", "ONNX": "graph optimisations"}


@dataclass(frozen=True)
class Model:
    """One way to run the weights: a run of a side, or a file exported from it."""

    name: str
    side: str
    path: Path
    quantize: str | None = None

    @property
    def runtime(self) -> str:
        return self.name.split()[0]

    @property
    def exported(self) -> bool:
        return self.path.is_file()


def make(run: Run, folder: Path, quantizations: Sequence[str]) -> list[Model]:
    """The run, its twin of the other side, and every file exported from the two.

    A file is made whatever quantising costs: `check` is the judge. Raises RunError and SideError.
    """
    side = framework_of(run)
    other = conversion.OTHER[side]
    twin = Run(folder / f"{run.directory.name}-{other}")
    conversion.check(run, other, twin.directory)
    try:
        conversion.build(run, twin, other)
    except conversion.ConversionError as error:
        raise processes.SideError(str(error)) from error
    runs = {side: run, other: twin}
    models = []
    for side, (framework, runtime) in SIDES.items():
        models.append(Model(framework, side, runs[side].directory))
        for kind in (None, *quantizations):
            path = folder / f"model_{kind}{SUFFIXES[side]}"
            options = [] if kind is None else [f"--quantize={kind}", "--max-loss=100"]
            processes.start(f"{side}_impl.export", [str(runs[side].directory), f"--output={path}", *options])
            models.append(Model(f"{runtime} {kind}" if kind else runtime, side, path, kind))
    return models
