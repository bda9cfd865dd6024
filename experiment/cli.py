"""The command line of `train`: YAML file + dotted overrides -> Experiment, without a framework import."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NoReturn

from jsonargparse import ArgumentParser, Namespace, get_loader, set_loader
from pydantic import ValidationError

from experiment import errors, guide
from experiment.config import Experiment, address_fault, fault
from experiment.errors import ConfigError, DataError, RunError
from experiment.runs import record
from experiment.system import devices, distributed, documents, files, output, processes, signals

Framework = Literal["keras", "lightning"]


def _value(text: str) -> Any:
    """A value of the command line, which is read as YAML: within the bounds of a file."""
    documents.parse(text)
    return get_loader("yaml")(text)


set_loader("bounded", _value, exceptions=(documents.DocumentError,))

LONGEST = 400  # characters of an error: what was typed may have thousands

# What a resumed run may change: how long and where it trains, and where the same data lie.
RESUMABLE = {"training.epochs", "data.cache", "data.root", "gpus", "nodes", "warm_start"}


@dataclass(frozen=True)
class Request:
    """A checked command line: the experiment and, when a run is continued, its directory."""

    experiment: Experiment
    resume: Path | None = None
    checkpoint: str = "last"  # or best: which it goes on from


class PlainParser(argparse.ArgumentParser):
    """argparse with errors of two lines that name the fault, and exit with 2."""

    def __init__(self, *args: Any, **options: Any) -> None:
        _begin()
        # Of a module's docstring that begins with its command, what the command does.
        told = re.sub(r"^python -m [^:]+: ", "", options.get("description") or "")
        options["description"] = told[:1].upper() + told[1:]
        super().__init__(*args, **options)

    def format_help(self) -> str:
        """As argparse has it, with an example and the page of the guide."""
        return super().format_help() + guide.ending(self.prog)

    def error(self, message: str) -> NoReturn:
        fail(f"{message}\n(see: python -m {self.prog} --help)")


class Parser(ArgumentParser):
    """A parser whose errors are a ConfigError of two lines that name the fault."""

    def __init__(self, *args: Any, **options: Any) -> None:
        _begin()
        super().__init__(*args, **options)

    def format_help(self) -> str:
        """As jsonargparse has it, with an example and the page of the guide."""
        return super().format_help() + guide.ending(self.prog)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:  # type: ignore[override]
        message = _one_line(message)
        message = message if len(message) <= LONGEST else f"{message[:LONGEST]}..."
        unknown = re.match(r"(?:unrecognized arguments: )(--[\w.]+)", message)
        near = get_close_matches(unknown[1], self._option_string_actions, n=1) if unknown else []
        hint = f"did you mean {near[0]}?" if near else f"(see: python -m {self.prog} --help)"
        raise ConfigError(f"{message}\n{hint}")


def _begin() -> None:
    # A command's first act: its --help may be piped to head, and Ctrl-C come while a framework is imported.
    output.outlive_readers()
    sys.excepthook = _without_traceback


def _without_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def fail(message: str) -> NoReturn:
    """Say what the user did wrong and exit with 2."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def train_request(framework: Framework, argv: Sequence[str] | None = None) -> Request:
    """Read and check the command line of `python -m <framework>_impl.train`.

    Raises ConfigError, of one or two lines, for every mistake that can be seen without a
    framework: unknown keys, values out of bounds, missing files, impossible combinations, no such device.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = Parser(
        prog=f"{framework}_impl.train",
        description=f"Train the image classifier with {framework.capitalize()}. Two more options stand "
        "outside the configuration: --resume RUN goes on with a run (--from best: from its best epoch, where "
        "the checkpoint of the last is damaged), and --config FILE reads YAML. "
        "--warm-start RUN begins a new run with the weights of another. A signal that asks to stop (Ctrl-C, "
        "TERM, HUP, USR1, USR2, XCPU) ends training after the step in hand with exit code 128 + its number; "
        "--resume goes on from the finished epochs.",
        exit_on_error=True,
        allow_abbrev=False,
        print_config="--print-config",
        parser_mode="bounded",
    )
    parser.add_argument("--config", action="config", help="YAML file with any of the keys below")
    parser.add_class_arguments(Experiment, None)
    before = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    before.add_argument("--resume", type=Path)
    before.add_argument("--from", dest="checkpoint", choices=("last", "best"))
    argv = [re.sub(r"^--warm-start\b", "--warm_start", one) for one in argv]
    try:
        resume, argv = before.parse_known_args(_with_settings(argv))
    except argparse.ArgumentError as error:
        raise ConfigError(f"{error}\n(see: python -m {parser.prog} --help)") from error
    if resume.resume is not None:
        return _resume_request(framework, parser, resume.resume, resume.checkpoint or "last", argv)
    if resume.checkpoint is not None:
        raise ConfigError(
            "--from says from which checkpoint --resume goes on: name the run with --resume RUN"
        )
    experiment = _validated(parser.parse_args(argv))
    check(framework, experiment)
    # Where there are several processes the first alone writes the run, and may have begun to.
    if distributed.rank() == 0 and (problem := record.occupied(experiment)) is not None:
        raise ConfigError(problem)
    return Request(experiment)


def check(framework: Framework, experiment: Experiment, resumed: bool = False) -> None:
    """Refuse what this framework or this machine cannot do; raises ConfigError."""
    _check_files(experiment, resumed)
    if framework == "keras" and experiment.augment.kind == "torchvision":
        raise ConfigError("augment.kind torchvision exists on the Lightning side only: use keras or none")
    available = devices.count_gpus()
    if experiment.gpus and experiment.gpus > available:
        raise ConfigError(
            f"gpus {experiment.gpus}: this machine shows {available or 'no'} CUDA GPUs.\n"
            f"Use --gpus {available}{' (the CPU)' if available == 0 else ''}."
        )
    _check_processes(framework, experiment)
    if experiment.tracking == "mlflow" and not devices.installed("mlflow"):
        raise ConfigError(
            "tracking mlflow needs MLflow: pip install mlflow, or leave tracking at tensorboard"
        )
    if experiment.tracking == "mlflow" and (problem := address_fault(experiment.mlflow.uri)):
        raise ConfigError(problem)
    if experiment.training.precision == "tf32" and devices.wanted(experiment.gpus) == 0:
        raise ConfigError("training.precision tf32 is a GPU's way to multiply: use float32 on the CPU")
    by_torch = framework == "lightning"
    if framework == "keras":
        by_torch = resolve_backend(experiment) == "torch"
    if experiment.training.compile and by_torch and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        raise ConfigError(
            "training.compile: torch compiles with a C++ compiler, and this machine has none: install g++"
        )


def _check_processes(framework: Framework, experiment: Experiment) -> None:
    many = (experiment.gpus or 0) > 1 or experiment.nodes > 1 or distributed.world() > 1
    if framework == "keras" and (experiment.nodes > 1 or distributed.world() > 1):
        raise ConfigError("Keras trains in one process: leave nodes at 1, and torchrun out")
    if framework == "keras" and many and resolve_backend(experiment) != "jax":
        raise ConfigError(
            f"gpus {experiment.gpus}: Keras trains on more than one device with --backend jax alone"
        )
    if distributed.world() > 1 and experiment.gpus not in (None, 0, distributed.local_world()):
        raise ConfigError(
            f"gpus {experiment.gpus}: torchrun started {distributed.local_world()} processes here: use as "
            f"many"
        )
    if experiment.nodes > 1 and distributed.world() != experiment.nodes * distributed.local_world():
        raise ConfigError(
            f"nodes {experiment.nodes}: start it on each machine with torchrun --nnodes {experiment.nodes} "
            "--nproc-per-node GPUS --rdzv-endpoint HOST:PORT -m lightning_impl.train ..."
        )
    if many and experiment.training.batch_size < max(distributed.world(), experiment.gpus or 0):
        raise ConfigError(
            f"training.batch_size {experiment.training.batch_size}: fewer images than processes"
        )


def _check_files(experiment: Experiment, resumed: bool) -> None:
    # Not the schema's business: a run's config.yaml is read where its data need not be any more.
    data, model = experiment.data, experiment.model
    kinds = {"folder": "directory of class folders", "npz": ".npz file"}
    kinds |= {"parquet": "directory of Parquet files"}
    if what := kinds.get(data.name):
        if data.root is None:
            raise ConfigError(f"data.name {data.name} needs --data.root, a {what}")
        path = Path(data.root).expanduser()
        if not (path.is_file() if data.name == "npz" else path.is_dir()):
            raise ConfigError(f"data.root {data.root}: there is no such {what}")
    if experiment.warm_start is not None and not (Path(experiment.warm_start) / "metrics.json").is_file():
        wanted = "\nIts images belong to this run's: say where it lies with --warm-start" if resumed else ""
        raise ConfigError(f"warm_start {experiment.warm_start}: not a finished run (no metrics.json){wanted}")
    if (
        not resumed  # its own checkpoint holds the weights
        and model.backbone is not None
        and model.weights not in ("imagenet", "random")
        and not Path(model.weights).expanduser().is_file()
    ):
        raise ConfigError(f"model.weights {model.weights}: no such file (or say imagenet, or random)")


@contextmanager
def refusing() -> Iterator[None]:
    """Around what a main does outside `guarded`: a ConfigError is told, and is exit code 2."""
    try:
        yield
    except ConfigError as error:
        fail(str(error))


def guarded(command: Callable[[], int]) -> int:
    """Run a command's work and return its exit code; what goes wrong becomes one or two lines.

    A user's mistake is exit code 2, also where a side refused it; a side that failed, or a disk that is full
    or refuses, is 1; a signal that asks to stop 128 + its number. Where a run was being trained, they say how
    to go on. The runs that were claimed are released.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # a class or a file may be named in any script, or in none
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with signals.listening(signals.stop):
            code = command()
        if (error := output.lost()) is None:
            return code
        print(f"error: what was printed is not all there ({error.strerror})", file=sys.stderr)
        return code or 1
    except (ConfigError, DataError, RunError) as error:
        if not files.full(error):
            fail(str(error))
        _say(f"error: {error}", record.left_behind())
        return 1
    except processes.SideError as error:
        if error.refused:
            fail(str(error))
        _say(f"error: {error}")
        return 1
    except OSError as error:
        if (told := files.told(error)) is None:
            raise
        _say(f"error: {told}", record.left_behind())
        return 1
    except signals.Stopped as stopped:
        _say("interrupted", record.left_behind())
        return stopped.exit_code
    except KeyboardInterrupt:
        _say("interrupted", record.left_behind())
        return signals.exit_code(signal.SIGINT)
    finally:
        record.release()


