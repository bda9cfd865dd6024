"""The run directory: whole files, never overwritten unasked, read back as written."""

from __future__ import annotations

import csv
import errno
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiment.cli import read_config
from experiment.config import Experiment
from experiment.errors import RunError
from experiment.runs.record import HISTORY, Run, left_behind, occupied, release
from experiment.system.environment import environment
from experiment.system.files import replacing


def experiment(directory: Path | None = None, **values: Any) -> Experiment:
    run = {"dir": str(directory) if directory else None, **values.pop("run", {})}
    return Experiment.model_validate({"run": run, **values})


@pytest.fixture(autouse=True)
def released() -> Iterator[None]:
    release()
    yield
    release()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(experiment(tmp_path / "run"), "keras", "digits")


# === Whole files ===


def test_replacing_shows_the_new_file_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("half")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent
        assert temporary.suffix == ".json"
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("before", [None, "old"])
def test_replacing_leaves_nothing_of_a_failed_write(tmp_path: Path, before: str | None) -> None:
    path = tmp_path / "a.csv"
    if before:
        path.write_text(before)

    def write() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert [p.read_text() for p in tmp_path.iterdir()] == ([before] if before else [])


# === Directories ===


def test_create_makes_a_run_that_says_how_to_repeat_it(tmp_path: Path) -> None:
    wanted = experiment(
        tmp_path / "deep" / "run",
        seed=7,
        run={"record_steps": True, "overwrite": True},
        training={"class_weights": [1.0, 0.1], "learning_rate": 1 / 3},
        data={"root": "~/ä: b"},
    )
    run = Run.create(wanted, "keras", "digits")
    assert run.checkpoints.is_dir()
    again = read_config(run.directory / "config.yaml")
    assert again == wanted.model_copy(update={"run": experiment(run={"record_steps": True}).run})


def test_a_directory_that_is_left_out_is_named_for_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda form: "20260101-000000")
    names = [str(Run.create(experiment(), "keras", "digits").directory) for _ in range(3)]
    first = "runs/keras-cnn-digits-20260101-000000"
    assert names == [first, f"{first}-2", f"{first}-3"]


def test_a_run_is_replaced_only_when_asked(run: Run) -> None:
    (run.directory / "metrics.json").write_text("{}")
    with pytest.raises(FileExistsError, match=r"--run\.overwrite true"):
        Run.create(experiment(run.directory), "keras", "digits")
    assert run.finished
    Run.create(experiment(run.directory, run={"overwrite": True}), "keras", "digits")
    assert not run.finished
    release()
    assert sorted(os.listdir(run.directory)) == ["checkpoints", "config.yaml"]


def test_occupied_names_the_reason(tmp_path: Path, run: Run) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").touch()

    def reason(name: str, overwrite: bool = True) -> str | None:
        return occupied(experiment(tmp_path / name, run={"overwrite": overwrite}))

    assert occupied(experiment()) is None
    assert reason("new", overwrite=False) is None
    assert reason("empty", overwrite=False) is None
    assert reason("run") is None
    assert "exists" in (reason("run", overwrite=False) or "")
    assert "is a file" in (reason("file") or "")
    assert "no run record" in (reason("thesis") or "")
    with pytest.raises(FileExistsError):
        Run.create(experiment(tmp_path / "thesis", run={"overwrite": True}), "keras", "digits")
    assert (tmp_path / "thesis" / "chapter1.tex").exists()


def test_a_config_of_something_else_makes_no_run(tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "src").mkdir(parents=True)
    (project / "config.yaml").write_text("name: my project\ndata:\n  path: here\n")
    wanted = experiment(project, run={"overwrite": True})
    assert "no run record" in (occupied(wanted) or "")
    with pytest.raises(FileExistsError, match="no run record"):
        Run.create(wanted, "keras", "digits")
    assert sorted(os.listdir(project)) == ["config.yaml", "src"]


def test_a_damaged_record_may_be_replaced(run: Run) -> None:
    (run.directory / "config.yaml").write_bytes(b"\xff\xfe\0")
    (run.directory / "history.csv").touch()
    (run.directory / "environment.json").touch()
    (run.checkpoints / "last.ckpt").touch()
    assert occupied(experiment(run.directory, run={"overwrite": True})) is None


