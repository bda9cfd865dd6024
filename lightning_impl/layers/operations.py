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
    **dict.fromkeys(("Abs", "Absolute", "Fabs"), "{0}.abs()"),
    **{name: f"{{0}}.{name.lower()}()" for name in ("Tan", "Sinh", "Cosh", "Exp2", "Log2", "Log10", "Trunc")},
    **{f"Arc{name}": f"{{0}}.arc{name}()" for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")},
    **{name: f"{{0}}.{name.lower()}()" for name in ("Erfc", "Erfinv", "Isnan", "Isinf", "Isfinite")},
    "LogicalNot": "{0}.logical_not()",
    "Copy": "{0}.clone()",
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
    "Arctan2": "torch.atan2({}, {})",
    "Logaddexp": "torch.logaddexp({}, {})",
    "Hypot": "torch.hypot({}, {})",
    "Fmod": "torch.fmod({}, {})",
    "LogicalAnd": "torch.logical_and({}, {})",
    "LogicalOr": "torch.logical_or({}, {})",
    "LogicalXor": "torch.logical_xor({}, {})",
}
REDUCTIONS = {
    "Amax": "amax",
    "Amin": "amin",
    "Logsumexp": "logsumexp",
    "Any": "any",
    "All": "all",
    "CountNonzero": "count_nonzero",
    "Argmax": "argmax",
    "Argmin": "argmin",
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
    if layer.kind in ("Prod", "Argmax", "Argmin") and len(dims) > 1:
        raise Untranslatable("it takes several axes as one")
    if value.first and not keep and call.output.rank > 2:
        raise Relaid("last")
    dim = dims[0] if len(dims) == 1 else tuple(dims)
    more = ", correction=0" if layer.kind in ("Std", "Var") else ""
    text = f"{{0}}.{REDUCTIONS[layer.kind]}({dim}{', keepdim=True' if keep else ''}{more})"
    return [Expression(text)]


def _axis(layer: Layer, call: CallOf, name: str = "axis", default: Any = None) -> int:
    """The one axis that a setting names, where torch has it."""
    axis = layer.settings.get(name, default)
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    if not isinstance(axis, int):
        raise Untranslatable(f"its {name} {axis} is not one axis")
    return call.input.dim(axis)


def _cumulative(layer: Layer, call: CallOf) -> list[Piece]:
    return [Expression(f"{{0}}.{layer.kind.lower()}({_axis(layer, call)})")]


def _swapped(layer: Layer, call: CallOf) -> list[Piece]:
    one, other = (layer.settings[f"axis{number}"] for number in (1, 2))
    return [Expression(f"{{0}}.transpose({one}, {other})")]


def _moved(layer: Layer, call: CallOf) -> list[Piece]:
    source, target = (layer.settings[name] for name in ("source", "destination"))
    places = (tuple(place) if isinstance(place, list) else place for place in (source, target))
    return [Expression(f"{{0}}.movedim({', '.join(map(str, places))})")]


def _tiled(layer: Layer, call: CallOf) -> list[Piece]:
    repeats = layer.settings["repeats"]
    repeats = repeats if isinstance(repeats, list) else [repeats]
    return [Expression(f"{{0}}.tile({', '.join(map(str, repeats))})")]


def _rolled(layer: Layer, call: CallOf) -> list[Piece]:
    shift = layer.settings["shift"]
    if not isinstance(shift, int):
        raise Untranslatable("it rolls several axes at once")
    return [Expression(f"{{0}}.roll({shift}, {_axis(layer, call)})")]


def _normalized(layer: Layer, call: CallOf) -> list[Piece]:
    order, epsilon = layer.settings.get("order", 2), layer.settings.get("epsilon") or 1e-7
    more = "" if order == 2 else f", p={order}"
    return [Expression(f"F.normalize({{0}}{more}, dim={_axis(layer, call, default=-1)}, eps={epsilon})")]


def _norm(layer: Layer, call: CallOf) -> list[Piece]:
    order, keep = layer.settings.get("ord"), layer.settings.get("keepdims", False)
    if order not in (None, 1, 2, "euclidean") or layer.settings.get("axis") is None:
        raise Untranslatable("it is no norm of vectors along one axis")
    if call.input.first and not keep and call.output.rank > 2:
        raise Relaid("last")
    more = (", ord=1" if order == 1 else "") + (", keepdim=True" if keep else "")
    return [Expression(f"torch.linalg.vector_norm({{0}}, dim={_axis(layer, call)}{more})")]


def _one_hot(layer: Layer, call: CallOf) -> list[Piece]:
    if layer.settings.get("axis", -1) not in (-1, call.input.rank):
        raise Untranslatable("its classes are not the last axis")
    number = layer.settings["num_classes"]
    return [Expression(f"F.one_hot({{0}}.long(), {number}).to(torch.get_default_dtype())")]


def _split(layer: Layer, call: CallOf) -> list[Piece]:
    places, dim = layer.settings["indices_or_sections"], _axis(layer, call, default=0)
    places = places if isinstance(places, int) else list(places)
    return [Expression(f"{{0}}.tensor_split({places}, {dim})")]


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
        **rules(_cumulative, "Cumsum", "Cumprod"),
        **rules(_swapped, "Swapaxes", layout="last"),
        **rules(_moved, "Moveaxis", layout="last"),
        **rules(_tiled, "Tile", layout="last"),
        **rules(_rolled, "Roll"),
        **rules(_normalized, "Normalize"),
        **rules(_norm, "Norm"),
        **rules(_one_hot, "OneHot", layout="last"),
        **rules(_split, "Split"),
        **rules(_reshape, "Reshape", layout="last"),
        **rules(lambda layer, call: [Expression("{0}.flatten()")], "Ravel", layout="last"),
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
