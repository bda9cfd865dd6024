"""A suite of benchmarks: cells, how one is measured, and what its report says."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.collect import Cell, Sample

Measured = dict[str, Any]  # a cell and its samples, as plain values


class Suite:
    """Cells, how one is measured, and what the report says of them; `close` removes what was made for it."""

    title, notes = "", ""
    quantity, higher_is_better = "", False  # of `value`, with its unit
    compared = True  # false: `sections` has the table, and there are no bars
    base = ""  # the name of the cell that the others of a group are set in relation to

    def __init__(self, arguments: argparse.Namespace, out: Path) -> None:
        """out: where the report will lie."""

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        """Add the suite's own."""

    @property
    def cells(self) -> list[Cell]:
        raise NotImplementedError

    def about(self) -> dict[str, Any]:
        """The settings that make two benchmarks the same, beside their cells."""
        return {}

    def measure(self, cell: Cell) -> Sample:
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        """Further values for results.json."""
        return {}

    @staticmethod
    def value(sample: Sample) -> float:
        raise NotImplementedError

    def baseline(self, names: list[str]) -> str:
        return self.base if self.base in names else names[0]

    def columns(self, cell: Measured) -> dict[str, str]:
        """More that the table says of a cell."""
        return {}

    def sections(self, values: dict[str, Any]) -> list[str]:
        """Lines of Markdown that follow the tables."""
        return []

    def figures(self, out: Path, values: dict[str, Any]) -> list[str]:
        """Draw more figures into `out`; their names."""
        return []

    def close(self) -> None:
        """Remove what was made for the suite."""


def setting_of(cell: Measured) -> str:
    """A cell's setting in words."""
    return ", ".join(f"{name} {value}" for name, value in cell["setting"].items())


def grouped(cells: list[Measured]) -> dict[str, list[Measured]]:
    """The cells that share a setting, under its words."""
    groups: dict[str, list[Measured]] = {}
    for cell in cells:
        groups.setdefault(setting_of(cell), []).append(cell)
    return groups


def digits(value: float) -> str:
    """Three significant digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
