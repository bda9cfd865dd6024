"""The report's numbers in words and its figures: what is drawn is what was found."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import sample_results
import sample_seeds
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from page import FULL

from parity.checks import Check, Rung
from parity.report import drawing, formatting, page, plots, seed_plots
from parity.report.drawing import Decades, thin
from parity.report.results import Ablation, Accuracy, Layers, Trajectory

# === Numbers ===


@pytest.mark.parametrize(
    ("largest", "tolerance", "margin", "fill"),
    [
        (1.1e-16, 1e-12, "1.1e-16 of 1e-12 (0.011 %)", 40.41),
        (1e-12, 1e-12, "1.0e-12 of 1e-12 (100 %)", 80.0),
        (3.9e-10, 1e-9, "3.9e-10 of 1e-9 (39 %)", 75.91),
        (9.97e-10, 1e-9, "1.0e-9 of 1e-9 (99.7 %)", 79.99),
        (1e-20, 1e-12, "1.0e-20 of 1e-12 (<0.01 %)", 1.5),
        (0.0, 1e-12, "0 of 1e-12 (0 %)", 0.0),
        (3.2e-11, 1e-12, "3.2e-11 of 1e-12 (32 times)", 95.05),
        (0.27, 1e-12, "0.27 of 1e-12 (2.7e11 times)", 100.0),
        (0.0, 0.0, "equal", 0.0),
        (3.0, 0.0, "3, must be equal", 100.0),
        (float("nan"), 1e-12, "NaN of 1e-12 (beyond any)", 100.0),
        (float("inf"), 2.5e-5, "∞ of 2.5e-5 (beyond any)", 100.0),
    ],
)
def test_margins(largest: float, tolerance: float, margin: str, fill: float) -> None:
    check = Check("x", largest, tolerance)
    assert formatting.margin(check) == margin
    assert formatting.fill(check) == pytest.approx(fill, abs=0.01)


def test_the_tightest_check_is_the_one_nearest_to_its_bound() -> None:
    def of(name: str, *checks: Check) -> Rung:
        return Rung(name, "cnn", "tensorflow", "float64", "cpu", checks)

    loose, near, exact = Check("a", 1e-9, 1e-3), Check("b", 1e-13, 1e-12), Check("c", 0.0, 0.0)
    found = page.tightest([of("one", loose, exact), of("two", near), of("none")])
    assert found is not None
    assert (found[0].name, found[1]) == ("two", near)
    assert page.tightest([of("none")]) is None


# === Figures ===


def xs(line: Line2D) -> list[float]:
    return np.asarray(line.get_xdata()).tolist()


def test_zero_and_not_finite_have_places_of_their_own() -> None:
    scale = Decades([0.0, 1e-16, 3e-13, float("nan"), float("inf")], 1e-12)
    assert scale.place([0.0, 1e-16, -1e-12, np.nan, np.inf]) == pytest.approx([-17, -16, -12, -10, -10])
    assert scale.ticks(9) == (
        [-17.0, -16.0, -15.0, -14.0, -13.0, -12.0, -11.0, -10.0],
        ["0", "1e-16", "1e-15", "1e-14", "1e-13", "1e-12", "1e-11", "NaN, ∞"],
    )
    assert scale.limits[0] < -17
    assert scale.limits[1] > -10
    plain = Decades([1e-4, 1e-2], 1e-3)
    assert not plain.zeros
    assert plain.ticks(9)[1] == ["1e-4", "1e-3", "1e-2", "1e-1"]
    assert Decades([], 0.0).place([0.0])[0] == Decades([], 0.0).ticks(5)[0][0]


def test_thinning_keeps_what_stands_out() -> None:
    values = np.random.default_rng(1).random(20_000)
    values[[777, 12_345]] = 5, -5
    values[15_000] = np.nan
    kept = thin(values)
    assert {777, 12_345, 15_000} <= set(kept)
    assert len(kept) <= 601
    assert (np.diff(kept) > 0).all()
    assert (thin(values[:600]) == np.arange(600)).all()
    assert len(thin(np.full(1000, np.nan))) == drawing.BINS
    assert len(thin(np.array([]))) == 0


def test_a_trajectory_draws_every_step_and_event() -> None:
    run = Trajectory.model_validate(sample_results.trajectory("cnn", 322))
    figure = Figure()
    plots.draw_trajectory(run, figure)
    top, bottom = figure.axes
    keras, lightning = (line for line in top.lines if not str(line.get_label()).startswith("_"))
    assert np.asarray(keras.get_ydata()) == pytest.approx(run.keras, abs=0)
    assert np.asarray(lightning.get_ydata()) == pytest.approx(run.lightning, abs=0)
    assert keras.get_linewidth() > 2 * lightning.get_linewidth()
    assert xs(keras) == list(range(1, 323))
    gaps, largest = bottom.lines[:2]
    scale = Decades(plots.differences(run), 1e-9)
    assert np.asarray(gaps.get_ydata()) == pytest.approx(scale.place(plots.differences(run)))
    assert (np.asarray(gaps.get_ydata())[:16] == scale.low - 1).all(), "exact zeros stand at the floor"
    assert (np.diff(np.asarray(largest.get_ydata())) >= 0).all()
    assert [step for step, _ in plots.events(run)] == [146, 237]
    assert [text.get_text() for text in top.texts] == ["rate 0.00024", "rate 0.000192"]
    assert bottom.texts[0].get_text() == "tolerance 1e-9"


def test_a_long_trajectory_is_thinned_and_keeps_its_worst_step() -> None:
    run = sample_results.trajectory("long", 20_000)
    run["lightning"][6_789] += 1e-5
    run["learning_rate"] = [1e-3 * 0.999**i for i in range(20_000)]
    made = plots.trajectory(Trajectory.model_validate(run), "long")
    assert "Largest difference in 20000 steps: 1.0e-5, at step 6790." in made.description
    assert "Beyond the tolerance of 1e-9 from step 6790 on." in made.description
    assert "The learning rate changes 19999 times." in made.description
    assert made.wide.count("<use") < 700
    assert len(made.wide) < 120_000


def test_a_trajectory_that_breaks_off_is_said_to() -> None:
    values = {**sample_results.trajectory("x", 100), "learning_rate": None}
    values["keras"][40:] = [float("nan")] * 60
    values["lightning"] = values["lightning"][:90]
    said = plots.describe_trajectory(Trajectory.model_validate(values))
    assert "NaN or infinite at 50 steps, the first of them 41." in said
    assert "Keras made 100 steps, Lightning 90." in said
    empty = Trajectory(name="none", keras=[], lightning=[], tolerance=1e-9)
    assert plots.trajectory(empty, "none").description == "No step to compare."


def test_layers_are_drawn_one_a_row() -> None:
    values = copy.deepcopy(FULL["layers"][4])
    values["train"][7] = float("inf")
    found = Layers.model_validate(values)
    assert len(found.names) == 36
    figure = Figure()
    plots.draw_layers(found, figure)
    (axes,) = figure.axes
    evaluated, trained, gradients = axes.lines[:3]
    assert [text.get_text() for text in axes.get_yticklabels()] == found.names
    assert len(xs(evaluated)) == len(xs(trained)) == 36
    assert len(xs(gradients)) == sum(value is not None for value in found.gradient)
    scale = Decades(
        [value for kind in ("eval", "train", "gradient") for value in values[kind] if value is not None],
        1e-12,
    )
    assert xs(evaluated)[0] == scale.low - 1, "an exact zero stands at the floor"
    assert xs(trained)[7] == scale.high + 1
    assert plots.beyond(found) == [f"{found.names[7]} (train)"]
    assert "Largest: ∞, in block2_relu1 (train)." in plots.describe_layers(found)
    assert "1 beyond the tolerance." in plots.describe_layers(found)


def test_layers_fold_but_for_the_first_of_a_pair_and_failures() -> None:
    found = [Layers.model_validate(one) for one in FULL["layers"]]
    found[2].eval[3] = 1.0
    assert [folded for _, folded in page.folding(found)] == [
        False,
        True,
        False,
        True,
        False,
        True,
        True,
        True,
    ]


def test_ablation_draws_every_seed() -> None:
    found = Ablation.model_validate(FULL["ablation"])
    figure = Figure()
    seed_plots.draw_ablation(found, figure)
    left, right = figure.axes
    scale = Decades([row.loss_difference for row in found.rows], found.threshold)
    assert xs(left.lines[0]) == pytest.approx(scale.place([r.loss_difference for r in found.rows]))
    drawn = [line for line in right.lines if line.get_marker() == "o"]
    assert [xs(line) for line in drawn] == [row.accuracies for row in found.rows]
    means = [line for line in right.lines if line.get_marker() == "|"]
    assert [xs(line)[0] for line in means] == pytest.approx([np.mean(r.accuracies) for r in found.rows])


def test_accuracy_draws_seeds_interval_and_margin() -> None:
    found = Accuracy.model_validate(sample_seeds.accuracy())
    figure = Figure()
    seed_plots.draw_accuracy(found, figure)
    left, right = figure.axes
    drawn = [xs(line) for line in left.lines if line.get_marker() == "o"]
    assert drawn == [found.sides["keras"].own.accuracies, found.sides["lightning"].own.accuracies]
    first = found.comparisons[0]
    intervals = [xs(line) for line in right.lines]
    assert first.differences in intervals
    assert [first.ci_low, first.ci_high] in intervals
    assert [-0.01, -0.01] in intervals
    assert [0.01, 0.01] in intervals


def test_the_page_has_a_place_for_every_colour_of_the_figures() -> None:
    style = (Path(page.__file__).parent / "report.css").read_text()
    for name in drawing.PAGE.values():
        assert style.count(f"--{name}: #") == 2, "light and dark"
