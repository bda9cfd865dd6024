"""What holds for exported files of both sides; each side's test file brings its modules as `side`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from small_runs import SMALL

from experiment.data import dataset
from experiment.data.decoding import Reading
from experiment.deploy.export import OLDEST, QUANTIZATIONS, draw, metadata
from experiment.deploy.prediction import SUFFIXES, TrainedRun
from experiment.randomness import generator
from parity import deployed

VGG16 = (
    "--data.name=digits",
    "--data.limit=40",
    "--model.name=vgg16",
    "--model.weights=random",
    "--augment.kind=none",
    "--training.epochs=1",
    "--gpus=0",
)
LEARNED = (
    *SMALL,
    "--data.limit=1500",
    "--model.dense_units=128",
    "--data.background=#405060",  # of no digit: for the files that are read later
    "--data.bits=12",
    "--training.batch_size=20",
    "--training.epochs=6",
)


class Side(NamedTuple):
    """One side's modules, and the name of what it exports."""

    name: Any
    export: ModuleType
    predict: ModuleType
    train: ModuleType

    @property
    def file(self) -> str:
        return f"model{SUFFIXES[self.name]}"

    def trained(self, directory: Path, *options: str) -> Path:
        assert self.train.main([*options, f"--run.dir={directory}"]) == 0
        return directory

    def classify(self, run: Path, images: np.ndarray) -> np.ndarray:
        return self.predict.predictor(TrainedRun.open(run, self.name))(images)

    def refused(self, *argv: str) -> int | str | None:
        with pytest.raises(SystemExit) as refused:
            self.export.main(argv)
        return refused.value.code


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def left_in(folder: Path) -> list[str]:
    """What an export that failed might have left: models, and halves of them."""
    return [path.name for path in folder.iterdir() if "model" in path.name]


