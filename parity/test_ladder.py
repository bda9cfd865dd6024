"""The ladder holds for this project's CNN, and every alignment that is switched off is caught and named."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiment.backbones import BACKBONES
from experiment.system import devices
from parity.checks import table
from parity.ladder import mutations
from parity.ladder.climb import UNPROVEN, Findings, Place, own_pairs
from parity.ladder.mutations import MUTATIONS, Outcome
from parity.ladder.pairs import MODELS
from parity.ladder.rungs import RUNGS


def test_every_model_has_a_pair() -> None:
    assert MODELS.keys() == {"cnn", *BACKBONES}


def test_every_rung_of_the_cnn_holds_in_float64(tmp_path: Path) -> None:
    findings = Findings()
    own_pairs(["cnn"], [("tensorflow", "float64")], Place(tmp_path, "cpu", lambda _: None), findings)
    for rung in findings.rungs:
        assert rung.status == "passed", f"{rung.name}\n{table([c for c in rung.checks if not c.passed])}"
    assert {rung.name for rung in findings.rungs} == {*RUNGS, "augmentation draws"}
    assert findings.stock_augmentation
    assert not findings.diagnoses
    [layers] = findings.layers
    assert {"conv1", "bn4", "flatten", "dense", "logits"} <= set(layers["names"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "precision"), [("tensorflow", "float32"), ("jax", "float32"), ("torch", "float32")]
)
def test_every_rung_of_the_cnn_holds_in_float32(tmp_path: Path, backend: str, precision: str) -> None:
    findings = Findings()
    own_pairs(["cnn"], [(backend, precision)], Place(tmp_path, "cpu", lambda _: None), findings)
    for rung in findings.rungs:
        assert rung.status == "passed", f"{rung.name}\n{table([c for c in rung.checks if not c.passed])}"


@pytest.mark.skipif(not devices.count_gpus(), reason=UNPROVEN)
@pytest.mark.parametrize("backend", ["jax", "torch"])
@pytest.mark.parametrize("pair", MODELS)
def test_every_rung_holds_on_cuda(tmp_path: Path, pair: str, backend: str) -> None:
    findings = Findings()
    own_pairs([pair], [(backend, "float32")], Place(tmp_path, "cuda", lambda _: None), findings)
    for rung in findings.rungs:
        assert rung.status == "passed", f"{rung.name}\n{table([c for c in rung.checks if not c.passed])}"


@pytest.mark.slow
@pytest.mark.parametrize("pair", BACKBONES)
def test_every_rung_of_a_base_holds_in_float64(tmp_path: Path, pair: str) -> None:
    findings = Findings()
    own_pairs([pair], [("tensorflow", "float64")], Place(tmp_path, "cpu", lambda _: None), findings)
    for rung in findings.rungs:
        assert rung.status == "passed", f"{rung.name}\n{table([c for c in rung.checks if not c.passed])}"


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    folder = tmp_path_factory.mktemp("mutations")
    names = [name for name, m in MUTATIONS.items() if m.pair == "cnn" and m.rung != "whole run"]
    return {outcome.name: outcome for outcome in mutations.on_traces(names, "cnn", folder, "cpu")}


@pytest.mark.parametrize(
    "name", [n for n, m in MUTATIONS.items() if m.pair == "cnn" and m.rung != "whole run"]
)
def test_a_mutation_is_caught_and_named(outcomes: dict[str, Outcome], name: str) -> None:
    outcome = outcomes[name]
    assert outcome.caught, f"{MUTATIONS[name].rung} passed; failed: {outcome.failed}"
    assert outcome.diagnosed, outcome.diagnosis


@pytest.mark.slow
def test_a_callback_that_waits_one_epoch_more_is_caught_and_named(tmp_path: Path) -> None:
    names = [name for name, m in MUTATIONS.items() if m.rung == "whole run"]
    found = list(mutations.on_whole_runs(names, tmp_path, "cpu"))
    assert names
    assert mutations.score(found) == 1, found


@pytest.mark.slow
@pytest.mark.parametrize("pair", sorted({m.pair for m in MUTATIONS.values()} - {"cnn"}))
def test_mutations_of_a_base_are_caught_and_named(tmp_path: Path, pair: str) -> None:
    names = [name for name, m in MUTATIONS.items() if m.pair == pair]
    found = list(mutations.on_traces(names, pair, tmp_path, "cpu"))
    assert names
    assert mutations.score(found) == 1, found
