"""Carries weights between Keras's arrays and a written network, by the layout of the table of layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from experiment.protocols.graph import Arrays
from lightning_impl.layers import weight_layout
from lightning_impl.migrate.blocks import places
from lightning_impl.migrate.lowering import Lowered


class WeightError(Exception):
    """Weights do not fit; the message names the layer."""


def fill(network: nn.Module, lowered: Lowered, arrays: Arrays) -> None:
    """Give a written network Keras's weights; raises WeightError where they do not fit."""
    for layer, prefix, module in holders(network, lowered):
        own = _under(arrays, layer, prefix)
        try:
            _load(module, own)
        except ValueError as error:
            raise WeightError(f"{layer}: {error}") from error
    modules = dict(network.named_modules())
    for path, step in places(lowered.steps):
        if step.kind == "Constant":
            held, value = lowered.values[step.outputs[0]], modules[path].get_buffer("value")
            array = arrays[step.layer]
            array = array.reshape((1,) * (held.rank - array.ndim) + array.shape)
            value.copy_(torch.from_numpy(np.moveaxis(array, -1, 1) if held.first else array))


def collect(network: nn.Module, lowered: Lowered) -> Arrays:
    """A written network's weights as Keras's arrays, by `PATH/NAME`."""
    found: Arrays = {}
    for layer, prefix, module in holders(network, lowered):
        part = f"{prefix}/" if prefix else ""
        found |= {f"{layer}/{part}{name}": array for name, array in _arrays(module).items()}
    return found


def holders(network: nn.Module, lowered: Lowered) -> Iterator[tuple[str, str | None, Any]]:
    """Every module that holds a Keras layer's weights: the layer's path, the part of it, and the module."""
    seen: set[str] = set()
    modules = dict(network.named_modules())
    for path, step in places(lowered.steps):
        module = modules.get(path)
        if module is None or path in seen or step.module is None or (step.expression and step.module.inline):
            continue
        seen.add(path)
        if step.module.part is None and step.module.suffix:
            continue
        held = [module, *module.children()]
        holding = [inner for inner in held if any(True for _ in inner.parameters(recurse=False))]
        if holding:  # a recurrent layer holds them in torch's own
            yield step.layer, step.module.part, holding[0]


def paths(network: nn.Module, lowered: Lowered) -> dict[str, str]:
    """By the path of each module, the Keras layer, or part of one, that it was written from."""
    names = {id(module): path for path, module in network.named_modules()}
    held = {
        names[id(module)]: f"{layer}/{part}" if part else layer
        for layer, part, module in holders(network, lowered)
    }
    plain = {
        path: step.layer
        for path, step in places(lowered.steps)
        if path in names.values()
        and step.module is not None
        and not step.expression
        and not step.module.suffix
    }
    return {**{path: layer for path, layer in plain.items() if layer not in held.values()}, **held}


def _under(arrays: Arrays, layer: str, part: str | None) -> Arrays:
    own = {name.removeprefix(f"{layer}/"): a for name, a in arrays.items() if name.startswith(f"{layer}/")}
    if not part:
        direct = {name: array for name, array in own.items() if "/" not in name}
        return (
            direct if part == "" else direct or own
        )  # what lies below belongs to a part, or to a cell below
    return {name.removeprefix(f"{part}/"): a for name, a in own.items() if name.startswith(f"{part}/")}


def _load(module: nn.Module, own: Arrays) -> None:
    held = dict(module.named_parameters(recurse=False))
    if _known(module):
        weight_layout.load(module, own)
    elif held.keys() == own.keys():  # in Keras's layout, under its names
        for name, parameter in held.items():
            if tuple(parameter.shape) != own[name].shape:
                raise ValueError(f"its {name} is {tuple(parameter.shape)}, Keras's is {own[name].shape}")
            with torch.no_grad():
                parameter.copy_(torch.from_numpy(np.ascontiguousarray(own[name])))
    else:
        raise ValueError(f"it has {', '.join(held)}, Keras's has {', '.join(own)}")


def _arrays(module: nn.Module) -> Arrays:
    if _known(module):
        return weight_layout.arrays(module)
    return {name: p.numpy(force=True) for name, p in module.named_parameters(recurse=False)}


def _known(module: nn.Module) -> bool:
    try:
        return bool(weight_layout.weights(module))
    except ValueError:
        return False
