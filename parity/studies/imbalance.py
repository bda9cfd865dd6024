"""python -m parity imbalance: what class weights and balanced sampling do for a rare class, on both sides.

Thins one class of the training images to a share, trains each side without a remedy, with class weights and
with balanced sampling, and reports the rare class's recall on the whole test split. Further options are those
of `train`. Writes OUT/README.md, imbalance.json and recall.png; finished runs are not trained again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from experiment import cli
from experiment.runs.record import Run
from experiment.system.names import command_line
from parity.studies import study
from parity.studies.study import SIDES, Row

REMEDIES = {
    "none": (),
    "class weights": ("--training.class_weights=balanced",),
    "balanced sampling": ("--training.sampling=balanced",),
}
HEADS = ("remedy", "side", "recall", "precision", "F1", "macro F1", "accuracy")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 1 where a side fails or no remedy helps."""
    parser = cli.PlainParser(
        prog="parity imbalance", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rare", default="cat", help="the class to thin (default cat)")
    parser.add_argument("--share", type=float, default=0.05, help="of its images that stay (default 0.05)")
    parser.add_argument("--out", type=Path, default=Path("runs/imbalance"), help="where the report goes")
    argv = list(sys.argv[1:] if argv is None else argv)
    arguments, options = parser.parse_known_args(argv)
    if not 0 < arguments.share <= 1:
        parser.error("--share must lie in (0, 1]")
    options.append(f"--data.thin={json.dumps({arguments.rare: arguments.share})}")
    with cli.refusing():
        for side in SIDES:
            cli.train_request(side, options)  # a mistake in them is told before anything is trained
    command = command_line(["python", "-m", "parity", "imbalance", *argv])
    return cli.guarded(lambda: _study(arguments, options, command))


def _study(arguments: argparse.Namespace, options: Sequence[str], command: str) -> int:
    rows = []
    for name, remedy in REMEDIES.items():
        for side in SIDES:
            folder = arguments.out / "runs" / f"{side}-{name.replace(' ', '-')}"
            run = study.trained(side, folder, [*options, *remedy])
            rows.append(row_of(name, side, run, arguments.rare))
            print("  ".join(str(value) for value in rows[-1].values()), flush=True)
    print(write(arguments.out, rows, run, arguments.rare, arguments.share, command))
    return 0 if helped(rows) else 1


def row_of(remedy: str, side: str, run: Run, rare: str) -> Row:
    """A run's scores, by the names of HEADS; those of the rare class first."""
    metrics = run.read_json("metrics.json")
    scores = metrics["per_class"][rare]
    found = (
        scores["recall"],
        scores["precision"],
        scores["f1"],
        metrics["macro_f1"],
        metrics["test_accuracy"],
    )
    return dict(zip(HEADS, (remedy, side, *(round(one, 4) for one in found)), strict=True))


def helped(rows: Sequence[Row]) -> bool:
    """True where either remedy raises the rare class's recall on both sides."""
    recalls = {(row["remedy"], row["side"]): row["recall"] for row in rows}
    return all(
        recalls[name, side] > recalls["none", side] for name in REMEDIES if name != "none" for side in SIDES
    )


def write(out: Path, rows: Sequence[Row], run: Run, rare: str, share: float, command: str) -> Path:
    """Write the report into `out`; returns the path of its README.md. run: one of those it is of."""
    facts = run.read_json("environment.json")
    content = {"rare": rare, "share": share, "rows": list(rows), "facts": facts}
    study.write(out / "imbalance.json", json.dumps(content, indent=1))
    study.bars(out / "recall.png", f"{rare}, made rare: test scores", rows, "remedy", ("recall", "precision"))
    verdict = "raise" if helped(rows) else "do NOT both raise"
    counts = facts["data"]["training_images"]
    lines = [
        f"# A rare class: {rare} at {share:.0%}",
        "",
        f"{counts[rare]} training images of {rare}, {max(counts.values())} of the most frequent class; the "
        f"test split is whole. Both remedies {verdict} the rare class's recall, on both sides.",
    ]
    after = f"Recall, precision and F1 are {rare}'s."
    study.write(out / "README.md", study.page(lines, "recall.png", rows, after, command, run))
    return out / "README.md"
