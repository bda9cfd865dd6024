"""What `export` takes and writes, the same on both sides: a finished run in, one deployable file out."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiment.cli import Framework, PlainParser
from experiment.data.dataset import Dataset
from experiment.data.decoding import DEFAULTS, Reading
from experiment.deploy.prediction import (
    SUFFIXES,
    Classify,
    Exported,
    Predictor,
    TrainedRun,
    in_batches,
    test_predictions,
)
from experiment.deploy.run_data import load_all
from experiment.errors import RunError
from experiment.evaluation.metrics import shorten
from experiment.randomness import generator
from experiment.system.files import replacing
from experiment.system.names import printable

TOLERANCE = 1e-5  # of a probability, between the run's own predictions and a float32 file's
BATCHES = (1, 7, 64)  # sizes of batch with which that is tried
QUANTIZATIONS = ("float16", "dynamic", "int8")
# The oldest runtimes that every file, quantised or not, is tested with, and that install beside Python 3.11.
OLDEST: dict[Framework, str] = {"keras": "tflite-runtime==2.14.0", "lightning": "onnxruntime==1.15.1"}
CALIBRATION_IMAGES = 200
MAX_LOSS = 1.0  # points of test accuracy


@dataclass(frozen=True)
class Content:
    """What is written into a file: the run's model, text for the deployer, and how numbers are kept.

    quantize: None for float32, or one of QUANTIZATIONS. calibration: uint8 (K, S, S, 3) for int8, else None.
    fold: BatchNorm becomes part of the next layer where it can.
    """

    trained: TrainedRun
    metadata: dict[str, str]
    quantize: str | None = None
    calibration: np.ndarray | None = None
    fold: bool = True


Write = Callable[[Content, Path], None]
Load = Callable[..., Exported]  # of a file; plain=True: without its runtime's shortcuts


def parse(framework: Framework, argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line of `python -m <framework>_impl.export`; exits with 2 on a mistake."""
    suffix = SUFFIXES[framework]
    parser = PlainParser(
        prog=f"{framework}_impl.export",
        description=f"Write a trained run as one {suffix} file: uint8 images (N, S, S, 3) as they come from "
        "an image file in, probabilities (N, classes) out. The oldest runtime that it is tested with: "
        f"{OLDEST[framework].replace('==', ' ')}.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the directory of a finished run")
    parser.add_argument(
        "--output",
        type=Path,
        help=f"where to write (default RUN/model{suffix}; quantised: RUN/model_int8{suffix})",
    )
    parser.add_argument(
        "--quantize",
        choices=QUANTIZATIONS,
        help="float16: half-size weights; dynamic: 8-bit weights; int8: activations, too",
    )
    parser.add_argument(
        "--calibration-images",
        type=int,
        metavar="N",
        help=f"training images that int8 takes its ranges from (default {CALIBRATION_IMAGES})",
    )
    parser.add_argument("--calibration-seed", type=int, metavar="SEED", help="what draws them (default 0)")
    parser.add_argument(
        "--max-loss",
        type=float,
        default=MAX_LOSS,
        metavar="POINTS",
        help=f"test accuracy that quantising may cost (default {MAX_LOSS})",
    )
    parser.add_argument("--no-fold", action="store_true", help="keep each BatchNorm an operation of its own")
    arguments = parser.parse_args(argv)
    given = arguments.calibration_images, arguments.calibration_seed
    if arguments.quantize != "int8" and given != (None, None):
        parser.error("--calibration-images and --calibration-seed belong to --quantize int8")
    arguments.calibration_images = CALIBRATION_IMAGES if given[0] is None else given[0]
    arguments.calibration_seed = given[1] or 0
    if arguments.calibration_images < 1 or arguments.calibration_seed < 0:
        parser.error("--calibration-images must be at least 1, --calibration-seed at least 0")
    if not 0 <= arguments.max_loss <= 100:
        parser.error("--max-loss must be from 0 to 100 points")
    name = f"model_{arguments.quantize}" if arguments.quantize else "model"
    arguments.output = arguments.output or arguments.run / f"{name}{suffix}"
    if arguments.output.suffix != suffix:
        parser.error(f"--output {arguments.output}: must end in {suffix}")
    return arguments


