"""Accuracy over seeds: made run records are judged as they must be, and real training on both sides."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiment.runs.record import Run
from parity.accuracy import runs
from parity.accuracy.command import main
from parity.accuracy.runs import Job, jobs

IMAGES = 1000
OPTIONS = ("--data.name=digits", "--gpus=0")


def both(options: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    return {"keras": options, "lightning": options}


# A network that has not run out of errors to differ by, 15 s a run.

Errors = Callable[[Job], list[int]]  # the test images that a run gets wrong


def shifting(*lightning: int, by_masks: int = 0) -> Errors:
    """Keras errs on images 0 to 99; Lightning, by seed, on so many more, or on fewer; masks shift which."""

    def errors(job: Job) -> list[int]:
        count = 100 + (lightning[(job.seed - 1) % len(lightning)] if job.side == "lightning" else 0)
        first = by_masks * (1 + (job.side == "lightning") if job.masks == "shared" else 0)
        return list(range(first, first + count))

    return errors


def make_run(job: Job, errors: Errors, versions: str = "1.0", tested: int = 0) -> Run:
    settings = job.experiment.run.model_copy(update={"dir": str(job.directory), "overwrite": True})
    run = Run.create(job.experiment.model_copy(update={"run": settings}), job.side, "digits")
    images = {"train": 1294, "validation": 144, "test": IMAGES}
    facts = {
        "framework": job.side,
        "device": "cpu",
        "cpu": "a CPU",
        "cores": 2,
        "versions": {"numpy": versions},
    }
    data = {"name": "digits", "sha256": "0" * 64, "images": images}
    run.write_json("environment.json", {**facts, "backend": "tensorflow", "data": data})
    y_true = (np.arange(IMAGES) + tested) % 10
    answers = y_true.copy()
    answers[errors(job)] = (answers[errors(job)] + 1) % 10
    run.write_arrays("predictions.npz", y_true=y_true, probabilities=np.eye(10)[answers])
    accuracy = float((answers == y_true).mean())
    run.write_json("metrics.json", {"status": "completed", "test_accuracy": accuracy})
    return run


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Training that makes records in a moment, Lightning's accuracy as Keras's; what was trained."""
    names: list[str] = []
    use(monkeypatch, names, shifting(0, 1, -1, 0))
    return names


def use(monkeypatch: pytest.MonkeyPatch, names: list[str], errors: Errors) -> None:
    def train(job: Job) -> Run:
        names.append(job.directory.name)
        return make_run(job, errors)

    monkeypatch.setattr(runs, "train", train)


def run_main(out: Path, *argv: str) -> int:
    return main(["--seeds", "4", "--out", str(out), *OPTIONS, *argv])


def results(out: Path) -> dict[str, Any]:
    return json.loads((out / "accuracy.json").read_text())


# === Judging ===


def test_equal_accuracies_are_equivalent(trained: list[str], tmp_path: Path) -> None:
    assert run_main(tmp_path) == 0
    found = results(tmp_path)
    assert found["verdict"] == "equivalent"
    assert found["sides"]["keras"]["own"]["accuracies"] == [0.9] * 4
    assert found["sides"]["lightning"]["own"]["accuracies"] == [0.9, 0.899, 0.901, 0.9]
    claim = found["comparisons"][0]
    assert claim["differences"] == pytest.approx([0, -0.001, 0.001, 0])
    # sd sqrt(2/3) / 1000, so a standard error of 0.000408; t with 3 degrees of freedom and 0.95 is 2.353363.
    assert claim["sd"] == pytest.approx(0.000816497)
    assert claim["ci_high"] == pytest.approx(0.000408248 * 2.353363, rel=1e-5)
    assert claim["ci_low"] == pytest.approx(-claim["ci_high"])
    assert claim["disagreement"]["shares"] == pytest.approx([0, 0.001, 0.001, 0])
    assert (claim["disagreement"]["first_only"], claim["disagreement"]["second_only"]) == (1, 1)
    assert len(trained) == 16
    text = (tmp_path / "accuracy.md").read_text()
    assert found["statement"] in text
    assert f"python -m parity accuracy --seeds 4 --out {tmp_path} {' '.join(OPTIONS)}" in text
    assert "| 2 | 0.9000 | 0.8990 | -0.10 |" in text


