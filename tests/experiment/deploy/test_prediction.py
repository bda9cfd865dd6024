"""What predict reads, prints and writes."""

from __future__ import annotations

import argparse
import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from pictures import GREEN, RED, save
from PIL import Image

from experiment.cli import Framework
from experiment.config import Experiment
from experiment.data.decoding import DEFAULTS, Reading
from experiment.deploy import prediction
from experiment.deploy.export import Tensor, described
from experiment.deploy.prediction import Classify, Exported, TrainedRun, parse, read
from experiment.errors import DataError, RunError
from experiment.runs.record import Run

CLASSES = ["red", "green", "blue"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    values = {"run": {"dir": str(tmp_path / "run")}, "data": {"image_size": 16}, "model": {"name": "cnn"}}
    run = Run.create(Experiment.model_validate(values), "keras", "digits")
    run.write_json("environment.json", {"framework": "keras", "data": {"class_names": CLASSES}})
    run.write_json("metrics.json", {})
    return run


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    save(folder / "b" / "red.png", RED)
    save(folder / "a.jpg", GREEN)
    (folder / "notes.txt").write_text("no image")
    return folder


def by_colour(trained: TrainedRun) -> Classify:
    """Stands in for a model: the share of each channel."""

    def classify(images: np.ndarray) -> np.ndarray:
        channels = images.mean((1, 2), dtype=np.float64)
        return channels / channels.sum(1, keepdims=True)

    return classify


def predict(run: Run, *argv: object, framework: Framework = "keras") -> int:
    arguments = parse("keras", [str(run.directory), *map(str, argv)])
    return prediction.main(arguments, framework, by_colour, exported)


def exported(path: Path) -> Exported:
    """Stands in for a file: classes of its own, images of 8 pixels."""
    return Exported(["x", "y", "z"], 8, lambda images: np.tile([0.1, 0.7, 0.2], (len(images), 1)))


# === Reading ===


def test_files_folders_and_arrays_are_read_in_order(pictures: Path, tmp_path: Path) -> None:
    stack = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    np.save(tmp_path / "two.npy", stack)
    np.save(tmp_path / "one.npy", stack[1])
    red = pictures / "b" / "red.png"
    found = read([red, tmp_path / "two.npy", pictures, tmp_path / "one.npy"], 16, DEFAULTS)
    names, images = found.names, found.images
    assert names == [str(red), "two.npy[0]", "two.npy[1]", str(pictures / "a.jpg"), str(red), "one.npy[0]"]
    assert found.unreadable == []
    assert found.remarks == ["ignored: 1 .txt"]
    assert images.shape == (6, 16, 16, 3)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images[[1, 2, 5]], stack[[0, 1, 1]])
    assert images[0].tolist() == images[4].tolist() == np.broadcast_to(RED, (16, 16, 3)).tolist()
    assert abs(images[3].astype(int) - GREEN).max() <= 3


def test_what_is_missing_or_holds_no_image_is_refused(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="nowhere: no such file"):
        read([pictures, tmp_path / "nowhere"], 16, DEFAULTS)
    for name in ("empty", "pictures/notes.txt"):
        with pytest.raises(DataError, match=f"no readable image in .*{name}"):
            read([tmp_path / name], 16, DEFAULTS)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 16, 17, 3), np.uint8),
        np.zeros((2, 16, 16, 1), np.uint8),
        np.zeros((16, 16), np.uint8),
        np.zeros((2, 16, 16, 3), np.float32),
        np.uint8(3),
    ],
)
def test_an_array_of_another_shape_or_kind_is_refused(array: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError, match=r"a\.npy holds .* takes uint8 \(N, 16, 16, 3\)"):
        read([tmp_path / "a.npy"], 16, DEFAULTS)


def test_arrays_are_read_without_unpickling(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "b.npy").write_bytes(b"no array")
    for name in ("a.npy", "b.npy"):
        with pytest.raises(DataError, match=f"{name}: cannot be read as an array"):
            read([tmp_path / name], 16, DEFAULTS)


# === Runs ===


def test_an_open_run_knows_its_settings_and_classes(run: Run) -> None:
    trained = TrainedRun.open(run.directory, "keras")
    assert trained.experiment.data.image_size == 16
    assert trained.class_names == CLASSES


