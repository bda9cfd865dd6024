"""The verdict on a pair: two answers kept apart, as text, as JSON and as an exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from parity.checks import Check, Rung
from parity.foreign.prove import refused
from parity.foreign.verdict import Answer, Verdict, text

SWAPPED = Answer(
    "failed", "weights", "conv", "0", "height and width are swapped", "conv/kernel", "transpose it"
)
PADDED = Answer("failed", "forward", "conv", "conv", "the convolution is padded otherwise", "[1, 1]", "")
INDEPENDENT = Answer("independent", evidence="torch's are drawn.")
SAME = Answer("passed")


@pytest.mark.parametrize(
    ("weights", "computation", "status", "code"),
    [
        (SAME, SAME, "passed", 0),
        (INDEPENDENT, SAME, "passed", 0),
        (SWAPPED, SAME, "failed", 1),
        (INDEPENDENT, PADDED, "failed", 1),
        (SWAPPED, PADDED, "failed", 1),
    ],
)
def test_either_answer_fails_the_pair(weights: Answer, computation: Answer, status: str, code: int) -> None:
    verdict = Verdict(weights, computation)
    assert (verdict.status, verdict.exit_code) == (status, code)


def test_a_pair_that_cannot_be_compared_is_refused() -> None:
    verdict = refused("no such module")
    assert (verdict.status, verdict.exit_code) == ("refused", 2)
    assert verdict.as_json()["refused"] == "no such module"


def test_the_text_says_where_why_and_what_to_do() -> None:
    lines = text(Verdict(SWAPPED, PADDED, ["a note"], seconds=12))
    assert lines[0] == "FAILED in 12 s"
    assert lines[1] == "The weights differ at conv (torch's 0), rung weights: height and width are swapped."
    assert lines[2:4] == ["  Evidence: conv/kernel", "  To mend it: transpose it"]
    assert lines[4] == "The computation differs at conv, rung forward: the convolution is padded otherwise."
    assert lines[-1] == "- a note"
    assert not any("To mend it" in line for line in lines[4:])


def test_json_holds_no_infinity() -> None:
    checks = [Check("conv", float("inf"), 0.0, "shapes"), Check("dense", 0.0, 0.0)]
    rung = Rung("forward", "pair", "tensorflow", "float64", "cpu", checks)
    verdict = Verdict(INDEPENDENT, PADDED, rungs=[rung], report=Path("report.html"))
    values = json.loads(json.dumps(verdict.as_json(), allow_nan=False))
    assert values["schema"] == 1
    assert values["verdict"] == "failed"
    assert values["computation"]["cause"] == PADDED.cause
    assert values["rungs"][0]["worst"]["difference"] == "inf"
    assert values["rungs"][0]["status"] == "failed"
