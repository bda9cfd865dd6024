"""Writes model.py: the classes of blocks and nested models, the network, and `build`."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning_impl.layers.source import Code, Module
from lightning_impl.migrate.blocks import Block, Template, find_blocks
from lightning_impl.migrate.forward import Line, body
from lightning_impl.migrate.lowering import Lowered, Step, camel, identifier, tensors_of

INDENT = "    "


@dataclass
class Source:
    """A written model.py with what it takes from keras_semantics.

    entry: the function or class of the network.
    """

    text: str
    pieces: list[str]
    entry: str


@dataclass
class _Writer:
    parts: list[str] = field(default_factory=list)
    pieces: set[str] = field(default_factory=set)
    names: Counter[str] = field(default_factory=Counter)
    written: dict[int, str] = field(
        default_factory=dict
    )  # nested models by identity, the call that builds them
    imports: set[str] = field(default_factory=set)


def render(lowered: Lowered, doc: str, stubs: Mapping[str, str] | None = None) -> Source:
    """The source of a model. doc: the module's docstring.

    stubs: source of classes that stand for what has no rule.
    """
    stubs = stubs or {}
    writer = _Writer(parts=list(stubs.values()), names=Counter(stubs.keys()))
    entry = _model(writer, lowered)
    text = "\n\n\n".join([*writer.parts, _build(entry, lowered)])
    pieces = sorted(piece for piece in writer.pieces)
    return Source(_header(doc, text, pieces, writer.imports) + text + "\n", pieces, entry)


def _header(doc: str, text: str, pieces: list[str], more: set[str]) -> str:
    lines = [f'"""{doc}"""', "", "from __future__ import annotations", ""]
    if "OrderedDict" in text:
        lines.append("from collections import OrderedDict")
    lines += ["from pathlib import Path", ""]
    if re.search(r"\btorch\.", text):
        lines.append("import torch")
    lines += [f"import {name}" for name in sorted(more)]
    lines.append("from safetensors.torch import load_file")
    names = [name for name in ("Tensor", "nn") if re.search(rf"\b{name}\b", text)]
    lines.append(f"from torch import {', '.join(names)}")
    if re.search(r"\bF\.", text):
        lines.append("from torch.nn import functional as F")
    if pieces:
        lines += ["", f"from .keras_semantics import {', '.join(pieces)}"]
    return "\n".join(lines) + "\n\n\n"


def _build(entry: str, lowered: Lowered) -> str:
    gives = _gives(lowered)
    return textwrap.dedent(
        f'''
        def build(weights: Path | None = Path(__file__).with_name("weights.safetensors")) -> nn.Module:
            """The network with its weights; with None, as torch draws them.

            It gives {gives}.
            """
            network = {entry}()
            if weights is not None:
                network.load_state_dict(load_file(weights))
            return network
        '''
    ).strip()


def _gives(lowered: Lowered) -> str:
    what = {
        "softmax": "logits, of which Keras's model gives the softmax",
        "sigmoid": "logits, of which Keras's model gives the sigmoid",
        None: "what Keras's model gives",
    }
    told = list(dict.fromkeys(what[finish] for finish in lowered.finish))
    return " and ".join(told)


# === Models ===


def _model(writer: _Writer, lowered: Lowered) -> str:
    """Write a model, its blocks and those nested in it; returns the name of what builds it."""
    if id(lowered) in writer.written:
        return writer.written[id(lowered)]
    for step in lowered.steps:
        if step.graph is not None:
            name = _model(writer, step.graph)
            step.module = Module(name)
    templates = find_blocks(lowered)
    _unique(writer, lowered, templates)
    for template in templates:
        writer.parts.append(_template(writer, template, lowered))
    chain = _is_chain(lowered)
    name = identifier(re.sub(r"\W", "_", lowered.name)) if chain else camel(lowered.name)
    if chain and name in ("build", "x"):
        name = f"{name}_network"
    writer.names[name] += 1
    if writer.names[name] > 1:
        name = f"{name}_{writer.names[name]}" if chain else f"{name}{writer.names[name]}"
    writer.parts.append(_chain(writer, lowered, name) if chain else _class(writer, lowered, name))
    writer.written[id(lowered)] = name
    return name


def _unique(writer: _Writer, lowered: Lowered, templates: list[Template]) -> None:
    """Give the classes of blocks names that no class of this file and no piece has."""
    for template in templates:
        name, before = template.name, template.name
        if writer.names[name] or name in PIECES or name == camel(lowered.name):
            base = camel(lowered.name) + name if name not in (camel(lowered.name),) else f"{name}Block"
            name, number = base, 2
            while writer.names[name]:
                name, number = f"{base}{number}", number + 1
        writer.names[name] += 1
        template.name = name
        for step in [
            *lowered.steps,
            *(s for t in templates for slot in t.slots for s in slot.steps if s is not None),
        ]:
            if isinstance(step, Block) and step.template is template and step.module is not None:
                step.module.name = name
        _ = before


PIECES: set[str] = set()


def _is_chain(lowered: Lowered) -> bool:
    """Whether each step takes what the one before it gives, so that nn.Sequential holds them."""
    if len(lowered.inputs) != 1 or not isinstance(lowered.outputs, list | int):
        return False
    flat = list(tensors_of(lowered.outputs))
    if len(flat) != 1 or isinstance(lowered.outputs, list):
        return False
    value = lowered.inputs[0]
    for step in lowered.steps:
        one = step.inputs == [value] and len(step.outputs) == 1
        if (
            not one
            or (step.module is None and step.graph is None)
            or (step.module is not None and step.module.call)
        ):
            return False
        if step.kind.endswith("(shared)"):
            return False
        value = step.outputs[0]
    return value == flat[0] and bool(lowered.steps)


def chains(lowered: Lowered, path: str = "") -> set[str]:
    """The paths of the modules whose steps are all modules: nn.Sequentials."""
    found = {path} if _is_chain(lowered) else set()
    for step in lowered.steps:
        here = f"{path}.{step.name}" if path else step.name
        if step.graph is not None:
            found |= chains(step.graph, here)
        elif isinstance(step, Block) and step.template is not None and _is_sequence(step.template):
            found.add(here)
    return found


def _chain(writer: _Writer, lowered: Lowered, name: str) -> str:
    lines = [f"def {name}() -> nn.Sequential:", f'{INDENT}"""{_shapes(lowered)}"""']
    lines.append(f"{INDENT}layers: OrderedDict[str, nn.Module] = OrderedDict()")
    told: set[str] = set()
    steps, position = lowered.steps, 0
    while position < len(steps):
        count = _run(steps, position)
        step = steps[position]
        text = _constructed(writer, step, step.module)
        if count >= 3:
            match = re.fullmatch(r"(.*?)(\d+)(\D*)", step.name)
            assert match is not None
            head, first, tail = match.groups()
            variable = "block" if isinstance(step, Block) else "number"
            lines.append(f"{INDENT}for {variable} in range({first}, {int(first) + count}):")
            lines += _commented(
                f'layers[f"{head}{{{variable}}}{tail}"] = {text}', step.comment, told, 2 * INDENT
            )
            position += count
        else:
            lines += _commented(f'layers["{step.name}"] = {text}', step.comment, told, INDENT)
            position += 1
    lines.append(f"{INDENT}return nn.Sequential(layers)")
    return "\n".join(lines)


def _run(steps: Sequence[Step], position: int) -> int:
    """How many steps from here on differ in a number of their names alone, which counts up."""
    match = re.fullmatch(r"(.*?)(\d+)(\D*)", steps[position].name)
    if match is None:
        return 1
    head, first, tail = match.groups()
    made = _arguments(steps[position])
    count = 1
    while position + count < len(steps):
        step = steps[position + count]
        if (
            step.name != f"{head}{int(first) + count}{tail}"
            or _arguments(step) != made
            or first.startswith("0")
        ):
            break
        count += 1
    return count


def _arguments(step: Step) -> Any:
    module = step.module
    return None if module is None else (module.name, repr(module.args), module.frozen, step.comment)


def _class(writer: _Writer, lowered: Lowered, name: str) -> str:
    told: set[str] = set()
    lines = [f"class {name}(nn.Module):", f'{INDENT}"""{_shapes(lowered)}"""', ""]
    lines += [f"{INDENT}def __init__(self) -> None:", f"{2 * INDENT}super().__init__()"]
    seen: set[str] = set()
    for step in lowered.steps:
        if step.name in seen or not _has_module(step):
            continue
        seen.add(step.name)
        text = f"self.{step.name} = {_constructed(writer, step, step.module)}"
        lines += _commented(text, step.comment, told, 2 * INDENT)
    steps = [Line(step.name, step, list(step.inputs), list(step.outputs)) for step in lowered.steps]
    inputs = _input_names(lowered)
    flat = list(tensors_of(lowered.outputs))
    statements = body(steps, inputs, lambda read: _structure(lowered.outputs, read), flat)
    arguments = ", ".join(f"{name}: Tensor" for name in inputs.values())
    lines += ["", f"{INDENT}def forward(self, {arguments}) -> {_annotation(lowered.outputs)}:"]
    lines += [f"{2 * INDENT}{statement}" for statement in statements]
    return "\n".join(lines)


def _input_names(lowered: Lowered) -> dict[Hashable, str]:
    """The arguments of a forward by value."""
    if len(lowered.inputs) == 1:
        value = lowered.inputs[0]
        uses = [i for i, step in enumerate(lowered.steps) if value in step.inputs]
        return {value: "x" if uses in ([], [0]) else "inputs"}
    names: dict[Hashable, str] = {}
    for number, name in zip(lowered.inputs, lowered.input_names, strict=True):
        wanted = identifier(name)
        names[number] = wanted if wanted not in names.values() else f"{wanted}_{len(names)}"
    return names


def _structure(outputs: Any, read: Callable[[Hashable], str]) -> str:
    if isinstance(outputs, dict):
        return "{" + ", ".join(f'"{key}": {_structure(inner, read)}' for key, inner in outputs.items()) + "}"
    if isinstance(outputs, list):
        inner = [_structure(value, read) for value in outputs]
        return inner[0] + "," if len(inner) == 1 else ", ".join(inner)
    return read(outputs)


def _annotation(outputs: Any) -> str:
    if isinstance(outputs, dict):
        return "dict[str, Tensor]"
    if isinstance(outputs, list):
        return f"tuple[{', '.join(_annotation(value) for value in outputs)}]"
    return "Tensor"


def _shapes(lowered: Lowered) -> str:
    """What a model takes and gives, in torch's shapes."""

    def shape(number: int) -> str:
        value = lowered.values[number]
        sizes = [
            ("N" if i == 0 else "?") if size is None else str(size) for i, size in enumerate(value.shape)
        ]
        if value.first and len(sizes) > 2:
            sizes = [sizes[0], sizes[-1], *sizes[1:-1]]
        return f"({', '.join(sizes)})"

    given = ", ".join(shape(number) for number in lowered.inputs)
    gives = ", ".join(shape(number) for number in tensors_of(lowered.outputs))
    return f"Keras's `{lowered.name}`: {given} -> {gives}."


