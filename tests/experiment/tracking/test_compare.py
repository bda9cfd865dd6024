"""Runs listed, filtered, sorted and compared, from run records made by hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from experiment.config import Experiment
from experiment.runs.record import HISTORY, Run
from experiment.tracking import compare

RATES = {"keras-a": 0.001, "lightning-b": 0.002, "keras-c": 0.01}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three runs of rising learning rate and falling accuracy; the last has not ended."""
    for number, (name, rate) in enumerate(RATES.items()):
        settings = {"training": {"learning_rate": rate}, "run": {"dir": str(tmp_path / name)}}
        run = Run.create(Experiment.model_validate(settings), name.split("-")[0], "digits")
        run.write_json("environment.json", {"framework": name.split("-")[0], "data": {"name": "digits"}})
        rows = [
            dict.fromkeys(HISTORY, 0.5) | {"epoch": epoch, "val_accuracy": 0.1 * epoch} for epoch in (1, 2)
        ]
        run.write_history(rows)
        if name != "keras-c":
            metrics = {"test_accuracy": 0.9 - number / 10, "test_loss": 0.5, "macro_f1": 0.25}
            more = {"status": "completed", "best_epoch": 2, "parameters": {"total": 1234, "trainable": 1200}}
            run.write_json("metrics.json", metrics | more)
    return tmp_path


def listed(capsys: pytest.CaptureFixture) -> list[str]:
    return [Path(line.split()[0]).name for line in capsys.readouterr().out.splitlines()[2:]]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ((), ["keras-a", "keras-c", "lightning-b"]),
        (("--filter=framework=keras",), ["keras-a", "keras-c"]),
        (("--filter", "framework!=keras"), ["lightning-b"]),
        (("--filter=training.learning_rate<0.005", "--filter=framework=keras"), ["keras-a"]),
        (("--filter=test_accuracy>=0.8",), ["keras-a", "lightning-b"]),
        (("--filter=status=unfinished",), ["keras-c"]),
        (("--sort", "test_accuracy"), ["lightning-b", "keras-a", "keras-c"]),
        (("--sort", "-training.learning_rate"), ["keras-c", "lightning-b", "keras-a"]),
    ],
)
def test_list_filters_and_sorts(
    options: tuple[str, ...], names: list[str], folder: Path, capsys: pytest.CaptureFixture
) -> None:
    assert compare.main([str(folder), *options]) == 0
    assert listed(capsys) == names


def test_keys_of_filters_are_shown(folder: Path, capsys: pytest.CaptureFixture) -> None:
    compare.main([str(folder), "--filter=training.learning_rate>0.005"])
    heads, _, row = capsys.readouterr().out.splitlines()
    assert heads.split()[-1] == "training.learning_rate"
    assert row.split()[-1] == "0.01"


def test_two_runs_stand_side_by_side_with_what_their_configurations_differ_in(
    folder: Path, capsys: pytest.CaptureFixture
) -> None:
    figure = folder / "both.png"
    assert compare.main([str(folder / "keras-a"), str(folder / "lightning-b"), "--figure", str(figure)]) == 0
    out = capsys.readouterr().out
    lines = {" ".join(line.split()[:-2]): line.split()[-2:] for line in out.splitlines() if line.strip()}
    assert lines["test accuracy"] == ["0.9000", "0.8000"]
    assert lines["parameters"] == ["1,234", "1,234"]
    assert lines["training.learning_rate"] == ["0.001", "0.002"]
    assert "training.batch_size" not in lines
    assert figure.stat().st_size > 10_000
    assert not (folder / "both_steps.png").exists()


def test_two_runs_that_recorded_their_steps_are_drawn_step_by_step(folder: Path) -> None:
    runs = [folder / "keras-a", folder / "lightning-b"]
    for run, loss in zip(runs, (2.0, 2.5), strict=True):
        (run / "steps.csv").write_text(f"epoch,step,loss\n1,0,{loss}\n1,1,{loss / 2}\n")
    assert compare.main([*map(str, runs), "--figure", str(folder / "both.png")]) == 0
    assert (folder / "both_steps.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--filter=test_accurcy>0.5",), "did you mean test_accuracy?"),
        (("--filter=nonsense",), "give KEY=VALUE"),
        (("--sort=colour",), "no run has a colour"),
    ],
)
def test_meaningless_filters_are_refused(
    options: tuple[str, ...], message: str, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit, match="2"):
        compare.main([str(folder), *options])
    errors = capsys.readouterr().err
    assert message in errors
    assert len(errors.splitlines()) == 1


def test_folder_without_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match="2"):
        compare.main([str(tmp_path)])
    assert "no run in" in capsys.readouterr().err


def test_a_page_shows_runs_side_by_side(folder: Path, tmp_path: Path) -> None:
    runs = [folder / "keras-a", folder / "lightning-b"]
    (runs[0] / "curves.png").touch()
    out = tmp_path / "pages" / "compare.html"
    figure = tmp_path / "together.png"
    assert compare.main([*map(str, runs), "--figure", str(figure), "--page", str(out)]) == 0
    page = out.read_text()
    assert 'src="../together.png"' in page
    assert 'src="../keras-a/curves.png"' in page
    assert "lightning-b/curves.png" not in page  # which it has not
    rows = re.findall(r"<tr><td>([^<]+)</td><td>([^<]+)</td><td>([^<]+)</td></tr>", page)
    assert ("test accuracy", "0.9000", "0.8000") in rows
    assert ("training.learning_rate", "0.001", "0.002") in rows


def test_a_page_that_cannot_be_written_is_told(folder: Path, capsys: pytest.CaptureFixture) -> None:
    (folder / "file").touch()
    with pytest.raises(SystemExit) as ended:
        compare.main([str(folder / "keras-a"), "--page", str(folder / "file" / "page.html")])
    assert ended.value.code == 2
    assert "cannot be written" in capsys.readouterr().err
