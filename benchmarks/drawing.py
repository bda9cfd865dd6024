"""The figures of a benchmark's report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks import stats
from benchmarks.suite import Measured, Suite, digits
from experiment.evaluation import figures
from experiment.evaluation.figures import COLOURS, GREY


def bars(path: Path, suite: Suite, groups: Mapping[str, list[Measured]]) -> None:
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


def scaling(
    path: Path,
    title: str,
    axis: str,
    quantity: str,
    lines: Mapping[str, Mapping[float, list[float]]],
) -> None:
    """A line for each name over the numbers it was measured at: medians, whiskers to the quartiles."""
    with figures.page(path, (8.0, 4.6 + 0.2 * len(lines)), title) as figure:
        axes = figure.subplots()
        for place, (name, found) in enumerate(lines.items()):
            spreads = [stats.spread(samples) for samples in found.values()]
            whiskers = [[m - low for m, low, _ in spreads], [high - m for m, _, high in spreads]]
            axes.errorbar(
                list(found),
                [middle for middle, _, _ in spreads],
                yerr=whiskers,
                label=name,
                color=COLOURS[place % len(COLOURS)],
                linestyle="-" if place < len(COLOURS) else "--",
                marker="o",
                capsize=3,
            )
        axes.set_xscale("log", base=2)
        places = sorted({place for found in lines.values() for place in found})
        axes.set_xticks(places, [f"{place:,.0f}" for place in places])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set(xlabel=axis, ylabel=quantity)
        axes.grid()
        figure.legend(loc="outside lower center", ncols=2)


def shares(path: Path, title: str, rows: Mapping[str, Mapping[str, float]]) -> None:
    """A bar for each row, of the share of each of its parts, which are given in milliseconds."""
    wholes = [sum(row.values()) for row in rows.values()]
    names = [f"{name}: {digits(whole)} ms" for name, whole in zip(rows, wholes, strict=True)]
    with figures.page(path, (8.0, 2.1 + 0.5 * len(rows)), title) as figure:
        axes = figure.subplots()
        before = [0.0] * len(rows)
        for place, part in enumerate(next(iter(rows.values()))):
            widths = [max(row[part], 0) / whole for row, whole in zip(rows.values(), wholes, strict=True)]
            colour = GREY if part == "overhead" else COLOURS[place % len(COLOURS)]
            drawn = axes.barh(names, widths, left=before, color=colour, height=0.62, label=part)
            texts = [f"{width:.0%}" if width >= 0.045 else "" for width in widths]
            axes.bar_label(drawn, texts, label_type="center", color="white", fontsize=10)
            before = [a + b for a, b in zip(before, widths, strict=True)]
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
        axes.grid(axis="y", visible=False)
        figure.legend(loc="outside lower center", ncols=5)
