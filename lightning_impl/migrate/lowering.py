"""A Keras graph as the steps of a torch model: modules and expressions, with the layout of each value
settled."""

from __future__ import annotations

import keyword
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import nn

from experiment.protocols.graph import Call, Graph, Layer, tensors
from lightning_impl.layers import operations
from lightning_impl.layers.source import (
    CallOf,
    Code,
    Module,
    Piece,
    Relaid,
    SourceRule,
    Untranslatable,
    Value,
)
from lightning_impl.layers.sources import source_rule

ELEMENTWISE = {*operations.BINARY, "Maximum", "Minimum", "Where"}  # operations, that broadcast
MASKED = {  # take a mask
    *("LSTM", "GRU", "SimpleRNN", "Bidirectional", "GlobalAveragePooling1D", "Attention", "AdditiveAttention")
}
UNMASKED = {"TimeDistributed"}  # are given one that changes nothing
RESERVED = {*dir(nn.Sequential()), *dir(nn.ModuleDict()), "x", "self", "inputs", "F", "nn", "torch"}


@dataclass
class Step:
    """One line of a forward: a module, a nested model or an expression, of values by their numbers.

    layer: the path of the Keras layer, "" for what only changes the layout. auto: Keras named it, not its
    user.
    """

    name: str
    layer: str
    kind: str
    inputs: list[int]
    outputs: list[int]
    module: Module | None = None
    expression: str = ""
    graph: Lowered | None = None
    auto: bool = False
    comment: str = ""


@dataclass
class Lowered:
    """A model's steps in their order.

    finish: by output, the softmax or sigmoid that Keras's model ends in.
    """

    name: str
    kind: str
    steps: list[Step] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    input_names: list[str] = field(default_factory=list)
    outputs: Any = None
    finish: list[str | None] = field(default_factory=list)

    def every_step(self) -> Iterator[Step]:
        """Each step that is no model, those of nested models included."""
        for step in self.steps:
            if step.graph is None:
                yield step
            else:
                yield from step.graph.every_step()


@dataclass(frozen=True)
class Problem:
    """A layer that cannot be translated, and why."""

    layer: str
    kind: str
    reason: str


