"""Functions of keras.ops in a functional graph, and how torch's source writes them."""

from __future__ import annotations

from typing import Any

from experiment.protocols.graph import Layer
from lightning_impl.layers.activation import ALIASES, MODULES, module_of
from lightning_impl.layers.source import (
    CallOf,
    Code,
    Expression,
    Piece,
    Relaid,
    Rule,
    SourceRule,
    Untranslatable,
)

UNARY = {
    "Abs": "{0}.abs()",
    "Exp": "{0}.exp()",
    "Log": "{0}.log()",
    "Sqrt": "{0}.sqrt()",
    "Sin": "{0}.sin()",
    "Cos": "{0}.cos()",
    "Square": "{0}.square()",
    "Negative": "-{0}",
    "Rsqrt": "{0}.rsqrt()",
    "Log1p": "{0}.log1p()",
    "Expm1": "{0}.expm1()",
    "Floor": "{0}.floor()",
    "Ceil": "{0}.ceil()",
    "Sign": "{0}.sign()",
    "Reciprocal": "{0}.reciprocal()",
    "Erf": "torch.erf({0})",
    "Round": "{0}.round()",
    "StopGradient": "{0}.detach()",
    "ZerosLike": "torch.zeros_like({0})",
    "OnesLike": "torch.ones_like({0})",
}
BINARY = {
    "Add": "{} + {}",
    "Subtract": "{} - {}",
    "Multiply": "{} * {}",
    "TrueDivide": "{} / {}",
    "Divide": "{} / {}",
    "Power": "{} ** {}",
    "FloorDivide": "{} // {}",
    "Mod": "{} % {}",
    "Greater": "{} > {}",
    "GreaterEqual": "{} >= {}",
    "Less": "{} < {}",
    "LessEqual": "{} <= {}",
    "Equal": "{} == {}",
    "NotEqual": "{} != {}",
}
REDUCTIONS = {
    "Mean": "mean",
    "Sum": "sum",
    "Max": "amax",
    "Min": "amin",
    "Std": "std",
    "Var": "var",
    "Prod": "prod",
}


def _unary(layer: Layer, call: CallOf) -> list[Piece]:
    return [Expression(UNARY[layer.kind])]


def _activation(layer: Layer, call: CallOf) -> list[Piece]:
    config = {"kind": layer.kind, "settings": layer.settings}
    module = module_of(config, call.input)[0]
    return [Expression(getattr(module, "inline", None) or "{0}")]


def _operands(call: CallOf) -> list[str]:
    """The two operands, tensors as placeholders and numbers as they are written."""
    found = []
    for argument in (*call.args, *call.kwargs.values()):
        if not isinstance(argument, Code | int | float):
            raise Untranslatable("it has a constant array among its operands")
        found.append(str(argument))
    ranks = {value.rank for value in call.inputs}
    if len(ranks) > 1 and any(value.first for value in call.inputs):
        raise Untranslatable("it broadcasts tensors of different ranks")
    return found


def _binary(layer: Layer, call: CallOf) -> list[Piece]:
    return [Expression(BINARY[layer.kind].format(*_operands(call)))]


def _extreme(layer: Layer, call: CallOf) -> list[Piece]:
    first, second = _operands(call)
    name = layer.kind.lower()
    if len(call.inputs) == 2:
        return [Expression(f"torch.{name}({first}, {second})")]
    tensor, number = (first, second) if first.startswith("{") else (second, first)
    bound = "min" if name == "maximum" else "max"
    return [Expression(f"{tensor}.clamp({bound}={number})")]


def _clip(layer: Layer, call: CallOf) -> list[Piece]:
    low, high = (layer.settings.get(name) for name in ("x_min", "x_max"))
    return [Expression(f"{{0}}.clamp({low}, {high})")]


def _reduce(layer: Layer, call: CallOf) -> list[Piece]:
    axis, keep = layer.settings.get("axis"), layer.settings.get("keepdims", False)
    value = call.input
    axes = list(range(value.rank)) if axis is None else axis if isinstance(axis, list) else [axis]
    dims = sorted(value.dim(a) for a in axes)
    if layer.kind == "Prod" and len(dims) > 1:
        raise Untranslatable("it multiplies over several axes")
    if value.first and not keep and call.output.rank > 2:
        raise Relaid("last")
    dim = dims[0] if len(dims) == 1 else tuple(dims)
    more = ", correction=0" if layer.kind in ("Std", "Var") else ""
    text = f"{{0}}.{REDUCTIONS[layer.kind]}({dim}{', keepdim=True' if keep else ''}{more})"
    return [Expression(text)]


def _reshape(layer: Layer, call: CallOf) -> list[Piece]:
    sizes = [-1 if size is None else size for size in call.output.shape[1:]]
    return [Expression(f"{{0}}.reshape({{0}}.shape[0], {', '.join(map(str, sizes))})")]


