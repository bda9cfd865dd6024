"""Finds what repeats in a model's steps and makes a class of it: blocks by their names, units by their
structure.

A block is a set of steps of which one value alone is used outside. Blocks of one class may lack steps that
the
others have: without such a step its input passes through.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lightning_impl.layers.source import Module
from lightning_impl.migrate.lowering import Lowered, Step, camel, identifier, snake, tensors_of

CHANNELS = {
    *("in_channels", "out_channels", "channels", "groups", "in_features", "out_features", "num_channels"),
    *("normalized_shape", "num_features", "num_parameters", "features", "units", "embed_dim"),
}
# What torch takes where an argument is left out.
DEFAULTS: dict[str, Any] = {
    "stride": 1,
    "padding": 0,
    "dilation": 1,
    "groups": 1,
    "bias": True,
    "output_padding": 0,
    "epsilon": 1e-3,
    "momentum": 0.99,
    "scale": True,
    "center": True,
    "p": 0.5,
    "dropout": 0.0,
    "return_sequences": False,
    "count_include_pad": True,
    "value": 0.0,
    "keepdim": False,
    "kdim": None,
}
MERGES = ("Add", "Multiply", "Concatenate", "Subtract", "Average", "Maximum", "CustomScaleLayer")
NORMS = ("BatchNormalization", "LayerNormalization", "GroupNormalization")
ACTIVATIONS = ("Activation", "ReLU", "LeakyReLU", "ELU", "PReLU", "Softmax", "Dropout")
UNIT = 5  # the most steps of a unit: one weighted layer with its padding, norm and activation
Ref = tuple[str, int]  # ("in", k), the block's k-th input, or ("slot", j), what its j-th slot gives


@dataclass
class Slot:
    """A step of a class of blocks: by instance, None where it lacks the step. skip: the input that passes."""

    name: str
    steps: list[Step | None]
    refs: list[Ref]
    skip: int = 0


@dataclass
class Parameter:
    """An argument of a class: its value in each instance. default: what is left out in a call."""

    name: str
    values: list[Any]
    default: Any = ...

    @property
    def annotation(self) -> str:
        kinds = {type(value) for value in self.values}
        if tuple in kinds:
            return "int | tuple[int, ...]" if int in kinds else "tuple[int, ...]"
        if float in kinds:
            return "float"
        if str in kinds and len(kinds) > 1:
            return "int | str"
        return kinds.pop().__name__ if len(kinds) == 1 else "int"


@dataclass
class Template:
    """A class of blocks. arguments: by slot and argument, the parameter that gives it. present: by slot, the
    condition under which it is there."""

    name: str
    slots: list[Slot]
    inputs: int
    output: Ref
    instances: list[str]
    parameters: list[Parameter] = field(default_factory=list)
    arguments: dict[tuple[int, str], str] = field(default_factory=dict)
    present: dict[int, str] = field(default_factory=dict)

    def steps(self, instance: int) -> list[tuple[Slot, Step]]:
        """The slots that an instance has."""
        return [(slot, step) for slot in self.slots if (step := slot.steps[instance]) is not None]


@dataclass
class Block(Step):
    """A call of an instance of a class of blocks."""

    template: Template | None = None
    instance: int = 0


def find_blocks(lowered: Lowered) -> list[Template]:
    """Put blocks in the place of what repeats in a model's steps; returns the classes, inner ones first.

    Names lead to blocks that a reader knows; where they mislead, structure alone gives shorter source.
    """
    steps, found = list(lowered.steps), []
    for by_name in (True, False):
        lowered.steps = list(steps)
        finder = _Finder(lowered)
        finder.units()
        if by_name:
            finder.named()
        finder.structures()
        found.append((_length(finder), lowered.steps, finder.templates))
    (named, *_), (plain, *_) = found
    _, lowered.steps, templates = found[0] if named <= 1.5 * plain else found[1]
    return templates


def _length(finder: _Finder) -> int:
    """About how many lines the source of a model has: two for each step, and more for each class."""
    classes = sum(8 + len(template.slots) + len(template.parameters) for template in finder.templates)
    return len(finder.steps) + classes


class _Finder:
    def __init__(self, lowered: Lowered) -> None:
        self.lowered = lowered
        self.templates: list[Template] = []
        self.class_names: Counter[str] = Counter()
        self.begun: dict[str, list[int]] = {}  # where steps stand, by the beginnings of their names

    @property
    def steps(self) -> list[Step]:
        return self.lowered.steps

    def uses(self) -> dict[int, list[int]]:
        """By value, the positions of the steps that use it; one past the last for the model's outputs."""
        uses: dict[int, list[int]] = defaultdict(list)
        for position, step in enumerate(self.steps):
            for number in step.inputs:
                uses[number].append(position)
        for number in tensors_of(self.lowered.outputs):
            uses[number].append(len(self.steps))
        return uses

    # === By structure ===

    def units(self) -> None:
        """A weighted layer that Keras named, with the norm and the activation that follow it."""
        while found := self.best_repeat(UNIT, self.is_unit, 12):
            self.make_exact(*found)

    def is_unit(self, steps: Sequence[Step]) -> bool:
        heavy = [step for step in steps if _is_heavy(step)]
        alike = all(step.auto and step.graph is None for step in steps)
        return alike and len(heavy) == 1 and _is_heavy(steps[0]) and not isinstance(steps[0], Block)

    def structures(self) -> None:
        """Whatever else repeats, the largest saving first."""
        for _ in range(12):
            found = self.best_repeat(120, _is_structure, 8)
            if not found:
                return
            self.make_exact(*found)

    def best_repeat(self, longest: int, fits: Any, least: int) -> tuple[list[int], int] | None:
        """Where equal runs of steps begin, and their length, with the largest saving of at least `least`."""
        steps, uses = self.steps, self.uses()
        made = {number: position for position, step in enumerate(steps) for number in step.outputs}
        last_use = [max((max(uses[n], default=-1) for n in step.outputs), default=-1) for step in steps]
        groups: dict[Any, list[int]] = defaultdict(list)
        kinds = [hash(_signature(step)) for step in steps]
        may = [_repeats(step) for step in steps]
        for start in range(len(steps)):
            outside: dict[int, int] = {}
            signature: Any = ()
            reach = -1
            for position in range(start, min(start + longest, len(steps))):
                step = steps[position]
                if not may[position]:
                    break
                refs = []
                for number in step.inputs:
                    maker = made.get(number, -1)
                    inside = maker >= start
                    refs.append(
                        position - maker if inside else ("in", outside.setdefault(number, len(outside)))
                    )
                signature = hash((signature, kinds[position], tuple(refs)))
                if position > start and reach <= position and len(step.outputs) == 1 and outside:
                    length = position - start + 1
                    groups[length, signature].append(start)
                reach = max(reach, last_use[position])
        best, chosen = least - 1, None
        for (length, _), starts in groups.items():
            apart = _apart(starts, length)
            saved = (len(apart) - 1) * length
            if len(apart) < 2 or saved < best or (saved == best and chosen):
                continue
            if length < 3 and len(apart) < 4:
                continue
            if fits(steps[apart[0] : apart[0] + length]):
                best, chosen = saved, (apart, length)
        return chosen

    def make_exact(self, starts: list[int], length: int) -> None:
        """A class of runs that are alike, step by step."""
        runs = [self.steps[start : start + length] for start in starts]
        names = _common_names(runs)
        name = _class_of(runs, self.lowered.name)
        # A run whose last step its user named goes by that name, one of Keras's own by that of its first.
        named = [run[0].name if run[-1].auto else run[-1].name for run in runs]
        self.make(name, [list(zip(names, run, strict=True)) for run in runs], named)

    # === By name ===

    def named(self) -> None:
        """Blocks whose layers' names begin alike but for numbers: block_1_expand, block_2_expand."""
        while True:
            options = [option for option in self.options() if option]
            if not options:
                return
            _, pattern, groups = max(options, key=lambda option: option[0])
            for group in groups:
                instances = [local for _, local in group]
                prefixes = [prefix for prefix, _ in group]
                self.make(
                    _class_name(pattern, self.lowered.name), instances, [identifier(p) for p in prefixes]
                )

    def options(self) -> Iterable[tuple[int, str, list[Any]] | None]:
        """What each pattern of names would save, and the groups of instances that are of one class."""
        patterns: dict[str, dict[str, None]] = defaultdict(dict)
        self.begun = defaultdict(list)
        for position, step in enumerate(self.steps):
            if step.auto or isinstance(step, Block):
                continue
            for prefix in _prefixes(step):
                self.begun[prefix].append(position)
                if _repeats(step):
                    patterns[re.sub(r"\d+[a-z]?(?=_|$)", "#", prefix)][prefix] = None
        uses = self.uses()
        for pattern, prefixes in patterns.items():
            if "#" not in pattern or len(prefixes) < 2:
                continue
            found = {prefix: self.instance(prefix, uses) for prefix in prefixes}
            instances = [(prefix, local) for prefix, local in found.items() if local]
            groups = [instances] if _unify([local for _, local in instances]) else _alike(instances)
            groups = [group for group in groups if len(group) > 1]
            saved = sum(
                sum(len(local) for _, local in group) - max(len(local) for _, local in group)
                for group in groups
            )
            if saved > 3:
                yield saved, pattern, groups

    def instance(self, prefix: str, uses: dict[int, list[int]]) -> list[tuple[str, Step]]:
        """The steps of a block by their local names; none where more than one of its values is used
        outside."""
        inside = set(self.begun.get(prefix, ()))
        if len(inside) < 2 or not all(_repeats(self.steps[position]) for position in inside):
            return []
        self.close(inside, uses)
        outside = self.used_outside(inside, uses)
        if len(outside) == 1:
            position = outside[0]
            for number in self.steps[position].outputs:
                follower = self.steps[uses[number][0]] if uses[number] != [len(self.steps)] else None
                alone = len(set(uses[number])) == 1
                if follower is not None and alone and follower.auto and follower.kind in MERGES:
                    inside.add(uses[number][0])
                    self.close(inside, uses)
            outside = self.used_outside(inside, uses)
        if len(outside) != 1 or outside[0] != max(inside) or len(self.steps[outside[0]].outputs) != 1:
            return []
        steps = [self.steps[position] for position in sorted(inside)]
        if not all(map(_repeats, steps)) or len({bool(f) for s in steps for f in _frozen(s)}) > 1:
            return []
        return _local(steps, prefix)

    def close(self, inside: set[int], uses: dict[int, list[int]]) -> None:
        """Take in steps that the user did not name and whose values are used inside alone."""
        position = max(inside)
        while position >= 0:
            step = self.steps[position]
            users = {user for number in step.outputs for user in uses[number]}
            if position not in inside and step.auto and users and users <= inside and step.graph is None:
                inside.add(position)
            position -= 1

    def used_outside(self, inside: set[int], uses: dict[int, list[int]]) -> list[int]:
        return [p for p in inside if any(u not in inside for n in self.steps[p].outputs for u in uses[n])]

    # === Classes ===

    def make(self, name: str, instances: list[list[tuple[str, Step]]], names: list[str]) -> None:
        """Put blocks of a new class in the place of these steps."""
        unified = _unify(instances)
        assert unified is not None
        slots, inputs, output, given = unified
        self.class_names[name] += 1
        if self.class_names[name] > 1:
            name = f"{name}{'ABCDEFGHIJKLMNOPQRSTUVWXYZ'[self.class_names[name] - 1]}"
        template = Template(name, slots, inputs, output, names)
        parametrise(template)
        self.templates.append(template)
        taken = {step.name for step in self.steps} - {s.name for local in instances for _, s in local}
        for index, local in enumerate(instances):
            steps = [step for _, step in local]
            own = names[index]
            while own in taken:
                own += "_"
            taken.add(own)
            names[index] = own
            self.replace(steps, self.block(template, index, own, steps, given[index]))

    def block(self, template: Template, index: int, name: str, steps: list[Step], inputs: list[int]) -> Block:
        args = {}
        for parameter in template.parameters:
            value = parameter.values[index]
            if parameter.default is ...:
                args[f"*{parameter.name}"] = value
            elif value != parameter.default:
                args[parameter.name] = value
        frozen = [flag for step in steps for flag in _frozen(step)]
        for step in steps:
            if step.module is not None and not all(frozen):
                break
        module = Module(template.name, args, frozen=bool(frozen) and all(frozen))
        auto = all(step.auto for step in steps)
        kind = "Block" if auto else "NamedBlock"
        return Block(
            name, "", kind, inputs, steps[-1].outputs, module, auto=auto, template=template, instance=index
        )

    def replace(self, steps: list[Step], block: Block) -> None:
        gone = {id(step) for step in steps}
        at = max(position for position, step in enumerate(self.steps) if id(step) in gone)
        self.lowered.steps = [
            block if position == at else step
            for position, step in enumerate(self.steps)
            if position == at or id(step) not in gone
        ]


