"""python -m parity imbalance: what class weights and balanced sampling do for a rare class, on both sides.

Thins one class of the training images to a share, trains each side without a remedy, with class weights and
with balanced sampling, and reports the rare class's recall on the whole test split. Further options are those
of `train`. Writes OUT/README.md, imbalance.json and recall.png; finished runs are not trained again.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiment import cli, figures
from experiment.figures import COLOURS
from experiment.run import Run, environment_line, replacing
from parity import sides

REMEDIES = {
    "none": (),
    "class weights": ("--training.class_weights=balanced",),
    "balanced sampling": ("--training.sampling=balanced",),
}
SIDES = ("keras", "lightning")
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
    for side in SIDES:
        cli.train_request(side, options)  # a mistake in them is told before anything is trained
    rows = []
    try:
        for name, remedy in REMEDIES.items():
            for side in SIDES:
                run = _trained(
                    side, arguments.out / "runs" / f"{side}-{name.replace(' ', '-')}", options, remedy
                )
                rows.append(row_of(name, side, run, arguments.rare))
                print("  ".join(str(value) for value in rows[-1].values()), flush=True)
    except sides.SideError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if error.refused else 1
    command = shlex.join(["python", "-m", "parity", "imbalance", *argv])
    facts = run.read_json("environment.json")
    print(write(arguments.out, rows, facts, arguments.rare, arguments.share, command))
    return 0 if helped(rows) else 1


def row_of(remedy: str, side: str, run: Run, rare: str) -> dict[str, Any]:
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


def helped(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether either remedy raises the rare class's recall on both sides."""
    recalls = {(row["remedy"], row["side"]): row["recall"] for row in rows}
    return all(
        recalls[name, side] > recalls["none", side] for name in REMEDIES if name != "none" for side in SIDES
    )


def write(
    out: Path, rows: Sequence[dict[str, Any]], facts: dict[str, Any], rare: str, share: float, command: str
) -> Path:
    """Write the report into `out`; returns the path of its README.md."""
    counts = facts["data"]["training_images"]
    with replacing(out / "imbalance.json") as path:
        path.write_text(
            json.dumps({"rare": rare, "share": share, "rows": list(rows), "facts": facts}, indent=1)
        )
    draw(out / "recall.png", rows, rare)
    verdict = "raise" if helped(rows) else "do NOT both raise"
    lines = [
        f"# A rare class: {rare} at {share:.0%}",
        "",
        f"{counts[rare]} training images of {rare}, {max(counts.values())} of the most frequent class; the "
        f"test split is whole. Both remedies {verdict} the rare class's recall, on both sides.",
        "",
        "![recall](recall.png)",
        "",
        f"| {' | '.join(HEADS)} |",
        "|---" * len(HEADS) + "|",
        *(f"| {' | '.join(str(value) for value in row.values())} |" for row in rows),
        "",
        f"Recall, precision and F1 are {rare}'s.",
        "",
        f"`{command}`",
        "",
        environment_line(facts),
    ]
    with replacing(out / "README.md") as path:
        path.write_text("\n".join(lines) + "\n")
    return out / "README.md"


def draw(path: Path, rows: Sequence[dict[str, Any]], rare: str) -> None:
    """The rare class's recall and precision, a group of bars for each remedy."""
    with figures.page(path, (8.0, 4.2), f"{rare}, made rare: test scores") as figure:
        for place, score in enumerate(("recall", "precision")):
            axes = figure.add_subplot(1, 2, place + 1)
            for offset, side in enumerate(SIDES):
                found = [row[score] for row in rows if row["side"] == side]
                places = [number + 0.4 * offset - 0.2 for number in range(len(found))]
                drawn = axes.bar(places, found, width=0.38, color=COLOURS[offset], label=side)
                axes.bar_label(drawn, [f"{one:.0%}" for one in found], fontsize=10)
            axes.set_xticks(range(len(REMEDIES)), [name.replace(" ", "\n") for name in REMEDIES])
            axes.set_ylim(0, 1)
            axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
            axes.set_title(score, loc="left", fontsize=12)
            axes.grid(axis="x", visible=False)
        handles, names = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=2)


def _trained(side: str, directory: Path, options: Sequence[str], remedy: Sequence[str]) -> Run:
    run = Run(directory)
    if not run.finished:
        sides.start(
            f"{side}_impl.train", [*options, *remedy, f"--run.dir={directory}", "--run.overwrite=true"]
        )
    return run


if __name__ == "__main__":
    sys.exit(main())
