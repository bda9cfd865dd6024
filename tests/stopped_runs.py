"""Training runs that are ended from outside, for the tests of both sides."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from experiment.runs.record import Run
from experiment.training.recorder import Recorder

TINY = (
    "--data.name=digits",
    "--data.limit=60",
    "--model.filters=[4]",
    "--model.block_dropout=[0.1]",
    "--model.dense_units=8",
    "--training.batch_size=18",
    "--gpus=0",
)


def stopped(side: str, directory: Path, number: signal.Signals) -> tuple[int, str]:
    """Exit code and stderr of a long training that is sent a signal once an epoch is reported."""
    command = [sys.executable, "-m", f"{side}.train", *TINY, "--training.epochs=100000"]
    with directory.with_suffix(".err").open("w+") as errors:
        process = subprocess.Popen(
            [*command, f"--run.dir={directory}"], stdout=subprocess.PIPE, stderr=errors, text=True
        )
        assert process.stdout is not None
        assert any(line.startswith("epoch   1/") for line in process.stdout)
        process.send_signal(number)
        process.stdout.close()  # nobody reads the rest
        code = process.wait()
        errors.seek(0)
        return code, errors.read()


@contextmanager
def full_disk_after(epoch: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A disk that takes no file over 5000 bytes once the row of an epoch is written."""
    honest, before = Recorder.epoch_end, resource.getrlimit(resource.RLIMIT_FSIZE)

    def epoch_end(recorder: Recorder, **metrics: float) -> None:
        honest(recorder, **metrics)
        if len(recorder.rows) == epoch:
            resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))

    try:
        with monkeypatch.context() as patched:
            patched.setattr(Recorder, "epoch_end", epoch_end)
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def exit_code_of(action: Callable[[], Any]) -> int:
    """Of a process of its own that does something: 0 where that ends, 1 where it raises."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def half_and_dead(path: str | Path) -> None:
    """Write half of a file and die."""
    Path(path).write_bytes(b"half")
    os._exit(9)


def assert_stopped_resumably(run: Run, code: int, said: str) -> None:
    """That a run ended on SIGTERM as it should have, whenever that came."""
    assert code == 143, said
    assert "Traceback" not in said
    assert f"go on with: --resume {run.directory}" in said
    assert len(run.history()) >= 1
    assert run.read_json("metrics.json")["status"] == "interrupted"
    assert not (run.directory / ".lock").exists()
