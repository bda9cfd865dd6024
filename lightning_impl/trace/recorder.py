"""Records what every layer puts out while a model runs, calls of torch's functions among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from lightning_impl.layers.layer_type import Call
from lightning_impl.layers.registry import kind, layer_type, of_function, settings, with_padding
from lightning_impl.layers.weight_layout import flat_rows

DROPOUTS = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
PERMUTATIONS = ("permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims")


@dataclass(frozen=True)
class Seen:
    """One layer's output, channels last, as float or integer (N, ...).

    inputs: the layers that its inputs came from, "" for the model's own. settings: as `registry.settings`.
    """

    name: str
    kind: str
    output: np.ndarray
    inputs: tuple[str, ...]
    settings: dict[str, Any]


@dataclass(frozen=True)
class Mark:
    """What is known of a tensor.

    source: the layer that it comes from. axis: where its channels are; -1 also stands for the last of many.
    rows: of (N, F) from images, the `flat_rows` that order its features as Keras does. padded: zeros
    that were just added.
    """

    source: str = ""
    axis: int = -1
    rows: np.ndarray | None = None
    padded: Sequence[Sequence[int]] = ()


class Recording(TorchFunctionMode):
    """While it is entered, `seen` takes up every leaf module's output, and every function's outside of one.

    Functions go by `relu#1`, `relu#2`, a module's second call by `name@2`.
    aligned: the model is written to Keras's names and orders. Its layers go by the last part of their name,
    and no flattening is reordered.
    flattened: of each layer between a channel-first flattening and the linear layer that ends it (included),
    the `flat_rows` that order its features as Keras does.
    """

    def __init__(self, model: nn.Module, aligned: bool = False) -> None:
        super().__init__()
        self.model, self.aligned = model, aligned
        self.seen: list[Seen] = []
        self.flattened: dict[str, np.ndarray] = {}
        self._marks = WeakTensorKeyDictionary()
        self._calls: Counter[str] = Counter()
        self._handles: list[Any] = []
        self._inside = 0

    def __enter__(self) -> Recording:
        self._handles.append(self.model.register_forward_pre_hook(self._begin))
        for name, module in self.model.named_modules():
            if not any(True for _ in module.children()):
                self._handles.append(module.register_forward_pre_hook(self._before))
                self._handles.append(module.register_forward_hook(self._after(name)))
        return super().__enter__()

    def __exit__(self, *exception: Any) -> None:
        for handle in self._handles:
            handle.remove()
        super().__exit__(*exception)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = list(_tensors((args, kwargs)))
        marks = [self._mark(tensor) for tensor in given]
        shapes = [tuple(tensor.shape) for tensor in given]
        result = func(*args, **kwargs)
        outputs = result if isinstance(result, tuple | list) else (result,)
        if given:
            for output in (o for o in outputs if isinstance(o, Tensor)):
                self._marks[output] = self._passed_on(func, args, kwargs, marks, shapes, output)
        if self._inside == 0 and given and isinstance(result, Tensor):
            call = Call(_name(func), args, kwargs, marks[0].axis, shapes, tuple(result.shape))
            entry = of_function(call)
            if entry is not None:
                which = entry.name(call)
                self._calls[f"{which}#"] += 1
                found = with_padding(entry.of_call(call), marks[0].padded)
                self._keep(f"{which}#{self._calls[f'{which}#']}", which, result, marks, found)
        return result

    def outputs(self, values: Tensor) -> np.ndarray:
        """What came out of the model, channels last."""
        return self._canonical(values, self._mark(values))

    def _mark(self, tensor: Tensor) -> Mark:
        return self._marks[tensor] if tensor in self._marks else Mark()

    def _passed_on(
        self, func: Any, args: Any, kwargs: Any, marks: list[Mark], shapes: list[tuple], output: Tensor
    ) -> Mark:
        """What a function leaves known: its first input's mark, where it did not move axes or features."""
        name, mark, before, after = _name(func), marks[0], shapes[0], tuple(output.shape)
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
        return Mark(mark.source, axis, rows, padded)

    def _begin(self, module: nn.Module, inputs: tuple) -> None:
        for tensor in _tensors(inputs):
            if tensor not in self._marks:
                self._marks[tensor] = Mark(axis=1 if tensor.dim() == 4 else -1)

    def _before(self, module: nn.Module, inputs: tuple) -> None:
        self._inside += 1

    def _after(self, name: str) -> Callable:
        def hook(module: nn.Module, inputs: tuple, output: Any) -> None:
            self._inside -= 1
            if not isinstance(output, Tensor):
                return
            marks = [self._mark(tensor) for tensor in _tensors(inputs)] or [Mark()]
            if marks[0].rows is not None:
                self.flattened[name] = marks[0].rows
            mark, entry = self._mark(output), layer_type(module)
            if entry is not None and entry.channels is not None:
                rows = None if entry.channels == -1 else mark.rows
                mark = replace(mark, axis=entry.channels, rows=rows)
            self._marks[output] = mark
            self._calls[name] += 1
            short = name.rsplit(".", 1)[-1] if self.aligned else name
            called = short if self._calls[name] == 1 else f"{short}@{self._calls[name]}"
            self._keep(called, kind(module), output, marks, settings(module, marks[0].padded))

        return hook

    def _keep(self, name: str, which: str, output: Tensor, marks: list[Mark], found: dict[str, Any]) -> None:
        array = self._canonical(output, self._mark(output))
        if which.startswith("Global"):
            array = array.reshape(array.shape[0], -1)  # (N, C, 1, 1) or (N, C)
        self._marks[output] = replace(self._mark(output), source=name)
        self.seen.append(Seen(name, which, array, tuple(mark.source for mark in marks), found))

    def _canonical(self, values: Tensor, mark: Mark) -> np.ndarray:
        values = values.detach()
        if values.dim() > 2:
            values = values.movedim(mark.axis, -1)
        elif mark.rows is not None:
            values = values[:, torch.from_numpy(mark.rows)]
        return values.cpu().numpy().copy()


class _WithoutDropout(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _name(func) in DROPOUTS:
            return args[0] if args else kwargs["input"]
        return func(*args, **kwargs)


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Every dropout is off, so that two frameworks' own masks do not part them."""
    with _WithoutDropout():
        yield


def _name(func: Any) -> str:
    return getattr(func, "__name__", "")


def _tensors(values: Any) -> Iterator[Tensor]:
    """Every tensor in nested arguments, in order."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, tuple | list | dict):
        for inner in values.values() if isinstance(values, dict) else values:
            yield from _tensors(inner)


def _joined(rows: list[np.ndarray | None], counts: list[int]) -> np.ndarray:
    """The rows of features concatenated, some of them in Keras's order as they are."""
    starts = np.cumsum([0, *counts[:-1]])
    parts = [np.arange(n) if one is None else one for one, n in zip(rows, counts, strict=True)]
    return np.concatenate([part + start for part, start in zip(parts, starts, strict=True)])


def _padding(args: Any, kwargs: Any) -> Sequence[Sequence[int]]:
    """What F.pad adds before and after height and width; nothing where it pads no images with a constant."""
    given = dict(zip(("input", "pad", "mode", "value"), args, strict=False)) | kwargs
    if len(given["pad"]) != 4 or given.get("mode", "constant") != "constant":
        return ()
    left, right, top, bottom = given["pad"]
    return [[top, bottom], [left, right]]
