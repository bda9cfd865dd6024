"""python -m parity applications: keras.applications against their twins in timm and torchvision.

Proves the pairs of examples/applications_keras.py and examples/applications_torch.py, one after the other in
two processes, and writes OUT/README.md and results.json: each pair's verdict, cause, change and time. Other
pairs that OUT has stay there.
Run it from the project's folder.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiment import cli
from experiment.errors import RunError
from experiment.system import devices, markdown
from experiment.system.environment import environment, environment_line
from experiment.system.names import command_line
from parity.foreign.inputs import drawn
from parity.foreign.prove import Request, prove
from parity.foreign.sides import Sides
from parity.foreign.verdict import Verdict
from parity.ladder.climb import Findings
from parity.report.formatting import duration
from parity.studies import study

NAMES = (
    *("efficientnet_b0", "efficientnet_b0_corrected", "efficientnetv2_b0", "efficientnetv2_b0_corrected"),
    *("mobilenet_v2", "mobilenet_v2_corrected", "mobilenet_v3", "mobilenet_v3_corrected", "convnext_tiny"),
    *("densenet121", "resnet50", "resnet50_v2", "xception", "inception_v3"),
)
SHAPE = (96, 96, 3)
STEPS = 2
HEADS = ("pair", "verdict", "fails at", "cause", "change", "time")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 1 where a pair could not be compared."""
    parser = cli.PlainParser(
        prog="parity applications", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", nargs="+", choices=NAMES, default=NAMES, help="which (default all)")
    parser.add_argument("--out", type=Path, default=Path("runs/foreign_pairs"), help="where the report goes")
    argv = list(sys.argv[1:] if argv is None else argv)
    arguments = parser.parse_args(argv)
    command = command_line(["python", "-m", "parity", "applications", *argv])
    return cli.guarded(lambda: _study(arguments.pairs, arguments.out, command))


def _study(names: Sequence[str], out: Path, command: str) -> int:
    if importlib.util.find_spec("timm") is None:
        raise RunError("timm is not installed: pip install timm (the twins are its models)")
    if not Path("examples", "applications_torch.py").is_file():
        raise RunError("examples/applications_torch.py is not here: run this from the project's folder")
    pairs: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="parity-") as folder, Sides(Path(folder)) as sides:
        for name in names:
            pairs[name] = prove_pair(name, Path(folder), sides).as_json()
            print("  ".join(row_of(name, pairs[name])), flush=True)
    print(write(out, pairs, command))
    return int(any(pair["verdict"] == "refused" for pair in pairs.values()))


def prove_pair(name: str, folder: Path, sides: Sides) -> Verdict:
    """The verdict on the application and the twin of this name; its files are gone afterwards."""
    with tempfile.TemporaryDirectory(dir=folder) as own:
        inputs = Path(own) / "inputs.npz"
        np.savez(inputs, **drawn([SHAPE], STEPS))  # type: ignore[arg-type]
        options = {"inputs_file": str(inputs), "drawn": True, "steps": STEPS}
        keras = f"examples.applications_keras:{name.removesuffix('_corrected')}"
        request = Request(keras, f"examples.applications_torch:{name}", options)
        return prove(request, Path(own), Findings(), sides=sides)


def row_of(name: str, verdict: Mapping[str, Any]) -> list[str]:
    """What the report says of a pair, by HEADS, from its verdict as JSON."""
    answer = verdict["computation"]
    where = f"{answer['rung']}, {answer['layer']}" if answer["rung"] else ""
    cause = (verdict["refused"] or answer["cause"] or "").partition("\n")[0]
    return [name, verdict["verdict"], where, cause, answer["change"] or "", duration(verdict["seconds"])]


def write(out: Path, pairs: Mapping[str, Any], command: str) -> Path:
    """Write the report into `out`; returns the path of its README.md. pairs: verdicts as JSON, by name."""
    facts = environment("keras, torch", "cpu", devices.count_cores(), 0, {})
    out.mkdir(parents=True, exist_ok=True)
    proved = list(pairs)
    pairs, older = study.kept(out / "results.json", "pairs", pairs, NAMES, facts)
    rows = [row_of(name, verdict) for name, verdict in pairs.items()]
    told = f" proved {', '.join(proved)}; the other rows are of runs before it." if older else ""
    lines = [
        "# keras.applications and their twins",
        "",
        "Models of keras.applications against timm's and torchvision's of the same name, with weights drawn "
        f"at random, on images of {SHAPE[0]} by {SHAPE[1]}, {STEPS} training steps: the first rung and layer "
        "at which each pair parts, why, and what would mend it. A corrected twin takes what the one before "
        "it was told. Where the moving variance is what is left, the two predict the same and train on the "
        "same gradients.",
        "",
        markdown.table(list(HEADS), rows),
        "",
        f"`{command}`{told}",
        "",
        environment_line(facts),
        "",
    ]
    study.write(out / "README.md", "\n".join(lines))
    return out / "README.md"
