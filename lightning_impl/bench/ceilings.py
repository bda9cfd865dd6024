"""Ceilings of the hardware: the rate of a large matrix product and of a large copy."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from experiment.config import Experiment
from lightning_impl.precision import numerics, use_gpu

SIDES = {"cpu": 2048, "cuda": 8192}
BYTES = {"cpu": 2**28, "cuda": 2**31}
TIMES = 5


def ceilings(experiment: Experiment) -> dict[str, Any]:
    """Operations a second of a product in the configured precision; bytes, read and written, of a copy."""
    device = torch.device("cuda" if use_gpu(experiment) else "cpu")
    with numerics(experiment):
        mixed = experiment.training.precision == "bfloat16"
        kind = torch.bfloat16 if mixed else torch.get_default_dtype()
        side, count = SIDES[device.type], BYTES[device.type]
        one, other = torch.rand(2, side, side, device=device).to(kind)
        memory = torch.ones(count, dtype=torch.uint8, device=device)
        target = torch.empty_like(memory)
        return {
            "operations_per_second": 2 * side**3 / _fastest(lambda: one @ other, device),
            "bytes_per_second": 2 * count / _fastest(lambda: target.copy_(memory), device),
        }


def _fastest(call: Callable[[], object], device: torch.device) -> float:
    found = []
    for _ in range(TIMES + 1):  # the first warms up
        started = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - started)
    return min(found[1:])
