"""Torch's twins of the models of `keras_impl.planted`: the right ones, and those with one fault.

Every name of `PAIRS` is a builder: `lightning_impl.planted:NAME`. `parity.foreign.mutations` says which fault
is whose, and the words that must name it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F

from lightning_impl.keras_semantics import Adam, BatchNorm, Flatten

CLASSES = 4


class Convolutional(nn.Module):
    """`convolutional`'s twin; each argument is a place for a fault."""

    def __init__(
        self,
        pads: Sequence[int] = (0, 1, 0, 1),
        norm: nn.Module | None = None,
        multiplier_first: bool = False,
        count_include_pad: bool = False,
        gelu: str = "none",
        epsilon: float = 1e-3,
        softmax: bool = False,
    ) -> None:
        super().__init__()
        self.pads, self.multiplier_first, self.softmax = tuple(pads), multiplier_first, softmax
        self.convolution = nn.Conv2d(3, 6, 3, stride=2, bias=False)
        self.norm = norm or BatchNorm(6)
        self.depthwise = nn.Conv2d(6, 12, 3, padding=1, groups=6)
        self.pool = nn.AvgPool2d(3, 1, padding=1, count_include_pad=count_include_pad)
        self.flatten = Flatten()
        self.hidden, self.gelu = nn.Linear(12 * 36, 8), nn.GELU(gelu)
        self.layer_norm, self.head = nn.LayerNorm(8, eps=epsilon), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.convolution(F.pad(x, self.pads))))
        x = self.depthwise(x)
        if self.multiplier_first:
            x = x.unflatten(1, (6, 2)).transpose(1, 2).flatten(1, 2)
        x = self.layer_norm(self.gelu(self.hidden(self.flatten(self.pool(x)))))
        return F.softmax(self.head(x), -1) if self.softmax else self.head(x)


class Preprocessed(nn.Module):
    """`preprocessed`'s twin."""

    mean: Tensor
    variance: Tensor

    def __init__(
        self,
        resize: Mapping[str, Any] | None = None,
        scale: float = 1 / 127.5,
        offset: float = -1.0,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        flipped: bool = False,
    ) -> None:
        super().__init__()
        self.resize = resize or {"mode": "bilinear", "align_corners": False}
        self.scale, self.offset, self.flipped = scale, offset, flipped
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float64)[:, None, None])
        self.register_buffer("variance", torch.tensor([0.05, 0.06, 0.07], dtype=torch.float64)[:, None, None])
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3), Flatten(), nn.Linear(6 * 6 * 4, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, (8, 8), **self.resize) * self.scale + self.offset
        x = x.flip(1) if self.flipped else x
        return self.net((x - self.mean) / self.variance.sqrt())


class Bottleneck(nn.Module):
    """`backbone`'s twin: Keras's ResNet50 where it strides first and has biases, torchvision's where not."""

    def __init__(self, first: int = 2, bias: bool = True, epsilon: float = 1.001e-5) -> None:
        super().__init__()
        second = 2 // first
        self.conv1 = nn.Conv2d(3, 4, 1, stride=first, bias=bias)
        self.conv2 = nn.Conv2d(4, 4, 3, stride=second, padding=1, bias=bias)
        self.conv3, self.shortcut = nn.Conv2d(4, 8, 1, bias=bias), nn.Conv2d(3, 8, 1, stride=2, bias=bias)
        self.bn1, self.bn2 = BatchNorm(4, epsilon), BatchNorm(4, epsilon)
        self.bn3, self.bn0 = BatchNorm(8, epsilon), BatchNorm(8, epsilon)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y = F.relu(y + self.bn0(self.shortcut(x)))
        return self.head(y.mean((2, 3)))


class Transposed(nn.Module):
    """`transposed`'s twin, cropped behind or, as torch's padding does, before."""

    def __init__(self, before: bool = False) -> None:
        super().__init__()
        padding = 1 if before else 0
        self.up = nn.ConvTranspose2d(3, 4, 3, stride=2, padding=padding, output_padding=padding)
        self.before, self.head = before, nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)
        x = x if self.before else x[:, :, :-1, :-1]
        return self.head(x.mean((2, 3)))


