"""The same convolutions as a torch user migrates them, and the ways in which that goes wrong."""

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MixedNetwork(nn.Module):
    def __init__(self, slope: float = 0.3) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(4, 8, 3, stride=2), nn.ReLU6())
        self.depthwise1 = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.pointwise1 = nn.Conv2d(8, 12, 1)
        self.norm = nn.GroupNorm(4, 12, eps=1e-3)
        self.depthwise2 = nn.Conv2d(12, 24, 3, padding="same", groups=12)
        self.leaky = nn.LeakyReLU(slope)
        self.branch_a = nn.Conv2d(24, 8, 3, padding=2, dilation=2)
        self.branch_b = nn.Conv2d(24, 8, 3, padding=1, groups=4)
        self.pool = nn.AvgPool2d(2)
        self.up = nn.ConvTranspose2d(16, 6, 4, stride=2, padding=1)
        self.dropout = nn.Dropout2d(0.2)
        self.classifier = nn.Linear(12, 5)

    def maximum(self, x: Tensor) -> Tensor:
        # "same" adds one pixel behind. It must not be zeros: silu gives values below zero, too.
        return F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=float("-inf")), 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(self.pointwise1(self.depthwise1(x)))
        x = self.leaky(self.depthwise2(self.norm(x)))
        x = torch.cat([self.branch_a(x), self.branch_b(x)], dim=1)
        x = F.silu(self.up(self.pool(x)))
        x = self.dropout(self.maximum(x))
        return self.classifier(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1))


class Symmetric(MixedNetwork):
    """Pools with a pixel added on both sides."""

    def maximum(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 3, 2, padding=1)


def build() -> nn.Module:
    return MixedNetwork()


def build_leaky_slope() -> nn.Module:
    """Planted: nn.LeakyReLU as it comes, 0.01 for Keras's 0.3."""
    return MixedNetwork(slope=0.01)


def build_symmetric_pooling() -> nn.Module:
    """Planted: padding=1 for a max pooling with stride 2."""
    return Symmetric()


def build_group_epsilon() -> nn.Module:
    """Planted: nn.GroupNorm as it comes, 1e-5 for Keras's 1e-3."""
    network = MixedNetwork()
    network.norm.eps = 1e-5
    return network


class Trained(pl.LightningModule):
    """The network with torch's Adam as it comes."""

    def __init__(self) -> None:
        super().__init__()
        self.network = MixedNetwork()

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.Adam(self.parameters(), lr=1e-3)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 10)}


def build_stock_adam() -> nn.Module:
    """Planted: epsilon 1e-8 after the bias correction, for Keras's 1e-7 before it."""
    return Trained()
