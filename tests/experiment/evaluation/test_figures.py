import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from experiment.evaluation import figures


@pytest.fixture
def draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Figure]:
    """Call a function of `figures`, check the file it leaves and return the figure it drew."""
    drawn: list[Figure] = []
    save = Figure.savefig

    def spy(figure: Figure, *args: Any, **kwargs: Any) -> None:
        drawn.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", spy)

    def call(function: Callable[..., Path], *args: Any) -> Figure:
        path = tmp_path / "figure.png"
        assert function(path, *args) == path
        assert [entry.name for entry in tmp_path.iterdir()] == ["figure.png"]
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert all(300 < side < 3000 for side in image.size)
        return drawn[-1]

    return call


def history(epochs: int, offset: float = 0.0) -> dict[str, list[float]]:
    numbers = list(range(1, epochs + 1))
    return {
        "epoch": [float(e) for e in numbers],
        "loss": [2 / e + offset for e in numbers],
        "accuracy": [1 - 0.9 / e for e in numbers],
        "val_loss": [2.5 / e + offset for e in numbers],
        "val_accuracy": [0.9 - 0.8 / e for e in numbers],
        "learning_rate": [1e-3] * epochs,
    }


def test_samples_pair_each_image_with_its_augmented_self(draw):
    images = np.arange(30, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    figure = draw(figures.samples, images, np.arange(30) % 3, 255 - images, ["ant", "bee", "$c_$"])
    loaded, augmented = figure.subfigs
    assert [part.get_suptitle() for part in (loaded, augmented)] == ["as loaded", "augmented"]
    assert len(loaded.axes) == len(augmented.axes) == 25
    for i, (left, right) in enumerate(zip(loaded.axes, augmented.axes, strict=True)):
        assert left.get_title() == right.get_title() == ["ant", "bee", "$c_$"][i % 3]
        assert (np.asarray(left.images[0].get_array()) == i).all()
        assert (np.asarray(right.images[0].get_array()) == 255 - i).all()


def test_samples_without_augmentation_and_with_few_images(draw):
    names = ["short", "an unusually long class name"]
    figure = draw(figures.samples, np.zeros((7, 32, 32, 3), np.uint8), np.arange(7) % 2, None, names)
    assert len(figure.axes) == 7
    lines = figure.axes[1].get_title().splitlines()
    assert len(lines) > 1
    assert max(len(line) for line in lines) <= 11


def test_curves_mark_and_label_the_best_epoch(draw):
    loss, accuracy, rate = draw(figures.curves, history(5), 4, "a run").axes
    texts = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in (loss, accuracy)]
    assert texts[0] == ["training", "validation", "best epoch 4: 0.6250"]
    assert texts[1] == ["training", "validation", "best epoch 4: 70.00%"]
    training, validation, ring = loss.lines[:3]
    assert list(training.get_ydata()) == history(5)["loss"]
    assert list(validation.get_ydata()) == history(5)["val_loss"]
    assert ring.get_xydata().tolist() == [[4, 0.625]]
    assert [axes.lines[-1].get_xdata() for axes in (loss, accuracy, rate)] == [[4, 4]] * 3


@pytest.mark.parametrize("epochs", [1, 20, 200])
def test_epoch_ticks_are_whole_and_few_points_have_markers(draw, epochs):
    loss, accuracy, rate = draw(figures.curves, history(epochs), None, "a run").axes
    low, high = rate.get_xlim()
    ticks = [tick for tick in rate.get_xticks() if low <= tick <= high]
    assert ticks
    assert all(tick == int(tick) and 1 <= tick <= epochs for tick in ticks)
    assert (loss.lines[0].get_marker() == "o") is (epochs <= 20)
    assert all(text.get_text().endswith("%") for text in accuracy.get_yticklabels())


