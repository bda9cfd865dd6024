"""Faults planted in pairs of a user's kind: right ones pass, each fault is caught and named by its cause."""

from __future__ import annotations

from pathlib import Path

import pytest

from parity.foreign.mutations import FAULTS, RIGHT, Fault, Outcome, checks, run, score
from parity.foreign.verdict import Answer, Verdict


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """Every pair's, from two processes."""
    folder: Path = tmp_path_factory.mktemp("planted")
    return {outcome.name: outcome for outcome in run({**RIGHT, **FAULTS}, folder)}


@pytest.mark.slow
def test_right_pairs_pass(outcomes: dict[str, Outcome]) -> None:
    assert {name: outcomes[name].said for name in RIGHT if outcomes[name].verdict.status != "passed"} == {}


@pytest.mark.slow
def test_every_fault_is_caught_and_named(outcomes: dict[str, Outcome]) -> None:
    missed = {name: outcomes[name].said for name in FAULTS if not outcomes[name].named}
    assert missed == {}
    assert score(outcomes[name] for name in FAULTS) == 1


def test_a_fault_that_is_caught_and_not_named_is_missed() -> None:
    failed = Verdict(Answer("passed"), Answer("failed", cause="strides differ"))
    named, other = (Outcome(words, Fault("base", words), failed) for words in ("strides", "padding"))
    passed = Outcome("passed", Fault("base", "strides"), Verdict(Answer("passed"), Answer("passed")))
    assert [check.passed for check in checks([named, other, passed])] == [True, False, False]
    assert score([named, other, passed]) == pytest.approx(1 / 3)
