"""Layers that torch has no module for, or one that behaves otherwise: as Keras has them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ChannelsFirst(nn.Module):
    """(N, ..., C) -> (N, C, ...)."""

    def forward(self, input: Tensor) -> Tensor:
        return input.movedim(-1, 1)


class ChannelsLast(nn.Module):
    """(N, C, ...) -> (N, ..., C)."""

    def forward(self, input: Tensor) -> Tensor:
        return input.movedim(1, -1)


class ToIds(nn.Module):
    """Token numbers that come as floats, as whole numbers."""

    def forward(self, input: Tensor) -> Tensor:
        return input.long()


class Constant(nn.Module):
    """Gives numbers that the Keras model holds and does not train."""

    value: Tensor

    def __init__(self, shape: Sequence[int], dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.register_buffer("value", torch.zeros(tuple(shape), dtype=dtype))

    def forward(self) -> Tensor:
        return self.value


class StepsAsRows(nn.Module):
    """(N, T, ...) -> (N * T, ...); channels_first: each step's channels are put first."""

    def __init__(self, channels_first: bool = False) -> None:
        super().__init__()
        self.channels_first = channels_first

    def forward(self, input: Tensor) -> Tensor:
        rows = input.flatten(0, 1)
        return rows.movedim(-1, 1) if self.channels_first else rows


class RowsAsSteps(nn.Module):
    """(N * T, ...) -> (N, T, ...); channels_first: each row has its channels first, and then last."""

    def __init__(self, steps: int, channels_first: bool = False) -> None:
        super().__init__()
        self.steps, self.channels_first = steps, channels_first

    def forward(self, input: Tensor) -> Tensor:
        rows = input.movedim(1, -1) if self.channels_first else input
        return rows.unflatten(0, (-1, self.steps))


class ActivityPenalty(nn.Module):
    """Passes its input on, and keeps what Keras's activity regularizer makes of it: a mean over samples."""

    def __init__(self, l1: float = 0.0, l2: float = 0.0) -> None:
        super().__init__()
        self.l1, self.l2 = l1, l2
        self.value: Tensor | None = None

    def forward(self, input: Tensor) -> Tensor:
        self.value = (self.l1 * input.abs().sum() + self.l2 * input.square().sum()) / len(input)
        return input


class Reshape(nn.Module):
    """(N, ...) -> (N, *sizes)."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes = tuple(sizes)

    def forward(self, input: Tensor) -> Tensor:
        return input.reshape(input.shape[0], *self.sizes)


class Permute(nn.Module):
    """The axes in another order, the batch's among them."""

    def __init__(self, dims: Sequence[int]) -> None:
        super().__init__()
        self.dims = tuple(dims)

    def forward(self, input: Tensor) -> Tensor:
        return input.permute(self.dims)


