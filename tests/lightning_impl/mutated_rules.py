"""Mutations of the source rules: each must show in what the written package computes.

    python tests/lightning_impl/mutated_rules.py GRAPHS OUT

writes OUT/NAME/, a package for each model of GRAPHS and for each mutation, and OUT/packages.json.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiment.protocols.graph import Layer, Migration
from lightning_impl.layers.source import CallOf, Expression, Module, Piece, SourceRule
from lightning_impl.layers.sources import LAYERS, operations
from lightning_impl.migrate import package


@dataclass(frozen=True)
class Mutation:
    """A fault in the rule of a kind: what it does to the pieces, and the model that shows it."""

    name: str
    kind: str
    model: str
    alter: Callable[[list[Piece]], list[Piece]]
    operation: bool = False


def _module(**changes: Any) -> Callable[[list[Piece]], list[Piece]]:
    """Change arguments of the modules that have them; ... drops one."""

    def alter(pieces: list[Piece]) -> list[Piece]:
        changed = []
        for piece in pieces:
            if isinstance(piece, Module):
                args = {}
                for key, value in piece.args.items():
                    value = changes.get(key.lstrip("*"), value)
                    if value is not ...:
                        args[key] = value
                piece = replace(piece, args=args)
            changed.append(piece)
        return changed

    return alter


def _added(name: str, **arguments: Any) -> Callable[[list[Piece]], list[Piece]]:
    """Give the modules of a name further arguments."""
    return lambda pieces: [
        replace(p, args={**p.args, **arguments}) if isinstance(p, Module) and p.name == name else p
        for p in pieces
    ]


def _named(old: str, new: str, **args: Any) -> Callable[[list[Piece]], list[Piece]]:
    """Another class in a module's place, or another expression."""

    def alter(pieces: list[Piece]) -> list[Piece]:
        changed: list[Piece] = []
        for piece in pieces:
            if isinstance(piece, Module) and piece.name == old:
                piece = Module(new, args or piece.args, piece.suffix, part=piece.part, inline=None)
            elif isinstance(piece, Expression):
                module = (
                    None
                    if piece.module is None
                    else replace(piece.module, name=piece.module.name.replace(old, new))
                )
                piece = replace(piece, text=piece.text.replace(old, new), module=module)
            changed.append(piece)
        return changed

    return alter


def _called(call: str) -> Callable[[list[Piece]], list[Piece]]:
    return lambda pieces: [replace(p, call=call) if isinstance(p, Module) else p for p in pieces]


def _without(suffix: str) -> Callable[[list[Piece]], list[Piece]]:
    return lambda pieces: [p for p in pieces if not (isinstance(p, Module) and p.suffix == suffix)]


def _turned(pieces: list[Piece]) -> list[Piece]:
    """Padding before for padding behind."""
    changed: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, Module) and isinstance(piece.args.get("*padding"), tuple):
            piece = replace(piece, args={**piece.args, "*padding": piece.args["*padding"][::-1]})
        changed.append(piece)
    return changed


def _first(text: str) -> Callable[[list[Piece]], list[Piece]]:
    return lambda pieces: [replace(p, text=text) if isinstance(p, Expression) else p for p in pieces]


def _replaced(text: str, module: Module) -> Callable[[list[Piece]], list[Piece]]:
    """Another expression, and the module that stands for it in a Sequential."""
    return lambda pieces: [Expression(text, module)]


def _reshaped(pieces: list[Piece]) -> list[Piece]:
    module = Module("Reshape", {"*sizes": (4, 6)})
    return [Expression("{0}.reshape({0}.shape[0], 4, 6)", module) for _ in pieces]


