"""The classifiers: a BatchNorm/Dropout CNN and transfer from a base, from images to logits."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiment import randomness
from experiment.backbones import BACKBONES
from experiment.config import Experiment, Model
from experiment.data.pretrained import base_weights
from lightning_impl.backbones import BASES
from lightning_impl.dropout import Dropout, SharedDropout
from lightning_impl.keras_semantics import BatchNorm, Flatten
from lightning_impl.layers.weight_layout import keras_view, tensors


def build_model(experiment: Experiment, classes: int, pretrained: bool = True) -> nn.Module:
    """The configured model with its initial weights.

    (N, 3, S, S) float images in 0..255 -> (N, classes) logits.
    pretrained: read the weights that a pretrained base starts from; off where others are loaded anyway.
    """
    size = experiment.data.image_size
    build = cnn if experiment.model.backbone is None else transfer
    model = build(experiment.model, size, classes)
    initialise(model, experiment.seed, experiment.model.initial_biases)
    if experiment.model.backbone is not None and pretrained:
        load_base(model, experiment.model, experiment.data.cache)
    if experiment.training.dropout_masks == "shared":
        share_dropout(model, experiment.seed)
    return model


def cnn(config: Model, size: int, classes: int) -> nn.Module:
    """Blocks of [convolution, relu, BatchNorm], each ended by pooling and dropout; then a dense head."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["rescaling"] = Rescaling(1 / 255)
    channels, number = 3, 0
    for block, (filters, rate) in enumerate(zip(config.filters, config.block_dropout, strict=True), 1):
        for _ in range(config.convolutions_per_block):
            number += 1
            layers[f"conv{number}"] = nn.Conv2d(channels, filters, kernel_size=3)
            layers[f"relu{number}"] = nn.ReLU()
            layers[f"bn{number}"] = BatchNorm(filters)
            channels, size = filters, size - 2
        layers[f"pool{block}"] = nn.MaxPool2d(2)
        layers[f"dropout{block}"] = Dropout(rate)
        size //= 2
    layers["flatten"] = Flatten()
    layers["dense"] = nn.Linear(size * size * channels, config.dense_units)
    layers["relu_dense"] = nn.ReLU()
    layers["bn_dense"] = BatchNorm(config.dense_units)
    layers["dropout_dense"] = Dropout(config.head_dropout)
    layers["logits"] = nn.Linear(config.dense_units, classes)
    return nn.Sequential(layers)


def transfer(config: Model, size: int, classes: int) -> nn.Module:
    """A base's convolutions, frozen but for the last `fine_tune_blocks`, under a dense head."""
    backbone = BACKBONES[config.name]
    base: OrderedDict[str, nn.Module] = OrderedDict()
    if backbone.preprocessing.bgr:
        base["flip"] = Flip()
    base["preprocess"] = Normalization(backbone.preprocessing.mean, backbone.preprocessing.deviation)
    base.update(BASES[config.name](size))
    trained = backbone.trained(config.fine_tune_blocks)
    for name, layer in named_layers(nn.Sequential(base)).items():
        layer.requires_grad_(name in trained)
    if backbone.pooled:
        base["pool"] = nn.AdaptiveAvgPool2d(1)
    base["flatten"] = Flatten()
    head: OrderedDict[str, nn.Module] = OrderedDict()
    head["dense"] = nn.Linear(backbone.features(size), config.dense_units)
    head["relu_dense"] = nn.ReLU()
    head["dropout_dense"] = Dropout(config.head_dropout)
    head["logits"] = nn.Linear(config.dense_units, classes)
    return nn.Sequential(OrderedDict(base=nn.Sequential(base), head=nn.Sequential(head)))


class Probabilities(nn.Module):
    """A network that ends in a softmax: images (N, 3, S, S) in 0..255 -> probabilities (N, classes)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        return F.softmax(self.network(images).to(torch.get_default_dtype()), dim=1)


class Rescaling(nn.Module):
    """Multiplies by a constant, rounded to float32 as Keras on TensorFlow rounds it, in float64 too."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = float(np.float32(scale))

    def forward(self, input: Tensor) -> Tensor:
        return input * self.scale


