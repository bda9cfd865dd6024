"""Writes packages from the graphs of `pairs/migrate_keras.py` and compares what they compute with Keras's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from experiment.protocols.graph import Migration
from lightning_impl.keras_semantics import Adam
from lightning_impl.layers import weight_layout
from lightning_impl.migrate import package, rendering, weights
from lightning_impl.migrate.lowering import Lowered

STEPS = 5


def written(graph: Path, folder: Path, **options: Any) -> nn.Module:
    """The network of the package that is written for a graph, in float64, with its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    package.write(Migration.read(graph), folder, options.get("rules", {}))
    return package.load(folder, folder / "weights.safetensors").double()


def steps_of(graph: Path) -> Lowered:
    """The written model's steps with the paths of their modules."""
    model, _ = package.lowered(Migration.read(graph), {}, False)
    rendering.render(model, "")
    return model


def differences(network: nn.Module, graph: Path) -> dict[str, float]:
    """The largest difference from Keras's reference of each stage, as a share of the largest number in it."""
    with np.load(graph / "reference.npz") as arrays:
        reference = dict(arrays)
    migration, model = Migration.read(graph), steps_of(graph)
    weights.fill(network, model, migration.arrays)  # in float64, as the reference is
    inputs = [_torch(reference[f"input/{i}"]) for i in range(len(model.inputs))]
    found = {"eval": _outputs(network.eval(), inputs, model, reference, "eval")}
    if "train/0" not in reference:
        return found
    optimizer = Adam([p for p in network.parameters() if p.requires_grad], lr=1e-2)
    for step in range(STEPS):
        optimizer.zero_grad()
        outputs = [_keras(o, f) for o, f in zip(_flat(network.train()(*inputs)), model.finish, strict=True)]
        loss = sum(((o * _pattern(o.shape)).sum() for o in outputs), torch.zeros(()))
        loss.backward()
        if step == 0:
            found["train"] = max(
                _apart(output.detach().numpy(), reference[f"train/{i}"]) for i, output in enumerate(outputs)
            )
            found["gradients"] = _gradients(network, model, reference)
        optimizer.step()
    found["final"] = _outputs(network.eval(), inputs, model, reference, "final")
    return found


def _outputs(network: nn.Module, inputs: list[Tensor], model: Lowered, reference: Any, stage: str) -> float:
    with torch.no_grad():
        outputs = _flat(network(*inputs))
    pairs = zip(outputs, model.finish, strict=True)
    return max(
        _apart(_keras(output, finish).numpy(), reference[f"{stage}/{i}"])
        for i, (output, finish) in enumerate(pairs)
    )


def _gradients(network: nn.Module, model: Lowered, reference: Any) -> float:
    largest, seen = 0.0, set()
    for layer, part, module in weights.holders(network, model):
        known = weight_layout.weights(module) if weights._known(module) else None
        names: Any = known or dict(module.named_parameters(recurse=False))
        for name, weight in names.items():
            key = f"gradient/{layer}/{part}/{name}" if part else f"gradient/{layer}/{name}"
            if key not in reference:
                continue
            if known is None:
                gradient: Any = weight.grad
            else:
                gradient = weight.of(_gradient)
            assert gradient is not None, key
            expected = reference[key]
            seen.add(key)
            if expected.shape != tuple(gradient.shape):
                return float("inf")
            if np.abs(expected).max() > 1e-9:  # a bias before a norm has rounding for a gradient
                largest = max(largest, _apart(gradient.numpy(), expected))
    assert seen == {key for key in reference if key.startswith("gradient/")}
    return largest


def _gradient(tensor: Tensor) -> Tensor:
    """Its gradient; of what is held still, zeros."""
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


def _apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    if ours.shape != theirs.shape or not np.isfinite(ours).all():
        return float("inf")
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-3))


def _keras(output: Tensor, finish: str | None) -> Tensor:
    output = output.movedim(1, -1) if output.dim() > 3 else output
    if finish == "softmax":
        return output.softmax(-1)
    return output.sigmoid() if finish == "sigmoid" else output


def _torch(array: np.ndarray) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor.movedim(-1, 1) if tensor.dim() > 3 else tensor


def _flat(outputs: Any) -> list[Tensor]:
    if isinstance(outputs, Tensor):
        return [outputs]
    return [t for o in (outputs.values() if isinstance(outputs, dict) else outputs) for t in _flat(o)]


def _pattern(shape: Any) -> Tensor:
    return torch.cos(torch.arange(int(np.prod(shape)), dtype=torch.float64)).reshape(shape)
