"""Every command in the README and the guide exists with its options, and every link leads somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import parity

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SUBCOMMANDS = ("parity", "benchmarks", "experiment")
OURS = re.compile(
    r"(?:keras_impl|lightning_impl)\.(?:train|tune|predict|export)$|(?:parity|benchmarks|experiment)$"
)


def commands(page: Path) -> list[list[str]]:
    """The words of every command of this project in an indented block, after `python -m`."""
    lines = re.sub(r"\\\n\s*", "", page.read_text()).splitlines()
    found = []
    for line in lines:
        match = re.match(r"\s{4,}(?:torchrun .*?-m|srun torchrun .*?-m|python -m) (.*?)(?:\s{2,}#.*)?$", line)
        if match and OURS.match((words := shlex.split(match[1]))[0]):
            found.append(words)
    return found


@cache
def helped(module: str, *subcommand: str) -> str:
    command = [sys.executable, "-m", module, *subcommand, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_option_exists(page: Path) -> None:
    for words in commands(page):
        module, *rest = words
        subcommand = rest[:1] if module in SUBCOMMANDS and rest and not rest[0].startswith("-") else []
        known = helped(module, *subcommand)
        if "Options that are not named" in known or "those of train" in known:
            known += helped("lightning_impl.train")
        for option in (word.split("=")[0] for word in rest if word.startswith("--") and len(word) > 2):
            assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w.-])", known), (
                f"{' '.join(words)}: {option}"
            )


COMMANDS = [
    *(
        f"{side}_impl.{name}"
        for side in ("keras", "lightning")
        for name in ("train", "tune", "predict", "export")
    ),
    *(f"experiment {name}" for name in ("runs", "promote", "shards")),
    *("parity", *(f"parity {name}" for name in parity.COMMANDS)),
    *(f"benchmarks {name}" for name in ("train", "waiting", "growth", "stages", "compare", "gpu")),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_ends_in_an_example_that_holds_and_a_page_of_the_guide(command: str) -> None:
    module, *rest = command.split()
    told = helped(module, *rest)
    *_, example, page = told.strip().splitlines()
    assert example.startswith(f"example: python -m {command}")
    assert (ROOT / page.removeprefix("guide: ")).is_file()
    known = told + (helped("lightning_impl.train") if "those of train" in told else "")
    for option in re.findall(r" (--[\w.-]+)", example):
        if not (command == "experiment shards" and option.startswith("--data")):
            assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w.-])", known), option


def test_the_source_that_the_guide_shows_is_what_is_written() -> None:
    shown = re.findall(r"```python\n(.*?)```", (ROOT / "docs/migrate.md").read_text(), re.S)
    assert (ROOT / "examples/text_net/model.py").read_text() in shown


def test_commands_are_found_at_all() -> None:
    assert sum(len(commands(page)) for page in PAGES) > 25
    assert commands(ROOT / "docs/train.md")[0][0] == "lightning_impl.train"


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = {name for page in PAGES for name in re.findall(r"^\s{4,}make ([a-z-]+)", page.read_text(), re.M)}
    assert named
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            heads = re.findall(r"^#+ (.*)$", file.read_text(), re.M)
            slugs = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
            assert anchor in slugs, f"{page.name}: {target}"
