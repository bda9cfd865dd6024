"""What a suite measured as results.json, README.md and bars.png."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from benchmarks import stats
from benchmarks.collect import Sample
from experiment import figures
from experiment.figures import COLOURS, GREY
from experiment.run import replacing

Measured = dict[str, Any]  # a cell and its samples, as plain values


class Reported(Protocol):
    """What the report asks of a suite."""

    title: str
    quantity: str  # of `value`, with its unit
    higher_is_better: bool
    notes: str

    def value(self, sample: Sample) -> float: ...

    def baseline(self, names: list[str]) -> str:
        """The cell that the others of a group are set in relation to."""
        ...

    def columns(self, cell: Measured) -> dict[str, str]:
        """More that the table says of a cell."""
        ...


def write(out: Path, suite: Reported, values: dict[str, Any]) -> Path:
    """Write the report into `out` and return the path of its README.md."""
    out.mkdir(parents=True, exist_ok=True)
    with replacing(out / "results.json") as path:
        path.write_text(json.dumps(values, indent=1) + "\n")
    groups = grouped(values["cells"])
    draw(out / "bars.png", suite, groups)
    with replacing(out / "README.md") as path:
        path.write_text(markdown(suite, values, groups))
    return out / "README.md"


def grouped(cells: Iterable[Measured]) -> dict[str, list[Measured]]:
    """The cells that share a setting, under its words."""
    groups: dict[str, list[Measured]] = {}
    for cell in cells:
        name = ", ".join(f"{name} {value}" for name, value in cell["setting"].items())
        groups.setdefault(name, []).append(cell)
    return groups


def markdown(suite: Reported, values: dict[str, Any], groups: dict[str, list[Measured]]) -> str:
    """A table for each group, and how it was measured."""
    lines = [f"# {suite.title}", "", suite.notes, "", "![bars](bars.png)", ""]
    for name, cells in groups.items():
        found = {cell["name"]: [suite.value(one) for one in cell["samples"]] for cell in cells}
        base = suite.baseline(list(found))
        more = [suite.columns(cell) for cell in cells]
        heads = ["", suite.quantity, "quartiles", f"times {base}", "95 % interval", *more[0]]
        lines += [f"## {name}", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        for (cell, numbers), extra in zip(found.items(), more, strict=True):
            middle, low, high = stats.spread(numbers)
            times = stats.ratio(numbers, found[base])
            texts = [cell, digits(middle), f"{digits(low)} to {digits(high)}", f"{times[0]:.3f}"]
            interval = "–" if cell == base else f"{times[1]:.3f} to {times[2]:.3f}"
            lines.append(f"| {' | '.join([*texts, interval, *extra.values()])} |")
        lines.append("")
    if parts := values.get("phases"):
        said = ", ".join(
            f"{name} {digits(one)} ms ({one / sum(parts.values()):.0%})" for name, one in parts.items()
        )
        lines += [f"Where a step of Lightning's goes, without its Trainer: {said}.", ""]
    facts = values["environment"]
    lines += [
        f"Medians and quartiles over {values['turns']} processes a row, in turns; intervals by bootstrap.",
        "The machine is shared: read the ratios, not the speeds.",
        "",
        f"`{shlex.join(values['command'])}`",
        "",
        f"{facts['cpu']}, {facts['cores']} cores, {facts['platform']}, Python {facts['python']}; "
        + ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
        + f"; {facts['git_revision']}, {facts['utc']}.",
    ]
    return "\n".join(lines) + "\n"


def digits(value: float) -> str:
    """Three significant digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def draw(path: Path, suite: Reported, groups: dict[str, list[Measured]]) -> None:
    """A panel for each group: a bar for each cell to its median, whiskers to the quartiles."""
    rows = sum(len(cells) for cells in groups.values())
    better = "more" if suite.higher_is_better else "less"
    size = (8.0, 1.2 + 0.32 * rows + 0.7 * len(groups))
    with figures.page(path, size, f"{suite.title} ({suite.quantity}; {better} is better)") as figure:
        ratios = [len(cells) + 1 for cells in groups.values()]
        panels = figure.subplots(len(groups), 1, squeeze=False, gridspec_kw={"height_ratios": ratios})[:, 0]
        for axes, (name, cells) in zip(panels, groups.items(), strict=True):
            found = [stats.spread([suite.value(one) for one in cell["samples"]]) for cell in cells]
            middles = [one[0] for one in found]
            whiskers = [[m - low for m, low, _ in found], [high - m for m, _, high in found]]
            names = [cell["name"] for cell in cells]
            base = suite.baseline(names)
            colours = [GREY if one == base else COLOURS[0] for one in names]
            axes.barh(names, middles, xerr=whiskers, color=colours, height=0.62, error_kw={"linewidth": 1})
            for place, value in enumerate(middles):
                beside = (found[place][2], place)
                axes.annotate(digits(value), beside, (4, 0), textcoords="offset points", va="center")
            axes.invert_yaxis()
            axes.set_title(name, loc="left", fontsize=11)
            axes.margins(x=0.12)
            axes.grid(axis="y", visible=False)
