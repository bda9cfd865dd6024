"""The ladder on pairs that are not this project's, through the command a user gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from parity.__main__ import main

PAIRS = str(Path(__file__).parents[1] / "tests")


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", PAIRS)


def climb(out: Path, keras: str, torch: str, *shape: str) -> tuple[int, dict[str, Any], set[str]]:
    """The exit code, results.json, and the quantities that failed."""
    names = ["--keras", f"pairs.{keras}", "--torch", f"pairs.{torch}"]
    code = main([*names, "--input-shape", *shape, "--out", str(out), "--steps", "4"])
    results = json.loads((out / "results.json").read_text())
    failed = {c["quantity"] for rung in results["rungs"] for c in rung["checks"] if not c["passed"]}
    assert [rung["name"] for rung in results["rungs"]][:2] == ["structure", "forward"]
    assert all(rung["checks"] for rung in results["rungs"])
    assert (out / "report.html").is_file()
    return code, results, failed


def test_a_residual_pair_is_the_same(tmp_path: Path) -> None:
    code, results, failed = climb(
        tmp_path, "residual_keras:build", "residual_torch:build_exact", "32", "32", "3"
    )
    assert failed == set()
    assert code == 0
    assert results["verdict"] == "passed"


def test_symmetric_padding_is_named(tmp_path: Path) -> None:
    code, results, _ = climb(
        tmp_path, "residual_keras:build", "residual_torch:build_symmetric_padding", "32", "32", "3"
    )
    assert code == 1
    assert "padded otherwise" in results["diagnoses"][0]["cause"]


@pytest.mark.slow
def test_a_sequential_pair_differs_by_bessels_correction_alone(tmp_path: Path) -> None:
    code, results, failed = climb(
        tmp_path, "sequential_keras:build", "sequential_torch:build", "12", "12", "3"
    )
    assert code == 1
    assert "Bessel" in results["diagnoses"][0]["cause"]
    assert {name.rsplit("/", 1)[1] for name in failed} == {"moving_variance"}


@pytest.mark.slow
def test_a_mixed_pair_is_the_same(tmp_path: Path) -> None:
    code, _, failed = climb(tmp_path, "mixed_keras:build", "mixed_torch:build", "16", "16", "4")
    assert failed == set()
    assert code == 0
