"""python -m benchmarks.overhead: what `train` costs beside a bare loop of the same model, on both sides.

Each measurement is a process of its own; the four kinds take turns, so that a slow spell of the machine
falls on all of them. A ratio is taken within one turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from experiment.run import Run, environment, replacing

SIDES = ("lightning", "keras")
REPORT = Path("benchmarks/reports/overhead_cpu.json")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.overhead", description=__doc__)
    parser.add_argument("--turns", type=int, default=5, help="processes of each kind (default 5)")
    parser.add_argument("--report", type=Path, default=REPORT, help=f"where to write (default {REPORT})")
    parser.add_argument("train", nargs="*", help="options of train, after --, such as --data.name digits")
    arguments = parser.parse_args(argv)
    options = [*arguments.train, "--training.epochs", "3"]
    turns = []
    for turn in range(arguments.turns):
        speeds = {side: {"train": train(side, options), "bare": bare(side, options)} for side in SIDES}
        turns.append(speeds)
        print(f"turn {turn + 1}/{arguments.turns}: {line(speeds)}", flush=True)
    write(arguments.report, turns, options)
    print(arguments.report.with_suffix(".md").read_text())
    return 0


def train(side: str, options: list[str]) -> float:
    """Images per second of the real command, the best of its epochs after the first."""
    with tempfile.TemporaryDirectory() as folder:
        run_python(f"{side}_impl.train", [*options, "--run.dir", f"{folder}/run"])
        return max(row["images_per_second"] for row in Run(f"{folder}/run").history()[1:])


def bare(side: str, options: list[str]) -> float:
    """Images per second of the bare loop, the best of its epochs after the first."""
    printed = run_python(f"{side}_impl.bare", options).splitlines()[-1]
    return max(json.loads(printed)["images_per_second"][1:])


def run_python(module: str, options: list[str]) -> str:
    done = subprocess.run([sys.executable, "-m", module, *options], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"error: {module} {' '.join(options)} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def line(speeds: dict[str, dict[str, float]]) -> str:
    return ", ".join(
        f"{side} {s['train']:.0f} of {s['bare']:.0f} images/s ({s['train'] / s['bare']:.2f})"
        for side, s in speeds.items()
    )


def write(report: Path, turns: list[dict[str, dict[str, float]]], options: list[str]) -> None:
    """Write the report as JSON, with every measurement, and as Markdown."""
    facts = environment("both", "cpu", 0, 0, {"options": options})
    report.parent.mkdir(parents=True, exist_ok=True)
    with replacing(report) as path:
        path.write_text(json.dumps({"turns": turns, "environment": facts}, indent=2) + "\n")
    rows = []
    for side in SIDES:
        columns = {kind: [turn[side][kind] for turn in turns] for kind in ("train", "bare")}
        ratios = [t / b for t, b in zip(columns["train"], columns["bare"], strict=True)]
        medians = [statistics.median(columns[kind]) for kind in ("train", "bare")]
        rows.append(
            f"| {side} | {medians[0]:.0f} | {medians[1]:.0f} | {statistics.median(ratios):.3f} "
            f"| {min(ratios):.3f} to {max(ratios):.3f} |"
        )
    with replacing(report.with_suffix(".md")) as path:
        path.write_text(
            "# What `train` costs beside a bare loop\n\n"
            "Images per second of training, the best epoch after the first, medians over "
            f"{len(turns)} turns. `train` augments, keeps metrics, draws its progress and writes its record; "
            "the bare loop (PyTorch's own Adam and loop; Keras's `train_on_batch`) trains the same model on "
            "the same batches and does nothing else.\n\n"
            "| side | train | bare | ratio, median | ratio, range |\n|---|---|---|---|---|\n"
            + "\n".join(rows)
            + f"\n\nCommand: `python -m benchmarks.overhead --turns {len(turns)} -- "
            + f"{' '.join(options[:-2])}`. {facts['cpu']}, {facts['cores']} cores, {facts['utc']}; "
            + ", ".join(f"{name} {v}" for name, v in facts["versions"].items())
            + ". The machine is shared: read the ratios, not the speeds.\n"
        )


if __name__ == "__main__":
    sys.exit(main())
