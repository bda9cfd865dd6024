"""What a trace asks and writes, the same on both sides: a request in, structure.json and arrays.npz out."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from inspect import Parameter
from pathlib import Path
from typing import Any

import numpy as np

from experiment import cli, randomness
from experiment.config import Experiment
from experiment.errors import RunError
from experiment.protocols import conversation
from experiment.protocols.faults import fault_of
from experiment.runs.record import Run

Arrays = dict[str, np.ndarray]


class TraceError(RunError):
    """A model cannot be traced; the message says why and what to do."""


# Losses that both sides have under the names of Keras's functions.
FURTHER_LOSSES = (
    *("categorical_focal_crossentropy", "binary_focal_crossentropy", "categorical_generalized_cross_entropy"),
    *(
        "categorical_hinge",
        "hinge",
        "squared_hinge",
        "kl_divergence",
        "poisson",
        "log_cosh",
        "dice",
        "tversky",
    ),
    *("mean_absolute_percentage_error", "mean_squared_logarithmic_error", "cosine_similarity"),
)


@dataclass(frozen=True)
class LossTerm:
    """The loss of one output, in words that both sides know.

    name: crossentropy (of class numbers), binary, mse, mae, huber, none, or one of FURTHER_LOSSES, whose
    arguments `settings` are. from_logits: takes what Keras's model gives for logits. reduction: mean or sum
    over the samples. weight: of this output among all. class_weights: of a crossentropy's samples, by class;
    sample_weights: of every sample; both divided by the number of samples, as Keras does. stands_in: for the
    one that Keras's model was compiled with, which torch's side has not. one_hot: Keras takes classes as rows
    of zeros and a one.
    """

    name: str
    from_logits: bool = False
    label_smoothing: float = 0.0
    delta: float = 1.0
    reduction: str = "mean"
    weight: float = 1.0
    class_weights: Sequence[float] = ()
    sample_weights: Sequence[float] = ()
    stands_in: bool = False
    one_hot: bool = False
    settings: Mapping[str, float] = field(default_factory=dict)


# The parts of a layer that is traced in so many, in their order.
PARTS = {2: ("key", "value"), 3: ("query", "key", "value")}


@dataclass(frozen=True)
class Request:
    """What to trace; see the two `trace` commands.

    steps: how many training steps; 0 describes the structure alone. build: a user's model, whose inputs lie
    in the file named: one array (.npy), or several in the order of the model's inputs (.npz), batch first.
    drawn: they are numbers from 0 to 1, which stand for tokens where an Embedding takes them. weights: a
    weights.npz of Keras's, whose `raw` weights Keras's model starts from. rules: `Class=package.module:rule`
    for layers that no table has; see `parity --help`. class_weights: of the samples of each class, as
    Keras's fit takes them; sample_weights: samples are weighed by drawn numbers. apart: the layers that are
    traced in parts, and in how many, each a Dense layer.
    """

    experiment: Experiment
    steps: int = 1
    build: str | None = None
    inputs_file: str = ""
    drawn: bool = False
    loss_name: str = "auto"
    weights: str | None = None
    rules: Sequence[str] = ()
    class_weights: Sequence[float] = ()
    sample_weights: bool = False
    apart: Mapping[str, int] = field(default_factory=dict)

    def inputs(self) -> Arrays:
        """The model's inputs by name, in order."""
        loaded = np.load(self.inputs_file)
        if isinstance(loaded, np.ndarray):
            return {"inputs": loaded}
        with loaded as arrays:
            return {name: arrays[name] for name in arrays.files}


def read(path: Path) -> Request:
    """The request that a JSON file holds; raises ConfigError for an impossible experiment."""
    return request_of(json.loads(path.read_text()))


def request_of(values: dict[str, Any]) -> Request:
    """The request of these nested values; raises ConfigError for an impossible experiment."""
    return Request(**{**values, "experiment": cli.experiment_from(values["experiment"])})


def in_precision(request: Request, precision: str) -> Request:
    """The request with another precision."""
    training = {**request.experiment.training.model_dump(), "precision": precision}
    experiment = {**request.experiment.model_dump(), "training": training}
    return replace(request, experiment=Experiment.model_validate(experiment))


def run(
    argv: Sequence[str],
    trace: Callable[[Request], tuple[dict[str, Any], Arrays]],
    tracer: Callable[[Request], conversation.Tracer],
) -> int:
    """Read the request, trace, and write the record; returns the exit code of the command.

    With --stay in place of both the process answers requests about users' models, until its stdin ends.
    """
    if "--stay" in argv:
        return conversation.serve(lambda values: tracer(request_of(values)))

    def command() -> int:
        write(Path(argv[1]), *trace(read(Path(argv[0]))))
        return 0

    return cli.guarded(command)