class Recurrent(nn.Module):
    """`lstm`'s and `gru`'s twin, with the weights of Keras's in torch's order of gates, or another."""

    def __init__(self, kind: type[nn.Module], gates: Sequence[int], twice: bool = False) -> None:
        super().__init__()
        layer: Any = kind(5, 6, batch_first=True)
        self.layer, self.head = layer, nn.Linear(6, CLASSES)
        count = len(gates)
        shapes = [(5, 6 * count), (6, 6 * count), (6 * count,) if kind is nn.LSTM else (2, 6 * count)]
        kernel, recurrent, bias, head, head_bias = numbers([*shapes, (6, CLASSES), (CLASSES,)])
        biases = (bias, bias if twice else np.zeros_like(bias)) if kind is nn.LSTM else bias
        with torch.no_grad():
            for parameter, values in (
                (layer.weight_ih_l0, kernel),
                (layer.weight_hh_l0, recurrent),
                (layer.bias_ih_l0, biases[0][None]),
                (layer.bias_hh_l0, biases[1][None]),
            ):
                blocks = np.split(values, count, axis=-1)
                ordered = np.concatenate([blocks[gate] for gate in gates], axis=-1)
                parameter.copy_(torch.from_numpy(ordered.T.reshape(parameter.shape)))
            self.head.weight.copy_(torch.from_numpy(head.T))
            self.head.bias.copy_(torch.from_numpy(head_bias))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0][:, -1])


class BothWays(nn.Module):
    """`bidirectional`'s twin, with a way to take one vector of the sequence."""

    def __init__(self, taken: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.head = nn.LSTM(5, 6, batch_first=True, bidirectional=True), nn.Linear(12, CLASSES)
        self.taken = taken

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.taken(self.layer(x)[0]))


def both_ends(steps: Tensor) -> Tensor:
    """The last states of both ways, of the steps (N, T, 2 F)."""
    forward, backward = steps.chunk(2, -1)
    return torch.cat([forward[:, -1], backward[:, 0]], -1)


class Attention(nn.Module):
    """`attention`'s twin by hand, its projections apart or packed."""

    def __init__(
        self,
        heads: int = 2,
        power: float = 0.5,
        packed: bool = False,
        causal: bool = False,
        interleaved: bool = False,
        exchanged: bool = False,
        over: int = -1,
    ) -> None:
        super().__init__()
        self.heads, self.power, self.causal, self.interleaved = heads, power, causal, interleaved
        self.exchanged, self.over = exchanged, over
        self.norm, self.out, self.head = nn.LayerNorm(5, 1e-3), nn.Linear(6, 5), nn.Linear(5, CLASSES)
        if packed:
            self.qkv: nn.Linear | None = nn.Linear(5, 18)
        else:
            self.qkv = None
            self.value, self.key, self.query = nn.Linear(5, 6), nn.Linear(5, 6), nn.Linear(5, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        if self.qkv is not None:
            query, key, value = self.qkv(x).chunk(3, -1)
        else:
            value, key, query = self.value(x), self.key(x), self.query(x)
        query, key, value = self.split(query), self.split(key), self.split(value)
        if self.exchanged:
            key, value = value, key
        scores = query @ key.mT / query.shape[-1] ** self.power
        if self.causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
            scores = scores.masked_fill(later, -torch.inf)
        y = scores.softmax(self.over) @ value  # (N, heads, T, dim)
        y = y.permute(0, 2, 3, 1) if self.interleaved else y.transpose(1, 2)
        return self.head(self.out(y.flatten(2)).mean(1))

    def split(self, x: Tensor) -> Tensor:
        """(N, T, features) as (N, heads, T, dim)."""
        if self.interleaved:
            return x.unflatten(-1, (-1, self.heads)).permute(0, 3, 1, 2)
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Gated(nn.Module):
    """`gated`'s twin; each argument is a place for a fault."""

    def __init__(
        self, exchanged: bool = False, affine: bool = True, axis: int = 1, mixed: Callable = torch.add
    ) -> None:
        super().__init__()
        self.exchanged, self.axis, self.mixed = exchanged, axis, mixed
        self.gate, self.hidden, self.score = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 1)
        self.norm = nn.LayerNorm(5, eps=1e-3, elementwise_affine=affine)
        self.head = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gate(x))
        new = torch.tanh(self.hidden(x))
        x = (
            self.mixed(new * (1 - gate), x * gate)
            if self.exchanged
            else self.mixed(new * gate, x * (1 - gate))
        )
        x = self.norm(x)
        weights = torch.softmax(self.score(x), self.axis)
        return self.head((x * weights).sum(1))


