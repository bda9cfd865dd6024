"""The figures of a run record, made without pyplot, so that no backend is chosen and no figure stays open."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiment.evaluation.metrics import shorten
from experiment.system.files import replacing
from experiment.system.names import printable


def mistakes(
    path: str | Path, images: np.ndarray, y_true: np.ndarray, probabilities: np.ndarray, names: Sequence[str]
) -> Path:
    """Draw wrongly classified images with what they were taken for, how surely, and what they are.

    images: (K, H, W, 3) uint8, K at least 1; y_true: (K,); probabilities: (K, C). Returns `path`.
    """
    columns = min(5, len(images))
    rows = -(-len(images) // columns)
    with page(path, (1.9 * columns, 0.5 + 2.1 * rows), "most confident mistakes") as figure:
        for i, (image, label, row) in enumerate(zip(images, y_true, probabilities, strict=True)):
            axes = figure.add_subplot(rows, columns, i + 1, frame_on=False, xticks=(), yticks=())
            axes.imshow(image, interpolation="nearest")
            taken, true = (shorten(str(names[one]), 20) for one in (row.argmax(), label))
            axes.set_title(textwrap.fill(f"{taken} {row.max():.0%}", 18), fontsize=11, pad=3)
            axes.set_xlabel(textwrap.fill(f"is: {true}", 18), fontsize=10)
    return Path(path)


def calibration(path: str | Path, found: Mapping[str, Any], title: str) -> Path:
    """Draw accuracy over confidence, and how many images stand behind each point.

    found: as `experiment.evaluation.error_analysis.calibration` returns it. Returns `path`.
    """
    count = np.array(found["count"])
    filled, bins = count > 0, len(count)
    with page(path, (6.4, 6.6), title) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (3, 1)})
        upper.plot((0, 1), (0, 1), color=GREY, linewidth=1, linestyle="--", label="perfect calibration")
        points = [np.array(found[name])[filled] for name in ("confidence", "accuracy")]
        upper.plot(*points, color=COLOURS[0], marker="o", linewidth=2, label="this model")
        upper.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
        upper.set_title(f"expected calibration error {found['ece']:.3f}", loc="left", fontsize=12)
        upper.legend(loc="upper left")
        upper.grid()
        lower.bar((np.arange(bins) + 0.5) / bins, count, width=0.9 / bins, color=COLOURS[0])
        lower.set(xlabel="confidence", ylabel="images")
        lower.grid(axis="y")
    return Path(path)


# matplotlib takes half a second to import and `train --help` needs none of it: imported where it draws.
if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

History = Mapping[str, Sequence[float]]
Names = Sequence[str]

INK, GREY, FAINT = "#1f2933", "#9aa5b1", "#e3e7ec"
# Okabe and Ito's colours, distinct for colour-blind readers too, without their yellow (pale on white).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
STYLE: dict[Any, Any] = {
    "font.size": 12,
    "text.parse_math": False,  # a class may be called "$5" or "a_$b$"
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    **dict.fromkeys(("figure.constrained_layout.h_pad", "figure.constrained_layout.w_pad"), 0.08),
    "axes.edgecolor": GREY,
    "axes.axisbelow": True,
    "grid.color": FAINT,
}


def samples(
    path: str | Path, images: np.ndarray, labels: np.ndarray, augmented: np.ndarray | None, class_names: Names
) -> Path:
    """Draw the first 25 images with their labels and, beside them, the same images augmented.

    `images` and `augmented`: (N, H, W, 3) uint8; `labels`: (N,) indices into `class_names`. Returns `path`.
    Raises ValueError when the shapes do not fit.
    """
    grids = {"as loaded": images} | ({} if augmented is None else {"augmented": augmented})
    if not len(labels) or any(grid.ndim != 4 or len(grid) != len(labels) for grid in grids.values()):
        shapes = [grid.shape for grid in grids.values()]
        raise ValueError(f"images must be (N, H, W, 3) for N = {len(labels)} labels, N at least 1: {shapes}")
    titles = [textwrap.fill(shorten(str(class_names[label]), 20), 11) for label in labels[:25]]
    rows = -(-len(titles) // 5)
    height = 0.5 + rows * (0.95 + 0.18 * max(text.count("\n") + 1 for text in titles))
    with page(path, (5.2 * len(grids), height), "") as figure:
        parts = figure.subfigures(1, len(grids), squeeze=False, wspace=0.04)[0]
        for part, (heading, pictures) in zip(parts, grids.items(), strict=True):
            part.suptitle(heading, fontsize=14, fontweight="bold")
            for i, title in enumerate(titles):
                axes = part.add_subplot(rows, 5, i + 1, frame_on=False, xticks=(), yticks=())
                axes.imshow(pictures[i], interpolation="nearest")
                axes.set_title(title, fontsize=10, pad=3)
    return Path(path)


def curves(path: str | Path, history: History, best_epoch: int | None, title: str) -> Path:
    """Draw loss, accuracy and learning rate by epoch, with the best epoch marked.

    `history`: the columns of history.csv, `epoch` counted from 1, accuracies in [0, 1]; NaN leaves a gap.
    Returns `path`. Raises KeyError when a column is missing, ValueError when there is no epoch, when
    columns differ in length, or when `best_epoch` is not among the epochs.
    """
    columns = {name: np.asarray(values, dtype=float) for name, values in history.items()}
    if best_epoch is not None and best_epoch not in columns["epoch"]:
        raise ValueError(f"best epoch {best_epoch} is not among the epochs of the history")
    with page(path, (7.5, 10), title) as figure:
        panels = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1.6))
        for axes, name in zip(panels, ("loss", "accuracy"), strict=False):
            _panel(axes, name, columns["epoch"], pad=30)
            _line(axes, columns, name, 2, color=COLOURS[1], label="training")
            _line(axes, columns, f"val_{name}", 2, color=COLOURS[0], label="validation")
            if best_epoch is not None:
                value = columns[f"val_{name}"][columns["epoch"] == best_epoch][0]
                label = f"best epoch {best_epoch}: {value:{'.2%' if name == 'accuracy' else '.4f'}}"
                ring = {"marker": "o", "markersize": 12, "markerfacecolor": "none", "markeredgewidth": 2}
                axes.plot([best_epoch], [value], color=INK, linestyle=":", linewidth=1, label=label, **ring)
            axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.98), ncols=3, columnspacing=1.4)
        _panel(panels[2], "learning rate", columns["epoch"])
        _line(panels[2], columns, "learning_rate", 2, color=COLOURS[2], drawstyle="steps-mid")
        for axes in panels if best_epoch is not None else ():
            axes.axvline(best_epoch, color=INK, linewidth=1, linestyle=":", zorder=1)
        # A cosine that ends at 0 has no place on a log axis.
        if (rates := columns["learning_rate"]).min() > 0 and rates.max() > 10 * rates.min():
            panels[2].set_yscale("log")
            panels[2].yaxis.set_minor_formatter("")
        else:
            panels[2].set_ylim(bottom=0)
        panels[2].yaxis.set_major_formatter("{x:g}")
        panels[2].set_xlabel("epoch")
    return Path(path)


def side_by_side(path: str | Path, histories: Mapping[str, History], title: str) -> Path:
    """Draw loss and accuracy of several runs in one figure: a colour a run, training dashed.

    `histories`: run name -> history as for `curves`. Returns `path`. Raises KeyError and ValueError as
    `curves` does, and ValueError when there is no run.
    """
    count = len(histories)
    colours = [COLOURS[i % len(COLOURS)] for i in range(count)]
    # Equal runs lie on one another: the earlier one is wider, so that both are seen.
    widths = [1.6 + min(4, 8 / count) * (1 - (i + 1) / count) for i in range(count)]
    with page(path, (7.5, 9 + 0.12 * count), title) as figure:
        panels = figure.subplots(2, 1, sharex=True)
        for axes, name in zip(panels, ("loss", "accuracy"), strict=True):
            _panel(axes, name, np.concatenate([run["epoch"] for run in histories.values()]))
            for run, colour, width in zip(histories.values(), colours, widths, strict=True):
                _line(axes, run, name, width, color=colour, linestyle="--", alpha=0.6)
                _line(axes, run, f"val_{name}", width, color=colour)
        panels[1].set_xlabel("epoch")
        # Lines without points: entries of the legend alone.
        keys = [panels[1].plot([], [], color=colour, linewidth=4)[0] for colour in colours]
        keys += [panels[1].plot([], [], color=INK, linestyle=style)[0] for style in ("-", "--")]
        names = [*(shorten(printable(name), 36) for name in histories), "validation", "training"]
        figure.legend(keys, names, loc="outside lower center", ncols=2)
    return Path(path)


def step_by_step(path: str | Path, losses: Mapping[str, np.ndarray], title: str) -> Path:
    """Draw the loss of every step of two runs, and below it how far apart the two are, on a log axis.

    `losses`: run name -> (steps,), as many of both. Returns `path`. Raises ValueError for anything else.
    """
    if len(losses) != 2 or len({values.shape for values in losses.values()}) != 1:
        raise ValueError("two runs of as many steps are compared step by step")
    from matplotlib.ticker import NullLocator

    one, other = losses.values()
    steps, apart = np.arange(1, len(one) + 1), np.abs(one - other)
    with page(path, (7.5, 6.2), title) as figure:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        for axes, name in ((above, "loss of a step"), (below, "how far apart the two losses are")):
            axes.set_title(name, loc="left", fontsize=13, fontweight="bold", pad=8)
            axes.grid()
            axes.tick_params(length=0, which="both")
        for (name, values), colour, width in zip(losses.items(), COLOURS, (4.5, 1.5), strict=False):
            above.plot(steps, values, color=colour, linewidth=width, label=shorten(printable(name), 36))
        above.legend()
        below.plot(steps, np.where(apart > 0, apart, np.nan), color=COLOURS[2], linewidth=1.2)
        if (apart > 0).any():
            below.set_yscale("log")
            below.yaxis.set_major_formatter(lambda value, _: f"{value:.0e}".replace("e-0", "e-"))
            below.yaxis.set_minor_locator(NullLocator())
        else:
            below.text(0.5, 0.5, "equal to the last bit", transform=below.transAxes, ha="center", color=INK)
        below.set_xlabel("step")
        below.set_xlim(0, len(steps) + 1)
    return Path(path)


def confusion(path: str | Path, matrix: np.ndarray, class_names: Names, title: str) -> Path:
    """Draw a confusion matrix, coloured by the share of the true class, with each class's recall.

    `matrix`: (C, C) integers, row = true, column = predicted. Above 30 classes the numbers would be too
    small to read and a colour bar stands in; above 100 every second class is named, or fewer. Returns `path`.
    Raises ValueError when the shapes do not fit.
    """
    classes = len(class_names)
    if matrix.shape != (classes, classes):
        raise ValueError(f"the confusion matrix {matrix.shape} must be square, for {classes} classes")
    support = matrix.sum(axis=1, keepdims=True)
    share = np.divide(matrix, support, out=np.zeros(matrix.shape), where=support > 0)
    recall = np.diag(share)
    numbers = classes <= 30
    cell = min(max(0.62, 2.6 / classes), 13 / classes)  # inches
    left = 1.025 * classes - 0.5  # edges of the recall column, in cells
    right = left + max(1.35, 0.06 * classes)
    size = (cell * (right + 0.5) + (2.2 if numbers else 3.2), cell * classes + 2.2)
    with page(path, size, title) as figure:
        axes = figure.subplots()
        look: dict[str, Any] = {"cmap": "Blues", "vmin": 0, "vmax": 1, "interpolation": "nearest"}
        colours = axes.imshow(share, **look)
        axes.imshow(recall[:, None], extent=(left, right, classes - 0.5, -0.5), **look)
        axes.set_xlim(-0.5, right)
        places = range(0, classes, -(-classes // 100))  # a thousand names would take 20 s, and be black
        names = [shorten(str(class_names[i]), 20) for i in places]
        slant: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        if not numbers:  # slanted, the names of narrow columns run into each other
            slant |= {"rotation": 90, "va": "center"}
        axes.set_xticks([*places, (left + right) / 2], [*names, "recall"], **slant)
        axes.set_yticks(places, names)
        shown = "test images; colour: share of the true class" if numbers else "share of the true class"
        some = f", one class in {places.step} named" if places.step > 1 else ""
        axes.set_title(f"{shown}{some}", loc="left", fontsize=11)
        axes.tick_params(length=0, labelsize=12 if numbers else 7)
        axes.spines[:].set_visible(False)
        axes.set(xlabel="predicted", ylabel="true")
        if not numbers:
            figure.colorbar(colours, ax=axes, shrink=0.4, aspect=30, label="share of the true class")
        for i in range(classes if numbers else 0):
            percent = f"{recall[i]:.1%}" if support[i, 0] else "–"
            texts = [(j, str(matrix[i, j]), share[i, j]) for j in range(classes)]
            for x, text, shade in [*texts, ((left + right) / 2, percent, recall[i])]:
                colour = "white" if shade > 0.55 else GREY if text == "0" else INK
                axes.text(x, i, text, ha="center", va="center", fontsize=11, color=colour)
    return Path(path)


@contextmanager
def page(path: str | Path, size: tuple[float, float], title: str) -> Iterator[Figure]:
    """Give an empty figure of `size` inches to draw on, then write it to `path`, whole or not at all."""
    import matplotlib
    from matplotlib.figure import Figure

    # Some texts, such as tick labels, are only made while saving: the style must hold until then.
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        figure.suptitle(textwrap.fill(printable(title), int(7.5 * size[0])), fontsize=15, fontweight="bold")
        yield figure
        with warnings.catch_warnings(), replacing(Path(path)) as temporary:
            warnings.filterwarnings("ignore", "Glyph .* missing")  # a class may be named in any script
            figure.savefig(temporary, format="png", dpi=130, facecolor="white")


def _panel(axes: Axes, name: str, epochs: np.ndarray, pad: float = 8) -> None:
    axes.set_title(name, loc="left", fontsize=13, fontweight="bold", pad=pad)
    axes.grid()
    axes.tick_params(length=0, which="both")
    axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    axes.locator_params(axis="x", integer=True, min_n_ticks=1)
    if name == "accuracy":
        axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")


def _line(axes: Axes, history: Mapping[str, Any], name: str, width: float, **style: Any) -> None:
    marker = "o" if len(history["epoch"]) <= 30 else ""
    axes.plot(history["epoch"], history[name], marker=marker, linewidth=width, markersize=width + 3, **style)
