"""Torch sides of a pair for each family of layers; families_keras.py has their twins of the same names."""

import lightning as L
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from lightning_impl.keras_semantics import BatchNorm


class Apply(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def _keras_flat(x):
    return x.movedim(1, -1).flatten(1)


def conv1d():
    return nn.Sequential(
        Apply(lambda x: F.pad(x, (4, 0))),
        nn.Conv1d(6, 8, 3, dilation=2),
        nn.ReLU(),
        Apply(lambda x: F.pad(x, (1, 1))),
        nn.Conv1d(8, 8, 4, stride=2),
        Apply(lambda x: F.max_pool1d(F.pad(x, (0, 1), value=-torch.inf), 3, 2)),
        nn.Conv1d(8, 6, 2, groups=2),
        nn.Tanh(),
        nn.Dropout1d(0.3),
        nn.AvgPool1d(2),
        Apply(lambda x: x.amax(2)),
        nn.Linear(6, 3),
    )


def conv3d():
    return nn.Sequential(
        nn.ConstantPad3d((0, 1, 0, 1, 0, 1), 0.0),
        nn.Conv3d(2, 4, 3, stride=2),
        nn.ELU(),
        BatchNorm(4),
        nn.MaxPool3d(2),
        nn.ConvTranspose3d(4, 4, 4, stride=2, padding=1),
        nn.AvgPool3d((1, 2, 2)),
        nn.Dropout3d(0.2),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


def transposed():
    return nn.Sequential(
        nn.ConvTranspose2d(3, 4, 3, stride=2),
        nn.SELU(),
        nn.ConvTranspose2d(4, 4, (2, 3), stride=(1, 2), padding=(0, 0)),
        Apply(lambda x: x[:, :, :-1, :-1]),
        Apply(lambda x: x.mean((2, 3))),
        nn.Linear(4, 3),
    )


def transposed1d():
    return nn.Sequential(nn.ConvTranspose1d(3, 4, 4, stride=2, padding=1), nn.Flatten(), nn.Linear(56, 3))


def separable():
    return nn.Sequential(
        nn.Conv1d(4, 4, 3, padding=1, groups=4, bias=False),
        nn.Conv1d(4, 6, 1),
        nn.SiLU(),
        nn.Conv1d(6, 12, 3, stride=2, groups=6),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(12, 3),
    )


def einsum():
    return nn.Sequential(nn.Linear(8, 12), nn.Softsign(), nn.Linear(12, 10), nn.Flatten(), nn.Linear(60, 3))


class WithoutAffine(BatchNorm):
    """Keras's BatchNormalization without its gamma or its beta."""

    def __init__(self, *args, without, **kwargs):
        super().__init__(*args, **kwargs)
        setattr(self, without, None)

    def forward(self, x):
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        variance, mean = torch.var_mean(x.detach(), (0, 2, 3), correction=0)
        assert self.momentum is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        kept = 1 - self.momentum
        self.running_mean = mean.lerp(self.running_mean, kept)
        self.running_var = variance.lerp(self.running_var, kept)
        return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)


class ChannelsLast(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def norms():
    return nn.Sequential(
        WithoutAffine(8, without="weight"),
        nn.ReLU(),
        WithoutAffine(8, epsilon=1e-4, momentum=0.9, without="bias"),
        ChannelsLast(nn.LayerNorm(8, eps=1e-3)),
        nn.GroupNorm(4, 8, eps=1e-3),
        nn.InstanceNorm2d(8, eps=1e-3, affine=True),
        ChannelsLast(nn.RMSNorm(8, eps=1e-6)),
        Apply(lambda x: F.normalize(x, dim=1)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


class Frozen(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), BatchNorm(4), nn.Linear(4, 3)
        for parameter in (*self.conv.parameters(), *self.norm.parameters()):
            parameter.requires_grad_(False)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).amax((2, 3)))


def frozen():
    return Frozen()


class Adapted(nn.Module):
    def __init__(self):
        import numpy as np

        super().__init__()
        data = np.random.default_rng(0).normal(3, 2, size=(50, 5))
        self.register_buffer("mean", torch.from_numpy(data.mean(0)))
        self.register_buffer("std", torch.from_numpy(data.std(0)))
        self.net = nn.Sequential(nn.Linear(5, 4), nn.Softplus(), nn.Linear(4, 3))

    def forward(self, x):
        return self.net((x - self.mean) / self.std)


def adapted():
    return Adapted()


class Preprocessed(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 3)

    def forward(self, x):
        mean = torch.tensor([0.1, 0.2, 0.3], dtype=x.dtype)[:, None, None]
        variance = torch.tensor([0.9, 0.8, 0.7], dtype=x.dtype)[:, None, None]
        return self.head(((x / 127.5 - 1 - mean) / variance.sqrt()).mean((2, 3)))


def preprocessed():
    return Preprocessed()


class Recurrent(nn.Module):
    def __init__(self, *cells, width):
        super().__init__()
        self.cells, self.head = nn.ModuleList(cells), nn.Linear(width, 3)

    def forward(self, x):
        for cell in self.cells:
            x, states = cell(x)
        states = states[0] if isinstance(states, tuple) else states
        return self.head(torch.cat([states[-2], states[-1]], 1) if cell.bidirectional else states[-1])


def recurrent():
    return Recurrent(
        nn.GRU(5, 6, batch_first=True),
        nn.RNN(6, 5, batch_first=True),
        nn.LSTM(5, 4, batch_first=True),
        width=4,
    )


def reset_before():
    return Recurrent(nn.GRU(5, 6, batch_first=True), width=6)


def bidirectional():
    return Recurrent(
        nn.LSTM(5, 4, batch_first=True, bidirectional=True),
        nn.GRU(8, 3, batch_first=True, bidirectional=True),
        width=6,
    )


def stacked():
    return Recurrent(nn.LSTM(5, 6, num_layers=2, batch_first=True), width=6)


class TimeDistributed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.dense = nn.Conv2d(2, 3, 3), nn.Linear(48, 5)
        self.lstm, self.head = nn.LSTM(5, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):  # (N, C, T, H, W)
        steps = x.movedim(2, 1)
        y = F.relu(self.conv(steps.flatten(0, 1)))
        y = y.permute(0, 2, 3, 1).flatten(1)
        y = self.dense(y.unflatten(0, steps.shape[:2]))
        return self.head(self.lstm(y)[1][0][0])


def time_distributed():
    return TimeDistributed()


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.attention(x, x, x, need_weights=False)[0] + x
        x = F.scaled_dot_product_attention(x, x, x, scale=1.0)
        return self.head(x.mean(1))


def attention():
    return Attention()


class Shapes(nn.Module):
    def __init__(self):
        super().__init__()
        self.pad, self.conv = nn.ZeroPad2d((0, 1, 1, 0)), nn.Conv2d(4, 4, 3)
        self.up, self.head = nn.Upsample(scale_factor=2), nn.Linear(12, 3)

    def forward(self, x):
        x = self.up(self.conv(self.pad(x)))
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        x = F.max_pool2d(x[:, :, 1:-2, 3:], 4)
        x = x.transpose(2, 3).flatten(2).mean(2)
        return self.head(x[:, None].expand(-1, 3, -1).flatten(1))


def shapes():
    return Shapes()


class Merges(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(6, 5), nn.Linear(6, 5), nn.Linear(15, 3)

    def forward(self, x):
        a, b = F.relu(self.a(x)), torch.sigmoid(self.b(x))
        c, d = a + b, a - b
        f = torch.maximum(a, c * d)
        g = torch.minimum(b, f)
        return self.head(torch.cat([c, d, (f + g) / 2], 1))


def merges():
    return Merges()


class Operations(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(8, 3)

    def forward(self, x):
        x = self.conv(x)
        x = (F.relu(x) * 2 + x).transpose(2, 3).mean((2, 3))
        return self.head(torch.cat([x, x.tanh()], 1))


def operations():
    return Operations()


ACTIVATIONS = [
    nn.ReLU(),
    nn.ReLU6(),
    nn.LeakyReLU(0.2),
    nn.ELU(),
    nn.SELU(),
    nn.CELU(),
    nn.GELU(),
    nn.SiLU(),
    nn.Mish(),
    nn.Hardswish(),
    nn.Hardsigmoid(),
    nn.Hardtanh(),
    nn.Hardshrink(),
    nn.Softshrink(),
    nn.Tanhshrink(),
    nn.Sigmoid(),
    nn.LogSigmoid(),
    nn.Tanh(),
    nn.Softplus(),
    nn.Softsign(),
    nn.Softmax(-1),
    nn.LogSoftmax(-1),
    nn.PReLU(4),
]


class Activations(nn.Module):
    def __init__(self):
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(nn.Linear(6, 4), function) for function in ACTIVATIONS)
        self.head = nn.Linear(4 * len(ACTIVATIONS) + 18, 3)

    def forward(self, x):
        rest = [F.leaky_relu(x, 0.1), F.leaky_relu(x, 0.2), F.elu(x, 0.5)]
        return self.head(torch.cat([*(branch(x) for branch in self.branches), *rest], 1))


def activations():
    return Activations()


def random():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Dropout2d(0.3), Apply(_keras_flat), nn.Dropout(0.5), nn.Linear(144, 3)
    )


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 3)
        self.gamma = nn.Parameter(torch.full((4,), 0.5))

    def forward(self, x):
        y = F.gelu(self.conv(x))
        x = x + y * self.gamma.reshape(1, -1, 1, 1)
        return self.head(x.mean((2, 3)))


def block():
    return Block()


class Functions(nn.Module):
    """Layers as functions of a module's own parameters."""

    def __init__(self):
        super().__init__()
        self.kernel, self.kernel_bias = nn.Parameter(torch.randn(4, 3, 3, 3)), nn.Parameter(torch.zeros(4))
        self.scale, self.shift = nn.Parameter(torch.ones(4)), nn.Parameter(torch.zeros(4))
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("variance", torch.ones(4))
        self.dense, self.dense_bias = nn.Parameter(torch.randn(5, 64)), nn.Parameter(torch.zeros(5))
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        x = F.relu(F.conv2d(F.pad(x, (0, 1, 0, 1)), self.kernel, self.kernel_bias, stride=2))
        if self.training:
            variance, mean = torch.var_mean(x.detach(), (0, 2, 3), correction=0)
            self.mean, self.variance = mean.lerp(self.mean, 0.99), variance.lerp(self.variance, 0.99)
            x = F.batch_norm(x, None, None, self.scale, self.shift, True, 0.0, 1e-3)
        else:
            x = F.batch_norm(x, self.mean, self.variance, self.scale, self.shift, False, 0.0, 1e-3)
        return self.head(torch.tanh(F.linear(x.flatten(1), self.dense, self.dense_bias)))


def functions():
    return Functions()


class SameConv2d(nn.Conv2d):
    """Pads as Keras's `same` does, whatever comes."""

    def forward(self, x):
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.weight, self.bias, self.stride)


