"""The search, with a quick stand-in for `train`: each trial once, after kills and from several processes."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from experiment.config import Experiment
from experiment.errors import RunError
from experiment.system import signals
from experiment.tuning import command as tuning
from experiment.tuning.search_space import Search, check, configured, read_search
from experiment.tuning.study import Work, open_storage

ROOT = Path(__file__).parents[3]
STAND_IN = Path(__file__).parent / "stand_in"
START = "import sys; from experiment.tuning import command as tuning; sys.exit(tuning.main({side!r}))"
GRID = {
    "training.learning_rate": [0.0003, 0.001, 0.003],
    "model.dense_units": {"low": 8, "high": 32, "step": 8},
}
TPE = {"training.learning_rate": {"low": 1e-5, "high": 0.5, "log": True}, "model.dense_units": [8, 16, 32]}


def tune(
    folder: Path, space: dict, *options: str, epochs: int = 3, side: str = "keras", hold: str = ""
) -> subprocess.Popen:
    """Start a search in `folder`, whose stand-in stands still after the trial and epoch that `hold` names."""
    settings = {"trials": 12, "pruning": "none", "space": space}
    (folder / "space.yaml").write_text(yaml.safe_dump(settings))
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(STAND_IN), str(ROOT)]),
        "STARTS": str(folder / "starts"),
        "HOLD": hold,
        "RELEASE": str(folder / "release"),
    }
    given = [
        "--space=space.yaml",
        "--out=out",
        f"--training.epochs={epochs}",
        "--training.monitor=val_accuracy",
    ]
    return subprocess.Popen(
        [sys.executable, "-c", START.format(side=side), *given, "--data.name=digits", "--gpus=0", *options],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(process: subprocess.Popen, code: int = 0) -> str:
    out, errors = process.communicate(timeout=600)
    assert process.returncode == code, out + errors
    return out + errors


def trials(folder: Path) -> list[dict[str, str]]:
    with (folder / "out" / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def starts(folder: Path) -> list[str]:
    path = folder / "starts"
    return path.read_text().splitlines() if path.exists() else []


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(12_000):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def assert_grid_done_once(folder: Path) -> None:
    found = trials(folder)
    assert [row["state"] for row in found] == ["complete"] * 12
    cells = {(row["training.learning_rate"], row["model.dense_units"]) for row in found}
    assert len(cells) == 12
    assert sorted(starts(folder)) == [f"{number:04} started" for number in range(12)]


def test_grid_takes_each_cell_once_with_two_processes_of_two_workers(tmp_path: Path) -> None:
    both = [tune(tmp_path, GRID, "--sampler=grid", "--workers=2") for _ in range(2)]
    for process in both:
        said(process)
    assert_grid_done_once(tmp_path)
    best = max(trials(tmp_path), key=lambda row: float(row["val_accuracy"]))
    config = yaml.safe_load((tmp_path / "out" / "best.yaml").read_text())
    assert config["training"]["learning_rate"] == float(best["training.learning_rate"]) == 0.003
    assert config["model"]["dense_units"] == int(best["model.dense_units"]) == 32
    for name in ("history", "slice", "parallel", "importance"):
        assert (tmp_path / "out" / f"{name}.png").stat().st_size > 10_000
    assert f"trial {best['trial']}" in (tmp_path / "out" / "README.md").read_text()


@pytest.fixture
def postgresql(tmp_path: Path) -> Iterator[str]:
    """The URL of a PostgreSQL server of this test's own, on loopback."""
    programs = [shutil.which(name) for name in ("initdb", "pg_ctl")]
    if not all(programs):
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        if not found:
            pytest.skip("needs PostgreSQL (Debian: postgresql)")
        programs = [str(found[-1] / name) for name in ("initdb", "pg_ctl")]
    initdb, pg_ctl = programs
    # It refuses to run as root, whose files another user may not read.
    folder = Path(f"/tmp/postgresql-test-{os.getpid()}")
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    user = ["setpriv", "--reuid=nobody", "--clear-groups"] if os.geteuid() == 0 else []
    port = 20000 + os.getpid() % 20000

    def do(*command: str) -> None:
        done = subprocess.run([*user, *command], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    do(str(initdb), "-D", str(folder / "data"), "-U", "tester", "-A", "trust")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
    do(str(pg_ctl), "-D", str(folder / "data"), "-o", options, "-l", str(folder / "log"), "-w", "start")
    try:
        yield f"postgresql://tester@127.0.0.1:{port}/postgres"
    finally:
        do(str(pg_ctl), "-D", str(folder / "data"), "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def test_grid_takes_each_cell_once_with_two_workers_on_postgresql(tmp_path: Path, postgresql: str) -> None:
    both = [tune(tmp_path, GRID, "--sampler=grid", f"--storage={postgresql}") for _ in range(2)]
    for process in both:
        said(process)
    assert_grid_done_once(tmp_path)


def test_killed_search_goes_on_with_nothing_lost_or_run_twice(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    said(tune(whole, TPE, "--trials=5"))
    process = tune(tmp_path, TPE, "--trials=5", hold="0002:1")
    wait_for(lambda: (tmp_path / "out" / "trials" / "0002" / "history.csv").is_file())
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    process.kill()
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    process.wait()
    said(tune(tmp_path, TPE, "--trials=5"))
    counted = Counter(starts(tmp_path))
    assert counted == Counter([f"{n:04} started" for n in range(5)] + ["0002 resumed"])
    assert comparable(tmp_path) == comparable(whole)


def comparable(folder: Path) -> list[dict[str, str]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in trials(folder)]


def test_train_that_outlives_its_search_is_waited_for(tmp_path: Path) -> None:
    process = tune(tmp_path, TPE, "--trials=2", hold="0000:1")
    wait_for(lambda: len(starts(tmp_path)) == 1)
    process.kill()
    process.wait()
    process = tune(tmp_path, TPE, "--trials=2")
    (tmp_path / "release").touch()
    said(process)
    assert starts(tmp_path) == ["0000 started", "0001 started"]
    assert [row["state"] for row in trials(tmp_path)] == ["complete", "complete"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_search_stops_and_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    process = tune(tmp_path, TPE, "--trials=3", hold="0000:1")
    wait_for(lambda: (tmp_path / "out" / "trials" / "0000" / "history.csv").is_file())
    process.send_signal(number)
    assert "3 trials are left: go on with the same command" in said(process, code=1)
    said(tune(tmp_path, TPE, "--trials=3"))
    assert [row["state"] for row in trials(tmp_path)] == ["complete"] * 3


def test_a_signal_before_the_first_trial_begins_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    begun: list[int] = []
    monkeypatch.setattr(tuning, "worker", lambda work, place: begun.append(place))
    search = Search.model_validate({"space": {"training.l2": [0.1, 0.2]}})
    work = Work("keras", search, Experiment(), tmp_path, open_storage(str(tmp_path / "journal")), "search")
    monkeypatch.setattr(Work, "open", lambda _: signals.stop(signal.SIGTERM, None))
    with pytest.raises(signals.Stopped):
        tuning.run(work, "tune")
    assert begun == []


def test_hopeless_trials_are_stopped(tmp_path: Path) -> None:
    rates = [0.003, 0.0031, 0.0032, 0.0033, 0.5, 0.00316]
    space = {"training.learning_rate": rates}
    said(tune(tmp_path, space, "--sampler=grid", "--pruning=median", epochs=6, hold="0004:4"))
    found = trials(tmp_path)
    assert [row["state"] for row in found] == ["complete"] * 4 + ["pruned", "complete"]
    assert int(found[4]["epochs"]) <= 4
    assert float(found[4]["val_accuracy"]) < float(found[5]["val_accuracy"])


def test_failed_trial_is_named_and_the_search_goes_on(tmp_path: Path) -> None:
    out = said(tune(tmp_path, {"model.dense_units": [8, 13, 16]}, "--sampler=grid"))
    assert [row["state"] for row in trials(tmp_path)] == ["complete", "fail", "complete"]
    assert trials(tmp_path)[1]["message"] == "out of memory"
    assert "out of memory" in out


def test_impossible_combination_fails_alone(tmp_path: Path) -> None:
    said(tune(tmp_path, {"model.filters": [[8], [8, 8]]}, "--sampler=grid"))
    found = trials(tmp_path)
    assert [row["state"] for row in found] == ["fail", "complete"]
    assert "model.block_dropout has 2 rates for 1 blocks" in found[0]["message"]
    assert starts(tmp_path) == ["0001 started"]


def test_refused_trial_ends_the_search_which_goes_on_once_it_is_mended(tmp_path: Path) -> None:
    errors = said(tune(tmp_path, {"model.dense_units": [8, 14]}, "--sampler=grid"), code=2)
    assert "error: trial 1 was refused: there is no such data" in errors
    assert "Traceback" not in errors


def test_more_trials_are_added_and_another_search_is_refused(tmp_path: Path) -> None:
    said(tune(tmp_path, TPE, "--trials=2"))
    said(tune(tmp_path, TPE, "--trials=4"))
    assert len(starts(tmp_path)) == 4
    errors = said(tune(tmp_path, GRID, "--trials=4"), code=2)
    assert "keras-out is a search with another search" in errors
    errors = said(tune(tmp_path, TPE, "--trials=4", epochs=4), code=2)
    assert "keras-out is a search with another base" in errors


@pytest.mark.parametrize(
    ("space", "options", "message"),
    [
        ({"training.rate": [1]}, (), "there is no configuration key training.rate"),
        ({"training": [1]}, (), "there is no configuration key training"),
        (TPE, ("--sampler=grid",), "training.learning_rate: a grid needs a step"),
        ({"model.dense_units": {"low": 3, "high": 2}}, (), "low 3 must be less than high 2"),
        ({"model.dense_units": []}, (), "model.dense_units has no choices"),
        (TPE, ("--run.dir=x",), "are set for each trial"),
        (TPE, ('--run={"dir": "x"}',), "are set for each trial"),
        (TPE, ("--workers=0",), "--workers must be at least 1"),
        (TPE, ("--trails=3",), "did you mean --trials?"),
        (TPE, ("--storage=postgresql://nobody@127.0.0.1:1/none",), "cannot be opened"),
    ],
)
def test_mistakes_are_told_in_two_lines(
    space: dict, options: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    errors = said(tune(tmp_path, space, *options), code=2)
    assert message in errors
    assert len(errors.strip().splitlines()) <= 2
    assert not starts(tmp_path)


def test_ranges_and_choices_reach_the_configuration() -> None:
    changed = configured(Experiment(), {"training.learning_rate": 0.1, "model.filters": [4, 4]})
    assert changed.training.learning_rate == 0.1
    assert changed.model.filters == [4, 4]
    with pytest.raises(RunError, match="less than 10"):
        configured(Experiment(), {"training.learning_rate": 11})


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ("run.dir: [a, b]", "run.dir cannot be searched: each trial has a directory of its own"),
        ("run.record_steps: [true, false]", "run.record_steps cannot be searched"),
        ("mlflow.uri: [a, b]", "mlflow.uri cannot be searched"),
        ("tracking: [mlflow, tensorboard]", "tracking cannot be searched"),
        ("data.cache: [a, b]", "data.cache cannot be searched"),
        ("gpus: [0, 1]", "gpus cannot be searched"),
        ("training.monitor: [val_loss, val_accuracy]", "training.monitor cannot be searched"),
        ("training.l2: []", "training.l2 has no choices"),
        ("training.l2: [0.1, 0.2, 0.1]", "training.l2: 0.1 is listed twice"),
        ("training.l2: [0.1, 1e-1]", "training.l2: 0.1 is listed twice"),
        ("training.l2: [0.1, '1e-1']", "training.l2: 0.1 is listed twice"),
        ("training.epochs: [1, 1.0]", "training.epochs: 1.0 is listed twice"),
        ("model.filters: [[4, 8], [4.0, 8.0]]", "listed twice"),
        ("gpu: [0]", "no configuration key gpu"),
        ("training.plateau.patience: [null, 2, null]", "training.plateau.patience: None is listed twice"),
        ("training.l2: {low: 0.2, high: 0.1}", "low 0.2 must be less than high 0.1"),
        ("training.l2: {low: 0, high: 0.1, log: true}", "a log scale begins above 0"),
        ("training.l2: {low: 0, high: .inf}", "finite|beyond"),
        ("training.l2: {low: 0, high: " + "9" * 40 + "}", "beyond"),
        ("training.l2: {low: .nan, high: 1}", "finite"),
        ("training.l2: {high: 1}", "space.training.l2.low: Field required"),
        ("training.compile: {low: false, high: true}", "false is no number"),
        ("training.l2: {low: 0, high: 1, step: 1.0e-300}", "more than 10,000 values"),
        ("training.l2: [0.1]\n  training.l2: [0.2]", "training.l2 stands there twice"),
        ("training.l2: " + "[" * 5000, "more than 32 lists"),
    ],
    ids=lambda text: text[:40],
)
def test_a_space_that_makes_no_search_is_refused(space: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(f"sampler: grid\nspace:\n  {space}\n")

    def begin() -> None:
        search = read_search(tmp_path / "space.yaml")
        check(search, Experiment())
        search.cells()

    with pytest.raises(RunError, match=said):
        begin()


def test_choices_that_differ_are_left_alone() -> None:
    space = {
        "training.compile": [True, False],
        "training.plateau.patience": [None, 1, 2],
        "model.filters": [[4], [4, 8]],
        "training.class_weights": [None, "balanced"],
    }
    check(Search.model_validate({"space": space}), Experiment())


def test_grid_lists_every_cell() -> None:
    search = Search.model_validate(
        {
            "space": {
                "a": {"low": 0.2, "high": 0.6, "step": 0.1},
                "b": {"low": 1, "high": 3},
                "c": [[1], [2, 3]],
            }
        }
    )
    cells = search.cells()
    assert len(cells) == 5 * 3 * 2
    assert [cell["a"] for cell in cells[::6]] == [0.2, 0.3, 0.4, 0.5, 0.6]
    assert cells[1] == {"a": 0.2, "b": 1, "c": "[2, 3]"}


def test_committed_space_fits_the_configuration() -> None:
    search = read_search(ROOT / "configs" / "tune.yaml")
    for key, domain in search.space.items():
        for value in domain if isinstance(domain, list) else (domain.low, domain.high):
            assert configured(Experiment(), {key: value})


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "sampler", ["tpe", pytest.param("random", marks=SLOW), pytest.param("gp", marks=SLOW)]
)
def test_both_sides_propose_the_same_trials(sampler: str, tmp_path: Path) -> None:
    proposed = []
    for side in ("keras", "lightning"):
        folder = tmp_path / side
        folder.mkdir()
        if side == "lightning":  # the same stand-in, under the other side's name
            shutil.copytree(STAND_IN / "keras_impl", folder / "lightning_impl")
        said(tune(folder, TPE, f"--sampler={sampler}", side=side))
        keys = ("trial", "val_accuracy", *TPE)
        proposed.append([[row[key] for key in keys] for row in trials(folder)])
    assert proposed[0] == proposed[1]
    assert len({tuple(row[2:]) for row in proposed[0]}) > 10
