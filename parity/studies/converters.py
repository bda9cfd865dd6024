"""python -m parity converters: five networks by `parity migrate` and by pnnx, side by side.

Each Keras model is written by both; what they wrote is run on the same batch before and after one step of
SGD, and compared with Keras's. Writes OUT/converters.md. Needs pnnx (pip install pnnx). Run it from the
project's folder.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from experiment import cli
from experiment.errors import RunError
from experiment.system import devices, markdown, processes
from experiment.system.environment import environment, environment_line
from experiment.system.names import command_line
from parity.studies import study

NETWORKS = {
    "this project's CNN": "examples.keras_models:cnn",
    "MobileNetV2 x 0.35": "examples.keras_models:mobilenet",
    "text classifier": "examples.keras_models:text",
    "ResNet50": "examples.applications_keras:ResNet50",
    "DenseNet121": "examples.applications_keras:DenseNet121",
}
TOOLS = ("migrate", "pnnx")
HEADS = ("network", "written by", "lines", "runs", "outputs apart by", "after one step by")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = cli.PlainParser(
        prog="parity converters", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS), help="which")
    parser.add_argument(
        "--pnnx", default=shutil.which("pnnx") or "", help="the program (default: on the path)"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/converters"), help="where the report goes")
    argv = list(sys.argv[1:] if argv is None else argv)
    arguments = parser.parse_args(argv)
    command = command_line(["python", "-m", "parity", "converters", "--out", str(arguments.out)])
    return cli.guarded(lambda: _study(arguments, command))


def _study(arguments: argparse.Namespace, command: str) -> int:
    if not Path("examples", "keras_models.py").is_file():
        raise RunError("examples/keras_models.py is not here: run this from the project's folder")
    if not Path(arguments.pnnx).is_file():
        raise RunError("pnnx is not there: pip install pnnx, or name the program with --pnnx")
    rows = []
    for name in arguments.networks:
        with tempfile.TemporaryDirectory(prefix="parity-") as folder:
            out = Path(folder)
            processes.start("keras_impl.bench.one_step", [NETWORKS[name], str(out)], backend="torch")
            for tool, write in zip(TOOLS, (_migrated, _by_pnnx), strict=True):
                rows.append([name, tool, *_row(write(out, arguments.pnnx), out, tool)])
                print("  ".join(rows[-1]), flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    study.write(arguments.out / "converters.md", page(rows, command))
    return 0


def _migrated(out: Path, pnnx: str) -> Path:
    arguments = ["migrate", str(out / "model.keras"), "--out", str(out / "migrated"), "--no-proof"]
    processes.start("parity", arguments)
    return out / "migrated" / "model.py"


def _by_pnnx(out: Path, pnnx: str) -> Path:
    """The path of pnnx's torch source for the ONNX file: nothing is there where pnnx failed."""
    with np.load(out / "keras.npz") as given:
        x = given["x"]
    shape = f"[{','.join(map(str, x.shape))}]{'i32' if x.dtype.kind == 'i' else 'f32'}"
    subprocess.run([pnnx, str(out / "model.onnx"), f"inputshape={shape}"], cwd=out, capture_output=True)
    return out / "model_pnnx.py"


def _row(file: Path, out: Path, tool: str) -> list[str]:
    if not file.is_file():
        return ["", "nothing is written", "", ""]
    lines = str(len(file.read_text().splitlines()))
    try:
        processes.start("lightning_impl.bench.one_step", [str(out), tool, str(file)])
    except processes.SideError as error:
        return [lines, str(error).strip().splitlines()[-1], "", ""]
    found: Mapping[str, float] = json.loads((out / f"{tool}.json").read_text())
    return [lines, "yes", f"{found['before']:.1e}", f"{found['after']:.1e}"]


def page(rows: Sequence[Sequence[str]], command: str) -> str:
    """The report in Markdown."""
    return "\n".join(
        [
            "# What others write of the same networks",
            "",
            "Each Keras model is written as torch source by `parity migrate` and, from the ONNX file that "
            "Keras exports, by pnnx. Both run on the same batch of four; the differences are the largest of "
            "the predicted probabilities from Keras's, before and after one step of SGD with a rate of "
            "0.01 on that batch, without dropout, in float32. An ONNX file is made for inference: its "
            "BatchNorms have become constants, so what is written of it cannot train as Keras does. "
            "onnx2tf writes torch source only in versions that need a newer Python than 3.11, and was not "
            "tried.",
            "",
            markdown.table(list(HEADS), [list(row) for row in rows]),
            "",
            f"`{command}`",
            "",
            environment_line(environment("keras, torch", "cpu", devices.count_cores(), 0, {})),
            "",
        ]
    )
