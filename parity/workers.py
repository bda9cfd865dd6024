"""A model of one side in a process of its own, asked again and again: `python -m <side>_impl.serve`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from parity import sides


class Worker:
    """Serves one run or exported file; use it as a context manager, which ends the process.

    class_names and image_size are the model's. Raises SideError where the process refuses the model, dies, or
    cannot answer.
    """

    def __init__(self, side: str, model: Path, threads: int | None = None, plain: bool = False) -> None:
        command = [sys.executable, "-m", f"{side}_impl.serve", str(model)]
        command += [f"--threads={threads}"] * (threads is not None) + ["--plain"] * plain
        self.name = f"{side}_impl.serve {model}"
        self._folder = tempfile.TemporaryDirectory(prefix="parity-worker-")
        self._said = (Path(self._folder.name) / "stderr").open("w+")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            env=sides.environment("cpu", "tensorflow"),
        )
        try:
            opened = self._answer()
        except sides.SideError:
            self.close()
            raise
        self.class_names: list[str] = opened["class_names"]
        self.image_size: int = opened["image_size"]

    def predict(self, images: Path, batch: int) -> np.ndarray:
        """Probabilities (N, classes) of a .npy file of uint8 images (N, S, S, 3), `batch` at once."""
        out = Path(self._folder.name) / "out.npy"
        self._ask({"images": str(images), "batch": batch, "out": str(out)})
        return np.load(out)

    def time(self, images: Path, batch: int, seconds: float) -> np.ndarray:
        """Seconds of each call on the first `batch` images, for at least `seconds` after a warm-up."""
        return np.array(self._ask({"images": str(images), "batch": batch, "repeat": seconds})["calls"])

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()
        self._said.close()
        self._folder.cleanup()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # what it said before it died is in the answer
        answer = self._answer()
        if "error" in answer:
            raise sides.SideError(f"{self.name}: {answer['error']}")
        return answer

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        if line := self._process.stdout.readline():
            return json.loads(line)
        code = self._process.wait()
        self._said.seek(0)
        raise sides.failure(self.name, self._said.read(), code)
