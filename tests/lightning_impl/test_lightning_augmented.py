"""The `augmented` command: what training does, and what stock torchvision does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from experiment import randomness
from experiment.config import Augment, Experiment
from experiment.data.dataset import load
from experiment.protocols.augmentation import Request
from lightning_impl.augment import build_augment
from lightning_impl.data import Batch, build_data
from lightning_impl.precision import to_float
from lightning_impl.trace import augmented

EXPERIMENT = Experiment.model_validate(
    {
        "seed": 7,
        "data": {"name": "digits", "limit": 100},
        "augment": {"height_shift": 0.3},
        "training": {"batch_size": 20},
    }
)


def test_replay_is_what_training_sees() -> None:
    data = build_data(EXPERIMENT, load(EXPERIMENT.data, EXPERIMENT.seed))
    images, labels = data.dataset.train.batch(np.arange(20))
    plain = to_float(torch.from_numpy(images), torch.float32)
    trained_on = data.augmented(Batch(plain, torch.from_numpy(labels), epoch=2, step=3, first=0, total=20))
    generator = randomness.generator(EXPERIMENT.seed, "augment", 2, 3)
    parameters = randomness.augmentation(generator, 20, EXPERIMENT.augment, 32)
    replayed = augmented.replay(images.astype(np.float32), parameters)
    assert replayed.dtype == np.float32
    np.testing.assert_array_equal(replayed, trained_on.permute(0, 2, 3, 1).numpy())
    assert np.abs(replayed - images).mean() > 1


@pytest.mark.parametrize("flip", [True, False])
def test_stock_pixels_under_stock_draws_are_torchvisions_own(flip: bool) -> None:
    settings = Augment(kind="torchvision", height_shift=0.3, horizontal_flip=flip)
    augment = build_augment(settings)
    assert augment is not None
    images = np.random.default_rng(0).uniform(0, 255, size=(30, 16, 16, 3))
    torch.manual_seed(5)
    expected = augment(torch.from_numpy(images).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    drawn = augmented.stock_draws(settings, 30, 16, seed=5)
    np.testing.assert_array_equal(augmented.stock_pixels(images, drawn), expected)
    assert drawn["flip"].any() == flip
    assert (drawn["zx"] == drawn["zy"]).all()
    assert (drawn["tx"] == np.rint(drawn["tx"])).all()


def test_draws_leave_torchs_own_generator_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    augmented.stock_draws(Augment(), 5, 16, seed=2)
    assert torch.equal(torch.rand(3), expected)


def test_the_command_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # the command sets it
    images = np.random.default_rng(0).uniform(0, 255, size=(4, 16, 16, 3))
    parameters = randomness.augmentation(randomness.generator(1, "test"), 4, Augment(), 16)
    request, out = tmp_path / "request.npz", tmp_path / "out.npz"
    Request(images, parameters, draws=6).write(request)
    assert augmented.main([str(request), str(out), "--device=cpu"]) == 0
    with np.load(out) as answer:
        assert answer["pixels"].dtype == answer["stock"].dtype == np.float64
        assert answer["pixels"].shape == answer["stock"].shape == images.shape
        np.testing.assert_array_equal(answer["pixels"], augmented.replay(images, parameters))
        assert answer["drawn_theta"].shape == (6,)
    with pytest.raises(SystemExit) as exit:
        augmented.main([str(tmp_path / "none.npz"), str(out), "--device=cpu"])
    assert exit.value.code == 2
    assert "No such file" in capsys.readouterr().err