class Lowering:
    """Lowers a graph; `problems` takes up every layer that cannot be translated.

    rules: the user's own, by class name. stubs: write a class that raises in place of such a layer. arrays:
    those that the graph names, constants among them.
    """

    def __init__(
        self,
        rules: Mapping[str, SourceRule] | None = None,
        stubs: bool = False,
        arrays: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.rules, self.stubs, self.arrays = dict(rules or {}), stubs, dict(arrays or {})
        self.problems: list[Problem] = []
        self.stubbed: dict[str, Layer] = {}
        self._nested: dict[str, Lowered] = {}

    def lower(self, graph: Graph, path: str = "") -> Lowered:
        """The model that a graph becomes."""
        return _OfGraph(self, graph, path).run()

    def rule(self, layer: Layer) -> SourceRule | None:
        """The user's rule of a layer, else the table's."""
        return self.rules.get(layer.kind) or source_rule(layer)

    def refuse(self, path: str, layer: Layer, reason: str) -> None:
        """Take up a problem, once a layer."""
        if not any(problem.layer == path for problem in self.problems):
            self.problems.append(Problem(path, layer.kind, reason))


class _OfGraph:
    def __init__(self, whole: Lowering, graph: Graph, path: str) -> None:
        self.whole, self.graph, self.path = whole, graph, path
        self.out = Lowered(graph.name, graph.kind, input_names=graph.input_names)
        self.value_of: dict[int, int] = {}  # of Keras's tensors
        self.converted: dict[tuple[int, bool], int] = {}
        self.names: Counter[str] = Counter()
        self.named: dict[str, list[str]] = {}
        self.constants: dict[str, int] = {}  # tensors of arrays, below zero

    def run(self) -> Lowered:
        if self.graph.kind == "Subclass":
            self.subclass()
            return self.out
        for tensor in tensors(self.graph.inputs):
            value = self.of_tensor(tensor)
            value = Value(value.shape, value.rank > 3, value.dtype)
            self.value_of[tensor] = self.new(value)
            self.out.inputs.append(self.value_of[tensor])
        for call in self.graph.calls:
            self.call(call)
        if self.whole.problems and not self.whole.stubs:
            return self.out
        flat = [
            self.laid(self.value_of[t], self.out.values[self.value_of[t]].rank > 3)
            for t in tensors(self.graph.outputs)
        ]
        self.out.outputs = _filled(self.graph.outputs, iter(flat))
        self.out.steps = in_reading_order(self.out.steps)
        self.out.finish = [None] * len(flat)
        return self.out

    def subclass(self) -> None:
        whole = Layer(self.graph.name, "Model", "user")
        self.whole.refuse(
            self.path.rstrip("/") or self.graph.name,
            whole,
            "a subclassed model: its call is Python, from which no graph can be read: "
            f"{self.graph.refused or 'it has none'}; build it functionally",
        )
        for path, layer in self.graph.every_layer(self.path):
            if layer.graph is None and self.whole.rule(layer) is None:
                self.whole.refuse(path, layer, _no_rule(layer))

    def of_tensor(self, tensor: int) -> Value:
        found = self.graph.tensors[tensor]
        return Value(tuple(found.shape), dtype=found.dtype)

    def new(self, value: Value) -> int:
        self.out.values.append(value)
        return len(self.out.values) - 1

    def name(self, wanted: str) -> str:
        """An attribute's name that none has yet."""
        name = identifier(wanted)
        self.names[name] += 1
        return name if self.names[name] == 1 else self.name(f"{name}_{self.names[name]}")

    def laid(self, number: int, first: bool) -> int:
        """A value with its channels first, or last; below rank 3 there is nothing to lay."""
        value = self.out.values[number]
        if value.rank < 3 or value.first == first:
            return number
        if (number, first) not in self.converted:
            new = self.new(Value(value.shape, first, value.dtype))
            text = "{0}.movedim(-1, 1)" if first else "{0}.movedim(1, -1)"
            module = Module("ChannelsFirst" if first else "ChannelsLast")
            name = self.name("channels_first" if first else "channels_last")
            step = Step(name, "", "Layout", [number], [new], module, text, auto=True)
            self.out.steps.append(step)
            self.converted[number, first] = new
            self.converted[new, not first] = number
        return self.converted[number, first]

    def call(self, call: Call) -> None:
        layer, path = self.graph.layers[call.layer], f"{self.path}{call.layer}"
        given = [*tensors(call.args), *tensors(call.kwargs)]
        if missing := [t for t in given if t not in self.value_of]:
            assert self.whole.problems, missing
            return self.skip(call, given)
        if layer.kind in UNMASKED:
            call = replace(call, kwargs={k: v for k, v in call.kwargs.items() if k != "mask"})
        if layer.graph is None:
            values = [self.out.values[self.value_of[t]] for t in given if layer.kind in ELEMENTWISE]
            like = max(values, key=lambda value: value.rank, default=Value(()))
            call = replace(call, args=self.held(call.args, like), kwargs=self.held(call.kwargs, like))
        numbers = [self.value_of[t] for t in (*tensors(call.args), *tensors(call.kwargs))]
        if layer.graph is not None:
            return self.model(call, layer, numbers)
        rule = self.whole.rule(layer)
        if rule is None:
            return self.refused(call, layer, path, numbers, _no_rule(layer))
        try:
            self.check(call, layer)
            self.write(call, layer, path, rule, numbers)
        except Untranslatable as error:
            self.refused(call, layer, path, numbers, str(error))
        return None

    def held(self, argument: Any, like: Value) -> Any:
        """An argument with its constants as numbers, those of many elements as tensors of modules.

        like: what they are broadcast with, whose rank they get by axes of one element in front.
        """
        if isinstance(argument, list):
            return [self.held(inner, like) for inner in argument]
        if not isinstance(argument, dict):
            return argument
        if "array" not in argument:
            return {key: self.held(inner, like) for key, inner in argument.items()}
        array = self.whole.arrays[argument["array"]]
        if array.size == 1:
            return array.item()
        shape = (1,) * (like.rank - array.ndim) + array.shape
        first = like.first and len(shape) > 2
        tensor = self.constants.setdefault(argument["array"], -1 - len(self.constants))
        if tensor not in self.value_of:
            number = self.value_of[tensor] = self.new(Value(shape, first, str(array.dtype)))
            dtype = {} if array.dtype.kind == "f" else {"dtype": Code(f"torch.{array.dtype}")}
            sizes = (*shape[:1], *shape[-1:], *shape[1:-1]) if first else shape
            module = Module("Constant", {"*shape": sizes, **dtype})
            name = self.name("constant")
            self.out.steps.append(Step(name, argument["array"], "Constant", [], [number], module))
        return {"tensor": tensor}

    def skip(self, call: Call, given: list[int]) -> None:
        """Behind a layer that was refused: only what else cannot be translated is of interest."""
        layer, path = self.graph.layers[call.layer], f"{self.path}{call.layer}"
        if layer.graph is not None:
            self.whole.lower(layer.graph, f"{path}/")
        elif self.whole.rule(layer) is None:
            self.whole.refuse(path, layer, _no_rule(layer))

    def refused(self, call: Call, layer: Layer, path: str, numbers: list[int], reason: str) -> None:
        self.whole.refuse(path, layer, reason)
        if not self.whole.stubs:
            # What it gives is taken to be channels last, so that the layers behind it are looked at, too.
            for tensor in call.outputs:
                self.value_of[tensor] = self.new(self.of_tensor(tensor))
            return
        self.whole.stubbed[path] = layer
        name = camel(call.layer)
        inputs = [self.laid(number, False) for number in numbers]
        outputs = [self.new(self.of_tensor(tensor)) for tensor in call.outputs]
        self.out.steps.append(Step(self.name(call.layer), path, layer.kind, inputs, outputs, Module(name)))
        self.value_of |= dict(zip(call.outputs, outputs, strict=True))

    def check(self, call: Call, layer: Layer) -> None:
        """Raise Untranslatable for what no rule looks at."""
        if "mask" in call.kwargs and layer.kind not in {*MASKED, *self.whole.rules}:
            raise Untranslatable("it is given a mask")
        if str(layer.settings.get("dtype", "float32")) not in ("float32", "float64"):
            raise Untranslatable(f"it computes in {layer.settings['dtype']}: give it float32")

    def write(self, call: Call, layer: Layer, path: str, rule: SourceRule, numbers: list[int]) -> None:
        inputs = self.arranged(numbers, rule.layout)
        places = iter(range(len(inputs)))
        args, kwargs = _placed(call.args, places), _placed(call.kwargs, places)
        outputs = [self.of_tensor(tensor) for tensor in call.outputs]
        try:
            of = CallOf([self.out.values[n] for n in inputs], outputs, args, kwargs)
            pieces = rule.write(layer, of)
        except Relaid as error:
            inputs = [self.laid(number, str(error) == "first") for number in inputs]
            of = CallOf([self.out.values[n] for n in inputs], outputs, args, kwargs)
            pieces = rule.write(layer, of)
        pieces = list(pieces)
        if norms := activity(layer):
            pieces.append(Module("ActivityPenalty", dict(norms), "activity"))
        self.append(call, layer, path, pieces, inputs, outputs)

    def arranged(self, numbers: list[int], layout: str) -> list[int]:
        values = [self.out.values[number] for number in numbers if self.out.values[number].rank > 2]
        if layout == "any":
            if len({value.first for value in values}) < 2:
                return numbers
            layout = "first" if any(value.rank > 3 for value in values) else "last"
        return [self.laid(number, layout == "first") for number in numbers]

    def append(
        self,
        call: Call,
        layer: Layer,
        path: str,
        pieces: list[Piece],
        inputs: list[int],
        outputs: list[Value],
    ) -> None:
        first = bool(inputs) and self.out.values[inputs[0]].first
        again = self.named.get(call.layer)  # a layer's second call is of the same modules
        names = iter(again or [])
        made = []
        for index, piece in enumerate(pieces):
            last = index == len(pieces) - 1
            first = first if piece.first is None else piece.first
            kinds = outputs if last else outputs[:1]
            numbers = [self.new(Value(v.shape, first and v.rank > 2, v.dtype)) for v in kinds]
            suffix = piece.suffix if isinstance(piece, Module) else ""
            wanted = f"{call.layer}_{suffix}" if suffix else call.layer
            if again is None and _many(pieces, index) and not suffix:
                wanted = f"{call.layer}_{index}"
            name = next(names) if again else self.name(wanted)
            made.append(name)
            step = Step(name, path, layer.kind, inputs, numbers, auto=_is_auto(layer))
            step.comment = piece.comment
            if isinstance(piece, Module):
                piece.frozen = layer.frozen and bool(layer.weights)
                step.module = piece
                if piece.inline:
                    step.expression = piece.inline
            else:
                step.module, step.expression = piece.module, piece.text
            if again is not None and step.module is not None:
                self.shared(name)
            self.out.steps.append(step)
            inputs = numbers
        self.named[call.layer] = made
        self.value_of |= dict(zip(call.outputs, inputs, strict=True))

    def shared(self, name: str) -> None:
        """A module that is called twice is no part of a block that repeats."""
        for step in self.out.steps:
            if step.name == name:
                step.kind = f"{step.kind} (shared)"

    def model(self, call: Call, layer: Layer, numbers: list[int]) -> None:
        assert layer.graph is not None
        path = f"{self.path}{call.layer}"
        nested = self.whole._nested.get(path)
        if nested is None:
            nested = self.whole._nested[path] = self.whole.lower(layer.graph, f"{path}/")
        inputs = [self.laid(number, self.out.values[number].rank > 3) for number in numbers]
        outputs = []
        for tensor in call.outputs:
            value = self.of_tensor(tensor)
            outputs.append(self.new(Value(value.shape, value.rank > 3, value.dtype)))
        again = self.named.get(call.layer)
        name = again[0] if again else self.name(call.layer)
        self.named[call.layer] = [name]
        self.out.steps.append(Step(name, path, "Model", inputs, outputs, graph=nested))
        self.value_of |= dict(zip(call.outputs, outputs, strict=True))
        return


def activity(layer: Layer) -> dict[str, float]:
    """The factors l1 and l2 of a layer's activity regularizer; empty where it has none, or another one."""
    given = layer.penalties.get("activity")
    settings = given["settings"] if isinstance(given, dict) else {}
    if layer.kind == "ActivityRegularization":
        settings = layer.settings
    return {norm: settings[norm] for norm in ("l1", "l2") if settings.get(norm)}


def in_reading_order(steps: list[Step]) -> list[Step]:
    """Each step right before the first that needs what it gives; branches keep their order.

    The graph comes with branches in the reverse of the order in which they are to be read.
    """
    ordered: list[Step] = []
    for step in reversed(steps):
        users = [i for i, other in enumerate(ordered) if set(step.outputs) & set(other.inputs)]
        ordered.insert(min(users, default=len(ordered)), step)
    return ordered


def strip(lowered: Lowered, output: int, allowed: tuple[str, ...]) -> str | None:
    """Take the softmax or sigmoid off the end of a model's output; returns which, or None.

    output: its position. allowed: which may be taken.
    """
    flat = list(tensors_of(lowered.outputs))
    number = flat[output]
    users = sum(step.inputs.count(number) for step in lowered.steps) + flat.count(number)
    makers = [step for step in lowered.steps if number in step.outputs]
    if users != 1 or not makers:
        return None
    step = makers[0]
    if step.graph is not None:
        if sum(other.graph is step.graph for other in lowered.steps) > 1:
            return None
        return strip(step.graph, step.outputs.index(number), allowed)
    name = "" if step.module is None else step.module.name
    dim = {} if step.module is None else step.module.args
    which = {"nn.Softmax": "softmax", "nn.Sigmoid": "sigmoid"}.get(name)
    if which is None or which not in allowed or dim.get("dim", -1) not in (-1, 1):
        return None
    lowered.steps.remove(step)
    flat[output] = step.inputs[0]
    lowered.outputs = _filled(lowered.outputs, iter(flat))
    return which


def tensors_of(structure: Any) -> Iterator[int]:
    """The values in a structure of outputs."""
    if isinstance(structure, dict):
        for inner in structure.values():
            yield from tensors_of(inner)
    elif isinstance(structure, list):
        for inner in structure:
            yield from tensors_of(inner)
    else:
        yield structure


def identifier(name: str) -> str:
    """A Keras name as an attribute of a module: `1_conv` becomes `conv1`, where it must not begin with a
    digit."""
    name = re.sub(r"\W", "_", name).strip("_") or "layer"
    if match := re.match(r"(\d+)_(.+)", name):
        number, rest = match.groups()
        head, _, tail = rest.partition("_")
        name = head + number + (f"_{tail}" if tail else "")
    if name[0].isdigit():
        name = f"layer_{name}"
    return f"{name}_" if keyword.iskeyword(name) or name in RESERVED else name


def camel(name: str) -> str:
    """A name as a class has it: mobilenetv2_1.00_96 becomes MobilenetV2."""
    words = [word for word in re.split(r"[^A-Za-z0-9]+", name) if word]
    return "".join(word[0].upper() + word[1:] for word in words) or "Model"


def snake(kind: str) -> str:
    """The name that Keras gives a layer of a class that its user did not name."""
    spaced = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", re.sub(r"\W+", "", kind))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", spaced).lower()


