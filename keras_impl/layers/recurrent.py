"""Recurrent layers."""

from __future__ import annotations

from keras_impl.layers.layer_type import LayerType

TABLE: tuple[LayerType, ...] = ()
