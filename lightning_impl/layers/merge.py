"""Several tensors made one."""

from __future__ import annotations

from experiment.protocols.graph import Layer
from lightning_impl.layers.layer_type import Call, LayerType
from lightning_impl.layers.source import CallOf, Expression, Piece, Rule, SourceRule, Untranslatable


def _of_tensors(call: Call) -> bool:
    """Whether two batches are merged: a constant or a parameter is no layer's output."""
    shapes = call.shapes
    return len(shapes) == 2 and 0 < len(shapes[0]) == len(shapes[1]) and shapes[0][0] == shapes[1][0]


TABLE = (
    LayerType("Add", functions=("add", "add_", "__radd__"), is_layer=_of_tensors, merges=True),
    LayerType("Subtract", functions=("sub", "sub_"), is_layer=_of_tensors, merges=True),
    LayerType("Multiply", functions=("mul", "mul_", "__rmul__"), is_layer=_of_tensors, merges=True),
    LayerType("Maximum", functions=("maximum", "fmax"), is_layer=_of_tensors, merges=True),
    LayerType("Minimum", functions=("minimum", "fmin"), is_layer=_of_tensors, merges=True),
    LayerType("Concatenate", functions=("cat", "concat", "concatenate"), merges=True),
)


# === Source ===


def _folded(pattern: str) -> Rule:
    """A merge of any number of tensors by a function of two."""

    def rule(layer: Layer, call: CallOf) -> list[Piece]:
        text = "{0}"
        for index in range(1, len(call.inputs)):
            text = pattern.format(text, f"{{{index}}}")
        return [Expression(text)]

    return rule


def _sum(sign: str) -> Rule:
    def rule(layer: Layer, call: CallOf) -> list[Piece]:
        return [Expression(f" {sign} ".join(f"{{{index}}}" for index in range(len(call.inputs))))]

    return rule


def _average(layer: Layer, call: CallOf) -> list[Piece]:
    terms = " + ".join(f"{{{index}}}" for index in range(len(call.inputs)))
    return [Expression(f"({terms}) / {len(call.inputs)}")]


def _concatenate(layer: Layer, call: CallOf) -> list[Piece]:
    values = ", ".join(f"{{{index}}}" for index in range(len(call.inputs)))
    return [Expression(f"torch.cat([{values}], dim={call.input.dim(layer.settings['axis'])})")]


def _dot(layer: Layer, call: CallOf) -> list[Piece]:
    axes = layer.settings["axes"]
    axes = axes if isinstance(axes, list) else [axes, axes]
    ranks = [value.rank for value in call.inputs]
    given = ["{0}", "{1}"]
    if layer.settings.get("normalize"):  # by no less than Keras's epsilon
        given = [
            f"F.normalize({text}, dim={axis % rank}, eps=1e-7)"
            for text, axis, rank in zip(given, axes, ranks, strict=True)
        ]
    left, right = given
    if ranks == [2, 2]:
        return [Expression(f"({left} * {right}).sum(1, keepdim=True)")]
    if ranks == [3, 3]:
        left = left if axes[0] % 3 == 2 else f"{left}.mT"
        right = f"{right}.mT" if axes[1] % 3 == 2 else right
        return [Expression(f"{left} @ {right}")]
    raise Untranslatable("it is no product of two sequences of vectors")


def _scaled_sum(layer: Layer, call: CallOf) -> list[Piece]:
    """InceptionResNet's CustomScaleLayer."""
    return [Expression(f"{{0}} + {{1}} * {layer.settings['scale']}")]


SOURCES = {
    "Add": SourceRule(_sum("+")),
    "Subtract": SourceRule(_sum("-")),
    "Multiply": SourceRule(_sum("*")),
    "Average": SourceRule(_average),
    "Maximum": SourceRule(_folded("torch.maximum({0}, {1})")),
    "Minimum": SourceRule(_folded("torch.minimum({0}, {1})")),
    "Concatenate": SourceRule(_concatenate),
    "Dot": SourceRule(_dot, "last"),
    "CustomScaleLayer": SourceRule(_scaled_sum),
}