# === Blocks ===


def _template(writer: _Writer, template: Template, lowered: Lowered) -> str:
    names = template.instances
    listed = ", ".join(names) if len(names) <= 3 else f"{names[0]}, {names[1]} to {names[-1]}"
    doc = f'{INDENT}"""{listed}, of {lowered.name}."""'
    lines = [f"class {template.name}(nn.Module):", doc, ""]
    told: set[str] = set()
    sequential = _is_sequence(template)
    if sequential:
        lines[0] = f"class {template.name}(nn.Sequential):"
    given = [
        f"{p.name}: {p.annotation}" + ("" if p.default is ... else f" = {_literal(p.default)}")
        for p in template.parameters
    ]
    lines.append(f"{INDENT}def __init__({', '.join(['self', *given])}) -> None:")
    lines.append(f"{2 * INDENT}super().__init__()")
    lines += _slots(writer, template, told, sequential)
    if not sequential:
        lines += _template_forward(template)
    return "\n".join(lines)


def _is_sequence(template: Template) -> bool:
    """Whether a class of blocks runs its steps one after another, all of them modules."""
    if template.present or template.inputs != 1:
        return False
    for index, slot in enumerate(template.slots):
        step = _first(slot.steps)
        expected = ("in", 0) if index == 0 else ("slot", index - 1)
        if slot.refs != [expected] or step.module is None or step.module.call:
            return False
    return template.output == ("slot", len(template.slots) - 1)


