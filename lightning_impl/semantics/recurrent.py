"""Recurrent layers as Keras has them, over torch's: what they give, their masks, dropout and activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda input: input,
    "hard_sigmoid": F.hardsigmoid,
    **{name: getattr(F, name) for name in ("tanh", "sigmoid", "relu", "elu", "selu", "softplus", "softsign")},
    "silu": F.silu,
}
Outputs = tuple[Tensor, list[Tensor]]  # of every step (N, T, units), and the states after the last


def _linear(input: Tensor, kernel: Tensor, bias: Tensor | None, masks: Sequence[Tensor] | None) -> Tensor:
    """F.linear, its input dropped by a mask for each gate where there are masks."""
    if masks is None:
        return F.linear(input, kernel, bias)
    parts = zip(masks, kernel.chunk(len(masks)), strict=True)
    output = torch.cat([F.linear(input * mask, part) for mask, part in parts], dim=-1)
    return output if bias is None else output + bias


class _Recurrent(nn.Module):
    """A recurrent layer of Keras's, its weights in torch's layer of the same cell.

    With anything that torch's layer has not (a mask, recurrent dropout, other activations, a GRU's reset
    before), the steps are taken here.
    """

    cell: type[nn.LSTM] | type[nn.GRU] | type[nn.RNN]

    def __init__(
        self,
        features: int,
        units: int,
        return_sequences: bool = False,
        return_state: bool = False,
        bias: bool = True,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        go_backwards: bool = False,
        activation: str = "tanh",
        recurrent_activation: str = "sigmoid",
        reset_after: bool = True,
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        self.layer = self.cell(features, units, bias=bias, batch_first=True, bidirectional=bidirectional)
        self.sequences, self.state = return_sequences, return_state
        self.dropout, self.recurrent_dropout = dropout, recurrent_dropout
        self.go_backwards, self.reset_after = go_backwards, reset_after
        self.activation, self.recurrent_activation = activation, recurrent_activation
        if self.cell is not nn.GRU or not reset_after:
            for name, parameter in self.layer.named_parameters():
                if "bias_hh" in name:  # Keras has one bias, and two would learn twice as fast
                    nn.init.zeros_(parameter).requires_grad_(False)

    @property
    def gates(self) -> int:
        return {nn.LSTM: 4, nn.GRU: 3}.get(self.cell, 1)

    @property
    def steps_as_torch(self) -> bool:
        """True where torch's own layer takes the same steps, but for masks."""
        usual = self.activation == "tanh" and self.recurrent_activation == "sigmoid" and self.reset_after
        return usual and not (self.recurrent_dropout and self.training)

    def forward(self, input: Tensor, mask: Tensor | None = None, state: Sequence[Tensor] = ()) -> Tensor:
        if self.go_backwards:
            input, mask = input.flip(1), mask if mask is None else mask.flip(1)
        outputs, states = self.run(input, mask, state)
        output = outputs if self.sequences else states[0]
        return (output, *states) if self.state else output  # type: ignore[return-value]

    def run(self, input: Tensor, mask: Tensor | None, state: Sequence[Tensor] = (), way: str = "") -> Outputs:
        """The outputs and states of one way, `""` or `"_reverse"`, over (N, T, features).

        mask: (N, T); where it is not set, states stay as they are. state: the first, zeros unless given.
        """
        dropped = self.recurrent_dropout if self.training else 0.0
        gates = self.gates if dropped else 1  # Keras draws for each gate then
        masks = None
        if self.dropout and self.training:  # the same features at every step
            masks = [F.dropout(torch.ones_like(input[:, :1]), self.dropout) for _ in range(gates)]
        if mask is None and self.steps_as_torch and not self.layer.bidirectional:
            return self._by_torch(input if masks is None else input * masks[0], state)
        weights = dict(self.layer.named_parameters())
        kernel, bias = weights[f"weight_ih_l0{way}"], weights.get(f"bias_ih_l0{way}")
        projected = _linear(input, kernel, bias, masks)
        kernel, bias = weights[f"weight_hh_l0{way}"], weights.get(f"bias_hh_l0{way}")
        zeros = input.new_zeros(input.shape[0], self.layer.hidden_size)
        states = list(state) or [zeros] * (2 if self.cell is nn.LSTM else 1)
        masks = [F.dropout(torch.ones_like(zeros), dropped) for _ in range(gates)] if dropped else None
        outputs = []
        for step, new in enumerate(projected.unbind(1)):
            after = self._step(new, states, kernel, bias, masks)
            if mask is not None:
                kept = mask[:, step, None].bool()
                after = [torch.where(kept, new, old) for new, old in zip(after, states, strict=True)]
            states = after
            outputs.append(states[0])
        return torch.stack(outputs, dim=1), states

    def _by_torch(self, input: Tensor, state: Sequence[Tensor]) -> Outputs:
        begin: Any = tuple(part[None] for part in state) or None
        outputs, end = self.layer(input, begin if self.cell is nn.LSTM or begin is None else begin[0])
        return outputs, [part[0] for part in (end if isinstance(end, tuple) else (end,))]

    def _step(
        self,
        new: Tensor,
        states: list[Tensor],
        kernel: Tensor,
        bias: Tensor | None,
        masks: Sequence[Tensor] | None,
    ) -> list[Tensor]:
        """The states (N, units) after one step, `new` being its input times the kernel."""
        act, gate = ACTIVATIONS[self.activation], ACTIVATIONS[self.recurrent_activation]
        hidden = states[0]
        if self.cell is nn.GRU and not self.reset_after:
            r, z, n = new.chunk(3, dim=-1)
            mask_r, mask_z, mask_n = masks or (1, 1, 1)
            kernel_r, kernel_z, kernel_n = kernel.chunk(3)
            reset = gate(r + F.linear(hidden * mask_r, kernel_r))
            update = gate(z + F.linear(hidden * mask_z, kernel_z))
            candidate = act(n + F.linear(reset * hidden * mask_n, kernel_n))
            return [(1 - update) * candidate + update * hidden]
        recurrent = _linear(hidden, kernel, bias, masks)
        if self.cell is nn.GRU:
            (r, z, n), (hr, hz, hn) = new.chunk(3, dim=-1), recurrent.chunk(3, dim=-1)
            update = gate(z + hz)
            return [(1 - update) * act(n + gate(r + hr) * hn) + update * hidden]
        if self.cell is nn.LSTM:
            i, f, g, o = (new + recurrent).chunk(4, dim=-1)
            carry = gate(f) * states[1] + gate(i) * act(g)
            return [gate(o) * act(carry), carry]
        return [act(new + recurrent)]


