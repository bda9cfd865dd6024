"""python -m parity: prove that a Keras model and its torch twin are the same, rung by rung.

Without a command it climbs the ladder with this project's two models, or with a user's (--keras and --torch).
`parity.COMMANDS` are the others; each has --help.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from parity import COMMANDS


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 all passed, 1 something failed, 2 a mistake of the user."""
    argv = list(sys.argv[1:] if argv is None else argv)
    module = COMMANDS[argv.pop(0)] if argv and argv[0] in COMMANDS else "parity.command"
    return importlib.import_module(module).main(argv)


if __name__ == "__main__":
    sys.exit(main())