def _slots(writer: _Writer, template: Template, told: set[str], sequential: bool) -> list[str]:
    lines: list[str] = []
    flags = _flags(template)
    for condition, attribute in flags.items():
        if attribute != _single(template, condition):
            lines.append(f"{2 * INDENT}self.{attribute} = {condition}")
    index = 0
    while index < len(template.slots):
        condition = template.present.get(index)
        slot = template.slots[index]
        text = _slot_text(writer, template, index, sequential)
        step = _first(slot.steps)
        if condition is None:
            if text:
                lines += _commented(f"self.{slot.name} = {text}", step.comment, told, 2 * INDENT)
        elif _single(template, condition) == slot.name:
            if text:
                line = f"self.{slot.name} = {text} if {condition} else None"
                lines += _commented(line, step.comment, told, 2 * INDENT)
        elif text:
            opening = f"{2 * INDENT}if {condition}:"
            previous = template.present.get(index - 1)
            if previous != condition or not any(line == opening for line in lines):
                lines.append(opening)
            lines += _commented(f"self.{slot.name} = {text}", step.comment, told, 3 * INDENT)
        index += 1
    return lines


def _single(template: Template, condition: str) -> str | None:
    """The slot that alone hangs on a condition, where it is a module."""
    slots = [j for j, present in template.present.items() if present == condition]
    step = _first(template.slots[slots[0]].steps)
    return template.slots[slots[0]].name if len(slots) == 1 and _has_module(step) else None


