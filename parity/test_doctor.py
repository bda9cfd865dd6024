"""The doctor through its command: a module with torch's own defaults, and mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from parity.__main__ import main
from parity.doctor import grouped

PAIRS = str(Path(__file__).parents[1] / "tests")


def test_findings_are_told_once_each(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("PYTHONPATH", PAIRS)
    monkeypatch.setenv("COLUMNS", "160")
    file = tmp_path / "findings.json"
    command = ["doctor", "--torch", "pairs.sequential_torch:build", "--input-shape", "12", "12", "3"]
    assert main([*command, "--json", str(file)]) == 1
    found = json.loads(file.read_text())
    texts = {finding["torch"] for finding in found}
    assert any("Bessel" in text for text in texts)
    assert any("flattened channel first" in text for text in texts)
    shown = capsys.readouterr().out
    assert shown.count("Bessel") == 1
    assert f"{len(grouped(found))} unmatched" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--torch"),
        (["--torch", "nowhere.at_all:build"], "there is no module nowhere"),
        (["--torch", "a:b", "--input-shape", "0"], "--input-shape"),
    ],
)
def test_mistakes(arguments: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["doctor", *arguments])
    assert refused.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert len(said.strip().splitlines()) <= 3
