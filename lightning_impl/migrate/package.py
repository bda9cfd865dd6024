"""Writes the whole package: model, LightningModule, semantics, weights, README and an example of training."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from experiment.protocols.graph import Layer, Migration
from lightning_impl.layers.source import SourceRule
from lightning_impl.migrate import rendering, semantics, training, weights
from lightning_impl.migrate.blocks import places
from lightning_impl.migrate.lowering import Lowered, Lowering, Problem, camel, strip, tensors_of
from lightning_impl.migrate.rendering import PIECES, render

LINE = 100


class UntranslatableError(Exception):
    """A model has layers that cannot be translated; `problems` are all of them."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(f"{len(problems)} layers cannot be translated")
        self.problems = problems


@dataclass
class Written:
    """What was written, in the words of the README and of the report."""

    lines: int
    pieces: list[str]
    translated: list[tuple[str, str, str]]  # Keras's path, its kind, the module's path or expression
    notes: list[str] = field(default_factory=list)
    stubs: list[str] = field(default_factory=list)
    layers: dict[str, str] = field(default_factory=dict)  # Keras's layers with weights, by the module's path


def lowered(migration: Migration, rules: Mapping[str, SourceRule], stubs: bool) -> tuple[Lowered, Lowering]:
    """The model that a graph becomes, its softmax or sigmoid taken off; raises UntranslatableError."""
    lowering = Lowering(rules, stubs, migration.arrays)
    model = lowering.lower(migration.graph)
    if lowering.problems and not (stubs and migration.graph.kind != "Subclass"):
        raise UntranslatableError(lowering.problems)
    count = len(list(tensors_of(model.outputs)))
    allowed = training.endings(migration, count)
    model.finish = [strip(model, index, allowed[index]) for index in range(count)]
    return model, lowering


def write(
    migration: Migration, folder: Path, rules: Mapping[str, SourceRule], stubs: bool = False
) -> Written:
    """Write the package into an empty folder; raises UntranslatableError and WeightError."""
    model, lowering = lowered(migration, rules, stubs)
    PIECES.update(semantics.names())
    stub_classes = {
        camel(path.rsplit("/", 1)[-1]): _stub(path, layer) for path, layer in lowering.stubbed.items()
    }
    doc = f"{camel(migration.graph.name)}, migrated from the Keras model `{migration.graph.name}`."
    source = render(model, doc, stub_classes)
    (folder / "__init__.py").write_text('"""A network migrated from Keras."""\n')
    (folder / "model.py").write_text(source.text)
    (folder / "keras_semantics.py").write_text(semantics.extract(source.pieces))
    network = load(folder)
    weights.fill(network, model, migration.arrays)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / "weights.safetensors")
    module = training.write(migration, model, network)
    (folder / "lightning_module.py").write_text(module.text)
    pieces = sorted({*source.pieces, *module.pieces})
    (folder / "keras_semantics.py").write_text(semantics.extract(pieces))
    (folder / "train.py").write_text(_train(model, module.targets).replace("NAME", folder.name))
    formatted(folder)
    lines = len((folder / "model.py").read_text().splitlines())
    layers = weights.paths(network, model)
    written = Written(lines, pieces, _translated(model), module.notes, list(lowering.stubbed), layers)
    (folder / "README.md").write_text(readme(migration, model, written, folder.name))
    return written


def load(folder: Path, weights_file: Path | None = None) -> nn.Module:
    """The network of a written package, from wherever it lies; with torch's own weights if none are named."""
    name = f"_migrated_{abs(hash(str(folder)))}"
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    for loaded in [key for key in sys.modules if key == name or key.startswith(f"{name}.")]:
        del sys.modules[loaded]
    sys.modules[name] = package
    spec.loader.exec_module(package)
    return importlib.import_module(f"{name}.model").build(weights_file)


def formatted(folder: Path) -> None:
    """Format and sort the written files with ruff, where it is installed."""
    ruff = shutil.which("ruff") or shutil.which("ruff", path=str(Path(sys.executable).parent))
    if ruff is None:
        return
    files = [str(path) for path in sorted(folder.glob("*.py"))]
    common = ["--isolated", "--line-length", str(LINE), "--quiet"]
    subprocess.run([ruff, "check", "--fix", "--select", "I,F401", *common, *files], check=False)
    subprocess.run([ruff, "format", *common, *files], check=False)


def _stub(path: str, layer: Layer) -> str:
    settings = "\n".join(f"    {key}: {value!r}" for key, value in layer.settings.items())
    shapes = "\n".join(f"    weight {name}: {shape}" for name, shape in layer.weights.items())
    return (
        f'class {camel(path.rsplit("/", 1)[-1])}(nn.Module):\n    """Not translated: Keras\'s `{path}`, a {layer.kind}.\n\n'
        f'{settings}\n{shapes}\n    """\n\n    def forward(self, *inputs: Tensor) -> Tensor:\n'
        f'        raise NotImplementedError("{path}: write what {layer.kind} does")'
    )


