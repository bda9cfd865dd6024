"""The environment of a run: the machine, the versions, the code."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from experiment.system import distributed

PACKAGES = ("keras", "tensorflow", "tensorflow-cpu", "jax", "torch", "torchvision", "lightning", "numpy")


def environment(
    framework: str, device: str, threads: int, seed: int, data: dict[str, Any], **more: Any
) -> dict[str, Any]:
    """The environment of a run as plain values, for environment.json."""
    return {
        "framework": framework,
        "device": device,
        "threads": threads,
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "processes": distributed.world(),
        "gpu": _gpu(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: v for name in PACKAGES if (v := _version(name))},
        "git_revision": _git_revision(),
        "seed": seed,
        "data": data,
        "utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **more,
    }


def environment_line(facts: dict[str, Any]) -> str:
    """The machine and the code that a run was made with, from its environment.json, as reports name them."""
    return f"{facts['cpu']}, {facts['cores']} cores; {facts['git_revision']}, {facts['utc']}."


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _gpu() -> str | None:
    """The GPUs in the driver's words: name, driver, power limit, clocks now and at most."""
    facts = "name,driver_version,power.limit,clocks.sm,clocks.max.sm,clocks.mem"
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={facts}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return "; ".join(done.stdout.splitlines())


def _git_revision() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
