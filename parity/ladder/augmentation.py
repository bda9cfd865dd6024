"""The augmentation rung: both sides against ImageDataGenerator, pixel by pixel and draw by draw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import stats

from experiment import randomness
from experiment.config import Augment
from experiment.protocols.augmentation import Request
from experiment.randomness import GEOMETRY, PARAMETERS, Parameters
from experiment.system import processes
from parity.checks import Check, compare
from parity.ladder.tolerances import bound

# Ranges that differ from each other, so that no two parameters can be exchanged unseen.
SETTINGS = Augment(rotation=30, width_shift=0.1, height_shift=0.2, zoom=0.3, brightness=[0.4, 1.6])
NEUTRAL = {"theta": 0.0, "tx": 0.0, "ty": 0.0, "zx": 1.0, "zy": 1.0, "flip": False}
TRANSFORMS = {
    "rotation": ("theta",),
    "column shift": ("tx",),
    "row shift": ("ty",),
    "column zoom": ("zx",),
    "row zoom": ("zy",),
    "flip": ("flip",),
    "all that places": GEOMETRY,
    **{name: (name,) for name in PARAMETERS if name not in GEOMETRY},
    "all together": PARAMETERS,
}
LEVELS = ("brightness", "all together", "whole pixels, brightness")  # end in whole levels of 0..255
# Here every position is a whole number, give or take rounding, and floor() may go either way: it must not
# matter, because the weights of the two choices meet there.
WHOLE = {
    "theta": (0.0, 90.0, 180.0, -90.0),
    "tx": (0.0, 3.0, -5.0),
    "ty": (2.0, 0.0, -7.0, 40.0, 1.0),
    "zx": (1.0, 3.0),
    "zy": (1.0, 1.0, 3.0),
    "flip": (False, False, True, True, False),
}
FACTORS = (0.0, 0.5, 1.0, 1.7, 1.25)  # 0 and 1 are shortcuts of Pillow's
DRAWS = 20_000
SIGNIFICANCE = 1e-3  # of one test; the seeds are fixed, so that it passes always or never


def check(images: np.ndarray, backend: str, precision: str, device: str, folder: Path) -> list[Check]:
    """Both sides and ImageDataGenerator on the same images, every transform alone and all together.

    images: uint8 (N, S, S, 3). Requests and answers stay in `folder`. Raises SideError where a side fails.
    """
    placed = placements(len(images), images.shape[1])
    asked = request(images, precision, placed)
    keras = answer("keras", replace(asked, draws=DRAWS), folder, device, backend)
    lightning = answer("lightning", asked, folder, device)
    pixels, reference, others = (
        split(array, placed) for array in (keras["pixels"], keras["stock"], lightning["pixels"])
    )
    return compare_pixels(reference, pixels, others, precision)


def check_draws(folder: Path) -> list[Check]:
    """The shared sampler against ImageDataGenerator's draws, of the answer that `check` left in `folder`."""
    size = Request.read(folder / "keras_request.npz").images.shape[1]
    with np.load(folder / "keras_answer.npz") as answered:
        return compare_draws({name: answered[f"drawn_{name}"] for name in PARAMETERS}, size)


# === Pixels ===


def placements(count: int, size: int) -> dict[str, Parameters]:
    """For every transform alone, and all together, parameters for `count` images of `size` pixels."""
    drawn = randomness.augmentation(randomness.generator(1, "parity augmentation"), count, SETTINGS, size)
    neutral = {name: np.full(count, NEUTRAL.get(name, np.nan)) for name in PARAMETERS}
    placed = {
        transform: {**neutral, **{name: drawn[name] for name in names}}
        for transform, names in TRANSFORMS.items()
    }
    whole = {**neutral, **{name: np.resize(values, count) for name, values in WHOLE.items()}}
    factors = np.resize(FACTORS, count)
    return {**placed, "whole pixels": whole, "whole pixels, brightness": {**whole, "brightness": factors}}


