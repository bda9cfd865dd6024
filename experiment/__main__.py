"""python -m experiment COMMAND: what is done with runs and data sets, without a framework.

    runs       list runs in a table, or compare some side by side
    promote    make a registered run the champion, unless it does worse than that one
    shards     write a data set as Parquet files in Hugging Face's layout

Each has --help.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from experiment import cli

COMMANDS = {
    "runs": "experiment.tracking.compare",
    "promote": "experiment.tracking.promote",
    "shards": "experiment.data.write_table",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = cli.PlainParser(
        prog="experiment",
        usage="python -m experiment COMMAND ...",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, help=argparse.SUPPRESS)
    command = parser.parse_args(argv[:1]).command
    return importlib.import_module(COMMANDS[command]).main(argv[1:])


if __name__ == "__main__":
    sys.exit(main())
