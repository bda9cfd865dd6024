"""python -m parity sensitivity: whether what parts two runs at a high learning rate is rounding.

Trains Keras, Lightning, and Lightning once more with every initial kernel moved by one unit in the last
place, the smallest change there is. Where the two frameworks part no sooner than one framework parts from
itself, their difference is what rounding grows to, and no other one is left to look for. Writes
OUT/sensitivity.json and OUT/sensitivity.png.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from experiment import cli
from experiment.evaluation.figures import page
from experiment.runs.record import step_losses
from experiment.system.files import replacing
from parity.ladder import whole_run
from parity.report import drawing

LEVELS = (1e-9, 1e-6, 1e-3)  # well above what one step rounds, in which a nudge and a framework differ
# As the whole run, at Keras's own learning rate, at which runs part within it; nothing stops them.
OPTIONS = ("--training.learning_rate=1e-3", "--training.batch_size=24", "--training.plateau.min_delta=0")
SLACK = 1.5  # two frameworks round at every step, one nudge happens once
BOTH, ITSELF = "Keras and Lightning", "Lightning and itself, kernels moved by one ulp"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 0 where the sides part no sooner than a side does from itself."""
    parser = cli.PlainParser(prog="parity sensitivity", description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--data.root", dest="root", type=Path, metavar="FOLDER", help="a folder of images")
    parser.add_argument("--out", type=Path, default=Path("runs/parity"), help="where the results go")
    arguments = parser.parse_args(argv)
    if arguments.root and not arguments.root.is_dir():
        parser.error(f"--data.root {arguments.root}: no such folder")
    data = ("--data.name=folder", f"--data.root={arguments.root}") if arguments.root else whole_run.DIGITS
    options = [*data, *whole_run.SMALL, *whole_run.EVENTS, *OPTIONS, "--run.overwrite=true"]
    name = arguments.root.name if arguments.root else "digits"
    return cli.guarded(lambda: _study(arguments.out, options, name))


def _study(out: Path, options: Sequence[str], name: str) -> int:
    console = Console()
    losses = train(out / "sensitivity", options, console)
    found = {BOTH: whole_run.apart(losses["keras"], losses["lightning"])}
    found[ITSELF] = whole_run.apart(losses["lightning"], losses["nudged"])
    first = {what: parted(differences) for what, differences in found.items()}
    values = {
        "data": name,
        "options": list(options[:-1]),
        "first_step_beyond": {
            what: dict(zip(map(str, LEVELS), of, strict=True)) for what, of in first.items()
        },
        "differences": {what: differences.tolist() for what, differences in found.items()},
    }
    with replacing(out / "sensitivity.json") as path:
        path.write_text(json.dumps(values, indent=1) + "\n")
    draw(out / "sensitivity.png", found, f"Growth of one rounding error: {name}")
    for what, steps in first.items():
        told = ", ".join(
            f"{level:.0e} at step {step or '-'}" for level, step in zip(LEVELS, steps, strict=True)
        )
        console.print(f"{what}: beyond {told}", highlight=False, soft_wrap=True)
    fine = no_sooner(first[BOTH], first[ITSELF])
    told = "no sooner than one side from itself" if fine else "SOONER than one side from itself"
    console.print(f"the sides part {told}", style="green" if fine else "red bold")
    return 0 if fine else 1


def train(folder: Path, options: Sequence[str], console: Console) -> dict[str, np.ndarray]:
    """The losses of every step of the three runs; raises SideError."""
    runs = {"keras": ("keras", None), "lightning": ("lightning", None), "nudged": ("lightning", "one_ulp")}
    losses = {}
    for name, (side, mutation) in runs.items():
        console.print(f"training {name}", style="dim")
        run = whole_run.train(side, folder / name, options, mutation=mutation, weights=False)
        losses[name] = step_losses(run)
    return losses


def parted(differences: np.ndarray) -> list[int | None]:
    """The first step that differs by more than each of `LEVELS`; None where none does."""
    return [whole_run.first_beyond(differences, level) for level in LEVELS]


def no_sooner(both: Sequence[int | None], itself: Sequence[int | None]) -> bool:
    """True where two sides reach each level no sooner than one from itself does, give or take `SLACK`."""
    return all(
        one is None or (other is not None and one * SLACK >= other)
        for one, other in zip(both, itself, strict=True)
    )


def draw(path: Path, found: dict[str, np.ndarray], title: str) -> None:
    """Both differences over the steps, on a log scale, to a PNG."""
    with page(path, (10, 4.5), title) as figure:
        axes = figure.subplots()
        for (what, differences), colour in zip(found.items(), (drawing.BLUE, drawing.ORANGE), strict=True):
            steps = np.arange(1, len(differences) + 1)
            axes.semilogy(steps, np.maximum.accumulate(differences), color=colour, label=what, linewidth=2)
            axes.semilogy(steps, differences, ".", color=colour, markersize=3, alpha=0.6)
        axes.axhline(1e-9, color=drawing.BOUND, linestyle="--", linewidth=1)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0e}")
        axes.set_xlabel("step")
        axes.set_ylabel("difference of the losses")
        axes.grid()
        axes.legend(loc="lower right", frameon=False)
