"""python -m lightning_impl.doctor.command REQUEST.json OUT: what a migration from Keras left unmatched.

Reads the module and the objects that train it, without the Keras model; writes OUT/findings.json. A request
holds `build` and `training` (the user's functions; the second may be empty), `input_shape` (without the
batch, channels last, or empty: then nothing is run) and `gpu`, whether there is one to train on.
"""

from __future__ import annotations

import inspect
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from experiment import cli
from experiment.protocols import trace
from experiment.protocols.faults import told
from experiment.protocols.trace import TraceError, user_object
from experiment.runs.record import Run
from lightning_impl.doctor.defaults import ARGUMENTS, Finding, of_arguments, of_behaviour
from lightning_impl.layers.convolution import CONVOLUTIONS, TRANSPOSED
from lightning_impl.trace.recorder import Recording
from lightning_impl.trace.signature import to_torch
from lightning_impl.trace.target import built, configured

POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d)
KNOWN = (*CONVOLUTIONS, *TRANSPOSED, nn.Linear, nn.Embedding, nn.LSTM, nn.GRU)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    request, out = sys.argv[1:] if argv is None else argv
    values = json.loads(Path(request).read_text())

    def command() -> int:
        out_folder = Path(out)
        out_folder.mkdir(parents=True, exist_ok=True)
        found = [asdict(finding) for finding in examine(**values)]
        Run(out_folder).write_json("findings.json", {"findings": found})
        return 0

    return cli.guarded(command)


def examine(
    build: str, training: str = "", input_shape: Sequence[int] = (), gpu: bool = False
) -> list[Finding]:
    """Everything that would differ from Keras's defaults; raises TraceError."""
    torch.manual_seed(0)
    model = built(build)
    found: list[Finding] = []
    for name, module in model.named_modules():
        found += of_arguments(module, name)
        found += of_behaviour(module, name)
        found += of_module(module, name)
    objects = trainers(model, training)
    for where, thing in objects:
        found += of_arguments(thing, where)
        found += of_behaviour(thing, where)
    if input_shape:
        found += of_a_pass(model, input_shape, [thing for _, thing in objects])
    return found + (list(of_precision()) if gpu else [])


# === One module ===


def of_module(module: nn.Module, where: str) -> Iterator[Finding]:
    """Initial weights, padding, and layers that have weights and no rule here."""
    if isinstance(module, (nn.Linear, nn.Embedding, *CONVOLUTIONS, *TRANSPOSED)):
        yield from _of_weights(module, where)
    elif next(module.parameters(recurse=False), None) is not None and not isinstance(
        module, (*KNOWN, *(kind for kinds in ARGUMENTS for kind in _each(kinds)))
    ):
        name = type(module).__name__
        yield Finding(where, f"{name} has weights, and no rule here knows it", "unknown", "compare by hand")
    if isinstance(module, CONVOLUTIONS) and not isinstance(module.padding, str):
        if any(stride > 1 and pad for stride, pad in zip(module.stride, module.padding, strict=True)):
            yield _symmetric(where, module.padding, "padding=0 after nn.ZeroPad2d, such as (0, 1, 0, 1)")
    elif isinstance(module, POOLS):
        if any(_each(module.padding)):
            yield _symmetric(where, _each(module.padding), "padding=0, ceil_mode=True (window 3, stride 2)")
            if getattr(module, "count_include_pad", False):
                yield Finding(
                    where,
                    "count_include_pad: added zeros count in the average",
                    "they do not",
                    "count_include_pad=False",
                )
        if module.ceil_mode:
            yield Finding(
                where,
                "ceil_mode: a last, partial window counts",
                "`same` keeps it, `valid` does not",
                "ceil_mode=False for `valid`",
            )
    if isinstance(module, nn.Upsample) and module.align_corners:
        yield Finding(where, "align_corners=True", "corners of pixels are aligned", "align_corners=False")
    if isinstance(module, nn.GELU) and module.approximate == "tanh":
        yield Finding(where, "GELU approximated by tanh", "the exact one", "approximate='none'")


def _symmetric(where: str, padding: Sequence[int], remedy: str) -> Finding:
    return Finding(
        where,
        f"pads {', '.join(map(str, padding))} on both sides",
        "`same` with a stride adds the odd pixel behind alone: an even size is padded otherwise",
        f"{remedy}; or ZeroPadding2D in Keras",
    )


