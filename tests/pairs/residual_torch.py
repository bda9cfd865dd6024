"""The same residual network as a torch user migrates it, and the ways in which that goes wrong."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BatchNorm = partial(nn.BatchNorm2d, momentum=0.01, eps=1e-3)


class Block(nn.Module):
    def __init__(self, channels: int, filters: int, stride: int = 1, symmetric: bool = False) -> None:
        super().__init__()
        # Keras's "same" adds the odd pixel behind: with stride 2 on an even size, that is the only one.
        self.pad = (0, 1, 0, 1) if stride == 2 and not symmetric else (1, 1, 1, 1)
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, bias=False)
        self.bn1 = BatchNorm(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.bn2 = BatchNorm(filters)
        self.shortcut = nn.Identity()
        if stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, filters, 1, stride, bias=False), BatchNorm(filters)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(F.pad(x, self.pad))))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.shortcut(x))


class ResidualNetwork(nn.Module):
    def __init__(self, symmetric: bool = False, dropout: float = 0.3) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), BatchNorm(8))
        self.stage1 = Block(8, 8)
        self.stage2 = Block(8, 16, 2, symmetric)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.stem(x)), 2)
        x = self.stage2(self.stage1(x))
        return self.head(self.dropout(self.flatten(self.pool(x))))


def build() -> nn.Module:
    """Right but for the moving variance: stock BatchNorm takes up the unbiased one."""
    return ResidualNetwork()


class KerasBatchNorm(nn.BatchNorm2d):
    """Takes up the biased variance of the batch, as Keras does."""

    def forward(self, input: Tensor) -> Tensor:
        if self.training:
            assert self.running_mean is not None
            assert self.running_var is not None
            with torch.no_grad():
                variance, mean = torch.var_mean(input, (0, 2, 3), correction=0)
                statistics = mean.lerp(self.running_mean, 0.99), variance.lerp(self.running_var, 0.99)
            output = F.batch_norm(input, None, None, self.weight, self.bias, True, 0.0, self.eps)
            self.running_mean, self.running_var = statistics
            return output
        return super().forward(input)


def replaced(network: nn.Module, **settings: Any) -> nn.Module:
    """The network with every BatchNorm2d made anew by `settings`; without any, with Keras's own."""
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                made = nn.BatchNorm2d if settings else partial(KerasBatchNorm, eps=1e-3, momentum=0.01)
                setattr(module, name, made(child.num_features, **settings))
    return network


def build_exact() -> nn.Module:
    return replaced(ResidualNetwork())


def build_symmetric_padding() -> nn.Module:
    """Planted: padding=1 before the convolution with stride 2."""
    return replaced(ResidualNetwork(symmetric=True))


def build_stock_batchnorm() -> nn.Module:
    """Planted: nn.BatchNorm2d as it comes."""
    return replaced(ResidualNetwork(), momentum=0.1)


def build_other_dropout() -> nn.Module:
    """Planted: the dropout keeps what Keras's drops."""
    return replaced(ResidualNetwork(dropout=0.7))