def write(out: Path, structure: dict[str, Any], arrays: Arrays) -> None:
    """Write structure.json and arrays.npz."""
    out.mkdir(parents=True, exist_ok=True)
    np.savez(out / "arrays.npz", **arrays)  # type: ignore[arg-type]
    Run(out).write_json("structure.json", structure)


def structure(
    layers: list[dict[str, Any]],
    parameters: dict[str, int],
    unused: list[str],
    uncovered: list[dict[str, Any]],
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """The content of structure.json.

    unused: layers with weights that no input reaches. uncovered: what has weights that no rule says how to
    compare, by name, kind and the shapes of these. notes: how the model was traced, where a reader must know.
    """
    return {
        "layers": layers,
        "parameters": parameters,
        "unused": unused,
        "uncovered": uncovered,
        "notes": list(notes),
    }


def parameter_counts(weights: Sequence[tuple[int, bool]]) -> dict[str, int]:
    """Total, trainable and non-trainable numbers of some weights, each by its size and whether it trains."""
    trainable = sum(size for size, trained in weights if trained)
    total = sum(size for size, _ in weights)
    return {"total": total, "trainable": trainable, "non_trainable": total - trainable}


def epoch(number: int, batches: list[tuple[np.ndarray, np.ndarray]]) -> Arrays:
    """What an epoch's batches, (images (N, S, S, 3), labels (N,)), say of their order, sizes and content."""
    key = f"data/epoch{number}"
    return {
        f"{key}/sizes": np.array([len(labels) for _, labels in batches]),
        f"{key}/labels": np.concatenate([labels for _, labels in batches]),
        f"{key}/means": np.concatenate([images.mean(axis=(1, 2), dtype=np.float64) for images, _ in batches]),
        f"{key}/first": batches[0][0],
        f"{key}/last": batches[-1][0],
    }


def changed(weights: Arrays, arrays: Arrays) -> Arrays:
    """Those `stage/layer/weight` that are no longer as `initial/layer/weight` was: frozen ones take space."""
    return {
        key: array
        for key, array in weights.items()
        if not np.array_equal(array, arrays[f"initial/{key.split('/', 1)[1]}"])
    }


def parts(count: int, steps: int) -> list[slice]:
    """Which of `count` inputs each step takes: consecutive parts of equal size, at least two inputs each."""
    size = max(count // max(steps, 1), 2)
    starts = [(step * size) % max(count - size + 1, 1) for step in range(max(steps, 1))]
    return [slice(start, start + size) for start in starts]


def are_probabilities(outputs: np.ndarray) -> bool:
    """Whether outputs (N, ..., C) are shares that sum to 1, and not logits."""
    return (
        outputs.ndim > 1
        and outputs.shape[-1] > 1
        and bool((outputs >= 0).all())
        and np.allclose(outputs.sum(-1), 1)
    )


def unsettled(value: np.ndarray, seed: int, name: str) -> np.ndarray:
    """A weight that is one number throughout, each element moved; any other weight as it is."""
    if value.size == 0 or (value != value.flat[0]).any():
        return value
    width = 0.3 * abs(value.flat[0]) or 0.05
    moved = randomness.generator(seed, f"unsettled {name}").uniform(-width, width, value.shape)
    return (value + moved).astype(value.dtype)


def user_object(name: str) -> Callable[..., Any]:
    """The function that `package.module:function` names, looked for from the working directory.

    Raises TraceError where there is none.
    """
    module_name, _, attribute = name.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        raise TraceError(f"{name}: there is no module {error.name} (searched from {os.getcwd()})") from error
    except AttributeError as error:
        raise TraceError(
            f"{name}: {module_name} has no {attribute!r}: write package.module:function"
        ) from error
    except (Exception, SystemExit) as error:  # whatever the user's module raises when it is imported
        raise TraceError(f"importing {module_name} fails: {fault_of(error, name)}") from error
    if not callable(found):
        raise TraceError(f"{name} is no function that builds a model")
    return found


def build(name: str) -> Any:
    """What the builder `package.module:function` returns; raises TraceError for whatever it raises."""
    function = user_object(name)
    try:
        return function()
    except TraceError:
        raise
    except TypeError as error:
        required = _required(function)
        if not required:
            raise TraceError(fault_of(error, name)) from error
        raise TraceError(
            f"{name} takes {', '.join(required)}: name a function without arguments that builds the model"
        ) from error
    except (Exception, SystemExit) as error:
        raise TraceError(fault_of(error, name)) from error


def described(value: Any) -> str:
    """A value that is no model, in words."""
    if isinstance(value, type):
        return f"the class {value.__name__}, not a model"
    return f"an object of type {type(value).__name__}"


def _required(function: Callable[..., Any]) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    named = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    return [p.name for p in parameters if p.default is p.empty and p.kind in named]
