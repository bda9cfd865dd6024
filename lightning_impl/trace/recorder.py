"""Records what every layer puts out while a model runs, calls of torch's functions among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.rnn import PackedSequence
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from experiment.protocols.trace import are_probabilities
from lightning_impl.layers.layer_type import Call, LayerType, Pixels, Weights
from lightning_impl.layers.registry import (
    is_whole,
    kind,
    kind_of_function,
    layer_type,
    of_function,
    of_parameter,
    settings,
    with_padding,
)
from lightning_impl.layers.shape import crops
from lightning_impl.layers.weight_layout import flat_rows

DROPOUTS = (
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "alpha_dropout",
    "feature_alpha_dropout",
    "stochastic_depth",
)
PERMUTATIONS = ("permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims")
ENDINGS = ("softmax", "sigmoid", "log_softmax")
SHAPED = ("expand_as", "view_as", "reshape_as", "type_as")  # take of a second tensor its form alone
FORMED = (  # of a tensor's form alone: nothing of its numbers goes on
    *(f"{name}_like" for name in ("ones", "zeros", "full", "empty", "rand", "randn", "bernoulli")),
    *(f"new_{name}" for name in ("ones", "zeros", "full", "empty", "tensor")),
)
IMAGES: Mapping[int, int] = {4: 1, 5: 1}  # the axis of the channels, by the number of axes


@dataclass(frozen=True)
class Seen:
    """One layer's output, channels last, as float or integer (N, ...).

    output: None for a part of a layer whose output only the layer itself sees. inputs: the layers that its
    inputs came from, "" for the model's own. settings: as `registry.settings`.
    """

    name: str
    kind: str
    output: np.ndarray | None
    inputs: tuple[str, ...]
    settings: dict[str, Any]


@dataclass(frozen=True)
class Origin:
    """Where a tensor that no input went into comes from: a parameter or a buffer, and what was done to it.

    name: its own, from the model. made: takes the tensor, or its gradient, to what became of it.
    """

    name: str
    made: Callable[[Tensor], Tensor] = lambda tensor: tensor


@dataclass(frozen=True)
class Mark:
    """What is known of a tensor.

    source: the layer that it comes from. axis: where its channels are; -1 also stands for the last of many.
    rows: of (N, F) from images, the `flat_rows` that order its features as Keras does. padded: zeros
    that were just added. origin: of what is made of one parameter or buffer alone. live: of what an input
    went into. formed: an input gave its form alone.
    """

    source: str = ""
    axis: int = -1
    rows: np.ndarray | None = None
    padded: Pixels = ()
    origin: Origin | None = None
    live: bool = False
    formed: bool = False


class Recording(TorchFunctionMode):
    """While it is entered, `seen` takes up every layer's output as the model runs.

    A layer is a module that a table has, unless its class has a forward of its own: such a one is opened as
    any module made of others is. A layer is also a function, outside of those modules, that stands for one;
    with a parameter it goes by that parameter's module, without by `relu#1`, `relu#2`. A second call goes by
    `name@2`.
    aligned: the model is written to Keras's names and orders. Its layers, the modules without others in them,
    go by the last part of their name, and no flattening is reordered.
    flattened: of each layer between a channel-first flattening and the linear layer that ends it (included),
    the `flat_rows` that order its features as Keras does. weights: of each layer that has any. touched: the
    names of all parameters that a function was called on. steps: of recurrent layers, what each step gives.
    channels: the axis of an input's channels by its number of axes, where it is not the last.
    masks: of the layers that were given packed sequences, which steps (N, T) they took.
    takes_channels_first: a layer takes an input of three axes so.
    """

    def __init__(self, model: nn.Module, aligned: bool = False, channels: Mapping[int, int] = IMAGES) -> None:
        super().__init__()
        self.model, self.aligned, self.channels = model, aligned, channels
        self.takes_channels_first = False
        self.seen: list[Seen] = []
        self.flattened: dict[str, np.ndarray] = {}
        self.weights: dict[str, Weights] = {}
        self.touched: set[str] = set()
        self.steps: dict[str, np.ndarray] = {}
        self.masks: dict[str, np.ndarray] = {}
        self._held: dict[str, set[int]] = {}  # the parameters of each module that was called
        self._marks = WeakTensorKeyDictionary()
        self._calls: Counter[str] = Counter()
        self._handles: list[Any] = []
        self._inside = 0

    def __enter__(self) -> Recording:
        for name, tensor in (*self.model.named_parameters(), *self.model.named_buffers()):
            self._marks[tensor] = Mark(origin=Origin(name))
        self._handles.append(self.model.register_forward_pre_hook(self._begin, with_kwargs=True))
        for name, module in self.model.named_modules():
            if self._is_layer(module):
                self._handles.append(module.register_forward_pre_hook(self._before))
                self._handles.append(module.register_forward_hook(self._after(name), with_kwargs=True))
            elif parametrize.is_parametrized(module):
                self._handles.append(module.register_forward_pre_hook(self._computed(name)))
        return super().__enter__()

    def __exit__(self, *exception: Any) -> None:
        for handle in self._handles:
            handle.remove()
        super().__exit__(*exception)

    def outputs(self, stage: str) -> dict[str, np.ndarray]:
        """Every output that was recorded, as `stage/layer`."""
        return {f"{stage}/{one.name}": one.output for one in self.seen if one.output is not None}

    def array(self, values: Tensor) -> np.ndarray:
        """What came out of the model, channels last."""
        return self._canonical(values, self._mark(values))

    def order_of(self, values: Tensor) -> Callable[[Tensor], Tensor]:
        """What puts anything of such a tensor's shape in Keras's order: channels last, features by rows."""
        mark = self._mark(values)
        return lambda tensor: in_keras_order(tensor, mark)

    def own_order(self, values: Tensor) -> Callable[[Tensor], Tensor]:
        """A function that brings targets like its outputs to the model's own order; others stay."""
        mark = self._mark(values)
        dims, size = values.dim(), values.shape[mark.axis]

        def own(targets: Tensor) -> Tensor:
            alike = targets.dim() == dims > 2 and targets.shape[-1] == size
            return targets.movedim(-1, mark.axis) if alike else targets

        return own

    def ending_of(self, output: Tensor) -> str:
        """The activation that gives an output, softmax, sigmoid or none; else what its numbers say."""
        source = self._mark(output).source
        last = next((one.kind for one in reversed(self.seen) if one.name == source), "")
        if last in ENDINGS:
            return last
        return "softmax" if are_probabilities(self.array(output)) else ""

    def _is_layer(self, module: nn.Module) -> bool:
        if self.aligned:
            return not any(True for _ in module.children())
        return is_whole(module)

    # === Functions ===

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = list(_tensors((args, kwargs)))
        marks = [self._mark(tensor) for tensor in given]
        shapes = [tuple(tensor.shape) for tensor in given]
        result = func(*args, **kwargs)
        self.touched.update(mark.origin.name for mark in marks if mark.origin is not None)
        outputs = [o for o in (result if isinstance(result, tuple | list) else (result,)) if _is_tensor(o)]
        for place, output in enumerate(outputs if given else ()):
            if any(mark.live for mark in marks):
                self._marks[output] = self._passed_on(func, args, kwargs, marks, shapes, output)
            else:
                self._derive(func, args, kwargs, given, marks, output, place if len(outputs) > 1 else None)
        if self._inside == 0 and any(mark.live for mark in marks) and outputs:
            self._take_up(func, args, kwargs, given, marks, shapes, outputs)
        return result

    def _take_up(
        self,
        func: Any,
        args: Any,
        kwargs: Any,
        given: list[Tensor],
        marks: list[Mark],
        shapes: list[tuple],
        outputs: list[Tensor],
    ) -> None:
        """Keep what a function gives where it is a layer."""
        main = _main(marks)
        if _name(func) in ("__getitem__", "pad", "narrow"):
            self._crop(marks[main].source, outputs[0])
        native = getattr(func, "__module__", "") != "torch.nn.functional"
        call = Call(_name(func), args, kwargs, marks[main].axis, shapes, tuple(outputs[0].shape), native)
        entry = of_function(call)
        live = [mark for mark in marks if mark.live]
        if entry is not None and entry.merges and len(live) < len(marks):
            entry = None  # with a constant or a parameter
        weights: Weights = {}
        name = ""
        if entry is not None:
            name, weights = self._weights_of(call, entry)
            found = with_padding(entry.of_call(call), marks[main].padded)
        elif (own := next((m for m in marks if _is_parameter(m, self.model)), None)) is not None:
            entry, name, weights = self._own_parameter(call, own, given[marks.index(own)])
            found = {}
        if entry is None:
            self._join(call, live, outputs[0])
            return
        tied = self._is_tied(name, weights, entry)
        if tied:  # a further call of the layer whose weights it uses
            weights = self.weights[name]
        owner = self._owner(name)
        if owner is not None and layer_type(owner) is entry:
            found = {**entry.settings(owner), **found}
        which = self._kind_of(name) if tied else entry.name(call)
        if not name:
            self._calls[f"{which}#"] += 1
            name = f"{which}#{self._calls[f'{which}#']}"
        else:
            name = self._named(name, weights)
        if (rows := marks[main].rows) is not None:
            self.flattened[name] = rows
        self._note_channels(entry, marks[main], given[main])
        self._set_channels(outputs[0], entry)
        hidden = entry.output(owner, outputs[0]) is None
        self._keep(name, which, outputs[0], [mark.source for mark in live], found, hidden)

    def _join(self, call: Call, live: list[Mark], output: Tensor) -> None:
        """Remember which layers come together in a function that is none, without what it gives."""
        sources = list(dict.fromkeys(mark.source for mark in live if not mark.formed))
        if len(sources) > 1 and call.name not in SHAPED:
            which = kind_of_function(call.name)
            self._calls[f"{which}#"] += 1
            self._keep(f"{which}#{self._calls[f'{which}#']}", which, output, sources, {}, hidden=True)

    def _crop(self, source: str, output: Tensor) -> None:
        """What is cut off what a transposed convolution gives is a part of it, as in Keras's padding."""
        place = next((i for i, one in enumerate(self.seen) if one.name == source), None)
        if place is None or not self.seen[place].kind.endswith("Transpose"):
            return
        before, array = self.seen[place].output, self.array(output)
        if before is None or before.ndim != array.ndim or before.shape == array.shape:
            return
        if all(now <= then for now, then in zip(array.shape, before.shape, strict=True)):
            cut = {name: value for name, value in self.seen[place].settings.items() if name != "cropping"}
            self.seen[place] = replace(self.seen[place], output=array, settings=cut)

    def _weights_of(self, call: Call, entry: LayerType) -> tuple[str, Weights]:
        """The layer's name and weights of a function that was given parameters; both empty without any."""
        arguments = {
            name: tensor
            for name, place in entry.positions(call).items()
            if isinstance(tensor := call.argument(place, name), Tensor)
        }
        origins = {name: self._mark(tensor).origin for name, tensor in arguments.items()}
        known = {name: origin for name, origin in origins.items() if origin is not None}
        if not any(isinstance(self._tensor(o.name), nn.Parameter) for o in known.values()):
            return "", {}
        weights = entry.weights(_Arguments(arguments))
        found = {
            name: replace(
                weight,
                module=self.model,
                names=tuple(known[n].name for n in weight.names),
                view=_after(weight.view, [known[n].made for n in weight.names]),
            )
            for name, weight in weights.items()
            if all(n in known for n in weight.names)
        }
        first = next(known[n] for weight in weights.values() for n in weight.names if n in known)
        return _layer_name(first.name), found

    def _own_parameter(self, call: Call, mark: Mark, tensor: Tensor) -> tuple[LayerType | None, str, Weights]:
        """A layer that is no more than a parameter of a block: a scale, an embedding of positions."""
        assert mark.origin is not None
        entry = of_parameter(call)
        if entry is None:
            return None, "", {}
        weights = entry.weights(_Arguments({"weight": tensor}))
        origin = mark.origin
        made = {
            name: replace(
                weight, module=self.model, names=(origin.name,), view=_after(weight.view, [origin.made])
            )
            for name, weight in weights.items()
        }
        return entry, _layer_name(origin.name), made

    def _named(self, name: str, weights: Weights) -> str:
        """The name of a call: `name@2` for a further one, `name#2` for other elements of one parameter."""
        own = name
        for number in range(2, 1000):
            if own not in self.weights or _same(self.weights[own], weights):
                break
            own = f"{name}#{number}"
        self.weights.setdefault(own, weights)
        self._calls[own] += 1
        return own if self._calls[own] == 1 else f"{own}@{self._calls[own]}"

    def _is_tied(self, name: str, weights: Weights, entry: LayerType) -> bool:
        """Whether a function uses the very elements that a module of another kind has as its weights."""
        module, held = self._owner(name), self.weights.get(name, {})
        if module is None or layer_type(module) in (None, entry) or not weights:
            return False
        whole = {(id(weight.parameters[0]), weight.value.numel()) for weight in held.values()}
        return all((id(weight.parameters[0]), weight.value.numel()) in whole for weight in weights.values())

    def _holder(self, module: nn.Module, entry: LayerType | None) -> str | None:
        """The layer called before that holds all weights of a module, which is a further call of it."""
        parameters = {id(parameter) for parameter in module.parameters()}
        if entry is None or not parameters:
            return None
        return next((name for name, held in self._held.items() if parameters <= held), None)

    def _kind_of(self, name: str) -> str:
        return next(one.kind for one in self.seen if one.name == name)

    def _owner(self, name: str) -> nn.Module | None:
        try:
            return self.model.get_submodule(name) if name else None
        except AttributeError:
            return None

    def _tensor(self, name: str) -> Tensor:
        owner, _, last = name.rpartition(".")
        return getattr(self.model.get_submodule(owner), last)

    # === What is known of tensors ===

    def _mark(self, tensor: Tensor) -> Mark:
        return self._marks[tensor] if tensor in self._marks else Mark()

    def _derive(
        self,
        func: Any,
        args: Any,
        kwargs: Any,
        given: list[Tensor],
        marks: list[Mark],
        output: Tensor,
        place: int | None,
    ) -> None:
        """Follow what is made of one parameter alone."""
        known = [mark.origin for mark in marks if mark.origin is not None]
        if len(known) != 1 or output is given[0]:
            return
        before, moved = known[0], marks.index(next(m for m in marks if m.origin is not None))
        tensor = given[moved]

        def made(value: Tensor) -> Tensor:
            new = before.made(value)
            result = func(*_with(args, tensor, new), **_with(kwargs, tensor, new))
            return result if place is None else result[place]

        self._marks[output] = Mark(origin=Origin(before.name, made))

    def _passed_on(
        self, func: Any, args: Any, kwargs: Any, marks: list[Mark], shapes: list[tuple], output: Tensor
    ) -> Mark:
        """What a function leaves known: its main input's mark, where it did not move axes or features."""
        main = _main(marks)
        name, mark, before, after = _name(func), marks[main], shapes[main], tuple(output.shape)
        axis, rows = mark.axis, None
        if name in PERMUTATIONS and len(before) > 2:
            # The same done to nothing, each of its axes of another size, shows where the channels went.
            sizes = (2, 3, 5, 7, 11, 13)[: len(before)]
            moved = func(torch.empty(sizes, device="meta"), *args[1:], **kwargs)
            axis = tuple(moved.shape).index(sizes[axis])
        elif len(after) != len(before) and axis >= 0 and before[: axis + 1] != after[: axis + 1]:
            axis = -1
        if axis == len(after) - 1:
            axis = -1
        if len(after) == 2 and not self.aligned:
            if len(before) > 2 and after[0] == before[0] and np.prod(before) == np.prod(after):
                rows = flat_rows(before[1:], mark.axis)
            elif name in ("cat", "concat", "concatenate") and any(m.rows is not None for m in marks):
                rows = _joined([m.rows for m in marks], [shape[1] for shape in shapes])
            elif name not in ("linear", "matmul", "mm") and before == after:
                rows = mark.rows
        padded = _padding(args, kwargs) if name == "pad" else ()
        formed = name in FORMED or all(mark.formed for mark in marks if mark.live)
        return Mark(mark.source, axis, rows, padded, live=True, formed=formed)

    def _note_channels(self, entry: LayerType | None, mark: Mark, tensor: Tensor) -> None:
        moved = mark.axis == 1  # by the model itself
        if entry is not None and entry.channels == 1 and tensor.dim() == 3 and not (mark.source or moved):
            self.takes_channels_first = True

    def _set_channels(self, output: Tensor, entry: LayerType | None) -> None:
        mark = self._mark(output)
        if entry is not None and entry.channels is not None and output.dim() > 1:
            rows = None if entry.channels == -1 else mark.rows
            axis = -1 if entry.channels == output.dim() - 1 else entry.channels
            mark = replace(mark, axis=axis, rows=rows)
        self._marks[output] = replace(mark, live=True)

    # === Modules ===

    def _begin(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        for tensor in _tensors((args, kwargs)):
            if not self._mark(tensor).live:
                self._marks[tensor] = Mark(axis=self.channels.get(tensor.dim(), -1), live=True)

    def _computed(self, name: str) -> Callable:
        def hook(module: nn.Module, inputs: tuple) -> None:
            for tensor in module.parametrizations:  # type: ignore[union-attr]
                self._marks[getattr(module, tensor)] = Mark(origin=Origin(f"{name}.{tensor}"))

        return hook

    def _before(self, module: nn.Module, inputs: tuple) -> None:
        self._inside += 1

    def _after(self, name: str) -> Callable:
        def hook(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
            if self._inside == 1:
                self._take_up_module(name or type(module).__name__.lower(), module, (args, kwargs), output)
            self._inside -= 1

        return hook

    def _take_up_module(self, name: str, module: nn.Module, given: Any, output: Any) -> None:
        entry, tensors = layer_type(module), list(_tensors(output))
        if not tensors:
            return
        marks = [self._mark(tensor) for tensor in _tensors(given)] or [Mark()]
        inputs = [mark.source for mark in marks if mark.live] or [""]
        padded = marks[0].padded
        own = name.rsplit(".", 1)[-1] if self.aligned else self._holder(module, entry) or name
        if entry is not None and entry.looped and self._calls[own]:
            self._again(own, tensors)
            return
        self._calls[own] += 1
        called = own if self._calls[own] == 1 else f"{own}@{self._calls[own]}"
        if marks[0].rows is not None:
            self.flattened[own] = marks[0].rows
        self._note_channels(entry, marks[0], next(_tensors(given), tensors[0]))
        if entry is not None:
            self.touched.update(f"{name}.{parameter}" for parameter, _ in module.named_parameters())
            self.weights.setdefault(own, entry.weights(module))
            self._held.setdefault(own, {id(parameter) for parameter in module.parameters()})
            for part, of in entry.before(module).items():
                self.weights.setdefault(f"{own}/{part}", of.weights(module))
                found = of.settings(module)
                self.seen.append(Seen(f"{called}/{part}", of.name(module), None, tuple(inputs), found))
                inputs = inputs if entry.beside else [f"{called}/{part}"]
        if (lengths := _lengths(given)) is not None:
            self.masks[called] = np.arange(lengths.max()) < lengths[:, None]
        if crops(module):
            self._crop(marks[0].source, tensors[0])
        main = tensors[0] if entry is None else entry.output(module, output)
        for tensor in (*tensors, *([] if main is None else [main])):
            self._set_channels(tensor, entry)
            self._marks[tensor] = replace(self._mark(tensor), source=called)
        if entry is not None and entry.steps is not None and tensors[0].dim() == 3:
            self.steps[called] = entry.steps(module, output).detach().cpu().numpy().copy()
        shown = tensors[0] if main is None else main
        which = kind(module) if own == name or self.aligned else self._kind_of(own)
        self._keep(called, which, shown, inputs, settings(module, padded), main is None)

    def _again(self, name: str, tensors: list[Tensor]) -> None:
        """A further call of a layer that a loop calls: what it gives takes the place of what it gave."""
        place = next(i for i, one in enumerate(self.seen) if one.name == name)
        for tensor in tensors:
            self._marks[tensor] = Mark(source=name, live=True)
        self.seen[place] = replace(self.seen[place], output=self.array(tensors[0]))

    def _keep(
        self,
        name: str,
        which: str,
        output: Tensor,
        inputs: Sequence[str],
        found: dict[str, Any],
        hidden: bool = False,
    ) -> None:
        array = None
        if not hidden:
            array = self._canonical(output, self._mark(output))
            if which.startswith("Global"):
                array = array.reshape(array.shape[0], -1)  # (N, C, 1, 1) or (N, C)
        self._marks[output] = replace(self._mark(output), source=name, live=True)
        self.seen.append(Seen(name, which, array, tuple(inputs), found))

    def _canonical(self, values: Tensor, mark: Mark) -> np.ndarray:
        return in_keras_order(values.detach(), mark).cpu().numpy().copy()


def in_keras_order(values: Tensor, mark: Mark) -> Tensor:
    """Values (N, ...) channels last, and flattened features in Keras's order."""
    if values.dim() > 2:
        return values.movedim(mark.axis, -1)
    return values if mark.rows is None else values[:, torch.from_numpy(mark.rows)]


class _Arguments:
    """The tensors that a function was given, as the attributes of a module that has them."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.__dict__ = dict(tensors)


class _WithoutDropout(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _name(func) in DROPOUTS:
            return args[0] if args else kwargs["input"]
        if _name(func) == "scaled_dot_product_attention":
            kwargs = {**kwargs, "dropout_p": 0.0}
            args = (*args[:4], *args[5:]) if len(args) < 5 else (*args[:4], 0.0, *args[5:])
            if len(args) > 4:
                del kwargs["dropout_p"]
        return func(*args, **kwargs)


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Every layer that draws in training is off, so that two frameworks' own draws do not part them."""
    random = [m for m in model.modules() if (entry := layer_type(m)) is not None and entry.random]
    training: dict[int, bool] = {}

    def before(module: nn.Module, inputs: tuple) -> None:
        training[id(module)] = module.training
        module.training = False

    def after(module: nn.Module, inputs: tuple, output: Any) -> None:
        module.training = training[id(module)]

    handles = [module.register_forward_pre_hook(before, prepend=True) for module in random]
    handles += [module.register_forward_hook(after, always_call=True) for module in random]
    try:
        with _WithoutDropout():
            yield
    finally:
        for handle in handles:
            handle.remove()


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _name(func: Any) -> str:
    return getattr(func, "__name__", "")


def _main(marks: Sequence[Mark]) -> int:
    """Which of a function's tensors it mainly acts on: the first that an input went into."""
    return next((place for place, mark in enumerate(marks) if mark.live), 0)


def _is_parameter(mark: Mark, model: nn.Module) -> bool:
    if mark.origin is None:
        return False
    owner, _, last = mark.origin.name.rpartition(".")
    module = model.get_submodule(owner)
    return isinstance(getattr(module, last), nn.Parameter) or parametrize.is_parametrized(module, last)


def _layer_name(parameter: str) -> str:
    """The layer that a parameter belongs to: its module, unless its name says that it is one of several."""
    owner, _, last = parameter.rpartition(".")
    return owner if owner and last in ("weight", "bias", "running_mean", "running_var") else parameter


def _same(one: Weights, other: Weights) -> bool:
    """Whether two layers' weights are the same elements of the same tensors."""
    if one.keys() != other.keys() or any(one[n].names != other[n].names for n in one):
        return False
    return all(torch.equal(one[n].value, other[n].value) for n in one)


def _after(view: Callable[..., Tensor], made: Sequence[Callable[[Tensor], Tensor]]) -> Callable[..., Tensor]:
    return lambda *tensors: view(*(make(tensor) for make, tensor in zip(made, tensors, strict=True)))


def _with(values: Any, old: Tensor, new: Tensor) -> Any:
    """Nested arguments with one tensor in the place of another."""
    if values is old:
        return new
    if isinstance(values, dict):
        return {key: _with(value, old, new) for key, value in values.items()}
    if isinstance(values, tuple | list):
        return [_with(value, old, new) for value in values]
    return values


def _tensors(values: Any) -> Iterator[Tensor]:
    """Every tensor in nested arguments, in order."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, tuple | list | dict):
        for inner in values.values() if isinstance(values, dict) else values:
            yield from _tensors(inner)


def _lengths(given: Any) -> np.ndarray | None:
    """The length of each sequence (N,) where a module was given packed ones, else None."""
    args, kwargs = given
    packed = next((value for value in (*args, *kwargs.values()) if isinstance(value, PackedSequence)), None)
    if packed is None:
        return None
    sizes = packed.batch_sizes.cpu().numpy()
    lengths = (sizes[:, None] > np.arange(sizes[0])).sum(0)
    order = packed.unsorted_indices
    return lengths if order is None else lengths[order.cpu().numpy()]


def _joined(rows: list[np.ndarray | None], counts: list[int]) -> np.ndarray:
    """The rows of features concatenated, some of them in Keras's order as they are."""
    starts = np.cumsum([0, *counts[:-1]])
    parts = [np.arange(n) if one is None else one for one, n in zip(rows, counts, strict=True)]
    return np.concatenate([part + start for part, start in zip(parts, starts, strict=True)])


def _padding(args: Any, kwargs: Any) -> Pixels:
    """What F.pad adds before and after each axis of space; nothing where that is no constant."""
    given = dict(zip(("input", "pad", "mode", "value"), args, strict=False)) | kwargs
    pad = list(given["pad"])
    if len(pad) != 2 * (given["input"].dim() - 2) or given.get("mode", "constant") != "constant":
        return ()
    return [list(pair) for pair in zip(pad[::2], pad[1::2], strict=True)][::-1]
