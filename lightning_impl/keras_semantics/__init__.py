"""The few torch pieces that behave as Keras's do, so that a migrated model trains to the same numbers."""

from lightning_impl.keras_semantics.callbacks import ReduceLROnPlateau
from lightning_impl.keras_semantics.layers import BatchNorm, Flatten
from lightning_impl.keras_semantics.optimizers import SGD, Adam, AdamW

__all__ = ["SGD", "Adam", "AdamW", "BatchNorm", "Flatten", "ReduceLROnPlateau"]
