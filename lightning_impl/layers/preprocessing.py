"""Preprocessing that stands in a model: arithmetic with constants, which in torch is no layer."""

from __future__ import annotations

from lightning_impl.layers.layer_type import LayerType

TABLE: tuple[LayerType, ...] = ()
