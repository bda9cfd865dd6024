"""The floors of the house, read from its imports: no circle, and none that goes up.

A floor is a package of a room, or a file that stands in the room itself. What an import in a function
brings in counts as well.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("experiment", "keras_impl", "lightning_impl", "parity", "benchmarks")
# The ground floor from its top step down, as docs/architecture.md draws it. What stands on one step imports
# nothing of its neighbours there.
FLOORS = (
    ("__main__",),
    ("tuning",),
    ("protocols",),
    ("training",),
    ("tracking",),
    ("deploy",),
    ("data",),
    ("cli",),
    ("runs",),
    ("randomness", "evaluation"),
    ("config",),
    ("backbones", "optimizers", "published"),
    ("errors", "guide", "system"),
)

Imports = dict[str, set[str]]


def module(path: Path, root: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def imports(root: Path, rooms: Iterable[str] = ROOMS) -> Imports:
    """What every file of these rooms imports of them, by module; tests among the files are left out."""
    paths = [path for room in rooms for path in sorted((root / room).rglob("*.py"))]
    files = {module(path, root): path for path in paths if not path.name.startswith(("test_", "conftest"))}
    trees = {name: ast.parse(path.read_text(), str(path)) for name, path in files.items()}
    return {
        name: set(imported(tree, name, files[name].name == "__init__.py", files.keys())) - {name}
        for name, tree in trees.items()
    }


def imported(tree: ast.Module, name: str, package: bool, known: Iterable[str]) -> Iterator[str]:
    """The known modules that a module's statements import, wherever they stand, import_module included."""
    known = set(known)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = name.split(".")[: None if package and node.level == 1 else int(package) - node.level]
                base = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                found = f"{base}.{alias.name}"
                yield from [found] if found in known else [base] if base in known else []
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant) and argument.value in known:
                    yield argument.value


def floor(name: str) -> str:
    """room.package, or room.file for what stands in the room itself."""
    return ".".join(name.split(".")[:2])


def by_floor(found: Imports) -> Imports:
    floors: Imports = defaultdict(set)
    for name, names in found.items():
        floors[floor(name)] |= {floor(other) for other in names} - {floor(name)}
    return floors