class RepeatVector(nn.Module):
    """(N, F) -> (N, count, F)."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, input: Tensor) -> Tensor:
        return input[:, None].repeat(1, self.count, 1)


class Exponential(nn.Module):
    """e to the power of each element."""

    def forward(self, input: Tensor) -> Tensor:
        return input.exp()


class Squareplus(nn.Module):
    """(x + sqrt(x^2 + 4)) / 2."""

    def forward(self, input: Tensor) -> Tensor:
        return (input + (input.square() + 4).sqrt()) / 2


class SamePad(nn.Module):
    """Keras's `same` padding for images of any size: what a stride of theirs needs, the odd pixel behind.

    reach: pixels that a kernel spans along each axis, or along all; stride: as reach; value: what is padded.
    """

    def __init__(
        self, reach: int | tuple[int, ...], stride: int | tuple[int, ...], value: float = 0.0
    ) -> None:
        super().__init__()
        self.reach, self.stride, self.value = reach, stride, value

    def forward(self, input: Tensor) -> Tensor:
        dims = input.dim() - 2
        reach = self.reach if isinstance(self.reach, tuple) else (self.reach,) * dims
        stride = self.stride if isinstance(self.stride, tuple) else (self.stride,) * dims
        padding: list[int] = []
        for size, span, step in zip(input.shape[2:], reach, stride, strict=True):
            total = max((-(-size // step) - 1) * step + span - size, 0)
            padding = [total // 2, total - total // 2, *padding]
        return F.pad(input, padding, value=self.value)


class SameAveragePool(nn.Module):
    """Keras's average pooling with `same` padding: the mean of the pixels that are there.

    (N, C, ...) with one to three axes of space, of each of which `pool_size` and `stride` have a number.
    """

    def __init__(self, pool_size: tuple[int, ...], stride: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.pool_size, self.stride = pool_size, pool_size if stride is None else stride
        self.pad = SamePad(self.pool_size, self.stride)

    def forward(self, input: Tensor) -> Tensor:
        pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[input.dim() - 3]
        there = self.pad(torch.ones_like(input[:1, :1]))
        return pool(self.pad(input), self.pool_size, self.stride) / pool(there, self.pool_size, self.stride)


class GlobalAveragePooling(nn.Module):
    """The mean over the axes of space: `dim`, one or several."""

    def __init__(self, dim: int | tuple[int, ...], keepdim: bool = False) -> None:
        super().__init__()
        self.dim, self.keepdim = dim, keepdim

    def forward(self, input: Tensor) -> Tensor:
        return input.mean(self.dim, keepdim=self.keepdim)


class GlobalMaxPooling(nn.Module):
    """The largest over the axes of space: `dim`, one or several."""

    def __init__(self, dim: int | tuple[int, ...], keepdim: bool = False) -> None:
        super().__init__()
        self.dim, self.keepdim = dim, keepdim

    def forward(self, input: Tensor) -> Tensor:
        return input.amax(self.dim, keepdim=self.keepdim)


class Rescaling(nn.Module):
    """x * scale + offset, by one number each, or by one for each element along `axis`."""

    def __init__(
        self,
        scale: float | Sequence[float],
        offset: float | Sequence[float] = 0.0,
        axis: int = 1,
    ) -> None:
        super().__init__()
        self.scale, self.offset, self.axis = scale, offset, axis

    def forward(self, input: Tensor) -> Tensor:
        return input * self._along(self.scale, input) + self._along(self.offset, input)

    def _along(self, values: float | Sequence[float], input: Tensor) -> float | Tensor:
        if isinstance(values, int | float):
            return values
        shape = [-1 if axis == self.axis else 1 for axis in range(input.dim())]
        return torch.tensor(values, dtype=input.dtype, device=input.device).view(shape)


class Normalization(nn.Module):
    """(x - mean) / sqrt(variance), by one number each or by one for each element along `axis`.

    invert: x * sqrt(variance) + mean. Keras's statistics are no weights, and here are no entries of a state
    dict either.
    """

    mean: Tensor
    variance: Tensor

    def __init__(
        self, mean: Sequence[float], variance: Sequence[float], axis: int = 1, invert: bool = False
    ) -> None:
        super().__init__()
        self.axis, self.invert = axis, invert
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("variance", torch.tensor(variance), persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        shape = [-1 if axis == self.axis else 1 for axis in range(input.dim())]
        mean = self.mean.to(input.dtype).view(shape)
        deviation = self.variance.to(input.dtype).view(shape).sqrt().clamp(min=1e-7)
        return input * deviation + mean if self.invert else (input - mean) / deviation


class UnitNormalization(nn.Module):
    """Vectors along `dim` at length one; Keras adds no epsilon to the length but floors its square."""

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return input * input.square().sum(self.dim, keepdim=True).clamp(min=1e-12).rsqrt()


class LayerScale(nn.Module):
    """A factor for each feature of the last axis."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))

    def forward(self, input: Tensor) -> Tensor:
        return input * self.gamma


class DropPath(nn.Module):
    """Stochastic depth: in training, whole samples are dropped and the others scaled up."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return input
        kept = torch.rand(input.shape[0], *[1] * (input.dim() - 1), device=input.device) >= self.rate
        return input * kept / (1 - self.rate)


class GaussianNoise(nn.Module):
    """In training, noise of a standard deviation is added."""

    def __init__(self, stddev: float) -> None:
        super().__init__()
        self.stddev = stddev

    def forward(self, input: Tensor) -> Tensor:
        return input + self.stddev * torch.randn_like(input) if self.training else input


class GaussianDropout(nn.Module):
    """In training, each element is multiplied by noise around one, of a dropout's variance."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return input
        return input * (1 + (self.rate / (1 - self.rate)) ** 0.5 * torch.randn_like(input))


