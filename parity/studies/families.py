"""python -m parity families: keras.applications migrated to torch, each package proven by the ladder.

Writes OUT/README.md and results.json: by family, the lines of model.py, the verdict, the largest difference
at each rung and the time that `python -m parity migrate` takes. Other families that OUT has stay there.
Run it from the project's folder.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiment import cli
from experiment.errors import RunError
from experiment.system import devices, markdown
from experiment.system.environment import environment, environment_line
from experiment.system.names import command_line
from parity.studies import study

PIXELS = {
    **dict.fromkeys(("VGG16", "VGG19"), 32),
    **dict.fromkeys(("ResNet50", "ResNet50V2", "MobileNet", "MobileNetV3Small", "MobileNetV3Large"), 64),
    **dict.fromkeys(
        ("EfficientNetB0", "EfficientNetV2B0", "DenseNet121", "ConvNeXtTiny", "NASNetMobile"), 64
    ),
    **dict.fromkeys(("MobileNetV2", "InceptionV3", "InceptionResNetV2", "Xception"), 96),
}
RUNGS = ("forward", "loss and gradients", "one step", "trajectory")
HEADS = ("family", "pixels", "lines", "verdict", *RUNGS, "written in", "with the proof")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 1 where a package is not proven."""
    parser = cli.PlainParser(
        prog="parity families", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--families", nargs="+", choices=list(PIXELS), default=list(PIXELS), help="which")
    parser.add_argument("--steps", type=int, default=6, help="training steps of each proof (default 6)")
    parser.add_argument("--out", type=Path, default=Path("runs/families"), help="where the report goes")
    argv = list(sys.argv[1:] if argv is None else argv)
    arguments = parser.parse_args(argv)
    command = command_line(["python", "-m", "parity", "families", *argv])
    return cli.guarded(lambda: _study(arguments, command))


def _study(arguments: argparse.Namespace, command: str) -> int:
    if not Path("examples", "applications_keras.py").is_file():
        raise RunError("examples/applications_keras.py is not here: run this from the project's folder")
    found = {}
    for name in arguments.families:
        found[name] = migrated(name, arguments.steps)
        print("  ".join(row_of(name, found[name])), flush=True)
    print(write(arguments.out, found, command, arguments.steps))
    return int(any(one["verdict"] != "proven" for one in found.values()))


def migrated(name: str, steps: int) -> dict[str, Any]:
    """Migrate a family in a process of its own; returns what the report says of it, as plain values."""
    with tempfile.TemporaryDirectory(prefix="parity-") as folder:
        out, started = Path(folder) / name.lower(), time.perf_counter()
        build = f"examples.applications_keras:{name}"
        command = [sys.executable, "-m", "parity", "migrate", build, "--out", str(out), "--steps", str(steps)]
        done = subprocess.run(command, capture_output=True, text=True)
        seconds = time.perf_counter() - started
        lines = done.stdout.strip().splitlines()
        file = out / "parity" / "verdict.json"
        if not file.is_file():
            return {"verdict": (done.stderr.strip() or "no verdict").splitlines()[-1], "seconds": seconds}
        said = json.loads(file.read_text())
        proven = done.returncode == 0
        return {
            "verdict": "proven" if proven else lines[-1].rpartition(" (")[0],
            "lines": len((out / "model.py").read_text().splitlines()),
            "written": float(lines[0].rpartition("(")[2].split()[0]),
            "seconds": seconds,
            "rungs": {rung["name"]: rung["worst"]["difference"] for rung in said["rungs"] if rung["worst"]},
            "notes": said["notes"],
        }


def row_of(name: str, found: Mapping[str, Any]) -> list[str]:
    """What the report says of a family, by HEADS."""
    rungs = found.get("rungs", {})
    differences = [f"{float(rungs[rung]):.1e}" if rung in rungs else "" for rung in RUNGS]
    times = [f"{found[key]:.0f} s" if key in found else "" for key in ("written", "seconds")]
    return [name, str(PIXELS[name]), str(found.get("lines", "")), found["verdict"], *differences, *times]


def write(out: Path, found: Mapping[str, Any], command: str, steps: int) -> Path:
    """Write the report into `out`; returns the path of its README.md."""
    facts = environment("keras, torch", "cpu", devices.count_cores(), 0, {})
    out.mkdir(parents=True, exist_ok=True)
    families, older = study.kept(out / "results.json", "families", found, PIXELS, facts)
    told = f" migrated {', '.join(found)}; the other rows are of runs before it." if older else ""
    notes = {
        note: [name for name, one in families.items() if note in one.get("notes", [])]
        for one in families.values()
        for note in one.get("notes", [])
        if note.startswith("rounding grows")
    }
    lines = [
        "# keras.applications as torch packages",
        "",
        "Each family with weights drawn at random and ten classes, written by `parity migrate`; its "
        f"package taken through the ladder in float64, {steps} training steps of four images. The "
        "differences are the largest of each rung, as shares of a layer's largest value up to the gradients, "
        "of weights and losses after that.",
        "",
        markdown.table(list(HEADS), [row_of(name, one) for name, one in families.items()]),
        "",
        *(f"- {', '.join(names)}: {note}" for note, names in notes.items()),
        "",
        f"`{command}`{told}",
        "",
        environment_line(facts),
        "",
    ]
    study.write(out / "README.md", "\n".join(lines))
    return out / "README.md"