def _transpose(layer: Layer, call: CallOf) -> list[Piece]:
    axes = layer.settings.get("axes") or list(reversed(range(call.input.rank)))
    return [Expression(f"{{0}}.permute({', '.join(map(str, axes))})")]


def _item(layer: Layer, call: CallOf) -> list[Piece]:
    key = call.args[1] if len(call.args) > 1 else call.kwargs["key"]
    keys = key if isinstance(key, list) else [key]
    return [Expression(f"{{0}}[{', '.join(_index(k) for k in keys)}]")]


def _index(key: Any) -> str:
    if isinstance(key, dict) and "slice" in key:
        start, stop, step = ("" if part is None else str(part) for part in key["slice"])
        if step.startswith("-"):
            raise Untranslatable("it takes a slice backwards: torch has flip")
        return f"{start}:{stop}" + (f":{step}" if step else "")
    if isinstance(key, dict) and "ellipsis" in key:
        return "..."
    if key is None or isinstance(key, int):
        return str(key)
    raise Untranslatable("it takes elements by an array")


def _concatenate(layer: Layer, call: CallOf) -> list[Piece]:
    values = ", ".join(f"{{{index}}}" for index in range(len(call.inputs)))
    return [Expression(f"torch.cat([{values}], dim={call.input.dim(layer.settings.get('axis', -1))})")]


def _stack(layer: Layer, call: CallOf) -> list[Piece]:
    values = ", ".join(f"{{{index}}}" for index in range(len(call.inputs)))
    return [Expression(f"torch.stack([{values}], dim={layer.settings.get('axis', 0)})")]


def _matmul(layer: Layer, call: CallOf) -> list[Piece]:
    return [Expression("{0} @ {1}")]


def _flip(layer: Layer, call: CallOf) -> list[Piece]:
    axis = layer.settings.get("axis")
    axes = range(call.input.rank) if axis is None else axis if isinstance(axis, list) else [axis]
    dims = [call.input.dim(a) for a in axes]
    return [Expression(f"{{0}}.flip({', '.join(map(str, dims))})")]


def _expand(layer: Layer, call: CallOf) -> list[Piece]:
    axis = layer.settings["axis"]
    if isinstance(axis, list):
        if len(axis) != 1:
            raise Untranslatable("it adds several axes at once")
        axis = axis[0]
    return [Expression(f"{{0}}.unsqueeze({axis})")]


def _squeeze(layer: Layer, call: CallOf) -> list[Piece]:
    axis = layer.settings.get("axis")
    if axis is None:
        raise Untranslatable("it drops every axis of size one: name the axis")
    dims = tuple(axis) if isinstance(axis, list) else axis
    return [Expression(f"{{0}}.squeeze({dims})")]


def _cast(layer: Layer, call: CallOf) -> list[Piece]:
    dtype = str(layer.settings.get("dtype", "float32"))
    if dtype.startswith("float"):
        return [Expression("{0}.to(torch.get_default_dtype())")]
    return [Expression(f"{{0}}.to(torch.{dtype})")]


def _where(layer: Layer, call: CallOf) -> list[Piece]:
    first, *rest = _operands(call)
    return [Expression(f"torch.where({', '.join([first, *rest])})")]


def _einsum(layer: Layer, call: CallOf) -> list[Piece]:
    equation = layer.settings.get("subscripts")
    values = ", ".join(f"{{{index}}}" for index in range(len(call.inputs)))
    return [Expression(f'torch.einsum("{equation}", {values})')]


def _table() -> dict[str, SourceRule]:
    def rules(rule: Rule, *names: str, layout: str = "any") -> dict[str, SourceRule]:
        return {name: SourceRule(rule, layout) for name in names}

    activations = {name.title().replace("_", "") for name in (*MODULES, *ALIASES)}
    activations |= {"Elu", "Selu", "Celu", "Gelu", "LeakyRelu", "Softmax", "LogSoftmax", "Relu6", "Relu"}
    return {
        **rules(_unary, *UNARY),
        **rules(_activation, *activations),
        **rules(_binary, *BINARY),
        **rules(_extreme, "Maximum", "Minimum"),
        **rules(_clip, "Clip"),
        **rules(_reduce, *REDUCTIONS),
        **rules(_reshape, "Reshape", layout="last"),
        **rules(_transpose, "Transpose", layout="last"),
        **rules(_item, "GetItem", layout="last"),
        **rules(_concatenate, "Concatenate"),
        **rules(_stack, "Stack", layout="last"),
        **rules(_matmul, "Matmul", layout="last"),
        **rules(_flip, "Flip"),
        **rules(_expand, "ExpandDims", layout="last"),
        **rules(_squeeze, "Squeeze", layout="last"),
        **rules(_cast, "Cast"),
        **rules(_where, "Where"),
        **rules(_einsum, "Einsum", layout="last"),
        **rules(lambda layer, call: [Expression("{0}")], "Identity"),
    }


SOURCES = _table()