def request(images: np.ndarray, precision: str, placed: Mapping[str, Parameters]) -> Request:
    """One request for the same images under each of several sets of parameters, one set after the other."""
    parameters = {name: np.concatenate([one[name] for one in placed.values()]) for name in PARAMETERS}
    repeated = np.tile(images.astype(precision), (len(placed), 1, 1, 1))
    return Request(repeated, parameters, SETTINGS)


def answer(
    side: str, asked: Request, folder: Path, device: str, backend: str = "tensorflow"
) -> dict[str, np.ndarray]:
    """What one side's `augmented` command answers; raises SideError where it fails."""
    question, reply = folder / f"{side}_request.npz", folder / f"{side}_answer.npz"
    asked.write(question)
    arguments = [str(question), str(reply), f"--device={device}"]
    processes.start(f"{side}_impl.trace.augmented", arguments, device, backend)
    with np.load(reply) as file:
        return {name: file[name] for name in file.files}


def split(pixels: np.ndarray, placed: Mapping[str, Parameters]) -> dict[str, np.ndarray]:
    """The answer to a `request`, for each set of parameters."""
    return dict(zip(placed, np.split(pixels, len(placed)), strict=True))


def compare_pixels(
    reference: Mapping[str, np.ndarray],
    keras: Mapping[str, np.ndarray],
    lightning: Mapping[str, np.ndarray],
    precision: str,
) -> list[Check]:
    """Each transform's pixels, as shares of the range: each side against the reference, and both sides."""
    pairs = {
        "keras_impl": (reference, keras),
        "lightning_impl": (reference, lightning),
        "both sides": (keras, lightning),
    }
    checks = []
    for transform in reference:
        cut = precision == "float32" and transform in LEVELS
        for name, (one, other) in pairs.items():
            what, mine, others = f"{transform} ({name})", one[transform] / 255, other[transform] / 255
            checks.append(compare(what, mine, others, bound("augmentation", "level" if cut else precision)))
            if cut and mine.shape == others.shape:
                apart = float((np.abs(mine - others) > bound("augmentation", precision)).mean())
                checks.append(Check(f"{what}: pixels apart", apart, bound("augmentation", "pixels_apart")))
    return checks


# === Draws ===


def compare_draws(theirs: Parameters, size: int, settings: Augment = SETTINGS, seed: int = 1) -> list[Check]:
    """The shared sampler's draws, for images of `size` pixels, against ImageDataGenerator's.

    Two-sample Kolmogorov-Smirnov distances of every parameter and of zx / zy; chi-square statistics of the
    independence of zx and zy, over 8 x 8 bins; how far the share of flips is from a half. Each tolerance is
    the test's critical value at `SIGNIFICANCE`.
    """
    count = len(theirs["theta"])
    ours = randomness.augmentation(randomness.generator(seed, "parity sampler"), count, settings, size)
    checks = []
    farthest = float(stats.kstwobign.isf(SIGNIFICANCE)) / (count / 2) ** 0.5
    for name in (*(name for name in PARAMETERS if name != "flip"), "zx / zy"):
        one, other = (_column(drawn, name) for drawn in (ours, theirs))
        checks.append(Check(f"draws of {name}", float(stats.ks_2samp(one, other).statistic), farthest))  # type: ignore[attr-defined]
    most = float(stats.binom.isf(SIGNIFICANCE / 2, count, 0.5)) / count - 0.5
    for whose, drawn in (("shared", ours), ("Keras", theirs)):
        checks.append(
            Check(f"zx and zy ({whose})", _dependence(drawn), float(stats.chi2.isf(SIGNIFICANCE, 49)))
        )
        checks.append(Check(f"flips ({whose})", abs(float(drawn["flip"].mean()) - 0.5), most))
    return checks


def _column(drawn: Parameters, name: str) -> np.ndarray:
    return drawn["zx"] / drawn["zy"] if name == "zx / zy" else drawn[name]


def _dependence(drawn: Parameters) -> float:
    ranks = [stats.rankdata(drawn[name]) for name in ("zx", "zy")]
    table, *_ = np.histogram2d(*ranks, bins=8)
    return float(stats.chi2_contingency(table).statistic)  # type: ignore[attr-defined]