class BatchNormAct(BatchNorm):
    """A BatchNorm with a dropout and an activation in it."""

    def __init__(self, channels):
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), nn.Identity()

    def forward(self, x):
        return self.act(self.drop(super().forward(x)))


def subclasses():
    return nn.Sequential(
        SameConv2d(3, 4, 3, stride=2),
        nn.ReLU(),
        BatchNormAct(4),
        nn.Flatten(),
        nn.Linear(64, 5),
        nn.Tanh(),
        nn.Linear(5, 3),
    )


class Cells(nn.Module):
    """Cells in loops, as written by hand."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.LSTMCell(5, 6), nn.LSTMCell(6, 4)
        self.third, self.fourth, self.head = nn.GRUCell(4, 3), nn.RNNCell(3, 4), nn.Linear(4, 3)

    def forward(self, x):
        first = second = third = fourth = None
        for step in x.unbind(1):
            first = self.first(step, first)
            second = self.second(first[0], second)
            third = self.third(second[0], third)
            fourth = self.fourth(third, fourth)
        return self.head(fourth)


def cells():
    return Cells()


def unbuilt():
    blocks = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU()
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


def plain():
    """Without an optimizer of its own."""
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


plain_adamw = plain_sgd = plain_rmsprop = plain


def normed_weights():
    return nn.Sequential(parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.Flatten(), nn.Linear(64, 3))


class Pixelwise(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 5, 1), nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(F.silu(self.second(F.relu(self.first(x)).mean((2, 3)))))


def pixelwise():
    return Pixelwise()


def repeated_names():
    blocks = [nn.Sequential(nn.Conv2d(c, f, 3), nn.ReLU()) for c, f in ((3, 4), (4, 5), (5, 6), (6, 7))]
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(28, 3))


class Several(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.embedding, self.conv = nn.Embedding(11, 4), nn.Conv2d(2, 4, 3)
        self.kind, self.age = nn.Linear(8, 3), nn.Linear(8, 1)

    def forward(self, tokens, image):
        x = self.embedding(tokens).mean(1)
        both = torch.cat([x, F.relu(self.conv(image)).amax((2, 3))], 1)
        outputs = {"kind": self.kind(both), "age": self.age(both)}
        return (outputs, both) if self.training else outputs

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def several():
    return Several()


def multi_label():
    return nn.Sequential(nn.Linear(6, 5))


class KeptInFloat32(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(6, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        x = F.relu(self.first(x.to(torch.float32)).float())
        return self.head(self.second(x.to(dtype=torch.float16).to(torch.float32)))


def kept_in_float32():
    return KeptInFloat32()


def compiled():
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))


def segmentation():
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 3, 1))


class Power(nn.Module):
    def __init__(self):
        super().__init__()
        self.exponent = nn.Parameter(torch.ones(1, 6))

    def forward(self, x):
        return (x + 1.0) ** self.exponent


def by_rule():
    return nn.Sequential(Power(), nn.Linear(6, 4), nn.Linear(4, 3))


class VisionTransformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 5, 8))
        self.norm1, self.norm2, self.norm = (nn.LayerNorm(8, eps=1e-3) for _ in range(3))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        y = self.norm1(x)
        x = x + self.attention(y, y, y)[0]
        x = x + self.mlp(self.norm2(x))
        return self.head(self.norm(x)[:, 0])


def vision_transformer():
    return VisionTransformer()


def without_rule():
    return nn.Sequential(Power(), nn.Linear(6, 4))
