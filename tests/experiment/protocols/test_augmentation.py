"""Requests to the two `augmented` commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiment.config import Augment
from experiment.errors import DataError
from experiment.protocols import augmentation
from experiment.protocols.augmentation import PARAMETERS, Request
from experiment.system import devices


def arrays(**changes: Any) -> dict[str, Any]:
    parameters = {name: np.full(3, 1.0) for name in PARAMETERS}
    settings = np.array(Augment().model_dump_json())
    return {
        "images": np.zeros((3, 8, 8, 3)),
        **parameters,
        "settings": settings,
        "draws": 0,
        "seed": 1,
        **changes,
    }


def test_a_request_comes_back_as_it_was_written(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((3, 8, 8, 3), np.float32)
    parameters = {name: np.arange(3.0) for name in PARAMETERS}
    Request(images, parameters, Augment(zoom=0.3), draws=7, seed=5).write(tmp_path / "request.npz")
    found = Request.read(tmp_path / "request.npz")
    np.testing.assert_array_equal(found.images, images)
    assert found.images.dtype == np.float32
    assert found.parameters.keys() == parameters.keys()
    assert all((found.parameters[name] == np.arange(3)).all() for name in PARAMETERS)
    assert (found.settings, found.draws, found.seed) == (Augment(zoom=0.3), 7, 5)
    assert [path.name for path in tmp_path.iterdir()] == ["request.npz"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": np.zeros((3, 8, 8, 3), np.uint8)}, "images are uint8"),
        ({"images": np.zeros((3, 8, 9, 3))}, "not float (N, S, S, 3)"),
        ({"images": np.zeros((8, 8, 3))}, "not float (N, S, S, 3)"),
        ({"images": np.zeros((2, 8, 8, 3))}, "one value an image, 2"),
        ({"zy": np.ones(1)}, "zy must hold one value an image"),
        ({"settings": np.array('{"zoom": 2}')}, "settings are no augmentation"),
    ],
)
def test_an_odd_request_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    augmentation.write(tmp_path / "request.npz", arrays(**changes))
    with pytest.raises(DataError) as refused:
        Request.read(tmp_path / "request.npz")
    assert said in str(refused.value)


def test_what_is_no_request_is_refused(tmp_path: Path) -> None:
    given = arrays()
    del given["tx"], given["seed"]
    augmentation.write(tmp_path / "request.npz", given)
    with pytest.raises(DataError, match="holds no seed, tx"):
        Request.read(tmp_path / "request.npz")
    with pytest.raises(DataError, match="No such file"):
        Request.read(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("text")
    with pytest.raises(DataError, match="cannot be read as an"):
        Request.read(tmp_path / "text.npz")
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(DataError, match="cannot be read as an"):
        Request.read(tmp_path / "array.npy")


def test_a_device_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(devices, "count_gpus", lambda: 0)
    with pytest.raises(SystemExit) as exit:
        augmentation.parse("lightning", ["request.npz", "out.npz", "--device=cuda"])
    assert exit.value.code == 2
    assert capsys.readouterr().err == "error: --device cuda: this machine shows no CUDA GPUs\n"
