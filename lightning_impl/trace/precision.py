"""Float64 throughout on torch's side: casts in a model's own code are turned into casts to the trace's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode, handle_torch_function, has_torch_function_unary

LOWER = {
    torch.float64: (torch.float32, torch.float16, torch.bfloat16),
    torch.float32: (torch.float16, torch.bfloat16),
}
METHODS = {"float": torch.float32, "half": torch.float16, "bfloat16": torch.bfloat16}


@contextmanager
def in_one_precision(casts: WithoutCasts) -> Iterator[None]:
    """Without casts, and without torch's constant 1/6 of float32 in the gradient of hardsigmoid."""
    exact = casts.dtype == torch.float64
    with patch.object(F, "hardsigmoid", hardsigmoid if exact else F.hardsigmoid), casts:
        yield


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """F.hardsigmoid, whose gradient torch's own kernel reckons with float32(1/6) in float64, too."""
    if has_torch_function_unary(input):
        return handle_torch_function(hardsigmoid, (input,), input, inplace=inplace)
    return F.relu6(input + 3) / 6


class WithoutCasts(TorchFunctionMode):
    """While it is entered, no function takes a tensor to a precision below `dtype`; `notes` says which did.

    Otherwise a cast within a float64 trace would meet float64 weights, or hide what float64 can show.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype, self._lower = dtype, LOWER.get(dtype, ())
        self.notes: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in METHODS and METHODS[name] in self._lower:
            self._note(f".{name}()", METHODS[name])
            return args[0].to(self.dtype)
        dtypes = (value for value in (*args, *kwargs.values()) if isinstance(value, torch.dtype))
        asked = [dtype for dtype in dtypes if dtype in self._lower]
        if asked:
            if name in ("to", "type"):
                self._note(f".{name}({asked[0]})", asked[0])
            args = tuple(self.dtype if value is asked[0] else value for value in args)
            kwargs = {key: self.dtype if value is asked[0] else value for key, value in kwargs.items()}
        return func(*args, **kwargs)

    def _note(self, call: str, dtype: torch.dtype) -> None:
        precision = str(dtype).removeprefix("torch.")
        traced = str(self.dtype).removeprefix("torch.")
        note = f"torch's model computes in {precision} by {call}; traced in {traced}"
        if note not in self.notes:
            self.notes.append(note)