def parametrise(template: Template) -> None:
    """Find the arguments that differ between a class's instances, and make parameters of them."""
    count = len(template.instances)
    conditions = _conditions(template)
    kept: list[tuple[str, Parameter]] = []
    last_heavy = max((j for j, slot in enumerate(template.slots) if _heavy_slot(slot)), default=-1)
    for index, slot in enumerate(template.slots):
        modules = [None if step is None else step.module for step in slot.steps]
        keys = dict.fromkeys(key for module in modules if module is not None for key in module.args)
        for key in keys:
            plain = key.lstrip("*")
            default = _default(slot, plain)
            values = [... if m is None else m.args.get(key, default) for m in modules]
            cared = [value for value in values if value is not ...]
            if all(value == cared[0] and type(value) is type(cared[0]) for value in cared):
                continue
            group = "channels" if plain in CHANNELS or plain.endswith(("channels", "features")) else plain
            parameter = next((p for g, p in kept if g == group and _agree(p.values, values)), None)
            if parameter is None:
                parameter = Parameter(f"{slot.name}|{plain}|{index}", [...] * count)
                kept.append((group, parameter))
            parameter.values = [o if n is ... else n for o, n in zip(parameter.values, values, strict=True)]
            template.arguments[index, key] = parameter.name
    renamed = _parameter_names(template, kept, last_heavy)
    template.arguments = {place: renamed[name] for place, name in template.arguments.items()}
    for group, parameter in kept:
        parameter.name = renamed[parameter.name]
        cared = [value for value in parameter.values if value is not ...]
        common = Counter(map(repr, cared)).most_common(1)[0][0]
        usual = next(value for value in cared if repr(value) == common)
        parameter.values = [usual if value is ... else value for value in parameter.values]
        if group != "channels":
            parameter.default = usual
    strides = next((p for g, p in kept if g == "stride"), None)
    for group, parameter in list(kept):
        if (text := _from_stride(group, parameter, strides)) is not None:
            kept.remove((group, parameter))
            own = [place for place, name in template.arguments.items() if name == parameter.name]
            template.arguments |= dict.fromkeys(own, text)
    flags: list[Parameter] = []
    for present, slots in conditions.items():
        condition = _by_stride(present, strides)
        if condition is None:
            known = next(
                (f for f in flags if tuple(f.values) in (present, tuple(not p for p in present))), None
            )
            if known is None:
                name = _flag_name(template, slots, {p.name for p in (*flags, *(k for _, k in kept))})
                usual = sum(present) * 2 > len(present)
                known = Parameter(name, list(present), usual)
                flags.append(known)
            condition = known.name if tuple(known.values) == present else f"not {known.name}"
        template.present |= dict.fromkeys(slots, condition)
    parameters = [parameter for _, parameter in kept] + flags
    template.parameters = sorted(parameters, key=lambda p: (p.default is not ..., p.name != "in_channels"))