class LSTM(_Recurrent):
    """Keras's LSTM: (N, T, features) -> (N, units) of the last step, or of all with `return_sequences`.

    return_state: gives the last output and the last cell as well. Gates stand in torch's order, which is
    Keras's. A mask (N, T) says which steps are there; `state` is what the first step begins with.
    """

    cell = nn.LSTM


class SimpleRNN(_Recurrent):
    """Keras's SimpleRNN; arguments and outputs are those of LSTM."""

    cell = nn.RNN


class GRU(_Recurrent):
    """Keras's GRU; arguments and outputs are those of LSTM.

    reset_after: Keras's default, and torch's only form; without it the state is reset before it is
    multiplied, and there is one bias.
    """

    cell = nn.GRU


class _Bidirectional(_Recurrent):
    """Keras's Bidirectional: (N, T, features) -> (N, 2 * units), or (N, T, 2 * units).

    merge_mode: concat, sum, ave or mul of the two directions. The other arguments are those of LSTM.
    """

    def __init__(
        self, features: int, units: int, merge_mode: str = "concat", **settings: bool | float
    ) -> None:
        super().__init__(features, units, bidirectional=True, **settings)  # type: ignore[arg-type]
        self.merge_mode = merge_mode

    def forward(self, input: Tensor, mask: Tensor | None = None, state: Sequence[Tensor] = ()) -> Tensor:
        if mask is None and self.steps_as_torch and not (self.dropout and self.training):
            outputs, states = self.layer(input)
            forward, backward = outputs.chunk(2, dim=-1)
            ahead, behind = states[0] if isinstance(states, tuple) else states
        else:
            forward, (ahead, *_) = self.run(input, mask)
            backward, (behind, *_) = self.run(
                input.flip(1), None if mask is None else mask.flip(1), way="_reverse"
            )
            backward = backward.flip(1)
        if not self.sequences:
            return self._merged(ahead, behind)
        if mask is not None:  # Keras gives zeros there, in both directions
            forward, backward = forward * mask[..., None], backward * mask[..., None]
        return self._merged(forward, backward)

    def _merged(self, forward: Tensor, backward: Tensor) -> Tensor:
        if self.merge_mode == "concat":
            return torch.cat([forward, backward], dim=-1)
        if self.merge_mode == "mul":
            return forward * backward
        return (forward + backward) / (2 if self.merge_mode == "ave" else 1)


class BidirectionalLSTM(_Bidirectional):
    """Keras's Bidirectional(LSTM); merge_mode is one of concat, sum, ave and mul."""

    cell = nn.LSTM


class BidirectionalSimpleRNN(_Bidirectional):
    """Keras's Bidirectional(SimpleRNN); merge_mode is one of concat, sum, ave and mul."""

    cell = nn.RNN


class BidirectionalGRU(_Bidirectional):
    """Keras's Bidirectional(GRU); merge_mode is one of concat, sum, ave and mul."""

    cell = nn.GRU