def _say(*lines: str | None) -> None:
    print(*filter(None, lines), sep="\n", file=sys.stderr)


def use_device(framework: Framework, experiment: Experiment) -> None:
    """Hold the framework that is imported next to the configured device, and Keras to its backend."""
    if experiment.gpus == 0:
        devices.hide_gpus()
    if framework == "keras":
        # Keras chooses its backend when it is imported, from this variable.
        os.environ["KERAS_BACKEND"] = resolve_backend(experiment)


def resolve_backend(experiment: Experiment) -> str:
    """Keras's backend: --backend, else KERAS_BACKEND, else by device; ConfigError if not installed."""
    fitting = devices.keras_backend(devices.wanted(experiment.gpus))
    backend = experiment.backend or os.environ.get("KERAS_BACKEND") or fitting
    if backend not in ("tensorflow", "jax", "torch"):
        raise ConfigError(f"KERAS_BACKEND={backend}: must be tensorflow, jax or torch")
    if not devices.installed(backend):
        raise ConfigError(
            f"Keras backend {backend} is not installed: pip install {backend}, or choose another --backend"
        )
    return backend


def _resume_request(
    framework: Framework, parser: Parser, directory: Path, checkpoint: str, argv: list[str]
) -> Request:
    given = parser.parse_args(argv, defaults=False)
    config = directory / "config.yaml"
    if not os.path.isfile(config):  # false where it may not be looked at, too
        raise ConfigError(f"--resume {directory}: not a run directory (no config.yaml)")
    if distributed.rank() == 0 and (other := files.writer(directory)) is not None:
        raise ConfigError(f"--resume {record.being_written(directory, other)}")
    changed = {key for key, _ in given.items() if key != "config"}
    if given.get("config"):
        raise ConfigError("--resume repeats the configuration of the run: leave --config out")
    if changed - RESUMABLE:
        raise ConfigError(
            f"--resume cannot change {', '.join(sorted(changed - RESUMABLE))}: only "
            f"{', '.join(sorted(RESUMABLE))} may differ from {config}"
        )
    try:
        if read_config(config).backend is None and framework == "keras":
            _keep_backend(record.Run(directory))
    except errors.RunError as error:
        raise ConfigError(str(error)) from error
    experiment = _validated(parser.parse_args([*_with_settings(["--config", str(config)]), *argv]))
    unborn = record.Run(directory).unborn
    check(framework, experiment, resumed=not unborn)
    if unborn:
        if distributed.rank() == 0:
            print(f"{directory} was stopped before its first checkpoint: it begins anew", file=sys.stderr)
        anew = experiment.run.model_copy(update={"dir": str(directory), "overwrite": True})
        return Request(experiment.model_copy(update={"run": anew}))
    return Request(experiment, directory, checkpoint)