@pytest.mark.parametrize("rates", [[1e-3] * 3, [1e-3, 5e-4, 2e-4], [1e-3, 5e-4, 0.0], [1e-3, np.nan, 1e-5]])
def test_learning_rate_axis_is_linear_within_a_decade_and_with_zeros(draw, rates):
    assert (
        draw(figures.curves, history(3) | {"learning_rate": rates}, 1, "t").axes[2].get_yscale() == "linear"
    )


def test_learning_rate_axis_is_logarithmic_over_decades(draw):
    rate = draw(figures.curves, history(3) | {"learning_rate": [1e-3, 1e-4, 1e-5]}, 1, "t").axes[2]
    assert rate.get_yscale() == "log"
    assert {"0.001", "0.0001"} <= {text.get_text() for text in rate.get_yticklabels()}


@pytest.mark.filterwarnings("error")
def test_curves_bear_a_diverged_run(draw):
    diverged = history(4)
    diverged["loss"][2:] = [np.inf, np.nan]
    diverged["val_loss"] = [np.nan] * 4
    loss = draw(figures.curves, diverged, 2, "a $diverged run").axes[0]
    assert loss.get_legend().get_texts()[2].get_text() == "best epoch 2: nan"
    assert np.isfinite(loss.get_ylim()).all()


def test_side_by_side_gives_a_colour_to_a_run_and_dashes_to_training(draw):
    figure = draw(figures.side_by_side, {"keras": history(3), "lightning": history(5, 0.1)}, "both")
    loss = figure.axes[0]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["keras", "lightning", "validation", "training"]
    lines = [line for line in loss.lines if len(line.get_xdata())]
    assert [line.get_linestyle() for line in lines] == ["--", "-", "--", "-"]
    assert list(lines[3].get_ydata()) == history(5, 0.1)["val_loss"]
    colours = [line.get_color() for line in lines]
    assert colours[0] == colours[1] != colours[2] == colours[3]
    assert lines[1].get_linewidth() > lines[3].get_linewidth()


def test_step_by_step_shows_how_far_apart_two_runs_are(draw):
    keras = np.array([2.0, 1.5, 1.25])
    figure = draw(
        figures.step_by_step, {"keras": keras, "lightning": keras + np.array([0, 1e-6, 1e-5])}, "both"
    )
    above, below = figure.axes
    assert [line.get_label() for line in above.lines] == ["keras", "lightning"]
    assert above.lines[0].get_linewidth() > above.lines[1].get_linewidth()
    np.testing.assert_allclose(below.lines[0].get_ydata(), [np.nan, 1e-6, 1e-5], rtol=1e-6)
    assert below.get_yscale() == "log"
    equal = draw(figures.step_by_step, {"keras": keras, "lightning": keras}, "both")
    assert [text.get_text() for text in equal.axes[1].texts] == ["equal to the last bit"]


