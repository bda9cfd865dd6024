"""python -m lightning_impl.trace.augmented REQUEST.npz OUT.npz: images augmented here, and by stock
torchvision."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from experiment.config import Augment, Experiment
from experiment.protocols import augmentation
from experiment.protocols.augmentation import Parameters
from experiment.randomness import GEOMETRY


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = augmentation.parse("lightning", argv)
    return augmentation.run(arguments, replay, stock_pixels, stock_draws)


def replay(images: np.ndarray, parameters: Parameters) -> np.ndarray:
    """The images (N, S, S, 3) as this side's training augments them under the parameters."""
    import torch

    from lightning_impl.augment import augment
    from lightning_impl.precision import numerics, to_float, use_gpu

    experiment = Experiment.model_validate({"training": {"precision": images.dtype.name}})
    with numerics(experiment):
        device = torch.device("cuda" if use_gpu(experiment) else "cpu")
        batch = to_float(torch.from_numpy(images).to(device), torch.get_default_dtype())
        augmented = augment(batch, parameters)
    return augmented.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def stock_pixels(images: np.ndarray, parameters: Parameters) -> np.ndarray:
    """The images (N, S, S, 3) as `augment.kind: torchvision` places them under parameters of the same names.

    It has one zoom, zx, and whole pixels to shift by: zy is not looked at, tx and ty are rounded.
    """
    import torch

    affine, flip = _stock(Augment(kind="torchvision"))
    pixels = []
    for i, image in enumerate(torch.from_numpy(images).permute(0, 3, 1, 2)):
        theta, tx, ty, zx = (float(parameters[name][i]) for name in ("theta", "tx", "ty", "zx"))
        placed = {"angle": theta, "translate": (round(tx), round(ty)), "scale": zx, "shear": (0.0, 0.0)}
        image = affine.transform(image, placed)
        pixels.append(flip.transform(image, {}) if parameters["flip"][i] else image)
    return torch.stack(pixels).permute(0, 2, 3, 1).numpy()


def stock_draws(settings: Augment, count: int, size: int, seed: int) -> Parameters:
    """What `augment.kind: torchvision` draws for `count` images of `size` pixels; tx is of columns."""
    import torch

    affine, flip = _stock(settings.model_copy(update={"kind": "torchvision"}))
    image = torch.empty(3, size, size)
    rows = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for _ in range(count):
            drawn = affine.make_params([image])
            flipped = bool(torch.rand(1) < flip.p)
            rows.append((drawn["angle"], *drawn["translate"], drawn["scale"], drawn["scale"], flipped))
    columns = np.array(rows, dtype=float).T
    found = dict(zip(GEOMETRY, columns, strict=True))
    return {**found, "flip": found["flip"].astype(bool)}


def _stock(settings: Augment):
    from lightning_impl.augment import PerImage, build_augment

    built = build_augment(settings)
    assert isinstance(built, PerImage)
    return built.per_image.transforms  # RandomAffine, then RandomHorizontalFlip


if __name__ == "__main__":
    sys.exit(main())
