"""Each side's tests run in a process of their own, because the frameworks never meet in one.

A plain `pytest` collects tests/test_sides.py, which starts one pytest for each side; naming a side's
folder or file runs its tests here.
"""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent
SIDES = (HERE / "keras_impl", HERE / "lightning_impl")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if collection_path not in SIDES:
        return None
    named = [Path(config.invocation_params.dir, argument.split("::")[0]) for argument in config.args]
    return True if not any(path.resolve().is_relative_to(collection_path) for path in named) else None