MUTATIONS = (
    Mutation("the odd pixel before", "Conv2D", "convolutions", _turned),
    Mutation("no same padding", "Conv2D", "pools", _module(padding=0)),
    Mutation("no dilation", "Conv2D", "convolutions", _module(dilation=1)),
    Mutation("no activation", "Conv2D", "convolutions", _without("relu")),
    Mutation("depthwise not padded", "DepthwiseConv2D", "convolutions", _module(padding=0)),
    Mutation("separable not padded", "SeparableConv2D", "convolutions", _module(padding=0)),
    Mutation("causal padding behind", "Conv1D", "sequences_of_convolutions", _turned),
    Mutation("cropped before", "Conv2DTranspose", "transposed", _turned),
    Mutation("uncropped", "Conv2DTranspose", "transposed", _without("crop")),
    Mutation("stride 1", "Conv3D", "volumes", _module(stride=1)),
    Mutation("torch's flatten order", "Flatten", "convolutions", _named("Flatten", "nn.Flatten")),
    Mutation("torch's epsilon in BatchNorm", "BatchNormalization", "norms", _module(epsilon=1e-5)),
    Mutation("torch's momentum in BatchNorm", "BatchNormalization", "norms", _module(momentum=0.9)),
    Mutation(
        "unbiased variance",
        "BatchNormalization",
        "unnamed_blocks",
        _named("BatchNorm", "nn.LazyBatchNorm2d", eps=1e-3, momentum=0.01),
    ),
    Mutation("torch's epsilon in LayerNorm", "LayerNormalization", "attention", _module(eps=1e-5)),
    Mutation("one group", "GroupNormalization", "norms", _module(num_groups=1)),
    Mutation("epsilon of RMSNorm", "RMSNormalization", "norms", _module(eps=1e-2)),
    Mutation("another axis", "UnitNormalization", "norms", _module(dim=2)),
    Mutation("padding counted", "AveragePooling2D", "pools", _module(count_include_pad=True)),
    Mutation("zeros before the largest", "MaxPooling2D", "pools", _turned),
    Mutation("largest for mean", "GlobalAveragePooling2D", "residual_blocks", _named("mean", "amax")),
    Mutation("mean for largest", "GlobalMaxPooling2D", "pools", _named("amax", "mean")),
    Mutation("torch's slope", "LeakyReLU", "activations", _module(negative_slope=0.01)),
    Mutation("gelu's tanh form", "Conv2D", "convolutions", _named("nn.GELU", "nn.GELU", approximate="tanh")),
    Mutation("alpha 1", "ELU", "activations", _module(alpha=1.0)),
    Mutation("no ceiling", "ReLU", "norms", _named("nn.ReLU6", "nn.Softplus")),
    Mutation("product for sum", "Add", "residual_blocks", _named("+", "*")),
    Mutation("sum for product", "Multiply", "residual_blocks", _named("*", "+")),
    Mutation("turned round", "Subtract", "merges", _first("{1} - {0}")),
    Mutation("sum for mean", "Average", "merges", _first("{0} + {1}")),
    Mutation("least for largest", "Maximum", "merges", _named("maximum", "minimum")),
    Mutation("another axis", "Concatenate", "merges", _named("dim=2", "dim=3")),
    Mutation("reshaped for permuted", "Permute", "shapes", _reshaped),
    Mutation("padded on the other side", "ZeroPadding2D", "shapes", _turned),
    Mutation("cropped on the other side", "Cropping2D", "shapes", _turned),
    Mutation("nearest for bilinear", "UpSampling2D", "shapes", _module(mode="nearest")),
    Mutation("no offset", "Rescaling", "preprocessing", _module(offset=0.0)),
    Mutation(
        "variance for deviation", "Normalization", "preprocessing", _module(variance=(0.0016, 0.0081, 0.0256))
    ),
    Mutation("nearest for bilinear", "Resizing", "preprocessing", _module(mode="nearest")),
    Mutation("no backward sum", "Bidirectional", "text", _module(merge_mode="mul")),
    Mutation("nothing masked", "Masking", "masked", _first("{0}")),
    Mutation("every step kept", "LSTM", "masked", _called("{m}({0})")),
    Mutation("masked steps counted", "GlobalAveragePooling1D", "masked", _first("{0}.mean(1)")),
    Mutation("steps in another order", "TimeDistributed", "masked", _module(steps=3)),
    Mutation("forwards", "GRU", "recurrent", _module(go_backwards=False)),
    Mutation("reset after", "GRU", "recurrent", _module(reset_after=True)),
    Mutation("another activation", "GRU", "recurrent", _module(activation="tanh")),
    Mutation("another gate", "GRU", "recurrent", _module(recurrent_activation="sigmoid")),
    Mutation("beginning at zero", "SimpleRNN", "recurrent", _called("{m}({0})")),
    Mutation("key for value", "MultiHeadAttention", "attention", _module(causal=False)),
    Mutation("key for value", "Attention", "attention", _first("torch.softmax({0} @ {1}.mT, dim=1) @ {1}")),
    Mutation("mask left out", "AdditiveAttention", "attention_masked", _called("{m}({0}, {0}, {0})")),
    Mutation("mask left out", "Attention", "attention_masked", _called("{m}({0}, {0}, {0})")),
    Mutation("mask left out", "MultiHeadAttention", "attention_masked", _called("{m}({0}, {0}, {0})")),
    Mutation("no activation", "Activation", "activations", lambda pieces: []),
    Mutation("no bias", "Dense", "convolutions", _added("nn.Linear", bias=False)),
    Mutation("one token does not train", "Embedding", "text", _added("nn.Embedding", padding_idx=0)),
    Mutation("one slope", "PReLU", "slopes", _module(num_parameters=1)),
    Mutation("largest for least", "Minimum", "merges", _named("minimum", "maximum")),
    Mutation("sums for products", "Dot", "merges", _named(" * ", " + ")),
    Mutation("not reshaped", "Reshape", "shapes", _replaced("{0}", Module("nn.Identity"))),
    Mutation("over all axes", "Mean", "operations", _named("(2, 3)", "(1, 2, 3)"), True),
    Mutation("the other bound", "Maximum", "operations", _named("min=", "max="), True),
    Mutation("no flip", "Flip", "operations", _first("{0}"), True),
    Mutation("another index", "GetItem", "operations", _named(", -1", ", 1"), True),
    Mutation(
        "not transposed",
        "Transpose",
        "operations",
        _first("{0}.reshape({0}.shape[0], {0}.shape[2], {0}.shape[1])"),
        True,
    ),
)