def _conditions(template: Template) -> dict[tuple[bool, ...], list[int]]:
    """The slots that some instances lack, by which do."""
    conditions: dict[tuple[bool, ...], list[int]] = defaultdict(list)
    for index, slot in enumerate(template.slots):
        present = tuple(step is not None for step in slot.steps)
        if not all(present):
            conditions[present].append(index)
    return conditions


def _by_stride(present: tuple[bool, ...], strides: Parameter | None) -> str | None:
    if strides is None or not all(isinstance(value, int) for value in strides.values):
        return None
    if tuple(value > 1 for value in strides.values) == present:
        return f"{strides.name} > 1"
    if tuple(value == 1 for value in strides.values) == present:
        return f"{strides.name} == 1"
    return None


def _from_stride(group: str, parameter: Parameter, strides: Parameter | None) -> str | None:
    """A parameter that the stride alone decides, as an expression."""
    if group == "channels" or strides is None or parameter is strides:
        return None
    if not all(isinstance(value, int) for value in strides.values):
        return None
    by: dict[bool, set[str]] = defaultdict(set)
    for stride, value in zip(strides.values, parameter.values, strict=True):
        by[stride > 1].add(repr(value))
    if len(by) == 2 and all(len(values) == 1 for values in by.values()):
        return f"{by[False].pop()} if {strides.name} == 1 else {by[True].pop()}"
    return None


