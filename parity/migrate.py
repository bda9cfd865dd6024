"""python -m parity migrate BUILD --out FOLDER: a Keras model as a Lightning package, with the proof
attached."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiment import cli
from experiment.errors import RunError
from experiment.protocols.graph import Graph, Migration, tensors
from experiment.system import processes

BACK = 1e-6  # between the predictions of both sides, in float32
SMALL = 4096  # numbers of a sample
TOKENS = 8  # numbers below this stand for tokens and for small whole numbers


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = parse(argv)
    return cli.guarded(lambda: back(arguments) if arguments.back else migrate(arguments))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; exits with 2 on a mistake."""
    parser = cli.PlainParser(
        prog="parity migrate",
        description="Write a Keras model as a Lightning package that needs nothing of this project, and "
        "prove that it is the same; or take trained weights back into a .keras file (--back).",
    )
    parser.add_argument("build", nargs="?", metavar="MODEL", help="PKG.MOD:BUILD, a .keras file, or a run")
    parser.add_argument("--out", type=Path, help="where the package goes; a .keras file with --back")
    parser.add_argument("--callbacks", metavar="PKG.MOD:LIST", help="gives a list of Keras's callbacks")
    parser.add_argument(
        "--layer",
        action="append",
        default=[],
        metavar="CLASS=PKG.MOD:RULE",
        help="a source rule of your own (may be repeated)",
    )
    parser.add_argument("--stub", action="store_true", help="leave what cannot be translated to be written")
    parser.add_argument("--steps", type=int, default=20, help="training steps of the proof (default 20)")
    parser.add_argument(
        "--size", type=int, default=32, help="for sizes that the model leaves open (default 32)"
    )
    parser.add_argument("--no-proof", action="store_true", help="write the package alone")
    parser.add_argument("--back", metavar="PKG.MOD:BUILD", help="the torch side of weights to take back")
    parser.add_argument("--keras", metavar="MODEL", help="with --back: the Keras model that takes them")
    parser.add_argument("--weights", type=Path, help="with --back: .safetensors, or a Lightning checkpoint")
    arguments = parser.parse_args(argv)
    if arguments.back and not arguments.keras:
        parser.error("--back needs --keras, the model that takes the weights")
    if not arguments.back and not arguments.build:
        parser.error("name a Keras model: package.module:function, a .keras file or a run")
    if arguments.weights and not arguments.weights.is_file():
        parser.error(f"--weights {arguments.weights}: no such file")
    if any("=" not in text for text in arguments.layer):
        parser.error("--layer takes CLASS=package.module:rule")
    if arguments.steps < 1 or arguments.size < 1:
        parser.error("--steps and --size must be at least 1")
    if arguments.out is None:
        arguments.out = Path("trained.keras") if arguments.back else Path("migrated")
    return arguments


def migrate(arguments: argparse.Namespace) -> int:
    """Write the package and prove it; returns 1 where the proof fails. Raises RunError."""
    out = arguments.out.resolve()
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise RunError(f"{arguments.out} exists: name another place with --out")
    if not out.name.isidentifier():
        raise RunError(f"--out {arguments.out}: {out.name} is no name that Python can import")
    out.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        graph, made = Path(folder) / "graph", Path(folder) / out.name
        made.mkdir()
        read_graph(arguments.build, arguments.callbacks, graph)
        written = write(graph, made, arguments)
        migration = Migration.read(graph)
        shutil.rmtree(out, ignore_errors=True)
        made.rename(out)
        np.savez(
            Path(folder) / "inputs.npz",
            allow_pickle=False,
            **inputs(migration.graph, arguments.steps, arguments.size),
        )
        print(
            f"{out}: model.py has {written['lines']} lines ({time.perf_counter() - started:.0f} s)",
            flush=True,
        )
        for note in written["notes"]:
            print(f"note: {note}")
        if written["stubs"]:
            print(f"not proven: {', '.join(written['stubs'])} left to be written")
            return 0
        if arguments.no_proof:
            return 0
        verdict = prove(arguments, out, Path(folder), migration, written["layers"])
    tell(out, verdict, arguments)
    print(f"{verdict['line']} ({time.perf_counter() - started:.0f} s)")
    return verdict["code"]


def read_graph(build: str, callbacks: str | None, folder: Path) -> None:
    """Have Keras's side read a model into a folder; raises RunError."""
    folder.mkdir(parents=True, exist_ok=True)
    request = folder / "request.json"
    request.write_text(json.dumps({"build": build, "callbacks": callbacks}))
    start("keras_impl.trace.graph", [str(request), str(folder)])


