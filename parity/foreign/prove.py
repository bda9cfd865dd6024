"""Proves a user's pair: traces both sides at once, compares the weights as they are, then the computation."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from experiment import cli
from experiment.system.processes import SideError
from parity.checks import Rung
from parity.foreign import rounding
from parity.foreign import weights as as_they_are
from parity.foreign.sides import Side
from parity.foreign.verdict import Answer, Verdict
from parity.ladder import climb
from parity.ladder.climb import Findings, Place
from parity.traces.matching import MatchError
from parity.traces.pair import Pair, Trace

REFERENCE = ("tensorflow", "float64")  # the one backend that computes in float64 throughout


@dataclass(frozen=True)
class Request:
    """A pair and how to compare it.

    keras: `package.module:function` or a .keras file. torch: `package.module:function`. options: the further
    fields of `experiment.protocols.trace.Request` (inputs, loss, steps). given: torch layer to Keras's.
    """

    keras: str
    torch: str
    options: Mapping[str, Any]
    learning_rate: float = 1e-3
    given: Mapping[str, str] = field(default_factory=dict)
    device: str = "cpu"
    singles: Sequence[str] = ()  # Keras's backends to compare in float32 as well

    @property
    def name(self) -> str:
        """The pair's name in tables: the torch builder's module and function."""
        module, _, function = self.torch.partition(":")
        return f"{module.rsplit('.', 1)[-1]}:{function}"

    def of_side(self, side: str, precision: str) -> dict[str, Any]:
        """The request that a side's trace command takes."""
        training = {"precision": precision, "learning_rate": self.learning_rate}
        build = self.keras if side == "keras" else self.torch
        return {**self.options, "experiment": {"training": training}, "build": build}


def prove(
    request: Request, folder: Path, findings: Findings, say: Callable[[str], None] = lambda text: None
) -> Verdict:
    """Compare the pair and keep what was found in `findings`; files go to `folder`.

    say: told what goes on. A pair that cannot be compared gives a verdict that is refused.
    """
    started = time.perf_counter()
    try:
        with ExitStack() as stack:
            say("starting both frameworks")
            keras = stack.enter_context(_side("keras", request, folder))
            torch = stack.enter_context(_side("torch", request, folder))
            verdict, pair = _compare(request, keras, torch, findings, say)
            keras.close()
            torch.close()
            if request.singles:
                verdict = _in_float32(request, pair, keras.out, folder, findings, verdict, say)
    except (SideError, MatchError) as error:
        verdict = refused(str(error))
    return replace(verdict, seconds=time.perf_counter() - started)


def _side(
    name: str,
    request: Request,
    folder: Path,
    precision: str = "float64",
    backend: str = "tensorflow",
    weights: str | None = None,
) -> Side:
    asked = {**request.of_side(name, precision), "weights": weights}
    return Side(name, folder / f"{name}-{backend}-{precision}", asked, request.device, backend)


def refused(why: str) -> Verdict:
    """The verdict on a pair that could not be compared."""
    return Verdict(Answer("not compared"), Answer("not compared"), refused=why)


def _compare(
    request: Request, keras: Side, torch: Side, findings: Findings, say: Callable[[str], None]
) -> tuple[Verdict, Pair]:
    say("building both models")
    torch.ask("describe")
    keras.get("describe")
    keras.ask("trace")
    torch.answer()
    experiment = cli.experiment_from(request.of_side("keras", "float64")["experiment"])
    pair = Pair.of(keras.out, torch.out, experiment, dict(request.given))
    say("tracing both models")
    torch.ask("trace", weights=str(keras.out / "weights.npz"), layers=pair.matching.weighted)
    keras.answer()
    torch.answer()
    say("comparing")
    pair = Pair(Trace(keras.out), Trace(torch.out), pair.matching, experiment)
    weights = _weights(request, pair, keras, torch, findings)
    climb.climb(request.name, pair, "tensorflow", Place(keras.out, request.device, _unseen), findings)
    computation = _computation(findings, pair)
    return Verdict(weights, computation, [*pair.notes, *pair.matching.notes], findings.rungs), pair


def _unseen(rung: Rung) -> None:
    """The verdict shows the rungs, once all are done."""


