"""What a trace says of a torch model: names, kinds, settings, layouts, the order of features."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from lightning_impl.layers import weight_layout
from lightning_impl.layers.registry import kind, settings
from lightning_impl.trace.recorder import Recording, without_dropout

WEIGHTED: list[tuple[nn.Module, dict[str, tuple[int, ...]]]] = [
    (nn.Conv2d(3, 5, (2, 4)), {"kernel": (2, 4, 3, 5), "bias": (5,)}),
    (nn.Conv2d(4, 8, 3, groups=4, bias=False), {"kernel": (3, 3, 1, 8)}),
    (nn.Conv1d(3, 5, 2), {"kernel": (2, 3, 5), "bias": (5,)}),
    (nn.ConvTranspose2d(3, 5, (2, 4)), {"kernel": (2, 4, 5, 3), "bias": (5,)}),
    (nn.Linear(3, 5), {"kernel": (3, 5), "bias": (5,)}),
    (nn.Embedding(7, 2), {"embeddings": (7, 2)}),
    (nn.LayerNorm([2, 3, 4]), {"gamma": (3, 4, 2), "beta": (3, 4, 2)}),
    (nn.GroupNorm(2, 4), {"gamma": (4,), "beta": (4,)}),
    (nn.BatchNorm2d(4), dict.fromkeys(("gamma", "beta", "moving_mean", "moving_variance"), (4,))),
    (nn.PReLU(4), {"alpha": (4,)}),
    (nn.RMSNorm(4), {"scale": (4,)}),
    (nn.RNN(3, 4), {"kernel": (3, 4), "recurrent_kernel": (4, 4), "bias": (4,)}),
    (nn.LSTM(3, 4), {"kernel": (3, 16), "recurrent_kernel": (4, 16), "bias": (16,)}),
    (nn.GRU(3, 4), {"kernel": (3, 12), "recurrent_kernel": (4, 12), "bias": (2, 12)}),
    (
        nn.LSTM(3, 4, bidirectional=True, bias=False),
        {
            f"{way}_{name}": (rows, 16)
            for way in ("forward", "backward")
            for name, rows in (("kernel", 3), ("recurrent_kernel", 4))
        },
    ),
    (
        nn.MultiheadAttention(6, 2),
        {f"{part}_kernel": (6, 2, 3) for part in ("query", "key", "value")}
        | {f"{part}_bias": (2, 3) for part in ("query", "key", "value")}
        | {"output_kernel": (2, 3, 6), "output_bias": (6,)},
    ),
    (
        nn.MultiheadAttention(6, 2, kdim=5, vdim=4, bias=False),
        {f"{part}_kernel": (rows, 2, 3) for part, rows in (("query", 6), ("key", 5), ("value", 4))}
        | {"output_kernel": (2, 3, 6)},
    ),
    (parametrizations.weight_norm(nn.Conv2d(3, 5, 2)), {"kernel": (2, 2, 3, 5), "bias": (5,)}),
]


@pytest.mark.parametrize(("layer", "shapes"), WEIGHTED, ids=[str(layer) for layer, _ in WEIGHTED])
def test_weights_have_keras_names_and_shapes_and_go_back(layer: nn.Module, shapes: dict) -> None:
    found = weight_layout.arrays(layer)
    assert {name: array.shape for name, array in found.items()} == shapes
    numbers = {n: np.arange(a.size, dtype=np.float32).reshape(a.shape) for n, a in found.items()}
    weight_layout.load(layer, numbers)
    for name, array in weight_layout.arrays(layer).items():
        np.testing.assert_allclose(array, numbers[name], rtol=1e-6)


def test_a_convolutions_kernel_is_keras_by_its_elements() -> None:
    layer = nn.Conv2d(3, 5, (2, 4))
    kernel = weight_layout.arrays(layer)["kernel"]
    assert kernel[1, 3, 2, 4] == layer.weight[4, 2, 1, 3].item()


def test_the_gates_of_a_gru_are_keras_by_their_order() -> None:
    layer = nn.GRU(3, 1)
    for parameter in layer.parameters():  # reset, update, new
        parameter.data = torch.arange(parameter.numel()).reshape(parameter.shape).float()
    found = weight_layout.arrays(layer)
    np.testing.assert_array_equal(found["kernel"][0], [3, 0, 6])  # update, reset, new
    np.testing.assert_array_equal(found["bias"], [[1, 0, 2], [1, 0, 2]])


def test_the_heads_of_packed_attention_are_told_apart() -> None:
    layer = nn.MultiheadAttention(4, 2)
    assert layer.in_proj_weight is not None
    found = weight_layout.arrays(layer)
    # Of the values, the second head's first number, made of feature 3.
    assert found["value_kernel"][3, 1, 0] == layer.in_proj_weight[8 + 2, 3].item()
    assert found["output_kernel"][1, 0, 3] == layer.out_proj.weight[3, 2].item()


def test_two_biases_are_compared_as_their_sum_and_loaded_into_the_first() -> None:
    layer = nn.LSTM(2, 1)
    bias = weight_layout.weights(layer)["bias"]
    first, second = dict(layer.named_parameters())["bias_ih_l0"], dict(layer.named_parameters())["bias_hh_l0"]
    assert torch.equal(bias.value, first + second)
    bias.write(torch.arange(4.0))
    assert first.tolist() == [0, 1, 2, 3]
    assert second.tolist() == [0, 0, 0, 0]


def test_a_weight_that_cannot_take_any_value_says_so() -> None:
    layer = parametrizations.spectral_norm(nn.Linear(3, 3))
    assert weight_layout.weights(layer)["kernel"].is_computed
    assert not weight_layout.weights(nn.Linear(3, 3))["kernel"].is_computed
    with pytest.raises(ValueError, match="computed by _SpectralNorm"):
        weight_layout.load(layer, {"kernel": np.full((3, 3), 7.0), "bias": np.zeros(3)})


@pytest.mark.parametrize("layer", [nn.LSTM(2, 2, proj_size=1), nn.Bilinear(2, 3, 4)])
def test_unknown_weights_are_refused(layer: nn.Module) -> None:
    with pytest.raises(ValueError, match="no known counterpart"):
        weight_layout.arrays(layer)


def test_weights_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"its kernel is \(3, 5\), the other side's is \(5, 3\)"):
        weight_layout.load(nn.Linear(3, 5, bias=False), {"kernel": np.zeros((5, 3))})
    with pytest.raises(ValueError, match="bias, kernel"):
        weight_layout.load(nn.Linear(3, 5), {"kernel": np.zeros((3, 5))})


def test_rows_of_flattened_images_are_put_in_keras_order() -> None:
    rows = weight_layout.flat_rows((2, 3, 4), axis=1)  # channels, height, width
    images = np.arange(24).reshape(2, 3, 4)
    assert rows is not None
    np.testing.assert_array_equal(images.ravel()[rows], np.moveaxis(images, 0, -1).ravel())
    assert weight_layout.flat_rows((3, 4, 2), axis=-1) is None
    assert weight_layout.flat_rows((5, 1, 1), axis=1) is None
    layer = nn.Linear(24, 2)
    kernel = weight_layout.arrays(layer, rows)["kernel"]
    weight_layout.load(other := nn.Linear(24, 2), weight_layout.arrays(layer, rows), rows)
    assert torch.equal(other.weight, layer.weight)
    np.testing.assert_allclose(
        np.moveaxis(images, 0, -1).ravel() @ kernel, layer.weight.detach().numpy() @ images.ravel(), rtol=1e-5
    )


SETTINGS: list[tuple[nn.Module, str, dict[str, Any]]] = [
    (
        nn.Conv2d(3, 4, 3, stride=2, padding=1, dilation=2),
        "Conv2D",
        {"strides": [2, 2], "dilation": [2, 2], "groups": 1, "padding": [[1, 1], [1, 1]]},
    ),
    (
        nn.Conv2d(3, 4, (4, 3), padding="same"),
        "Conv2D",
        {"strides": [1, 1], "dilation": [1, 1], "groups": 1, "padding": [[1, 2], [1, 1]]},
    ),
    (nn.BatchNorm1d(3), "BatchNormalization", {"epsilon": 1e-5, "momentum": 0.9}),
    (nn.LeakyReLU(), "leaky_relu", {"negative_slope": 0.01}),
    (nn.Dropout2d(0.3), "SpatialDropout2D", {"rate": 0.3}),
    (nn.GELU("tanh"), "gelu", {"approximate": True}),
    (nn.AdaptiveAvgPool2d(1), "GlobalAveragePooling2D", {}),
    (nn.AdaptiveAvgPool2d(2), "AdaptiveAveragePooling2D", {"output_size": [2, 2]}),
    (
        nn.MaxPool2d(3, padding=1),
        "MaxPooling2D",
        {"pool_size": [3, 3], "strides": [3, 3], "padding": [[1, 1], [1, 1]]},
    ),
]


@pytest.mark.parametrize(("layer", "name", "found"), SETTINGS, ids=[str(one[0]) for one in SETTINGS])
def test_settings_are_in_keras_words(layer: nn.Module, name: str, found: dict[str, Any]) -> None:
    assert kind(layer) == name
    assert settings(layer) == found


class Functional(nn.Module):
    """Layers as functions, a layer that acts twice, and features in both orders."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)
        self.dense = nn.Linear(3 * 4 * 4 + 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(F.pad(x, (1, 1, 1, 1))))
        x = F.max_pool2d(F.leaky_relu(self.conv(x), 0.2), 2)
        x = torch.cat([x.flatten(1), x.mean((2, 3))], 1)
        return F.softmax(self.dense(F.dropout(x, 0.5, self.training)), 1)


