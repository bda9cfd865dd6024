"""The report says what results.json holds: no more, no less, and in one file."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sample_results
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from parity import drawing, plots, report, seed_plots, wording
from parity.checks import Check, Rung
from parity.drawing import Decades, thin
from parity.results import Ablation, Accuracy, Layers, Results, ResultsError, Trajectory, read

VOID = {"meta", "path", "use", "line", "rect", "br"}


class Page(HTMLParser):
    """The text of a page, its ids, links and unbalanced tags."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.text, self.ids, self.references, self.tags, self.open = "", [], [], [], []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.text += " "
        values = dict(attrs)
        if values.get("id"):
            self.ids.append(values["id"])
        self.references += [values[name] or "" for name in ("href", "src", "xlink:href") if name in values]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        self.text += " "
        assert self.open, f"</{tag}> closes nothing"
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


FULL = {**sample_results.results(), "accuracy": sample_results.accuracy()}
FAILED = sample_results.failed()


@pytest.fixture(scope="module")
def full() -> str:
    return report.render(Results.model_validate(FULL))


@pytest.fixture(scope="module")
def failed() -> str:
    return report.render(Results.model_validate({**FAILED, "layers": FAILED["layers"][:1]}))


@pytest.fixture
def write(tmp_path: Path) -> Callable[[dict[str, Any]], Page]:
    """Write results as a suite would, and the report of them; the page that it gives."""

    def call(values: dict[str, Any]) -> Page:
        (tmp_path / "results.json").write_text(json.dumps(values))
        path = report.write(tmp_path)
        assert path == tmp_path / "report.html"
        assert {entry.name for entry in tmp_path.iterdir()} == {"results.json", "report.html"}
        return Page(path.read_text(encoding="utf-8"))

    return call


def headline(page: Page) -> str:
    return page.words.split(" Rungs passed")[0]


def small(**changes: Any) -> dict[str, Any]:
    """Results of one rung that passed, without a figure."""
    return {"verdict": "passed", "rungs": [rung()], **changes}


def rung(largest: float = 1e-13, **changes: Any) -> dict[str, Any]:
    checks = [{"quantity": "bn1 (train)", "largest": largest, "tolerance": 1e-12, "where": ""}]
    values = {
        "name": "forward",
        "pair": "cnn",
        "backend": "tensorflow",
        "precision": "float64",
        "device": "cpu",
    }
    return {**values, "checks": checks, "note": "", "seconds": 1.0, "skipped": False, **changes}


def skipped(
    device: str = "cuda", note: str = "unproven on CUDA: no GPU here", **changes: Any
) -> dict[str, Any]:
    return rung(device=device, note=note, checks=[], skipped=True, **changes)


# === The page ===


def test_a_passed_suite_is_told_whole(full: str) -> None:
    page = Page(full)
    ran = [one for one in FULL["rungs"] if not one["skipped"]]
    said = f"✓ Keras and Lightning agree on cnn and vgg16: all {len(ran)} rungs that ran passed"
    assert headline(page).endswith(f"{said}; unproven on CUDA.")
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    for i, one in enumerate(FULL["rungs"], 1):
        assert f"rung-{i}" in page.ids
        device = " cuda" if one["device"] == "cuda" else ""
        status = "✓ passed" if one in ran else "– unproven on CUDA"
        assert f"{one['pair']} {one['backend']} {one['precision']}{device} {status}" in page.words
        assert one["skipped"] or f"{len(one['checks'])} checks in " in page.words
    for check in (check for one in ran for check in one["checks"]):
        numbers = f"{wording.number(check['largest'])} {wording.bound(check['tolerance'])}"
        assert f"{check['quantity']} ✓ passed {numbers} " in page.words
    for text in (*FULL["reasons"].values(), FULL["command"], "16 of 16", "AMD EPYC", "2.15.0"):
        assert text in page.words
    for one in FULL["mutations"]:
        assert f"{one['name']} {one['what']} {one['rung']} ✓ caught ✓ named" in page.words
    for one in FULL["ablation"]["rows"]:
        assert f"{one['name']} {one['what']} {one['first_step'] or 'never'} " in page.words
    for one in FULL["accuracy"]["comparisons"]:
        interval = f"{wording.points(one['ci_low'])} to {wording.points(one['ci_high'])}"
        assert (
            f"{wording.points(one['difference'])} {interval} 3.1e-5 99.80 % 5 2.10 % ✓ equivalent"
            in page.words
        )
    figures = len(FULL["trajectories"]) + len(FULL["layers"]) + 2
    assert page.tags.count("figure") == figures
    assert page.tags.count("svg") == page.tags.count("title") - 1 == 2 * figures


def test_the_page_needs_nothing_else(full: str) -> None:
    page = Page(full)
    assert page.references
    assert {reference[0] for reference in page.references} == {"#"}
    assert {reference[1:] for reference in page.references} <= set(page.ids)
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not re.findall(r"https?:|[\"'(]//|@import|@font-face|url\((?!#)", full)
    assert set(re.findall(r"url\(#([^)]*)\)", full)) <= set(page.ids)
    assert not re.findall(r"(?:fill|stroke): #", full), "a figure's colour that dark mode cannot change"