@contextmanager
def mutated(mutation: Mutation) -> Iterator[None]:
    """Until it is left, the rule of a kind has the fault."""
    table = operations.SOURCES if mutation.operation else LAYERS
    before = table[mutation.kind]

    def write(layer: Layer, call: CallOf) -> list[Piece]:
        return mutation.alter(list(before.write(layer, call)))

    table[mutation.kind] = SourceRule(write, before.layout)
    try:
        yield
    finally:
        table[mutation.kind] = before


def write_all(graphs: Path, out: Path) -> list[dict[str, Any]]:
    """Write the package of each model as it is, and of each mutation; returns what there is, by package.

    A package that cannot be written, for its weights do not fit, has an `error`.
    """
    told = []
    models = dict.fromkeys(mutation.model for mutation in MUTATIONS)
    right = [(f"right_{model}", model, None) for model in models]
    wrong = [(f"fault_{place}", mutation.model, mutation) for place, mutation in enumerate(MUTATIONS)]
    for name, model, mutation in right + wrong:
        (out / name).mkdir(parents=True)
        facts = {"package": name, "model": model, "rule": "", "fault": "", "error": ""}
        if mutation is not None:
            facts |= {"rule": mutation.kind, "fault": mutation.name}
        with mutated(mutation) if mutation is not None else nullcontext():
            try:
                package.write(Migration.read(graphs / model), out / name, {})
            except (RuntimeError, ValueError, TypeError, IndexError, package.weights.WeightError) as error:
                facts["error"] = str(error).partition("\n")[0]
        told.append(facts)
    return told


if __name__ == "__main__":
    graphs, out = map(Path, sys.argv[1:])
    (out / "packages.json").write_text(json.dumps(write_all(graphs, out)))
