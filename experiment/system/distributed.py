"""A process's place among several, as torchrun tells it by its environment, and its share of a batch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

from experiment.system import signals

TOLD = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
Place = tuple[int, int]  # of a process's rows in a batch: the first of them, and how many the batch has


def rank() -> int:
    """Number of this process, from 0; 0 where it is alone."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """Number of processes, on all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_rank() -> int:
    """Number of this process on its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_world() -> int:
    """Number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def share(count: int) -> slice:
    """This process's rows of a batch of `count`: one after another by rank, as many as others but for one."""
    return slice(count * rank() // world(), count * (rank() + 1) // world())


def leave() -> None:
    """Go on alone: from here on this process is the only one."""
    for name in [n for n in os.environ if n in TOLD or n.startswith("TORCHELASTIC_")]:
        del os.environ[name]


def launch(module: str, argv: Sequence[str], processes: int) -> int:
    """Run `python -m module argv` in so many processes on this machine; returns torchrun's exit code.

    A signal that asks to stop is passed on, once, and makes the exit code 128 + its number.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", "-m", module, *argv]
    passed: list[int] = []
    torchrun: subprocess.Popen | None = None

    def pass_on(number: int, frame: FrameType | None) -> None:
        passed.append(number)
        if torchrun is not None and len(passed) == 1:
            torchrun.send_signal(number)

    with signals.listening(pass_on):
        handled = {"TORCHELASTIC_SIGNALS_TO_HANDLE": ",".join(signals.NAMES)}
        # In a session of its own: a terminal's Ctrl-C would reach it a second time.
        torchrun = subprocess.Popen(command, env=os.environ | handled, start_new_session=True)
        if passed:  # in the meantime
            torchrun.send_signal(passed[0])
        code = torchrun.wait()
    return signals.exit_code(passed[0]) if passed else code