@pytest.fixture(scope="module")
def run(side: Side, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return side.trained(tmp_path_factory.mktemp(side.name) / "run", *LEARNED)


@pytest.fixture(scope="module")
def file(side: Side, run: Path) -> Path:
    assert side.export.main([str(run)]) == 0
    return run / side.file


@pytest.fixture(scope="module")
def quantised(side: Side, run: Path) -> dict[str, Path]:
    """A file of each quantisation, kept whatever it lost."""
    for kind in QUANTIZATIONS:
        assert side.export.main([str(run), f"--quantize={kind}", "--max-loss=100"]) == 0
    return {kind: run / f"model_{kind}{SUFFIXES[side.name]}" for kind in QUANTIZATIONS}


# === float32 ===


@pytest.mark.parametrize("count", [1, 7, 64])
def test_it_predicts_what_the_run_does(side: Side, run: Path, file: Path, count: int) -> None:
    exported = side.export.load_exported(file)
    found, expected = exported.predict(pictures(count)), side.classify(run, pictures(count))
    assert (found.dtype, found.shape) == (np.float32, (count, 10))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(found.argmax(1), expected.argmax(1))
    assert np.ptp(found) > 0.01
    assert (exported.class_names, exported.image_size) == ([str(digit) for digit in range(10)], 32)


@pytest.mark.parametrize("kind", [None, "dynamic"])
def test_a_folder_whose_name_is_no_utf_8(
    side: Side, run: Path, tmp_path: Path, kind: str | None, capsys: pytest.CaptureFixture
) -> None:
    output = tmp_path / os.fsdecode(b"caf\xe9") / side.file
    output.parent.mkdir()
    options = [f"--quantize={kind}", "--max-loss=100"] if kind else []
    assert side.export.main([str(run), f"--output={output}", *options]) == 0
    assert os.listdir(output.parent) == [side.file]
    Image.fromarray(pictures(1)[0]).save(tmp_path / "photo.png")
    photo = str(tmp_path / "photo.png")
    capsys.readouterr()
    assert side.predict.main([str(output), photo]) == 0
    probabilities = deployed.open_model(str(output))[1](deployed.read(photo, 32)[None])
    assert f"{probabilities.max():.4f}" in capsys.readouterr().out


def test_folding_can_be_left_out(side: Side, run: Path, file: Path, tmp_path: Path) -> None:
    other = tmp_path / side.file
    assert side.export.main([str(run), "--no-fold", f"--output={other}"]) == 0
    found, folded = (side.export.load_exported(one).predict(pictures(9)) for one in (other, file))
    np.testing.assert_allclose(found, folded, atol=1e-5)
    assert other.stat().st_size > file.stat().st_size


def test_shortcuts_and_threads_change_nothing(side: Side, file: Path) -> None:
    found = side.export.load_exported(file).predict(pictures(9))
    for threads, plain in ((1, False), (None, True)):
        other = side.export.load_exported(file, threads, plain).predict(pictures(9))
        np.testing.assert_allclose(found, other, atol=1e-5)


def test_predict_prints_the_same_of_both(
    side: Side, run: Path, file: Path, capsys: pytest.CaptureFixture
) -> None:
    np.save(run.parent / "images.npy", pictures(3))
    said = []
    for model in (run, file):
        assert side.predict.main([str(model), str(run.parent / "images.npy"), "--top=1"]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert len(said[0].splitlines()) == 3


@pytest.mark.parametrize("kind", [None, "int8"])
def test_a_script_of_its_own_needs_the_runtime_and_pillow_alone(
    side: Side,
    file: Path,
    quantised: dict[str, Path],
    tmp_path: Path,
    kind: str | None,
    capsys: pytest.CaptureFixture,
) -> None:
    model = quantised[kind] if kind else file
    photos = [tmp_path / f"{name}.png" for name in ("turned", "clear", "deep")]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.repeat(np.repeat(pictures(1)[0], 2, 0), 3, 1)).save(photos[0], exif=exif)
    Image.new("LA", (9, 9), (0, 0)).save(photos[1])
    Image.fromarray(pictures(1)[0, ..., 0].astype(np.uint16) * 16).save(photos[2])
    capsys.readouterr()
    assert side.predict.main([str(model), *map(str, photos)]) == 0
    expected = [line.split()[1:] for line in capsys.readouterr().out.splitlines()]
    script = Path(str(side.export.__file__)).parents[1] / "parity" / "deployed.py"
    command = [sys.executable, "-X", "importtime", str(script), str(model), *map(str, photos)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert [line.split()[1:] for line in done.stdout.splitlines()] == expected
    assert len({tuple(line) for line in expected}) == 3
    exported = side.export.load_exported(model)
    assert exported.reading == Reading("#405060", 12)
    flat = exported.predict(np.full((1, 32, 32, 3), (0x40, 0x50, 0x60), np.uint8))[0]
    assert expected[1][:2] == [str(flat.argmax()), f"{flat.max():.4f}"]
    timed = (line for line in done.stderr.splitlines() if line.startswith("import time:"))
    imported = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in timed}
    assert "PIL" in imported
    assert imported.isdisjoint({"torch", "keras", "tensorflow", "experiment", "onnx"})


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "float64"])
def test_other_precisions_are_exported_in_float32(side: Side, tmp_path: Path, precision: str) -> None:
    convolves = getattr(import_module(f"{side.name}_impl.precision"), "convolves_in_bfloat16", lambda: True)
    if precision == "bfloat16" and not convolves():
        pytest.skip("TensorFlow cannot convolve in bfloat16 on this processor")
    run = side.trained(tmp_path / "run", *SMALL, "--training.epochs=1", f"--training.precision={precision}")
    assert side.export.main([str(run)]) == 0
    assert side.export.load_exported(run / side.file).predict(pictures(2)).dtype == np.float32


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_run_of_any_backend_is_exported(side: Side, tmp_path: Path, backend: str) -> None:
    if side.name == "lightning":
        pytest.skip("Lightning has one")
    options = [*SMALL, "--training.epochs=1", f"--backend={backend}", f"--run.dir={tmp_path / 'run'}"]
    subprocess.run([sys.executable, "-m", "keras_impl.train", *options], check=True, capture_output=True)
    assert side.export.main([str(tmp_path / "run")]) == 0
    found = side.export.load_exported(tmp_path / "run" / side.file).predict(pictures(3))
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)


@pytest.mark.slow
def test_vgg16_is_exported(side: Side, tmp_path: Path) -> None:
    run = side.trained(tmp_path / "run", *VGG16)
    assert side.export.main([str(run)]) == 0
    found = side.export.load_exported(run / side.file).predict(pictures(3))
    np.testing.assert_allclose(found, side.classify(run, pictures(3)), atol=1e-5)


# === Quantised ===


@pytest.mark.parametrize(
    ("kind", "share", "apart"), [("float16", 0.65, 1e-3), ("dynamic", 0.45, 0.03), ("int8", 0.45, 0.04)]
)
def test_quantised_files_are_smaller_and_as_good(
    side: Side, run: Path, file: Path, quantised: dict[str, Path], kind: str, share: float, apart: float
) -> None:
    """Means: the largest difference of a few images is a matter of the weights that a processor trained."""
    path = quantised[kind]
    assert path.stat().st_size < share * file.stat().st_size
    trained = TrainedRun.open(run, side.name)
    images = draw(dataset.load(trained.experiment.data, trained.experiment.seed), 200, 0)
    exact = side.export.load_exported(file).predict(images)
    for plain in (False, True):
        found = side.export.load_exported(path, plain=plain).predict(images)
        assert 0 < np.abs(found - exact).mean() < apart
        assert found.dtype == np.float32


