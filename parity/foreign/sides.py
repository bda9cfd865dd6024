"""The two tracing processes of a pair, which compute at once and stay until the proof is done."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from experiment.system import processes
from experiment.system.processes import SideError

MODULES = {"keras": "keras_impl.trace.command", "torch": "lightning_impl.trace.command"}
PATIENCE = 5.0  # seconds that a process gets to end by itself


class Side:
    """One side's tracing process; it is asked for one thing at a time. Files appear in `out`.

    folder: where, made if need be.
    """

    def __init__(
        self, name: str, folder: Path, request: Mapping[str, Any], device: str, backend: str = "tensorflow"
    ) -> None:
        self.name, self.module, self.out = name, MODULES[name], folder
        self.out.mkdir(parents=True, exist_ok=True)
        path = processes.write_request(self.out / "request.json", request, device)
        self._log = (self.out / "stderr.txt").open("w+", errors="backslashreplace")
        self._process = subprocess.Popen(
            [sys.executable, "-m", self.module, str(path), str(self.out), "--stay"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=processes.environment(device, backend),
        )

    def ask(self, do: str, **values: Any) -> None:
        """Send a request; the process works on it while this one goes on."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it died: `answer` tells of what
            self._process.stdin.write(json.dumps({"do": do, **values}) + "\n")
            self._process.stdin.flush()

    def answer(self) -> None:
        """Wait for what was asked for; raises SideError where it failed, or the process died."""
        assert self._process.stdout is not None
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

    def __enter__(self) -> Side:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._process.kill()
        self.close()

    def close(self) -> None:
        """End the process, by force where it does not end by itself."""
        if self._log.closed:
            return
        with suppress(BrokenPipeError, subprocess.TimeoutExpired):
            self._process.communicate(timeout=PATIENCE)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._log.close()


def died(side: str, stderr: str, code: int) -> SideError:
    """Why a side's process ended without an answer."""
    if code >= 0:
        return processes.failure(MODULES[side], stderr, code)
    said = [line for line in stderr.splitlines() if line.strip()][-1:]
    return SideError(f"the {side} side was killed by signal {-code}" + "".join(f": {line}" for line in said))