def circles(found: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Every set of modules that reach each other, sorted (Tarjan's strongly connected components)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    components: list[list[str]] = []

    def visit(name: str) -> None:
        number[name] = lowest[name] = len(number)
        stack.append(name)
        for other in sorted(found.get(name, ())):
            if other not in number:
                visit(other)
                lowest[name] = min(lowest[name], lowest[other])
            elif other in stack:
                lowest[name] = min(lowest[name], number[other])
        if lowest[name] == number[name]:
            component = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(component) > 1:
                components.append(sorted(component))

    for name in sorted(found):
        if name not in number:
            visit(name)
    return sorted(components)


def edges(found: Mapping[str, Iterable[str]], members: Iterable[str]) -> list[str]:
    """The imports among some modules, a line each."""
    members = set(members)
    return [
        f"{name} imports {other}" for name in sorted(members) for other in sorted(set(found[name]) & members)
    ]


def upward(found: Imports) -> set[tuple[str, str]]:
    """The imports of the ground floor's modules that go up, or to a neighbour on the same step."""
    step = {f"experiment.{name}": number for number, names in enumerate(FLOORS) for name in names}
    return {
        (name, other)
        for name, names in found.items()
        for other in names
        if floor(name) != floor(other)
        if floor(name) in step and floor(other) in step and step[floor(other)] <= step[floor(name)]
    }


@pytest.fixture(scope="module")
def house() -> Imports:
    return imports(ROOT)


def test_no_circle_between_files(house: Imports) -> None:
    assert {tuple(edges(house, members)) for members in circles(house)} == set()


def test_no_circle_between_packages(house: Imports) -> None:
    floors = by_floor(house)
    told = {
        tuple(
            f"{name} imports {other}"
            for name in sorted(house)
            for other in sorted(house[name])
            if floor(name) != floor(other) and {floor(name), floor(other)} <= set(members)
        )
        for members in circles(floors)
    }
    assert told == set()


def test_no_import_goes_up(house: Imports) -> None:
    assert sorted(upward(house)) == []


def test_every_floor_is_drawn_and_there(house: Imports) -> None:
    drawn = {f"experiment.{name}" for names in FLOORS for name in names} - {"experiment.__main__"}
    there = {floor(name) for name in house if name.startswith("experiment.")} - {"experiment.__main__"}
    assert there == drawn
    assert len(house) > 100


def test_the_page_draws_these_floors() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    drawn = [line.split("  ")[0].split(", ") for line in page.split("```")[1].strip().splitlines()]
    assert drawn == [list(names) for names in FLOORS]


def test_neither_of_the_top_rooms_imports_the_other(house: Imports) -> None:
    found = {
        (name, other)
        for name, names in house.items()
        for other in names
        if {name.split(".")[0], other.split(".")[0]} == {"parity", "benchmarks"}
    }
    assert sorted(found) == []


# === The rules see what they should ===


def plant(root: Path, **files: str) -> Imports:
    """A small ground floor; files by path, with __ for a slash."""
    for name, text in files.items():
        path = root / "experiment" / f"{name.replace('__', '/')}.py"
        for folder in (path.parent, root / "experiment"):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "__init__.py").touch()
        path.write_text(text)
    return imports(root, ["experiment"])


@pytest.mark.parametrize(
    "back",
    [
        "from experiment.runs import record",
        "from experiment.runs.record import Run",
        "import experiment.runs.record",
        "import experiment.runs.record as record",
        "def f():\n    from experiment.runs import record",
        "class A:\n    try:\n        from .record import Run\n    except ImportError: pass",
        "from . import record",
        "import importlib\nimportlib.import_module('experiment.runs.record')",
    ],
)
def test_a_circle_between_files_is_seen(back: str, tmp_path: Path) -> None:
    found = plant(tmp_path, runs__record="from experiment.runs.compare import table", runs__compare=back)
    assert circles(found) == [["experiment.runs.compare", "experiment.runs.record"]]
    assert by_floor(found) == {"experiment": set(), "experiment.runs": set()}


def test_a_circle_through_three_is_told_with_its_imports(tmp_path: Path) -> None:
    texts = {name: f"from experiment import {other}, d" for name, other in ("ab", "bc", "ca")}
    found = plant(tmp_path, **texts, d="")
    [members] = circles(found)
    assert members == ["experiment.a", "experiment.b", "experiment.c"]
    assert edges(found, members)[0] == "experiment.a imports experiment.b"
    assert len(edges(found, members)) == 3


def test_a_circle_between_packages_is_seen_where_files_have_none(tmp_path: Path) -> None:
    found = plant(
        tmp_path,
        data__dataset="from experiment.runs import record",
        data__catalog="",
        runs__record="",
        runs__compare="def f():\n    from experiment.data.catalog import fetch",
    )
    assert circles(found) == []
    assert circles(by_floor(found)) == [["experiment.data", "experiment.runs"]]


@pytest.mark.parametrize(
    ("file", "text", "other"),
    [
        ("runs__record", "from experiment import cli", "experiment.cli"),
        (
            "data__table",
            "def f():\n    import experiment.training.lifecycle",
            "experiment.training.lifecycle",
        ),
        ("errors", "from experiment.system import devices", "experiment.system.devices"),
        ("config", "from experiment.runs.record import Run", "experiment.runs.record"),
    ],
)
def test_an_import_that_goes_up_is_seen(file: str, text: str, other: str, tmp_path: Path) -> None:
    rest = {"runs__record": "", "training__lifecycle": "", "system__devices": "", "cli": ""}
    found = plant(tmp_path, **{**rest, file: text})
    assert upward(found) == {(f"experiment.{file.replace('__', '.')}", other)}


def test_an_import_that_goes_down_is_none(tmp_path: Path) -> None:
    found = plant(
        tmp_path,
        tuning__study="from experiment import cli\nfrom experiment.runs.record import Run",
        runs__record="import numpy\nfrom experiment.errors import RunError",
        cli="from experiment import config\nfrom experiment.runs import record",
        config="",
        errors="",
    )
    assert upward(found) == set()
    assert circles(found) == circles(by_floor(found)) == []
