"""What MLflow and TensorBoard get of a run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_runs import SMALL
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.graph_pb2 import GraphDef

from experiment.config import Experiment
from experiment.datasets import load
from experiment.run import HISTORY, Run, RunError
from experiment.tracking import KEYS, Tracker, check, settings

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


def test_lost_store_costs_a_warning_and_no_epoch(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    experiment = tracked(tmp_path)
    run = Run.create(experiment, "keras", "digits")
    run.write_json("environment.json", {"framework": "keras", "data": {"name": "digits", "sha256": "0"}})
    tracker = Tracker(run, experiment)
    row = dict.fromkeys(HISTORY, 0.5) | {"epoch": 1}
    tracker.epoch(row)
    [metric] = tracker.client.get_metric_history(tracker.id, "val_loss")
    assert (metric.value, metric.step) == (0.5, 1)
    assert tracker.client.get_run(tracker.id).data.params["training.batch_size"] == "64"
    resumed = Tracker(run, experiment)
    assert resumed.id == tracker.id
    tracker.client.delete_run(tracker.id)
    tracker.id = "gone"
    tracker.epoch(row)
    assert "the run record is whole without it" in capsys.readouterr().err


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
        command = [sys.executable, "-m", "experiment.promote", str(directory), *options]
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