def _with_settings(argv: Sequence[str]) -> list[str]:
    """The command line with the settings that a --config file holds in its place, on one line, as JSON."""
    told, rest = [], iter(argv)
    for argument in rest:
        name, equals, file = argument.partition("=")
        if name != "--config" or (file := file if equals else next(rest, "")) == "":
            told.append(argument)  # without a file, it is the parser's to refuse
            continue
        try:
            told.append(f"--config={json.dumps(documents.read(Path(file)))}")
        except documents.DocumentError as error:
            raise ConfigError(f"--config {error}") from error
    return told


def _keep_backend(trained: record.Run) -> None:
    """Hold Keras to the backend that a run was trained with; raises RunError where another is asked for."""
    if not (trained.directory / "environment.json").is_file():
        return
    backend = trained.read_json("environment.json").get("backend")
    if backend and os.environ.setdefault("KERAS_BACKEND", backend) != backend:
        raise errors.RunError(
            f"KERAS_BACKEND={os.environ['KERAS_BACKEND']}: {trained.directory} was trained with {backend}, "
            "and --resume goes on with it: unset the variable, or start a new run"
        )


def _validated(namespace: Namespace) -> Experiment:
    values: dict[str, Any] = namespace.as_dict()
    values.pop("config", None)
    return experiment_from(values)


