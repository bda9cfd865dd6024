"""Drawing of the report's figures: inline SVG in the page's colours, log axes with a place for zero."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np

from experiment.evaluation.figures import FAINT, GREY, INK, STYLE
from experiment.evaluation.metrics import shorten
from parity.report import formatting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KERAS, LIGHTNING, BOUND, BEYOND = "#56a7d9", "#8a3b00", "#b4002d", "#fbe9ed"
GREEN, BLUE, ORANGE = "#00795c", "#0072b2", "#b85c00"
# The page's own names of these colours, which it sets for light, dark and print.
PAGE = {
    INK: "ink",
    GREY: "grey",
    FAINT: "faint",
    KERAS: "keras",
    LIGHTNING: "lightning",
    BOUND: "bad",
    BEYOND: "beyond",
    GREEN: "green",
    BLUE: "blue",
    ORANGE: "orange",
}
WIDE, NARROW = 960, 343  # CSS pixels; the narrow one fits a phone of 375
BINS = 300


@dataclass(frozen=True)
class Picture:
    """One figure in two widths, with what it shows in words."""

    title: str
    description: str
    wide: str
    narrow: str


def thin(values: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Indices of every bin's smallest, largest and first NaN; all where there are few."""
    if len(values) <= 2 * bins:
        return np.arange(len(values))
    keep: set[int] = set()
    for part in np.array_split(np.arange(len(values)), bins):
        missing = np.isnan(values[part])
        if missing.any():
            keep.add(int(part[missing.argmax()]))
        if not missing.all():
            keep |= {int(part[i]) for i in (np.nanargmin(values[part]), np.nanargmax(values[part]))}
    return np.array(sorted(keep))


class Decades:
    """A log axis in decades, with a place for exact zeros at its foot and for NaN and infinity at its head.

    `low` and `high` are exponents of ten; zeros stand one below `low`, what is not finite one above `high`.
    """

    def __init__(self, values: Sequence[float] | np.ndarray, *bounds: float) -> None:
        magnitudes = np.abs(np.array([*values, *bounds], dtype=float))
        usable = magnitudes[np.isfinite(magnitudes) & (magnitudes > 0)]
        usable = usable if len(usable) else np.ones(1)
        self.low = int(np.floor(np.log10(usable.min())))
        self.high = max(int(np.ceil(np.log10(usable.max()) + 0.2)), self.low + 1)
        self.zeros = bool((magnitudes == 0).any())
        self.broken = bool((~np.isfinite(magnitudes)).any())

    def place(self, values: Sequence[float] | np.ndarray) -> np.ndarray:
        """The places of values on the axis, as exponents."""
        magnitudes = np.abs(np.asarray(values, dtype=float))
        with np.errstate(divide="ignore"):
            exponents = np.log10(magnitudes)
        exponents = np.where(np.isfinite(magnitudes), exponents, self.high + 1)
        return np.where(magnitudes == 0, self.low - 1, exponents)

    def ticks(self, most: int) -> tuple[list[float], list[str]]:
        """Places and labels of at most `most` decades, of zero, and of what is not finite."""
        step = -(-(self.high - self.low + 1) // most)
        top, foot = self.high + self.broken, self.low - self.zeros
        decades = range(top, self.low - 1, -step)
        kept = [e for e in decades if e <= self.high and (not self.zeros or e - foot >= step / 2)]
        marks = [(foot, "0")] * self.zeros + [(e, f"1e{e}" if e else "1") for e in reversed(kept)]
        marks += [(top, "NaN, ∞")] * self.broken
        return [float(place) for place, _ in marks], [text for _, text in marks]

    @property
    def limits(self) -> tuple[float, float]:
        return self.low - 0.4 - self.zeros, self.high + 0.2 + self.broken


# === Axes ===


def heading(axes: Axes, text: str, pad: float = 9) -> None:
    """A panel's name above its left edge."""
    axes.set_title(text, loc="left", fontsize=12, fontweight="bold", pad=pad)
    axes.tick_params(length=0, which="both")
    axes.grid(axis="y", linewidth=0.8)


def rows(axes: Axes, names: Sequence[str], longest: int) -> None:
    """One line a name, the first on top; names keep at most `longest` characters."""
    axes.set_yticks(range(len(names)), [shorten(name, longest) for name in names], fontsize=11)
    axes.set_ylim(max(len(names), 1) - 0.4, -0.6)
    axes.tick_params(length=0, which="both")
    axes.grid(axis="y", linewidth=0.8)
    axes.spines["left"].set_visible(False)


def log_axis(
    axes: Axes, scale: Decades, bound: float, along: str, name: str = "tolerance", most: int = 6
) -> None:
    """Lay `scale` along x or y, mark the bound and what lies beyond it."""
    (place,) = scale.place([bound])
    label: dict[str, Any] = {"color": BOUND, "fontsize": 10, "textcoords": "offset points"}
    if along == "x":
        axes.set_xticks(*scale.ticks(most))
        axes.set_xlim(*scale.limits)
        axes.axvspan(place, scale.limits[1], color=BEYOND, zorder=0)
        axes.axvline(place, color=BOUND, linewidth=1.2, linestyle="--", zorder=1)
        label |= {"xycoords": ("data", "axes fraction"), "ha": "center", "va": "bottom"}
        axes.annotate(f"{name} {formatting.bound(bound)}", (place, 1), (0, 3), **label)
    else:
        axes.set_yticks(*scale.ticks(most))
        axes.set_ylim(*scale.limits)
        axes.axhspan(place, scale.limits[1], color=BEYOND, zorder=0)
        axes.axhline(place, color=BOUND, linewidth=1.2, linestyle="--", zorder=1)
        label |= {"xycoords": ("axes fraction", "data"), "ha": "left", "va": "top"}
        axes.annotate(f"{name} {formatting.bound(bound)}", (0, place), (4, -3), **label)


# === Inline SVG ===


def picture(
    draw: Callable[[Figure, int], None], wide: int, narrow: int, title: str, about: str, key: str
) -> Picture:
    """Draw a figure twice, `wide` and `narrow` pixels high; `key` is its name on the page."""
    drawings = (
        _svg(draw, width, height, title, about, f"{key}-{name}")
        for name, width, height in (("wide", WIDE, wide), ("narrow", NARROW, narrow))
    )
    return Picture(title, about, *drawings)


def _svg(
    draw: Callable[[Figure, int], None], width: int, height: int, title: str, about: str, key: str
) -> str:
    import matplotlib
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {**STYLE, "svg.fonttype": "none", "svg.hashsalt": key, "font.size": 12}
    buffer = StringIO()
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")  # 72 dpi: a unit is a pixel
        draw(figure, width)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    # One page holds many drawings: ids of their own, the page's fonts and colours, no style for the page.
    body = buffer.getvalue().partition("<svg")[2].partition(">")[2]
    body = re.sub(r"<style.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{key}-", body)
    body = re.sub(r"font-family: [^;\"]+", "font-family: var(--sans)", body)
    body = re.sub(rf": ({'|'.join(PAGE)})\b", lambda found: f": var(--{PAGE[found[1]]})", body)
    body = re.sub(r'\b[dxy]="[^"]*"', lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found[0]), body)
    body = re.sub(r"\n\s*", "\n", body)
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-labelledby="{key}-title {key}-about">'
        f'<title id="{key}-title">{escape(title)}</title><desc id="{key}-about">{escape(about)}</desc>{body}'
    )
