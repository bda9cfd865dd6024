"""The accelerators of this machine, found without importing a framework."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from importlib.abc import MetaPathFinder
from typing import Any


def count_gpus() -> int:
    """Number of CUDA devices that a process started here would see."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        return 0
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def count_cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def wanted(gpus: int | None) -> int:
    """The number of GPUs to use: as configured, else all that are there."""
    return count_gpus() if gpus is None else gpus


def hide_gpus() -> None:
    """Keep every framework that is imported from here on off the GPUs."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


def installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def keras_backend(gpus: int) -> str:
    """The Keras backend for this machine: TensorFlow on a CPU, on CUDA the installed one that sees the GPU.

    Looks at what is installed and imports nothing.
    """
    if gpus == 0:
        return "tensorflow" if installed("tensorflow") else "jax" if installed("jax") else "torch"
    if any(installed(plugin) for plugin in ("jax_cuda13_plugin", "jax_cuda12_plugin")):
        return "jax"
    return "torch" if installed("torch") else "tensorflow"


def hide_module(name: str) -> None:
    """From now on, let importing the module fail as if it were not installed."""
    sys.meta_path.insert(0, _Hidden(name))


class _Hidden(MetaPathFinder):
    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        if fullname == self.name:
            raise ModuleNotFoundError(f"{fullname} is not used here", name=fullname)
