"""Runs each side's tests in a process of its own (see conftest.py)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def run_tests_of(side: str, request: pytest.FixtureRequest) -> None:
    marks = request.config.getoption("-m")
    command = [sys.executable, "-m", "pytest", str(HERE / side), "-m", marks, "-n", "0", "--no-header"]
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-12000:]}\n{done.stderr[-3000:]}"
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 10


class TestKeras:  # a class each, which pytest-xdist may give to different processes
    def test_side(self, request: pytest.FixtureRequest) -> None:
        run_tests_of("keras_impl", request)


class TestLightning:
    def test_side(self, request: pytest.FixtureRequest) -> None:
        run_tests_of("lightning_impl", request)
