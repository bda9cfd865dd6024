"""Attention."""

from __future__ import annotations

from lightning_impl.layers.layer_type import LayerType

TABLE: tuple[LayerType, ...] = ()