class Dropped(nn.Module):
    """`dropped`'s twin: recurrent layers on one another, with dropout between them and after them."""

    def __init__(
        self, dropped: Callable[[Tensor, bool], Tensor] = lambda x, training: F.dropout(x, 0.3, training)
    ) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 6, num_layers=2, dropout=0.2, batch_first=True)
        self.dropped, self.head = dropped, nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropped(self.lstm(x)[0][:, -1], self.training))


class Masked(nn.Module):
    """`masked`'s twin: the mean of the words that are no padding, or of all."""

    def __init__(self, padding: int | None = 0) -> None:
        super().__init__()
        self.padding = padding
        self.embedding, self.head = nn.Embedding(5, 6), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        words = self.embedding(x)
        kept = torch.ones_like(x) if self.padding is None else x != self.padding
        kept = kept.unsqueeze(-1).to(words.dtype)
        return self.head((words * kept).sum(1) / kept.sum(1).clamp(min=1e-7))


class WholeAttention(nn.Module):
    """`own_attention`'s twin by torch's own module, which packs its projections."""

    def __init__(self, heads: int = 2) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(5, 6), nn.Linear(6, CLASSES)
        self.attention = nn.MultiheadAttention(6, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))


class Flattened(nn.Module):
    """`flattened`'s twin, with the weights of Keras's in torch's order of features, or in Keras's."""

    def __init__(self, in_torchs_order: bool = True) -> None:
        super().__init__()
        self.convolution, self.head = nn.Conv2d(3, 4, 3), nn.Linear(400, CLASSES)
        kernel, bias, head, head_bias = numbers([(3, 3, 3, 4), (4,), (400, CLASSES), (CLASSES,)])
        if in_torchs_order:
            head = head.reshape(10, 10, 4, CLASSES).transpose(2, 0, 1, 3).reshape(400, CLASSES)
        for parameter, values in (
            (self.convolution.weight, kernel.transpose(3, 2, 0, 1)),
            (self.convolution.bias, bias),
            (self.head.weight, head.T),
            (self.head.bias, head_bias),
        ):
            assert parameter is not None
            parameter.data.copy_(torch.from_numpy(values))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.convolution(x).flatten(1))


class Dense(pl.LightningModule):
    """`dense`'s twin: a LightningModule with an optimizer, a loss and a clipping of its own."""

    def __init__(
        self,
        optimizer: Callable[[Any], Any] | None = None,
        loss: Callable[..., Tensor] = F.cross_entropy,
        scheduler: Callable[[Any], Any] | None = None,
        interval: str = "step",
        clip: Callable[[Sequence[Tensor]], Any] | None = None,
        penalty: Callable[[Tensor], Tensor] | None = None,
        accumulate: int = 1,
        held: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(10, 8), nn.Linear(8, CLASSES)
        self.make, self.loss, self.clip, self.penalty = optimizer, loss, clip, penalty
        self.scheduler, self.interval = scheduler, interval
        self.accumulate_grad_batches = accumulate
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(not name.startswith(tuple(held)) if held else True)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.hidden(x)))

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:
        x, y, *weights = batch
        loss = self.loss(self(x), y, *weights)
        if self.penalty is not None:
            loss = loss + self.penalty(self.hidden.weight)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = (self.make or Adam)(self.parameters())
        if self.scheduler is None:
            return optimizer
        entry = {"scheduler": self.scheduler(optimizer), "interval": self.interval}
        return {"optimizer": optimizer, "lr_scheduler": entry}

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        if self.clip is not None:
            self.clip(list(self.parameters()))


class TwoOutputs(pl.LightningModule):
    """`two_outputs`' twin."""

    def __init__(self, weights: Sequence[float] = (1.0, 0.3)) -> None:
        super().__init__()
        self.hidden, self.weights = nn.Linear(10, 8), weights
        self.heads = nn.ModuleList([nn.Linear(8, CLASSES), nn.Linear(8, 3)])

    def forward(self, x: Tensor) -> list[Tensor]:
        x = torch.tanh(self.hidden(x))
        return [head(x) for head in self.heads]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, targets = batch
        losses = [F.cross_entropy(output, target) for output, target in zip(self(x), targets, strict=True)]
        return sum((w * loss for w, loss in zip(self.weights, losses, strict=True)), torch.zeros(()))

    def configure_optimizers(self) -> Any:
        return Adam(self.parameters())


