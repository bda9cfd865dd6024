"""Accuracy equivalence of real training runs: shown where it holds, and not where it does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from parity.accuracy.command import judge, main
from parity.accuracy.runs import jobs, train_all


def both(options: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    return {"keras": options, "lightning": options}


SMALL = (
    "--config=configs/digits.yaml",
    "--gpus=0",
    "--model.filters=[16,32]",
    "--model.dense_units=64",
    "--training.batch_size=16",
    "--training.epochs=10",
)
TERMS = ("--seeds=5", "--baseline=0", "--margin=0.02")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("accuracy")
    main([*TERMS, "--out", str(out), *SMALL])
    return out


@pytest.mark.slow
def test_both_sides_reach_equivalent_accuracy_on_digits(
    digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TERMS, "--out", str(digits), *SMALL]) == 0
    assert "10 of 10 runs are finished already" in capsys.readouterr().out
    found = json.loads((digits / "accuracy.json").read_text())
    assert found["comparisons"][0]["power"] > 0.8
    for side in found["sides"].values():
        assert side["own"]["mean"] > 0.95
        assert len(set(side["own"]["accuracies"])) > 1
    # On one seed the frameworks part no further than runs of two seeds do, whichever made them.
    assert found["comparisons"][0]["disagreement"]["mean"] < 1.5 * max(found["other_seeds"].values())
    assert found["comparisons"][0]["disagreement"]["mean"] > 0


@pytest.mark.slow
def test_a_tenth_of_the_learning_rate_is_not_equivalent(digits: Path, tmp_path: Path) -> None:
    trained = [job for job in jobs(digits, both(SMALL), 3, 0) if job.side == "keras"]
    slower = jobs(tmp_path, both((*SMALL, "--training.learning_rate=1e-4")), 3, 0)
    wanted = [*trained, *(job for job in slower if job.side == "lightning")]
    train_all(wanted)
    found = judge(wanted, tmp_path, margin=0.02, alpha=0.05, command="")
    assert found["verdict"] != "equivalent"
    assert found["comparisons"][0]["difference"] < -0.02


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--seeds", "1"], "at least 2"),
        (["--margin", "1"], "between 0 and 0.5"),
        (["--baseline", "11"], "2 to --seeds 10"),
        (["--seed", "3"], "the seeds are 1 to --seeds"),
        (["--run.dir=x"], "the runs lie in --out"),
        (["--training.dropout_masks", "shared"], "cannot be given"),
        (["--training.epoch", "3"], "did you mean --training.epochs?"),
    ],
)
def test_mistakes_answer_at_once(
    argv: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit:
        main([*argv, "--out", str(tmp_path)])
    assert exit.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) <= 2
    assert not any(tmp_path.iterdir()), "nothing may be trained"
