"""Proves a user's pair: traces both sides at once, compares the weights as they are, then the computation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiment import cli
from experiment.system.processes import SideError
from parity.checks import Rung, Subject
from parity.diagnosis import penalties, random_layers
from parity.foreign import rounding
from parity.foreign import weights as as_they_are
from parity.foreign.sides import Side, Sides
from parity.foreign.verdict import Answer, Verdict
from parity.ladder import climb, moving_variance, rounding_noise
from parity.ladder.climb import Findings, Place
from parity.traces import calls
from parity.traces.apart import Apart, apart
from parity.traces.matching import MatchError, match
from parity.traces.pair import Pair, Trace

REFERENCE = ("tensorflow", "float64")  # the one backend that computes in float64 throughout


@dataclass(frozen=True)
class Request:
    """A pair and how to compare it.

    keras: `package.module:function` or a .keras file. torch: `package.module:function`. options: the further
    fields of `experiment.protocols.trace.Request` (inputs, loss, steps). given: torch layer to Keras's.
    apart: what each side traces in parts.
    """

    keras: str
    torch: str
    options: Mapping[str, Any]
    learning_rate: float = 1e-3
    given: Mapping[str, str] = field(default_factory=dict)
    device: str = "cpu"
    singles: Sequence[str] = ()  # Keras's backends to compare in float32 as well
    apart: Apart = field(default_factory=Apart)

    @property
    def name(self) -> str:
        """The pair's name in tables: the torch builder's module and function."""
        module, _, function = self.torch.partition(":")
        return f"{module.rsplit('.', 1)[-1]}:{function}"

    def of_side(self, side: str, precision: str) -> dict[str, Any]:
        """The request that a side's trace command takes."""
        training = {"precision": precision, "learning_rate": self.learning_rate}
        build = self.keras if side == "keras" else self.torch
        parts = getattr(self.apart, side)
        return {**self.options, "experiment": {"training": training}, "build": build, "apart": parts}


def prove(
    request: Request,
    folder: Path,
    findings: Findings,
    say: Callable[[str], None] = lambda text: None,
    sides: Sides | None = None,
) -> Verdict:
    """Compare the pair and keep what was found in `findings`; files go to `folder`.

    say: told what goes on. sides: processes that are there already, and stay. A pair that cannot be compared
    gives a verdict that is refused.
    """
    if sides is None:
        with Sides(folder, request.device) as own:
            return prove(request, folder, findings, say, own)
    started = time.perf_counter()
    try:
        verdict, pair, request = _in_float64(request, sides, folder, findings, say)
        if request.singles:
            verdict = _in_float32(request, pair, sides, folder, findings, verdict, say)
    except (SideError, MatchError) as error:
        verdict = refused(str(error))
    return replace(verdict, seconds=time.perf_counter() - started)


def refused(why: str) -> Verdict:
    """The verdict on a pair that could not be compared."""
    return Verdict(Answer("not compared"), Answer("not compared"), refused=why)


def _in_float64(
    request: Request, sides: Sides, folder: Path, findings: Findings, say: Callable[[str], None]
) -> tuple[Verdict, Pair, Request]:
    """The verdict, the pair, and the request with what of it is traced in parts."""
    keras, torch = sides.keras, sides.torch
    say("starting both frameworks and building the models")
    torch.describe(request.of_side("torch", "float64"), folder / "torch-float64")
    keras.describe(request.of_side("keras", "float64"), folder / "keras-float64")
    keras.answer()
    keras.ask("trace")
    torch.answer()
    experiment = cli.experiment_from(request.of_side("keras", "float64")["experiment"])
    try:
        pair = Pair.of(keras.out, torch.out, experiment, dict(request.given))
    except MatchError:
        parts = apart(Trace(keras.out).layers, Trace(torch.out).layers)
        if request.apart or not parts:
            raise
        return _in_float64(replace(request, apart=parts), sides, folder, findings, say)
    say("tracing both models")
    torch.ask("trace", weights=str(keras.out / "weights.npz"), layers=pair.matching.weighted)
    keras.answer()
    torch.answer()
    say("comparing")
    again = partial(_again, request, keras, folder, say)
    traces, matching = (Trace(keras.out), Trace(torch.out)), pair.matching
    if order := calls.in_keras_order(*traces, matching.weighted):
        traces[1].renumber(order)
        matching = match(traces[0].layers, traces[1].layers, dict(request.given))
        shared = ", ".join(dict.fromkeys(name.partition("@")[0] for name in order))
        matching.notes.append(f"torch calls {shared} on its inputs in another order than Keras")
    matching.notes[:0] = request.apart.notes()
    pair = Pair(*traces, matching, experiment, foreign=True, again=again)
    weights = _weights(request, pair, keras, torch, findings)
    climb.climb(request.name, pair, "tensorflow", Place(keras.out, request.device, _unseen), findings)
    computation = _computation(findings, pair)
    notes = [
        *pair.notes,
        *(note for kind in (moving_variance, random_layers, penalties) for note in kind.notes(pair)),
        *pair.matching.notes,
    ]
    notes += [rung.note for rung in findings.rungs if rung.name == "trajectory" and rung.note]
    if noise := rounding_noise.note([check for rung in findings.rungs for check in rung.checks]):
        notes.append(noise)
    return Verdict(weights, computation, notes, findings.rungs), pair, request


