"""python -m parity doctor: what of a torch model and its training a migration from Keras left unmatched.

Reads a torch module, and the optimizer, scheduler, loss, callbacks, DataLoader or Trainer that train it, and
warns of every default that Keras has otherwise. It needs no Keras model: what it cannot see is whether
the two models are the same, for which there is `python -m parity --keras ... --torch ...`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from experiment import cli
from experiment.system import devices, processes
from experiment.system.files import replacing

SHOWN = 3  # names of layers in a row


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 0 where nothing was found, 1 where something was, 2 for a user's mistake."""
    parser = cli.PlainParser(prog="parity doctor", description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--torch", required=True, metavar="PKG.MOD:BUILD", help="builds the torch module")
    parser.add_argument(
        "--training",
        default="",
        metavar="PKG.MOD:FUNCTION",
        help="gives what trains it, alone or in a list; it may take the model. A LightningModule's "
        "configure_optimizers and configure_callbacks are read without it",
    )
    parser.add_argument(
        "--input-shape",
        type=int,
        nargs="+",
        default=[],
        metavar="N",
        help="of one input, channels last: with it the model is run, too",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the findings there, too")
    arguments = parser.parse_args(sys.argv[1:] if argv is None else argv)
    if any(size < 1 for size in arguments.input_shape):
        parser.error("--input-shape: sizes are at least 1, such as 32 32 3")
    try:
        found = findings(arguments.torch, arguments.training, arguments.input_shape)
    except processes.SideError as error:
        cli.fail(str(error))
    if arguments.json:
        with replacing(arguments.json) as path:
            path.write_text(json.dumps(found, indent=1) + "\n")
    show(Console(), found)
    return 1 if found else 0


def findings(build: str, training: str = "", input_shape: Sequence[int] = ()) -> list[dict[str, str]]:
    """Where, torch's way, Keras's way and the remedy of everything found; raises sides.SideError."""
    with tempfile.TemporaryDirectory(prefix="doctor-") as folder:
        request = Path(folder) / "request.json"
        values = {"build": build, "training": training, "input_shape": list(input_shape)}
        request.write_text(json.dumps({**values, "gpu": bool(devices.count_gpus())}))
        processes.start("lightning_impl.doctor.command", [str(request), folder])
        return json.loads((Path(folder) / "findings.json").read_text())["findings"]


def grouped(found: Sequence[dict[str, str]]) -> list[tuple[list[str], dict[str, str]]]:
    """Findings that say the same, once, with every place where they were made."""
    rows: dict[tuple[str, ...], tuple[list[str], dict[str, str]]] = {}
    for finding in found:
        key = tuple(finding[name] for name in ("torch", "keras", "remedy"))
        rows.setdefault(key, ([], finding))[0].append(finding["where"])
    return list(rows.values())


def show(console: Console, found: Sequence[dict[str, str]]) -> None:
    if not found:
        console.print("no unmatched default found", style="green")
        return
    table = Table(show_lines=True)
    for name in ("where", "torch", "Keras", "to match"):
        table.add_column(name, overflow="fold")
    for places, finding in grouped(found):
        more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
        table.add_row(", ".join(places[:SHOWN]) + more, finding["torch"], finding["keras"], finding["remedy"])
    console.print(table)
    count = len(grouped(found))
    console.print(f"{count} unmatched {'default' if count == 1 else 'defaults'}", style="yellow")


if __name__ == "__main__":
    sys.exit(main())
