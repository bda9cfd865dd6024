"""The whole training step as one CUDA graph: no Python and no launches between its kernels.

The data set lies on the device as uint8; a step is told which rows to take and how to place each, and does
the rest there: gather, augmentation, forward, backward and Keras's Adam. A CPU has no graphs: there the same
step runs as it stands.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from experiment import randomness
from experiment.config import Experiment
from experiment.errors import RunError
from lightning_impl.augment import resample, sampling
from lightning_impl.bench.setup import Work
from lightning_impl.data import to_float
from lightning_impl.precision import numerics

WARM_UP = 3  # steps before the capture, which must find every buffer made


def captured(experiment: Experiment) -> dict[str, Any]:
    """Train and give the seconds of each epoch."""
    work, seconds = Work(experiment), []
    with numerics(experiment):
        step, labels = Step(work), work.dataset.train.labels
        size = experiment.training.batch_size
        for epoch in range(experiment.training.epochs):
            started = work.now()
            order = randomness.training_order(experiment.seed, epoch, labels, experiment.training.sampling)
            for number, start in enumerate(range(0, len(order), size)):
                step(order[start : start + size], epoch, number)
            seconds.append(work.now() - started)
    return {"images": len(labels), "seconds": seconds, "loss": step.loss.item()}


class Step:
    """One training step on rows of a data set that lies on the device; `loss` is the last step's."""

    def __init__(self, work: Work) -> None:
        train, self.experiment = work.dataset.train, work.experiment
        if self.experiment.augment.brightness is not None:
            raise RunError("augment.brightness: the captured step places images and no more: leave it null")
        images, labels = train.batch(np.arange(len(train)))
        self.images, self.labels = (torch.from_numpy(array).to(work.device) for array in (images, labels))
        self.model, self.autocast = work.model(), work.autocast
        self.adam = Adam(self.model, work.experiment.training.learning_rate)
        self.loss = torch.zeros((), device=work.device)
        size = work.experiment.training.batch_size
        self.rows = torch.zeros(size, dtype=torch.int64, device=work.device)
        self.theta = torch.zeros(size, 2, 3, device=work.device)
        self.graph: Any = None
        self.warm = 0 if work.device.type == "cuda" else None

    def __call__(self, positions: np.ndarray, epoch: int, step: int) -> None:
        rows = torch.from_numpy(positions)
        theta = torch.from_numpy(self._placed(len(positions), epoch, step)).to(self.theta.dtype)
        if len(positions) < len(self.rows):
            # An epoch's last batch has another shape, which a graph cannot take.
            self._run(rows.to(self.rows.device), theta.to(self.rows.device))
            return
        self.rows.copy_(rows)
        self.theta.copy_(theta)
        if self.graph is not None:
            self.graph.replay()
        elif self.warm is None or self.warm < WARM_UP:
            self._warm()
        else:
            self._capture()

    def _warm(self) -> None:
        if self.warm is None:
            self._run(self.rows, self.theta)
            return
        self.warm += 1
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._run(self.rows, self.theta)
        torch.cuda.current_stream().wait_stream(side)

    def _capture(self) -> None:
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self._run(self.rows, self.theta)
        self.graph.replay()  # capturing records and does not compute

    def _run(self, rows: Tensor, theta: Tensor) -> None:
        images, labels = to_float(self.images[rows], torch.get_default_dtype()), self.labels[rows]
        if self.experiment.augment.kind == "keras":
            images = resample(images, theta).contiguous(memory_format=torch.channels_last)
        with self.autocast():
            loss = F.cross_entropy(self.model(images).to(torch.get_default_dtype()), labels)
        self.adam.step(torch.autograd.grad(loss, self.adam.parameters))
        self.loss.copy_(loss.detach())

    def _placed(self, count: int, epoch: int, step: int) -> np.ndarray:
        size = self.experiment.data.image_size
        random = randomness.generator(self.experiment.seed, "augment", epoch, step)
        parameters = randomness.augmentation(random, count, self.experiment.augment, size)
        return sampling(randomness.affine_matrices(parameters, size), size)


class Adam:
    """Keras's Adam with every number on the device, so that a graph can hold it.

    w -= rate * m / (sqrt(v) + epsilon), rate = learning_rate * sqrt(1 - b2^t) / (1 - b1^t): Kingma and Ba
    2015, the form before section 2.1, with Keras's epsilon.
    """

    def __init__(self, model: Any, learning_rate: float, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.means = [torch.zeros_like(one) for one in self.parameters]
        self.squares = [torch.zeros_like(one) for one in self.parameters]
        self.learning_rate, self.betas = learning_rate, betas
        # Keras on TensorFlow rounds both betas to float32 in the bias correction: keras_semantics.Adam.
        rounded = [float(np.float32(beta)) for beta in betas]
        device = self.parameters[0].device
        self.powers = torch.ones(2, dtype=torch.float64, device=device)
        self.rounded = torch.tensor(rounded, dtype=torch.float64, device=device)

    @torch.no_grad()
    def step(self, gradients: tuple[Tensor, ...], epsilon: float = 1e-7) -> None:
        foreach: Any = torch  # for its functions of whole lists of tensors have no public names
        self.powers.mul_(self.rounded)
        rate = self.learning_rate * (1 - self.powers[1]).sqrt() / (1 - self.powers[0])
        foreach._foreach_lerp_(self.means, gradients, 1 - self.betas[0])
        foreach._foreach_mul_(self.squares, self.betas[1])
        foreach._foreach_addcmul_(self.squares, gradients, gradients, 1 - self.betas[1])
        updates = foreach._foreach_sqrt(self.squares)
        foreach._foreach_add_(updates, epsilon)
        foreach._foreach_reciprocal_(updates)
        foreach._foreach_mul_(updates, self.means)
        foreach._foreach_mul_(updates, rate.to(updates[0].dtype))
        foreach._foreach_sub_(self.parameters, updates)
