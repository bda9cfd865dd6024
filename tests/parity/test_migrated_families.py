"""The report of migrated families: what it says of each, and the rows of runs before it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from parity.studies import families

PROVEN: dict[str, Any] = {
    "verdict": "proven",
    "lines": 84,
    "written": 11.2,
    "seconds": 99.0,
    "rungs": {"forward": 7.7e-13, "loss and gradients": 8.4e-13, "one step": "inf"},
    "notes": ["rounding grows in this training: by 1e-09", "not compared by itself: predictions"],
}


def test_a_row_says_how_far_each_rung_is_apart() -> None:
    row = families.row_of("ResNet50", PROVEN)
    assert row == ["ResNet50", "64", "84", "proven", "7.7e-13", "8.4e-13", "inf", "", "11 s", "99 s"]
    refused = families.row_of("VGG16", {"verdict": "error: no", "seconds": 3.0})
    assert refused == ["VGG16", "32", "", "error: no", "", "", "", "", "", "3 s"]


def test_other_rows_stay_and_rounding_is_told(tmp_path: Path) -> None:
    families.write(tmp_path, {"ResNet50": PROVEN}, "first", 6)
    assert "runs before it" not in (tmp_path / "README.md").read_text()
    families.write(tmp_path, {"VGG16": {**PROVEN, "notes": []}}, "second", 6)
    text = (tmp_path / "README.md").read_text()
    assert text.index("| VGG16 |") < text.index("| ResNet50 |")
    assert "`second` migrated VGG16; the other rows are of runs before it." in text
    assert "- ResNet50: rounding grows in this training: by 1e-09" in text
    assert "not compared by itself" not in text
    assert list(json.loads((tmp_path / "results.json").read_text())["families"]) == ["VGG16", "ResNet50"]