def _again(request: Request, keras: Side, folder: Path, say: Callable[[str], None]) -> Trace | None:
    """Keras's side traced once more with weights off by 1e-14 of themselves; None where it cannot be."""
    say("measuring how far rounding alone moves the training")
    weights = folder / "nudged.npz"
    with np.load(keras.out / "weights.npz") as arrays:
        own = rounding_noise.nudged({key: arrays[key] for key in arrays.files})
    np.savez(weights, **own)  # type: ignore[arg-type]
    out = keras.out
    try:
        keras.describe(
            {**request.of_side("keras", "float64"), "weights": str(weights)}, folder / "keras-nudged"
        )
        keras.answer()
        keras.get("trace")
        return Trace(keras.out)
    except SideError:
        return None
    finally:
        keras.out = out


def _unseen(rung: Rung) -> None:
    """The verdict shows the rungs, once all are done."""


def _in_float32(
    request: Request,
    pair: Pair,
    sides: Sides,
    folder: Path,
    findings: Findings,
    verdict: Verdict,
    say: Callable[[str], None],
) -> Verdict:
    """The verdict with both sides in float32 as well, from the reference's weights, on each asked backend."""
    weights = str(folder / "keras-float64" / "weights.npz")
    torch = folder / "torch-float32"
    sides.torch.describe(request.of_side("torch", "float32"), torch)
    sides.torch.answer()
    sides.torch.get("trace", weights=weights, layers=pair.matching.weighted)
    for backend in request.singles:
        started = time.perf_counter()
        say(f"tracing in float32, Keras on {backend}")
        keras, asked = sides.keras_on(backend), {**request.of_side("keras", "float32"), "weights": weights}
        keras.describe(asked, folder / f"keras-{backend}-float32")
        keras.answer()
        keras.get("trace")
        single = Trace(torch)
        single.renumber(pair.torch.calls)
        rungs = rounding.compare(pair, Trace(keras.out), single)
        took = (time.perf_counter() - started) / len(rungs)
        subject = Subject(request.name, backend, "float32", request.device)
        for name, checks in rungs.items():
            findings.decide(name, partial(list, checks), subject, before=took)
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
    theirs = as_built(keras.out / "weights.npz", named)
    ours = dict(zip(named, as_built(torch.out / "weights.npz", named.values()).values(), strict=True))
    kinds = {layer["name"]: layer["kind"] for layer in pair.keras.layers}
    for layer, weights in ours.items():
        # What one side's layer is without, the structure rung tells.
        shared = theirs[layer].keys() & weights.keys()
        theirs[layer], ours[layer] = (
            {name: side[layer][name] for name in theirs[layer] if name in shared} for side in (theirs, ours)
        )
        for weight, array in ours[layer].items():
            if pair.alike(theirs[layer][weight], array):
                ours[layer][weight] = array.reshape(theirs[layer][weight].shape)
    flattened = pair.flattened_shapes()
    compared = as_they_are.compare(theirs, ours, kinds, flattened)

    subject = Subject(request.name, "tensorflow", "as built", request.device)

    def decide(note: str) -> None:
        findings.decide("weights", lambda: compared.checks, subject, note, time.perf_counter() - started)

    if not compared.checks:
        return Answer("passed", evidence="Neither model has any.")
    drawn = None
    if not compared.related:
        # A builder that seeds its own draws draws other numbers in float64 than it does for its user.
        torch.ask("rebuild", seed=2, precision="float64")  # asked for by `_drawn`, while Keras's is built
        keras.get("rebuild", seed=1, precision="float32")
        torch.answer()
        rebuilt = as_built(keras.out / "rebuilt.npz", named)
        theirs = {layer: {name: rebuilt[layer][name] for name in weights} for layer, weights in ours.items()}
        compared = as_they_are.compare(theirs, ours, kinds, flattened)
        drawn = None if compared.related else _drawn(keras, torch, theirs, ours)
    if compared.same:
        decide("the two models hold the same weights")
        return Answer("passed")
    if drawn is not None:
        told = f"{drawn}; Keras's were carried over to torch for the other rungs."
        findings.skip("weights", subject, told)
        return Answer("independent", evidence=told)
    decide("compared before Keras's were carried over")
    cause = compared.cause
    assert cause is not None
    evidence = f"{cause.evidence}. Keras's weights were carried over to torch for the other rungs."
    torch_layer = named[compared.layer]
    return Answer("failed", "weights", compared.layer, torch_layer, cause.cause, evidence, cause.change)


def _drawn(keras: Side, torch: Side, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str | None:
    """Whose weights are drawn at random, in words, or None where both models come with loaded ones.

    torch's side has built its model anew already.
    """
    if _differ(torch.out / "weights.npz", torch.out / "rebuilt.npz"):
        return "torch's are drawn anew whenever the model is built"
    keras.get("rebuild", seed=2, precision="float64")
    if _differ(keras.out / "weights.npz", keras.out / "rebuilt.npz"):
        return "Keras's are drawn anew whenever the model is built"
    for side, built in (("torch", ours), ("Keras", theirs)):
        if as_they_are.look_initialised(built):
            return f"{side}'s are as its layers draw them"
    return None


def _differ(one: Path, other: Path) -> bool:
    with np.load(one) as before, np.load(other) as after:
        return any(
            not np.array_equal(before[name], after[name]) for name in after.files if name in before.files
        )


def as_built(path: Path, layers: Iterable[str]) -> dict[str, dict[str, np.ndarray]]:
    """The weights of some layers as their model was built, by Keras's names."""
    weights: dict[str, dict[str, np.ndarray]] = {layer: {} for layer in layers}
    with np.load(path) as arrays:
        for key in arrays.files:
            layer, _, name = key.removeprefix("own/").rpartition("/")
            if key.startswith("own/") and layer in weights:
                weights[layer][name] = arrays[key]
    return weights
