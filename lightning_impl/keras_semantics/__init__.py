"""The few torch pieces that behave as Keras's do, so that a migrated model trains to the same numbers."""

from typing import TYPE_CHECKING, Any

from lightning_impl.keras_semantics.layers import BatchNorm, Flatten
from lightning_impl.keras_semantics.optimizers import SGD, Adam, AdamW

if TYPE_CHECKING:
    from lightning_impl.keras_semantics.callbacks import ReduceLROnPlateau

__all__ = ["SGD", "Adam", "AdamW", "BatchNorm", "Flatten", "ReduceLROnPlateau"]


def __getattr__(name: str) -> Any:
    # Imported when it is asked for: it brings in Lightning, which takes seconds and layers do without.
    if name != "ReduceLROnPlateau":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lightning_impl.keras_semantics.callbacks import ReduceLROnPlateau

    return ReduceLROnPlateau