def _flag_name(template: Template, slots: list[int], taken: set[str]) -> str:
    kinds = {step.kind for j in slots for step in template.slots[j].steps if step is not None}
    names = [template.slots[j].name for j in slots]
    if kinds & {"Add"}:
        name = "residual"
    elif any(_heavy_slot(template.slots[j]) for j in slots) and all(
        template.slots[slots[0]].refs[0][0] == "in" for _ in "1"
    ):
        merged = any(("slot", slots[-1]) in slot.refs and len(slot.refs) > 1 for slot in template.slots)
        name = "projection" if merged else names[0]
    else:
        name = names[0]
    while name in taken or (len(slots) > 1 and name in {slot.name for slot in template.slots}):
        name = f"with_{name}"
    return name


def _parameter_names(
    template: Template, kept: list[tuple[str, Parameter]], last_heavy: int
) -> dict[str, str]:
    """Names of parameters: in_channels, out_channels, and by slot and argument what would not be clear."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    channels = [parameter for group, parameter in kept if group == "channels"]
    ends = {
        template.arguments[place]
        for place in template.arguments
        if place[0] == last_heavy and place[1].lstrip("*") in ("out_channels", "out_features", "units")
    }
    for group, parameter in kept:
        slot, plain, _ = parameter.name.split("|")
        if group == "channels":
            if len(channels) == 1:
                wanted = "channels"
            elif plain.startswith("in_") or (
                parameter is channels[0] and plain in CHANNELS - {"out_channels"}
            ):
                wanted = "in_channels"
            elif parameter.name in ends:
                wanted = "out_channels"
            else:
                wanted = f"{slot}_channels"
        else:
            wanted = plain
        if wanted in taken:
            wanted = f"{slot}_{plain}"
        number = 2
        base = wanted
        while wanted in taken:
            wanted, number = f"{base}{number}", number + 1
        taken.add(wanted)
        names[parameter.name] = wanted
    return names


def _default(slot: Slot, plain: str) -> Any:
    for step in slot.steps:
        if isinstance(step, Block) and step.template is not None:
            for parameter in step.template.parameters:
                if parameter.name == plain:
                    return parameter.default
    return DEFAULTS.get(plain)


def _agree(held: list[Any], values: list[Any]) -> bool:
    both = [(a, b) for a, b in zip(held, values, strict=True) if a is not ... and b is not ...]
    return bool(both) and all(a == b and type(a) is type(b) for a, b in both)


# === Instances as one class ===


def _unify(
    instances: Sequence[list[tuple[str, Step]]],
) -> tuple[list[Slot], int, Ref, list[list[int]]] | None:
    """The slots of a class with these instances, its inputs, its output and each instance's input values.

    None where they are no instances of one class: leaving out the steps that one lacks must give its own
    wiring.
    """
    if len(instances) < 2:
        return None
    order = _order(instances)
    if order is None:
        return None
    place = {name: index for index, name in enumerate(order)}
    wirings = [_wiring(local, place) for local in instances]
    given = [inputs for _, inputs in wirings]
    if len({len(inputs) for inputs in given}) != 1:
        return None
    slots = []
    for name in order:
        steps = [dict(local).get(name) for local in instances]
        there = [step for step in steps if step is not None]
        if len({_signature(step) for step in there}) != 1:
            return None
        options = [refs[name] for refs, _ in wirings if name in refs]
        if len({len(refs) for refs in options}) != 1:
            return None
        refs = [max((refs[i] for refs in options), key=_depth) for i in range(len(options[0]))]
        slots.append(Slot(name, steps, refs))
    if any(
        _lacks(slots, index) > max(1, sum(map(_heavy_slot, slots)) // 4) for index in range(len(instances))
    ):
        return None
    outputs = {("slot", place[local[-1][0]]) for local in instances}
    output = max(outputs, key=_depth)
    if not _settle(slots, wirings, instances, place, output):
        return None
    return slots, len(given[0]), output, given


def _lacks(slots: list[Slot], instance: int) -> int:
    """How many weighted layers an instance has not."""
    return sum(slot.steps[instance] is None and _heavy_slot(slot) for slot in slots)


def _order(instances: Sequence[list[tuple[str, Step]]]) -> list[str] | None:
    """The local names in an order that every instance's own follows."""
    longest = max(instances, key=len)
    order = [name for name, _ in longest]
    for local in instances:
        before = None
        for name, _ in local:
            if name not in order:
                order.insert(0 if before is None else order.index(before) + 1, name)
            before = name
    for local in instances:
        positions = [order.index(name) for name, _ in local]
        if positions != sorted(positions) or len(set(positions)) != len(positions):
            return None
    return order


