"""Each side's tests run in a process of their own, because the frameworks never meet in one.

A plain `pytest` collects tests/test_sides.py, which starts one pytest for each side; naming a side's
folder or file runs its tests here.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent
pytest.register_assert_rewrite("exported")
# Test files run side by side, one to a core (pytest-xdist): threads of their own would only be in their way.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
# What takes longest begins first, or one core would end with it while the others have nothing left to do.
LONGEST = ("test_sides", "test_whole_run", "test_exports", "test_convert", "test_ladder", "test_pairs")
SIDES = (HERE / "keras_impl", HERE / "lightning_impl")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if collection_path not in SIDES:
        return None
    named = [Path(config.invocation_params.dir, argument.split("::")[0]) for argument in config.args]
    return True if not any(path.resolve().is_relative_to(collection_path) for path in named) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    turns = {name: turn for turn, name in enumerate(LONGEST)}
    items.sort(key=lambda item: turns.get(item.path.stem, len(turns)))
