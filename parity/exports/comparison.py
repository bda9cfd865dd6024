"""Checks between the ways to run one model's weights, and the matrix of their differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np

from experiment.deploy.export import BATCHES, MAX_LOSS, TOLERANCE
from experiment.deploy.exported import SHORTCUTS, Model
from experiment.system.markdown import table
from parity.checks import Check, compare
from parity.ladder.tolerances import bound
from parity.report.formatting import mebibytes, number, percent
from parity.report.results import ExportedModel, Exports

BATCH = BATCHES[-1]


Predicted = dict[tuple[str, str], np.ndarray]  # by model, and the way it was run: a batch size or "plain"


def check(models: Sequence[Model], predicted: Predicted, labels: np.ndarray) -> list[Check]:
    """The checks of the models against one another; labels (N,) are the true ones."""
    checks = []
    exact = [model for model in models if not model.quantize]
    for one, other in combinations(exact, 2):
        pair, mine, others = f"{one.name} and {other.name}", _of(predicted, one), _of(predicted, other)
        checks.append(compare(pair, mine, others, TOLERANCE))
        apart = mine.argmax(1) != others.argmax(1)
        checks.append(Check(f"{pair}: top-1 apart", float(apart.sum()), 0.0, _first(apart)))
    for model in models:
        for (name, way), probabilities in predicted.items():
            if name == model.name and way not in (str(BATCH), "plain"):
                checks.append(
                    compare(f"{name}, batches of {way}", _of(predicted, model), probabilities, TOLERANCE)
                )
        if model.exported:
            what = f"{model.name} without {SHORTCUTS[model.runtime]}"
            plain = predicted[model.name, "plain"]
            checks.append(
                compare(what, _of(predicted, model), plain, bound("export", model.quantize or "none"))
            )
    for model in models:
        if model.quantize:
            [whole] = [m for m in models if m.runtime == model.runtime and not m.quantize]
            ways = [_right(predicted, model, labels, way) for way in (str(BATCH), "plain")]
            lost = [_lost(_right(predicted, whole, labels), right) for right in ways]
            worst, noise = max(lost)
            checks.append(Check(f"{model.name}: accuracy lost", max(worst, 0.0), MAX_LOSS / 100 + noise))
    return checks


def _lost(whole: np.ndarray, quantised: np.ndarray) -> tuple[float, float]:
    """The accuracy that a quantised model loses on the same images, and twice its standard error: of few
    images a share is lost by chance.
    """
    lost = whole.astype(float) - quantised
    return float(lost.mean()), 2 * float(np.sqrt(np.abs(lost).sum())) / len(lost)


def summary(
    name: str, what: str, models: Sequence[Model], predicted: Predicted, labels: np.ndarray
) -> Exports:
    """Every model, and every two of them beside one another, in batches of 64."""
    arrays = [_of(predicted, model).astype(np.float64) for model in models]

    def matrix(measure: Callable[[np.ndarray, np.ndarray], float]) -> list[list[float]]:
        return [[float(measure(one, other)) for other in arrays] for one in arrays]

    return Exports(
        name=name,
        what=what,
        models=[
            ExportedModel(
                name=model.name,
                bytes=model.path.stat().st_size if model.exported else None,
                accuracy=_accuracy(predicted, model, labels),
            )
            for model in models
        ],
        largest=matrix(lambda a, b: np.abs(a - b).max()),
        mean=matrix(lambda a, b: np.abs(a - b).mean()),
        cosine=matrix(lambda a, b: (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())),
        agreement=matrix(lambda a, b: (a.argmax(1) == b.argmax(1)).mean()),
    )


def _of(predicted: Predicted, model: Model, way: str = str(BATCH)) -> np.ndarray:
    return predicted[model.name, way]


def _accuracy(predicted: Predicted, model: Model, labels: np.ndarray, way: str = str(BATCH)) -> float:
    return float(_right(predicted, model, labels, way).mean())


def _right(predicted: Predicted, model: Model, labels: np.ndarray, way: str = str(BATCH)) -> np.ndarray:
    return _of(predicted, model, way).argmax(1) == labels


def _first(apart: np.ndarray) -> str:
    return f"first at image {int(apart.argmax())}" if apart.any() else ""


def markdown(found: Exports) -> str:
    """The models, and their largest differences, as two tables."""
    names = [model.name for model in found.models]
    heads = [
        "",
        "MiB",
        "accuracy",
        f"{names[0]}'s class",
        f"largest difference from {names[0]}",
        "mean",
        "cosine",
    ]
    rows = [
        (
            model.name,
            mebibytes(model.bytes),
            percent(model.accuracy),
            percent(found.agreement[0][i]),
            number(found.largest[0][i]),
            number(found.mean[0][i]),
            f"{found.cosine[0][i]:.9f}",
        )
        for i, model in enumerate(found.models)
    ]
    apart = [(name, *map(number, row)) for name, row in zip(names, found.largest, strict=True)]
    parts = (f"## {found.name}: {found.what}", table(heads, rows), "Largest difference of a probability:")
    return "\n\n".join([*parts, table(["", *names], apart)]) + "\n"
