"""Attention, with heads and without."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from experiment.protocols.graph import Layer
from lightning_impl.layers.layer_type import LayerType, Settings, Weight, Weights
from lightning_impl.layers.source import (
    CallOf,
    Expression,
    Module,
    Piece,
    SourceRule,
    Untranslatable,
    even,
    without,
)

PARTS = ("query", "key", "value")
MASKS = ("query_mask", "value_mask", "key_mask", "attention_mask")


def _settings(layer: Any) -> Settings:
    return {"num_heads": layer.num_heads, "key_dim": layer.head_dim, "dropout": float(layer.dropout)}


def _heads(layer: Any) -> Weights:
    """Torch packs what query, key and value are made with, one under another, where they have one size."""
    weights: Weights = {}
    packed = layer.in_proj_weight is not None
    for place, part in enumerate(PARTS):
        kernel = "in_proj_weight" if packed else f"{part[0]}_proj_weight"
        weights[f"{part}_kernel"] = Weight(
            layer, (kernel,), partial(_kernel, layer.num_heads, place if packed else None)
        )
        if layer.in_proj_bias is not None:
            weights[f"{part}_bias"] = Weight(layer, ("in_proj_bias",), partial(_bias, layer.num_heads, place))
    weights["output_kernel"] = Weight(layer, ("out_proj.weight",), partial(_output_kernel, layer.num_heads))
    if layer.out_proj.bias is not None:
        weights["output_bias"] = Weight(layer, ("out_proj.bias",))
    return weights


def _kernel(heads: int, place: int | None, kernel: Tensor) -> Tensor:
    """(heads * dim, features) -> (features, heads, dim)."""
    kernel = kernel if place is None else kernel.chunk(3)[place]
    return kernel.mT.reshape(kernel.shape[1], heads, -1)


def _bias(heads: int, place: int, bias: Tensor) -> Tensor:
    return bias.chunk(3)[place].reshape(heads, -1)


def _output_kernel(heads: int, kernel: Tensor) -> Tensor:
    """(features, heads * dim) -> (heads, dim, features)."""
    return kernel.mT.reshape(heads, -1, kernel.shape[0])


def _written(layer: Any) -> Weights:
    """Of a layer that was written from Keras's: in its layout, by its names."""
    return {name: Weight(layer, (name,)) for name, _ in layer.named_parameters(recurse=False)}


def _written_settings(layer: Any) -> Settings:
    _, heads, size = layer.query_kernel.shape
    return {"num_heads": heads, "key_dim": size, "dropout": layer.dropout}


TABLE = (
    LayerType(
        "MultiHeadAttention",
        (nn.MultiheadAttention,),
        settings=_settings,
        weights=_heads,
        channels=-1,
        random=True,
    ),
    LayerType(
        "MultiHeadAttention",
        named=("keras_semantics.MultiHeadAttention",),
        settings=_written_settings,
        weights=_written,
        channels=-1,
        random=True,
    ),
    *(
        LayerType(
            kind,
            named=(f"keras_semantics.{kind}",),
            settings=lambda layer: {"dropout": layer.dropout},
            weights=_written,
            channels=-1,
            random=True,
        )
        for kind in ("Attention", "AdditiveAttention")
    ),
    LayerType("Attention", functions=("scaled_dot_product_attention",)),
)


# === Source ===


def _multi_head(layer: Layer, call: CallOf) -> list[Piece]:
    settings = layer.settings
    heads, key_dim = settings["num_heads"], settings["key_dim"]
    value_dim = settings.get("value_dim") or key_dim
    if call.kwargs.get("return_attention_scores"):
        raise Untranslatable("it returns its scores")
    if settings.get("sliding_window") or settings.get("use_gate"):
        raise Untranslatable("it has a sliding window or a gate")
    masks = [name for name in MASKS if call.kwargs.get(name) is not None]
    given = [
        str(argument)
        for argument in (*call.args, *[call.kwargs[k] for k in ("value", "key") if k in call.kwargs])
    ]
    query, value = given[0], given[1]
    key = given[2] if len(given) > 2 else value
    order = f"{query}, {key}, {value}"
    causal = bool(call.kwargs.get("use_causal_mask"))
    attended = [call.inputs[int(name.strip("{}"))] for name in (query, key, value)]
    if any(one.rank != 3 for one in attended) or settings.get("attention_axes") not in (None, [1]):
        raise Untranslatable("it attends over other axes than that of time")
    features = [one.channels for one in attended]
    width = features[0]
    fits = heads * key_dim == width and value_dim == key_dim and not settings.get("output_shape")
    if fits and not causal and not masks:
        args = {"*embed_dim": width, "*num_heads": heads}
        args |= without(
            {"dropout": 0.0, "bias": True, "kdim": width, "vdim": width},
            dropout=float(settings["dropout"]),
            bias=settings["use_bias"],
            kdim=features[1],
            vdim=features[2],
        )
        args["batch_first"] = True
        return [Module("nn.MultiheadAttention", args, call=f"{{m}}({order}, need_weights=False)[0]")]
    outputs = settings.get("output_shape") or width
    args = {"*features": tuple(features), "*heads": heads, "*key_dim": key_dim}
    args |= {"outputs": even(outputs) if isinstance(outputs, list) else outputs}
    args |= without(
        {"value_dim": key_dim, "dropout": 0.0, "bias": True, "causal": False},
        value_dim=value_dim,
        dropout=float(settings["dropout"]),
        bias=settings["use_bias"],
        causal=causal,
    )
    given = "".join(f", {name}={call.kwargs[name]}" for name in masks)
    return [Module("MultiHeadAttention", args, call=f"{{m}}({order}{given})")]


def _attention(layer: Layer, call: CallOf) -> list[Piece]:
    settings = layer.settings
    if call.kwargs.get("return_attention_scores"):
        raise Untranslatable("it returns its scores")
    of = call.args[0] if call.args else call.kwargs["inputs"]
    key = of[2] if len(of) > 2 else of[1]
    masks = dict(zip(("query_mask", "value_mask"), call.kwargs.get("mask") or (), strict=False))
    given = "".join(f", {name}={mask}" for name, mask in masks.items() if mask is not None)
    args = without(
        {"dropout": 0.0, "causal": False},
        dropout=float(settings.get("dropout") or 0.0),
        causal=bool(call.kwargs.get("use_causal_mask")),
    )
    if layer.kind == "AdditiveAttention":
        args = {"*features": call.input.channels if settings.get("use_scale", True) else None} | args
    else:
        concat = settings.get("score_mode", "dot") == "concat"
        own = without({"scale": False, "concat": False}, scale=bool(settings.get("use_scale")), concat=concat)
        args = own | args
        if not args and not given:
            return [Expression(f"torch.softmax({of[0]} @ {key}.mT, dim=-1) @ {of[1]}")]
    return [Module(layer.kind, args, call=f"{{m}}({of[0]}, {key}, {of[1]}{given})")]


SOURCES = {
    "MultiHeadAttention": SourceRule(_multi_head, "last"),
    "Attention": SourceRule(_attention, "last"),
    "AdditiveAttention": SourceRule(_attention, "last"),
}
