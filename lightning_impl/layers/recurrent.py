"""Recurrent layers."""

from __future__ import annotations

from typing import Any

from experiment.protocols.graph import Layer
from lightning_impl.layers.layer_type import LayerType
from lightning_impl.layers.source import CallOf, Module, Piece, SourceRule, Untranslatable, without

TABLE: tuple[LayerType, ...] = ()


# === Source ===


def _source(layer: Layer, call: CallOf) -> list[Piece]:
    _plain_call(call)
    return [Module(layer.kind, _arguments(layer.kind, layer.settings, call))]


def _arguments(kind: str, settings: dict[str, Any], call: CallOf) -> dict[str, Any]:
    expected = {"activation": "tanh"} | ({} if kind == "SimpleRNN" else {"recurrent_activation": "sigmoid"})
    for name, usual in expected.items():
        if settings[name] != usual:
            raise Untranslatable(f"its {name} is {settings[name]}: torch's is {usual}")
    if settings.get("recurrent_dropout"):
        raise Untranslatable("recurrent_dropout has no counterpart in torch")
    if settings.get("stateful"):
        raise Untranslatable("it is stateful: torch's begin each batch anew")
    if held := [key for key, value in settings.items() if key.endswith("_constraint") and value]:
        raise Untranslatable(f"it has a {held[0]}")
    args = {"*features": call.input.channels, "*units": settings["units"]}
    args |= without(
        {
            "return_sequences": False,
            "return_state": False,
            "bias": True,
            "dropout": 0.0,
            "go_backwards": False,
        },
        return_sequences=settings["return_sequences"],
        return_state=settings["return_state"],
        bias=settings["use_bias"],
        dropout=float(settings["dropout"]),
        go_backwards=settings["go_backwards"],
    )
    if kind == "GRU":
        args |= without({"reset_after": True}, reset_after=settings["reset_after"])
    return args


def _plain_call(call: CallOf) -> None:
    if len(call.inputs) > 1 or set(call.kwargs) - {"training", "mask"}:
        raise Untranslatable("it is given an initial state, or a mask")


def _bidirectional(layer: Layer, call: CallOf) -> list[Piece]:
    _plain_call(call)
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
    if args.pop("return_state", False) or args.get("reset_after") is False:
        raise Untranslatable("it returns its state, or is a GRU with reset_after=False")
    args |= without({"merge_mode": "concat"}, merge_mode=settings["merge_mode"])
    return [Module(f"Bidirectional{kind}", args)]


def _time_distributed(layer: Layer, call: CallOf) -> list[Piece]:
    raise Untranslatable("it applies a layer to each step of time: put the layer itself there, Dense does so")


SOURCES = {
    **{kind: SourceRule(_source, "last") for kind in ("LSTM", "GRU", "SimpleRNN")},
    "Bidirectional": SourceRule(_bidirectional, "last"),
    "TimeDistributed": SourceRule(_time_distributed, "last"),
}