@pytest.mark.parametrize(
    ("fewer_errors", "verdict"),
    [
        ((15, 16, 14), "different"),
        ((-15, -16, -14), "different"),
        ((5, 5, 6), "equivalent"),
        ((8, 12), "not shown"),
    ],
)
def test_the_verdict_follows_the_interval(
    trained: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    fewer_errors: tuple[int],
    verdict: str,
) -> None:
    use(monkeypatch, trained, shifting(*fewer_errors))
    assert run_main(tmp_path, "--baseline", "0") == int(verdict != "equivalent")
    found = results(tmp_path)
    assert found["verdict"] == verdict
    assert found["comparisons"][0]["difference"] == pytest.approx(
        -np.mean([*fewer_errors, *fewer_errors][:4]) / 1000
    )
    assert any("not zero" in note for note in found["notes"]) == (verdict == "equivalent")
    assert found["excess"] is None
    assert len(found["comparisons"]) == 1


def test_disagreement_is_set_against_each_framework_itself(
    trained: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use(monkeypatch, trained, shifting(0, by_masks=10))
    run_main(tmp_path)
    found = results(tmp_path)
    by_name = {one["name"]: one["disagreement"]["mean"] for one in found["comparisons"]}
    # Ten images on either end; Lightning's masks move it by twenty.
    assert by_name == pytest.approx(
        {"frameworks": 0, "keras itself": 0.02, "lightning itself": 0.04, "frameworks, same masks": 0.02}
    )
    assert found["excess"]["mean"] == pytest.approx(-0.03)
    assert found["other_seeds"] == {"keras": 0, "lightning": 0, "frameworks": 0}


def test_images_of_different_seeds_are_not_compared_where_a_limit_draws_them(
    trained: list[str], tmp_path: Path
) -> None:
    run_main(tmp_path / "drawn", "--data.limit", str(IMAGES))
    assert results(tmp_path / "drawn")["other_seeds"] is None
    run_main(tmp_path / "all", "--data.limit", str(IMAGES + 1))
    assert results(tmp_path / "all")["other_seeds"] is not None


def test_terms_changed_after_the_fact_are_told(trained: list[str], tmp_path: Path) -> None:
    assert run_main(tmp_path, "--margin", "0.0001") == 1
    assert run_main(tmp_path) == 0
    assert results(tmp_path)["earlier"] == [
        {"seeds": 4, "margin": 0.0001, "alpha": 0.05, "verdict": "not shown"}
    ]
    assert "judged before by other terms" in (tmp_path / "accuracy.md").read_text()


@pytest.mark.parametrize(
    ("change", "said"), [({"versions": "1.1"}, "versions is"), ({"tested": 3}, "different images")]
)
def test_runs_that_do_not_belong_together_are_refused(
    trained: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], said: str
) -> None:
    run_main(tmp_path)
    (tmp_path / "accuracy.json").unlink()
    [job] = [one for one in jobs(tmp_path, both(OPTIONS), 4, 4) if str(one) == "keras, seed 3, own masks"]
    make_run(job, shifting(0), **change)
    assert run_main(tmp_path) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "accuracy.json").exists()


# === Training what is not there ===


def test_finished_runs_are_not_trained_again(trained: list[str], tmp_path: Path) -> None:
    run_main(tmp_path)
    assert sorted(trained) == sorted(
        f"{side}-{masks}-{seed}"
        for side in ("keras", "lightning")
        for masks in ("own", "shared")
        for seed in range(1, 5)
    )
    trained.clear()
    (tmp_path / "runs/keras-own-2/metrics.json").unlink()
    interrupted = Run(tmp_path / "runs/lightning-shared-3")
    interrupted.write_json("metrics.json", {"status": "interrupted", "test_accuracy": 0.1})
    assert run_main(tmp_path) == 0
    assert sorted(trained) == ["keras-own-2", "lightning-shared-3"]
    trained.clear()
    main(["--seeds", "5", "--baseline", "4", "--out", str(tmp_path), *OPTIONS])
    assert sorted(trained) == ["keras-own-5", "lightning-own-5"]


def test_runs_of_other_options_are_left_alone(
    trained: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_main(tmp_path)
    trained.clear()
    with pytest.raises(SystemExit) as exit:
        run_main(tmp_path, "--training.epochs", "3")
    assert exit.value.code == 2
    assert "was trained with other options" in capsys.readouterr().err
    assert trained == []


def test_a_failed_run_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def fail(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 1, "", "much before\nthe loss became nan in epoch 1")

    monkeypatch.setattr(subprocess, "run", fail)
    assert run_main(tmp_path) == 1
    said = capsys.readouterr().err
    assert "keras, seed 1, own masks: training failed" in said
    assert "the loss became nan in epoch 1" in said
    assert len(asked) == 1
    assert asked[0][1:3] == ["-m", "keras_impl.train"]
    assert asked[0][3:8] == ["--data.name=digits", "--gpus", "0", "--seed", "1"]
