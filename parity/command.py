"""The ladder as a command: climbs it, shows it while it does, and writes the report."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from experiment import cli
from experiment.backbones import BACKBONES
from experiment.errors import RunError
from experiment.system import devices, processes
from parity import COMMANDS
from parity.checks import Subject
from parity.exports import command as exports
from parity.foreign import mutations as planted
from parity.foreign import prove as prove_pair
from parity.foreign.inputs import drawn, read
from parity.foreign.verdict import show
from parity.ladder import climb, mutations, pairs, whole_run
from parity.ladder.climb import COMBINATIONS, Findings, Place
from parity.report.reporter import Record

RULES = """\
rules for layers of your own, such as --layer Scale=rules:of_keras --layer Scale=rules:of_torch (of two for
one class the first is for Keras's, the second for torch's). rules.py imports no framework:

    def of_keras(layer):
        # a weight: a variable, or (variable, function that takes its array to another layout)
        return {"kind": "Scale", "settings": {"power": layer.power}, "weights": {"gamma": layer.gamma}}

    def of_torch(module):
        # a weight: a parameter's name, or (name, function that takes it to Keras's layout)
        gamma = ("gamma", lambda gamma: gamma.reshape(-1))
        return {"kind": "Scale", "settings": {"power": module.power}, "weights": {"gamma": gamma}}