def _wiring(local: list[tuple[str, Step]], place: dict[str, int]) -> tuple[dict[str, list[Ref]], list[int]]:
    """What each step of an instance takes, and the values that come from outside in the order of their
    use."""
    made = {number: place[name] for name, step in local for number in step.outputs}
    outside: dict[int, int] = {}
    wiring = {}
    for name, step in local:
        refs: list[Ref] = []
        for number in step.inputs:
            if number in made:
                refs.append(("slot", made[number]))
            else:
                refs.append(("in", outside.setdefault(number, len(outside))))
        wiring[name] = refs
    return wiring, list(outside)


def _settle(
    slots: list[Slot],
    wirings: list[tuple[dict[str, list[Ref]], list[int]]],
    instances: Sequence[list[tuple[str, Step]]],
    place: dict[str, int],
    output: Ref,
) -> bool:
    """Choose what passes where a step is missing, so that every instance gets its own wiring."""
    merges = [slot for slot in slots if len(slot.refs) > 1 and None in slot.steps]
    if len(merges) > 4:
        return False
    choices = [[]]
    for slot in merges:
        choices = [[*choice, index] for choice in choices for index in range(len(slot.refs))]
    for choice in choices:
        for slot, index in zip(merges, choice, strict=True):
            slot.skip = index
        if all(
            all(
                [_resolved(slots, i, ref) for ref in slots[place[name]].refs] == refs
                for name, refs in wiring.items()
            )
            and _resolved(slots, i, output) == ("slot", place[instances[i][-1][0]])
            for i, (wiring, _) in enumerate(wirings)
        ):
            return True
    return False


