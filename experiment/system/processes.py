"""Starts the two sides, each in a process of its own, on the wanted device and backend."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")
AT_ONCE = 2  # one for each side: each has threads of its own, and one to three GB


class SideError(Exception):
    """One side's command failed; the message is what it said. refused: it was the user's mistake."""

    def __init__(self, message: str, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


def start(module: str, arguments: Sequence[str], device: str = "cpu", backend: str = "tensorflow") -> str:
    """Run `python -m module arguments` and return what it printed; raises SideError where it fails.

    device: cpu or cuda. backend: Keras's.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        env=environment(device, backend),
    )
    if done.returncode:
        raise failure(module, done.stderr, done.returncode)
    return done.stdout


def together(calls: Sequence[Callable[[], Result]]) -> list[Result]:
    """The results of calls that start processes, `AT_ONCE` at a time; raises what one raises."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        started = [pool.submit(call) for call in calls]
        try:
            return [call.result() for call in started]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def failure(command: str, stderr: str, code: int) -> SideError:
    """The failure of a command that ended with `code`: its error, or its last lines."""
    said = [line for line in stderr.splitlines() if line.strip()]
    errors = [line for line in said if line.startswith("error: ")]
    message = "\n".join(said[said.index(errors[-1]) :]) if errors else "\n".join(said[-12:])
    return SideError(message.removeprefix("error: ") or f"{command} ended with {code}", refused=code == 2)


def environment(device: str, backend: str) -> dict[str, str]:
    """The environment of a side's process: its backend, its device, and arithmetic that repeats itself."""
    values = dict(os.environ)
    if device == "cpu":
        values["CUDA_VISIBLE_DEVICES"] = ""
    return values | {
        "KERAS_BACKEND": backend,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_DETERMINISTIC_OPS": "1",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "PYTHONPATH": os.pathsep.join(
            dict.fromkeys(
                filter(None, (str(Path(__file__).parents[2]), values.get("PYTHONPATH"), *_users_paths()))
            )
        ),
    }


def trace(side: str, folder: Path, request: Mapping[str, Any], device: str, backend: str) -> Path:
    """Trace a model with one side's `trace` command; returns the folder of what it wrote.

    request: the fields of `experiment.protocols.trace.Request`, the experiment as nested values. Raises
    SideError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = write_request(folder / f"{side}.json", request, device)
    out = folder / (side if side == "lightning" else f"{side}-{backend}")
    start(f"{side}_impl.trace.command", [str(path), str(out)], device, backend)
    return out


def write_request(path: Path, request: Mapping[str, Any], device: str) -> Path:
    """Write a trace's request for a device."""
    path.write_text(json.dumps(on_device(request, device), indent=2))
    return path


def on_device(request: Mapping[str, Any], device: str) -> dict[str, Any]:
    """A trace's request with the device in its experiment."""
    return {**request, "experiment": {**request["experiment"], "gpus": 1 if device == "cuda" else 0}}


def _users_paths() -> list[str]:
    """Where this process finds modules that are not installed, the working directory last."""
    installed = (sys.prefix, sys.base_prefix)
    paths = [os.path.abspath(path) for path in sys.path if os.path.isdir(path)]
    return [path for path in paths if not path.startswith(installed)]
