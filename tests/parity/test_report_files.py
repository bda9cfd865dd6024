"""What the report reads and writes, and what it says where that fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from page import FULL, rung, small

from parity.report import page
from parity.report.results import Ablation, Accuracy, ResultsError, read


def test_accuracy_and_ablation_are_read_from_their_files(tmp_path: Path) -> None:
    for part in ("accuracy", "ablation"):
        (tmp_path / f"{part}.json").write_text(json.dumps(FULL[part]))
    (tmp_path / "results.json").write_text(json.dumps(small(ablation=None)))
    results = read(tmp_path)
    assert results.ablation == Ablation.model_validate(FULL["ablation"])
    assert results.accuracy == Accuracy.model_validate(FULL["accuracy"])
    # What the suite itself wrote goes before a file that an earlier command left.
    (tmp_path / "results.json").write_text(json.dumps(small(ablation={**FULL["ablation"], "rows": []})))
    assert read(tmp_path).ablation == Ablation.model_validate({**FULL["ablation"], "rows": []})


# === The command ===


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no such file; `python -m parity` writes it"),
        ("", "cannot be read"),
        ('{"verdict": "pas', "cannot be read"),
        ("[1]", "holds no JSON object"),
        ("{}", "verdict: Field required"),
        (json.dumps(small(rungs=[rung(None)])), "rungs.0.checks.0.largest: Input should be a valid number"),  # type: ignore[arg-type]
        (
            json.dumps(small(layers=[{**FULL["layers"][0], "eval": []}])),
            "layers.0: names, eval, train and gradient differ in length",
        ),
    ],
)
def test_a_folder_without_results_is_one_line(
    content: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(SystemExit) as stopped:
        page.main([str(tmp_path)])
    assert stopped.value.code == 2
    err = capsys.readouterr().err
    assert said in err
    assert "results.json" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "report.html").exists()


def test_a_broken_part_is_blamed_on_its_own_file(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps(small()))
    (tmp_path / "accuracy.json").write_text("{}")
    with pytest.raises(ResultsError, match=r"accuracy\.json: accuracy\.statement: Field required"):
        read(tmp_path)


def test_the_command_prints_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "results.json").write_text(json.dumps(small()))
    assert page.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'report.html'}\n"


def test_an_earlier_page_outlives_broken_results(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps(small()))
    before = page.write(tmp_path).read_text()
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(ResultsError):
        page.write(tmp_path)
    assert (tmp_path / "report.html").read_text() == before
