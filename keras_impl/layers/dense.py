"""Dense layers and embeddings."""

from __future__ import annotations

from keras import layers

from keras_impl.layers.layer_type import LayerType

TABLE = (LayerType("Dense", (layers.Dense,)), LayerType("Embedding", (layers.Embedding,)))