def write(graph: Path, out: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Have torch's side write the package; returns what it says of it. Raises RunError."""
    answer = graph / "answer.json"
    request = {
        "graph": str(graph),
        "out": str(out),
        "layers": arguments.layer,
        "stub": arguments.stub,
        "answer": str(answer),
    }
    path = graph / "write.json"
    path.write_text(json.dumps(request))
    start("lightning_impl.migrate.command", [str(path)])
    return json.loads(answer.read_text())


def start(module: str, arguments: Sequence[str]) -> str:
    """Run one side's command; raises RunError with what it said."""
    try:
        return processes.start(module, arguments)
    except processes.SideError as error:
        raise RunError(str(error)) from error


def inputs(graph: Graph, steps: int, size: int) -> dict[str, np.ndarray]:
    """Inputs for a model: whole numbers where it takes tokens, else uniform ones.

    For each step as many as keep the proof quick: 16 of few numbers, else four.

    size: of axes that the model leaves open.
    """
    generator = np.random.default_rng(1)
    tokens = {
        t for call in graph.calls if graph.layers[call.layer].kind == "Embedding" for t in tensors(call.args)
    }
    top = 255 if _takes_pixels(graph) else 1
    shapes = [[n or size for n in graph.tensors[t].shape[1:]] for t in tensors(graph.inputs)]
    count = steps * (16 if sum(map(math.prod, shapes)) <= SMALL else 4)
    found = {}
    for index, (tensor, sizes) in enumerate(zip(tensors(graph.inputs), shapes, strict=True)):
        shape = [count, *sizes]
        if tensor in tokens or "int" in graph.tensors[tensor].dtype:
            found[f"input{index}"] = generator.integers(0, TOKENS, shape).astype("int32")
        else:
            drawn = generator.uniform(0, top, shape).astype(np.float32)
            found[f"input{index}"] = drawn.astype(np.float64)  # the same numbers in either precision
    return found


def _takes_pixels(graph: Graph) -> bool:
    """Whether a model scales its inputs down itself, as one does that takes pixels from 0 to 255."""
    layers = [layer for _, layer in graph.every_layer()]
    scales = [layer.settings.get("scale") for layer in layers if layer.kind == "Rescaling"]
    means = [
        np.max(layer.settings["mean"])
        for layer in layers
        if layer.kind == "Normalization" and layer.settings.get("mean")
    ]
    return any(isinstance(scale, float) and abs(scale) < 0.1 for scale in scales) or any(
        mean > 10 for mean in means
    )


def prove(
    arguments: argparse.Namespace, out: Path, folder: Path, migration: Migration, layers: Mapping[str, str]
) -> dict[str, Any]:
    """Climb the ladder with the written package; returns its verdict as the ladder's JSON has it.

    layers: by a module's path, the Keras layer that it was written from: said where the ladder, which finds
    out for itself whose layer is whose, cannot. The Keras side is the model as it was read, weights and all,
    where Keras can save it.
    """
    trains = migration.training is not None or any(
        layer.penalties or layer.constraints for _, layer in migration.graph.every_layer()
    )
    torch_side = f"{out.name}.{'lightning_module' if trains else 'model'}:build"
    saved, file = folder / "graph" / "model.keras", folder / "inputs.npz"
    with np.load(file) as arrays:
        shapes = [arrays[name].shape[1:] for name in arrays.files]
        if len(arrays.files) == 1:
            file = file.with_suffix(".npy")
            np.save(file, arrays[arrays.files[0]])
    command = [
        *(sys.executable, "-m", "parity", "--keras", str(saved) if saved.is_file() else arguments.build),
        *("--torch", torch_side, "--inputs", str(file), "--steps", str(arguments.steps)),
        *("--out", str(out / "parity"), "--format", "json"),
    ]
    environment = processes.environment("cpu", "tensorflow")
    environment["PYTHONPATH"] = os.pathsep.join([str(out.parent), environment["PYTHONPATH"]])
    prefix = "network." if trains else ""
    mapped = [word for path, layer in layers.items() for word in ("--map", f"{prefix}{path}={layer}")]
    done, said = climb(command, environment)
    if "say --map" in (said.get("refused") or ""):
        done, said = climb([*command, *mapped], environment)
    return {
        "code": 0 if done == 0 else 1,
        "line": line_of(said),
        "said": said,
        "torch": torch_side,
        "inputs": " ".join(f"--input-shape {' '.join(map(str, shape))}" for shape in shapes),
    }


def climb(command: Sequence[str], environment: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
    """Run the ladder; returns its exit code and its verdict."""
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    try:
        return done.returncode, json.loads(done.stdout)
    except json.JSONDecodeError:
        return done.returncode, {"refused": str(processes.failure("parity", done.stderr, done.returncode))}


def line_of(said: dict[str, Any]) -> str:
    """A verdict in one line: proven, or the first rung that fails with its layer and cause."""
    if said.get("refused"):
        return f"not proven: {said['refused']}"
    if said.get("verdict") == "passed":
        passed = dict.fromkeys(rung["name"] for rung in said["rungs"] if rung["status"] == "passed")
        skipped = [
            rung for rung in said["rungs"] if rung["status"] == "skipped" and rung["name"] != "weights"
        ]
        told = "".join(f"; {rung['name']} says nothing" for rung in skipped)
        return f"proven: {', '.join(passed)} agree{told}"
    failed = next((said[part] for part in ("computation", "weights") if said[part]["status"] == "failed"), {})
    return f"not proven: {failed.get('rung')} fails at {failed.get('layer')}: {failed.get('cause')}"


def tell(out: Path, verdict: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Put the verdict into the package's README and beside the ladder's report."""
    folder = out / "parity"
    folder.mkdir(exist_ok=True)
    said = {key: value for key, value in verdict["said"].items() if key != "report"}  # a path of this machine
    (folder / "verdict.json").write_text(json.dumps(said, indent=1))
    # A path of this machine, and of a folder that is gone by now.
    here = re.escape(f"{out.parent}/") + rf"(\.{out.name}\.\w+/(graph/)?)?"
    for report in (folder / "report.html", folder / "results.json"):
        if report.is_file():
            report.write_text(re.sub(here, "", report.read_text()))
    rows = [f"| {r['name']} | {r['status']} | {_worst(r)} |" for r in verdict["said"].get("rungs", [])]
    table = (
        "\n".join(["| rung | | largest difference, of how much |", "|---|---|---|", *rows]) if rows else ""
    )
    notes = "".join(f"\n- {note}" for note in verdict["said"].get("notes", []))
    table += f"\n\nTo know:\n{notes}" if notes else ""
    text = (
        f"{verdict['line'][0].upper()}{verdict['line'][1:]}.\n\n{table}\n\nMade by running this package, "
        f"with {arguments.steps} steps in float64; "
        f"`parity/` has the report. To repeat it, from the folder that "
        f"holds this one:\n\n    python -m parity --keras {arguments.build} --torch {verdict['torch']} "
        f"{verdict['inputs']}\n\nA builder that draws its weights draws others in float64: "
        "a saved .keras file keeps them."
    )
    readme = out / "README.md"
    readme.write_text(readme.read_text().replace("Not proven yet.", text))


def _worst(rung: dict[str, Any]) -> str:
    worst = rung.get("worst")
    if not worst:
        return ""
    difference = float(worst["difference"])  # "inf" where shapes differ
    return f"{difference:.1e} of {worst['tolerance']:.1e} ({worst['quantity']})"


def back(arguments: argparse.Namespace) -> int:
    """Write a .keras file with weights that torch trained; returns 1 where the predictions differ."""
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "graph"
        read_graph(arguments.keras, None, graph)
        given, arrays = graph / "inputs.npz", graph / "arrays.npz"
        np.savez(given, allow_pickle=False, **_single(inputs(Migration.read(graph).graph, 2, arguments.size)))
        request = {
            "graph": str(graph),
            "build": arguments.back,
            "weights": str(arguments.weights or ""),
            "layers": arguments.layer,
            "inputs": str(given),
            "out": str(arrays),
        }
        path = graph / "back.json"
        path.write_text(json.dumps(request))
        start("lightning_impl.migrate.command", [str(path)])
        keras = graph / "keras.json"
        predictions = graph / "predictions.npz"
        keras.write_text(
            json.dumps(
                {
                    "build": arguments.keras,
                    "arrays": str(arrays),
                    "inputs": str(given),
                    "save": str(arguments.out.resolve()),
                    "predictions": str(predictions),
                }
            )
        )
        start("keras_impl.trace.graph", [str(keras), str(graph)])
        with np.load(arrays) as torch_side, np.load(predictions) as keras_side:
            largest = max(float(np.abs(torch_side[key] - keras_side[key]).max()) for key in keras_side.files)
    print(f"{arguments.out}: predictions differ by at most {largest:.1e} (tolerance {BACK:.0e})")
    if not largest <= BACK:  # true for NaN, too
        arguments.out.unlink(missing_ok=True)
        print(
            "error: the Keras model does not predict what the torch model does; nothing is kept",
            file=sys.stderr,
        )
        return 1
    return 0


def _single(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {k: a.astype(np.float32) if a.dtype == np.float64 else a for k, a in arrays.items()}


if __name__ == "__main__":
    sys.exit(main())