def test_functions_and_second_calls_are_layers() -> None:
    model = Functional().eval()
    with torch.no_grad(), Recording(model) as recording:
        outputs = model(torch.rand(2, 3, 10, 10))
    seen = {one.name: one for one in recording.seen}
    assert list(seen) == [
        "conv",
        "relu#1",
        "conv@2",
        "leaky_relu#1",
        "MaxPooling2D#1",
        "Flatten#1",
        "GlobalAveragePooling2D#1",
        "Concatenate#1",
        "Dropout#1",
        "dense",
        "softmax#1",
    ]
    assert seen["conv"].settings["padding"] == [[1, 1], [1, 1]]
    assert seen["leaky_relu#1"].settings == {"negative_slope": 0.2}
    assert seen["Concatenate#1"].inputs == ("Flatten#1", "GlobalAveragePooling2D#1")
    outs = recording.outputs("eval")
    assert outs["eval/relu#1"].shape == (2, 10, 10, 3), "channels last"
    # Flattened features are in Keras's order, and the layer that takes them knows where each is.
    pooled = outs["eval/MaxPooling2D#1"]
    np.testing.assert_array_equal(outs["eval/Flatten#1"], pooled.reshape(2, -1))
    rows = recording.flattened["dense"]
    kernel = weight_layout.arrays(model.dense, rows)["kernel"]
    assert model.dense.bias is not None
    dense = outs["eval/Concatenate#1"] @ kernel + model.dense.bias.detach().numpy()
    np.testing.assert_allclose(outs["eval/dense"], dense, atol=1e-6)
    np.testing.assert_array_equal(recording.array(outputs), outputs.numpy())


