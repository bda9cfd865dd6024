"""Recurrent layers, one way and both ways, one on another.

What is compared is the last state, which a layer has whether all its steps are used or not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from experiment.protocols.graph import Layer
from lightning_impl.layers.layer_type import LayerType, Settings, Weight, Weights
from lightning_impl.layers.source import CallOf, Module, Piece, SourceRule, Untranslatable, without
from lightning_impl.semantics.recurrent import ACTIVATIONS

# Torch's places of Keras's gates: a GRU's are reset, update, new in torch and update, reset, new in Keras.
GATES = {"LSTM": (0, 1, 2, 3), "GRU": (1, 0, 2), "SimpleRNN": (0,)}


CELLS = {nn.LSTMCell: "LSTM", nn.GRUCell: "GRU", nn.RNNCell: "SimpleRNN"}


def _cell(layer: Any) -> str:
    if (cell := next((kind for cls, kind in CELLS.items() if isinstance(layer, cls)), None)) is not None:
        return cell
    return "SimpleRNN" if isinstance(layer, nn.RNN) else layer.mode


def _kind(layer: Any) -> str:
    return f"Bidirectional{_cell(layer)}" if layer.bidirectional else _cell(layer)


def _settings(layer: Any) -> Settings:
    settings: Settings = {"activation": getattr(layer, "nonlinearity", "tanh")}
    settings |= {"dropout": 0.0, "recurrent_dropout": 0.0}  # torch's own acts between layers on one another
    if _cell(layer) != "SimpleRNN":
        settings["recurrent_activation"] = "sigmoid"
    if _cell(layer) == "GRU":
        settings["reset_after"] = True
    return settings | ({"merge_mode": "concat"} if getattr(layer, "bidirectional", False) else {})


def _weights(layer: Any, number: int | None = None) -> Weights:
    """The weights of one of the layers that stand on another, the last unless told otherwise."""
    number = layer.num_layers - 1 if number is None else number
    if not layer.bidirectional:
        return _one_way(layer, "", f"_l{number}")
    return _one_way(layer, "forward_", f"_l{number}") | _one_way(layer, "backward_", f"_l{number}_reverse")


def _one_way(layer: Any, prefix: str = "", place: str = "") -> Weights:
    """The weights of a cell, or of a layer's at a place."""
    weights: Weights = {}
    gates = GATES[_cell(layer)]
    for name, tensor in (("kernel", "weight_ih"), ("recurrent_kernel", "weight_hh")):
        weights[f"{prefix}{name}"] = Weight(layer, (f"{tensor}{place}",), partial(_kernel, gates))
    if layer.bias:
        both = f"bias_ih{place}", f"bias_hh{place}"
        if _cell(layer) == "GRU":  # has Keras's two, its reset coming after
            weights[f"{prefix}bias"] = Weight(layer, both, partial(_biases, gates))
        else:
            weights[f"{prefix}bias"] = Weight(layer, both[:1], added=both[1:])
    return weights


def _kernel(gates: Sequence[int], kernel: Tensor) -> Tensor:
    return _ordered(gates, kernel).mT


def _biases(gates: Sequence[int], *biases: Tensor) -> Tensor:
    return torch.stack([_ordered(gates, bias) for bias in biases])


def _ordered(gates: Sequence[int], weight: Tensor) -> Tensor:
    parts = weight.chunk(len(gates))
    return torch.cat([parts[gate] for gate in gates])


def _last(layer: Any, output: Any) -> Tensor:
    """The last layer's state after the last step; of both ways, one after the other."""
    states = output[1][0] if isinstance(output[1], tuple) else output[1]
    return torch.cat([states[-2], states[-1]], -1) if layer.bidirectional else states[-1]


def _steps(layer: Any, output: Any) -> Tensor:
    """The last layer's outputs at every step, (N, T, F)."""
    return output[0] if layer.batch_first else output[0].transpose(0, 1)


def _held(layer: Any) -> Any:
    """Torch's layer in one that was written from Keras's."""
    return next(layer.children())


def _both_last(layer: Any, output: Tensor) -> Tensor:
    """Of a sequence, the last step forward and, of the other way, the first, where they stand apart."""
    if not layer.sequences or layer.merge_mode != "concat":
        return output
    forward, backward = output.chunk(2, dim=-1)
    return torch.cat([forward[:, -1], backward[:, 0]], dim=-1)


def _written_settings(layer: Any) -> Settings:
    settings = _settings(_held(layer))
    own = ("activation", "recurrent_activation", "reset_after", "merge_mode", "dropout", "recurrent_dropout")
    settings |= {name: getattr(layer, name) for name in own if name in settings}
    return settings | ({"go_backwards": True} if layer.go_backwards else {})


def _written_last(layer: Any, output: Any) -> Tensor:
    """The last state of a layer that gives what Keras's gives."""
    given = output[0] if isinstance(output, tuple) else output
    return given[:, -1] if layer.sequences else given