Layers of one kind whose weights have the same names and shapes are matched, and their settings compared.
"""
BACKENDS = tuple(dict.fromkeys(backend for backend, _ in COMBINATIONS))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    arguments = parse(argv)
    command = ["python", "-m", "parity", *argv]
    return cli.guarded(lambda: (users_pair if arguments.keras else prove)(arguments, command))


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line; exits with 2 on a mistake."""
    parser = cli.PlainParser(
        prog="parity",
        description="Prove that two models are the same, from structure to whole training runs. Other "
        f"commands: {', '.join(COMMANDS)}.",
        epilog=RULES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("runs/parity"), help="where the report goes")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where both sides compute")
    parser.add_argument(
        "--backends",
        nargs="+",
        choices=BACKENDS,
        help="of Keras (default: all that are installed; for your own pair tensorflow, in float64 alone)",
    )
    own = parser.add_argument_group("this project's models")
    own.add_argument(
        "--pairs", nargs="+", choices=pairs.MODELS, default=[*pairs.MODELS], help="which (default all)"
    )
    own.add_argument("--quick", action="store_true", help="leave out whole runs and mutations")
    own.add_argument("--no-mutations", action="store_true", help="leave out the mutations")
    own.add_argument(
        "--data.root",
        dest="root",
        type=Path,
        metavar="FOLDER",
        help="one more whole run, on a folder of images",
    )
    users = parser.add_argument_group("your own pair")
    users.add_argument("--keras", metavar="PKG.MOD:BUILD", help="builds the Keras model (or a .keras file)")
    users.add_argument("--torch", metavar="PKG.MOD:BUILD", help="builds the torch module")
    users.add_argument(
        "--input-shape",
        type=int,
        nargs="+",
        action="append",
        metavar="N",
        help="of one input without the batch, channels last; of several, once for each",
    )
    users.add_argument(
        "--inputs",
        type=Path,
        metavar="FILE",
        help="inputs instead, batch first: an array (.npy), or several by name or in order (.npz)",
    )
    users.add_argument(
        "--loss",
        choices=("auto", "crossentropy", "binary", "mse", "compiled"),
        default="auto",
        help="of each output (default: the compiled one, else by activation and shape); a LightningModule's "
        "training_step has its own",
    )
    users.add_argument(
        "--class-weights",
        type=float,
        nargs="+",
        default=[],
        metavar="W",
        help="of the classes in Keras's loss, as its fit takes class_weight (a training_step has its own)",
    )
    users.add_argument(
        "--sample-weights",
        action="store_true",
        help="weigh samples by drawn numbers, as Keras's fit takes sample_weight (a training_step gets them "
        "as the third of its batch)",
    )
    users.add_argument("--steps", type=int, default=8, help="training steps (default 8)")
    users.add_argument("--learning-rate", type=float, default=1e-3, help="of Adam where none is configured")
    users.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="TORCH=KERAS",
        help="whose layer is whose (may be repeated)",
    )
    users.add_argument(
        "--layer",
        action="append",
        default=[],
        metavar="CLASS=PKG.MOD:RULE",
        help="how to compare layers of a class that has no rule (may be repeated); see below",
    )
    users.add_argument(
        "--precision",
        choices=("float64", "float32"),
        default="float64",
        help="float32: compare in it as well, on --backends, each side's rounding against float64",
    )
    users.add_argument(
        "--format", choices=("text", "json"), default="text", help="of the verdict on stdout (default text)"
    )
    arguments = parser.parse_args(argv)
    if bool(arguments.keras) != bool(arguments.torch):
        parser.error("a pair needs both --keras and --torch")
    if arguments.keras and (problem := _file_fault(arguments.keras)):
        parser.error(f"--keras {arguments.keras}: {problem}")
    if arguments.keras and not (arguments.input_shape or arguments.inputs):
        parser.error("give --input-shape (such as 32 32 3), or --inputs FILE.npy")
    if arguments.torch and ":" not in arguments.torch:
        parser.error(f"--torch {arguments.torch}: write package.module:function")
    if any("=" not in one for one in arguments.map):
        parser.error("--map takes TORCH_LAYER=KERAS_LAYER")
    if wrong := [rule for rule in arguments.layer if "=" not in rule or ":" not in rule.split("=")[1]]:
        parser.error(f"--layer {wrong[0]}: write CLASS=package.module:rule")
    if arguments.steps < 1:
        parser.error("--steps must be at least 1")
    if arguments.inputs and not arguments.inputs.is_file():
        parser.error(f"--inputs {arguments.inputs}: no such file")
    if arguments.root and not arguments.root.is_dir():
        parser.error(f"--data.root {arguments.root}: no such folder")
    missing = [name for name in BACKENDS if not devices.installed(name)]
    if wanted := [name for name in arguments.backends or () if name in missing]:
        parser.error(f"--backends {' '.join(wanted)}: not installed")
    if arguments.keras and "tensorflow" in missing:
        parser.error("your own pair needs TensorFlow, the one backend of Keras that computes in float64")
    arguments.singles = arguments.backends or ["tensorflow"] * (arguments.precision == "float32")
    arguments.backends = [name for name in arguments.backends or BACKENDS if name not in missing]
    if arguments.device == "cuda" and not devices.count_gpus():
        parser.error("--device cuda: this machine shows no CUDA GPUs")
    return arguments


def _file_fault(keras: str) -> str | None:
    """Why --keras names nothing that can be built or read, with the way out; None where it may."""
    path = Path(keras)
    if path.suffix == ".keras":
        return None if path.is_file() else "no such file"
    if path.suffix in (".h5", ".hdf5"):
        convert = f"import keras; keras.saving.load_model({keras!r}, compile=False).save('model.keras')"
        return f'a file of Keras 2; convert it: python -c "{convert}"'
    if (path / "saved_model.pb").is_file():
        return "a SavedModel, which holds no Keras layers: save the model as model.keras where it was built"
    return None if ":" in keras else "neither a .keras file nor package.module:function"


def prove(arguments: argparse.Namespace, command: Sequence[str]) -> int:
    """Climb the ladder and write results.json and report.html; returns 0 where every rung passed."""
    record, findings, mutated = Record(arguments.out, command), Findings(), None
    with tempfile.TemporaryDirectory(prefix="parity-") as folder:
        place = Place(Path(folder), arguments.device, record.show)
        try:
            with record.kept(findings):
                mutated = own(arguments, place, findings, record)
        except processes.SideError as error:
            raise RunError(str(error)) from error
    return record.conclude(findings, mutated)