class Own(nn.Module):
    """A block's own parameters, by every way in which functions take them."""

    def __init__(self) -> None:
        super().__init__()
        self.packed = nn.Parameter(torch.randn(8, 4))
        self.gamma = nn.Parameter(torch.rand(4, 1))
        self.table = nn.Parameter(torch.rand(1, 3, 4))
        self.strange = nn.Parameter(torch.rand(4))
        self.unused = nn.Parameter(torch.rand(4))

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.packed.chunk(2)
        x = F.linear(x, first) + self.table
        x = F.linear(x, second) * self.gamma.flatten()
        return x**self.strange


def test_parameters_of_a_block_are_followed_to_the_functions_that_take_them() -> None:
    model = Own().eval()
    with torch.no_grad(), Recording(model) as recording:
        model(torch.rand(2, 3, 4))
    found = {name: {n: w.value for n, w in weights.items()} for name, weights in recording.weights.items()}
    kinds = {one.name: one.kind for one in recording.seen}
    assert kinds == {"packed": "Dense", "table": "Embedding", "packed#2": "Dense", "gamma": "LayerScale"}
    assert torch.equal(found["packed"]["kernel"], model.packed[:4].T)
    assert torch.equal(found["packed#2"]["kernel"], model.packed[4:].T)
    assert torch.equal(found["table"]["embeddings"], model.table[0])
    assert torch.equal(found["gamma"]["gamma"], model.gamma[:, 0])
    assert recording.touched == {"packed", "gamma", "table", "strange"}
    recording.weights["packed#2"]["kernel"].write(torch.full((4, 4), 9.0))
    assert (model.packed[4:] == 9).all()
    assert not (model.packed[:4] == 9).any()


class Opened(nn.BatchNorm2d):
    """A BatchNorm with an activation in it."""

    def __init__(self) -> None:
        super().__init__(3)
        self.act = nn.SiLU()

    def forward(self, input: Tensor) -> Tensor:
        return self.act(F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias))


def test_a_subclass_with_a_forward_of_its_own_is_opened() -> None:
    model = nn.Sequential(Opened(), nn.BatchNorm2d(3)).eval()
    with torch.no_grad(), Recording(model) as recording:
        model(torch.rand(2, 3, 4, 4))
    assert [(one.name, one.kind) for one in recording.seen] == [
        ("0", "BatchNormalization"),
        ("0.act", "silu"),
        ("1", "BatchNormalization"),
    ]
    assert recording.seen[0].settings == {"epsilon": 1e-5, "momentum": 0.9}
    assert set(recording.weights["0"]) == {"gamma", "beta", "moving_mean", "moving_variance"}


def test_without_dropout_training_repeats_itself() -> None:
    model = nn.Sequential(nn.Linear(4, 50), nn.Dropout(0.5)).train()
    recurrent = nn.LSTM(4, 3, num_layers=2, dropout=0.5).train()
    with without_dropout(recurrent):
        assert torch.equal(recurrent(torch.ones(5, 2, 4))[0], recurrent(torch.ones(5, 2, 4))[0])
    assert recurrent.training
    inputs = torch.rand(3, 4)
    assert not torch.equal(model(inputs), model(inputs))
    with without_dropout(model):
        assert torch.equal(model(inputs), model[0](inputs))
