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


class LSTM(nn.Module):
    """Keras's LSTM: (N, T, features) -> (N, units) of the last step, or of all with `return_sequences`.

    return_state: gives the last output and the last cell as well. Gates stand in torch's order, which is
    Keras's.
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

    def forward(self, input: Tensor) -> Any:
        outputs, (last, cell) = self.lstm(_prepared(self, input, self.input_dropout, self.go_backwards))
        given = outputs if self.sequences else last[0]
        return (given, last[0], cell[0]) if self.state else given


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

    def forward(self, input: Tensor) -> Any:
        outputs, last = self.rnn(_prepared(self, input, self.input_dropout, self.go_backwards))
        given = outputs if self.sequences else last[0]
        return (given, last[0]) if self.state else given


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

    def forward(self, input: Tensor) -> Any:
        input = _prepared(self, input, self.input_dropout, self.go_backwards)
        if self.reset_after:
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


def _both(module: Any, outputs: Tensor, last: Tensor) -> Tensor:
    """What Keras's Bidirectional gives: every step of both directions, or the last of each."""
    if not module.sequences:
        return _merged(last[0], last[1], module.merge_mode)
    forward, backward = outputs.chunk(2, dim=-1)
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

    def forward(self, input: Tensor) -> Tensor:
        outputs, (last, _) = self.lstm(_prepared(self, input, self.input_dropout, False))
        return _both(self, outputs, last)


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

    def forward(self, input: Tensor) -> Tensor:
        outputs, last = self.rnn(_prepared(self, input, self.input_dropout, False))
        return _both(self, outputs, last)


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

    def forward(self, input: Tensor) -> Tensor:
        outputs, last = self.gru(_prepared(self, input, self.input_dropout, False))
        return _both(self, outputs, last)