def _resolved(slots: list[Slot], instance: int, ref: Ref) -> Ref:
    """What an instance has in the place of a reference: where a step is missing, what passes through."""
    while ref[0] == "slot" and slots[ref[1]].steps[instance] is None:
        ref = slots[ref[1]].refs[slots[ref[1]].skip]
    return ref


def _depth(ref: Ref) -> int:
    return -1 if ref[0] == "in" else ref[1]


def _alike(instances: list[tuple[str, list[tuple[str, Step]]]]) -> list[list[Any]]:
    """Groups of instances that are of one class: with the same names if all cannot be."""
    groups: list[list[Any]] = []
    for instance in instances:
        for group in groups:
            if _unify([local for _, local in [*group, instance]]):
                group.append(instance)
                break
        else:
            groups.append([instance])
    return groups


# === Names ===


def _prefixes(step: Step) -> list[str]:
    """The beginnings of the name of a step's layer, cut before each underscore, its whole name at last."""
    name = step.layer.rsplit("/", 1)[-1] if step.layer else step.name
    return [name[: match.start()] for match in re.finditer("_", name)] + [name]


def _local(steps: list[Step], prefix: str) -> list[tuple[str, Step]]:
    """Steps by their names within a block."""
    found: list[tuple[str, Step]] = []
    taken: Counter[str] = Counter()
    for step in steps:
        layer = step.layer.rsplit("/", 1)[-1]
        if step.auto or isinstance(step, Block):
            name = _kind_name(step)
        else:
            name = layer.removeprefix(prefix).strip("_") or ("out" if step is steps[-1] else _kind_name(step))
            suffix = step.name.removeprefix(identifier(layer))
            name = f"{name}{suffix}" if suffix.startswith("_") else name
            name = identifier(name)
        taken[name] += 1
        found.append((name if taken[name] == 1 else f"{name}{taken[name]}", step))
    return found


