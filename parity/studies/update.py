"""python -m parity update: what becomes of old classes when a model learns new ones, with and without replay.

Trains each side on the first classes, then goes on with the others from its weights (--warm-start): once on
their images alone, once with a share of the old images mixed in. Further options are those of `train`; the
update takes --epochs of its own. Writes OUT/README.md, update.json and accuracy.png; finished runs are kept.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from experiment import cli
from experiment.data.dataset import load
from experiment.runs.record import Run
from experiment.system.names import command_line
from parity.studies import study as studies
from parity.studies.study import SIDES, Row


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 1 where a side fails or replay does not help."""
    parser = cli.PlainParser(
        prog="parity update", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--first", type=int, default=5, help="how many classes come first (default 5)")
    parser.add_argument("--replay", type=float, default=0.2, help="share of old images (default 0.2)")
    parser.add_argument("--epochs", type=int, default=5, help="epochs of the update (default 5)")
    parser.add_argument("--out", type=Path, default=Path("runs/update"), help="where the report goes")
    argv = list(sys.argv[1:] if argv is None else argv)
    given, options = parser.parse_known_args(argv)
    if not 0 < given.replay <= 1:
        parser.error("--replay must lie in (0, 1]")
    with cli.refusing():
        experiments = [cli.train_request(side, options).experiment for side in SIDES]
    command = command_line(["python", "-m", "parity", "update", *argv])

    def study() -> int:
        names = load(experiments[0].data, experiments[0].seed).class_names
        if not 0 < given.first < len(names):
            parser.error(f"--first must lie in [1, {len(names) - 1}]: there are {len(names)} classes")
        rows, run = train(given, options, list(names))
        print(write(given.out, rows, run, list(names), given, command))
        return 0 if helped(rows) else 1

    return cli.guarded(study)


def train(given: argparse.Namespace, options: Sequence[str], names: list[str]) -> tuple[list[Row], Run]:
    """Train every run; returns their scores, and one of them. Raises SideError."""
    first, second = (json.dumps(part) for part in (names[: given.first], names[given.first :]))
    rows: list[Row] = []
    steps = (("first classes", None), ("update, no replay", 0.0), ("update, replay", given.replay))
    for name, replay in steps:
        for side in SIDES:
            folder = given.out / "runs" / f"{side}-{name.replace(',', '').replace(' ', '-')}"
            more = [f"--data.classes={first}"]
            if replay is not None:
                base = given.out / "runs" / f"{side}-first-classes"
                more = [f"--data.classes={second}", f"--warm-start={base}", f"--data.replay={replay}"]
                more.append(f"--training.epochs={given.epochs}")
            run = studies.trained(side, folder, [*options, *more])
            rows.append(row_of(name, side, run))
            print("  ".join(str(value) for value in rows[-1].values()), flush=True)
    return rows, run


def row_of(name: str, side: str, run: Run) -> Row:
    """A run's accuracy on the test images of the old classes, of the new ones, and of both."""
    metrics = run.read_json("metrics.json")
    both = metrics["test_accuracy"]
    parts = metrics.get("test_sets", {"old": {"accuracy": both}, "new": {"accuracy": 0.0}})
    scores = {f"{part} classes": round(parts[part]["accuracy"], 4) for part in ("old", "new")}
    images = sum(run.read_json("environment.json")["data"]["training_images"].values())
    return {"step": name, "side": side, **scores, "both": round(both, 4), "training images": images}


def helped(rows: Sequence[Row]) -> bool:
    """True where replay keeps more of the old classes, on both sides."""
    old = {(row["step"], row["side"]): row["old classes"] for row in rows}
    return all(old["update, replay", side] > old["update, no replay", side] for side in SIDES)


def write(
    out: Path, rows: Sequence[Row], run: Run, names: list[str], given: argparse.Namespace, command: str
) -> Path:
    """Write the report into `out`; returns the path of its README.md. run: one of those it is of."""
    facts = run.read_json("environment.json")
    studies.write(out / "update.json", json.dumps({"rows": list(rows), "facts": facts}, indent=1))
    scores = ("old classes", "new classes", "both")
    studies.bars(out / "accuracy.png", "Test accuracy as classes are added", rows, "step", scores)
    verdict = "keeps" if helped(rows) else "does NOT keep"
    lines = [
        f"# New classes: {given.first}, then {len(names)}",
        "",
        f"Trained on {', '.join(names[: given.first])}; then, with those weights and a fresh optimizer, on "
        f"{', '.join(names[given.first :])}. A replay of {given.replay:.0%} of the old training images "
        f"{verdict} more of the old classes than none, on both sides.",
    ]
    after = "The first step knows no new class; `both` is then the accuracy on the old ones alone."
    studies.write(out / "README.md", studies.page(lines, "accuracy.png", rows, after, command, run))
    return out / "README.md"
