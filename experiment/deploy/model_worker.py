"""A model of one side in a process of its own, asked again and again: `python -m <side>_impl.serve`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from experiment.data.decoding import Reading
from experiment.system import processes

RESTARTS = 3  # that may fail one after another


class Worker:
    """Serves one run or exported file; use it as a context manager, which ends the process.

    class_names, image_size and reading are the model's. Raises SideError where the process refuses the model,
    dies, or cannot answer.
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
            env=processes.environment("cpu", "tensorflow"),
        )
        try:
            opened = self._answer()
        except processes.SideError:
            self.close()
            raise
        self.class_names: list[str] = opened["class_names"]
        self.image_size: int = opened["image_size"]
        self.reading = Reading(**opened["reading"])

    def predict(self, images: Path, batch: int) -> np.ndarray:
        """Probabilities (N, classes) of a .npy file of uint8 images (N, S, S, 3), `batch` at once."""
        out = Path(self._folder.name) / "out.npy"
        self._ask({"images": str(images), "batch": batch, "out": str(out)})
        return np.load(out)

    def time(self, images: Path, batch: int, seconds: float) -> np.ndarray:
        """Seconds of each call on the first `batch` images, for at least `seconds` after a warm-up."""
        return np.array(self._ask({"images": str(images), "batch": batch, "repeat": seconds})["calls"])

    @property
    def alive(self) -> bool:
        """Whether the process is still there to answer."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.kill()
        self._process.wait()
        with suppress(BrokenPipeError):  # of a request that a dead process never took
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
            raise processes.SideError(f"{self.name}: {answer['error']}")
        return answer

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if line.endswith("\n"):  # of a process that is killed there may be half a line
            return json.loads(line)
        code = self._process.wait()
        self._said.seek(0)
        raise processes.failure(self.name, self._said.read(), code)


class RestartingError(Exception):
    """A worker cannot answer now; the message says whether it will."""


class Lasting:
    """A worker that is started anew, in the background, when its process has died; use it as a `Worker`.

    name: what it serves, for messages. start: makes the worker, and raises SideError where it cannot.
    One thread at a time may ask.
    """

    def __init__(self, name: str, start: Callable[[], Worker]) -> None:
        self.name, self._start, self._changing = name, start, threading.Lock()
        self._failures, self._reason = 0, ""  # of starts, one after another
        self._closed, self._thread = False, threading.Thread()
        first = start()
        self.class_names, self.image_size, self.reading = first.class_names, first.image_size, first.reading
        self._worker: Worker | None = first

    def predict(self, images: Path, batch: int) -> np.ndarray:
        """As `Worker.predict`; raises RestartingError at once where the process has died."""
        if (worker := self._worker) is None:
            raise self._absent()
        try:
            return worker.predict(images, batch)
        except processes.SideError:
            if worker.alive:
                raise
        self._worker = None
        worker.close()
        raise self._absent()

    def _absent(self) -> RestartingError:
        """Start the worker unless that is under way, or has failed too often."""
        with self._changing:
            if self._failures >= RESTARTS:
                return RestartingError(
                    f"the process of {self.name} died, and {RESTARTS} times it could not be started again: "
                    f"{self._reason}"
                )
            if not self._thread.is_alive():
                self._thread = threading.Thread(target=self._restart, daemon=True)
                self._thread.start()
        return RestartingError(f"the process of {self.name} died and is started again: try in a few seconds")

    def _restart(self) -> None:
        try:
            worker = self._start()
        except Exception as error:  # the next request tries again, or tells
            with self._changing:
                self._failures, self._reason = self._failures + 1, str(error)
            return
        with self._changing:
            if self._closed:
                worker.close()
            else:
                self._worker, self._failures = worker, 0

    def close(self) -> None:
        """End the process, and the one that is being started."""
        with self._changing:
            self._closed = True
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()

    def __enter__(self) -> Lasting:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