def own(
    arguments: argparse.Namespace, place: Place, findings: Findings, record: Record
) -> list[mutations.Outcome] | None:
    """This project's models, on every backend; whole runs and mutations unless left out."""
    console = record.console
    combinations = [one for one in COMBINATIONS if one[0] in arguments.backends]
    climb.own_pairs(arguments.pairs, combinations, place, findings)
    outcomes = None
    if not arguments.quick and "tensorflow" not in arguments.backends:
        climb.without_float64(list(_runs(arguments, place.folder)), place, findings)
    elif not arguments.quick:
        climb.whole_runs(_runs(arguments, place.folder), place, findings)
        exports.own_pairs(arguments.pairs, place, findings)
        if not arguments.no_mutations:
            console.print("\nmutations: each alignment off in turn")
            outcomes = mutations.run(place.folder / "mutations", place.device, record.show_outcome)
            console.print(f"mutation score {mutations.score(outcomes):.0%}")
            foreign(place, findings, record)
    if place.device == "cpu":
        climb.unproven(arguments.pairs, findings)
        console.print(climb.UNPROVEN if not devices.count_gpus() else "unproven on CUDA: give --device cuda")
    return outcomes


def foreign(place: Place, findings: Findings, record: Record) -> None:
    """Plant every fault in pairs of a user's kind, and print the score."""
    started = time.perf_counter()
    outcomes = planted.run(planted.FAULTS, place.folder / "planted", place.device)
    score = planted.score(outcomes)
    record.console.print(f"mutation score of users' pairs {score:.0%} of {len(outcomes)} planted faults")
    subject = Subject("planted", "tensorflow", "float64", place.device)
    took = time.perf_counter() - started
    findings.decide("planted faults", lambda: planted.checks(outcomes), subject, "", took, place.watch)


def users_pair(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    """A user's two models; prints the verdict and returns its exit code."""
    report = Record(arguments.out, argv, quiet=True)
    findings = Findings()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="parity-") as folder:
        inputs, own = Path(folder) / "inputs.npz", arguments.inputs
        arrays = read(own) if own else drawn(arguments.input_shape, arguments.steps)
        np.savez(inputs, **arrays)  # type: ignore[arg-type]
        options = {
            "inputs_file": str(inputs),
            "drawn": arguments.inputs is None,
            "steps": arguments.steps,
            "loss_name": arguments.loss,
            "rules": arguments.layer,
            "class_weights": arguments.class_weights,
            "sample_weights": arguments.sample_weights,
        }
        given = dict(pair.split("=", 1) for pair in arguments.map)
        request = prove_pair.Request(
            arguments.keras,
            arguments.torch,
            options,
            arguments.learning_rate,
            given,
            arguments.device,
            arguments.singles,
        )
        with console.status("") as status:
            verdict = prove_pair.prove(request, Path(folder), findings, status.update)
    if verdict.refused is None:
        findings.notes = list(verdict.notes)
        report.conclude(findings)
        verdict = replace(verdict, report=report.out / "report.html")
    if arguments.format == "json":
        print(json.dumps(verdict.as_json(), indent=1))
    elif verdict.refused is not None:
        cli.fail(verdict.refused)
    else:
        show(verdict, Console())
    return verdict.exit_code


def _runs(arguments: argparse.Namespace, folder: Path) -> dict[str, Sequence[str]]:
    runs: dict[str, Sequence[str]] = {}
    if "cnn" in arguments.pairs:
        runs["cnn, digits"] = whole_run.CNN
        runs |= {f"cnn, {name}": options for name, options in whole_run.OPTIMIZERS.items()}
        if arguments.root:
            data = ("--data.name=folder", f"--data.root={arguments.root}")
            runs[f"cnn, {arguments.root.name}"] = (*data, *whole_run.IMAGES)
    for name in (name for name in arguments.pairs if name in BACKBONES):
        base = (f"--model.name={name}", f"--model.weights={pairs.weights(name, folder)}")
        runs[f"{name}'s head, digits"] = (*base, *whole_run.HEAD)
    return runs