def test_int8_is_calibrated_on_the_images_that_are_drawn(side: Side, run: Path, tmp_path: Path) -> None:
    def exported(name: str, *options: str) -> np.ndarray:
        path = tmp_path / f"{name}{SUFFIXES[side.name]}"
        arguments = ["--quantize=int8", "--max-loss=100", f"--output={path}", *options]
        assert side.export.main([str(run), *arguments]) == 0
        return side.export.load_exported(path).predict(pictures(8))

    first = exported("first", "--calibration-images=5")
    np.testing.assert_array_equal(first, exported("again", "--calibration-images=5"))
    assert np.abs(first - exported("seed", "--calibration-images=5", "--calibration-seed=1")).max() > 0
    assert np.abs(first - exported("more", "--calibration-images=50")).max() > 0


def test_calibration_images_are_different_training_images(side: Side, run: Path) -> None:
    trained = TrainedRun.open(run, side.name)
    data = dataset.load(trained.experiment.data, trained.experiment.seed)
    rows = generator(3, "calibration").permutation(len(data.train))[:20]
    np.testing.assert_array_equal(draw(data, 20, 3), data.train.batch(rows)[0])
    assert len(np.unique(rows)) == 20
    assert len(draw(data, 10**6, 0)) == len(data.train)


@pytest.mark.parametrize("worse", [True, False], ids=["plain", "with shortcuts"])
def test_a_quantised_file_that_lost_too_much_either_way_is_not_kept(
    side: Side, run: Path, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture, worse: bool
) -> None:
    """As where the ranges were taken from too little: the runtime's answers are shifted by one class."""
    load = side.export.load_exported

    def shifted(path: Path, plain: bool = False) -> Any:
        exported = load(path, plain=plain)
        if plain is not worse:
            return exported
        return replace(exported, predict=lambda images: np.roll(exported.predict(images), 1, 1))

    monkeypatch.setattr(side.export, "load_exported", shifted)
    assert side.refused(str(run), "--quantize=int8", f"--output={tmp_path / side.file}") == 2
    said = capsys.readouterr().err
    assert "points (at most 1; --max-loss): it is not kept" in said
    assert list(tmp_path.iterdir()) == []


# === Other runtimes ===

IN_THE_OLDEST = {
    "lightning": """
import sys, numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
np.save(sys.argv[3], session.run(None, {"images": np.load(sys.argv[2])})[0])
""",
    "keras": """
import sys, numpy as np
from tflite_runtime.interpreter import Interpreter
runner = Interpreter(sys.argv[1]).get_signature_runner()
np.save(sys.argv[3], runner(images=np.load(sys.argv[2]))["probabilities"])
""",
}


def environment(folder: Path, *packages: str) -> Path:
    """A new virtual environment with these packages; returns its Python."""
    uv = Path(sys.executable).parent / "uv"
    subprocess.run([uv, "venv", "--quiet", f"--python={sys.executable}", folder], check=True)
    python = folder / "bin" / "python"
    subprocess.run([uv, "pip", "install", "--quiet", f"--python={python}", *packages], check=True)
    return python


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="no newer Python has the oldest runtimes")
@pytest.mark.parametrize("model", ["cnn", "resnet50"])
def test_the_oldest_runtime_predicts_the_same(
    side: Side, run: Path, file: Path, quantised: dict[str, Path], tmp_path: Path, model: str
) -> None:
    files = [file, *quantised.values()]
    if model == "resnet50":
        run = side.trained(tmp_path / "run", *(option.replace("vgg16", "resnet50") for option in VGG16))
        for kind in (None, *QUANTIZATIONS):
            options = [] if kind is None else [f"--quantize={kind}", "--max-loss=100"]
            assert side.export.main([str(run), *options]) == 0
        files = [run / path.name for path in files]
    python = environment(tmp_path / "environment", OLDEST[side.name], "numpy<2")
    np.save(tmp_path / "images.npy", pictures(7))
    for path in files:
        command = [
            python,
            "-c",
            IN_THE_OLDEST[side.name],
            path,
            tmp_path / "images.npy",
            tmp_path / "out.npy",
        ]
        subprocess.run(command, check=True, capture_output=True)
        found, expected = np.load(tmp_path / "out.npy"), side.export.load_exported(path).predict(pictures(7))
        quantised_activations = path.stem.endswith(("dynamic", "int8"))
        assert np.abs(found - expected).mean() < (0.01 if quantised_activations else 1e-5), path.name


# === Mistakes ===


