"""Recurrent layers as Keras has them: what they give, one bias where torch has two, and GRU's other form."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _prepared(module: Any, input: Tensor, dropout: float, go_backwards: bool) -> Tensor:
    """A sequence (N, T, F) as a layer runs through it: Keras drops the same features at every step."""
    if dropout and module.training:
        input = input * F.dropout(torch.ones_like(input[:, :1]), dropout)
    return input.flip(1) if go_backwards else input


def _one_bias(module: Any) -> None:
    """Hold torch's second bias at zero: Keras has one, and two would learn twice as fast."""
    for name, parameter in module.named_parameters():
        if "bias_hh" in name:
            nn.init.zeros_(parameter).requires_grad_(False)


Parts = tuple[Tensor, Tensor | None]  # the recurrent kernel and torch's second bias


def _lstm_step(parts: Parts, new: Tensor, states: list[Tensor]) -> list[Tensor]:
    kernel, bias = parts
    i, f, g, o = (new + F.linear(states[0], kernel, bias)).chunk(4, dim=-1)
    cell = torch.sigmoid(f) * states[1] + torch.sigmoid(i) * torch.tanh(g)
    return [torch.sigmoid(o) * torch.tanh(cell), cell]


def _gru_step(parts: Parts, new: Tensor, states: list[Tensor]) -> list[Tensor]:
    kernel, bias = parts
    (r, z, n), (hr, hz, hn) = (x.chunk(3, dim=-1) for x in (new, F.linear(states[0], kernel, bias)))
    update = torch.sigmoid(z + hz)
    return [(1 - update) * torch.tanh(n + torch.sigmoid(r + hr) * hn) + update * states[0]]


def _rnn_step(parts: Parts, new: Tensor, states: list[Tensor]) -> list[Tensor]:
    kernel, bias = parts
    return [torch.tanh(new + F.linear(states[0], kernel, bias))]


STEPS = {"LSTM": _lstm_step, "GRU": _gru_step, "RNN_TANH": _rnn_step}


def _masked(layer: Any, input: Tensor, mask: Tensor, suffix: str = "") -> tuple[Tensor, list[Tensor]]:
    """The outputs and the last states of a layer that keeps its state over steps where `mask` (N, T) is not
    set, as Keras does.
    """
    held = dict(layer.named_parameters())
    kernels = [held[f"weight_{part}_l0{suffix}"] for part in ("ih", "hh")]
    biases = [held.get(f"bias_{part}_l0{suffix}") for part in ("ih", "hh")]
    zeros, outputs = input.new_zeros(input.shape[0], layer.hidden_size), []
    states = [zeros] * (2 if layer.mode == "LSTM" else 1)
    projected = F.linear(input, kernels[0], biases[0])
    for step, kept in zip(projected.unbind(1), mask.bool().unbind(1), strict=True):
        new = STEPS[layer.mode]((kernels[1], biases[1]), step, states)
        states = [torch.where(kept[:, None], one, other) for one, other in zip(new, states, strict=True)]
        outputs.append(states[0])
    return torch.stack(outputs, dim=1), states


class LSTM(nn.Module):
    """Keras's LSTM: (N, T, features) -> (N, units) of the last step, or of all with `return_sequences`.

    return_state: gives the last output and the last cell as well. Gates stand in torch's order, which is
    Keras's. A mask (N, T) says which steps are there.
    """

    def __init__(
        self,
        features: int,
        units: int,
        return_sequences: bool = False,
        return_state: bool = False,
        bias: bool = True,
        dropout: float = 0.0,
        go_backwards: bool = False,
    ) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, units, bias=bias, batch_first=True)
        self.sequences, self.state = return_sequences, return_state
        self.input_dropout, self.go_backwards = dropout, go_backwards
        _one_bias(self)

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Any:
        input = _prepared(self, input, self.input_dropout, self.go_backwards)
        if mask is None:
            outputs, (states, cells) = self.lstm(input)
            last, cell = states[0], cells[0]
        else:
            outputs, (last, cell) = _masked(self.lstm, input, mask.flip(1) if self.go_backwards else mask)
        given = outputs if self.sequences else last
        return (given, last, cell) if self.state else given


class SimpleRNN(nn.Module):
    """Keras's SimpleRNN with tanh; arguments and outputs are those of LSTM."""

    def __init__(
        self,
        features: int,
        units: int,
        return_sequences: bool = False,
        return_state: bool = False,
        bias: bool = True,
        dropout: float = 0.0,
        go_backwards: bool = False,
    ) -> None:
        super().__init__()
        self.rnn = nn.RNN(features, units, bias=bias, batch_first=True)
        self.sequences, self.state = return_sequences, return_state
        self.input_dropout, self.go_backwards = dropout, go_backwards
        _one_bias(self)

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Any:
        input = _prepared(self, input, self.input_dropout, self.go_backwards)
        if mask is None:
            outputs, states = self.rnn(input)
            last = states[0]
        else:
            outputs, (last,) = _masked(self.rnn, input, mask.flip(1) if self.go_backwards else mask)
        given = outputs if self.sequences else last
        return (given, last) if self.state else given


