"""The figures of a search, in the style of a run's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiment.evaluation.figures import COLOURS, GREY, INK, page

Trials = Sequence[Any]  # Optuna's FrozenTrial
BLUE, ORANGE = COLOURS[:2]
LABEL = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}


def history(path: Path, trials: Trials, monitor: str, direction: str) -> None:
    """Each trial's value, the best so far, and where stopped trials ended."""
    done = [t for t in trials if t.state.name == "COMPLETE"]
    stopped = [t for t in trials if t.state.name == "PRUNED" and t.intermediate_values]
    best = (np.minimum if direction == "minimize" else np.maximum).accumulate([t.value for t in done])
    with page(path, (7.5, 4.2), "Trials, as they came") as figure:
        axes = figure.add_subplot()
        axes.grid()
        last = [t.intermediate_values[max(t.intermediate_values)] for t in stopped]
        axes.plot([t.number for t in stopped], last, "x", color=GREY, label="stopped")
        axes.plot([t.number for t in done], [t.value for t in done], "o", color=BLUE, label="completed")
        axes.step([t.number for t in done], best, where="post", color=ORANGE, label="best so far")
        axes.set(xlabel="trial", ylabel=monitor)
        axes.locator_params(axis="x", integer=True)
        figure.legend(loc="outside lower center", ncols=3)


def slices(path: Path, done: Trials, keys: Sequence[str], monitor: str) -> None:
    """The value of each completed trial over each key."""
    columns = min(3, len(keys))
    rows = -(-len(keys) // columns)
    with page(path, (3.6 * columns + 0.6, 3.2 * rows + 0.6), "Values by key") as figure:
        panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
        for axes, key in zip(panels, keys, strict=False):
            places, ticks, log = _axis(done, key)
            axes.scatter(places, [t.value for t in done], color=BLUE, s=28, alpha=0.8, linewidths=0)
            axes.set_title(key, fontsize=11)
            axes.grid()
            if log:
                axes.set_xscale("log")
                axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
                axes.xaxis.set_minor_formatter("")
            if ticks:
                axes.set_xticks(range(len(ticks)), ticks, fontsize=10)
                axes.set_xlim(-0.5, len(ticks) - 0.5)
        for axes in panels[len(keys) :]:
            axes.set_axis_off()
        for axes in panels[::columns]:
            axes.set_ylabel(monitor)


def parallel(path: Path, done: Trials, keys: Sequence[str], monitor: str) -> None:
    """A line a completed trial through its value of every key, the better the darker, on scales of 0 to 1."""
    from matplotlib import colormaps

    columns = [(monitor, [t.value for t in done], [], False)]
    columns += [(key, *_axis(done, key)) for key in keys]
    scaled = np.stack([_scaled(values, ticks, log) for _, values, ticks, log in columns], 1)
    order = np.argsort(np.argsort(_signed(scaled[:, 0], monitor)))
    shade = order / max(len(done) - 1, 1)
    with page(path, (1.9 * len(columns) + 1.0, 4.6), "Completed trials, the better the darker") as figure:
        axes = figure.add_subplot()
        for i in np.argsort(shade):
            colour = colormaps["Blues"](0.15 + 0.8 * shade[i])
            axes.plot(scaled[i], color=colour, linewidth=1 + 1.5 * shade[i])
        for place, (_, values, ticks, _log) in enumerate(columns):
            axes.axvline(place, color=INK, linewidth=0.8)
            if ticks:
                ends = [(i / max(len(ticks) - 1, 1), tick) for i, tick in enumerate(ticks)]
            else:
                ends = [(0.0, f"{min(values):.3g}"), (1.0, f"{max(values):.3g}")]
            for height, text in ends:
                axes.text(place + 0.04, height, text, fontsize=9, va="center", bbox=LABEL)
        axes.set_xticks(range(len(columns)), [name.replace(".", ".\n") for name, *_ in columns], fontsize=10)
        axes.set_yticks([])
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.tick_params(length=0)
        axes.margins(x=0.06)


def importance(path: Path, shares: Mapping[str, float], monitor: str) -> None:
    """Each key's share of the variance, largest on top."""
    with page(path, (7.5, 1.2 + 0.45 * len(shares)), f"What {monitor} depends on") as figure:
        axes = figure.add_subplot()
        bars = axes.barh(list(shares)[::-1], list(shares.values())[::-1], color=BLUE)
        axes.bar_label(bars, [f"{share:.0%}" for share in list(shares.values())[::-1]], padding=4)
        axes.set_xlim(0, 1.12 * max(shares.values()))
        axes.set_xlabel("share of the variance (fANOVA)")
        axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")


def _axis(done: Trials, key: str) -> tuple[list[Any], list[str], bool]:
    """Places of the trials on a key's axis, names of the places where they are choices, and if it is log."""
    values = [t.params[key] for t in done]
    domain: Any = done[0].distributions[key]
    if hasattr(domain, "choices"):
        return [domain.choices.index(v) for v in values], [str(c) for c in domain.choices], False
    return values, [], domain.log


def _scaled(values: Sequence[Any], ticks: Sequence[str], log: bool) -> np.ndarray:
    numbers = np.asarray(values, float)
    if ticks:
        return numbers / max(len(ticks) - 1, 1)
    numbers = np.log(numbers) if log else numbers
    spread = np.ptp(numbers)
    return (numbers - numbers.min()) / spread if spread else np.full(len(numbers), 0.5)


def _signed(values: np.ndarray, monitor: str) -> np.ndarray:
    return -values if monitor == "val_loss" else values
