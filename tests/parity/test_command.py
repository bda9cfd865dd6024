"""The command line of `python -m parity`: what it refuses, and what it leaves out."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiment.system import processes
from parity import command as prove
from parity.checks import Check, Rung, Subject
from parity.exports import command as exports
from parity.ladder import climb as suite
from parity.ladder.climb import Findings, Place
from parity.ladder.rungs import RUNGS
from parity.ladder.tolerances import ROWS
from parity.report import results

OWN = ["--keras", "a:b", "--torch", "c:d"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--keras", "a:b", "--input-shape", "3"], "a pair needs both --keras and --torch"),
        (OWN, "give --input-shape (such as 32 32 3), or --inputs FILE.npy"),
        ([*OWN, "--inputs", "nowhere.npy"], "--inputs nowhere.npy: no such file"),
        ([*OWN, "--input-shape", "3", "--map", "conv"], "--map takes TORCH_LAYER=KERAS_LAYER"),
        ([*OWN, "--input-shape", "3", "--steps", "0"], "--steps must be at least 1"),
        (["--keras", "gone.keras", *OWN[2:], "--input-shape", "3"], "--keras gone.keras: no such file"),
        (["--keras", "old.h5", *OWN[2:], "--input-shape", "3"], "keras.saving.load_model('old.h5'"),
        (
            ["--keras", "my.net", *OWN[2:], "--input-shape", "3"],
            "neither a .keras file nor package.module:function",
        ),
        (
            [*OWN[:2], "--torch", "my.net", "--input-shape", "3"],
            "--torch my.net: write package.module:function",
        ),
        (["--data.root", "nowhere"], "--data.root nowhere: no such folder"),
        (["--device", "cuda"], "--device cuda: this machine shows no CUDA GPUs"),
        (["--backends", "jax"], "--backends jax: not installed"),
        (["--pairs", "resnet"], "invalid choice"),
    ],
)
def test_mistakes_are_told_in_a_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prove.devices, "count_gpus", lambda: 0)
    monkeypatch.setattr(prove.devices, "installed", lambda name: name != "jax")
    with pytest.raises(SystemExit) as refused:
        prove.parse(arguments)
    assert refused.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.strip().splitlines()) <= 2


def test_backends_that_are_not_installed_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prove.devices, "installed", lambda name: name != "tensorflow")
    assert prove.parse([]).backends == ["jax", "torch"]


def test_what_did_not_run_is_never_passed(tmp_path: Path) -> None:
    findings = Findings()
    suite.unproven(["cnn"], findings)
    suite.without_float64(["cnn, digits"], Place(tmp_path, "cuda", lambda _: None), findings)
    assert {rung.status for rung in findings.rungs} == {"skipped"}
    assert not findings.passed
    findings.rungs.append(Rung("structure", "cnn", "jax", "float32", "cuda", [Check("parameters", 0.0, 0.0)]))
    assert findings.passed
    assert findings.ordered[0].name == "structure"
    assert findings.ordered[-1].name == "whole run"


def test_what_was_found_before_a_failure_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def climb(names: object, combinations: object, place: Place, findings: Findings) -> None:
        found = Check("parameters", 0.0, 0.0)
        findings.rungs.append(Rung("structure", "cnn", "jax", "float32", "cpu", [found]))
        raise processes.SideError("keras_impl died")

    monkeypatch.setattr(prove.climb, "own_pairs", climb)
    (tmp_path / "report.html").write_text("an earlier climb")
    with pytest.raises(SystemExit):
        prove.main(["--quick", "--out", str(tmp_path)])
    assert "error: keras_impl died" in capsys.readouterr().err
    assert (tmp_path / "report.html").read_text() == "an earlier climb"
    found = results.read(tmp_path / "unfinished")
    assert found.verdict == "failed"
    assert [(rung.name, rung.status) for rung in found.rungs] == [
        ("structure", "passed"),
        ("unfinished", "failed"),
    ]
    assert "keras_impl died" in (tmp_path / "unfinished" / "report.html").read_text()


def test_every_model_of_the_ladder_is_exported() -> None:
    assert set(exports.DIGITS) == set(prove.parse([]).pairs)


def test_a_rung_is_decided_kept_and_told_of(tmp_path: Path) -> None:
    told: list[Rung] = []
    findings, place = Findings(), Place(tmp_path, "cpu", told.append)
    subject = Subject("cnn", "jax", "float32", "cpu")
    checks = [Check("parameters", 0.0, 0.0), Check("bn1", 1.0, 0.0)]
    rung = findings.decide("structure", lambda: checks, subject, "a note", 100.0, place.watch)
    assert (rung.status, rung.note, rung.checks) == ("failed", "a note", checks)
    assert (rung.pair, rung.backend, rung.precision, rung.device) == subject
    assert rung.seconds >= 100
    skipped = findings.skip("whole run", subject, "no TensorFlow", place.watch)
    assert (skipped.status, skipped.note) == ("skipped", "no TensorFlow")
    assert findings.rungs == told == [rung, skipped]
    with pytest.raises(KeyError, match=r"rung height: parity/ladder/tolerances.py has no row for it"):
        findings.decide("height", lambda: checks, subject)


def test_every_rung_of_two_traces_has_a_row_of_tolerances() -> None:
    assert [name for name in ROWS if name in RUNGS] == [*RUNGS], "the table's order is the ladder's"
    for rung in RUNGS:
        assert {"float64", "float32"} <= ROWS[rung].bounds.keys()
        assert ROWS[rung].reason
