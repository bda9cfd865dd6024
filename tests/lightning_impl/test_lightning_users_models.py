"""Users' models as they come: compiled, lazy, of any inputs and outputs."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiment import cli
from experiment.protocols.trace import FURTHER_LOSSES, Request, TraceError
from lightning_impl.layers.registry import layer_type
from lightning_impl.semantics import losses
from lightning_impl.trace import command
from lightning_impl.trace.recorder import Recording
from lightning_impl.trace.signature import Inputs, inputs_of, outputs_of, scan
from lightning_impl.trace.target import built, users


@pytest.fixture
def request_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the request to trace a model that a function builds, on inputs."""
    module = types.ModuleType("users_module")
    monkeypatch.setitem(sys.modules, "users_module", module)

    def request(build: Any, inputs: np.ndarray) -> Request:
        module.build = build  # type: ignore[attr-defined]
        np.savez(tmp_path / "inputs.npz", inputs=inputs)
        file = str(tmp_path / "inputs.npz")
        return Request(cli.experiment_from({}), steps=2, build="users_module:build", inputs_file=file)

    return request


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def test_a_compiled_model_is_seen_through(request_of: Any) -> None:
    subject = users(request_of(lambda: torch.compile(network()), np.ones((4, 3), np.float32)))
    assert sorted(subject.weights) == ["0", "2"]


def test_a_lazy_model_is_run_before_it_is_read(request_of: Any) -> None:
    build = lambda: nn.Sequential(nn.LazyLinear(4), nn.LazyLinear(2))  # noqa: E731
    subject = users(request_of(build, np.ones((4, 3), np.float32)))
    assert {name: weight["kernel"].value.shape for name, weight in subject.weights.items()} == {
        "0": (3, 4),
        "1": (4, 2),
    }


def test_a_script_module_is_refused(request_of: Any) -> None:
    request_of(lambda: torch.jit.script(network()), np.ones((4, 3), np.float32))
    with pytest.raises(TraceError, match="gives a ScriptModule: give the"):
        built("users_module:build")


def test_tensors_are_found_in_an_object_that_holds_them() -> None:
    logits, hidden = torch.ones(2), torch.zeros(3)
    found = outputs_of(types.SimpleNamespace(logits=logits, loss=None, hidden=(hidden,)))
    assert [id(tensor) for tensor in found] == [id(logits), id(hidden)]


class Turned(nn.Module):
    """Takes a sequence channels last, and turns it round for its convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(5, 6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.conv(F.pad(inputs.transpose(1, 2), (2, 0))).amax(-1)


@pytest.mark.parametrize(
    ("build", "shape"),
    [(Turned, (4, 7, 5)), (lambda: nn.Conv1d(5, 6, 3), (4, 5, 7))],
    ids=["by the model itself", "before it"],
)
def test_a_sequence_comes_as_the_model_takes_it(build: Any, shape: tuple[int, ...], request_of: Any) -> None:
    request = request_of(build, np.ones((4, 7, 5), np.float32))
    inputs, _, _ = inputs_of(request, build().to(torch.get_default_dtype()))
    assert inputs.tensors[0].shape == shape


def test_a_sequence_as_long_as_wide_is_not_turned_twice(request_of: Any) -> None:
    request = request_of(Turned, np.ones((4, 5, 5), np.float32))
    inputs, _, _ = inputs_of(request, Turned().to(torch.get_default_dtype()))
    assert 3 not in inputs.channels


class Frames(nn.Module):
    """Takes a sequence of images (N, T, C, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)

    def forward(self, frames: Tensor) -> Tensor:
        return self.conv(frames.flatten(0, 1)).mean((2, 3)).unflatten(0, frames.shape[:2])


def test_each_image_of_a_sequence_comes_channels_first_where_the_model_takes_it_so(request_of: Any) -> None:
    request = request_of(Frames, np.ones((4, 5, 7, 6, 2), np.float32))
    inputs, _, outputs = inputs_of(request, Frames().to(torch.get_default_dtype()))
    assert inputs.tensors[0].shape == (4, 5, 2, 7, 6)
    assert outputs.shape == (2, 5, 3)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.embedding(tokens).mean(1) @ self.embedding.weight.T


