"""Which of several processes this is, as torchrun tells each by its environment, and its share of a batch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

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
    """Run `python -m module argv` in so many processes on this machine; returns torchrun's exit code."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.run([*command, f"--nproc-per-node={processes}", "-m", module, *argv]).returncode
