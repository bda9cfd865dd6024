"""A Keras model as the graph that a package is written from."""

from __future__ import annotations

from typing import Any

import keras
import pytest
from keras import layers

from experiment.protocols.graph import Graph
from keras_impl.trace.graph import _Reader
from keras_impl.trace.optimizer import as_given


def masks(graph: Graph) -> dict[str, list[str]]:
    """By layer, the arguments that its call is given masks by."""
    return {
        call.layer: [name for name, value in call.kwargs.items() if "mask" in name and value is not None]
        for call in graph.calls
    }


def test_masks_that_keras_adds_as_it_runs_are_read() -> None:
    tokens = keras.Input((5,), dtype="int32")
    x = layers.Embedding(7, 4, mask_zero=True)(tokens)
    attended = layers.MultiHeadAttention(2, 2, name="heads")(x, layers.Masking()(keras.ops.abs(x)))
    graph = _Reader().graph(keras.Model(tokens, attended))
    assert masks(graph)["heads"] == ["query_mask", "value_mask"]
    assert "NotEqual" in {layer.kind for layer in graph.layers.values()}  # what computes them


def test_attention_takes_the_mask_from_what_it_is_given() -> None:
    """So Keras gives none to a layer that is called on the same tensor later on."""
    tokens = keras.Input((5,), dtype="int32")
    x = layers.Embedding(7, 4, mask_zero=True)(tokens)
    first = layers.LayerNormalization()(layers.MultiHeadAttention(2, 2, name="first")(x, x))
    later = layers.Attention(name="later")([x, x])
    graph = _Reader().graph(keras.Model(tokens, [first, later]))
    assert masks(graph)["first"] == ["query_mask", "value_mask"]
    assert masks(graph)["later"] == []


def test_an_initial_state_leaves_a_recurrent_layer_without_its_mask() -> None:
    tokens, state = keras.Input((5,), dtype="int32"), keras.Input((3,))
    x = layers.Embedding(7, 4, mask_zero=True)(tokens)
    with_state = layers.GRU(3, name="with_state")(x, initial_state=state)
    without = layers.GRU(3, name="without")(x)
    graph = _Reader().graph(keras.Model([tokens, state], [with_state, without]))
    found = masks(graph)
    assert (found["with_state"], found["without"]) == ([], ["mask"])


@pytest.mark.parametrize(
    ("value", "given"),
    [(0.0010000000474974513, 0.001), (0.001, 0.001), (0.1 + 0.2, 0.1 + 0.2), (0.25, 0.25), (0.0, 0.0)],
)
def test_numbers_are_as_their_user_wrote_them(value: Any, given: float) -> None:
    assert as_given(value) == given
