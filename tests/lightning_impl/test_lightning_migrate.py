"""Packages written from Keras graphs compute what Keras computes, and a fault in any rule shows."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mutated_rules import MUTATIONS, Mutation, mutated
from written_packages import differences, written

from experiment.protocols.graph import Migration
from lightning_impl.layers.sources import LAYERS
from lightning_impl.migrate import package

ROOT = Path(__file__).parents[2]
BOUND = 2e-6  # Keras on TensorFlow takes the constants of gelu, leaky_relu and Rescaling through float32
MODELS = (
    *("convolutions", "sequences_of_convolutions", "volumes", "transposed", "pools", "open_sizes", "norms"),
    *("frozen", "activations", "slopes", "merges", "shapes", "preprocessing", "text", "recurrent"),
    *("attention", "operations", "several", "nested", "residual_blocks", "unnamed_blocks", "random_layers"),
    *("masked", "attention_masked"),
)
# Rules of which no mutation is told: they write what another rule's mutation covers, or what draws at random.
COVERED = {
    *("Softmax", "EinsumDense", "CustomScaleLayer", "LayerScale", "Identity", "ActivityRegularization"),
    "RepeatVector",
    *("StochasticDepth", "Dropout", "AlphaDropout", "GaussianNoise"),
}


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graphs of the small models and what they compute, from one process of Keras's."""
    folder = tmp_path_factory.mktemp("graphs")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "KERAS_BACKEND": "tensorflow",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, str(ROOT / "tests/pairs/migrate_keras.py"), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.fixture(autouse=True)
def precision() -> Iterator[None]:
    yield
    torch.set_default_dtype(torch.float32)


def compared(graph: Path, folder: Path) -> dict[str, float]:
    network = written(graph, folder)
    torch.set_default_dtype(torch.float64)
    return differences(network, graph)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_written_package_computes_and_trains_as_keras_does(name: str, graphs: Path, tmp_path: Path) -> None:
    found = compared(graphs / name, tmp_path / name)
    assert max(found.values()) < BOUND, found
    assert len(found) == (1 if name == "random_layers" else 4)


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m.kind}: {m.name}".replace(" ", "-"))
def test_a_fault_in_a_rule_shows(mutation: Mutation, graphs: Path, tmp_path: Path) -> None:
    with mutated(mutation):
        try:
            found = compared(graphs / mutation.model, tmp_path / "mutated")
        except (RuntimeError, ValueError, TypeError, IndexError, package.weights.WeightError):
            return  # what is written does not run
    assert max(found.values()) > 10 * BOUND, found


def test_each_rule_with_numbers_to_get_wrong_has_a_mutation() -> None:
    def family(kind: str) -> str:
        return kind.replace("1D", "2D").replace("3D", "2D")

    told = {family(mutation.kind) for mutation in MUTATIONS}
    rules = {
        family(kind) for kind in LAYERS if not kind.startswith(("Random", "Adaptive", "Spatial", "Gaussian"))
    }
    assert rules - told - COVERED == set()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["residual_blocks", "unnamed_blocks"])
def test_blocks_that_repeat_are_one_class(name: str, graphs: Path, tmp_path: Path) -> None:
    package.write(Migration.read(graphs / name), tmp_path, {})
    tree = ast.parse((tmp_path / "model.py").read_text())
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    calls = [
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in classes
    ]
    assert max(calls.count(name) for name in classes) >= 4
    assert len(classes) <= 3