def test_weights_that_another_layer_has_too_are_no_layers_of_their_own() -> None:
    recording, _ = scan(Tied(), Inputs((torch.tensor([[1, 2], [3, 4]]),)))
    assert [seen.name for seen in recording.seen if seen.name in recording.weights] == ["embedding"]
    assert [(seen.name, seen.kind) for seen in recording.seen][-1] == ("embedding@2", "Embedding")
    kernel = nn.Linear(4, 4)

    class Sliced(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = kernel

        def forward(self, inputs: Tensor) -> Tensor:
            first, second = self.linear.weight.chunk(2)
            return F.linear(inputs, first) * F.linear(inputs, second)

    with torch.no_grad(), Recording(Sliced()) as sliced:
        sliced.model(torch.ones(2, 4))
    assert sorted(sliced.weights) == ["linear", "linear#2"]  # other elements: layers of their own


def test_a_module_with_all_weights_of_another_is_a_further_call_of_it() -> None:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight, second.bias = first.weight, first.bias
    recording, _ = scan(nn.Sequential(first, nn.ReLU(), second), Inputs((torch.ones(2, 4),)))
    assert [seen.name for seen in recording.seen] == ["0", "1", "0@2"]
    assert [name for name, weights in recording.weights.items() if weights] == ["0"]


class Compared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        alike = F.cosine_similarity(self.one(inputs), self.other(inputs).expand_as(self.one(inputs)))
        return F.relu(alike)


def test_a_function_of_several_layers_keeps_them_all_as_sources() -> None:
    recording, _ = scan(Compared(), Inputs((torch.ones(2, 4),)))
    by_name = {seen.name: seen for seen in recording.seen}
    assert by_name["CosineSimilarity#1"].inputs == ("one", "other")
    assert by_name["CosineSimilarity#1"].output is None
    assert by_name["relu#1"].inputs == ("CosineSimilarity#1",)
    assert "ExpandAs#1" not in by_name  # takes a form of its second tensor, and no numbers


class Counted(nn.Module):
    """Averages what is there, as a pooling does that does not count its padding."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        x = self.conv(inputs)
        return F.relu(F.avg_pool2d(x, 2) / F.avg_pool2d(torch.ones_like(x), 2))


def test_what_takes_the_form_of_a_tensor_alone_is_no_source() -> None:
    recording, _ = scan(Counted(), Inputs((torch.ones(2, 3, 8, 8),)))
    last = recording.seen[-1]
    assert (last.kind, last.inputs) == ("relu", ("AveragePooling2D#1",))


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 3, batch_first=True)

    def forward(self, inputs: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(
            inputs, torch.tensor([2, 5]), batch_first=True, enforce_sorted=False
        )
        return self.lstm(packed)[1][0][-1]


def test_the_steps_of_packed_sequences_are_known() -> None:
    recording, _ = scan(Packed(), Inputs((torch.ones(2, 5, 4),)))
    np.testing.assert_array_equal(recording.masks["lstm"], [[1, 1, 0, 0, 0], [1, 1, 1, 1, 1]])


@pytest.mark.parametrize(
    ("mode", "kind"), [("mean", "GlobalAveragePooling1D"), ("max", "GlobalMaxPooling1D")]
)
def test_a_bag_of_embeddings_is_two_layers(mode: str, kind: str) -> None:
    bag = nn.EmbeddingBag(7, 4, mode=mode)
    recording, _ = scan(bag, Inputs((torch.tensor([[1, 2], [3, 4]]),)))
    assert [(seen.kind, seen.inputs) for seen in recording.seen] == [
        ("Embedding", ("",)),
        (kind, (recording.seen[0].name,)),
    ]
    entry = layer_type(bag)
    assert entry is not None
    assert list(entry.before(bag)) == ["embedding"]


def test_a_tensor_that_is_held_beside_one_that_trains_is_no_parameter(request_of: Any) -> None:
    from lightning_impl.semantics.recurrent import GRU

    for reset_after, count in ((True, 3 * (2 + 3) * 3 + 2 * 9), (False, 3 * (2 + 3) * 3 + 9)):
        build = lambda after=reset_after: GRU(2, 3, reset_after=after)  # noqa: E731
        subject = users(request_of(build, np.ones((4, 6, 2), np.float32)))
        assert command.count_parameters(subject)["total"] == count


def test_every_further_loss_is_there() -> None:
    outputs, targets = torch.full((2, 3), 0.3), torch.tensor([[1.0, 0, 0], [0, 0, 1.0]])
    for name in FURTHER_LOSSES:
        numbers = name == "categorical_generalized_cross_entropy"
        loss = getattr(losses, name)(outputs, torch.tensor([0, 2]) if numbers else targets)
        assert loss.isfinite().all(), name
        assert loss.shape == ((2,) if name not in ("dice", "tversky") else ()), name