def export(
    framework: Framework, arguments: argparse.Namespace, write: Write, predictor: Predictor, load: Load
) -> int:
    """Write the file, predict with it, and keep it only if it predicts well enough; returns 0.

    In float32 that is what the run predicts, to `TOLERANCE`; quantised, it is the test accuracy.
    Raises RunError where it does not, or cannot be written, and DataError for data that cannot be had.
    """
    trained = deployable(TrainedRun.open(arguments.run, framework))
    data, calibration = None, None
    if arguments.quantize:
        data, _ = load_all(trained.experiment, trained.run)
    if data is not None and arguments.quantize == "int8":
        calibration = draw(data, arguments.calibration_images, arguments.calibration_seed)
    content = Content(trained, metadata(trained), arguments.quantize, calibration, not arguments.no_fold)
    try:
        with replacing(arguments.output) as path:
            write(content, path)
            ways = [load(path), load(path, plain=True)]
            if data is None:
                found = compare(ways, trained, predictor, arguments.output)
            else:
                found = assess(ways, trained, data, arguments)
            megabytes = path.stat().st_size / 2**20
    except OSError as error:
        raise RunError(f"{arguments.output}: cannot be written ({error.strerror})") from error
    weights = trained.run.read_json("metrics.json")["parameters"]["total"] * 4 / 2**20
    print(f"{megabytes:.2f} MiB (the weights take {weights:.2f} in float32); {found}")
    print(arguments.output)
    return 0


def compare(ways: Sequence[Exported], trained: TrainedRun, predictor: Predictor, output: Path) -> str:
    """How far a float32 file's predictions are from the run's, run in any of the ways.

    Raises RunError where that is over `TOLERANCE`.
    """
    size = ways[0].image_size
    images = np.random.default_rng(1).integers(0, 256, (max(BATCHES), size, size, 3), dtype=np.uint8)
    classify = predictor(trained)
    expected = {n: classify(images[:n]) for n in BATCHES}
    apart = [np.abs(way.predict(images[:n]) - expected[n]).max() for way in ways for n in BATCHES]
    if not max(apart) <= TOLERANCE:  # true for NaN, too
        raise RunError(
            f"{output}: its predictions differ by {max(apart):.1e} from the run's (at most "
            f"{TOLERANCE:.0e}): it is not kept"
        )
    return f"predictions differ by at most {max(apart):.1e} from the run's"


def assess(
    ways: Sequence[Exported], trained: TrainedRun, data: Dataset, arguments: argparse.Namespace
) -> str:
    """The cost of quantising on the test split, of the way to run the file that costs most.

    Raises RunError where that is over `--max-loss`.
    """
    labels, before = test_predictions(trained.run)
    if not np.array_equal(labels, data.test.labels):
        raise RunError(f"{arguments.run}: its test images are not those that --data names now")
    images = data.test.batch(np.arange(len(data.test)))[0]
    all_after = [in_batches(way.predict, images) for way in ways]
    after = min(all_after, key=lambda found: (found.argmax(1) == labels).sum())
    accuracies = [100 * float((p.argmax(1) == labels).mean()) for p in (before, after)]
    agreement = 100 * float((before.argmax(1) == after.argmax(1)).mean())
    lost = accuracies[0] - accuracies[1]
    found = (
        f"test accuracy {accuracies[1]:.2f} % for {accuracies[0]:.2f} %, the same class as before for "
        f"{agreement:.2f} % of {len(labels)} images"
    )
    if not (lost <= arguments.max_loss and all(np.isfinite(p).all() for p in all_after)):
        raise RunError(
            f"{arguments.output}: quantising costs {lost:.2f} points (at most {arguments.max_loss:g}; "
            f"--max-loss): it is not kept\n{found}"
        )
    return found


def draw(data: Dataset, count: int, seed: int) -> np.ndarray:
    """Up to `count` different training images: uint8 (K, S, S, 3)."""
    rows = generator(seed, "calibration").permutation(len(data.train))[:count]
    return data.train.batch(rows)[0]


