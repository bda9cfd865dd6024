"""Dense layers and embeddings, and parameters of a block that act as these do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from experiment.protocols.graph import Layer
from lightning_impl.layers.activation import module_of
from lightning_impl.layers.layer_type import LayerType, Settings, Weights, own
from lightning_impl.layers.source import (
    CallOf,
    Expression,
    Module,
    Piece,
    SourceRule,
    Untranslatable,
    constrained,
    without,
)


def _dense(layer: Any) -> Weights:
    kernel = own(layer, lambda kernel: kernel.mT, weight="kernel")
    return {name: replace(weight, by_row=True) for name, weight in kernel.items()} | own(layer, bias="bias")


def _padding(layer: Any) -> Settings:
    """The token whose vector torch does not train; Keras has no such setting."""
    return {} if layer.padding_idx is None else {"padding_idx": layer.padding_idx}


EMBEDDING = LayerType("Embedding", settings=_padding, weights=lambda bag: own(bag, weight="embeddings"))


def _is_product(equation: str) -> bool:
    """True for an equation that is a matrix product of the last axis with the first of a kernel (in, out)."""
    given, _, rest = equation.replace(" ", "").partition(",")
    kernel, _, output = rest.partition("->")
    return len(kernel) == 2 and given[-1:] == kernel[0] and output == given[:-1] + kernel[1]


def _table(embeddings: Tensor) -> Tensor:
    """(1, N, D) as (N, D)."""
    return embeddings[0] if embeddings.dim() > 2 and embeddings.shape[0] == 1 else embeddings


def _hidden(layer: Any, output: Any) -> None:
    """Nothing: torch adds at once what Keras gives by itself before it is added."""
    return


TABLE = (
    LayerType(
        "Dense",
        (nn.Linear,),
        ("linear",),
        weights=_dense,
        positions=lambda call: {"weight": 1, "bias": 2},
        channels=-1,
    ),
    # x @ kernel
    LayerType(
        "Dense",
        on_parameter=("matmul", "mm"),
        weights=lambda arguments: own(arguments, weight="kernel"),
        channels=-1,
    ),
    # einsum("bi,ij->bj", x, kernel)
    LayerType(
        "Dense",
        on_parameter=("einsum",),
        weights=lambda arguments: own(arguments, weight="kernel"),
        is_layer=lambda call: _is_product(str(call.args[0])),
        channels=-1,
    ),
    LayerType(
        "Embedding",
        (nn.Embedding,),
        ("embedding",),
        settings=_padding,
        weights=lambda layer: own(layer, weight="embeddings"),
        positions=lambda call: {"weight": 0 if call.native else 1},
        channels=-1,
    ),
    # The embeddings of a sequence, and one of all of them
    LayerType(
        lambda bag: {"mean": "GlobalAveragePooling1D", "max": "GlobalMaxPooling1D"}.get(bag.mode, "Sum"),
        (nn.EmbeddingBag,),
        before=lambda bag: {"embedding": EMBEDDING},
        channels=-1,
    ),
    # Of positions: x + embeddings
    LayerType(
        "Embedding",
        on_parameter=("add", "add_"),
        weights=lambda arguments: own(arguments, _table, weight="embeddings"),
        output=_hidden,
    ),
    # A first token of a sequence that is learnt: cat([token, x])
    LayerType(
        "ClassToken",
        on_parameter=("cat", "concat", "concatenate"),
        weights=lambda arguments: own(arguments, lambda token: token[:1], weight="token"),
        output=_hidden,
    ),
)


# === Source ===


def _source(layer: Layer, call: CallOf) -> list[Piece]:
    constrained(layer)
    args = {"*in_features": call.input.channels, "*out_features": layer.settings["units"]}
    args |= without({"bias": True}, bias=layer.settings["use_bias"])
    return [Module("nn.Linear", args), *module_of(layer.settings["activation"], call.output)]


def _embedding(layer: Layer, call: CallOf) -> list[Piece]:
    constrained(layer)
    settings = layer.settings
    args = {"*num_embeddings": settings["input_dim"], "*embedding_dim": settings["output_dim"]}
    ids = [] if "int" in call.input.dtype else [Expression("{0}.long()", Module("ToIds", suffix="ids"))]
    return [*ids, Module("nn.Embedding", args)]


def _einsum(layer: Layer, call: CallOf) -> list[Piece]:
    """An EinsumDense that contracts the last axis alone is a Linear."""
    constrained(layer)
    bias, equation = layer.settings.get("bias_axes"), layer.settings["equation"]
    if not _is_product(equation) or bias not in (None, equation[-1]):
        raise Untranslatable(f"its equation {equation} is no matrix product over the last axis")
    args = {"*in_features": call.input.channels, "*out_features": call.output.channels}
    args |= without({"bias": True}, bias=bias is not None)
    return [Module("nn.Linear", args), *module_of(layer.settings["activation"], call.output)]


SOURCES = {
    "Dense": SourceRule(_source, "last"),
    "EinsumDense": SourceRule(_einsum, "last"),
    "Embedding": SourceRule(_embedding, "last"),
}
