"""What the bare loops of both sides share: their command line, and the line that they print."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiment import cli
from experiment.cli import Framework
from experiment.config import Experiment

# {"images": of an epoch, "seconds": [of each epoch, the first with the warm-up]}, and what a loop has to add.
Loop = Callable[[Experiment], dict[str, Any]]


def main(framework: Framework, loops: Mapping[str, Loop], argv: Sequence[str] | None) -> int:
    """Run the loop that --mode names, or the first, with the options of `train`; returns the exit code.

    Prints what the loop gives, as one line of JSON.
    """
    parser = cli.PlainParser(prog=f"{framework}_impl.bench.baselines", add_help=False, allow_abbrev=False)
    parser.add_argument("--mode", choices=list(loops), default=next(iter(loops)))
    chosen, rest = parser.parse_known_args(list(sys.argv[1:] if argv is None else argv))
    with cli.refusing():
        request = cli.train_request(framework, rest)
        cli.use_device(framework, request.experiment)

    def command() -> int:
        print(json.dumps(loops[chosen.mode](request.experiment)))
        return 0

    return cli.guarded(command)
