"""YAML that people write, read with care: no file may hang, fill the memory or end in a traceback."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from experiment.system.names import brief

LARGEST = 2**20  # bytes; a list of 10,000 classes has a fifth of it
DEEPEST = 32  # sections and lists in each other
HANDED = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")  # what the shell has opened, as --config <(command)
MOST = 100_000  # values, those that an alias repeats counted each time

Base: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class DocumentError(ValueError):
    """A document cannot be read; the message says why, in a line."""


class Loader(Base):
    """Plain values alone: keys as they are written, no dates, 1e-3 a number; each key of a mapping once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, Any]:
        own = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is no name", key.start_mark)
            if own.count(key.value) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value} stands there twice", key.start_mark
                )
        self.flatten_mapping(node)
        return {key.value: self.construct_object(value, deep=deep) for key, value in node.value}


def _construct_map(loader: Loader, node: yaml.MappingNode) -> Any:
    values: dict[str, Any] = {}
    yield values
    values.update(loader.construct_mapping(node))


# YAML 1.1 takes 1e-3 for text, and 2026-11-26 for a date.
Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":float"))]
    for first, resolvers in Base.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?(?:\d[\d_]*\.[\d_]*|\.\d[\d_]*|\d[\d_]*(?=[eE]))(?:[eE][-+]?\d+)?$"
        r"|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)
PLAIN = ("null", "bool", "int", "float", "str", "seq")
Loader.yaml_constructors = {  # without sets, dates and bytes, which no setting is
    tag: Base.yaml_constructors[tag] for tag in (*(f"tag:yaml.org,2002:{kind}" for kind in PLAIN), None)
}
Loader.add_constructor("tag:yaml.org,2002:map", _construct_map)


def read(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds, plain values by name; empty for an empty file.

    UTF-8, or UTF-16 with its mark. Raises DocumentError, which names the file.
    """
    try:
        if not path.exists():
            raise DocumentError("no such file")
        if not (path.is_file() or str(path).startswith(HANDED)):  # a pipe would be waited for
            raise DocumentError("a folder" if path.is_dir() else "no regular file")
        with path.open("rb") as file:
            values = parse(file.read(LARGEST + 1))
    except OSError as error:
        raise DocumentError(f"{path}: cannot be read ({error.strerror})") from error
    except DocumentError as error:
        raise DocumentError(f"{path}: cannot be read ({error})") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise DocumentError(f"{path}: holds no settings (key: value)")
    return values


def parse(text: str | bytes) -> Any:
    """The value that a YAML text stands for; raises DocumentError."""
    try:
        _measure(text)
        return yaml.load(text, Loader)
    except DocumentError:
        raise
    # ValueError: a number of thousands of digits, or bytes that are no text.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DocumentError(_place(error)) from error


def _measure(text: str | bytes) -> None:
    """Raise DocumentError for what would not end: the parser's events come one by one, and hold nothing."""
    if len(text) > LARGEST:
        raise DocumentError(f"larger than {LARGEST // 2**20} MB: no settings have that size")
    sizes: dict[str, int] = {}  # of what an anchor stands for
    open_: list[tuple[str | None, int]] = []  # anchor, and how many values came before
    total = 0
    for event in yaml.parse(text, Base):
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_.pop()
            if anchor is not None:
                sizes[anchor] = total - before
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes and any(anchor == event.anchor for anchor, _ in open_):
                raise DocumentError(f"*{event.anchor} repeats what it stands in")
            total += sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.CollectionStartEvent):
            open_.append((event.anchor, total))
            total += 1
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        if len(open_) > DEEPEST:
            raise DocumentError(f"more than {DEEPEST} lists or sections in each other")
        if total > MOST:
            raise DocumentError(f"more than {MOST:,} values, aliases counted out")


def _place(error: Exception) -> str:
    """A parser's message, with the number of the line."""
    mark = getattr(error, "problem_mark", None)
    told = [part for name in ("context", "problem") if (part := getattr(error, name, None))]
    return brief(
        ValueError(f"line {mark.line + 1}: {', '.join(told)}") if mark is not None and told else error
    )
