"""A user's model's inputs and outputs, of any number and nesting."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

from experiment.protocols.faults import told
from experiment.protocols.trace import Request, TraceError
from lightning_impl.trace.recorder import IMAGES, Recording

FRAMES = {4: 1, 5: 2}  # images of a sequence, (N, T, C, H, W)
CASTS = ("long", "int", "to", "type", "contiguous", "clone", "detach")


@dataclass(frozen=True)
class Inputs:
    """What a model's forward takes, batch first.

    channels: the axis of the channels by a tensor's number of axes, where it is not the last.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    channels: Mapping[int, int] = field(default_factory=lambda: IMAGES)

    def __call__(self, model: nn.Module) -> Any:
        return model(*self.args, **self.kwargs)

    @property
    def tensors(self) -> list[Tensor]:
        return list(_tensors([*self.args, *self.kwargs.values()]))

    def part(self, part: slice) -> Inputs:
        """Some of the batch."""
        return self.each(lambda tensor: tensor[part])

    def each(self, function: Callable[[Tensor], Tensor]) -> Inputs:
        """The same with every tensor taken to another."""
        return Inputs(
            tuple(_each(function, value) for value in self.args),
            {name: _each(function, value) for name, value in self.kwargs.items()},
            self.channels,
        )


def scan(model: nn.Module, inputs: Inputs) -> tuple[Recording, Any]:
    """What a Recording of two samples in evaluation says, and the outputs."""
    few = inputs.part(slice(0, 2))
    if any(is_lazy(parameter) for parameter in model.parameters()):
        with torch.no_grad():
            few(model.eval())
    with (
        torch.no_grad(),
        parametrize.cached(),
        Recording(model, channels=inputs.channels) as recording,
    ):
        outputs = few(model.eval())
    return recording, outputs


def inputs_of(request: Request, model: nn.Module) -> tuple[Inputs, Recording, Any]:
    """The request's inputs as the model takes them, and what `scan` says of the model with them.

    Raises TraceError where it takes them in no way.

    Images, and what has more axes of space, come channels first, or each image of a sequence does where the
    model takes nothing else. Sequences come as Keras's do, channels last, unless the model's first layer
    takes them channels first. Several go to the arguments of forward of the same names, where it has these,
    else in their order. Whole numbers go to an Embedding.
    """
    arrays = request.inputs()
    takes_tokens = any(isinstance(module, nn.Embedding | nn.EmbeddingBag) for module in model.modules())
    failures: list[tuple[Inputs, Exception]] = []
    taken: list[tuple[Inputs, Recording, Any]] = []
    for channels in (IMAGES, {3: 1, **IMAGES}, {}, FRAMES):
        inputs = _arranged(arrays, model, channels)
        try:
            if request.drawn and takes_tokens:
                inputs = _with_tokens(inputs, model)
            recording, outputs = scan(model, inputs)
        except TraceError:
            raise
        except Exception as error:  # whatever the user's model raises
            failures.append((inputs, error))
            continue
        if 3 in channels or not recording.takes_channels_first:
            return inputs, recording, outputs
        taken.append((inputs, recording, outputs))
    if taken:
        return taken[0]
    inputs, error = failures[0]
    shapes = ", ".join(str(tuple(tensor.shape)) for tensor in inputs.tensors)
    raise TraceError(f"{request.build}: fails on inputs {shapes}: {told(error)}") from error


def to_float(inputs: np.ndarray) -> Tensor:
    """An array as a tensor, numbers with a fraction in the default float type."""
    tensor = torch.from_numpy(np.ascontiguousarray(inputs))
    return tensor.to(torch.get_default_dtype()) if tensor.is_floating_point() else tensor


def to_torch(inputs: np.ndarray) -> Tensor:
    """As `to_float`, images and what has more axes of space channels first."""
    return _moved(to_float(inputs), IMAGES)


def _moved(tensor: Tensor, channels: Mapping[int, int]) -> Tensor:
    return tensor.movedim(-1, channels.get(tensor.dim(), -1))


def _arranged(arrays: Mapping[str, np.ndarray], model: nn.Module, channels: Mapping[int, int]) -> Inputs:
    """Arrays as the arguments of a model's forward."""
    values: dict[str, Tensor] = {}
    for name, array in arrays.items():
        tensor = to_float(array)
        values[name] = _moved(tensor, channels) if tensor.is_floating_point() else tensor
    parameters = inspect.signature(model.forward).parameters.values()
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    variadic = len(named) < len(parameters)
    if len(values) > 1 and values.keys() <= {p.name for p in named}:
        return Inputs((), values, channels)
    if len(values) > 1 and not variadic and len([p for p in named if p.default is p.empty]) == 1:
        unnamed = all(name.startswith(("arr_", "input_")) for name in values)
        return Inputs((list(values.values()) if unnamed else dict(values),), {}, channels)
    return Inputs(tuple(values.values()), {}, channels)


# === Tokens ===


class _Embedded(TorchFunctionMode):
    """While it is entered, `sizes` takes up how many tokens the Embeddings know that inputs go to."""

    def __init__(self, tensors: list[Tensor]) -> None:
        super().__init__()
        self._places = {id(tensor): place for place, tensor in enumerate(tensors)}
        self._alive: list[Tensor] = []
        self.sizes: dict[int, int] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        first = args[0] if args else kwargs.get("input")
        place = self._places.get(id(first))
        if name == "embedding" and place is not None:
            table = args[1] if len(args) > 1 else kwargs["weight"]
            self.sizes[place] = len(table)
            args, kwargs = (torch.zeros_like(first, dtype=torch.long), table), {}
        result = func(*args, **kwargs)
        if name in CASTS and place is not None:
            self._places[id(result)] = place
            self._alive.append(result)
        return result


def _with_tokens(inputs: Inputs, model: nn.Module) -> Inputs:
    """The inputs with whole numbers, from those drawn from 0 to 1, for what goes to an Embedding."""
    few = inputs.part(slice(0, 2))
    with torch.no_grad(), _Embedded(few.tensors) as embedded:
        few(model.eval())
    sizes = iter([embedded.sizes.get(place) for place in range(len(few.tensors))])

    def tokens(tensor: Tensor) -> Tensor:
        size = next(sizes)
        return tensor if size is None else (tensor * size).floor().long()

    return inputs.each(tokens)


# === Outputs ===


def outputs_of(outputs: Any) -> list[Tensor]:
    """Every tensor that a model gives; a dictionary's come in the order of its keys."""
    return list(_tensors(outputs))


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, Mapping):
        for key in sorted(values):
            yield from _tensors(values[key])
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)
    elif hasattr(values, "__dict__") and not isinstance(values, type | nn.Module):
        yield from _tensors(list(vars(values).values()))  # an object that holds them


def _each(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _each(function, inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_each(function, inner) for inner in value]
    return function(value) if isinstance(value, Tensor) else value
