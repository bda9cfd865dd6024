"""What people write in YAML: read as they meant it, or refused in a line, at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from experiment.system import documents
from experiment.system.documents import DocumentError, parse, read

CONFIGS = Path(__file__).parents[3] / "configs"
# Nine times nine times ... : some 3e9 values once the aliases are followed.
LAUGHS = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + before] * 9)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)

REFUSED = {
    "laughs": (LAUGHS, "more than 100,000 values"),
    "values": ("a: [" + "1," * 100_001 + "]", "more than 100,000 values"),
    "brackets": ("[" * 5000, "more than 32 lists"),
    "closed": ("[" * 5000 + "]" * 5000, "more than 32 lists"),
    "braces": ("{a: " * 5000, "more than 32 lists"),
    "sections": ("".join(" " * n + "a:\n" for n in range(50)), "more than 32 lists"),
    "cycle": ("a: &a [*a]", r"\*a repeats"),
    "cycle of keys": ("&a\nb: *a", r"\*a repeats"),
    "cycle by merging": ("&a\n<<: *a", r"\*a repeats"),
    "unknown alias": ("a: *b", "undefined alias"),
    "twice": ("training:\n  epochs: 3\n  epochs: 4", "epochs stands there twice"),
    "no name": ("? [1, 2]\n: 3", "no name"),
    "tab": ("a:\n\tb: 1", "line 2"),
    "object": ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
    "set": ("a: !!set {b}", "could not determine a constructor"),
    "two": ("a: 1\n---\nb: 2", "another document"),
    "digits": ("a: " + "9" * 5000, "4300 digits"),
    "size": ("a: '" + "x" * documents.LARGEST + "'", "larger than 1 MB"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_meant_is_refused_in_a_line(name: str) -> None:
    text, said = REFUSED[name]
    with pytest.raises(DocumentError, match=said) as refused:
        parse(text)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 250


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "some.yaml"
    for content in (b"\x89PNG\r\n\x1a\n\x00", b"a: \xff", b"a: \x00"):
        file.write_bytes(content)
        with pytest.raises(DocumentError, match=r"some\.yaml: cannot be read"):
            read(file)


def test_marks_of_the_encoding_are_heeded(tmp_path: Path) -> None:
    file = tmp_path / "some.yaml"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        file.write_text("name: é", encoding=encoding)
        assert read(file) == {"name": "é"}


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, said in (("pipe", "no regular file"), (".", "a folder"), ("none", "no such file")):
        with pytest.raises(DocumentError, match=said):
            read(tmp_path / name)
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(10**10)
    with pytest.raises(DocumentError, match="larger than 1 MB"):
        read(large)


def test_numbers_and_names_are_what_they_look_like() -> None:
    values = parse("[1e-3, 1E3, 1.5, .5, 1., -2e+3, 12, 2026-11-26, 1e5x, true, null]")
    assert values == [1e-3, 1e3, 1.5, 0.5, 1.0, -2e3, 12, "2026-11-26", "1e5x", True, None]
    assert list(parse("{1: a, no: b, 1.0: c, 007: d}")) == ["1", "no", "1.0", "007"]
    assert parse("b: &b {x: 1, y: 2}\nc:\n  <<: *b\n  y: 3")["c"] == {"x": 1, "y": 3}


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.stem)
def test_our_own_files_are_read_as_by_yaml(file: Path) -> None:
    assert read(file) == yaml.safe_load(file.read_text())


def test_an_empty_file_holds_nothing_and_a_list_no_settings(tmp_path: Path) -> None:
    file = tmp_path / "some.yaml"
    file.write_text("# nothing yet\n")
    assert read(file) == {}
    file.write_text("[1]")
    with pytest.raises(DocumentError, match="holds no settings"):
        read(file)
