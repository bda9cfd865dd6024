"""klp: every command of the project under one name, from wherever it is installed.

train a model, and use it (SIDE is keras or lightning)
    klp SIDE train        train, resume, go on with other data
    klp SIDE tune         search for hyperparameters
    klp SIDE predict      classify images with a run
    klp SIDE export       write TFLite (Keras) or ONNX (Lightning)

runs and data
    klp runs              list runs, compare some side by side
    klp promote           make a registered run the champion
    klp shards            write a data set as Parquet files

prove
    klp migrate           write a Keras model as a Lightning package, proven
    klp prove             prove a Keras model and its torch twin, or this project's own models
    klp doctor            look through a torch module for what Keras does otherwise
    klp convert           carry a run over to the other side
    klp parity COMMAND    the other studies: {others}

    klp benchmarks SUITE  measure speed
    klp completion        a script for bash: eval "$(klp completion)"

Each has --help. Without an installation they are python -m keras_impl.train, python -m parity migrate, ...
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from parity import COMMANDS

SIDES = {"keras": "keras_impl", "lightning": "lightning_impl"}
OF_A_SIDE = ("train", "tune", "predict", "export")
NAMED = ("convert", "doctor", "migrate")
OF_RUNS = ("promote", "runs", "shards")
WAY_OUT = "klp --help lists the commands"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code, 2 for one that is not there."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        others = ", ".join(name for name in sorted(COMMANDS) if name not in NAMED)
        print((__doc__ or "").format(others=others).strip())
        return 0
    if argv == ["completion"]:
        print(_completion())
        return 0
    found = module_of(argv)
    if found is None:
        near = f"{argv[0]} {' or '.join(OF_A_SIDE)}" if argv[0] in SIDES else WAY_OUT
        print(f"error: klp {' '.join(argv[:2])}: no such command; {near}", file=sys.stderr)
        return 2
    module, rest = found
    return importlib.import_module(module).main(rest)


def module_of(argv: Sequence[str]) -> tuple[str, list[str]] | None:
    """The module whose `main` a command is, and the arguments that are left for it."""
    first, *rest = argv
    if first in SIDES:
        known = bool(rest) and rest[0] in OF_A_SIDE
        return (f"{SIDES[first]}.{rest[0]}", rest[1:]) if known else None
    if first in NAMED:
        return COMMANDS[first], rest
    if first in OF_RUNS:
        return "experiment.__main__", [first, *rest]
    return {
        "prove": ("parity.command", rest),
        "parity": ("parity.__main__", rest),
        "benchmarks": ("benchmarks.__main__", rest),
    }.get(first)


def _completion() -> str:
    words = [*SIDES, *NAMED, *OF_RUNS, "prove", "parity", "benchmarks"]
    return f"""_klp() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" words=""
    case "$COMP_CWORD,${{COMP_WORDS[1]}}" in
        1,*) words="{" ".join(words)}" ;;
        2,keras|2,lightning) words="{" ".join(OF_A_SIDE)}" ;;
        2,parity) words="{" ".join(sorted(COMMANDS))}" ;;
    esac
    if [[ "$word" == -* ]]; then  # the options that the command's own help names
        words=$("${{COMP_WORDS[@]:0:COMP_CWORD}}" --help 2>/dev/null | grep -oE -- '--[a-z0-9_.-]+' | sort -u)
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _klp klp"""


if __name__ == "__main__":
    sys.exit(main())
