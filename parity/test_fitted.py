"""Packages train by a Trainer as Keras's fit trains: whole trainings in float64, callbacks among them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "tests/pairs/fitted.py"
# Keras computes a schedule and the scale of Rescaling in float32, whatever it trains in.
BOUNDS = {
    "cnn": 1e-5,
    "vgg16": 1e-8,
    "resnet50": 1e-4,
    "scheduled": 1e-6,
    "averaged": 1e-12,
    "regularised": 1e-10,
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fitted")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": "tensorflow"}
    for side in ("keras", "torch"):
        command = [sys.executable, str(SCRIPT), side, str(folder)]
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.mark.parametrize("name", BOUNDS)
def test_a_training_is_keras_fit(name: str, folder: Path) -> None:
    keras, torch = (np.load(folder / name / f"{side}.npz") for side in ("keras", "torch"))
    compared = [key for key in keras.files if key in torch.files]
    assert {"loss", "predictions"} <= set(compared)
    for key in compared:
        bound = 1e-6 if key.endswith("accuracy") else BOUNDS[name]  # torchmetrics counts in float32
        np.testing.assert_allclose(torch[key], keras[key], rtol=0, atol=bound, err_msg=key)
    assert len(keras["loss"]) == 4


def test_the_best_weights_are_put_back(folder: Path) -> None:
    """Or the test above would compare the last ones: the first epoch's are far from those."""
    losses = np.load(folder / "cnn" / "keras.npz")["loss"]
    assert losses[0] > 10 * losses[-1]
    module = (folder / "fitted_cnn" / "lightning_module.py").read_text()
    assert "min_delta=10.0" in module
    assert "restore_best_weights=True" in module
