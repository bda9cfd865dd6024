"""Float64 throughout on torch's side: casts in a model's own code are turned into casts to the trace's."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

LOWER = {
    torch.float64: (torch.float32, torch.float16, torch.bfloat16),
    torch.float32: (torch.float16, torch.bfloat16),
}
METHODS = {"float": torch.float32, "half": torch.float16, "bfloat16": torch.bfloat16}


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
        asked = [dtype for dtype in (*args, *kwargs.values()) if dtype in self._lower]
        if asked and isinstance(asked[0], torch.dtype):
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