def test_the_same_results_give_the_same_page() -> None:
    values = {**FULL, "layers": FULL["layers"][:1], "trajectories": FULL["trajectories"][:1]}
    assert len({report.render(Results.model_validate(values)) for _ in range(2)}) == 1


def test_a_failure_is_shown_as_one(failed: str) -> None:
    page = Page(failed)
    assert "✗ Keras and Lightning differ: 1 of the 70 rungs that ran failed" in headline(page)
    assert "first “one step” of cnn (tensorflow, float64)" in headline(page)
    assert "agree" not in page.words
    diagnosis = page.words.split("Where the two sides part")[1].split("The ladder")[0]
    for part in ("bn_dense", "unbiased batch variance", "n/(n-1) = 1.0159"):
        assert part in diagnosis
    assert "moving_variance 2.3e-4 of 1e-11 (2.3e7 times)" in page.words
    checks = page.words.split("moving_variance 2.3e-4 of 1e-11 (2.3e7 times)")[1]
    assert re.match(
        r" 4 checks in \S+ s largest tolerance used moving_variance ✗ failed 2.3e-4 1e-11 ", checks
    )
    assert "✗ missed" in page.words
    assert "15 of 16 caught, 14 named" in page.words
    assert "<title>Parity: FAILED</title>" in failed
    place = next(i for i, one in enumerate(FAILED["rungs"], 1) if one["status"] == "failed")
    assert re.findall(r'id="rung-(\d+)" open', failed) == [str(place)]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (small(), "agree on cnn: the only rung that ran passed; unproven on CUDA."),
        (small(rungs=[rung(), skipped()]), "the only rung that ran passed; unproven on CUDA."),
        (small(rungs=[rung(), rung(device="cuda")]), "agree on cnn: all 2 rungs that ran passed."),
        (
            small(rungs=[rung(), rung(device="cuda"), skipped()]),
            "all 2 rungs that ran passed; 1 rung unproven on CUDA.",
        ),
        (
            small(rungs=[rung(), skipped("cpu", "slow", name="accuracy")]),
            "the only rung that ran passed; unproven on CUDA; not run: accuracy.",
        ),
        (small(rungs=[skipped()]), "Nothing is proven for cnn: no rung of the ladder ran; unproven on CUDA."),
        (small(rungs=[]), "Nothing is proven: no rung of the ladder ran; unproven on CUDA."),
        (small(rungs=[rung(), rung(checks=[])]), "differ: 1 of the 2 rungs that ran failed"),
        (small(rungs=[rung(float("nan"))]), "differ: 1 of the 1 rung that ran failed"),
        (small(rungs=[rung(2e-12)]), "differ: 1 of the 1 rung that ran failed"),
        (small(verdict="failed"), "Failed, although the only rung that ran passed: the suite itself reports"),
        (
            small(verdict="failed", mutations=FAILED["mutations"]),
            "Failed, although the only rung that ran passed: bgr went uncaught; unproven on CUDA.",
        ),
        (
            small(verdict="failed", mutations=FAILED["mutations"][:4]),
            "Failed, although the only rung that ran passed: adam_epsilon went unnamed; unproven on CUDA.",
        ),
    ],
)
def test_the_verdict_claims_what_was_found(
    write: Callable[[dict[str, Any]], Page], values: dict[str, Any], said: str
) -> None:
    assert said in headline(write(values))


def test_what_was_skipped_on_cuda_is_unproven(write: Callable[[dict[str, Any]], Page]) -> None:
    page = write(small(rungs=[skipped()]))
    assert "– unproven on CUDA no GPU here" in page.words
    assert "✓" not in page.words
    assert "Rungs passed 0 of 0 1 not run" in page.words


def test_what_was_not_run_is_said_with_its_command(write: Callable[[dict[str, Any]], Page]) -> None:
    words = write(small()).words
    assert words.count("Not run.") == len(report.COMMANDS) == 5
    for command in report.COMMANDS.values():
        assert f"Not run. {command} runs it" in words
    assert "Mutations caught not run" in words
    assert "Not recorded." in words


def test_markup_in_names_stays_text() -> None:
    evil = "</svg><script>alert('x')</script>&<b a='1'>"
    values = {**FAILED, "layers": FAILED["layers"][:1], "accuracy": FULL["accuracy"]}
    values = json.loads(
        re.sub("cnn|bn_dense|bessel|Bessel’s correction|keras itself", evil, json.dumps(values))
    )
    values["environment"]["keras"]["cpu"] = values["command"] = values["reasons"]["forward"] = evil
    source = report.render(Results.model_validate(values))
    page = Page(source)
    assert page.open == []
    assert not {"script", "b"} & set(page.tags)
    assert "<script" not in source
    assert page.text.count(evil) > 20


