"""What MLflow and TensorBoard get of a run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import SMALL
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.graph_pb2 import GraphDef

from experiment.config import Experiment, address_fault
from experiment.data.dataset import load
from experiment.errors import RunError
from experiment.runs.record import HISTORY, Run
from experiment.tracking import mlflow
from experiment.tracking.mlflow import KEYS, Tracker, check, client, parameters, settings
from experiment.training import lifecycle

SIDES = ("keras", "lightning")
LOAD = """
import sys, mlflow, numpy as np
mlflow.set_tracking_uri(sys.argv[1])
images = np.load(sys.argv[3])
np.save(sys.argv[4], mlflow.pyfunc.load_model(sys.argv[2]).predict(images))
"""


def tracked(folder: Path) -> Experiment:
    return Experiment.model_validate(
        {
            "tracking": "mlflow",
            "mlflow": {"uri": f"sqlite:///{folder}/m.db"},
            "run": {"dir": str(folder / "run")},
        }
    )


def test_settings_are_dotted_and_tell_nothing_of_where_a_run_goes() -> None:
    found = settings(Experiment())
    assert found["training.early_stopping.patience"] is None
    assert found["model.filters"] == [32, 64]
    assert not [key for key in found if key.startswith(("run.", "mlflow.", "tracking"))]


def test_store_that_cannot_be_reached_is_refused_at_once() -> None:
    experiment = Experiment.model_validate({"tracking": "mlflow", "mlflow": {"uri": "http://127.0.0.1:1"}})
    with pytest.raises(RunError, match="cannot be used"):
        check(experiment)


@pytest.mark.parametrize(
    ("uri", "fine"),
    [
        ("sqlite:///m.db", True),
        ("http://127.0.0.1:1", True),  # it may be down: no reason not to train
        ("postgresql+psycopg://u@h/d", True),
        ("databricks", True),
        ("foo://x", False),
        ("mlruns", False),
        ("", False),
        ("http://", False),
        ("sqlite", False),
    ],
)
def test_an_address_that_is_none_is_refused(uri: str, fine: bool) -> None:
    assert (address_fault(uri) is None) == fine


def begun(experiment: Experiment) -> Run:
    run = Run.create(experiment, "keras", "digits")
    run.write_json("environment.json", {"framework": "keras", "data": {"name": "digits", "sha256": "0"}})
    return run


def row(epoch: int) -> dict[str, float]:
    return dict.fromkeys(HISTORY, 0.5) | {"epoch": epoch}


def epochs(tracker: Tracker) -> list[int]:
    return [metric.step for metric in tracker.client.get_metric_history(tracker.id, "val_loss")]


def status(tracker: Tracker) -> str:
    return tracker.client.get_run(tracker.id).info.status


def warnings(capsys: pytest.CaptureFixture) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("WARNING: MLflow")]


class Dead:
    """A store that fails at whatever it is asked."""

    def __getattr__(self, name: str) -> Any:
        raise ConnectionError("no answer")


@pytest.fixture(autouse=True)
def _quiet_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trackers of these tests have nothing to close when pytest ends."""
    monkeypatch.setattr(mlflow.atexit, "register", lambda _: None)


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the present schema, which takes seconds to make."""
    folder = tmp_path_factory.mktemp("store")
    client(tracked(folder))
    return folder / "m.db"


@pytest.fixture
def experiment(tmp_path: Path, empty_store: Path) -> Experiment:
    shutil.copy2(empty_store, tmp_path / "m.db")
    return tracked(tmp_path)


def test_lost_store_costs_a_warning_and_no_epoch(
    experiment: Experiment, capsys: pytest.CaptureFixture
) -> None:
    run = begun(experiment)
    tracker = Tracker(run, experiment)
    tracker.epoch(row(1))
    assert tracker.client.get_run(tracker.id).data.params["training.batch_size"] == "64"
    assert Tracker(run, experiment, [row(1)]).id == tracker.id
    store, tracker.client = tracker.client, Dead()
    tracker.epoch(row(2))
    tracker.client = store
    tracker.epoch(row(3))  # so soon after, the store is left alone
    assert epochs(tracker) == [1]
    assert warnings(capsys) == ["WARNING: MLflow: no answer; the run record is whole without it"]
    tracker._asleep = 0.0  # as after a minute
    tracker.epoch(row(4))
    assert epochs(tracker) == [1, 2, 3, 4]
    tracker.end("KILLED")
    assert status(tracker) == "KILLED"


def test_a_store_that_is_down_at_first_gets_all_when_it_answers(
    experiment: Experiment, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow, "client", lambda _: Dead())
    tracker = Tracker(begun(experiment), experiment)
    tracker.epoch(row(1))
    tracker.end("FAILED")  # of nothing yet
    assert len(warnings(capsys)) == 1
    monkeypatch.undo()
    tracker._asleep = 0.0
    tracker.epoch(row(2))
    assert epochs(tracker) == [1, 2]
    assert status(tracker) == "RUNNING"


def test_results_that_cannot_be_logged_leave_no_run_open(
    experiment: Experiment, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Tracker(begun(experiment), experiment)
    tracker.epoch(row(1))

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tracker.client, "log_artifact", full)
    results = {"test_accuracy": 1.0, "test_loss": 0.0, "macro_f1": 1.0, "status": "completed"}
    tracker.finish(results, ["a", "b"])
    assert status(tracker) == "FINISHED"
    [warning] = warnings(capsys)
    assert "No space left on device" in warning


def test_a_run_that_nobody_closes_fails_when_its_process_ends(experiment: Experiment) -> None:
    run = begun(experiment)
    program = (
        "import sys; from pathlib import Path; from experiment.config import Experiment; "
        "from experiment.runs.record import Run; from experiment.tracking.mlflow import Tracker; "
        "Tracker(Run(sys.argv[1]), Experiment.model_validate_json(sys.argv[2])); raise OSError('disk')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(run.directory), experiment.model_dump_json()],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "OSError: disk" in done.stderr
    identity = run.read_json("mlflow.json")["run_id"]
    assert client(experiment).get_run(identity).info.status == "FAILED"


@pytest.mark.parametrize(("ended", "then"), [(None, "KILLED"), ("FINISHED", "FINISHED")])
def test_a_run_that_takes_anothers_place_leaves_none_open(
    experiment: Experiment, ended: str | None, then: str
) -> None:
    digits = experiment.data.model_copy(update={"name": "digits", "limit": 60})
    experiment = experiment.model_copy(update={"data": digits})
    before = Tracker(begun(experiment), experiment)  # killed, if it is not ended
    if ended is not None:
        before.end(ended)
    place = experiment.run.model_copy(update={"overwrite": True})
    lifecycle.begin(experiment.model_copy(update={"run": place, "tracking": "tensorboard"}), "keras", None)
    assert status(before) == then


def test_a_store_that_is_gone_keeps_no_run_from_taking_a_place(experiment: Experiment) -> None:
    for left in ({"uri": "postgresql://127.0.0.1:1/none", "run_id": "5"}, {"uri": 5}, {"run_id": None}):
        mlflow.close(experiment, left)  # raises nothing


def test_a_deleted_experiment_stays_deleted(experiment: Experiment, capsys: pytest.CaptureFixture) -> None:
    run = begun(experiment)
    first = Tracker(run, experiment)
    first.epoch(row(1))
    deleted = first.client.get_run(first.id).info.experiment_id
    first.client.delete_experiment(deleted)
    resumed = Tracker(run, experiment, [row(1)])  # its run is gone with it
    resumed.epoch(row(2))
    assert epochs(resumed) == [1, 2]
    place = resumed.client.get_experiment(resumed.client.get_run(resumed.id).info.experiment_id)
    assert place.name == "image-classifier-2"
    assert resumed.client.get_experiment(deleted).lifecycle_stage == "deleted"
    gone, renamed = warnings(capsys)
    assert "is gone" in gone
    assert "the experiment image-classifier was deleted" in renamed
    assert run.read_json("mlflow.json")["run_id"] == resumed.id
    (run.directory / "mlflow.json").write_text('{"uri": "sq')  # half a file is none
    again = Tracker(run, experiment)
    assert again.id not in (first.id, resumed.id)
    assert again.client.get_run(again.id).info.experiment_id == place.experiment_id


def test_settings_that_mlflow_does_not_take_are_made_to_fit(experiment: Experiment) -> None:
    thin = {"cats & dogs": 0.5, "cats | dogs": 0.25, "a//b": 0.5, "..": 0.5, "x" * 400: 0.125, "é ü\n": 0.5}
    classes = [f"class {number}" for number in range(1000)]
    data = {"data": {"thin": thin, "classes": classes}}
    odd = Experiment.model_validate(experiment.model_dump() | data)
    tracker = Tracker(begun(odd), odd)
    logged = tracker.client.get_run(tracker.id).data.params
    assert logged["data.thin.cats _ dogs"] == "0.5"
    assert logged["data.thin.cats _ dogs_2"] == "0.25"
    assert [value for key, value in logged.items() if key.startswith("data.thin.xxx")] == ["0.125"]
    assert logged["data.classes"].startswith("['class 0', 'class 1'")
    assert len(logged["data.classes"]) == 6000
    assert len(logged) == len(settings(odd))
    assert logged == parameters(settings(odd))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each side, with MLflow and a registered model."""
    folder = tmp_path_factory.mktemp("tracked")
    for side in SIDES:
        options = (*SMALL, "--training.epochs=2", "--tracking=mlflow", "--mlflow.register_as=digits")
        done = subprocess.run(
            [sys.executable, "-m", f"{side}_impl.train", *options, f"--run.dir={folder / side}",
             f"--mlflow.uri=sqlite:///{folder}/mlflow.db"],
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "UserWarning" not in done.stderr
    return folder


@pytest.mark.slow
def test_both_sides_log_the_same_keys(both: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{both}/mlflow.db")
    found = [client.get_run(Run(both / side).read_json("mlflow.json")["run_id"]) for side in SIDES]
    keras, lightning = found
    assert keras.data.metrics.keys() == lightning.data.metrics.keys() >= set(KEYS)
    assert keras.data.params == lightning.data.params
    for side, one in zip(SIDES, found, strict=True):
        assert one.info.status == "FINISHED"
        assert (
            one.data.metrics["test_accuracy"] == Run(both / side).read_json("metrics.json")["test_accuracy"]
        )
        history = client.get_metric_history(one.info.run_id, "val_loss")
        assert [m.value for m in history] == [row["val_loss"] for row in Run(both / side).history()]
        names = {file.path for file in client.list_artifacts(one.info.run_id)}
        assert {"config.yaml", "curves.png", "confusion.png", "history.csv", "predictions.npz"} <= names
    assert int(client.get_model_version_by_alias("digits", "candidate").version) == 2


@pytest.mark.slow
def test_registered_model_predicts_what_the_run_did(both: Path, tmp_path: Path) -> None:
    experiment = Experiment.model_validate({"data": {"name": "digits", "limit": 400}})
    test = load(experiment.data, 1).test
    np.save(tmp_path / "images.npy", test.batch(np.arange(len(test)))[0])
    for version, side in enumerate(SIDES, 1):
        command = [sys.executable, "-c", LOAD, f"sqlite:///{both}/mlflow.db", f"models:/digits/{version}"]
        done = subprocess.run(
            [*command, str(tmp_path / "images.npy"), str(tmp_path / "out.npy")],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        expected = np.load(both / side / "predictions.npz")["probabilities"]
        np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-5)


@pytest.mark.slow
def test_tensorboard_shows_pictures_graph_and_settings(both: Path) -> None:
    for side in SIDES:
        events = EventAccumulator(str(both / side / "tensorboard"))
        events.Reload()
        assert {"samples", "confusion", "mistakes", "calibration", "curves"} == set(events.Tags()["images"])
        assert events.Images("confusion")[0].encoded_image_string.startswith(b"\x89PNG")
        graph = GraphDef.FromString(events.Graph().SerializeToString())
        nodes = {node.name: list(node.input) for node in graph.node}
        assert nodes["rescaling"] == ["images"]
        assert nodes["conv2"] == ["bn1"]
        assert nodes["logits"] == ["dropout_dense"]
        assert "_hparams_/session_start_info" in events.summary_metadata


@pytest.mark.slow
def test_champion_gives_way_only_to_one_that_is_not_worse(both: Path, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    def promote(directory: Path, *options: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "experiment", "promote", str(directory), *options]
        done = subprocess.run(command, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    def champion() -> int:
        client = MlflowClient(tracking_uri=f"sqlite:///{both}/mlflow.db")
        return int(client.get_model_version_by_alias("digits", "champion").version)

    assert promote(both / "keras") == (0, "digits had no champion: version 1 is it now\n")
    assert promote(both / "keras") == (0, "digits version 1 is the champion already\n")
    code, said = promote(both / "lightning", "--margin=1")
    assert code == 0, said
    assert champion() == 2
    # A run that is wrong about every image.
    worse = tmp_path / "worse"
    shutil.copytree(both / "keras", worse)
    with np.load(worse / "predictions.npz") as arrays:
        labels, probabilities = arrays["y_true"], np.eye(10)[(arrays["y_true"] + 1) % 10]
    np.savez(worse / "predictions.npz", y_true=labels, probabilities=probabilities)
    code, said = promote(worse, "--margin=0.01")
    assert code == 1, said
    assert "not promoted: accuracy falls on the test images by" in said
    assert champion() == 2
    code, said = promote(tmp_path / "nothing")
    assert code == 2
    assert "Traceback" not in said