def _train(model: Lowered, targets: Sequence[str]) -> str:
    """train.py; targets: of 256 samples, by output."""

    def shape(number: int) -> str:
        value = model.values[number]
        sizes: list[Any] = [32 if size is None else size for size in value.shape[1:]]
        sizes = [sizes[-1], *sizes[:-1]] if value.first else sizes
        text = ", ".join(map(str, [256, *sizes]))
        return f"torch.randint(0, 8, ({text}))" if "int" in value.dtype else f"torch.rand({text})"

    inputs = [shape(number) for number in model.inputs]
    given = inputs[0] if len(inputs) == 1 else f"[{', '.join(inputs)}]"
    wanted, of_sample = targets[0], "targets[i]"
    if isinstance(model.outputs, dict):
        wanted = f"{{{', '.join(f'{name!r}: {t}' for name, t in zip(model.outputs, targets, strict=True))}}}"
        of_sample = "{name: target[i] for name, target in targets.items()}"
    elif isinstance(model.outputs, list):
        wanted, of_sample = f"[{', '.join(targets)}]", "[target[i] for target in targets]"
    if len(inputs) == 1 and not isinstance(model.outputs, dict | list):
        loader = "    data = TensorDataset(inputs, targets)\n"
    else:
        sample = "inputs[i]" if len(inputs) == 1 else "[x[i] for x in inputs]"
        loader = f"    data = [({sample}, {of_sample}) for i in range(256)]\n"
    loader += "    loader = DataLoader(data, batch_size=32, shuffle=True)"
    imported = "DataLoader, TensorDataset" if "TensorDataset" in loader else "DataLoader"
    return f'''"""Trains the module on random tensors: put your own, or an ImageFolder, in their place. python -m NAME.train"""

import lightning.pytorch as pl
import torch
from torch.utils.data import {imported}

from .lightning_module import build, callbacks

if __name__ == "__main__":
    inputs = {given}
    targets = {wanted}
{loader}
    trainer = pl.Trainer(max_epochs=2, callbacks=callbacks(), logger=False)
    trainer.fit(build(), loader, loader)
'''


def _translated(model: Lowered) -> list[tuple[str, str, str]]:
    """By Keras layer: its path, its kind, and the modules or expressions that it became."""
    found: dict[str, tuple[str, list[str]]] = {}
    chains = rendering.chains(model)
    for path, step in places(model.steps):
        if not step.layer:
            continue
        parent = path.rpartition(".")[0]
        module = step.module is not None and (not step.expression or parent in chains)
        what = f"`{path}`: {step.module.name}" if module and step.module else f"`{step.expression}`"
        _, become = found.setdefault(step.layer, (step.kind.removesuffix(" (shared)"), []))
        if what not in become:
            become.append(what)
    return [(layer, kind, ", ".join(become)) for layer, (kind, become) in found.items()]


def _notes(model: Lowered) -> list[str]:
    """What a reader must know of some kinds of layers."""
    kinds = {step.kind for step in model.every_step()} | {step.kind for _, step in places(model.steps)}
    notes = []
    if "Embedding" in kinds:
        notes.append(
            "Keras on TensorFlow hands an Embedding's gradient on in slices: of a token that a batch has twice, "
            "Adam squares each slice on its own. Here, and on Keras's other backends, it squares their sum."
        )
    if any(kind.startswith("Random") for kind in kinds):
        notes.append(
            "The random image layers act in training alone, as in Keras; they are modules of the network."
        )
    return notes


NATURE = (
    "Random draws: dropout, noise and augmentation have the same distributions and draw other numbers.",
    "Images are (N, C, H, W) in torch and (N, H, W, C) in Keras; sequences are (N, T, F) in both.",
    "`build(None)` draws torch's initial weights, not Keras's.",
)


def readme(migration: Migration, model: Lowered, written: Written, name: str) -> str:
    """The package's README, without a verdict yet."""
    rows = "\n".join(f"| `{layer}` | {kind} | {what} |" for layer, kind, what in written.translated)
    ends = {"softmax": "softmax", "sigmoid": "sigmoid"}
    stripped = [
        f"the {ends[f]} at the end is left to the loss and to `predict_step`: the network gives logits"
        for f in model.finish
        if f
    ]
    told = [*dict.fromkeys(stripped), *written.notes, *_notes(model), *NATURE]
    notes = "\n".join(f"- {note}" for note in told)
    stubs = "".join(
        f"\n**Not translated, and so not proven:** {', '.join(written.stubs)}.\n" if written.stubs else ""
    )
    return f"""# {migration.graph.name}

Migrated from Keras (`{migration.source}`). It needs torch, lightning, torchmetrics and safetensors, and nothing else.
{stubs}
    from {name}.model import build                     # the network with its weights
    from {name}.lightning_module import build, callbacks   # the LightningModule, and Keras's callbacks
    python -m {name}.train                             # an example

## Verdict

Not proven yet.

## What differs

{notes}

## Layer by layer

| Keras | kind | here |
|---|---|---|
{rows}
"""