def experiment_from(values: dict[str, Any]) -> Experiment:
    """Check nested plain values against the schema; raises ConfigError with the first fault in one line."""
    try:
        return Experiment.model_validate(_plain(values))
    except ValidationError as error:
        raise ConfigError(fault(error)) from error


def read_config(path: Path) -> Experiment:
    """The experiment that a run's config.yaml holds; raises RunError where it is not one."""
    try:
        values = documents.read(path)
    except documents.DocumentError as error:
        raise errors.RunError(str(error)) from error
    if not values:
        raise errors.RunError(f"{path}: cannot be read (no configuration)")
    try:
        return Experiment.model_validate(values)
    except ValidationError as error:
        raise errors.RunError(f"{path}: {fault(error)}") from error


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump()
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return value


def _one_line(message: str) -> str:
    message = " ".join(message.split())
    # jsonargparse wraps pydantic's error, which names types and a web page: keep what was wrong.
    message = re.sub(r"\d+ validation errors? for \S+ ", "", message)
    message = re.sub(r" \[type=.*?\] For further information visit \S+", ".", message)
    message = message.replace("Parser key ", "").replace("Expected a typing.Literal", "Expected one of ")
    # Of a union it names every member's own complaint: what was expected, in any of them, is enough.
    if "Union subtypes" in message:
        expected = dict.fromkeys(re.findall(r"- Expected (?:a )?(.*?)(?= - | Given value)", message))
        kinds = " or ".join(
            re.sub(r"<class '(\w+)'>", r"\1", kind) for kind in expected if "NoneType" not in kind
        )
        message = f"{message.split(':')[0]}: expected {kinds}, got {message.rsplit('Given value: ')[-1]}"
    return message.replace("..", ".")
