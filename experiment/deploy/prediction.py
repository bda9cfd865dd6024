"""What `predict` reads and prints, the same on both sides."""

from __future__ import annotations

import argparse
import csv
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiment.cli import Framework, PlainParser, read_config
from experiment.config import Experiment
from experiment.data.decoding import DEFAULTS, Facts, Reading, UnfitError, decode, remarks
from experiment.data.image_files import images_below, told
from experiment.errors import DataError, RunError
from experiment.evaluation.metrics import shorten
from experiment.runs.record import Run, brief, changes
from experiment.system.files import replacing
from experiment.system.names import printable
from experiment.system.progress import Bar

Classify = Callable[[np.ndarray], np.ndarray]  # uint8 (N, S, S, 3) -> probabilities (N, classes)
Predictor = Callable[["TrainedRun"], Classify]
BATCH = 256  # images at once, of any number given
SUFFIXES: dict[Framework, str] = {"keras": ".tflite", "lightning": ".onnx"}  # of exported models


@dataclass(frozen=True)
class Exported:
    """A model as `export` writes it: predict takes uint8 (N, size, size, 3), gives probabilities (N, C).

    reading: how the image files were read that it was trained on.
    """

    class_names: list[str]
    image_size: int
    predict: Classify
    reading: Reading = DEFAULTS


@dataclass(frozen=True)
class Images:
    """What the command line's arguments hold: a name for each of the uint8 (N, S, S, 3) images.

    unreadable: files, each with the reason where it is known. remarks: what else is to be said, a line each.
    """

    names: list[str]
    images: np.ndarray
    unreadable: list[str]
    remarks: list[str]


@dataclass(frozen=True)
class TrainedRun:
    """A finished run of one framework, with what is needed to rebuild its model."""

    run: Run
    experiment: Experiment
    class_names: list[str]

    @classmethod
    def open(cls, directory: Path, framework: str) -> TrainedRun:
        """Read a run record; raises RunError where it is not a finished run of `framework`."""
        run = Run(directory)
        if (other := framework_of(run)) != framework:
            raise RunError(f"{directory} is a {other} run: use python -m {other}_impl.predict")
        config, environment = read_config(directory / "config.yaml"), run.read_json("environment.json")
        if "experiment" in environment:
            before = environment["experiment"]
            shape = {"model": before["model"], "data": {"image_size": before["data"]["image_size"]}}
            if changed := changes(shape, config, {"model.weights"}):
                raise RunError(f"{directory}: {changed}: put it back")
        return cls(run, config, environment["data"]["class_names"])


def framework_of(run: Run) -> str:
    """The framework of a finished run; raises RunError where it is none, or its record cannot be read."""
    if not (run.directory / "config.yaml").is_file():
        raise RunError(f"{run.directory}: not a run directory (no config.yaml)")
    if not run.finished:
        raise RunError(f"{run.directory}: the run is not finished (no metrics.json): --resume it first")
    framework = run.read_json("environment.json")["framework"]
    if framework not in SUFFIXES:
        raise RunError(f"{run.directory / 'environment.json'}: damaged, {framework!r} is no framework")
    return framework