def _before(layer: Any) -> Mapping[str, LayerType]:
    def lower(number: int) -> Callable[[Any], Weights]:
        return lambda layer: _weights(layer, number)

    parts = {}
    for number in range(layer.num_layers - 1):
        parts[f"l{number}"] = LayerType(_kind, settings=_settings, weights=lower(number))
        if layer.dropout:
            parts[f"dropout{number}"] = LayerType("Dropout", settings=lambda layer: {"rate": layer.dropout})
    return parts


TABLE = (
    LayerType(
        _kind,
        (nn.RNN, nn.LSTM, nn.GRU),
        settings=_settings,
        weights=_weights,
        output=_last,
        steps=_steps,
        before=_before,
        channels=-1,
        random=True,
    ),
    # A cell that a loop calls at every step is a layer, whose state is that of the last call.
    LayerType(_cell, tuple(CELLS), settings=_settings, weights=_one_way, looped=True, channels=-1),
    *(
        LayerType(
            f"Bidirectional{cell}",
            named=(f"keras_semantics.Bidirectional{cell}",),
            settings=_written_settings,
            weights=lambda layer: _weights(_held(layer)),
            output=_both_last,
            channels=-1,
            random=True,
        )
        for cell in GATES
    ),
    *(
        LayerType(
            cell,
            named=(f"keras_semantics.{cell}",),
            settings=_written_settings,
            weights=lambda layer: _weights(_held(layer)),
            output=_written_last,
            channels=-1,
            random=True,
        )
        for cell in GATES
    ),
)


# === Source ===


def _source(layer: Layer, call: CallOf) -> list[Piece]:
    if "mask" in call.kwargs and layer.settings.get("zero_output_for_mask"):
        raise Untranslatable("it gives zeros where its mask is not set: leave zero_output_for_mask at False")
    return [Module(layer.kind, _arguments(layer.kind, layer.settings, call), call=_called(call))]


def _arguments(kind: str, settings: dict[str, Any], call: CallOf) -> dict[str, Any]:
    gate = {} if kind == "SimpleRNN" else {"recurrent_activation": settings["recurrent_activation"]}
    for name, activation in {"activation": settings["activation"], **gate}.items():
        if activation not in ACTIVATIONS:
            raise Untranslatable(f"its {name} is {activation}, not one of {', '.join(sorted(ACTIVATIONS))}")
    if settings.get("stateful"):
        raise Untranslatable("it is stateful: torch's begin each batch anew")
    if held := [key for key, value in settings.items() if key.endswith("_constraint") and value]:
        raise Untranslatable(f"it has a {held[0]}")
    args = {"*features": call.input.channels, "*units": settings["units"]}
    usual = {
        "return_sequences": False,
        "return_state": False,
        "bias": True,
        "dropout": 0.0,
        "recurrent_dropout": 0.0,
        "go_backwards": False,
        "activation": "tanh",
        "recurrent_activation": "sigmoid",
        "reset_after": True,
    }
    return args | without(
        usual,
        return_sequences=settings["return_sequences"],
        return_state=settings["return_state"],
        bias=settings["use_bias"],
        dropout=float(settings["dropout"]),
        recurrent_dropout=float(settings["recurrent_dropout"]),
        go_backwards=settings["go_backwards"],
        activation=settings["activation"],
        **gate,
        **({"reset_after": settings["reset_after"]} if kind == "GRU" else {}),
    )


def _called(call: CallOf) -> str:
    """The call of the module: with the mask and the first states that it is given."""
    state = call.args[1] if len(call.args) > 1 else call.kwargs.get("initial_state")
    if set(call.kwargs) - {"training", "mask", "initial_state"} or len(call.args) > 2:
        raise Untranslatable(f"it is called with {', '.join(sorted(set(call.kwargs)))}")
    arguments = [str(call.kwargs["mask"])] if "mask" in call.kwargs else []
    if state is not None:
        states = state if isinstance(state, list | tuple) else [state]
        arguments.append(f"{'' if arguments else 'state='}[{', '.join(map(str, states))}]")
    return f"{{m}}({{0}}, {', '.join(arguments)})" if arguments else ""


def _bidirectional(layer: Layer, call: CallOf) -> list[Piece]:
    called = _called(call)
    settings = layer.settings
    inner, backward = settings["layer"], settings.get("backward_layer")
    kind = inner["kind"]
    if kind not in ("LSTM", "GRU", "SimpleRNN"):
        raise Untranslatable(f"it runs a {kind} both ways")
    if backward is not None and {**backward["settings"], "go_backwards": False} != inner["settings"]:
        raise Untranslatable("its two layers differ")
    if settings["merge_mode"] not in ("concat", "sum", "ave", "mul"):
        raise Untranslatable("it gives both directions' outputs apart: merge_mode is None")
    args = _arguments(kind, inner["settings"], call)
    if args.pop("return_state", False):
        raise Untranslatable("it returns its state")
    if len(call.args) > 1 or "initial_state" in call.kwargs:
        raise Untranslatable("it is given an initial state")
    args |= without({"merge_mode": "concat"}, merge_mode=settings["merge_mode"])
    return [Module(f"Bidirectional{kind}", args, call=called)]


SOURCES = {
    **{kind: SourceRule(_source, "last") for kind in ("LSTM", "GRU", "SimpleRNN")},
    "Bidirectional": SourceRule(_bidirectional, "last"),
}
