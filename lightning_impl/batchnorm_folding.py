"""The same predictions with fewer operations: BatchNorm folded into the layer behind it, dropout gone."""

from __future__ import annotations

from copy import deepcopy

from torch import nn

from experiment.deploy import batchnorm_folding
from lightning_impl.dropout import SharedDropout
from lightning_impl.keras_semantics import BatchNorm, Flatten
from lightning_impl.layers.weight_layout import arrays
from lightning_impl.model import set_weights


def fold(model: nn.Module) -> nn.Module:
    """A chain of layers for inference; a model without BatchNorm comes back as it is."""
    chain = dict(model.named_children())
    normalizations = {name: layer for name, layer in chain.items() if isinstance(layer, BatchNorm)}
    if not normalizations:
        return model
    affines = {
        name: batchnorm_folding.affine(*arrays(layer).values(), epsilon=layer.eps)
        for name, layer in normalizations.items()
    }
    targets = batchnorm_folding.targets([(name, kind(layer)) for name, layer in chain.items()], affines)
    before = {target: affines[name] for name, target in targets.items()}
    folded = nn.Sequential()
    for name, layer in chain.items():
        if name in targets or kind(layer) == "dropout":
            continue
        copy = deepcopy(layer)
        if name in before:
            kernel, bias = arrays(layer).values()
            set_weights(copy, *batchnorm_folding.into(kernel, bias, before[name]))
        folded.add_module(name, copy)
    return folded


def kind(layer: nn.Module) -> str:
    """The layer's kind, in the words of `experiment.deploy.batchnorm_folding.targets`."""
    match layer:
        case BatchNorm():
            return "batchnorm"
        case nn.Conv2d(padding=(0, 0), groups=1) if layer.bias is not None:
            return "convolution"
        case nn.Linear() if layer.bias is not None:
            return "dense"
        case nn.MaxPool2d():
            return "max pooling"
        case Flatten():
            return "flatten"
        case nn.Dropout() | SharedDropout():
            return "dropout"
    return "other"
