"""How two runs that part are told from two that round."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from parity.__main__ import main
from parity.studies import sensitivity

STEPS = np.arange(300)
ITSELF = 1e-15 * np.exp(STEPS / 12)


@pytest.mark.parametrize(
    ("both", "code"),
    [(1e-14 * np.exp(STEPS / 12), 0), (np.full(300, 1e-14), 0), (np.full(300, 1e-6 + 1e-9), 1)],
    ids=["as fast", "never", "from the first step"],
)
def test_the_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, both: np.ndarray, code: int) -> None:
    losses = {"keras": 2.0 + both, "lightning": np.full(300, 2.0), "nudged": 2.0 - ITSELF}
    monkeypatch.setattr(sensitivity, "train", lambda *_: losses)
    assert main(["sensitivity", "--out", str(tmp_path)]) == code
    found = json.loads((tmp_path / "sensitivity.json").read_text())
    steps = found["first_step_beyond"][sensitivity.ITSELF]
    assert steps["1e-09"] == pytest.approx(12 * np.log(1e6) + 1, abs=2)
    assert (tmp_path / "sensitivity.png").stat().st_size > 10_000
    if code:
        assert found["first_step_beyond"][sensitivity.BOTH]["1e-06"] == 1


def test_levels_that_are_not_reached_are_none() -> None:
    assert sensitivity.parted(np.array([0.0, 1e-8, 1e-7, np.nan])) == [2, 4, 4]
    assert sensitivity.parted(np.array([0.0, 1e-13])) == [None, None, None]
