"""The ladder on pairs that are not this project's, through the command a user gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parity import assert_same
from parity.__main__ import main

PAIRS = str(Path(__file__).parents[1] / "tests")


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", PAIRS)


def climb(out: Path, keras: str, torch: str, *inputs: str) -> tuple[int, dict[str, Any], set[str]]:
    """The exit code, results.json, and the quantities that failed."""
    names = ["--keras", f"pairs.{keras}", "--torch", f"pairs.{torch}"]
    code = main([*names, *inputs, "--out", str(out), "--steps", "4"])
    results = json.loads((out / "results.json").read_text())
    failed = {c["quantity"] for rung in results["rungs"] for c in rung["checks"] if not c["passed"]}
    assert [rung["name"] for rung in results["rungs"]][:3] == ["weights", "structure", "forward"]
    assert all(rung["checks"] or rung["skipped"] for rung in results["rungs"])
    assert (out / "report.html").is_file()
    return code, results, failed


SHAPES = {"residual": (32, 32, 3), "mixed": (16, 16, 4), "sequential": (12, 12, 3)}


def climb_pair(out: Path, torch: str, keras: str = "build") -> tuple[int, dict[str, Any], set[str]]:
    """Climb with PAIR:BUILDER of tests/pairs, on inputs that fit."""
    pair, builder = torch.split(":")
    if pair == "text":
        words = np.random.default_rng(1).integers(0, 50, size=(32, 12)).astype(np.int32)
        np.save(out / "words.npy", words)
        inputs = ["--inputs", str(out / "words.npy")]
    else:
        inputs = ["--input-shape", *map(str, SHAPES[pair])]
    return climb(out, f"{pair}_keras:{keras}", f"{pair}_torch:{builder}", *inputs)


def test_weights_that_were_loaded_wrongly_are_told_from_the_computation(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    names = ["--keras", "pairs.loaded_keras:build", "--torch", "pairs.loaded_torch:build_swapped"]
    code = main(
        [*names, "--input-shape", "8", "8", "3", "--out", str(tmp_path), "--steps", "2", "--format", "json"]
    )
    verdict = json.loads(capsys.readouterr().out)
    assert code == 1
    assert verdict["verdict"] == "failed"
    assert verdict["weights"]["status"] == "failed"
    assert verdict["weights"]["layer"] == "conv"
    assert "height and width are swapped" in verdict["weights"]["cause"]
    assert verdict["computation"]["status"] == "passed"
    assert [rung["status"] for rung in verdict["rungs"]] == ["failed", *5 * ["passed"]]


def test_a_users_own_test_fails_with_the_cause() -> None:
    with pytest.raises(AssertionError, match=r"The computation differs at conv.*padded otherwise"):
        assert_same(
            "pairs.loaded_keras:build", "pairs.loaded_torch:build_padded", input_shape=(8, 8, 3), steps=2
        )


@pytest.mark.slow
def test_a_users_own_test_passes_in_float32_too() -> None:
    verdict = assert_same(
        "pairs.loaded_keras:build",
        "pairs.loaded_torch:build",
        input_shape=(8, 8, 3),
        steps=2,
        backends=["tensorflow", "jax"],
    )
    assert (verdict.weights.status, verdict.computation.status) == ("passed", "passed")
    assert [rung.precision for rung in verdict.rungs][-4:] == 4 * ["float32"]


def test_what_cannot_be_compared_is_no_failed_assertion() -> None:
    with pytest.raises(ValueError, match="there is no module nowhere"):
        assert_same("pairs.loaded_keras:build", "nowhere:build", input_shape=(8, 8, 3))


def test_a_residual_pair_is_the_same(tmp_path: Path) -> None:
    code, results, failed = climb_pair(tmp_path, "residual:build_exact")
    assert failed == set()
    assert code == 0
    assert results["verdict"] == "passed"


@pytest.mark.slow
@pytest.mark.parametrize("pair", ["mixed:build", "text:build"])
def test_other_pairs_are_the_same(tmp_path: Path, pair: str) -> None:
    code, _, failed = climb_pair(tmp_path, pair)
    assert failed == set()
    assert code == 0


@pytest.mark.slow
def test_a_sequential_pair_differs_by_bessels_correction_alone(tmp_path: Path) -> None:
    code, results, failed = climb_pair(tmp_path, "sequential:build")
    assert code == 1
    assert "Bessel" in results["diagnoses"][0]["cause"]
    assert {name.rsplit("/", 1)[1] for name in failed} == {"moving_variance"}


FAULTS = {
    "mixed:build_leaky_slope": ("structure", "LeakyReLU's slope"),
    "mixed:build_symmetric_pooling": ("forward", "pooling is padded otherwise"),
    "mixed:build_group_epsilon": ("structure", "epsilon"),
    "mixed:build_stock_adam": ("one step", "torch's own"),
    "residual:build": ("one step", "Bessel"),
    "residual:build_stock_batchnorm": ("structure", "momentum"),
    "residual:build_other_dropout": ("structure", "dropout rate"),
    "text:build_gelu_tanh": ("structure", "approximated by tanh"),
    "text:build_swapped": ("forward", "gelu acts at another place"),
}


@pytest.mark.parametrize(
    "fault", ["residual:build_symmetric_padding", *(pytest.param(f, marks=pytest.mark.slow) for f in FAULTS)]
)
def test_a_planted_fault_is_named(tmp_path: Path, fault: str) -> None:
    code, results, _ = climb_pair(tmp_path, fault)
    rung, words = FAULTS.get(fault, ("forward", "convolution is padded otherwise"))
    assert code == 1
    assert results["diagnoses"][0]["rung"] == rung
    assert words in results["diagnoses"][0]["cause"]


@pytest.mark.slow
def test_a_repeated_tokens_squares_are_noted(tmp_path: Path) -> None:
    code, results, failed = climb_pair(tmp_path, "text:build_plain", keras="build_adam")
    assert failed == set()
    assert code == 0
    assert any("squares those of a repeated token apart" in note for note in results["notes"])


@pytest.mark.slow
def test_a_layer_without_a_counterpart_is_told(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as refused:
        climb_pair(tmp_path, "text:build_recurrent")
    assert refused.value.code == 2
    said = capsys.readouterr().err
    assert "torch's lstm, LSTM (kernel 16x32" in said, "it and its weights"
    assert "no recurrent_kernel" in said, "and what is wrong with the nearest"
    assert "Traceback" not in said


EXAMPLES = {
    "right": (0, None),
    "channel_first": (0, None),
    "wrong_batchnorm": (1, "epsilon differs"),
    "WrongSoftmax": (1, "softmax acts twice"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_get_the_verdict_that_they_are_told_to(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture
) -> None:
    code, cause = EXAMPLES[name]
    pair = ["--keras=examples.pairs_keras:small", f"--torch=examples.pairs_torch:{name}"]
    assert main([*pair, "--input-shape", "16", "16", "3", "--format=json", f"--out={tmp_path}"]) == code
    verdict = json.loads(capsys.readouterr().out)
    assert cause is None or cause in verdict["computation"]["cause"]
    told = [note for note in verdict["notes"] if "torch flattens channel first before dense" in note]
    assert len(told) == (name == "channel_first")