def test_runs_that_cannot_predict_are_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"is a keras run: use python -m keras_impl\.predict"):
        TrainedRun.open(run.directory, "lightning")
    (run.directory / "metrics.json").unlink()
    with pytest.raises(RunError, match="not finished"):
        TrainedRun.open(run.directory, "keras")
    with pytest.raises(RunError, match="not a run directory"):
        TrainedRun.open(tmp_path, "keras")


# === The command ===


def test_the_table_names_the_likeliest_classes_first(
    run: Run, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(run, pictures / "b" / "red.png", "--top=2") == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == [f"{shown(said.out)}  red 0.8333  blue 0.1250"]
    assert said.err == ""
    predict(run, pictures / "b" / "red.png", "--top=9")
    assert capsys.readouterr().out.rstrip().endswith("red 0.8333  blue 0.1250  green 0.0417")


def shown(line: str) -> str:
    """The name's column, which shortens a long path and keeps its end."""
    name = line.split("  ")[0]
    assert name.endswith("red.png")
    assert len(name) <= 40
    return name


def test_unreadable_images_are_named_and_the_rest_classified(
    run: Run, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "torn.png").write_bytes((pictures / "b" / "red.png").read_bytes()[:40])
    assert predict(run, pictures) == 1
    said = capsys.readouterr()
    assert said.err == f"ignored: 1 .txt\nunreadable: {pictures / 'torn.png'}\n"
    assert len(said.out.splitlines()) == 2


def test_output_holds_every_probability_in_full(run: Run, pictures: Path, tmp_path: Path) -> None:
    assert predict(run, pictures, "--top=1", f"--output={tmp_path / 'p.csv'}") == 0
    with (tmp_path / "p.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    found = read([pictures], 16, DEFAULTS)
    assert header == ["image", *CLASSES]
    assert [row[0] for row in rows] == found.names
    expected = by_colour(TrainedRun.open(run.directory, "keras"))(found.images)
    assert [[float(value) for value in row[1:]] for row in rows] == expected.tolist()


def test_a_file_whose_name_is_no_utf_8(
    run: Run, pictures: Path, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    (pictures / "a.jpg").rename(pictures / os.fsdecode(b"caf\xe9.jpg"))
    assert predict(run, pictures, "--top=1", f"--output={tmp_path / 'p.csv'}") == 0
    assert b"caf\\xe9.jpg" in capsysbinary.readouterr().out
    assert "/caf\\xe9.jpg," in (tmp_path / "p.csv").read_text("utf-8")


def test_an_output_that_cannot_be_written_is_named(run: Run, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--output .*p\.csv: cannot be written"):
        predict(run, pictures, f"--output={tmp_path / 'no' / 'p.csv'}")


def test_the_command_line_names_run_and_images(capsys: pytest.CaptureFixture[str]) -> None:
    expected = argparse.Namespace(run=Path("r"), images=[Path("a"), Path("b")], top=3, output=None)
    assert parse("lightning", ["r", "a", "b"]) == expected
    for argv in (["r"], ["r", "a", "--top=x"]):
        with pytest.raises(SystemExit) as caught:
            parse("lightning", argv)
        assert caught.value.code == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 2
        assert "lightning_impl.predict --help" in lines[1]


# === Exported files ===


def test_an_exported_file_serves_as_a_run(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "model.tflite").write_bytes(b"")
    arguments = parse("keras", [str(tmp_path / "model.tflite"), str(pictures), "--top=2"])
    assert prediction.main(arguments, "keras", by_colour, exported) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("y 0.7000  z 0.2000")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.onnx", "is a lightning export: use python -m lightning_impl.predict"),
        ("none.tflite", "no such file"),
    ],
)
def test_other_files_are_refused(pictures: Path, tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    arguments = parse("keras", [str(tmp_path / name), str(pictures)])
    with pytest.raises(RunError, match=message):
        prediction.main(arguments, "keras", by_colour, exported)


# === As training read them ===


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """Images whose numbers hang on how they are read."""
    folder = tmp_path / "odd"
    folder.mkdir()
    Image.new("LA", (9, 9), (200, 0)).save(folder / "clear.png")
    Image.fromarray(np.full((9, 9), 4000, np.uint16)).save(folder / "deep.png")
    return folder


def test_a_record_of_no_framework_is_damaged(run: Run, pictures: Path) -> None:
    run.write_json("environment.json", {"framework": "caffe", "data": {"class_names": CLASSES}})
    with pytest.raises(RunError, match=r"environment.json: damaged, 'caffe' is no framework"):
        predict(run, pictures)


def test_a_run_reads_images_as_it_was_trained(
    tmp_path: Path, odd: Path, capsys: pytest.CaptureFixture
) -> None:
    data = {"image_size": 16, "background": "blue", "bits": 12}
    run = Run.create(
        Experiment.model_validate({"run": {"dir": str(tmp_path / "other")}, "data": data}), "keras", "folder"
    )
    run.write_json("environment.json", {"framework": "keras", "data": {"class_names": CLASSES}})
    run.write_json("metrics.json", {})
    assert predict(run, odd, "--top=1") == 0
    said = capsys.readouterr()
    assert [line.split()[1:] for line in said.out.splitlines()] == [["blue", "1.0000"], ["red", "0.3333"]]
    ground = "1 of 2 images have transparent parts: laid over #0000ff (data.background)"
    assert said.err.splitlines() == [ground]


def test_deep_images_that_come_out_dark_are_told(run: Run, odd: Path, capsys: pytest.CaptureFixture) -> None:
    assert predict(run, odd) == 0
    assert "if 4095 is white: train with --data.bits 12" in capsys.readouterr().err
    reading = Reading(bits=8)
    found = read([odd], 16, reading)
    assert found.unreadable == [f"{odd / 'deep.png'} (values from 4000 to 4000, not 0 to 255 (data.bits))"]


def test_an_exported_file_says_how_images_are_read(odd: Path, tmp_path: Path) -> None:
    metadata = {"class_names": '["x"]', "image_size": "8", "background": "#000000", "bits": "12"}
    takes = {"images": Tensor("uint8", (-1, 8, 8, 3))}
    gives = {"probabilities": Tensor("float32", (-1, 1))}

    def reading(metadata: dict[str, str]) -> Reading:
        return described(tmp_path, metadata, takes, gives, lambda images: np.ones((len(images), 1))).reading

    assert reading(metadata) == Reading("#000000", 12)
    assert reading({key: metadata[key] for key in ("class_names", "image_size")}) == DEFAULTS


def test_pipes_are_refused_and_among_images_ignored(
    run: Run, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for name in ("a.png", "a.npy"):
        os.mkfifo(tmp_path / name)
        pipe = tmp_path / name
        with pytest.raises(DataError, match=r"no readable image in .*: .* \(no regular file\)$"):
            read([pipe], 16, DEFAULTS)
        assert read([pipe, pictures], 16, DEFAULTS).unreadable == [f"{pipe} (no regular file)"]
    os.mkfifo(pictures / "b" / "pipe.png")
    assert predict(run, pictures) == 0
    assert capsys.readouterr().err == "ignored: 1 .txt, 1 named pipe\n"


def test_a_folder_without_images_says_what_is_in_it(tmp_path: Path, pictures: Path) -> None:
    (tmp_path / "none.png").mkdir()
    found = read([tmp_path / "none.png", pictures / "a.jpg"], 16, DEFAULTS)
    assert found.remarks == [f"no image in {tmp_path / 'none.png'}"]
    (tmp_path / "none.png").rmdir()
    shutil.rmtree(pictures)
    (tmp_path / "a.heic").write_bytes(b"")
    with pytest.raises(DataError, match=r"no readable image in .*: ignored: 1 \.heic"):
        read([tmp_path], 16, DEFAULTS)


def test_a_name_that_is_no_utf8_is_printed(run: Run, pictures: Path, tmp_path: Path, capsys) -> None:
    path = pictures / os.fsdecode(b"caf\xe9.png")
    save(path, RED)
    assert predict(run, path, f"--output={tmp_path / 'p.csv'}") == 0
    assert capsys.readouterr().out.encode().decode().split("  ")[0].endswith(r"caf\xe9.png")
    assert r"caf\xe9.png" in (tmp_path / "p.csv").read_text()
