"""python -m parity emitter: faults in the rules that write torch source, each to be caught by the ladder.

Writes a package from each of tests/pairs/migrate_keras.py's models as the rules are, which must pass, and
one for each fault of tests/lightning_impl/mutated_rules.py, which must not. OUT/README.md says where each
fault is caught. Run it from the project's folder.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiment import cli
from experiment.errors import RunError
from experiment.protocols.graph import Migration
from experiment.system import devices, markdown, processes
from experiment.system.environment import environment, environment_line
from experiment.system.names import command_line
from parity.foreign.inputs import named
from parity.foreign.prove import Request, prove
from parity.foreign.sides import Sides
from parity.foreign.verdict import Verdict
from parity.ladder.climb import Findings
from parity.migrate import inputs
from parity.studies import study

MODELS = Path("tests", "pairs", "migrate_keras.py")
FAULTS = Path("tests", "lightning_impl", "mutated_rules.py")
STEPS, OPEN_SIZE = 3, 11


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 1 where a fault passes, or a package without any fails."""
    parser = cli.PlainParser(
        prog="parity emitter", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rules", nargs="+", help="the layers whose rules get faults (default all)")
    parser.add_argument("--out", type=Path, default=Path("runs/emitter_faults"), help="where the report goes")
    argv = list(sys.argv[1:] if argv is None else argv)
    arguments = parser.parse_args(argv)
    command = command_line(["python", "-m", "parity", "emitter", *argv])
    return cli.guarded(lambda: _study(arguments.rules, arguments.out, command))


def _study(rules: Sequence[str] | None, out: Path, command: str) -> int:
    if not MODELS.is_file() or not FAULTS.is_file():
        raise RunError(f"{MODELS} is not here: run this from the project's folder")
    with tempfile.TemporaryDirectory(prefix="parity-") as folder:
        rows = list(_proved(Path(folder), rules))
    faults, right = ([row for row in rows if bool(row["rule"]) is wanted] for wanted in (True, False))
    caught = sum(row["verdict"] != "passed" for row in faults)
    failed = [row["model"] for row in right if row["verdict"] != "passed"]
    out.mkdir(parents=True, exist_ok=True)
    study.write(out / "README.md", page(faults, right, command))
    print(f"mutation score of the emitter {caught / max(len(faults), 1):.0%} of {len(faults)} faults")
    if failed:
        print(f"without a fault these fail: {', '.join(failed)}")
    return int(caught < len(faults) or bool(failed))


def _proved(folder: Path, rules: Sequence[str] | None) -> Iterator[dict[str, Any]]:
    """Each package, with where the ladder stops; raises RunError."""
    graphs, packages = folder / "graphs", folder / "packages"
    packages.mkdir()
    sys.path[:0] = [str(folder.resolve()) for folder in (packages, MODELS.parent, FAULTS.parent)]
    processes.start(MODELS.stem, [str(graphs)])
    processes.start(FAULTS.stem, [str(graphs), str(packages)])
    told = json.loads((packages / "packages.json").read_text())
    known = {one["rule"] for one in told if one["rule"]}
    if unknown := set(rules or ()) - known:
        raise RunError(
            f"--rules {' '.join(sorted(unknown))}: there are faults for {', '.join(sorted(known))}"
        )
    wanted = [one for one in told if rules is None or one["rule"] in rules]
    with Sides(folder / "sides") as sides:
        for one in wanted:
            found = one | _climbed(one, graphs, folder / one["package"], sides)
            print(
                f"{found['rule'] or 'as it is'}: {found['fault'] or one['model']}  {found['where']}",
                flush=True,
            )
            yield found


def _climbed(one: Mapping[str, Any], graphs: Path, folder: Path, sides: Sides) -> dict[str, str]:
    if one["error"]:
        return {"verdict": "refused", "where": "not written", "cause": one["error"]}
    folder.mkdir()
    drawn = inputs(Migration.read(graphs / one["model"]).graph, STEPS, OPEN_SIZE)
    np.savez(folder / "inputs.npz", **named(list(drawn.values())))  # type: ignore[arg-type]
    options = {"inputs_file": str(folder / "inputs.npz"), "steps": STEPS}
    model = graphs / one["model"] / "model.keras"
    request = Request(str(model), f"{one['package']}.model:build", options)
    return _said(prove(request, folder, Findings(), sides=sides))


def _said(verdict: Verdict) -> dict[str, str]:
    answer = verdict.weights if verdict.weights.status == "failed" else verdict.computation
    where = f"{answer.rung}, {answer.layer}" if answer.rung else verdict.status
    cause = (verdict.refused or answer.cause or "").partition("\n")[0]
    return {"verdict": verdict.status, "where": where, "cause": cause}


def page(faults: Sequence[Mapping[str, Any]], right: Iterable[Mapping[str, Any]], command: str) -> str:
    """The report in Markdown."""
    caught = sum(row["verdict"] != "passed" for row in faults)
    keys = ("rule", "fault", "model", "where", "cause")
    rows = [[str(row[key]).replace("|", "/") for key in keys] for row in faults]
    heads = ["rule", "fault", "in the model", "caught at", "named as"]
    passed = [row["model"] for row in right if row["verdict"] == "passed"]
    return "\n".join(
        [
            "# Faults in what migrate writes",
            "",
            "Each fault is put into the rule that writes a layer's torch source; the package that is written "
            "with it is taken through the ladder, in float64. Without a fault "
            f"{len(passed)} models pass: {', '.join(passed)}.",
            "",
            f"Mutation score {caught / max(len(faults), 1):.0%} of {len(faults)}.",
            "",
            markdown.table(heads, rows),
            "",
            f"`{command}`",
            "",
            environment_line(environment("keras, torch", "cpu", devices.count_cores(), 0, {})),
            "",
        ]
    )