class Flip(nn.Module):
    """RGB to BGR: the colours of (N, 3, H, W) in the other order."""

    def forward(self, input: Tensor) -> Tensor:
        return input.flip(1)


class Normalization(nn.Module):
    """Keras's: (N, C, H, W) minus a mean for each channel, over a standard deviation for each."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        # float32 also where the model is float64: so Keras's keeps them.
        for name, values in (("mean", mean), ("deviation", deviation)):
            array = torch.tensor(values, dtype=torch.float32)[:, None, None]
            self.register_buffer(name, array, persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        return (input - self.mean.to(input.dtype)) / self.deviation.to(input.dtype)


def initialise(model: nn.Module, seed: int, biases: str) -> None:
    """Draw every kernel and bias as the other side does.

    Raises ValueError for weights of a kind of layer that it has no draw for: they would keep torch's.
    """
    for name, layer in named_layers(model).items():
        weights = tensors(layer)
        if isinstance(layer, nn.Conv2d | nn.Linear):
            draws = [randomness.kernel(seed, name, keras_shape(layer))]
            if (bias := layer.bias) is not None:
                draws.append(randomness.bias(seed, name, bias.shape[0], biases))
            set_weights(layer, *draws)
        elif weights and not isinstance(layer, nn.BatchNorm2d):  # which starts as ones and zeros
            raise ValueError(
                f"layer {name} of kind {type(layer).__name__}: nothing draws its {', '.join(weights)}"
            )


def load_base(model: nn.Module, config: Model, cache: str) -> None:
    """Give a base the weights of a Keras file; `random` leaves the drawn ones."""
    named = named_layers(model)
    for name, arrays in base_weights(config.name, config.weights, cache).items():
        set_weights(named[name], *arrays)


def keras_shape(layer: nn.Conv2d | nn.Linear) -> tuple[int, ...]:
    """Shape of a layer's kernel in Keras's layer, see `as_keras`."""
    return tuple(as_keras(layer, layer.weight).shape)


def as_keras(layer: nn.Module, tensor: Tensor) -> Tensor:
    """One weight of a layer, or anything of its shape, seen as Keras's layer holds it.

    A kernel is (height, width, in, out) or (in, out). A convolution with a group for each channel is Keras's
    DepthwiseConv2D: (height, width, in, multiplier).
    """
    view = keras_view(layer, tensor)
    if isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels > 1 and tensor.dim() == 4:
        return view.squeeze(2).unflatten(-1, (layer.in_channels, -1))
    return view


@torch.no_grad()
def set_weights(layer: nn.Module, *arrays: np.ndarray) -> None:
    """Copy a kernel in Keras's layout and a bias, or a BatchNormalization's arrays, into a layer."""
    for tensor, values in zip(tensors(layer).values(), arrays, strict=True):
        as_keras(layer, tensor).copy_(torch.from_numpy(np.asarray(values)))


def share_dropout(model: nn.Module, seed: int) -> None:
    """Replace every dropout by one whose masks are the same on both sides."""
    for path, layer in list(model.named_modules()):
        if isinstance(layer, nn.Dropout):
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, SharedDropout(layer.p, seed, name))


def named_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Every layer that has no layers in it by its own name, without those of what it stands in."""
    return {
        path.rsplit(".", 1)[-1]: layer
        for path, layer in model.named_modules()
        if not any(True for _ in layer.children())
    }


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Parameters as Keras counts them: BatchNorm's moving statistics are non-trainable ones."""
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    statistics = sum(
        buffer.numel() for name, buffer in model.named_buffers() if name.endswith(("_mean", "_var"))
    )
    return {
        "total": trainable + frozen + statistics,
        "trainable": trainable,
        "non_trainable": frozen + statistics,
    }
