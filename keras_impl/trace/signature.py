"""A user's model's inputs and outputs, of any number and nesting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from experiment.protocols.trace import Arrays, Request
from keras_impl.trace.recorder import leaves


def inputs_of(request: Request, model: keras.Model) -> Any:
    """The request's inputs as the model takes them; whole numbers for what goes to an Embedding.

    Several go to the model's inputs of the same names, where they have these, else in their order.
    """
    arrays = request.inputs()
    if request.drawn:
        for place, size in _vocabularies(model, len(arrays)).items():
            name = list(arrays)[place]
            arrays[name] = np.floor(arrays[name] * size).astype(np.int64)
    floatx = keras.config.floatx()
    values = {
        name: array.astype(floatx) if np.issubdtype(array.dtype, np.floating) else array
        for name, array in arrays.items()
    }
    names = [tensor.name for tensor in _symbolic(model)]
    ordered = [values[name] for name in names] if values.keys() == set(names) else list(values.values())
    structure = getattr(model, "_inputs_struct", None)
    if structure is not None and len(keras.tree.flatten(structure)) == len(ordered):
        return keras.tree.pack_sequence_as(structure, ordered)
    return ordered if len(ordered) > 1 else ordered[0]


def _symbolic(model: keras.Model) -> Sequence[Any]:
    """The symbolic inputs of a functional model or of a Sequential one that is built."""
    try:
        return list(model.inputs or ())
    except (AttributeError, ValueError):
        return []


def _vocabularies(model: keras.Model, count: int) -> dict[int, int]:
    """How many tokens an Embedding knows, by the place of the input that goes to it."""
    symbolic = _symbolic(model)
    found = {place: size for place, tensor in enumerate(symbolic) for size in _embedded(model, tensor)}
    embeddings = [layer for layer in leaves(model) if isinstance(layer, keras.layers.Embedding)]
    if not symbolic and embeddings and count == 1:
        return {0: embeddings[0].input_dim}
    return found


def _embedded(model: Any, tensor: Any) -> Iterator[int]:
    """The sizes of the Embeddings that a symbolic tensor goes to, those of inner models among them."""
    inner = getattr(model, "operations", None) or getattr(model, "layers", [])
    for operation in inner:
        for node in getattr(operation, "_inbound_nodes", []):
            places = [place for place, given in enumerate(node.input_tensors) if given is tensor]
            if places and isinstance(operation, keras.layers.Embedding):
                yield operation.input_dim
            elif places and isinstance(operation, keras.Model) and operation is not model:
                for place in places:
                    yield from _embedded(operation, _symbolic(operation)[place])
    functional = getattr(model, "_functional", None)
    if functional is not None:
        yield from _embedded(functional, tensor)


def outputs_of(outputs: Any) -> dict[str, Any]:
    """Every tensor that a model gives, by its key in the trace: `outputs`, `outputs/1` and so on.

    A dictionary's come in the order of its keys.
    """
    tensors = list(_tensors(outputs))
    return {f"outputs/{place}" if place else "outputs": tensor for place, tensor in enumerate(tensors)}


def _tensors(values: Any) -> Iterator[Any]:
    if isinstance(values, Mapping):
        for key in sorted(values):
            yield from _tensors(values[key])
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)
    elif hasattr(values, "shape"):
        yield values


def arrays_of(outputs: Any) -> Arrays:
    """As `outputs_of`, as arrays."""
    return {key: keras.ops.convert_to_numpy(tensor) for key, tensor in outputs_of(outputs).items()}
