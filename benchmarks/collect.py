"""Measures cells in turns, each in processes of its own, and keeps every sample as soon as it is there."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from experiment.errors import ConfigError
from experiment.system.progress import Bar
from experiment.system.signals import Stopped

Sample = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One thing that is measured: what it is, and under which settings; both are printed as they are."""

    name: str
    setting: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return json.dumps([self.name, self.setting], sort_keys=True)

    def __str__(self) -> str:
        return ", ".join([self.name, *(f"{name} {value}" for name, value in self.setting.items())])


class Samples:
    """The samples of one benchmark in a file of JSON lines, which a later call of the same one goes on with.

    about: what makes two benchmarks the same. Raises ConfigError where the file holds another one.
    """

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        self.path, self.found = path, []
        about = json.loads(json.dumps(about))
        if path.is_file():
            first, *lines = path.read_text().splitlines()
            if json.loads(first) != about:
                raise ConfigError(f"{path} holds another benchmark: name another --out, or remove it")
            self.found = [json.loads(line) for line in lines]
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._append(about)

    def of(self, cell: Cell) -> list[Sample]:
        return [one["sample"] for one in self.found if one["cell"] == cell.key]

    def has(self, cell: Cell, turn: int) -> bool:
        return any(one["cell"] == cell.key and one["turn"] == turn for one in self.found)

    def add(self, cell: Cell, turn: int, sample: Sample) -> None:
        self.found.append({"cell": cell.key, "turn": turn, "sample": sample})
        self._append(self.found[-1])

    def _append(self, values: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(values) + "\n")


def collect(
    cells: Sequence[Cell], turns: int, samples: Samples, measure: Callable[[Cell], Sample]
) -> list[dict[str, Any]]:
    """Every cell's samples, as plain values; what is in `samples` already is not measured again.

    The cells take turns, each turn beginning with the next, so that a slow spell falls on all of them.
    """
    todo = [(turn, cell) for turn, cell in interleaved(cells, turns) if not samples.has(cell, turn)]
    whole = len(cells) * turns
    with Bar("processes", whole, "processes", whole - len(todo)) as bar:
        for turn, cell in todo:
            bar.update(0, str(cell))
            try:
                samples.add(cell, turn, measure(cell))
            except (KeyboardInterrupt, Stopped):
                bar.close()
                print(f"interrupted; the same command goes on with {samples.path}", file=sys.stderr)
                raise
            bar.update()
    return [{**asdict(cell), "samples": samples.of(cell)} for cell in cells]


def interleaved(cells: Sequence[Cell], turns: int) -> Iterator[tuple[int, Cell]]:
    for turn in range(turns):
        first = turn % len(cells)
        yield from ((turn, cell) for cell in [*cells[first:], *cells[:first]])
