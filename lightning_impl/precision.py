"""The precision that Lightning computes in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from experiment.config import Experiment
from experiment.system import devices

PRECISIONS = {"float32": "32-true", "tf32": "32-true", "bfloat16": "bf16-mixed", "float64": "64-true"}


@contextmanager
def numerics(experiment: Experiment) -> Iterator[None]:
    """Precision as configured; float32 means float32, on CUDA too, where torch would allow TF32."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if experiment.training.precision == "float64" else torch.float32)
    tf32 = experiment.training.precision == "tf32"
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def to_float(images: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 (N, S, S, 3) -> float (N, 3, S, S) in 0..255, channels last in memory; features stay (N, F)."""
    return images.to(dtype) if images.dim() == 2 else images.to(dtype).permute(0, 3, 1, 2)


def use_gpu(experiment: Experiment) -> bool:
    return devices.wanted(experiment.gpus) > 0 and torch.cuda.is_available()
