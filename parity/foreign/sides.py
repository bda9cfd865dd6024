"""The two tracing processes of a pair, which compute at once and stay until the proof is done."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from experiment.system import devices, processes
from experiment.system.processes import SideError

MODULES = {"keras": "keras_impl.trace.command", "torch": "lightning_impl.trace.command"}
PATIENCE = 5.0  # seconds that a process gets to end by itself


class Side:
    """One side's tracing process, kept for as many models as are asked about; one thing at a time.

    folder: where its messages go. `out` is where the files of the model that was described last are.
    """

    def __init__(self, name: str, folder: Path, device: str = "cpu", backend: str = "tensorflow") -> None:
        self.name, self.module, self.device, self.backend = name, MODULES[name], device, backend
        self.out = folder
        self._awaited = 0  # answers
        folder.mkdir(parents=True, exist_ok=True)
        self._log = (folder / f"{name}-{backend}.txt").open("w+", errors="backslashreplace")
        self._process = subprocess.Popen(
            [sys.executable, "-m", self.module, "--stay"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**_threads(), **processes.environment(device, backend)},
        )

    def describe(self, request: Mapping[str, Any], out: Path) -> None:
        """Ask for a model to be built and described; its files go to `out`."""
        while self._awaited:  # of a pair that was given up
            with suppress(SideError):
                self.answer()
        self.out = out
        self.ask("describe", request=processes.on_device(request, self.device), out=str(out))

    def ask(self, do: str, **values: Any) -> None:
        """Send a request; the process works on it while this one goes on."""
        assert self._process.stdin is not None
        self._awaited += 1
        with suppress(BrokenPipeError):  # it died: `answer` tells of what
            self._process.stdin.write(json.dumps({"do": do, **values}) + "\n")
            self._process.stdin.flush()

    def answer(self) -> None:
        """Wait for what was asked for; raises SideError where it failed, or the process died."""
        assert self._process.stdout is not None
        self._awaited -= 1
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._log.seek(0)
            raise died(self.name, self._log.read(), code)
        if error := json.loads(line).get("error"):
            raise SideError(error, refused=True)

    def get(self, do: str, **values: Any) -> None:
        """Ask, and wait for the answer; raises SideError."""
        self.ask(do, **values)
        self.answer()

    @property
    def ended(self) -> bool:
        """The process is there no more."""
        return self._process.poll() is not None

    def close(self, at_once: bool = False) -> None:
        """End the process, by force where it does not end by itself."""
        if at_once:
            self._process.kill()
        with suppress(BrokenPipeError, subprocess.TimeoutExpired):
            self._process.communicate(timeout=PATIENCE)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._log.close()


class Sides:
    """Both sides' tracing processes, kept for as many pairs as there are; one that died is started anew."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.folder, self.device = folder, device
        self._sides: dict[tuple[str, str], Side] = {}

    @property
    def keras(self) -> Side:
        """Keras on TensorFlow, the one backend that computes in float64 throughout."""
        return self.keras_on("tensorflow")

    @property
    def torch(self) -> Side:
        return self._side("torch", "tensorflow")

    def keras_on(self, backend: str) -> Side:
        """Keras on another backend."""
        return self._side("keras", backend)

    def _side(self, name: str, backend: str) -> Side:
        key = name, backend
        if key not in self._sides or self._sides[key].ended:
            self._sides[key] = Side(name, self.folder, self.device, backend)
        return self._sides[key]

    def __enter__(self) -> Sides:
        assert self.keras
        assert self.torch  # both start at once
        return self

    def __exit__(self, *exception: object) -> None:
        for side in self._sides.values():
            side.close(at_once=exception[0] is not None)


def _threads() -> dict[str, str]:
    """Half of the cores for each side, as both compute at once, and no spinning while a thread waits."""
    count = str(max(devices.count_cores() // 2, 1))
    names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    return {"OMP_WAIT_POLICY": "PASSIVE", **dict.fromkeys(names, count)}


def died(side: str, stderr: str, code: int) -> SideError:
    """Why a side's process ended without an answer."""
    if code >= 0:
        return processes.failure(MODULES[side], stderr, code)
    said = [line for line in stderr.splitlines() if line.strip()][-1:]
    return SideError(f"the {side} side was killed by signal {-code}" + "".join(f": {line}" for line in said))
