"""Exported files predict what their run does, and what cannot be exported leaves nothing."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from small_runs import SMALL

from experiment.lifecycle import RunError
from experiment.prediction import TrainedRun
from keras_impl import export, predict, train

FILE = "model.tflite"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keras") / "run"
    assert train.main([*SMALL, "--training.epochs=2", f"--run.dir={directory}"]) == 0
    return directory


@pytest.fixture(scope="module")
def file(run: Path) -> Path:
    assert export.main([str(run)]) == 0
    return run / FILE


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("count", [1, 7, 64])
def test_it_predicts_what_the_run_does(run: Path, file: Path, count: int) -> None:
    exported = export.load_exported(file)
    found = exported.predict(images(count))
    expected = predict.predict(TrainedRun.open(run, "keras"), images(count))
    assert (found.dtype, found.shape) == (np.float32, (count, 10))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(found.argmax(1), expected.argmax(1))
    assert np.ptp(found) > 0.01
    assert (exported.class_names, exported.image_size) == ([str(digit) for digit in range(10)], 32)


def test_predict_prints_the_same_of_both(run: Path, file: Path, capsys: pytest.CaptureFixture) -> None:
    np.save(run.parent / "images.npy", images(3))
    said = []
    for model in (run, file):
        assert predict.main([str(model), str(run.parent / "images.npy"), "--top=1"]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert len(said[0].splitlines()) == 3


def test_a_file_that_predicts_otherwise_is_not_kept(
    run: Path, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture
) -> None:
    def other(*arguments: Any) -> np.ndarray:
        return predict.predict(*arguments) + 2e-5

    monkeypatch.setattr(export, "predict", other)
    with pytest.raises(SystemExit) as refused:
        export.main([str(run), f"--output={tmp_path / FILE}"])
    assert refused.value.code == 2
    assert "it is not kept" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_other_precisions_are_exported_in_float32(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    options = ("--training.epochs=1", "--training.precision=bfloat16", f"--run.dir={directory}")
    assert train.main([*SMALL, *options]) == 0
    assert export.main([str(directory)]) == 0
    assert export.load_exported(directory / FILE).predict(images(2)).dtype == np.float32


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "metrics.json").unlink(), "not finished"),
        (lambda run: (run / "environment.json").write_text('{"framework": "jax"}'), "is a jax run"),
        (lambda run: [path.write_bytes(b"x") for path in (run / "checkpoints").iterdir()], "cannot be read"),
        (lambda run: (run / FILE).mkdir(), "cannot be written"),
    ],
    ids=["unfinished", "other framework", "damaged checkpoint", "unwritable"],
)
def test_mistakes_are_told_in_a_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, spoil: Any, message: str
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns(FILE))
    spoil(copy)
    with pytest.raises(SystemExit) as refused:
        export.main([str(copy)])
    assert refused.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert len([line for line in said.splitlines() if line.startswith("error: ")]) == 1
    assert not (copy / FILE).is_file()
    assert not [path for path in copy.iterdir() if path.name.endswith(".tmp")]


def test_a_truncated_file_is_refused(file: Path, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(file.read_bytes()[:5000])
    with pytest.raises(RunError, match="cannot be read as"):
        export.load_exported(tmp_path / FILE)


def test_the_suffix_is_held_to(run: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        export.main([str(run), "--output=model.bin"])
    assert "must end in .tflite" in capsys.readouterr().err


def test_what_stands_in_the_file(file: Path) -> None:
    interpreter = Interpreter(model_content=file.read_bytes())
    assert not [one for one in interpreter._get_ops_details() if one["op_name"].startswith("Flex")]
    [given] = interpreter.get_input_details()
    assert given["dtype"] == np.uint8
    assert list(given["shape_signature"]) == [-1, 32, 32, 3]
    with zipfile.ZipFile(file) as archive:
        assert archive.read("labels.txt").decode().split() == [str(digit) for digit in range(10)]
        metadata = json.loads(archive.read("metadata.json"))
    assert metadata["run"] == "run"
    assert len(metadata["config_sha256"]) == 64