class MultiHeadAttention(nn.Module):
    """Keras's MultiHeadAttention for any size of key and value; weights are in its layout.

    (N, T, F), (N, S, F'), (N, S, F'') -> (N, T, outputs). features: F, F', F''. key_dim, value_dim: of a
    head. Masks say which steps are there: query_mask (N, T), value_mask and key_mask (N, S), attention_mask
    (N, T, S). A step that may attend to none gets zeros with dropout, the mean of all without: as in Keras.
    """

    def __init__(
        self,
        features: tuple[int, int, int],
        heads: int,
        key_dim: int,
        outputs: int,
        value_dim: int | None = None,
        dropout: float = 0.0,
        bias: bool = True,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.dropout, self.causal = dropout, causal
        width = key_dim if value_dim is None else value_dim
        sizes = {"query": key_dim, "key": key_dim, "value": width}
        for (name, size), given in zip(sizes.items(), features, strict=True):
            self.register_parameter(f"{name}_kernel", _drawn(given, heads, size))
            self.register_parameter(f"{name}_bias", _zeros(heads, size) if bias else None)
        self.output_kernel = _drawn(heads, width, outputs)
        self.output_bias = _zeros(outputs) if bias else None

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        query_mask: Tensor | None = None,
        value_mask: Tensor | None = None,
        key_mask: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        q, k, v = (self._heads(x, n) for x, n in ((query, "query"), (key, "key"), (value, "value")))
        masks = [None if query_mask is None else query_mask[..., None]]
        masks += [None if mask is None else mask[:, None] for mask in (value_mask, key_mask)]
        masks += [attention_mask, _causal(q, k) if self.causal else None]
        mask = None
        for part in (part.bool() for part in masks if part is not None):
            mask = part if mask is None else mask & part
        if mask is not None:
            mask = mask[:, None] if mask.ndim == 3 else mask
        if mask is None or self.dropout:
            dropout = self.dropout if self.training else 0.0
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        else:
            scores = q @ k.mT * q.shape[-1] ** -0.5
            mixed = torch.softmax(scores.masked_fill(~mask, -0.7 * torch.finfo(q.dtype).max), dim=-1) @ v
        outputs = torch.einsum("nhtk,hko->nto", mixed, self.output_kernel)
        return outputs if self.output_bias is None else outputs + self.output_bias

    def _heads(self, x: Tensor, name: str) -> Tensor:
        """(N, T, F) -> (N, heads, T, size)."""
        kernel, bias = getattr(self, f"{name}_kernel"), getattr(self, f"{name}_bias")
        projected = torch.einsum("ntf,fhk->nhtk", x, kernel)
        return projected if bias is None else projected + bias[:, None]


def _drawn(*shape: int) -> nn.Parameter:
    return nn.Parameter(nn.init.xavier_uniform_(torch.empty(shape)))


def _zeros(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


def _causal(query: Tensor, key: Tensor) -> Tensor:
    """(..., T, F), (..., S, F) -> (T, S): which steps are no later."""
    return torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()


class Attention(nn.Module):
    """Keras's dot-product Attention: (N, T, F), (N, S, F), (N, S, G) -> (N, T, G).

    scale: a learned factor of the scores. concat: score_mode="concat", scores by a tangent of query and key.
    query_mask (N, T): steps without it give zeros. value_mask (N, S): steps that can be attended to.
    """

    def __init__(
        self, scale: bool = False, concat: bool = False, dropout: float = 0.0, causal: bool = False
    ) -> None:
        super().__init__()
        self.dropout, self.causal = dropout, causal
        self.scale = nn.Parameter(torch.ones(())) if scale else None
        self.concat_score_weight = nn.Parameter(torch.ones(())) if concat else None

    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        scale = 1.0 if self.scale is None else self.scale
        if self.concat_score_weight is None:
            return scale * (query @ key.mT)
        return self.concat_score_weight * torch.tanh(scale * (query[:, :, None] + key[:, None])).sum(-1)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        query_mask: Tensor | None = None,
        value_mask: Tensor | None = None,
    ) -> Tensor:
        scores = self.scores(query, key)
        kept = None if value_mask is None else value_mask[:, None].bool()
        if self.causal:
            kept = _causal(query, key) if kept is None else kept & _causal(query, key)
        if kept is not None:
            scores = torch.where(kept, scores, scores - 1e9)
        output = F.dropout(torch.softmax(scores, dim=-1), self.dropout, self.training) @ value
        return output if query_mask is None else output * query_mask[..., None]


class AdditiveAttention(Attention):
    """Keras's AdditiveAttention; features: F, of a learned scale of each, or None for none."""

    def __init__(self, features: int | None, dropout: float = 0.0, causal: bool = False) -> None:
        super().__init__(dropout=dropout, causal=causal)
        if features is not None:
            self.scale = nn.Parameter(torch.ones(features))

    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        scale = 1.0 if self.scale is None else self.scale
        return (scale * torch.tanh(query[:, :, None] + key[:, None])).sum(-1)
