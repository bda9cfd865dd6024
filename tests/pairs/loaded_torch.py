"""The twin of loaded_keras, with the same weights, and twins with one mistake each."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


def arrays() -> list[np.ndarray]:
    """The weights, in Keras's layout, as loaded_keras has them."""
    random = np.random.default_rng(0)
    shapes = ((3, 3, 3, 4), (4,), (4 * 4 * 4, 5), (5,))
    return [random.normal(0, 0.1, shape).astype(np.float32) for shape in shapes]


class Net(nn.Module):
    """Pads as Keras's `same` does for even sizes: the odd pixel behind."""

    def __init__(self, behind: bool = True) -> None:
        super().__init__()
        self.pad = (0, 1, 0, 1) if behind else (1, 0, 1, 0)
        self.conv = nn.Conv2d(3, 4, 3, stride=2)
        self.dense = nn.Linear(64, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = F.relu(self.conv(F.pad(images, self.pad)))
        return self.dense(features.permute(0, 2, 3, 1).flatten(1))


def load(net: Net, kernel_axes: tuple[int, ...]) -> Net:
    """Load the weights, the convolution's kernel with its axes in this order."""
    kernel, bias, dense_kernel, dense_bias = map(torch.from_numpy, arrays())
    weights = {"conv.weight": kernel.permute(kernel_axes), "conv.bias": bias}
    net.load_state_dict({**weights, "dense.weight": dense_kernel.T, "dense.bias": dense_bias})
    return net


def build() -> Net:
    return load(Net(), (3, 2, 0, 1))


def build_swapped() -> Net:
    """Height and width of the kernel are swapped."""
    return load(Net(), (3, 2, 1, 0))


def build_padded() -> Net:
    """Pads in front."""
    return load(Net(behind=False), (3, 2, 0, 1))
