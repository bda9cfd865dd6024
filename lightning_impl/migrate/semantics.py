"""Takes out of this project's pieces those that a package needs, as a file with no import but torch's own."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

ROOM = Path(__file__).parents[1]
FILES = (
    "keras_semantics/layers.py",
    "keras_semantics/optimizers.py",
    "keras_semantics/callbacks.py",
    "semantics/layers.py",
    "semantics/recurrent.py",
    "semantics/augmentation.py",
    "semantics/losses.py",
    "semantics/optimizers.py",
    "semantics/training.py",
)
DOC = '"""Layers and optimizers that behave as Keras\'s do, where torch\'s own differ."""'


def names() -> list[str]:
    """Every public class and function that a package can be given."""
    found = []
    for file in FILES:
        for node in ast.parse((ROOM / file).read_text()).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                found.append(node.name)
    return found


def extract(wanted: Iterable[str]) -> str:
    """A file with these classes and functions, and with all that they use, in the order of their files."""
    wanted, imports, kept = list(wanted), {}, []
    for file in FILES:
        text = (ROOM / file).read_text()
        tree = ast.parse(text)
        defined = {name: node for node in tree.body for name in _defines(node)}
        needed = _closure([name for name in wanted if name in defined], defined)
        nodes = [node for node in tree.body if any(name in needed for name in _defines(node))]
        used = {inner.id for node in nodes for inner in ast.walk(node) if isinstance(inner, ast.Name)}
        used |= {word for node in nodes for word in _quoted(node)}
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom) and getattr(node, "module", "") != "__future__":
                for alias in node.names:
                    bound = (alias.asname or alias.name).split(".")[0]
                    if bound in used:
                        imports[bound] = (node, alias)
        kept += [_text(text, node) for node in nodes]
    lines = sorted({_import(node, alias) for node, alias in imports.values()})
    head = "\n".join([DOC, "", "from __future__ import annotations", "", *lines])
    return "\n\n\n".join([head, *kept]) + "\n"


def _defines(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    return []


def _closure(wanted: list[str], defined: dict[str, ast.stmt]) -> set[str]:
    """The names that some need, those that they need themselves included."""
    needed: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name not in needed:
            needed.add(name)
            words = {inner.id for inner in ast.walk(defined[name]) if isinstance(inner, ast.Name)}
            wanted += [word for word in words if word in defined]
    return needed


def _quoted(node: ast.AST) -> set[str]:
    """Names in a module's annotations, which are text until they are asked for."""
    return {
        inner.value.id
        for inner in ast.walk(node)
        if isinstance(inner, ast.Attribute) and isinstance(inner.value, ast.Name)
    }


def _text(text: str, node: ast.stmt) -> str:
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
    return "\n".join(text.splitlines()[first - 1 : node.end_lineno])


def _import(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> str:
    name = alias.name + (f" as {alias.asname}" if alias.asname else "")
    return f"import {name}" if isinstance(node, ast.Import) else f"from {node.module} import {name}"
