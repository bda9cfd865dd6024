"""The report says what results.json holds: no more, no less, and in one file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sample_seeds
from page import FAILED, FULL, Page, rung, skipped, small

from parity.report import formatting
from parity.report import page as report
from parity.report.results import Results


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
        numbers = f"{formatting.number(check['largest'])} {formatting.bound(check['tolerance'])}"
        assert f"{check['quantity']} ✓ passed {numbers} " in page.words
    for text in (*FULL["reasons"].values(), FULL["command"], "16 of 16", "AMD EPYC", "2.15.0"):
        assert text in page.words
    for one in FULL["mutations"]:
        assert f"{one['name']} {one['what']} {one['rung']} ✓ caught ✓ named" in page.words
    for one in FULL["ablation"]["rows"]:
        assert f"{one['name']} {one['what']} {one['first_step'] or 'never'} " in page.words
    for one in FULL["accuracy"]["comparisons"]:
        interval = f"{formatting.points(one['ci_low'])} to {formatting.points(one['ci_high'])}"
        assert (
            f"{formatting.points(one['difference'])} {interval} 3.1e-5 99.80 % 5 2.10 % ✓ equivalent"
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


def test_empty_parts_make_a_page() -> None:
    values = small(ablation={"setup": "", "threshold": 1e-6, "rows": []}, mutations=[])
    empty = {"pair": "cnn", "backend": "jax", "precision": "float32", "tolerance": 1e-5}
    values["layers"] = [{**empty, "names": [], "eval": [], "train": [], "gradient": []}]
    values["trajectories"] = [{"name": "none", "keras": [], "lightning": [], "tolerance": 1e-9}]
    values["accuracy"] = {**sample_seeds.accuracy(), "comparisons": []}
    page = Page(report.render(Results.model_validate(values)))
    assert page.open == []
    assert "No layer was compared." in page.words
    assert "Not run. python -m parity ablation" in page.words
    assert "Mutations caught 0 of 0" in page.words
