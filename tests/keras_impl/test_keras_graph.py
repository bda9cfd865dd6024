"""A Keras model as the graph that a package is written from."""

from __future__ import annotations

import re
from typing import Any

import keras
import pytest
from keras import layers

from experiment.protocols.graph import Graph
from keras_impl.trace.graph import _Reader, read
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


# === Subclassed models ===


class Plain(keras.Model):
    """Calls its layers, whatever the mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = keras.layers.BatchNormalization(), keras.layers.Dense(2)

    def call(self, x, training=False):
        return self.head(self.norm(x, training=training))


class Branching(Plain):
    def call(self, x, training=False):
        x = super().call(x, training=training)
        return keras.ops.relu(x) if training else x


class Held(Plain):
    def call(self, x, training=False):
        return self.head(self.norm(x, training=False))


class OfNumbers(Plain):
    def call(self, x, training=False):
        return self.head(x) if float(keras.ops.sum(x)) > 1 else self.norm(x)


def called(model: keras.Model) -> keras.Model:
    model(keras.ops.zeros((1, 4)))
    return model


def test_a_subclassed_models_code_gives_its_graph() -> None:
    found = read(called(Plain()), "plain").graph
    assert found.kind == "Functional"
    assert [call.layer.rstrip("_0123456789") for call in found.calls] == ["batch_normalization", "dense"]


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (lambda: called(Branching()), "other things in training"),
        (lambda: called(Held()), "with training=False always"),
        (lambda: called(OfNumbers()), "needs numbers|shapes are not known"),
        (Plain, "call it once"),
    ],
)
def test_code_that_gives_no_graph_is_refused_with_the_reason(model, why: str) -> None:
    found = read(model(), "refused").graph
    assert found.kind == "Subclass"
    assert re.search(why, found.refused)