def _in_float32(
    request: Request,
    pair: Pair,
    reference: Path,
    folder: Path,
    findings: Findings,
    verdict: Verdict,
    say: Callable[[str], None],
) -> Verdict:
    """The verdict with both sides in float32 as well, from the reference's weights, on each asked backend."""
    handover = {"weights": str(reference / "weights.npz"), "layers": pair.matching.weighted}
    with ExitStack() as stack:
        torch = stack.enter_context(_side("torch", request, folder, "float32"))
        torch.ask("describe")
        for backend in request.singles:
            started = time.perf_counter()
            say(f"tracing in float32, Keras on {backend}")
            started_from = str(handover["weights"])
            keras = stack.enter_context(_side("keras", request, folder, "float32", backend, started_from))
            keras.ask("describe")
            if backend == request.singles[0]:
                torch.answer()
                torch.get("trace", **handover)
            keras.answer()
            keras.get("trace")
            keras.close()
            rungs = rounding.compare(pair, Trace(keras.out), Trace(torch.out))
            took = (time.perf_counter() - started) / len(rungs)
            findings.rungs += [
                Rung(name, request.name, backend, "float32", request.device, checks, "", took)
                for name, checks in rungs.items()
            ]
            failure = rounding.explain(rungs)
            if failure is not None and verdict.computation.status == "passed":
                rung, layer, cause = failure
                answer = Answer("failed", f"{rung} ({backend} float32)", layer, pair.names.get(layer), *cause)
                verdict = replace(verdict, computation=answer)
    return replace(verdict, rungs=findings.rungs)


def _computation(findings: Findings, pair: Pair) -> Answer:
    failed = [rung for rung in findings.rungs if rung.status == "failed" and rung.name != "weights"]
    if not failed:
        return Answer("passed")
    first = findings.diagnoses[0]
    layer = first["layer"]
    told = (first[name] for name in ("cause", "evidence", "change"))
    return Answer("failed", first["rung"], layer, pair.names.get(layer), *told)


# === The weights as they are ===


def _weights(request: Request, pair: Pair, keras: Side, torch: Side, findings: Findings) -> Answer:
    started = time.perf_counter()
    named = {layer: torch_layer for layer, torch_layer in pair.names.items() if pair.weights(layer)}
    theirs = {layer: as_built(keras.out / "weights.npz", layer) for layer in named}
    ours = {layer: as_built(torch.out / "weights.npz", name) for layer, name in named.items()}
    kinds = {layer["name"]: layer["kind"] for layer in pair.keras.layers}
    for layer, weights in ours.items():
        for weight, array in weights.items():
            if pair.alike(theirs[layer][weight], array):
                weights[weight] = array.reshape(theirs[layer][weight].shape)
    compared = as_they_are.compare(theirs, ours, kinds, pair.flattened_shapes())

    def rung(note: str, skipped: bool = False) -> Rung:
        took = time.perf_counter() - started
        return Rung(
            "weights",
            request.name,
            "tensorflow",
            "as built",
            request.device,
            compared.checks,
            note,
            took,
            skipped,
        )

    if not compared.checks:
        return Answer("passed", evidence="Neither model has any.")
    if compared.same:
        findings.rungs.append(rung("the two models hold the same weights"))
        return Answer("passed")
    if not compared.related and (whose := _drawn(keras, torch, theirs, ours)):
        told = f"{whose}; Keras's were carried over to torch for the other rungs."
        findings.rungs.append(rung(told, skipped=True))
        return Answer("independent", evidence=told)
    findings.rungs.append(rung("compared before Keras's were carried over"))
    cause = compared.cause
    assert cause is not None
    evidence = f"{cause.evidence}. Keras's weights were carried over to torch for the other rungs."
    return Answer(
        "failed", "weights", compared.layer, named[compared.layer], cause.cause, evidence, cause.change
    )


def _drawn(keras: Side, torch: Side, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str | None:
    """Whose weights are drawn at random, in words, or None where both models come with loaded ones."""
    for side, built in ((torch, ours), (keras, theirs)):
        names = {name for weights in built.values() for name in weights}
        side.get("rebuild")
        if names and _differ(side.out / "weights.npz", side.out / "rebuilt.npz"):
            return f"{side.name}'s are drawn anew whenever the model is built"
    if as_they_are.looks_initialised(ours):
        return "torch's are as its layers draw them"
    return None


def _differ(one: Path, other: Path) -> bool:
    with np.load(one) as before, np.load(other) as after:
        return any(
            not np.array_equal(before[name], after[name]) for name in after.files if name in before.files
        )


def as_built(path: Path, layer: str) -> dict[str, np.ndarray]:
    """A layer's weights as its model was built, by Keras's names."""
    prefix = f"own/{layer}/"
    with np.load(path) as arrays:
        return {
            name.removeprefix(prefix): arrays[name]
            for name in arrays.files
            if name.startswith(prefix) and "/" not in name.removeprefix(prefix)
        }