def metadata(trained: TrainedRun) -> dict[str, str]:
    """What a deployer needs to know, as text: class names (JSON), how to read images, run, config's hash."""
    config, data = (trained.run.directory / "config.yaml").read_bytes(), trained.experiment.data
    return {
        "class_names": json.dumps(trained.class_names),
        "image_size": str(data.image_size),
        "background": data.background,
        "bits": str(data.bits),
        "run": printable(trained.run.directory.resolve().name),
        "config_sha256": hashlib.sha256(config).hexdigest(),
    }


def deployable(trained: TrainedRun) -> TrainedRun:
    """The run in float32 on the CPU, and Keras's on TensorFlow, which alone converts."""
    training = trained.experiment.training.model_copy(update={"precision": "float32"})
    update = {"backend": "tensorflow", "gpus": 0, "training": training}
    return replace(trained, experiment=trained.experiment.model_copy(update=update))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return shorten(lines[0], 200) if lines else type(error).__name__


@contextmanager
def muted() -> Iterator[None]:
    """Hold back what compiled libraries say on stdout and stderr; it is shown where the block raises."""
    with tempfile.TemporaryFile() as said:
        kept = [os.dup(descriptor) for descriptor in (1, 2)]
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for descriptor in (1, 2):
            os.dup2(said.fileno(), descriptor)
        try:
            yield
        except BaseException:
            said.seek(0)
            os.write(kept[1], said.read())
            raise
        finally:
            for descriptor, copy in zip((1, 2), kept, strict=True):
                os.dup2(copy, descriptor)
                os.close(copy)


class Tensor(NamedTuple):
    """What a graph takes or gives: numpy's name of its type, and its shape, an axis of any size as -1."""

    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype} ({', '.join('N' if size == -1 else str(size) for size in self.shape)})"


@contextmanager
def running(failure: str) -> Iterator[None]:
    """Let a runtime work quietly; raises RunError with `failure` and the first line of what it says."""
    caught = None
    with muted():
        try:
            yield
        except Exception as error:  # runtimes have many kinds for a damaged file
            caught = error
    if caught is not None:
        raise RunError(f"{failure} ({_first_line(caught)})") from caught


def content_of(path: Path) -> bytes:
    """What an exported file holds; raises ValueError for an empty one, for which runtimes have odd words."""
    content = path.read_bytes()
    if not content:
        raise ValueError("it is empty")
    return content


def described(
    path: Path,
    metadata: Mapping[str, str],
    takes: Mapping[str, Tensor],
    gives: Mapping[str, Tensor],
    predict: Classify,
) -> Exported:
    """An exported file that was read, tried on a batch of one and of two.

    Raises RunError where it lacks the metadata that `export` writes, or that does not fit the graph.
    """
    try:
        class_names, size = json.loads(metadata["class_names"]), int(metadata["image_size"])
        reading = Reading(
            metadata.get("background", DEFAULTS.background), int(metadata.get("bits", DEFAULTS.bits))
        )
        if not (isinstance(class_names, list) and all(isinstance(name, str) for name in class_names)):
            raise TypeError
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise RunError(f"{path}: holds no class names and image size: was it written by `export`?") from error
    expected = f"images uint8 (N, {size}, {size}, 3)"
    found = ", ".join(f"{name} {tensor}" for name, tensor in takes.items())
    if found != expected:
        raise RunError(f"{path}: takes {found or 'nothing'} for {expected}: was it written by `export`?")
    given = ", ".join(str(tensor._replace(shape=tensor.shape[1:])) for tensor in gives.values())
    expected = f"float32 ({len(class_names)})"
    if given != expected:
        raise RunError(
            f"{path}: names {len(class_names)} classes and gives {given or 'nothing'} for each image: "
            "was it written by `export`?"
        )

    def rows(images: np.ndarray) -> np.ndarray:
        probabilities = predict(images)
        if probabilities.shape != (len(images), len(class_names)):
            raise ValueError(f"{len(images)} of them give {probabilities.shape}")
        return probabilities

    with running(f"{path}: fails on images"):
        for count in (1, 2):
            rows(np.zeros((count, size, size, 3), np.uint8))
    return Exported(class_names, size, predict, reading)