def _kind_name(step: Step) -> str:
    if isinstance(step, Block) and step.template is not None:
        heavy = [slot for slot in step.template.slots if _heavy_slot(slot)]
        return heavy[0].name if len(heavy) == 1 else snake(step.template.name)
    if step.kind == "Layout":
        return step.name.rstrip("_0123456789")
    name = {"BatchNormalization": "bn", "Conv2D": "conv", "ReLU": "relu", "Conv1D": "conv"}.get(step.kind)
    if step.kind == "Activation" and step.module is not None:
        name = step.module.name.removeprefix("nn.").lower()
    return identifier(name or snake(step.kind))


def _common_names(runs: list[list[Step]]) -> list[str]:
    """Names for the steps of runs that are alike: what their own names have in common."""
    names: list[str] = []
    for steps in zip(*runs, strict=True):
        parts = [step.layer.rsplit("/", 1)[-1].split("_") for step in steps]
        kept = [part for part in parts[0] if all(part in other for other in parts)]
        kept = [part for part in kept if not part.isdigit()]
        plain = any(step.auto for step in steps) or isinstance(steps[0], Block) or not kept
        name = _kind_name(steps[0]) if plain else identifier("_".join(kept))
        number, base = 2, name
        while name in names:
            name, number = f"{base}{number}", number + 1
        names.append(name)
    return names


def _class_name(pattern: str, model: str) -> str:
    words = re.sub("#", "", pattern)
    base = re.sub(r"\d+$", "", model)
    if words.startswith(f"{model}_"):
        words = words.removeprefix(f"{model}_")
    elif base and words.startswith(base):
        words = words.removeprefix(base)
    return camel(words.strip("_")) if words.strip("_") else "Block"


