"""The report on keras.applications says what the verdicts say, and one of its pairs is proved for real."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from parity.foreign.prove import refused
from parity.foreign.verdict import Answer, Verdict
from parity.studies import applications


def test_the_report_tells_where_and_why_a_pair_parts(tmp_path: Path) -> None:
    parts = Answer("failed", "structure", "bn", "bn1", "BatchNorm's momentum differs", "", "momentum=0.01")
    verdicts = {
        "xception": Verdict(Answer("independent"), parts, seconds=4.0).as_json(),
        "resnet50": refused("no way to tell").as_json(),
    }
    for name in verdicts:  # what was there stays
        page = applications.write(tmp_path, {name: verdicts[name]}, "python -m parity").read_text()
    assert (
        "| xception | failed | structure, bn | BatchNorm's momentum differs | momentum=0.01 | 4 s |" in page
    )
    assert "| resnet50 | refused |  | no way to tell |" in page
    results = json.loads((tmp_path / "results.json").read_text())["pairs"]
    assert results["xception"]["computation"]["layer"] == "bn"


@pytest.mark.slow
def test_a_corrected_twin_of_timms_parts_by_bessels_correction_alone(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    assert applications.main(["--pairs", "mobilenet_v3_corrected", "--out", str(tmp_path)]) == 0
    pair = json.loads((tmp_path / "results.json").read_text())["pairs"]["mobilenet_v3_corrected"]
    assert pair["verdict"] == "failed"
    assert pair["computation"]["rung"] == "one step"
    assert "Bessel" in pair["computation"]["cause"]
    statuses = {rung["name"]: rung["status"] for rung in pair["rungs"]}
    assert [statuses[name] for name in ("structure", "forward", "loss and gradients")] == 3 * ["passed"]
