"""What a classifier gets wrong, and what its curves are said to say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiment.evaluation import error_analysis, figures

NAMES = ["ant", "bee", "$cat$"]


def rows(*confidences: float) -> np.ndarray:
    """Probabilities that name the first of two classes, this surely."""
    return np.array([[c, 1 - c] for c in confidences])


def test_calibration_error_by_hand() -> None:
    """Bins of a tenth: two at 0.95, one of them right; four at 0.75, all right; 0.6 stands in (0.5, 0.6]."""
    probabilities = rows(0.95, 0.95, 0.75, 0.75, 0.75, 0.75, 0.6)
    labels = np.array([0, 1, 0, 0, 0, 0, 1])
    found = error_analysis.calibration(labels, probabilities, bins=10)
    assert found["count"] == [0, 0, 0, 0, 0, 1, 0, 4, 0, 2]
    assert found["accuracy"][9] == 0.5
    assert found["confidence"][7] == pytest.approx(0.75)
    assert found["ece"] == pytest.approx((2 * 0.45 + 4 * 0.25 + 1 * 0.6) / 7)


def test_a_calibrated_model_has_no_error_and_a_sure_one_has() -> None:
    draw = np.random.default_rng(0)
    confidence = draw.uniform(0.5, 1, 50_000)
    labels = (draw.uniform(size=50_000) > confidence).astype(int)
    assert error_analysis.calibration(labels, rows(*confidence))["ece"] < 0.01
    assert error_analysis.calibration(labels, rows(*np.ones(50_000)))["ece"] == pytest.approx(0.25, abs=0.01)
    assert sum(error_analysis.calibration(labels, rows(*np.ones(50_000)))["count"]) == 50_000


def test_the_surest_mistakes_come_first() -> None:
    probabilities = rows(0.9, 0.6, 0.99, 0.2, 0.7)
    labels = np.array([1, 1, 0, 0, 1])  # wrong: the first, the second, the fourth (0.8 sure) and the last
    assert error_analysis.mistakes(labels, probabilities).tolist() == [0, 3, 4, 1]
    assert error_analysis.mistakes(labels, probabilities, 2).tolist() == [0, 3]
    assert error_analysis.mistakes(np.zeros(5, int), rows(*[0.9] * 5)).tolist() == []


def test_the_most_confused_pairs() -> None:
    matrix = np.array([[90, 10, 0], [3, 40, 7], [0, 0, 50]])
    assert error_analysis.confused(matrix, NAMES, 2) == [
        {"true": "ant", "predicted": "bee", "count": 10, "share": 0.1},
        {"true": "bee", "predicted": "$cat$", "count": 7, "share": 0.14},
    ]
    assert len(error_analysis.confused(matrix, NAMES)) == 3
    assert error_analysis.confused(np.diag([3, 0, 2]), NAMES) == []


def history(accuracy: list[float], val_accuracy: list[float], loss: list[float], val_loss: list[float]):
    return {"accuracy": accuracy, "val_accuracy": val_accuracy, "loss": loss, "val_loss": val_loss}


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (history([0.5] * 2, [0.5] * 2, [1, 0.9], [1, 0.9]), "2 epochs are too few"),
        (
            history([0.9] * 4, [0.85] * 4, [1, 0.5, 0.3, 0.2], [1, 0.6, 0.65, 0.7]),
            "overfitting since epoch 2: the validation loss has risen by 17%",
        ),
        (
            history([0.9, 0.95, 0.99], [0.7, 0.8, 0.8], [1, 0.5, 0.2], [1, 0.7, 0.71]),
            "training accuracy is 19 points above validation",
        ),
        (history([0.5, 0.6, 0.7], [0.5, 0.6, 0.7], [1, 0.8, 0.6], [1, 0.8, 0.6]), "more training.epochs"),
        (
            history([0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [1, 0.9, 0.9], [1, 0.9, 0.9]),
            "underfitting: training accuracy has come to rest at 50%",
        ),
        (history([0.9, 0.95, 0.96], [0.9, 0.94, 0.95], [0.5, 0.3, 0.2], [0.5, 0.3, 0.3]), "neither"),
    ],
)
def test_the_fit_in_words(columns: dict[str, list[float]], said: str) -> None:
    assert said in error_analysis.fit(columns)


@pytest.mark.parametrize(("steps", "early"), [(399, True), (400, False), (None, False)])
def test_averages_that_have_not_settled_say_nothing_of_the_fit(steps: int | None, early: bool) -> None:
    columns = history([0.9, 0.95, 0.96], [0.1, 0.1, 0.1], [0.5, 0.3, 0.2], [2.5, 2.3, 2.3])
    assert ("too early to tell" in error_analysis.fit(columns, steps)) == early


def test_a_loss_that_rises_everywhere_is_not_called_overfitting() -> None:
    columns = history([0.9, 0.8, 0.7], [0.9, 0.8, 0.7], [0.3, 0.5, 0.8], [0.3, 0.5, 0.8])
    assert "overfitting" not in error_analysis.fit(columns)


@pytest.mark.parametrize("count", [1, 7, 25])
def test_figures_are_drawn(tmp_path: Path, count: int) -> None:
    draw = np.random.default_rng(0)
    probabilities = draw.dirichlet([1, 1, 1], count)
    labels = draw.integers(0, 3, count)
    images = draw.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    paths = [
        figures.mistakes(tmp_path / "mistakes.png", images, labels, probabilities, NAMES),
        figures.calibration(tmp_path / "c.png", error_analysis.calibration(labels, probabilities), "a $run"),
    ]
    for path in paths:
        assert min(Image.open(path).size) > 150