def _class_of(runs: list[list[Step]], model: str) -> str:
    """A name for a class of runs that are alike."""
    kinds = [step.kind for step in runs[0]]
    words = {"BatchNormalization": "BN", "LayerNormalization": "LN"}
    short = [re.sub(r"(Separable|Depthwise)?Conv\dD(Transpose)?", r"\1Conv", kind) for kind in kinds]
    if (
        sum(map(_is_heavy, runs[0])) == 1
        and len(kinds) <= UNIT
        and not any(isinstance(s, Block) for s in runs[0])
    ):
        parts = []
        for step, kind in zip(runs[0], short, strict=True):
            if step.kind in ACTIVATIONS and step.module is not None:
                parts.append(step.module.name.removeprefix("nn."))
            elif step.kind != "Layout":
                parts.append(words.get(kind, re.sub(r"\dD$", "", kind)))
        return "".join(parts)
    parts = [run[-1].layer.rsplit("/", 1)[-1].split("_") for run in runs]
    kept = [part for part in parts[0] if all(part in other for other in parts) and not part.isdigit()]
    if runs[0][-1].auto or not kept:
        shared = re.match(r"[a-z_]*", re.sub(r"\d", "", runs[0][-1].name))
        if not runs[0][-1].auto and shared and shared.group():
            return camel(shared.group())
        return "Block"
    return camel("_".join(kept))


# === Steps ===


def _signature(step: Step) -> tuple[Any, ...]:
    """What two steps of one slot must share."""
    module = step.module
    call = () if module is None else (module.name, module.call)
    return (*call, step.expression, len(step.inputs), len(step.outputs))


def _repeats(step: Step) -> bool:
    """Whether a step may be part of a block: nested models and modules that are called twice may not."""
    return step.graph is None and not step.kind.endswith("(shared)") and len(step.outputs) == 1


def _is_heavy(step: Step) -> bool:
    """Whether a step is a layer with a kernel, or a block."""
    return isinstance(step, Block) or (
        bool(
            re.match(
                r"(Depthwise|Separable)?Conv|Dense|LSTM|GRU|SimpleRNN|MultiHead|Einsum|Bidirectional",
                step.kind,
            )
        )
        and (
            step.module is not None
            and "expression" not in step.kind
            and not step.module.inline
            and "Pad" not in step.module.name
        )
    )


def _is_structure(steps: Sequence[Step]) -> bool:
    """Whether a run that repeats is worth a class: one that branches, or a chain of weighted layers."""
    if any(isinstance(step, Block) and step.kind == "NamedBlock" for step in steps):
        return False
    branches = any(len(step.inputs) > 1 for step in steps)
    return any(map(_is_heavy, steps)) and (branches or not any(isinstance(step, Block) for step in steps))


def _heavy_slot(slot: Slot) -> bool:
    return any(_is_heavy(step) for step in slot.steps if step is not None)


def _frozen(step: Step) -> list[bool]:
    """Whether each of a step's weighted layers is frozen."""
    if isinstance(step, Block) and step.template is not None:
        return [flag for _, inner in step.template.steps(step.instance) for flag in _frozen(inner)]
    weighted = (
        step.module is not None
        and not step.module.inline
        and (_is_heavy(step) or step.kind in (*NORMS, "PReLU", "LayerScale"))
    )
    return [bool(step.module and step.module.frozen)] if weighted else []


def _apart(starts: list[int], length: int) -> list[int]:
    """Starts whose runs do not overlap."""
    kept: list[int] = []
    for start in starts:
        if not kept or start >= kept[-1] + length:
            kept.append(start)
    return kept


def places(steps: Iterable[Step], path: str = "") -> Iterable[tuple[str, Step]]:
    """The steps within blocks and nested models, with the path of the module of each."""
    for step in steps:
        here = f"{path}{step.name}"
        if isinstance(step, Block) and step.template is not None:
            inner = [replace(s, name=slot.name) for slot, s in step.template.steps(step.instance)]
            yield from places(inner, f"{here}.")
        elif step.graph is not None:
            yield from places(step.graph.steps, f"{here}.")
        else:
            yield here, step