def parse(framework: Framework, argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line of `python -m <framework>_impl.predict`; exits with 2 on a mistake."""
    parser = PlainParser(prog=f"{framework}_impl.predict", description="Classify images with a trained run.")
    suffix = SUFFIXES[framework]
    parser.add_argument(
        "run", type=Path, metavar="RUN", help=f"the directory of a finished run, or an exported {suffix} file"
    )
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="image, folder, or .npy array")
    parser.add_argument("--top", type=int, default=3, help="how many classes to print (default 3)")
    parser.add_argument("--output", type=Path, help="also write every probability to this .csv file")
    return parser.parse_args(argv)


def main(
    arguments: argparse.Namespace,
    framework: Framework,
    predictor: Predictor,
    load: Callable[[Path], Exported],
) -> int:
    """Classify what the command line names and print a table; returns the exit code.

    Unreadable images are named on stderr and make the code 1. Raises DataError and RunError.
    """
    with Bar("loading the model"):
        model = open_model(arguments.run, framework, predictor, load)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow's, on files that decode all the same
        found = read(arguments.images, model.image_size, model.reading)
    for remark in found.remarks:
        print(remark, file=sys.stderr)
    names = found.names
    with Bar("classifying", len(names), "images") as bar:

        def classify(images: np.ndarray) -> np.ndarray:
            probabilities = model.predict(images)
            bar.update(len(images))
            return probabilities

        probabilities = in_batches(classify, found.images)
    width = max(len(shorten(name, 40)) for name in names)
    for name, row in zip(names, probabilities, strict=True):
        best = np.argsort(-row)[: max(arguments.top, 1)]
        classes = "  ".join(f"{model.class_names[i]} {row[i]:.4f}" for i in best)
        print(f"{shorten(name, 40):<{width}}  {classes}")
    if arguments.output is not None:
        _write(arguments.output, names, probabilities, model.class_names)
    for name in found.unreadable:
        print(f"unreadable: {name}", file=sys.stderr)
    return 1 if found.unreadable else 0


def open_model(
    path: Path, framework: Framework, predictor: Predictor, load: Callable[[Path], Exported]
) -> Exported:
    """A trained run, or a file that was exported from one; raises RunError."""
    if path.suffix not in SUFFIXES.values():
        trained = TrainedRun.open(path, framework)
        data = trained.experiment.data
        reading = Reading(data.background, data.bits)
        return Exported(trained.class_names, data.image_size, predictor(trained), reading)
    if path.suffix != SUFFIXES[framework]:
        other = next(name for name, suffix in SUFFIXES.items() if suffix == path.suffix)
        raise RunError(f"{path} is a {other} export: use python -m {other}_impl.predict")
    if not path.is_file():
        raise RunError(f"{path}: no such file")
    return load(path)


def test_predictions(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """True labels (N,) and probabilities (N, classes) on the test split; RunError for a damaged file."""
    path = run.directory / "predictions.npz"
    try:
        with np.load(path) as arrays:
            return arrays["y_true"], arrays["probabilities"]
    except Exception as error:  # numpy, zipfile and zlib raise many kinds for a damaged file
        raise RunError(f"{path}: cannot be read ({brief(error)})") from error


def in_batches(classify: Classify, images: np.ndarray, size: int = BATCH) -> np.ndarray:
    """Classify (N, S, S, 3) images, N at least one, `size` at once."""
    return np.concatenate([classify(images[i : i + size]) for i in range(0, len(images), size)])


def read(paths: Sequence[Path], size: int, reading: Reading) -> Images:
    """Images from files, folders and .npy arrays, in the order of their names.

    An array is uint8 (N, size, size, 3) or one such image. Raises DataError where nothing can be read.
    """
    names: list[str] = []
    images: list[np.ndarray] = []
    facts: list[Facts] = []
    unreadable: list[str] = []
    ignored: Counter[str] = Counter()
    said: list[str] = []
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
        below = images_below(path, ignored) if path.is_dir() else [path]
        if not below:
            said.append(f"no image in {path}")
        files += below
    with Bar("reading", len(files), "files") as bar:
        for file in files:
            bar.update()
            if file.suffix == ".npy" and file.is_file():
                array = _array(file, size)
                images += list(array)
                names += [f"{printable(file.name)}[{i}]" for i in range(len(array))]
                continue
            try:
                picture = decode(file, size, reading)
            except Exception as error:  # decoders raise whatever a damaged file leads them into
                why = f" ({error})" if isinstance(error, UnfitError) else ""
                unreadable.append(f"{printable(str(file))}{why}")
            else:
                images.append(picture.pixels)
                facts.append(picture.facts)
                names.append(printable(str(file)))
    if others := told(ignored):
        said.append(others)
    if not images:
        why = "; ".join([*unreadable[:1], *([others] if others else [])])
        raise DataError(
            f"no readable image in {', '.join(str(path) for path in paths)}{f': {why}' if why else ''}"
        )
    return Images(names, np.stack(images), unreadable, [*said, *remarks(facts, reading)])


def _array(path: Path, size: int) -> np.ndarray:
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as an array ({error})") from error
    array = array[None] if array.ndim == 3 else array
    if array.dtype != np.uint8 or array.shape[1:] != (size, size, 3):
        raise DataError(
            f"{path} holds {array.dtype} {array.shape}: this run takes uint8 (N, {size}, {size}, 3)"
        )
    return array


def _write(path: Path, names: list[str], probabilities: np.ndarray, class_names: list[str]) -> None:
    try:
        with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["image", *class_names])
            writer.writerows([name, *map(float, row)] for name, row in zip(names, probabilities, strict=True))
    except OSError as error:
        raise DataError(f"--output {path}: cannot be written ({error.strerror})") from error