def test_confusion_shows_counts_and_recalls(draw):
    matrix = np.array([[90, 10, 0], [30, 60, 30], [0, 0, 0]])
    figure = draw(figures.confusion, matrix, ["ant", "bee", "cat"], "the title")
    (axes,) = figure.axes
    assert [text.get_color() for text in axes.texts[:2]] == ["white", figures.INK]
    cells = {text.get_position(): text for text in axes.texts}
    for (true, predicted), count in np.ndenumerate(matrix):
        assert cells.pop((predicted, true)).get_text() == str(count)
    assert [cells[at].get_text() for at in sorted(cells, key=lambda at: at[1])] == ["90.0%", "50.0%", "–"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    assert [text.get_text() for text in axes.get_yticklabels()] == ["ant", "bee", "cat"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["ant", "bee", "cat", "recall"]
    share, recall = (np.asarray(image.get_array()) for image in axes.images)
    assert share.tolist() == [[0.9, 0.1, 0.0], [0.25, 0.5, 0.25], [0, 0, 0]]
    assert recall.tolist() == [[0.9], [0.5], [0.0]]


@pytest.mark.parametrize(("classes", "texts"), [(2, 2 * 3), (30, 30 * 31), (100, 0)])
def test_confusion_leaves_numbers_out_when_they_would_be_tiny(draw, classes, texts):
    figure = draw(figures.confusion, np.eye(classes, dtype=int), [f"c{i}" for i in range(classes)], "t")
    assert len(figure.axes[0].texts) == texts
    assert len(figure.axes) == (1 if texts else 2)


@pytest.mark.parametrize(("classes", "named"), [(100, 100), (101, 51), (1000, 100)])
def test_confusion_names_as_many_classes_as_can_be_read(draw, classes, named):
    figure = draw(figures.confusion, np.eye(classes, dtype=int), [f"c{i}" for i in range(classes)], "t")
    axes = figure.axes[0]
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert len(names) == named
    assert [text.get_text() for text in axes.get_xticklabels()] == [*names, "recall"]
    assert names[-1] == f"c{int(axes.get_yticks()[-1])}"
    step = -(-classes // 100)
    shown = "share of the true class" + (f", one class in {step} named" if step > 1 else "")
    assert axes.get_title(loc="left") == shown


def test_classes_are_named_in_any_script(draw, recwarn):
    names = ["$5 \\frac{", "R&D <b>", "🦊", "日本語", "שלום", "x" * 255, "a_b^c{", ""]
    figure = draw(figures.confusion, np.eye(8, dtype=int), names, "$run_{1")
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()][:2] == names[:2]
    images = np.zeros((8, 8, 8, 3), np.uint8)
    draw(figures.samples, images, np.arange(8), images, names)
    assert [str(warning.message) for warning in recwarn] == []


def test_a_class_without_test_images_has_no_recall(draw):
    figure = draw(figures.confusion, np.array([[2, 1], [0, 0]]), ["ant", "bee"], "t")
    assert [text.get_text() for text in figure.axes[0].texts] == ["2", "1", "66.7%", "0", "0", "–"]


def test_a_failed_write_keeps_the_old_figure_and_leaves_nothing_behind(tmp_path, monkeypatch):
    path = figures.confusion(tmp_path / "m.png", np.eye(2, dtype=int), ["a", "b"], "t")
    before, settings = path.read_bytes(), dict(matplotlib.rcParams)

    def half(figure: Figure, target: Path, **_: Any) -> None:
        Path(target).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", half)
    with pytest.raises(OSError, match="disk full"):
        figures.confusion(path, np.eye(2, dtype=int), ["a", "b"], "t")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    assert dict(matplotlib.rcParams) == settings


IMAGES, LABELS = np.zeros((4, 8, 8, 3), np.uint8), np.zeros(4, int)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (figures.samples, (IMAGES[0], LABELS, None, ["a"]), r"\(N, H, W, 3\)"),
        (figures.samples, (IMAGES, LABELS, IMAGES[:3], ["a"]), r"\(N, H, W, 3\)"),
        (figures.curves, (history(5), 6, "a run"), "best epoch 6"),
        (figures.curves, (history(5) | {"loss": [1.0]}, 5, "a run"), "dimension"),
        (figures.curves, (history(0), None, "a run"), "empty"),
        (figures.side_by_side, ({}, "no run"), "need at least one"),
        (figures.step_by_step, ({"a": np.ones(2), "b": np.ones(3)}, "of other lengths"), "as many steps"),
        (figures.confusion, (np.eye(3, dtype=int), ["a", "b"], "t"), "square"),
    ],
)
def test_wrong_input_is_named_and_leaves_no_file(tmp_path, function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(tmp_path / "figure.png", *arguments)
    assert not list(tmp_path.iterdir())


def test_import_is_cheap_and_drawing_needs_no_pyplot(tmp_path):
    code = (
        "import sys, numpy as np; from experiment.evaluation import figures; assert 'matplotlib' not in "
        "sys.modules;"
        f"figures.confusion({str(tmp_path / 'm.png')!r}, np.eye(2, dtype=int), ['a', 'b'], 't');"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    root = Path(figures.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, timeout=60)
