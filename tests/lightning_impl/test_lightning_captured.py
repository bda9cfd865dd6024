"""The step that a CUDA graph holds trains the numbers that `train` trains; here it runs as it stands."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from experiment import randomness
from experiment.config import Experiment
from lightning_impl.bench import baselines
from lightning_impl.bench.cuda_graph import Step
from lightning_impl.bench.setup import Loader, Work
from lightning_impl.classifier import build_classifier
from lightning_impl.precision import numerics

SETTINGS = {
    "gpus": 0,
    "data": {"name": "digits", "limit": 90},
    "model": {"filters": [4, 8], "dense_units": 16, "initial_biases": "uniform"},
    "training": {"batch_size": 32, "epochs": 2, "precision": "float64", "dropout_masks": "shared"},
}


def test_its_losses_and_weights_are_those_of_the_classifier() -> None:
    experiment = Experiment.model_validate(SETTINGS)
    with numerics(experiment):
        work = Work(experiment)
        step, classifier = Step(work), build_classifier(experiment, work.classes).train()
        optimizer = classifier.configure_optimizers()
        loader, size, count = Loader(work), experiment.training.batch_size, len(work.dataset.train)
        losses = []
        for epoch in range(2):
            order = randomness.epoch_order(experiment.seed, epoch, count)
            for number, batch in enumerate(loader.epoch(epoch)):
                loss = classifier.training_step(batch, number)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step(order[number * size : (number + 1) * size], epoch, number)
                losses.append((step.loss.item(), loss.item()))
        assert count % size, "the last batch of an epoch is a smaller one"
        assert len(losses) == 2 * -(-count // size)
        np.testing.assert_allclose(*np.array(losses).T, rtol=1e-11)
        for one, other in zip(step.model.parameters(), classifier.network.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_the_loop_tells_its_epochs(capsys: pytest.CaptureFixture) -> None:
    options = ["--data.name=digits", "--data.limit=90", "--model.filters=[4,8]", "--training.epochs=2"]
    assert baselines.main(["--mode=captured", "--gpus=0", *options]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(told["seconds"]) == 2
    assert 0 < told["loss"] < 10


def test_ceilings_are_measured(capsys: pytest.CaptureFixture) -> None:
    assert baselines.main(["--mode=ceilings", "--gpus=0"]) == 0
    measured = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert 1e9 < measured["operations_per_second"] < 1e14
    assert 1e8 < measured["bytes_per_second"] < 1e13
