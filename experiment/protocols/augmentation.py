"""What the two `augmented` commands read and write: images and the parameters that place each."""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from experiment import cli
from experiment.cli import Framework, PlainParser
from experiment.config import Augment, Experiment
from experiment.errors import DataError
from experiment.randomness import GEOMETRY, PARAMETERS, Parameters
from experiment.system import devices
from experiment.system.files import replacing

Pixels = Callable[[np.ndarray, Parameters], np.ndarray]
Draws = Callable[[Augment, int, int, int], Parameters]


@dataclass(frozen=True)
class Request:
    """Images to augment under given parameters, and what a framework's own sampler is to draw.

    images: float32 or float64 (N, S, S, 3) in 0..255; their precision is the answer's. parameters: arrays
    (N,), as `randomness.augmentation` returns them, with NaN for what an image goes without. draws: how many
    of the sampler's, under `settings`, from `seed`.
    """

    images: np.ndarray
    parameters: Parameters
    settings: Augment = field(default_factory=Augment)
    draws: int = 0
    seed: int = 1

    def write(self, path: Path) -> None:
        settings = np.array(self.settings.model_dump_json())
        arrays = {"images": self.images, "settings": settings, "draws": self.draws, "seed": self.seed}
        without = np.full(len(self.images), np.nan)
        write(path, {**arrays, **dict.fromkeys(PARAMETERS, without), **self.parameters})

    @classmethod
    def read(cls, path: Path) -> Request:
        """The request that a file holds; raises DataError where it holds none."""
        try:
            with zipfile.ZipFile(path), np.load(path) as file:
                arrays = {name: file[name] for name in file.files}
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise DataError(f"{path}: cannot be read as an .npz file ({error})") from error
        wanted = {"images", "settings", "draws", "seed", *PARAMETERS}
        if missing := sorted(wanted - arrays.keys()):
            raise DataError(f"{path}: holds no {', '.join(missing)}")
        images = arrays["images"]
        side = images.shape[1] if images.ndim == 4 else 0
        if images.dtype not in (np.float32, np.float64) or images.shape[1:] != (side, side, 3):
            raise DataError(f"{path}: images are {images.dtype} {images.shape}, not float (N, S, S, 3)")
        if odd := [name for name in PARAMETERS if arrays[name].shape != images.shape[:1]]:
            raise DataError(f"{path}: {', '.join(odd)} must hold one value an image, {len(images)}")
        parameters = {name: arrays[name] for name in PARAMETERS}
        try:
            settings = Augment.model_validate_json(str(arrays["settings"]))
        except ValueError as error:
            raise DataError(f"{path}: settings are no augmentation: {arrays['settings']}") from error
        return cls(images, parameters, settings, int(arrays["draws"]), int(arrays["seed"]))


def parse(framework: Framework, argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line of `python -m <framework>_impl.trace.augmented`; exits with 2 on a mistake.

    Holds the framework that is imported next to the device, and Keras to its backend.
    """
    parser = PlainParser(prog=f"{framework}_impl.trace.augmented", description="Augment images as asked.")
    parser.add_argument("request", type=Path, metavar="REQUEST.npz", help="images and parameters")
    parser.add_argument("out", type=Path, metavar="OUT.npz", help="where the pixels go")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="left out: what is there")
    if framework == "keras":
        parser.add_argument("--backend", choices=("tensorflow", "jax", "torch"))
    arguments = parser.parse_args(argv)
    if arguments.device == "cuda" and not devices.count_gpus():
        cli.fail("--device cuda: this machine shows no CUDA GPUs")
    gpus = None if arguments.device is None else int(arguments.device == "cuda")
    with cli.refusing():
        cli.use_device(framework, Experiment(gpus=gpus, backend=getattr(arguments, "backend", None)))
    return arguments


def run(arguments: argparse.Namespace, replay: Pixels, stock_pixels: Pixels, stock_draws: Draws) -> int:
    """Answer a request; returns the exit code of the command.

    OUT.npz holds `pixels` of this project's augmentation and `stock` of the framework's own, both like the
    images, and where draws are asked for what the framework's own sampler drew, as `drawn_theta` and so on.
    """

    def command() -> int:
        request = Request.read(arguments.request)
        answer = {
            "pixels": _each(replay, request),
            "stock": _each(stock_pixels, request),
        }
        if request.draws:
            size = request.images.shape[1]
            drawn = stock_draws(request.settings, request.draws, size, request.seed)
            answer |= {f"drawn_{name}": values for name, values in drawn.items()}
        try:
            write(arguments.out, answer)
        except OSError as error:
            raise DataError(f"{arguments.out}: cannot be written ({error.strerror})") from error
        return 0

    return cli.guarded(command)


def _each(pixels: Pixels, request: Request) -> np.ndarray:
    """Pixels of every image, each under the parameters that it has; NaN stands for one that it has not."""
    without = {name: np.isnan(request.parameters[name]) for name in PARAMETERS if name not in GEOMETRY}
    answer = np.empty_like(request.images)
    patterns, rows = np.unique(np.stack([*without.values()], axis=1), axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        chosen = rows.ravel() == number
        left_out = {name for name, out in zip(without, pattern, strict=True) if out}
        parameters = {n: v[chosen] for n, v in request.parameters.items() if n not in left_out}
        answer[chosen] = pixels(request.images[chosen], parameters)
    return answer


def write(path: Path, arrays: Mapping[str, np.ndarray | int]) -> None:
    """Write an .npz file, whole or not at all."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
