"""python -m lightning_impl.migrate.command REQUEST.json: writes the package of a graph, or reads weights
back."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiment import cli
from experiment.errors import RunError
from experiment.protocols.graph import Migration
from experiment.protocols.trace import user_object
from lightning_impl.layers.source import SourceRule
from lightning_impl.migrate import package, weights
from lightning_impl.migrate.package import UntranslatableError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    [path] = sys.argv[1:] if argv is None else argv
    return cli.guarded(lambda: run(json.loads(Path(path).read_text())))


def run(request: dict[str, Any]) -> int:
    """Write the package, or with `build` the arrays of its weights; prints what came of it as JSON.

    Raises RunError with every layer that cannot be translated.
    """
    migration = Migration.read(Path(request["graph"]))
    rules = rules_of(request["layers"])
    try:
        if request.get("build"):
            back(migration, request, rules)
            return 0
        written = package.write(migration, Path(request["out"]), rules, request["stub"])
    except UntranslatableError as error:
        raise RunError(told(error)) from error
    except weights.WeightError as error:
        raise RunError(f"the weights do not fit what was written: {error}") from error
    answer = {
        "lines": written.lines,
        "pieces": written.pieces,
        "notes": written.notes,
        "stubs": written.stubs,
        "layers": written.layers,
    }
    Path(request["answer"]).write_text(json.dumps(answer))
    return 0


def told(error: UntranslatableError) -> str:
    """Every layer that cannot be translated, and the ways out."""
    lines = [f"  {problem.layer} ({problem.kind}): {problem.reason}" for problem in error.problems]
    kinds = [p.kind for p in error.problems if p.kind not in ("Lambda", "Model")]
    custom = kinds[0] if kinds else "MyLayer"
    return "\n".join(
        [
            "nothing was written: these layers have no translation",
            *lines,
            f"give a rule with --layer {custom}=package.module:rule, or --stub to leave them to be written",
        ]
    )


def rules_of(layers: Sequence[str]) -> dict[str, SourceRule]:
    """The user's rules, `Class=package.module:rule`; raises RunError."""
    rules = {}
    for text in layers:
        name, _, rule = text.partition("=")
        function: Any = user_object(rule)
        rules[name] = SourceRule(function, getattr(function, "layout", "any"))
    return rules


def back(migration: Migration, request: dict[str, Any], rules: dict[str, SourceRule]) -> None:
    """Write a trained network's weights as Keras's arrays, and what it gives for some inputs, as npz."""
    from safetensors.torch import load_file

    model, _ = package.lowered(migration, rules, False)
    module = user_object(request["build"])()
    network = getattr(module, "network", module)
    package.render(model, "")  # finds the blocks, and with them the modules' paths
    if request["weights"]:
        state = read_state(Path(request["weights"]), load_file)
        state = {name.removeprefix("network."): value for name, value in state.items()}
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            raise RunError(f"{request['weights']}: does not fit {request['build']}: {error}") from error
    found = weights.collect(network, model)
    inputs = np.load(request["inputs"])
    tensors = []
    for key in inputs.files:
        tensor = torch.from_numpy(inputs[key])
        tensors.append(tensor.movedim(-1, 1) if tensor.dim() > 3 else tensor)
    with torch.no_grad():
        outputs: Any = network.eval()(*tensors)
    flat = (
        [outputs]
        if isinstance(outputs, torch.Tensor)
        else list(outputs.values() if isinstance(outputs, dict) else outputs)
    )
    given = {}
    for index, (output, finish) in enumerate(zip(flat, model.finish, strict=True)):
        output = output.movedim(1, -1) if output.dim() > 3 else output
        output = (
            output.softmax(-1) if finish == "softmax" else output.sigmoid() if finish == "sigmoid" else output
        )
        given[f"output/{index}"] = output.numpy()
    np.savez(request["out"], allow_pickle=False, **found, **given)


def read_state(path: Path, load_file: Any) -> dict[str, torch.Tensor]:
    """A state dict from .safetensors, or from a checkpoint of Lightning's; raises RunError."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors and pickle raise many kinds for a damaged file
        raise RunError(f"{path}: cannot be read as weights ({type(error).__name__})") from error
    state = loaded.get("state_dict", loaded)
    return {name: value for name, value in state.items() if "metrics." not in name}


if __name__ == "__main__":
    sys.exit(main())