def _flags(template: Template) -> dict[str, str]:
    """By condition, the attribute that a forward asks."""
    flags = {}
    for condition in dict.fromkeys(template.present.values()):
        single = _single(template, condition)
        if single is not None:
            flags[condition] = single
        elif re.fullmatch(r"\w+", condition):
            flags[condition] = condition
        else:
            flags[condition] = {">": "strided", "=": "unstrided"}.get(condition.split()[-2][:1], "plain")
    return flags


def _slot_text(writer: _Writer, template: Template, index: int, sequential: bool) -> str:
    slot = template.slots[index]
    step = _first(slot.steps)
    if not (_has_module(step) or sequential) or step.module is None:
        return ""
    args = {}
    keys = dict.fromkeys(
        key for s in slot.steps if s is not None and s.module is not None for key in s.module.args
    )
    for key in sorted(keys, key=lambda k: not k.startswith("*")):
        parameter = template.arguments.get((index, key))
        if parameter is not None:
            args[key] = Code(parameter)
        else:
            args[key] = next(
                s.module.args[key]
                for s in slot.steps
                if s is not None and s.module is not None and key in s.module.args
            )
    frozen = step.module.frozen and not _whole_frozen(template)
    return _constructed(writer, step, Module(step.module.name, args, frozen=frozen))


def _whole_frozen(template: Template) -> bool:
    from lightning_impl.migrate.blocks import _frozen

    flags = [flag for slot in template.slots for s in slot.steps if s is not None for flag in _frozen(s)]
    return bool(flags)


def _template_forward(template: Template) -> list[str]:
    flags = _flags(template)
    lines = []
    for index, slot in enumerate(template.slots):
        condition = template.present.get(index)
        asked = None
        if condition is not None:
            attribute = flags[condition]
            single = _single(template, condition) == attribute
            asked = f"self.{attribute} is not None" if single else f"self.{attribute}"
        passes = slot.refs[slot.skip] if condition is not None else None
        lines.append(Line(slot.name, _first(slot.steps), list(slot.refs), [("slot", index)], asked, passes))
    uses = [i for i, line in enumerate(lines) if ("in", 0) in (*line.inputs, line.passes)]
    if template.inputs == 1:
        names: dict[Hashable, str] = {("in", 0): "x" if uses in ([], [0]) else "inputs"}
    else:
        names = {("in", k): f"inputs{k + 1}" for k in range(template.inputs)}
    statements = body(lines, names, lambda read: read(template.output), [template.output])
    arguments = ", ".join(f"{name}: Tensor" for name in names.values())
    return [
        "",
        f"{INDENT}def forward(self, {arguments}) -> Tensor:",
        *(f"{2 * INDENT}{s}" for s in statements),
    ]


def _first(steps: Iterable[Step | None]) -> Step:
    return next(step for step in steps if step is not None)


# === Lines ===


def _has_module(step: Step) -> bool:
    """Whether a step stands in `__init__`, where the forward does not write it as an expression."""
    return step.module is not None and not step.expression


def _constructed(writer: _Writer, step: Step, module: Module | None) -> str:
    """The call that makes a step's module."""
    if module is None:
        assert step.graph is not None
        return f"{writer.written[id(step.graph)]}()"
    if (
        step.graph is None
        and not isinstance(step, Block)
        and "." not in module.name
        and module.name not in writer.names
    ):
        writer.pieces.add(module.name)
    elif "." in module.name and not module.name.startswith(("nn.", "torch.")):
        writer.imports.add(module.name.rpartition(".")[0])
    given = sorted(module.args.items(), key=lambda item: not item[0].startswith("*"))
    arguments = [_literal(v) if k.startswith("*") else f"{k}={_literal(v)}" for k, v in given]
    text = f"{module.name}({', '.join(arguments)})"
    return f"{text}.requires_grad_(False)" if module.frozen else text


def _literal(value: Any) -> str:
    if isinstance(value, str) and not isinstance(value, Code):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, float) and value == int(value) and abs(value) > 1e15:
        return repr(value)
    return repr(value)


def _commented(text: str, comment: str, told: set[str], indent: str) -> list[str]:
    """A line with its comment, behind it where there is room; each comment is told once."""
    if not comment or comment in told:
        return [f"{indent}{text}"]
    told.add(comment)
    if len(indent) + len(text) + len(comment) + 4 <= 100:
        return [f"{indent}{text}  # {comment}"]
    return [f"{indent}# {comment}", f"{indent}{text}"]