def _of_weights(module: Any, where: str) -> Iterator[Finding]:
    """Whether weights look as torch draws them: spread evenly over +-1/sqrt(fan in), or as a unit normal."""
    weight = module.weight.detach()
    if isinstance(module, nn.Embedding):
        if weight.numel() >= 256 and abs(weight.std().item() - 1) < 0.1:
            yield Finding(
                where, "initial weights N(0, 1)", "uniform in ±0.05", "nn.init.uniform_(w, -0.05, 0.05)"
            )
        return
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(weight)
    limit, glorot = 1 / math.sqrt(fan_in), math.sqrt(6 / (fan_in + fan_out))
    bias = module.bias
    reaches = weight.numel() >= 64 and 0.9 * limit < weight.abs().max().item() <= limit * (1 + 1e-6)
    drawn = bias is not None and bias.abs().max() > 0 and bias.abs().max() <= limit * (1 + 1e-6)
    if reaches and (drawn or not 0.9 < limit / glorot < 1.1):
        biases = ", biases too" if drawn else ""
        yield Finding(
            where,
            f"initial weights uniform in ±1/sqrt(fan in){biases}",
            "Glorot uniform: ±sqrt(6 / (fan in + fan out)); zero biases",
            "nn.init.xavier_uniform_(weight), nn.init.zeros_(bias)",
        )


# === The objects that train ===


def trainers(model: nn.Module, training: str) -> list[tuple[str, Any]]:
    """What trains the model, each with where it was found: the LightningModule's own, and the user's."""
    optimizer, scheduler = configured(model)
    found: list[tuple[str, Any]] = [("configure_optimizers", optimizer), ("configure_optimizers", scheduler)]
    if isinstance(model, pl.LightningModule):
        callbacks: Any = model.configure_callbacks()
        found += [("configure_callbacks", one) for one in _each(callbacks)]
    if training:
        function = user_object(training)
        takes_model = bool(inspect.signature(function).parameters)
        try:
            given = function(model) if takes_model else function()  # type: ignore[call-arg]
        except Exception as error:  # whatever the user's function raises
            raise TraceError(f"{training}: fails: {told(error)}") from error
        found += [(training.partition(":")[2], one) for one in _flat(given)]
    for where, thing in list(found):
        if isinstance(thing, pl.Trainer):
            found += [(where, one) for one in thing.callbacks]  # type: ignore[attr-defined]
    return [(f"{type(thing).__name__} ({where})", thing) for where, thing in found if thing is not None]


def _flat(values: Any) -> Iterator[Any]:
    if isinstance(values, tuple | list | dict):
        for value in values.values() if isinstance(values, dict) else values:
            yield from _flat(value)
    else:
        yield values


def _each(values: Any) -> Sequence[Any]:
    return values if isinstance(values, tuple | list) else (values,)


# === One pass ===


def of_a_pass(model: nn.Module, input_shape: Sequence[int], objects: list[Any]) -> Iterator[Finding]:
    """What only a pass over made-up inputs shows; raises TraceError where it fails."""
    model.eval()
    inputs = to_torch(torch.rand(4, *input_shape, generator=torch.Generator().manual_seed(0)).numpy())
    try:
        with torch.no_grad(), Recording(model) as recording:
            outputs = model(inputs)
        again = model(inputs)
    except Exception as error:  # whatever the user's model raises
        raise TraceError(f"the model fails on inputs {tuple(inputs.shape)}: {told(error)}") from error
    if not isinstance(outputs, Tensor):
        raise TraceError(f"the model gives {type(outputs).__name__}, one tensor was expected")
    for name in recording.flattened:
        yield Finding(
            name,
            "takes features that were flattened channel first",
            "Flatten runs height, width, channel",
            "lightning_impl.keras_semantics.Flatten",
        )
    for one in recording.seen:
        if "#" in one.name and one.kind == "leaky_relu" and one.settings["negative_slope"] == 0.01:
            yield Finding(one.name, "negative_slope 0.01", "LeakyReLU's is 0.3", "negative_slope=0.3")
    if not torch.equal(outputs, again):
        yield Finding(
            "evaluating twice",
            "gives other outputs in eval mode (F.dropout without training=self.training?)",
            "Dropout acts in training alone",
            "nn.Dropout, or training=self.training",
        )
    losses = [*model.modules(), *objects]
    if trace.are_probabilities(outputs.numpy(force=True)) and any(
        isinstance(loss, nn.CrossEntropyLoss) for loss in losses
    ):
        yield Finding(
            "the outputs",
            "are probabilities, of which CrossEntropyLoss takes the softmax again",
            "CategoricalCrossentropy takes probabilities unless from_logits is set",
            "give the loss logits",
        )


def of_precision() -> Iterator[Finding]:
    """Rounding that torch allows itself on a GPU."""
    if torch.backends.cudnn.allow_tf32:
        yield Finding(
            "torch.backends.cudnn",
            "convolutions may use TF32 on a GPU: 10 bits of mantissa",
            "float32 or TF32, as its backend is set",
            "torch.backends.cudnn.allow_tf32 = False while comparing",
        )


if __name__ == "__main__":
    sys.exit(main())
