"""Cells take turns, samples outlive an interruption, and the report says what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import __main__ as command
from benchmarks import compare, report, stats, suite
from benchmarks.collect import Cell, Samples, collect, interleaved
from experiment.errors import ConfigError

TAKES = {"Lightning": 4.0, "ONNX": 2.0}
CELLS = [Cell(name, {"batch": batch}) for batch in (1, 64) for name in TAKES]


class Suite(suite.Suite):
    title, quantity, notes, base = "Calls", "ms a call", "What it is.", "Lightning"

    def __init__(self) -> None:
        """It has no arguments."""

    @staticmethod
    def value(sample: dict[str, Any]) -> float:
        return sample["calls"]["deciles"][5]

    def columns(self, cell: dict[str, Any]) -> dict[str, str]:
        return {"batch": str(cell["setting"]["batch"])}


def sample(milliseconds: float) -> dict[str, Any]:
    return {"calls": {"count": 3, "deciles": [milliseconds] * 11}}


def values(scale: float = 1.0) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    cells = [
        {
            "name": cell.name,
            "setting": cell.setting,
            "samples": [
                sample(scale * (4 if cell.name == "Lightning" else 2) * draw.uniform(0.99, 1.01))
                for _ in range(5)
            ],
        }
        for cell in CELLS
    ]
    facts = {"cpu": "a CPU", "cores": 2, "platform": "Linux", "python": "3.11", "versions": {"torch": "2.15"}}
    return {
        "suite": "inference",
        "turns": 5,
        "command": ["python", "-m", "benchmarks", "inference"],
        "environment": {**facts, "git_revision": "abc", "utc": "2026-11-23"},
        "cells": cells,
    }


# === Collecting ===


def test_cells_take_turns_that_begin_with_the_next() -> None:
    order = [cell.key for _, cell in interleaved(CELLS, 5)]
    assert [order[i : i + 4][0] for i in range(0, 20, 4)] == [CELLS[i % 4].key for i in range(5)]
    assert all(sorted(order[i : i + 4]) == sorted(cell.key for cell in CELLS) for i in range(0, 20, 4))


def test_an_interrupted_benchmark_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    measured: list[Cell] = []

    def measure(cell: Cell) -> dict[str, Any]:
        if len(measured) == 5:
            measured.append(cell)
            raise KeyboardInterrupt
        measured.append(cell)
        return {"number": len(measured)}

    path = tmp_path / "samples.jsonl"
    with pytest.raises(KeyboardInterrupt):
        collect(CELLS, 2, Samples(path, {"suite": "a"}), measure)
    assert "the same command goes on" in capsys.readouterr().err
    found = collect(CELLS, 2, Samples(path, {"suite": "a"}), measure)
    assert len(measured) == 9, "one was interrupted, none was measured twice"
    assert [len(cell["samples"]) for cell in found] == [2, 2, 2, 2]
    numbers = sorted(one["number"] for cell in found for one in cell["samples"])
    assert numbers == [1, 2, 3, 4, 5, 7, 8, 9]


def test_samples_of_another_benchmark_are_not_mixed_in(tmp_path: Path) -> None:
    Samples(tmp_path / "samples.jsonl", {"seconds": 1})
    with pytest.raises(ConfigError, match="holds another benchmark"):
        Samples(tmp_path / "samples.jsonl", {"seconds": 2})


# === Statistics ===


def test_a_ratio_has_an_interval_that_holds_it() -> None:
    one, other = [20.0, 21.0, 20.5, 19.5, 20.2], [10.0, 10.4, 9.8, 10.1, 10.3]
    middle, low, high = stats.ratio(one, other)
    assert middle == pytest.approx(20.2 / 10.1)
    assert 1.85 < low < middle < high < 2.15
    assert stats.ratio([1.0], [2.0]) == (0.5, 0.5, 0.5)
    assert stats.spread([1, 2, 3, 4, 5]) == (3, 2, 4)


def test_intervals_of_equal_speeds_hold_one_most_of_the_time() -> None:
    draw = np.random.default_rng(1)
    held = 0
    for _ in range(40):
        one, other = draw.normal(10, 1, (2, 12))
        _, low, high = stats.ratio(one.tolist(), other.tolist())
        held += low < 1 < high
    assert 34 <= held <= 40


# === The report ===


def test_the_report_holds_medians_ratios_and_the_machine(tmp_path: Path) -> None:
    path = report.write(tmp_path, Suite(), values())
    text = path.read_text()
    [line] = [line for line in text.splitlines() if line.startswith("| ONNX")][:1]
    cells = [one.strip() for one in line.strip("|").split("|")]
    assert cells[0] == "ONNX"
    assert float(cells[1]) == pytest.approx(2, rel=0.02)
    assert float(cells[3]) == pytest.approx(0.5, rel=0.02)
    assert cells[-1] == "1"
    assert text.count("## batch") == 2
    assert "a CPU, 2 cores" in text
    assert "python -m benchmarks inference" in text
    assert json.loads((tmp_path / "results.json").read_text())["cells"][0]["samples"]
    assert Image.open(tmp_path / "bars.png").size[0] > 600


def test_two_reports_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name, scale in (("a", 1.0), ("b", 1.5)):
        (tmp_path / f"{name}.json").write_text(json.dumps(values(scale)))
    assert command.main(["compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 0
    said = capsys.readouterr().out
    assert said.count("1.500") == 4
    assert said.count("B is more") == 4
    rows = compare.compare(values(), values())
    assert [ratio for _, _, (ratio, _, _) in rows] == [1.0] * 4


@pytest.mark.parametrize("content", ["{}", "[", None])
def test_what_is_no_report_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture, content: str | None
) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SystemExit) as refused:
        compare.main([str(path), str(path)])
    assert refused.value.code == 2
    assert "cannot be read as the results.json" in capsys.readouterr().err


def test_an_unknown_suite_is_told_what_there_is(capsys: pytest.CaptureFixture) -> None:
    assert command.main(["speed"]) == 2
    assert "Suites:" in capsys.readouterr().out
