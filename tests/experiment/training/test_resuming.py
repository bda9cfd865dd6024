"""A run that goes on: what it may change, what it reads before it changes anything, and damaged records."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from experiment.cli import read_config
from experiment.config import EarlyStopping, Experiment
from experiment.data.dataset import load
from experiment.deploy import run_data
from experiment.deploy.prediction import TrainedRun
from experiment.deploy.prediction import test_predictions as read_predictions
from experiment.errors import RunError
from experiment.evaluation import figures
from experiment.runs.record import Run
from experiment.tracking import compare, tensorboard
from experiment.training import lifecycle
from experiment.training.lifecycle import Session, begin

METRICS = {"loss": 1.0, "accuracy": 0.5, "val_accuracy": 0.25, "learning_rate": 1e-3}
PARAMETERS = {"total": 10, "trainable": 8, "non_trainable": 2}


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """The digits are read once, but for other settings of the data; no figures are drawn."""
    known = experiment(Path()).data
    digits = load(known, seed=1)
    drawn = [(figures, "curves"), (figures, "confusion"), (tensorboard, "write")]
    drawn += [(figures, "calibration"), (figures, "mistakes")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            run_data, "load", lambda data, seed, *more: digits if data == known else load(data, seed, *more)
        )
        for module, name in drawn:
            patch.setattr(module, name, lambda *_: None)
        yield


def experiment(tmp_path: Path, **values: Any) -> Experiment:
    """Few small digits, five epochs, into tmp_path/run."""
    data = {"name": "digits", "image_size": 16, "limit": 60, **values.pop("data", {})}
    training = {"epochs": 5, **values.pop("training", {})}
    return Experiment.model_validate(
        {"data": data, "training": training, "run": {"dir": str(tmp_path / "run")}, **values}
    )


def go_on(session: Session, losses: list[float]) -> None:
    """Train so many epochs, of these validation losses."""
    images = len(session.dataset.train)
    facts = {"framework": "keras", "data": session.data_facts}
    with lifecycle.recorder(session, facts) as recorder:
        for epoch, loss in enumerate(losses, len(session.rows)):
            recorder.epoch_begin(epoch)
            recorder.step(images, lambda: (1.0, 0.5))
            recorder.epoch_end(val_loss=loss, **METRICS)
    labels = session.dataset.test.labels
    lifecycle.finish(session, recorder, np.eye(10)[labels] * 0.91 + 0.009, 0.5, PARAMETERS)


def finished(tmp_path: Path, losses: list[float], **values: Any) -> Run:
    session = begin(experiment(tmp_path, **values), "keras", None)
    go_on(session, losses)
    return session.run


def killed(tmp_path: Path, losses: list[float], **values: Any) -> Run:
    """A run that ended after these epochs, before it wrote its results."""
    run = finished(tmp_path, losses, **values)
    for name in ("metrics.json", "predictions.npz"):
        (run.directory / name).unlink()
    return run


def edit(run: Run, name: str, change: Callable[[Any], None]) -> None:
    path = run.directory / name
    values = yaml.safe_load(path.read_text())
    change(values)
    path.write_text(yaml.safe_dump(values) if name.endswith("yaml") else json.dumps(values))


def resumed(run: Run, **training: Any) -> Session:
    """The run reopened with the settings that its config.yaml holds, as the command line reads them."""
    config = read_config(run.directory / "config.yaml")
    if training:
        config = config.model_copy(update={"training": config.training.model_copy(update=training)})
    return begin(config, "keras", run.directory)


def refusal(run: Run, **training: Any) -> str:
    with pytest.raises(RunError) as caught:
        resumed(run, **training)
    assert str(caught.value).count("\n") <= 1
    return str(caught.value)


def contents(run: Run) -> dict[str, bytes]:
    files = (
        path for path in run.directory.rglob("*") if path.is_file() and path.parent.name != "tensorboard"
    )
    return {str(path.relative_to(run.directory)): path.read_bytes() for path in files}


# === What may change ===


@pytest.mark.parametrize(
    ("section", "key", "value", "said"),
    [
        ("data", "limit", 50, "data.limit is 50 in config.yaml, and was 60"),
        ("data", "validation", "test", "data.validation is test"),
        ("data", "thin", {"3": 0.5}, "data.thin is {'3': 0.5} in config.yaml, and was {}"),
        ("augment", "rotation", 1.0, "augment.rotation is 1.0"),
        ("model", "dense_units", 8, "model.dense_units is 8 in config.yaml, and was 256"),
        ("training", "batch_size", 8, "training.batch_size is 8"),
        ("training", "learning_rate", 0.1, "training.learning_rate is 0.1"),
        ("training", "early_stopping", {"patience": 1}, "training.early_stopping.patience is 1"),
        (None, "seed", 2, "seed is 2"),
    ],
)
def test_a_setting_edited_in_config_yaml_is_refused(
    tmp_path: Path, section: str | None, key: str, value: Any, said: str
) -> None:
    run = killed(tmp_path, [2.0, 1.0])
    edit(run, "config.yaml", lambda config: (config[section] if section else config).update({key: value}))
    before = contents(run)
    assert said in refusal(run)
    assert contents(run) == before


def test_settings_that_were_kept_and_are_damaged_are_refused_in_a_line(tmp_path: Path) -> None:
    run = killed(tmp_path, [2.0, 1.0])
    edit(run, "environment.json", lambda values: values["experiment"].update(augment=None))
    assert "was None when it was trained" in refusal(run)


def test_where_and_how_long_it_trains_may_change(tmp_path: Path) -> None:
    run = killed(tmp_path, [2.0, 1.0])

    def change(config: dict[str, Any]) -> None:
        config["training"]["epochs"] = 9
        config["gpus"] = 0
        config["data"]["cache"] = str(tmp_path / "moved")
        config["tracking"] = "tensorboard"
        config["run"]["record_steps"] = True

    edit(run, "config.yaml", change)
    assert len(resumed(run).rows) == 2


def test_a_record_from_before_settings_were_kept_resumes_unless_its_images_are_others(tmp_path: Path) -> None:
    run = killed(tmp_path, [2.0, 1.0])
    edit(run, "environment.json", lambda facts: facts.pop("experiment"))
    assert len(resumed(run).rows) == 2
    edit(run, "config.yaml", lambda config: config["data"].update(limit=50))
    said = refusal(run)
    assert "other images of the same data (54 train, 6 validation, 60 test; now 45 train" in said


@pytest.mark.parametrize(
    ("kind", "count", "kept", "epochs", "said"),
    [
        ("cosine", 5, 5, 8, "1.0e-03 in epoch 5, will be 1.9e-04 in epoch 6"),
        ("cosine", 5, 2, 8, "1.0e-03 in epoch 2, will be 8.1e-04 in epoch 3"),  # from an earlier checkpoint
        ("cosine", 2, 2, 5, None),
        ("cosine", 3, 3, 3, None),  # there is no fourth epoch
        ("step", 5, 5, 8, None),
        ("constant", 5, 5, 8, None),
    ],
)
def test_more_epochs_of_a_cosine_schedule_say_the_rate(
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    kind: str,
    count: int,
    kept: int,
    epochs: int,
    said: str | None,
) -> None:
    run = killed(tmp_path, [2.0] * count, training={"schedule": {"kind": kind}})
    capsys.readouterr()
    lifecycle.restore(resumed(run, epochs=epochs), lambda _: kept, tmp_path)
    warned = capsys.readouterr().err
    assert said in warned if said else warned == ""


# === Early stopping ===


@pytest.mark.parametrize(
    ("values", "patience", "min_delta", "lower", "ended"),
    [
        ([3, 2, 1], 1, 0, True, None),
        ([3, 2, 2], 1, 0, True, 3),
        ([3, 4, 4, 2], 2, 0, True, 3),
        ([3, 4, 2, 4], 2, 0, True, None),
        ([3, 2.5, 2, 1.5], 2, 0.75, True, None),  # 2 beats 3, which 2.5 does not
        ([3, 2.5, 2.5, 1.5], 2, 0.75, True, 3),
        ([0.1, 0.2, 0.2], 0, 0, False, 3),
        ([0.1, 0.2, 0.3], 1, 0, False, None),
        ([3, 4, 4, 4], None, 0, True, None),
        ([], 1, 0, True, None),
    ],
)
def test_early_stopping_is_known_from_the_record(
    values: list[float], patience: int | None, min_delta: float, lower: bool, ended: int | None
) -> None:
    stopping = EarlyStopping(patience=patience, min_delta=min_delta)
    assert stopping.ended(values, lower) == ended


@pytest.mark.parametrize(
    ("losses", "trained"), [([2.0, 1.0], False), ([1.0, 2.0, 3.0], True), ([5.0, 4.0, 3.0, 2.0, 1.0], True)]
)
def test_a_run_that_lacks_its_results_alone_trains_no_epoch(
    tmp_path: Path, losses: list[float], trained: bool
) -> None:
    run = killed(tmp_path, losses, training={"early_stopping": {"patience": 2}})
    session = resumed(run)
    assert lifecycle.is_trained(session) == trained
    if trained:
        go_on(session, [])
        assert run.read_json("metrics.json")["stopped_epoch"] == len(losses)


def test_more_epochs_of_a_run_that_early_stopping_ended_are_refused(tmp_path: Path) -> None:
    run = finished(tmp_path, [1.0, 2.0, 3.0], training={"early_stopping": {"patience": 2}})
    said = refusal(run, epochs=9)
    assert "ended by early stopping after 3 epochs" in said
    assert "training.early_stopping.patience" in said


# === Read first, change later ===


def test_a_record_changes_when_its_first_new_epoch_is_finished(tmp_path: Path) -> None:
    run = finished(tmp_path, [5.0, 4.0, 3.0, 2.0, 1.0])
    (run.directory / "samples.png").touch()
    before = contents(run)
    session = resumed(run, epochs=7)
    facts = {"framework": "keras", "data": session.data_facts, "utc": "later"}
    lifecycle.draw_samples(session, None)
    with lifecycle.recorder(session, facts) as recorder:
        recorder.epoch_begin(5)
        recorder.step(len(session.dataset.train), lambda: (1.0, 0.5))
        assert contents(run) == before
        recorder.epoch_end(val_loss=0.5, **METRICS)
        assert not run.finished
        assert not (run.directory / "predictions.npz").exists()
        assert read_config(run.directory / "config.yaml").training.epochs == 7
        assert run.read_json("environment.json")["utc"] == "later"
        assert len(run.history()) == 6
    go_on(resumed(run, epochs=7), [])  # stopped before its next epoch
    assert run.read_json("metrics.json")["stopped_epoch"] == len(run.history()) == 6
    for name in ("metrics.json", "predictions.npz"):
        (run.directory / name).unlink()
    session = resumed(run, epochs=7)
    session.keep_epochs(4)
    go_on(session, [])
    assert run.read_json("metrics.json")["stopped_epoch"] == len(run.history()) == 4
    (run.directory / "metrics.json").unlink()
    assert len(resumed(run).rows) == 4, "of the seven that are planned"


@pytest.mark.parametrize(
    ("last", "best", "said"),
    [
        (None, 2, "last: damaged: the run cannot be resumed\ngo on from its best epoch, 2, with --resume"),
        (None, None, "last: damaged: the run cannot be resumed"),
        (4, 3, "last checkpoint is of epoch 4, history.csv ends with epoch 3"),
        (4, 4, "last checkpoint is of epoch 4, history.csv ends with epoch 3"),
    ],
)
def test_a_damaged_last_checkpoint_offers_the_best(
    tmp_path: Path, last: int | None, best: int | None, said: str
) -> None:
    run = killed(tmp_path, [3.0, 1.0, 2.0])
    before, epochs = contents(run), {"last": last, "best": best}

    def load_checkpoint(checkpoint: str) -> int:
        if (epoch := epochs[checkpoint]) is None:
            raise RunError(f"{checkpoint}: damaged")
        return epoch

    session = resumed(run)
    with pytest.raises(RunError) as caught:
        lifecycle.restore(session, load_checkpoint, tmp_path)
    assert said in str(caught.value)
    assert ("--from best" in str(caught.value)) == (best in (2, 3))
    assert contents(run) == before
    if best == 2:
        session.checkpoint = "best"
        lifecycle.restore(session, load_checkpoint, tmp_path)
        assert [row["epoch"] for row in session.rows] == [1, 2]


@pytest.mark.parametrize(("best", "goes_on"), [(1, True), (None, False)])
def test_a_run_killed_between_its_first_checkpoints_goes_on_from_the_best(
    tmp_path: Path, best: int | None, goes_on: bool
) -> None:
    session = resumed(killed(tmp_path, [2.0]))

    def load_checkpoint(checkpoint: str) -> int:
        if checkpoint == "last" or best is None:
            raise RunError(f"{checkpoint}: missing")
        return best

    if goes_on:
        lifecycle.restore(session, load_checkpoint, tmp_path / "missing")
        assert (session.checkpoint, len(session.rows)) == ("best", 1)
    else:
        with pytest.raises(RunError, match="last: missing"):
            lifecycle.restore(session, load_checkpoint, tmp_path / "missing")


# === Whose weights ===


@pytest.mark.parametrize("rank", ["0", "1"])
def test_no_process_fetches_weights_that_a_warm_start_or_a_checkpoint_replaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: str
) -> None:
    old = finished(tmp_path / "old", [1.0])
    warm = str(old.directory)
    run = killed(tmp_path / "new", [1.0], warm_start=warm)
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert begin(experiment(tmp_path / "fresh"), "keras", None).pretrained
    assert not begin(experiment(tmp_path / "next", warm_start=warm), "keras", None).pretrained
    (old.checkpoints / "last.keras").unlink(missing_ok=True)
    session = resumed(run)
    assert (session.pretrained, session.warm) == (False, None)
    assert (session.run.directory == run.directory) == (rank == "0")


# === Damaged records ===


def cut(name: str, share: float) -> Callable[[Path], None]:
    def spoil(run: Path) -> None:
        content = (run / name).read_bytes()
        (run / name).write_bytes(content[: int(len(content) * share)])

    return spoil


def put(name: str, content: bytes) -> Callable[[Path], Any]:
    return lambda run: (run / name).write_bytes(content)


HEADER = b"epoch,loss,accuracy,val_loss,val_accuracy,learning_rate,seconds,images_per_second\n"
DAMAGES: dict[str, Callable[[Path], Any]] = {
    "history.csv: line 3 is damaged: 2,1.0": cut("history.csv", 0.75),
    "history.csv: line 3 is damaged": cut("history.csv", 0.995),  # of the last number alone
    "history.csv: damaged": put("history.csv", b""),
    "history.csv: cannot be read": put("history.csv", b"\x80\x81"),
    "history.csv: line 2 is damaged: could not convert": put("history.csv", HEADER + b"1,1,1,low,1,1,1,1\n"),
    "history.csv: line 2 is damaged: val_loss is nan": put("history.csv", HEADER + b"1,1,1,nan,1,1,1,1\n"),
    "history.csv: damaged, the epochs are not": put("history.csv", HEADER + b"2,1,1,1,1,1,1,1\n"),
    "history.csv: damaged, the epochs": put("history.csv", HEADER + b"9" * 400 + b",1,1,1,1,1,1,1\n"),
    "environment.json: cannot be read": cut("environment.json", 0.5),
    "environment.json: cannot be read (Expecting": put("environment.json", b""),
    "environment.json: cannot be read (no JSON object)": put("environment.json", b"[]"),
    "environment.json: damaged, it has no": put("environment.json", b"{}"),
    "environment.json: damaged, data is 5": put("environment.json", b'{"framework": "keras", "data": 5}'),
    "environment.json: damaged, data.images is []": put("environment.json", b'{"data": {"images": []}}'),
    "environment.json: damaged, experiment.training.epochs is None": put(
        "environment.json", b'{"data": {}, "experiment": {"training": {"epochs": null}}}'
    ),
    "metrics.json: cannot be read": cut("metrics.json", 0.5),
    "metrics.json: damaged, it has no status": put("metrics.json", b"{}"),
    "metrics.json: damaged, calibration is None": put("metrics.json", b'{"calibration": null}'),
    "metrics.json: damaged, calibration.ece is 'x'": put("metrics.json", b'{"calibration": {"ece": "x"}}'),
    "metrics.json: damaged, parameters.total is '5'": put("metrics.json", b'{"parameters": {"total": "5"}}'),
    "config.yaml: cannot be read (": put("config.yaml", b"\x80\x81\x00"),
    "config.yaml: cannot be read (no configuration)": put("config.yaml", b""),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return finished(tmp_path_factory.mktemp("good"), [2.0, 1.0])


@pytest.fixture
def spoilt(good: Run, tmp_path: Path) -> Run:
    for name, content in contents(good).items():
        path = tmp_path / "spoilt" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "spoilt" / "checkpoints").mkdir()
    return Run(tmp_path / "spoilt")


@pytest.mark.parametrize("said", DAMAGES)
def test_a_damaged_record_is_refused_in_a_line_when_resumed(spoilt: Run, good: Run, said: str) -> None:
    config = read_config(good.directory / "config.yaml")
    DAMAGES[said](spoilt.directory)
    before = contents(spoilt)
    with pytest.raises(RunError) as caught:
        resumed(spoilt, epochs=9) if "config" in said else begin(
            config.model_copy(update={"training": config.training.model_copy(update={"epochs": 9})}),
            "keras",
            spoilt.directory,
        )
    assert f"{spoilt.directory}/{said}" in str(caught.value)
    assert str(caught.value).count("\n") == said.startswith("metrics.json")  # which can be made anew
    assert contents(spoilt) == before


@pytest.mark.parametrize("said", DAMAGES)
def test_a_damaged_run_is_listed_as_such_beside_the_good_ones(
    spoilt: Run, good: Run, capsys: pytest.CaptureFixture, said: str
) -> None:
    DAMAGES[said](spoilt.directory)
    assert compare.main([str(good.directory), str(spoilt.directory)]) == 0
    out, err = capsys.readouterr()
    lines = [line.split() for line in out.splitlines()[2:]]
    assert [line[0] for line in lines] == [str(good.directory), str(spoilt.directory)]
    assert "completed" in lines[0]
    assert "damaged" in lines[1]
    assert f"damaged: {spoilt.directory}/{said}" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_damaged_predictions_are_refused_in_a_line(spoilt: Run, share: float) -> None:
    cut("predictions.npz", share)(spoilt.directory)
    with pytest.raises(RunError, match=r"predictions\.npz: cannot be read \(") as caught:
        read_predictions(spoilt)
    assert "\n" not in str(caught.value)


def test_a_model_edited_in_config_yaml_is_not_opened(spoilt: Run) -> None:
    edit(spoilt, "config.yaml", lambda config: config["model"].update(weights="gone.h5"))
    assert TrainedRun.open(spoilt.directory, "keras").class_names == list("0123456789")
    edit(spoilt, "config.yaml", lambda config: config["model"].update(dense_units=8))
    with pytest.raises(RunError, match=r"model\.dense_units is 8 in config\.yaml, and was 256"):
        TrainedRun.open(spoilt.directory, "keras")