class GRU(nn.Module):
    """Keras's GRU; arguments and outputs are those of LSTM.

    reset_after: Keras's default, and torch's only form; without it the state is reset before it is
    multiplied, step by step, and there is one bias.
    """

    def __init__(
        self,
        features: int,
        units: int,
        return_sequences: bool = False,
        return_state: bool = False,
        bias: bool = True,
        dropout: float = 0.0,
        go_backwards: bool = False,
        reset_after: bool = True,
    ) -> None:
        super().__init__()
        self.gru = nn.GRU(features, units, bias=bias, batch_first=True)
        self.sequences, self.state, self.reset_after = return_sequences, return_state, reset_after
        self.input_dropout, self.go_backwards = dropout, go_backwards
        if not reset_after:
            _one_bias(self)

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Any:
        input = _prepared(self, input, self.input_dropout, self.go_backwards)
        if mask is not None:
            outputs, (last,) = _masked(self.gru, input, mask.flip(1) if self.go_backwards else mask)
        elif self.reset_after:
            outputs, states = self.gru(input)
            last = states[0]
        else:
            outputs = self._reset_before(input)
            last = outputs[:, -1]
        given = outputs if self.sequences else last
        return (given, last) if self.state else given

    def _reset_before(self, input: Tensor) -> Tensor:
        weights = dict(self.gru.named_parameters())
        projected = F.linear(input, weights["weight_ih_l0"], weights.get("bias_ih_l0"))
        kernels = weights["weight_hh_l0"].chunk(3)
        state, outputs = input.new_zeros(input.shape[0], self.gru.hidden_size), []
        for step in projected.unbind(1):
            r, z, n = step.chunk(3, dim=-1)
            reset = torch.sigmoid(r + state @ kernels[0].T)
            update = torch.sigmoid(z + state @ kernels[1].T)
            new = torch.tanh(n + (reset * state) @ kernels[2].T)
            state = (1 - update) * new + update * state
            outputs.append(state)
        return torch.stack(outputs, dim=1)


def _merged(forward: Tensor, backward: Tensor, mode: str) -> Tensor:
    if mode == "concat":
        return torch.cat([forward, backward], dim=-1)
    if mode == "mul":
        return forward * backward
    return (forward + backward) / (2 if mode == "ave" else 1)


def _both(module: Any, layer: Any, input: Tensor, mask: Tensor | None) -> Tensor:
    """What Keras's Bidirectional gives: every step of both directions, or the last of each."""
    input = _prepared(module, input, module.input_dropout, False)
    if mask is None:
        outputs, states = layer(input)
        last = states[0] if isinstance(states, tuple) else states
        forward, backward = outputs.chunk(2, dim=-1)
    else:
        forward, one = _masked(layer, input, mask)
        backward, other = _masked(layer, input.flip(1), mask.flip(1), "_reverse")
        backward, last = backward.flip(1), (one[0], other[0])
    if not module.sequences:
        return _merged(last[0], last[1], module.merge_mode)
    if mask is not None:  # Keras gives zeros there, in both directions
        forward, backward = (outputs * mask[..., None] for outputs in (forward, backward))
    return _merged(forward, backward, module.merge_mode)


class BidirectionalLSTM(nn.Module):
    """Keras's Bidirectional(LSTM): (N, T, features) -> (N, 2 * units), or (N, T, 2 * units).

    merge_mode: concat, sum, ave or mul of the two directions.
    """

    def __init__(
        self,
        features: int,
        units: int,
        return_sequences: bool = False,
        bias: bool = True,
        dropout: float = 0.0,
        merge_mode: str = "concat",
    ) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, units, bias=bias, batch_first=True, bidirectional=True)
        self.sequences, self.merge_mode, self.input_dropout = return_sequences, merge_mode, dropout
        _one_bias(self)

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        return _both(self, self.lstm, input, mask)


class BidirectionalSimpleRNN(nn.Module):
    """Keras's Bidirectional(SimpleRNN); as BidirectionalLSTM."""

    def __init__(
        self,
        features: int,
        units: int,
        return_sequences: bool = False,
        bias: bool = True,
        dropout: float = 0.0,
        merge_mode: str = "concat",
    ) -> None:
        super().__init__()
        self.rnn = nn.RNN(features, units, bias=bias, batch_first=True, bidirectional=True)
        self.sequences, self.merge_mode, self.input_dropout = return_sequences, merge_mode, dropout
        _one_bias(self)

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        return _both(self, self.rnn, input, mask)


class BidirectionalGRU(nn.Module):
    """Keras's Bidirectional(GRU), which resets after; as BidirectionalLSTM."""

    def __init__(
        self,
        features: int,
        units: int,
        return_sequences: bool = False,
        bias: bool = True,
        dropout: float = 0.0,
        merge_mode: str = "concat",
    ) -> None:
        super().__init__()
        self.gru = nn.GRU(features, units, bias=bias, batch_first=True, bidirectional=True)
        self.sequences, self.merge_mode, self.input_dropout = return_sequences, merge_mode, dropout

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        return _both(self, self.gru, input, mask)
