"""Runs each side's tests in a process of its own (see conftest.py)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("side", ["keras_impl", "lightning_impl"])
def test_side(side: str, request: pytest.FixtureRequest) -> None:
    marks = request.config.getoption("-m")
    command = [sys.executable, "-m", "pytest", str(HERE / side), "-m", marks, "-n", "0", "--no-header"]
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-12000:]}\n{done.stderr[-3000:]}"
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 10
