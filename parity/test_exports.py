"""Exported files predict what both sides do; a file that was made of a model that differs is caught."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiment.data import dataset
from experiment.deploy import conversion
from experiment.deploy.exported import make
from experiment.deploy.model_worker import Worker
from experiment.runs.record import Run
from experiment.system import processes
from parity.checks import table
from parity.exports import command as exports
from parity.exports.comparison import check
from parity.ladder.climb import Findings, Place

SMALL = (
    "--data.name=digits",
    "--data.limit=400",
    "--model.filters=[4,8]",
    "--model.dense_units=16",
    "--training.batch_size=20",
    "--training.epochs=2",
    "--gpus=0",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("exports") / "run"
    processes.start("lightning_impl.train", [*SMALL, f"--run.dir={directory}"])
    return directory


def test_the_four_agree_and_a_mutated_file_does_not(run: Path, tmp_path: Path) -> None:
    models = make(Run(run), tmp_path, ())
    assert [model.name for model in models] == ["Keras", "TFLite", "Lightning", "ONNX"]
    config = conversion.config(Run(run))
    test = dataset.load(config.data, config.seed).test
    images = tmp_path / "images.npy"
    np.save(images, test.batch(np.arange(len(test)))[0])
    predicted = exports.predict(models, images)
    checks = check(models, predicted, test.labels)
    assert all(one.passed for one in checks), table([one for one in checks if not one.passed])
    assert len(checks) == 6 * 2 + 4 * 2 + 2  # pairs and their classes; batches of 1 and 7; shortcuts off

    # Its own command finds nothing wrong with the file: the model that it is compared with is mutated, too.
    mutated = tmp_path / "mutated.onnx"
    processes.start("lightning_impl.mutations", ["bn_epsilon", "export", str(run), f"--output={mutated}"])
    models[-1] = replace(models[-1], path=mutated)
    predicted |= exports.predict(models[-1:], images)
    failed = {one.quantity for one in check(models, predicted, test.labels) if not one.passed}
    assert failed >= {"Keras and ONNX", "TFLite and ONNX", "Lightning and ONNX"}
    assert not [name for name in failed if "ONNX" not in name]


def test_a_worker_answers_errors_and_goes_on(run: Path, tmp_path: Path) -> None:
    images = tmp_path / "images.npy"
    np.save(images, np.zeros((3, 32, 32, 3), np.uint8))
    with Worker("lightning", run) as worker:
        with pytest.raises(processes.SideError, match="No such file"):
            worker.predict(tmp_path / "none.npy", 1)
        assert worker.predict(images, 2).shape == (3, 10)
        assert (worker.time(images, 1, 0.01) > 0).all()
        assert (worker.image_size, len(worker.class_names)) == (32, 10)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [("config.yaml", "not a run directory"), ("metrics.json", "not finished")],
)
def test_a_run_that_cannot_be_exported_is_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, spoil: str, message: str
) -> None:
    copy = tmp_path / "run"
    copy.mkdir()
    for path in run.iterdir():
        if path.is_file() and path.name != spoil:
            (copy / path.name).write_bytes(path.read_bytes())
    with pytest.raises(SystemExit) as refused:
        exports.main([str(copy), f"--out={tmp_path / 'out'}"])
    assert refused.value.code == 2
    assert message in capsys.readouterr().err


def test_exports_stand_in_order_whichever_model_is_done_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = threading.Event()

    def rung(directory: Path, name: str, quantizations: Any, place: Place, findings: Findings) -> None:
        if name == "cnn, digits":
            assert done.wait(60)
        findings.exports.append({"name": name})
        done.set()

    monkeypatch.setattr(exports, "rung", rung)
    monkeypatch.setattr(exports.processes, "start", lambda *_, **__: "")
    monkeypatch.setattr(exports.pairs, "weights", lambda *_: "none.h5")
    findings = Findings()
    exports.own_pairs(["cnn", "vgg16"], Place(tmp_path, "cpu", lambda _: None), findings)
    assert [found["name"] for found in findings.exports] == ["cnn, digits", "vgg16, digits"]


@pytest.mark.slow
def test_every_quantisation_of_both_models(tmp_path: Path) -> None:
    findings = Findings()
    exports.own_pairs(["cnn", "vgg16"], Place(tmp_path, "cpu", lambda _: None), findings)
    for rung in findings.rungs:
        assert rung.status == "passed", table([one for one in rung.checks if not one.passed])
    cnn, vgg16 = findings.exports
    assert len(cnn["models"]) == 10
    assert len(vgg16["models"]) == 4
    assert min(model["accuracy"] for model in cnn["models"]) > 0.9


@pytest.mark.slow
def test_the_command_writes_a_report(run: Path, tmp_path: Path) -> None:
    strange = tmp_path / os.fsdecode(b"caf\xe9")
    strange.symlink_to(run)
    assert exports.main([str(strange), f"--out={tmp_path}", "--quantize", "float16"]) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert [rung["name"] for rung in results["rungs"]] == ["export"]
    assert "| ONNX float16 |" in (tmp_path / "exports.md").read_text()
    assert "Four ways to run the same weights" in (tmp_path / "report.html").read_text()
