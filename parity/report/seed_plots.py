"""The report's figures of what training comes to: each default's cost, accuracies over seeds."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from experiment.evaluation.figures import GREY, INK
from parity.report import drawing, formatting
from parity.report.drawing import BEYOND, BOUND, KERAS, LIGHTNING, WIDE, Decades, Picture
from parity.report.results import Ablation, Accuracy, Comparison

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def ablation(found: Ablation, key: str) -> Picture:
    """The cost of each unmatched default: the losses' difference, and the accuracies over seeds."""
    height = 70 + 26 * len(found.rows)
    about = f"{len(found.rows)} setups: how far the loss moves, and the test accuracy of every seed."
    return drawing.picture(
        partial(draw_ablation, found), height, 2 * height, "Cost of each default", about, key
    )


def draw_ablation(found: Ablation, figure: Figure, width: int = WIDE) -> None:
    beside = width == WIDE
    left, right = figure.subplots(*((1, 2) if beside else (2, 1)), sharey=beside)
    scale = Decades([row.loss_difference for row in found.rows], found.threshold)
    places, rows = scale.place([row.loss_difference for row in found.rows]), range(len(found.rows))
    left.hlines(rows, scale.limits[0], places, color=KERAS, linewidth=4)
    left.plot(places, rows, "o", color=drawing.BLUE, markersize=6, markeredgewidth=0, clip_on=False)
    drawing.heading(left, "difference in the loss", pad=22)
    drawing.log_axis(left, scale, found.threshold, "x", "threshold", most=6 if beside else 4)
    for i, row in enumerate(found.rows):
        seeds = np.array(row.accuracies, float)
        right.plot(
            seeds, np.full(len(seeds), i), "o", color=KERAS, markersize=6, markeredgewidth=0, alpha=0.8
        )
        if len(seeds):
            right.plot([seeds.mean()], [i], "|", color=INK, markersize=14, markeredgewidth=2)
    drawing.heading(right, "test accuracy of each seed", pad=22)
    right.xaxis.set_major_formatter(_percent)
    right.locator_params(axis="x", nbins=6 if beside else 4)
    for axes in (left, right):
        drawing.rows(axes, [row.name for row in found.rows], 34 if beside else 24)


def accuracy(found: Accuracy, key: str) -> Picture:
    """Both sides' accuracy with every seed, and the intervals of the mean differences against the margin."""
    height = 130 + 34 * max(len(found.comparisons), 2)
    first = found.comparisons[0] if found.comparisons else None
    about = f"{len(found.seeds)} seeds, {found.test_images} test images. A dot is a seed, a bar the "
    about += (
        f"{100 * (1 - 2 * found.alpha):g} % interval of the mean difference; it must lie within the margin."
    )
    if first is not None:
        about += f" {first.name}: {formatting.points(first.ci_low)} to {formatting.points(first.ci_high)}"
        about += f", margin ±{100 * found.margin:g} pp."
    return drawing.picture(
        partial(draw_accuracy, found), height, height + 170, "Accuracy over seeds", about, key
    )


def draw_accuracy(found: Accuracy, figure: Figure, width: int = WIDE) -> None:
    beside = width == WIDE
    panels: dict[str, Any] = {"width_ratios": (1, 1.5)} if beside else {"height_ratios": (1, 1.6)}
    left, right = figure.subplots(*((1, 2) if beside else (2, 1)), **panels)
    dots: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 6, "markeredgewidth": 0}

    samples = [side.own.accuracies for side in found.sides.values()]
    for pair in zip(*samples, strict=False):
        left.plot(pair, range(len(pair)), color=GREY, linewidth=0.8, zorder=1)
    for i, (sample, colour) in enumerate(zip(samples, (KERAS, LIGHTNING), strict=False)):
        left.plot(sample, [i] * len(sample), color=colour, **dots)
        left.plot([np.mean(sample)], [i], "|", color=INK, markersize=18, markeredgewidth=2)
    drawing.heading(left, "test accuracy, seed by seed")
    drawing.rows(left, [name.capitalize() for name in found.sides], 20)

    for i, one in enumerate(found.comparisons):
        right.plot(one.differences, [i + 0.2] * len(one.differences), color=GREY, **dots | {"markersize": 4})
        right.plot([one.ci_low, one.ci_high], [i, i], color=KERAS, linewidth=5, solid_capstyle="butt")
        right.plot([one.difference], [i], color=INK, **dots)
    reach = 1.15 * max(found.margin, *(abs(x) for one in found.comparisons for x in _extent(one)), 0)
    right.set_xlim(-reach, reach)
    right.axvline(0, color=GREY, linewidth=1)
    for sign in (-1, 1):
        right.axvspan(sign * found.margin, sign * reach, color=BEYOND, zorder=0)
        right.axvline(sign * found.margin, color=BOUND, linewidth=1.2, linestyle="--", zorder=1)
    drawing.heading(right, "difference, second minus first")
    drawing.rows(right, [one.name for one in found.comparisons], 26)
    left.xaxis.set_major_formatter(_percent)
    right.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.4g} pp".replace("-", "−"))
    for axes in (left, right):
        axes.locator_params(axis="x", nbins=5)


def _extent(one: Comparison) -> tuple[float, ...]:
    return tuple(x for x in (*one.differences, one.ci_low, one.ci_high) if np.isfinite(x))


def _percent(share: float, _: object) -> str:
    return f"{100 * share:.4g} %"
