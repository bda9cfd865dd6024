"""The report of a suite: results.json, README.md and figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import drawing, stats
from benchmarks.suite import Measured, Suite, digits, grouped
from experiment.system.files import replacing
from experiment.system.markdown import table as markdown_table
from experiment.system.names import command_line


def write(out: Path, suite: Suite, values: dict[str, Any]) -> Path:
    """Write the report into `out` and return the path of its README.md."""
    out.mkdir(parents=True, exist_ok=True)
    with replacing(out / "results.json") as path:
        path.write_text(json.dumps(values, indent=1) + "\n")
    names = suite.figures(out, values)
    if suite.compared:
        drawing.bars(out / "bars.png", suite, grouped(values["cells"]))
        names.insert(0, "bars.png")
    with replacing(out / "README.md") as path:
        path.write_text(markdown(suite, values, names))
    return out / "README.md"


def markdown(suite: Suite, values: dict[str, Any], figures: list[str]) -> str:
    """A table for each group, what the suite adds, and how it was measured."""
    lines = [f"# {suite.title}", "", suite.notes, ""]
    for name in figures:
        lines += [f"![{name.removesuffix('.png')}]({name})", ""]
    for name, cells in grouped(values["cells"]).items() if suite.compared else ():
        lines += [f"## {name}", "", markdown_table(*table(suite, cells)), ""]
    lines += suite.sections(values)
    facts = values["environment"]
    gpu = f"{facts['gpu']}; " if facts.get("gpu") else ""
    lines += [
        f"Medians and quartiles over {values['turns']} processes a row, in turns; intervals by bootstrap.",
        "The machine is shared: read the ratios, not the speeds.",
        "",
        f"`{command_line(values['command'])}`",
        "",
        f"{gpu}{facts['cpu']}, {facts['cores']} cores, {facts['platform']}, Python {facts['python']}; "
        + ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
        + f"; {facts['git_revision']}, {facts['utc']}.",
    ]
    return "\n".join(lines) + "\n"


def table(suite: Suite, cells: list[Measured]) -> tuple[list[str], list[list[str]]]:
    """The heads and the rows of cells that are set in relation to one of them."""
    found = {cell["name"]: [suite.value(one) for one in cell["samples"]] for cell in cells}
    base = suite.baseline(list(found))
    more = [suite.columns(cell) for cell in cells]
    heads = ["", suite.quantity, "quartiles", f"times {base}", "95 % interval", *more[0]]
    rows = []
    for (cell, numbers), extra in zip(found.items(), more, strict=True):
        middle, low, high = stats.spread(numbers)
        times = stats.ratio(numbers, found[base])
        texts = [cell, digits(middle), f"{digits(low)} to {digits(high)}", f"{times[0]:.3f}"]
        interval = "–" if cell == base else f"{times[1]:.3f} to {times[2]:.3f}"
        rows.append([*texts, interval, *extra.values()])
    return heads, rows
