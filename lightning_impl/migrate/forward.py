"""The body of a forward: variables named for what they hold, a line for each layer with what follows it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_impl.migrate.blocks import _is_heavy
from lightning_impl.migrate.lowering import Step

WIDTH = 88


@dataclass
class Line:
    """A step with the values that it takes and gives. condition: when it is there; passes: what stands for
    its
    output otherwise."""

    name: str
    step: Step
    inputs: list[Hashable]
    outputs: list[Hashable]
    condition: str | None = None
    passes: Hashable = None


def body(
    lines: Sequence[Line], inputs: dict[Hashable, str], outputs: Any, flat: Sequence[Hashable]
) -> list[str]:
    """The statements of a forward. inputs: names by value.

    outputs: writes the returned expression of names.
    """
    return _Writer(lines, inputs, flat).write(outputs)


class _Writer:
    def __init__(self, lines: Sequence[Line], inputs: dict[Hashable, str], flat: Sequence[Hashable]) -> None:
        self.lines = lines
        self.uses: dict[Hashable, list[int]] = defaultdict(list)
        for position, line in enumerate(lines):
            for value in line.inputs:
                self.uses[value].append(position)
            if line.condition is not None and line.passes is not None:
                self.uses[line.passes].append(position)
        for value in flat:
            self.uses[value].append(len(lines))
        self.names: dict[Hashable, str] = dict(inputs)
        self.text: dict[Hashable, str] = {}  # an expression that waits for the line that it is part of
        self.out: list[str] = []

    def last(self, value: Hashable) -> int:
        return max(self.uses[value], default=-1)

    def live(self, name: str, after: int) -> bool:
        """Whether a variable still holds something that a line behind `after` uses."""
        return any(held == name and self.last(value) > after for value, held in self.names.items())

    def write(self, outputs: Callable[[Callable[[Hashable], str]], str]) -> list[str]:
        position = 0
        while position < len(self.lines):
            if self.lines[position].condition is None:
                self.plain(position)
                position += 1
            else:
                position = self.conditional(position)
        self.out.append(f"return {outputs(self.read)}")
        return self.out

    def read(self, value: Hashable) -> str:
        return self.text.pop(value) if value in self.text else self.names[value]

    def call(self, line: Line) -> str:
        arguments = [self.read(value) for value in line.inputs]
        step = line.step
        inlined = step.expression and (
            step.module is None or step.module.inline or step.kind == "Layout" or _functional(step)
        )
        if inlined:
            marks = [_atom(a) if _binds(step.expression) else a for a in arguments]
            return step.expression.format(*marks)
        call = step.module.call if step.module is not None and step.module.call else ""
        if call:
            return call.format(*arguments, m=f"self.{line.name}")
        return f"self.{line.name}({', '.join(arguments)})"

    def plain(self, position: int, end: int | None = None) -> None:
        """Write a line. end: where the lines under its condition end."""
        line = self.lines[position]
        text = self.call(line)
        if len(line.outputs) == 1 and self.joins(position, text, end):
            self.text[line.outputs[0]] = text
            return
        targets = []
        for value in line.outputs:  # one after another, so that no two get one name
            self.names[value] = self.target(value, position, line)
            targets.append(self.names[value])
        self.put(f"{', '.join(targets)} = {text}", line)

    def put(self, text: str, line: Line) -> None:
        if line.step.expression and line.step.comment:
            self.out.append(f"# {line.step.comment}")
        self.out.append(text)

    def joins(self, position: int, text: str, end: int | None) -> bool:
        """Whether a line goes into the next one."""
        line = self.lines[position]
        value = line.outputs[0]
        following = self.lines[position + 1] if position + 1 < len(self.lines) else None
        if self.uses[value] == [len(self.lines)] and following is None:
            return True  # it is returned
        if following is None or set(self.uses[value]) != {position + 1}:
            return False
        if following.condition is not None and (end is None or position + 1 >= end):
            return False
        if _is_heavy(following.step) or len(text) > WIDTH - 24:
            return False
        repeated = following.step.expression.count("{0}") > 1
        if len(following.inputs) > 1:
            return False
        return not repeated

    def target(self, value: Hashable, position: int, line: Line) -> str:
        """The variable that takes a line's value."""
        spine = self.last(value) <= position + 1 or self.uses[value] == []
        if spine and len(line.outputs) == 1 and not self.live("x", position):
            return "x"
        if not spine and not self.live("x", position) and not self.overwritten(position, self.last(value)):
            return "x"
        return self.named(value, line, position)

    def overwritten(self, position: int, end: int) -> bool:
        """Whether lines up to `end` need a variable of their own."""
        return any(True for _ in self.lines[position + 1 : end])

    def role(self, value: Hashable, line: Line) -> str:
        """A name that says what a value is for."""
        users = [self.lines[p] for p in self.uses[value] if p < len(self.lines)]
        if len(users) == 1 and users[0].step.kind == "Add" and len(users[0].inputs) == 2:
            return "shortcut"
        if len(users) == 1 and users[0].step.kind == "Concatenate" and len(users[0].inputs) > 1:
            return f"branch{users[0].inputs.index(value) + 1}"
        return re.sub(r"_+$", "", line.name) if line.name.isidentifier() else "features"

    def fresh(self, wanted: str, position: int) -> str:
        name, number = wanted, 2
        while self.live(name, position) or name in ("inputs", "self", "x"):
            name, number = f"{wanted}{number}", number + 1
        return name

    def named(self, value: Hashable, line: Line, position: int) -> str:
        """A variable for a value that lives on while others are computed."""
        role = self.role(value, line)
        return self.fresh(line.name.rstrip("_") if self.live(role, position) else role, position)

    def conditional(self, position: int) -> int:
        """An `if` with the lines that share its condition; returns the position behind them."""
        end = self.reach(position)
        group = self.lines[position:end]
        value, passing = group[-1].outputs[0], group[-1].passes
        passes = {line.outputs[0]: line.passes for line in group}
        while passing in passes:
            passing = passes[passing]
        held = self.names[passing]
        if all(use < end for use in self.uses[passing]):
            name = held
        else:
            soon = self.last(value) <= end and not self.live("x", position - 1)
            name = "x" if soon else self.named(value, group[-1], position - 1)
            self.out.append(f"{name} = {held}")
        before = len(self.out)
        for offset in range(len(group) - 1):
            self.plain(position + offset, end)
        self.put(f"{name} = {self.call(group[-1])}", group[-1])
        self.names[value] = name
        self.out[before:] = [f"if {group[0].condition}:", *(f"    {line}" for line in self.out[before:])]
        return end

    def reach(self, position: int) -> int:
        """Where the longest run of lines under one condition ends of which the last value alone is used
        behind."""
        end = position
        while end < len(self.lines) and self.lines[end].condition == self.lines[position].condition:
            end += 1
        while end > position + 1:
            inner = [value for line in self.lines[position : end - 1] for value in line.outputs]
            if all(use < end for value in inner for use in self.uses[value]):
                break
            end -= 1
        return end


def _functional(step: Step) -> bool:
    """Whether a layer is written as an expression: one without weights and settings of its own."""
    return step.expression != ""


def _binds(expression: str) -> bool:
    """Whether an expression's operands need parentheses."""
    return re.search(r"^\{0\}\.|\{0\}\[| [-+*/@%]{1,2} |^-", expression) is not None


def _atom(text: str) -> str:
    """An operand, in parentheses where an operator would tear it apart."""
    depth, loose = 0, False
    for character in text:
        depth += character in "([{"
        depth -= character in ")]}"
        loose |= depth == 0 and character == " "
    return f"({text})" if loose or text.startswith("-") else text
