"""The report's figures: losses and their difference, layer by layer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from experiment.evaluation.figures import GREY, INK
from parity.report import drawing, formatting
from parity.report.drawing import KERAS, LIGHTNING, WIDE, Decades, Picture, thin
from parity.report.formatting import listed, number
from parity.report.results import Layers, Trajectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SERIES = {"eval": (drawing.GREEN, "o"), "train": (drawing.BLUE, "D"), "gradient": (drawing.ORANGE, "^")}
EVENTS = 12  # more changes of the learning rate than these are a schedule: no line for each

# === The whole run ===


def trajectory(run: Trajectory, key: str) -> Picture:
    """Both sides' losses over one another, and below them the size of their difference at every step."""
    return drawing.picture(partial(draw_trajectory, run), 480, 460, run.name, describe_trajectory(run), key)


def describe_trajectory(run: Trajectory) -> str:
    """The figure in words."""
    gaps, changes = differences(run), [step for step, _ in events(run)]
    said = []
    if np.isfinite(gaps).any():
        worst = int(np.nanargmax(gaps))
        said.append(f"Largest difference in {len(gaps)} steps: {number(gaps[worst])}, at step {worst + 1}.")
    if len(outside := np.flatnonzero(~(gaps <= run.tolerance))):
        said.append(
            f"Beyond the tolerance of {formatting.bound(run.tolerance)} from step {outside[0] + 1} on."
        )
    if (broken := np.flatnonzero(np.isnan(gaps))).size:
        said.append(f"NaN or infinite at {len(broken)} steps, the first of them {broken[0] + 1}.")
    if len(run.keras) != len(run.lightning):
        said.append(f"Keras made {len(run.keras)} steps, Lightning {len(run.lightning)}.")
    if changes:
        steps = f"at step{'s' * (len(changes) > 1)} {listed(changes)}"
        said.append(
            f"The learning rate changes {steps if len(changes) <= EVENTS else f'{len(changes)} times'}."
        )
    return " ".join(said) or "No step to compare."


def differences(run: Trajectory) -> np.ndarray:
    """|Keras's loss - Lightning's| at every step that both sides have; NaN where either is not finite."""
    steps = min(len(run.keras), len(run.lightning))
    with np.errstate(invalid="ignore"):
        gaps = np.abs(np.array(run.keras[:steps], float) - np.array(run.lightning[:steps], float))
    return np.where(np.isfinite(gaps), gaps, np.nan)


def events(run: Trajectory) -> list[tuple[int, float]]:
    """(step, counted from 1, new learning rate) wherever the learning rate changes."""
    rates = run.learning_rate or []
    return [(i + 1, rates[i]) for i in range(1, len(rates)) if rates[i] != rates[i - 1]]


def draw_trajectory(run: Trajectory, figure: Figure, width: int = WIDE) -> None:
    pad = 9 if width == WIDE else 25
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1.15, 1))
    look: dict[str, Any] = {"color": KERAS, "linewidth": 5, "alpha": 0.75, "solid_capstyle": "butt"}
    _losses(top, run.keras, label="Keras", **look)
    _losses(top, run.lightning, label="Lightning", color=LIGHTNING, linewidth=1.5, linestyle=(0, (4, 2.5)))
    drawing.heading(top, "training loss", pad)

    gaps = differences(run)
    scale, kept = Decades(gaps, run.tolerance), thin(gaps)
    dots: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 2.8, "markeredgewidth": 0}
    bottom.plot(kept + 1, scale.place(gaps[kept]), color=drawing.BLUE, label="a step", **dots)
    if len(gaps):
        largest = np.fmax.accumulate(gaps)[kept]
        bottom.plot(kept + 1, scale.place(largest), color=INK, linewidth=1.2, label="largest so far")
    drawing.heading(bottom, "|difference|", pad)
    drawing.log_axis(bottom, scale, run.tolerance, "y")
    bottom.set_xlabel("step")
    bottom.set_xlim(0, max(len(run.keras), len(run.lightning), 1) + 1)

    for axes in (top, bottom):
        side, x = ("right", 1.01) if width == WIDE else ("left", -0.01)
        look = {"ncols": 2, "borderpad": 0.1, "handlelength": 2.2, "columnspacing": 1.2}
        axes.legend(loc=f"lower {side}", bbox_to_anchor=(x, 0.98), **look)
    if len(changes := events(run)) <= EVENTS:
        for step, rate in changes:
            for axes in (top, bottom):
                axes.axvline(step, color=GREY, linewidth=1, linestyle=":", zorder=1)
            place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
            top.annotate(
                f"rate {rate:.3g}", (step, 0.98), (4, 0), va="top", fontsize=10, rotation=90, **place
            )


def _losses(axes: Axes, losses: list[float], **look: Any) -> None:
    values = np.array(losses, float)
    values = np.where(np.isfinite(values), values, np.nan)
    kept = thin(values)
    axes.plot(kept + 1, values[kept], **look)


# === Layers ===


def layers(found: Layers, key: str) -> Picture:
    """The difference of every layer's output in eval and train mode, and of its gradient."""
    title = f"{found.pair}, {found.backend}, {found.precision}"
    height = 90 + 21 * max(len(found.names), 3)
    return drawing.picture(partial(draw_layers, found), height, height, title, describe_layers(found), key)


def describe_layers(found: Layers) -> str:
    """The figure in words."""
    given = [(v, n, kind) for kind in SERIES for v, n in zip(getattr(found, kind), found.names, strict=True)]
    given = [(value, *rest) for value, *rest in given if value is not None]
    if not given:
        return "No layer was compared."
    value, name, kind = max(given, key=lambda found: np.inf if np.isnan(found[0]) else found[0])
    zeros = sum(value == 0 for value, *_ in given)
    said = f"{len(found.names)} layers. Largest: {number(value)}, in {name} ({kind})."
    said += f" {zeros} of {len(given)} exactly 0."
    return f"{said} {len(far)} beyond the tolerance." if (far := beyond(found)) else said


def beyond(found: Layers) -> list[str]:
    """The layer and the kind of every difference that is not within the tolerance."""
    return [
        f"{name} ({kind})"
        for kind in SERIES
        for name, value in zip(found.names, getattr(found, kind), strict=True)
        if value is not None and not value <= found.tolerance
    ]


def draw_layers(found: Layers, figure: Figure, width: int = WIDE) -> None:
    axes = figure.subplots()
    series = {kind: [(i, v) for i, v in enumerate(getattr(found, kind)) if v is not None] for kind in SERIES}
    scale = Decades([value for points in series.values() for _, value in points], found.tolerance)
    for shift, (kind, points) in zip((-0.25, 0, 0.25), series.items(), strict=True):
        colour, marker = SERIES[kind]
        look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 4.8, "markeredgewidth": 0}
        places = scale.place([value for _, value in points])
        axes.plot(places, [i + shift for i, _ in points], linestyle="", label=kind, clip_on=False, **look)
    drawing.log_axis(axes, scale, found.tolerance, "x", most=9 if width == WIDE else 4)
    axes.grid(axis="x", linewidth=0.5)
    drawing.rows(axes, found.names, 28 if width == WIDE else 20)
    figure.legend(loc="outside upper left", ncols=3, borderpad=0.2, handletextpad=0.2, columnspacing=1.4)