def test_a_file_that_predicts_otherwise_is_not_kept(
    side: Side, run: Path, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture
) -> None:
    def other(trained: TrainedRun) -> Any:
        return lambda images: side.predict.predictor(trained)(images) + 2e-5

    monkeypatch.setattr(side.export, "predictor", other)
    assert side.refused(str(run), f"--output={tmp_path / side.file}") == 2
    assert "it is not kept" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run, _: (run / "metrics.json").unlink(), "not finished"),
        (
            lambda run, _: (run / "environment.json").write_text('{"framework": "jax"}'),
            "damaged, 'jax' is no framework",
        ),
        (lambda run, _: [f.write_bytes(b"x") for f in (run / "checkpoints").iterdir()], "cannot be read"),
        (lambda run, file: (run / file).mkdir(), "cannot be written"),
    ],
    ids=["unfinished", "other framework", "damaged checkpoint", "unwritable"],
)
def test_mistakes_are_told_in_a_line(
    side: Side, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, spoil: Any, message: str
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("model*"))
    spoil(copy, side.file)
    assert side.refused(str(copy)) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len([line for line in said.splitlines() if line.startswith("error: ")]) == 1
    assert left_in(copy) == ([side.file] if message == "cannot be written" else [])


def refused_by_predict_and_deployed(side: Side, file: Path, capsys: pytest.CaptureFixture) -> str:
    """What predict says of a file, in a line that names it; the script of its own says so, too."""
    for refuse in (lambda: side.predict.main([str(file), str(file)]), lambda: deployed.open_model(str(file))):
        capsys.readouterr()
        with pytest.raises(SystemExit) as refused:
            refuse()
        assert refused.value.code == 2
        *_, said = capsys.readouterr().err.splitlines()
        assert said.startswith(f"error: {file}: ")
    with pytest.raises(SystemExit):
        side.predict.main([str(file), str(file)])
    [said] = capsys.readouterr().err.splitlines()
    return said


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: b"", "(it is empty)"),
        (lambda content: content[:5000], "cannot be read as"),
        (lambda content: b"images\n" * 1000, "cannot be read as"),
        (lambda content: b"PK\x05\x06" + bytes(18), "cannot be read as"),
    ],
    ids=["empty", "truncated", "text", "zip"],
)
def test_a_damaged_file_is_refused_in_a_line(
    side: Side, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture, spoil: Any, message: str
) -> None:
    (tmp_path / side.file).write_bytes(spoil(file.read_bytes()))
    assert message in refused_by_predict_and_deployed(side, tmp_path / side.file, capsys)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": '["a", "b"]'}, "names 2 classes and gives float32 (10) for each image"),
        ({"image_size": "64"}, "takes images uint8 (N, 32, 32, 3) for images uint8 (N, 64, 64, 3)"),
        ({"image_size": "large"}, "holds no class names and image size"),
        ({"class_names": "10"}, "holds no class names and image size"),
        ({"class_names": "[" * 100_000}, "holds no class names and image size"),
        ({"class_names": None}, "holds no class names and image size"),
    ],
)
def test_metadata_that_does_not_fit_the_graph_is_refused_in_a_line(
    side: Side,
    file: Path,
    with_metadata: Callable[[Path, dict[str, str], Path], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    changes: dict[str, str | None],
    message: str,
) -> None:
    run_metadata = {**metadata(TrainedRun.open(file.parent, side.name)), **changes}
    kept = {key: value for key, value in run_metadata.items() if value is not None}
    with_metadata(file, kept, tmp_path / side.file)
    assert message in refused_by_predict_and_deployed(side, tmp_path / side.file, capsys)


@pytest.mark.parametrize("kind", ["float", "other name", "constant", "failing"])
def test_our_metadata_on_a_foreign_graph_is_refused_in_a_line(
    side: Side,
    file: Path,
    foreign: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    kind: str,
) -> None:
    foreign(kind, metadata(TrainedRun.open(file.parent, side.name)), tmp_path / side.file)
    said = refused_by_predict_and_deployed(side, tmp_path / side.file, capsys)
    assert ("fails on images" if kind in ("constant", "failing") else "takes ") in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output=model.bin"], "must end in"),
        (["--quantize=int4"], "int4"),
        (["--calibration-images=5"], "belong to --quantize int8"),
        (["--quantize=int8", "--calibration-images=0"], "at least 1"),
        (["--quantize=int8", "--max-loss=-1"], "from 0 to 100"),
    ],
)
def test_options_are_held_to(
    side: Side, run: Path, capsys: pytest.CaptureFixture, options: list[str], message: str
) -> None:
    assert side.refused(str(run), *options) == 2
    assert message in capsys.readouterr().err