def test_replacing_a_run_removes_its_config_last(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    # Killed at any moment of it, what is left can still be replaced, and looks unfinished.
    for name in ("metrics.json", "a.png", "z.png"):
        (run.directory / name).touch()
    removed, honest, listed = [], Path.unlink, Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: iter(sorted(listed(path))))

    def unlink(path: Path, missing_ok: bool = False) -> None:
        removed.append(path.name)
        honest(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    Run.create(experiment(run.directory, run={"overwrite": True}), "keras", "digits")
    order = [name for name in removed if not name.startswith(".")]
    assert order[0] == "metrics.json"
    assert order[-1] == "config.yaml"
    assert len(order) == 4


# === One writer ===


@pytest.fixture
def busy(run: Run) -> Iterator[Run]:
    """A run that another process writes."""
    release()
    hold = (
        "import sys; from experiment.runs.record import Run\n"
        "Run(sys.argv[1]).claim(); print(); sys.stdin.read()"
    )
    command = [sys.executable, "-c", hold, str(run.directory)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "\n"
    yield run
    process.communicate("")


def test_a_run_that_is_written_is_not_replaced(busy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (busy.directory / "history.csv").write_text("epochs")
    before = sorted(os.listdir(busy.directory))
    wanted = experiment(busy.directory, run={"overwrite": True})
    assert "is being written by process" in (occupied(wanted) or "")
    with pytest.raises(FileExistsError, match="is being written by process"):
        Run.create(wanted, "keras", "digits")
    monkeypatch.setattr("experiment.system.files.writer", lambda directory: None)  # it came a moment later
    with pytest.raises(RunError, match="is being written by process"):
        Run.create(wanted, "keras", "digits")
    assert sorted(os.listdir(busy.directory)) == before
    assert (busy.directory / "history.csv").read_text() == "epochs"


def test_a_run_that_another_process_wrote_in_the_meantime_is_not_replaced(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([None, "run.dir exists"])
    monkeypatch.setattr("experiment.runs.record.occupied", lambda wanted: next(answers))
    with pytest.raises(FileExistsError, match="exists"):
        Run.create(experiment(run.directory), "keras", "digits")
    assert (run.directory / "config.yaml").is_file()


def test_what_a_killed_writer_left_is_removed_by_the_next(run: Run) -> None:
    for folder in (run.directory, run.checkpoints):
        (folder / ".last.ckpt.123.partial.ckpt").write_text("half")
    run.claim()
    release()
    assert sorted(os.listdir(run.directory)) == ["checkpoints", "config.yaml"]
    assert os.listdir(run.checkpoints) == []


def test_a_directory_with_leftovers_alone_is_free(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in (".lock", ".config.yaml.123.partial.yaml"):
        (tmp_path / "run" / name).touch()
    assert occupied(experiment(tmp_path / "run")) is None
    Run.create(experiment(tmp_path / "run"), "keras", "digits")
    release()
    assert sorted(os.listdir(tmp_path / "run")) == ["checkpoints", "config.yaml"]


def test_a_new_directory_is_ones_own_though_another_takes_the_name_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda form: "now")
    taken, honest = [], Path.mkdir

    def mkdir(path: Path, **options: Any) -> None:
        if path.name == "keras-cnn-digits-now" and not taken:
            taken.append(honest(path))  # between a look and the making
        honest(path, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    assert Run.create(experiment(), "keras", "digits").directory.name == "keras-cnn-digits-now-2"


def test_a_disk_without_room_for_a_new_run_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_text(path: Path, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", write_text)
    with pytest.raises(OSError, match=r"config\.yaml: cannot be written \(No space left on device\)"):
        Run.create(experiment(tmp_path / "run"), "keras", "digits")
    assert os.listdir(tmp_path) == []


def test_what_is_left_of_a_run_says_how_to_go_on(tmp_path: Path) -> None:
    run = Run.create(experiment(tmp_path / "run"), "keras", "digits")
    assert run.unborn
    run.write_json("environment.json", {})
    run.write_history([])
    (run.checkpoints / "last.ckpt").touch()
    assert not run.unborn
    for status in ({"status": "interrupted"}, {}):
        run.write_json("metrics.json", status)
        assert left_behind() == f"go on with: --resume {run.directory}"
    run.write_json("metrics.json", {"status": "completed"})
    assert left_behind() == f"its results are whole: {run.directory}"
    release()
    run = Run.create(experiment(tmp_path / "other"), "keras", "digits")
    assert left_behind() == "no epoch was finished: nothing is kept"
    assert not run.directory.exists()
    release()
    assert left_behind() is None


# === Contents ===


def test_history_comes_back_exactly(run: Run) -> None:
    assert run.history() == []
    values = np.random.default_rng(0).random((3, len(HISTORY))) * [[1e-300], [1 / 3], [1e300]]
    rows = [{**dict(zip(HISTORY, row.tolist(), strict=True)), "epoch": i} for i, row in enumerate(values, 1)]
    rows[2]["val_loss"] = math.inf
    run.write_history(rows)
    assert run.history() == rows
    assert [type(row["epoch"]) for row in run.history()] == [int] * 3
    with (run.directory / "history.csv").open() as file:
        header = next(csv.reader(file))
    expected = "epoch,loss,accuracy,val_loss,val_accuracy,learning_rate,seconds,images_per_second"
    assert ",".join(header) == expected


def test_json_and_arrays_come_back(run: Run) -> None:
    run.write_json("metrics.json", {"test_loss": 0.1 + 0.2, "message": "é"})
    assert run.read_json("metrics.json") == {"test_loss": 0.1 + 0.2, "message": "é"}
    assert run.finished
    probabilities = np.random.default_rng(0).random((4, 3))
    run.write_arrays("predictions.npz", y_true=np.arange(4), probabilities=probabilities)
    with np.load(run.directory / "predictions.npz") as file:
        assert sorted(file) == ["probabilities", "y_true"]
        np.testing.assert_array_equal(file["probabilities"], probabilities)
        assert file["y_true"].dtype == np.int64


def test_environment_names_what_design_asks_for() -> None:
    data = {"name": "digits", "sha256": "ab"}
    facts = environment("keras", "cpu", 3, 7, data, backend="jax")
    given = {"framework": "keras", "device": "cpu", "threads": 3, "seed": 7, "data": data, "backend": "jax"}
    assert given.items() <= facts.items()
    others = {"cpu", "cores", "processes", "gpu", "python", "platform", "versions", "git_revision", "utc"}
    assert set(facts) == set(given) | others
    assert facts["versions"]["numpy"] == np.__version__
    assert facts["cores"] == os.cpu_count()
    assert facts["utc"].endswith("+00:00")
    assert json.loads(json.dumps(facts)) == facts