def test_accuracy_and_ablation_are_read_from_their_files(tmp_path: Path) -> None:
    for part in ("accuracy", "ablation"):
        (tmp_path / f"{part}.json").write_text(json.dumps(FULL[part]))
    (tmp_path / "results.json").write_text(json.dumps(small(ablation=None)))
    results = read(tmp_path)
    assert results.ablation == Ablation.model_validate(FULL["ablation"])
    assert results.accuracy == Accuracy.model_validate(FULL["accuracy"])
    # What the suite itself wrote goes before a file that an earlier command left.
    (tmp_path / "results.json").write_text(json.dumps(small(ablation={**FULL["ablation"], "rows": []})))
    assert read(tmp_path).ablation == Ablation.model_validate({**FULL["ablation"], "rows": []})


# === The command ===


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no such file; `python -m parity` writes it"),
        ("", "cannot be read"),
        ('{"verdict": "pas', "cannot be read"),
        ("[1]", "holds no JSON object"),
        ("{}", "verdict: Field required"),
        (json.dumps(small(rungs=[rung(None)])), "rungs.0.checks.0.largest: Input should be a valid number"),  # type: ignore[arg-type]
        (
            json.dumps(small(layers=[{**FULL["layers"][0], "eval": []}])),
            "layers.0: names, eval, train and gradient differ in length",
        ),
    ],
)
def test_a_folder_without_results_is_one_line(
    content: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(SystemExit) as stopped:
        report.main([str(tmp_path)])
    assert stopped.value.code == 2
    err = capsys.readouterr().err
    assert said in err
    assert "results.json" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "report.html").exists()


def test_a_broken_part_is_blamed_on_its_own_file(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps(small()))
    (tmp_path / "accuracy.json").write_text("{}")
    with pytest.raises(ResultsError, match=r"accuracy\.json: accuracy\.statement: Field required"):
        read(tmp_path)


def test_the_command_prints_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "results.json").write_text(json.dumps(small()))
    assert report.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'report.html'}\n"


def test_an_earlier_page_outlives_broken_results(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps(small()))
    before = report.write(tmp_path).read_text()
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(ResultsError):
        report.write(tmp_path)
    assert (tmp_path / "report.html").read_text() == before


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
    assert wording.margin(check) == margin
    assert wording.fill(check) == pytest.approx(fill, abs=0.01)


def test_the_tightest_check_is_the_one_nearest_to_its_bound() -> None:
    def of(name: str, *checks: Check) -> Rung:
        return Rung(name, "cnn", "tensorflow", "float64", "cpu", checks)

    loose, near, exact = Check("a", 1e-9, 1e-3), Check("b", 1e-13, 1e-12), Check("c", 0.0, 0.0)
    found = report.tightest([of("one", loose, exact), of("two", near), of("none")])
    assert found is not None
    assert (found[0].name, found[1]) == ("two", near)
    assert report.tightest([of("none")]) is None


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
    plots.draw_trajectory(figure, run)
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
    plots.draw_layers(figure, found)
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
    assert [folded for _, folded in report.folding(found)] == [
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
    seed_plots.draw_ablation(figure, found)
    left, right = figure.axes
    scale = Decades([row.loss_difference for row in found.rows], found.threshold)
    assert xs(left.lines[0]) == pytest.approx(scale.place([r.loss_difference for r in found.rows]))
    drawn = [line for line in right.lines if line.get_marker() == "o"]
    assert [xs(line) for line in drawn] == [row.accuracies for row in found.rows]
    means = [line for line in right.lines if line.get_marker() == "|"]
    assert [xs(line)[0] for line in means] == pytest.approx([np.mean(r.accuracies) for r in found.rows])


def test_accuracy_draws_seeds_interval_and_margin() -> None:
    found = Accuracy.model_validate(sample_results.accuracy())
    figure = Figure()
    seed_plots.draw_accuracy(figure, found)
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
    style = (Path(report.__file__).parent / "report.css").read_text()
    for name in drawing.PAGE.values():
        assert style.count(f"--{name}: #") == 2, "light and dark"


def test_empty_parts_make_a_page() -> None:
    values = small(ablation={"setup": "", "threshold": 1e-6, "rows": []}, mutations=[])
    empty = {"pair": "cnn", "backend": "jax", "precision": "float32", "tolerance": 1e-5}
    values["layers"] = [{**empty, "names": [], "eval": [], "train": [], "gradient": []}]
    values["trajectories"] = [{"name": "none", "keras": [], "lightning": [], "tolerance": 1e-9}]
    values["accuracy"] = {**sample_results.accuracy(), "comparisons": []}
    page = Page(report.render(Results.model_validate(values)))
    assert page.open == []
    assert "No layer was compared." in page.words
    assert "Not run. python -m parity ablation" in page.words
    assert "Mutations caught 0 of 0" in page.words
