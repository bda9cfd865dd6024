"""The images of a data set as the rest of the house sees them: rows that can be read."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np


class Images(Protocol):
    """Images (M, H, W, 3) uint8, or features of them (M, F) float: an array, or what is read as one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    @property
    def nbytes(self) -> int: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any:
        """The images of a row, or of an array or slice of rows, as a numpy array."""
        ...
