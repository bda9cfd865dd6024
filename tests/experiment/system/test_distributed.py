"""Several processes, started by this one."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from experiment.system import distributed

# Stands in for torchrun: signals the process that started it twice, and counts what comes back.
TORCHRUN = """\
#!/bin/sh
count=0
trap 'count=$((count + 1)); [ $count = 1 ] && kill -TERM $PPID' TERM
kill -TERM $PPID
tries=0
while [ $tries -lt 50 ] || [ $count = 0 ]; do tries=$((tries + 1)); sleep 0.01; done
echo "$count $TORCHELASTIC_SIGNALS_TO_HANDLE $*" > {said}
exit 7
"""


def test_a_signal_is_passed_on_once_and_makes_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torchrun, said = tmp_path / "torchrun", tmp_path / "said"
    torchrun.write_text(TORCHRUN.format(said=said))
    torchrun.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(torchrun))
    before = signal.getsignal(signal.SIGTERM)
    assert distributed.launch("some.module", ["--seed=3"], 2) == 143
    assert signal.getsignal(signal.SIGTERM) is before
    count, handled, command = said.read_text().split(maxsplit=2)
    assert count == "1"
    assert "SIGUSR1" in handled
    assert command.endswith("--nproc-per-node=2 -m some.module --seed=3\n")


def test_without_a_signal_the_exit_code_is_torchruns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torchrun = tmp_path / "torchrun"
    torchrun.write_text("#!/bin/sh\nexit 7\n")
    torchrun.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(torchrun))
    assert distributed.launch("some.module", [], 2) == 7
