"""What `export` takes and writes, the same on both sides: a finished run in, one deployable file out."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from experiment.cli import Framework, PlainParser
from experiment.lifecycle import RunError
from experiment.prediction import SUFFIXES, Exported, Predict, TrainedRun
from experiment.run import replacing

TOLERANCE = 1e-5  # of a probability, between the run's own predictions and the exported file's
BATCHES = (1, 7, 64)  # sizes of batch with which that is tried

Write = Callable[[TrainedRun, Path, dict[str, str]], None]
Load = Callable[[Path], Exported]


def parse(framework: Framework, argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line of `python -m <framework>_impl.export`; exits with 2 on a mistake."""
    suffix = SUFFIXES[framework]
    parser = PlainParser(
        prog=f"{framework}_impl.export",
        description=f"Write a trained run as one {suffix} file: uint8 images (N, S, S, 3) as they come from "
        "an image file in, probabilities (N, classes) out.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the directory of a finished run")
    parser.add_argument("--output", type=Path, help=f"where to write (default RUN/model{suffix})")
    arguments = parser.parse_args(argv)
    arguments.output = arguments.output or arguments.run / f"model{suffix}"
    if arguments.output.suffix != suffix:
        parser.error(f"--output {arguments.output}: must end in {suffix}")
    return arguments


def metadata(trained: TrainedRun) -> dict[str, str]:
    """What a deployer needs to know, as text: class names (JSON), image size, run, hash of config.yaml."""
    config = (trained.run.directory / "config.yaml").read_bytes()
    return {
        "class_names": json.dumps(trained.class_names),
        "image_size": str(trained.experiment.data.image_size),
        "run": trained.run.directory.resolve().name,
        "config_sha256": hashlib.sha256(config).hexdigest(),
    }


def export(
    framework: Framework, arguments: argparse.Namespace, write: Write, predict: Predict, load: Load
) -> int:
    """Write the file, predict with it, and keep it only if it predicts what the run does; returns 0.

    Raises RunError where it does not, or cannot be written.
    """
    trained = deployable(TrainedRun.open(arguments.run, framework))
    size = trained.experiment.data.image_size
    images = np.random.default_rng(1).integers(0, 256, (max(BATCHES), size, size, 3), dtype=np.uint8)
    try:
        with replacing(arguments.output) as path:
            write(trained, path, metadata(trained))
            batches = [images[:count] for count in BATCHES]
            exported = load(path)
            apart = [np.abs(exported.predict(batch) - predict(trained, batch)).max() for batch in batches]
            if not max(apart) <= TOLERANCE:  # true for NaN, too
                raise RunError(
                    f"{arguments.output}: its predictions differ by {max(apart):.1e} from the run's (at most "
                    f"{TOLERANCE:.0e}): it is not kept"
                )
            megabytes = path.stat().st_size / 2**20
    except OSError as error:
        raise RunError(f"{arguments.output}: cannot be written ({error.strerror})") from error
    print(f"{megabytes:.2f} MiB; predictions differ by at most {max(apart):.1e} from the run's")
    print(arguments.output)
    return 0


def deployable(trained: TrainedRun) -> TrainedRun:
    """The run in float32 on the CPU, and Keras's on TensorFlow, which alone converts."""
    training = trained.experiment.training.model_copy(update={"precision": "float32"})
    update = {"backend": "tensorflow", "gpus": 0, "training": training}
    return replace(trained, experiment=trained.experiment.model_copy(update=update))


def described(path: Path, metadata: dict[str, str], predict: Callable[[np.ndarray], np.ndarray]) -> Exported:
    """An exported file that was read; raises RunError where it lacks the metadata that `export` writes."""
    try:
        return Exported(json.loads(metadata["class_names"]), int(metadata["image_size"]), predict)
    except (KeyError, ValueError) as error:
        raise RunError(f"{path}: holds no class names and image size: was it written by `export`?") from error