class Regression(pl.LightningModule):
    """`regression`'s twin."""

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor] = F.mse_loss) -> None:
        super().__init__()
        self.net, self.loss = nn.Sequential(nn.Linear(10, 8), nn.Tanh(), nn.Linear(8, 2)), loss

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self.loss(self(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return Adam(self.parameters())


class Frozen(nn.Module):
    """`frozen`'s twin, whose BatchNorm stays in evaluation as Keras's does, or does not."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.convolution, self.norm, self.head = nn.Conv2d(3, 4, 3), norm, nn.Linear(400, CLASSES)
        for parameter in (*self.convolution.parameters(), *self.norm.parameters()):
            parameter.requires_grad_(False)
        self.flatten = Flatten()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.flatten(self.norm(self.convolution(x))))


class Evaluating(BatchNorm):
    """A BatchNorm that never trains."""

    def train(self, mode: bool = True) -> Any:
        return super().train(False)


class Undefined(nn.Module):
    """`nan`'s twin."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(10, 8), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.log(self.hidden(x) - 1e9))


def numbers(shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    """Arrays of some shapes, drawn one after the other: normal, times 0.3."""
    random = np.random.default_rng(0)
    return [0.3 * random.standard_normal(shape) for shape in shapes]


def each_by_norm(limit: float) -> Callable[[Sequence[Tensor]], None]:
    """Clips each parameter's gradient by its own norm, as Keras's clipnorm does."""

    def clip(parameters: Sequence[Tensor]) -> None:
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad *= limit / max(float(parameter.grad.norm()), limit)

    return clip


def all_by_norm(limit: float) -> Callable[[Sequence[Tensor]], None]:
    """Clips all gradients by their common norm, as Keras's global_clipnorm does."""

    def clip(parameters: Sequence[Tensor]) -> None:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norm = float(torch.stack([gradient.norm() for gradient in gradients]).norm())
        for gradient in gradients:
            gradient *= limit / max(norm, limit)

    return clip


WEIGHTS = torch.tensor([1.0, 2.0, 0.5, 1.5])


def weighted(output: Tensor, target: Tensor) -> Tensor:
    """The crossentropy with class weights, divided by their sum as torch does."""
    return F.cross_entropy(output, target, weight=WEIGHTS.to(output))


def weighted_as_keras(output: Tensor, target: Tensor) -> Tensor:
    """The crossentropy with class weights, divided by the number of samples as Keras does."""
    return F.cross_entropy(output, target, weight=WEIGHTS.to(output), reduction="sum") / len(target)


def by_sample(output: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """The crossentropy of weighed samples, divided by their number as Keras does."""
    return (F.cross_entropy(output, target, reduction="none") * weights).mean()


def _halved(optimizer: Any) -> Any:
    return optim.lr_scheduler.ExponentialLR(optimizer, 0.5)


def _sgd(**settings: Any) -> Callable[[Any], Any]:
    return lambda parameters: optim.SGD(parameters, **{"lr": 0.1, **settings})


def _adam(cls: Any = Adam, **settings: Any) -> Callable[[Any], Any]:
    return lambda parameters: cls(parameters, **{"lr": 1e-2, **settings})


PAIRS: dict[str, Callable[[], nn.Module]] = {
    # Right.
    "convolutional": Convolutional,
    "frozen": lambda: Frozen(Evaluating(4)),
    "preprocessed": Preprocessed,
    "backbone": Bottleneck,
    "transposed": Transposed,
    "flattened": Flattened,
    "lstm": lambda: Recurrent(nn.LSTM, range(4)),
    "gru": lambda: Recurrent(nn.GRU, (1, 0, 2)),
    "bidirectional": lambda: BothWays(both_ends),
    "attention": Attention,
    "packed_attention": lambda: Attention(packed=True),
    "own_attention": WholeAttention,
    "gated": Gated,
    "masked": Masked,
    "dropped": Dropped,
    "dense": Dense,
    "two_outputs": TwoOutputs,
    "regression": Regression,
    "l2": lambda: Dense(penalty=lambda weight: 1e-2 * weight.square().sum()),
    "smoothed": lambda: Dense(
        loss=lambda output, target: F.cross_entropy(output, _classes(target), label_smoothing=0.1)
    ),
    "class_weights": lambda: Dense(loss=weighted_as_keras),
    "sample_weights": lambda: Dense(loss=by_sample),
    "adam": lambda: Dense(_adam()),
    "sgd": lambda: Dense(_sgd()),
    "momentum": lambda: Dense(_sgd(momentum=0.9)),
    "nesterov": lambda: Dense(_sgd(momentum=0.9, nesterov=True)),
    "scheduled": lambda: Dense(_adam(), scheduler=_halved),
    "clipnorm": lambda: Dense(_sgd(), clip=each_by_norm(0.05)),
    "global_clipnorm": lambda: Dense(_sgd(), clip=all_by_norm(0.05)),
    "clipvalue": lambda: Dense(_sgd(), clip=lambda parameters: nn.utils.clip_grad_value_(parameters, 0.01)),
    "accumulated": lambda: Dense(_sgd(), accumulate=2),
    "adadelta": lambda: Dense(_adam(optim.Adadelta, lr=1.0, rho=0.95, eps=1e-7)),
    "nadam": lambda: Dense(_adam(optim.NAdam, eps=1e-7, momentum_decay=1.0)),
    # Of the layers.
    "same_padding": lambda: Convolutional(pads=(1, 1, 1, 1)),
    "batchnorm_epsilon": lambda: Convolutional(norm=BatchNorm(6, epsilon=1e-5)),
    "batchnorm_momentum": lambda: Convolutional(norm=BatchNorm(6, momentum=0.9)),
    "unbiased_variance": lambda: Convolutional(norm=nn.BatchNorm2d(6, eps=1e-3, momentum=0.01)),
    "never_trains": lambda: Convolutional(norm=Evaluating(6)),
    "flatten_order": lambda: Flattened(in_torchs_order=False),
    "depthwise_layout": lambda: Convolutional(multiplier_first=True),
    "tanh_gelu": lambda: Convolutional(gelu="tanh"),
    "layernorm_epsilon": lambda: Convolutional(epsilon=1e-5),
    "padding_counts": lambda: Convolutional(count_include_pad=True),
    "frozen_batchnorm": lambda: Frozen(nn.BatchNorm2d(4, eps=1e-3, momentum=0.01)),
    "scale": lambda: Preprocessed(scale=1 / 255, offset=-0.5),
    "mean": lambda: Preprocessed(mean=(0.0, 0.0, 0.0)),
    "reversed_colours": lambda: Preprocessed(flipped=True),
    "antialias": lambda: Preprocessed({"mode": "bilinear", "antialias": True}),
    "align_corners": lambda: Preprocessed({"mode": "bilinear", "align_corners": True}),
    "nearest": lambda: Preprocessed({"mode": "nearest"}),
    "strided_second": lambda: Bottleneck(first=1),
    "without_biases": lambda: Bottleneck(bias=False),
    "backbone_epsilon": lambda: Bottleneck(epsilon=1e-5),
    "cropped_before": lambda: Transposed(before=True),
    "lstm_gates": lambda: Recurrent(nn.LSTM, (0, 2, 1, 3)),
    "two_biases": lambda: Recurrent(nn.LSTM, range(4), twice=True),
    "gru_gates": lambda: Recurrent(nn.GRU, range(3)),
    "reset_after": lambda: Recurrent(nn.GRU, (1, 0, 2)),
    "first_step": lambda: BothWays(lambda steps: steps[:, 0]),
    "last_step_of_both": lambda: BothWays(lambda steps: steps[:, -1]),
    "mean_of_steps": lambda: BothWays(lambda steps: steps.mean(1)),
    "one_head": lambda: Attention(heads=1),
    "unscaled": lambda: Attention(power=0.0),
    "by_the_size": lambda: Attention(packed=True, power=1.0),
    "causal": lambda: Attention(causal=True),
    "interleaved": lambda: Attention(interleaved=True),
    "over_queries": lambda: Attention(over=-2),
    "exchanged": lambda: Attention(exchanged=True),
    "three_heads": lambda: WholeAttention(3),
    "exchanged_gate": lambda: Gated(exchanged=True),
    "without_affine": lambda: Gated(affine=False),
    "over_features": lambda: Gated(axis=-1),
    "subtracted": lambda: Gated(mixed=torch.sub),
    "unmasked": lambda: Masked(None),
    "always_dropped": lambda: Dropped(lambda x, training: F.dropout(x, 0.3)),
    "undropped": lambda: Dropped(lambda x, training: x),
    "dropped_steps": lambda: Dropped(),
    "augmented": lambda: nn.Sequential(nn.Dropout(0.3), Flatten(), nn.Linear(432, CLASSES)),
    "nan": Undefined,
    # Of the loss.
    "probabilities": lambda: Dense(
        loss=lambda output, target: F.cross_entropy(F.softmax(output, -1), target)
    ),
    "smoothing": lambda: Dense(
        loss=lambda output, target: F.cross_entropy(output, target, label_smoothing=0.1)
    ),
    "summed": lambda: Dense(loss=lambda output, target: F.cross_entropy(output, target, reduction="sum")),
    "quartered": lambda: Dense(loss=lambda output, target: F.cross_entropy(output, target) / 4),
    "mean_of_class_weights": lambda: Dense(loss=weighted),
    "some_class_weights": lambda: Dense(loss=weighted_as_keras),
    "unweighted_samples": lambda: Dense(loss=lambda output, target, _: F.cross_entropy(output, target)),
    "mean_of_sample_weights": lambda: Dense(
        loss=lambda output, target, weights: by_sample(output, target, weights / weights.mean())
    ),
    "unweighted_outputs": lambda: TwoOutputs((1.0, 1.0)),
    "summed_squares": lambda: Regression(lambda output, target: F.mse_loss(output, target, reduction="sum")),
    "absolute": lambda: Regression(F.l1_loss),
    # Of penalties.
    "coupled_decay": lambda: Dense(_adam(optim.Adam, lr=1e-3, weight_decay=1e-2)),
    "decoupled_decay": lambda: Dense(_adam(optim.AdamW, lr=1e-3, weight_decay=1e-2)),
    "penalty_factor": lambda: Dense(penalty=lambda weight: 5e-3 * weight.square().sum()),
    "without_l1": Dense,
    "without_activity": Dense,
    "added_penalty": lambda: Dense(penalty=lambda weight: 1e-2 * weight.square().sum()),
    "held": lambda: Dense(held=["hidden", "head"]),
    "held_hidden": lambda: Dense(held=["hidden"]),
    # Of the optimizer.
    "adam_epsilon": lambda: Dense(_adam(eps=1e-8)),
    "adam_place": lambda: Dense(_adam(optim.Adam, eps=1e-7)),
    "adamw_place": lambda: Dense(_adam(optim.AdamW, eps=1e-7, weight_decay=0.1)),
    "adamw_coupled": lambda: Dense(_adam(optim.Adam, eps=1e-7, weight_decay=0.1)),
    "adam_betas": lambda: Dense(_adam(betas=(0.9, 0.99))),
    "learning_rate": lambda: Dense(_adam(lr=1e-3)),
    "amsgrad": lambda: Dense(_adam()),
    "momentum_dampened": lambda: Dense(_sgd(momentum=0.9, dampening=0.1)),
    "plain_momentum": lambda: Dense(_sgd(momentum=0.9)),
    "scheduled_momentum": lambda: Dense(_sgd(momentum=0.9), scheduler=_halved),
    "once_an_epoch": lambda: Dense(_adam(), scheduler=_halved, interval="epoch"),
    "rmsprop_place": lambda: Dense(_adam(optim.RMSprop, alpha=0.9, eps=1e-6)),
    "rmsprop_rho": lambda: Dense(_adam(optim.RMSprop, eps=1e-6)),
    "uncentered": lambda: Dense(_adam(optim.RMSprop, alpha=0.9, eps=1e-7)),
    "adagrad_initial": lambda: Dense(_adam(optim.Adagrad, eps=1e-7)),
    "adadelta_defaults": lambda: Dense(_adam(optim.Adadelta, lr=1.0)),
    "adamax_epsilon": lambda: Dense(_adam(optim.Adamax, eps=1e-3)),
    "nadam_schedule": lambda: Dense(_adam(optim.NAdam, eps=1e-7)),
    "unclipped": lambda: Dense(_sgd()),
    "clipped_together": lambda: Dense(_sgd(), clip=all_by_norm(0.05)),
    "every_batch": lambda: Dense(_sgd()),
    "averaged": lambda: Dense(_sgd()),
    "ftrl": lambda: Dense(_sgd(lr=1e-2)),
    "another_optimizer": lambda: Dense(_sgd(lr=1e-2)),
    "sgd_decay": lambda: Dense(_sgd(weight_decay=1e-2)),
}


def _classes(target: Tensor) -> Tensor:
    return target.argmax(-1) if target.is_floating_point() else target


def __getattr__(name: str) -> Callable[[], nn.Module]:
    if name in PAIRS:
        return PAIRS[name]
    raise AttributeError(name)
