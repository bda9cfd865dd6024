"""Studies of `train` on both sides: each a few runs that differ in an option or two."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiment.evaluation import figures
from experiment.evaluation.figures import COLOURS
from experiment.runs.record import Run
from experiment.system import markdown, processes
from experiment.system.environment import environment_line
from experiment.system.files import replacing

SIDES = ("keras", "lightning")
Row = dict[str, Any]
CHANCE = (
    "One seed, and each side draws its own dropout masks: what the two differ by here is chance, and is not "
    "small after so few epochs. That they train the same numbers is the matter of `python -m parity`."
)


def trained(side: str, directory: Path, options: Sequence[str]) -> Run:
    """A finished run of `train` with these options: trained now, unless it was before. Raises SideError."""
    run = Run(directory)
    if not run.finished:
        processes.start(f"{side}_impl.train", [*options, f"--run.dir={directory}", "--run.overwrite=true"])
    return run


def page(lines: Sequence[str], picture: str, rows: Sequence[Row], after: str, command: str, run: Run) -> str:
    """A report in Markdown: `lines`, a picture, the rows as a table, and how it was made."""
    return "\n".join(
        [
            *lines,
            "",
            f"![{Path(picture).stem}]({picture})",
            "",
            markdown.table(list(rows[0]), [list(row.values()) for row in rows]),
            "",
            after,
            "",
            CHANCE,
            "",
            f"`{command}`",
            "",
            environment_line(run.read_json("environment.json")),
            "",
        ]
    )


def write(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text)


def kept(
    path: Path, key: str, new: Mapping[str, Any], order: Iterable[str], facts: Mapping[str, Any]
) -> tuple[dict[str, Any], bool]:
    """Write results by name into a JSON file, beside those of other names that it has already.

    Returns all of them in their order, and True where some are of runs before. key: of the results in it.
    """
    before = json.loads(path.read_text())[key] if path.is_file() else {}
    together = {**before, **new}
    together = {name: together[name] for name in order if name in together}
    write(path, json.dumps({key: together, "facts": facts}, indent=1))
    return together, bool(before.keys() - new.keys())


def bars(path: Path, title: str, rows: Sequence[Row], groups: str, scores: Sequence[str]) -> None:
    """Each score of both sides as bars, grouped by the rows' value of `groups`."""
    names = list(dict.fromkeys(row[groups] for row in rows))
    with figures.page(path, (4.0 * len(scores), 4.2), title) as figure:
        for place, score in enumerate(scores):
            axes = figure.add_subplot(1, len(scores), place + 1)
            for offset, side in enumerate(SIDES):
                found = [row[score] for row in rows if row["side"] == side]
                places = [number + 0.4 * offset - 0.2 for number in range(len(found))]
                drawn = axes.bar(places, found, width=0.38, color=COLOURS[offset], label=side)
                axes.bar_label(drawn, [f"{one:.0%}" for one in found], fontsize=10)
            axes.set_xticks(range(len(names)), [name.replace(" ", "\n") for name in names])
            axes.set_ylim(0, 1)
            axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
            axes.set_title(score, loc="left", fontsize=12)
            axes.grid(axis="x", visible=False)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