def _is_auto(layer: Layer) -> bool:
    return re.fullmatch(rf"{re.escape(snake(layer.kind))}(_\d+)?", layer.name) is not None


def _many(pieces: list[Piece], index: int) -> bool:
    """Whether another piece has the name that this one would get."""
    return any(i != index and isinstance(p, Module) and not p.suffix for i, p in enumerate(pieces))


def _no_rule(layer: Layer) -> str:
    if layer.kind == "Lambda":
        return "a Lambda holds Python code: write it with keras.ops, or as a layer with a rule of its own"
    if layer.of_keras:
        return f"{layer.kind} has no source rule yet"
    return "a custom layer"


def _placed(value: Any, places: Iterator[int]) -> Any:
    """Arguments with their tensors as placeholders."""
    if isinstance(value, dict):
        if "tensor" in value:
            return Code(f"{{{next(places)}}}")
        return {key: _placed(inner, places) for key, inner in value.items()}
    return [_placed(inner, places) for inner in value] if isinstance(value, list) else value


def _filled(structure: Any, values: Iterator[int]) -> Any:
    """A structure of outputs with values for its tensors."""
    if isinstance(structure, dict):
        if "tensor" in structure:
            return next(values)
        return {key: _filled(inner, values) for key, inner in structure.items()}
    if isinstance(structure, list):
        return [_filled(inner, values) for inner in structure]
    return next(values)
