"""What accelerators are there, without a framework."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import pytest

from experiment.system import devices


class Driver:
    """Stands in for libcuda: `count` devices, or an error code from cuInit."""

    def __init__(self, count: int, error: int = 0) -> None:
        self.count, self.error = count, error

    def cuInit(self, flags: int) -> int:
        return self.error

    def cuDeviceGetCount(self, pointer: Any) -> int:
        pointer._obj.value = self.count
        return 0


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch):
    def load(count: int, error: int = 0) -> None:
        monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver(count, error))

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return load


def test_devices_are_counted_by_the_driver(driver) -> None:
    driver(3)
    assert devices.count_gpus() == 3
    driver(3, error=100)
    assert devices.count_gpus() == 0


def test_a_machine_without_the_driver_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert devices.count_gpus() == 0


@pytest.mark.parametrize("value", ["", " ", "-1"])
def test_hidden_devices_are_not_counted(driver, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    driver(3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert devices.count_gpus() == 0


def test_hide_gpus_hides_them(driver, monkeypatch: pytest.MonkeyPatch) -> None:
    driver(3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert devices.count_gpus() == 3
    devices.hide_gpus()
    assert devices.count_gpus() == 0


@pytest.mark.parametrize(
    ("gpus", "present", "backend"),
    [
        (0, {"tensorflow", "jax", "torch", "jax_cuda13_plugin"}, "tensorflow"),
        (0, {"jax", "torch"}, "jax"),
        (0, {"torch"}, "torch"),
        (1, {"tensorflow", "jax", "torch", "jax_cuda12_plugin"}, "jax"),
        (1, {"tensorflow", "jax", "torch"}, "torch"),
        (1, {"tensorflow"}, "tensorflow"),
    ],
)
def test_default_backend_by_device(
    monkeypatch: pytest.MonkeyPatch, gpus: int, present: set[str], backend: str
) -> None:
    monkeypatch.setattr(devices, "installed", present.__contains__)
    assert devices.keras_backend(gpus) == backend


def test_installed_looks_without_importing() -> None:
    sys.modules.pop("this", None)
    assert devices.installed("this")
    assert "this" not in sys.modules
    assert not devices.installed("no_such_module")
