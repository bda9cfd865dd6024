"""Which figures a search has."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import create_trial
from PIL import Image

from experiment.tuning import figures


@pytest.mark.parametrize("alike", [False, True])
def test_what_the_trials_do_not_admit_is_left_out(tmp_path: Path, alike: bool) -> None:
    study = optuna.create_study()
    domain: dict[str, BaseDistribution] = {"training.learning_rate": FloatDistribution(1e-4, 1e-2, log=True)}
    for rate in (1e-3, 2e-3, 4e-3, 8e-3):
        value = 1.0 if alike else 100 * rate
        study.add_trial(
            create_trial(
                value=value,
                params={"training.learning_rate": rate},
                distributions=domain,
                intermediate_values={1: 2.0, 2: value},
            )
        )
    names = figures.draw(study, tmp_path, "val_loss")
    assert ("importance" in names) != alike
    assert {"history", "curves", "slice", "parallel"} <= set(names)
    assert {path.stem for path in tmp_path.iterdir()} == set(names)
    for path in tmp_path.iterdir():
        assert min(Image.open(path).size) > 300
