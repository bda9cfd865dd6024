"""python -m keras_impl.trace.graph REQUEST.json OUT: a Keras model as `experiment.protocols.graph` has it."""

from __future__ import annotations

import inspect
import json
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import keras
import numpy as np
from keras.src.models.functional import Functional

from experiment import cli
from experiment.config import Experiment
from experiment.deploy.prediction import TrainedRun
from experiment.protocols.faults import told
from experiment.protocols.graph import Arrays, Call, Graph, Layer, Migration, Tensor
from experiment.protocols.trace import Request, TraceError, user_object
from keras_impl.layers import weight_layout
from keras_impl.trace.optimizer import as_given
from keras_impl.trace.recorder import is_composite, leaves
from keras_impl.trace.target import users_model

# The layers that apply these cells to every step.
CELLS = {
    keras.layers.LSTMCell: "LSTM",
    keras.layers.GRUCell: "GRU",
    keras.layers.SimpleRNNCell: "SimpleRNN",
}
# What a layer's config says that is no setting of its computation, or stands elsewhere in the graph.
LEFT_OUT = ("name", "trainable", "dtype", "seed", "batch_shape", "build_config", "batch_input_shape")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    request, out = (Path(argument) for argument in (sys.argv[1:] if argv is None else argv))

    def command() -> int:
        wanted = json.loads(request.read_text())
        if "save" in wanted:
            take_weights(wanted)
            return 0
        model = built(wanted["build"])
        migration = read(model, wanted["build"], wanted.get("callbacks"))
        migration.write(out)
        _save(model, out / "model.keras")
        return 0

    return cli.guarded(command)


def built(build: str) -> keras.Model:
    """A user's model: `package.module:function`, a .keras file, or the directory of a run of this project.

    Raises TraceError and RunError.
    """
    return _of_run(Path(build)) if Path(build).is_dir() else _users(build)


def read(model: keras.Model, source: str, callbacks: str | None = None) -> Migration:
    """A model with its weights and what it was compiled with. source: what the user named.

    callbacks: `package.module:function`, which gives a list of Keras's callbacks. Raises TraceError.
    """
    reader = _Reader()
    graph = reader.graph(model)
    training = compiled(model)
    return Migration(graph, reader.arrays, source, training, _callbacks(callbacks) if callbacks else [])


def take_weights(wanted: dict[str, Any]) -> None:
    """Save a model with the weights of a file of arrays, and write its predictions; raises TraceError.

    wanted: `build`, `arrays` and `inputs` (.npz), `save` (.keras) and `predictions` (.npz).
    """
    model = built(wanted["build"])
    with np.load(wanted["arrays"]) as arrays:
        _assign(model, dict(arrays))
    with np.load(wanted["inputs"]) as arrays:
        inputs = [arrays[name] for name in arrays.files]
    outputs = keras.tree.flatten(model(inputs[0] if len(inputs) == 1 else inputs, training=False))
    model.save(wanted["save"])
    found = {f"output/{index}": keras.ops.convert_to_numpy(output) for index, output in enumerate(outputs)}
    np.savez(wanted["predictions"], allow_pickle=False, **found)


def _assign(model: keras.Model, arrays: Arrays, path: str = "") -> None:
    """Give every layer its arrays; raises TraceError for one that is missing or of another size."""
    subclassed = _functional(model) is None
    for layer in leaves(model) if subclassed else model.layers:
        here = f"{path}{layer.name}"
        if isinstance(layer, keras.Model):
            _assign(layer, arrays, f"{here}/")
            continue
        for name, weight in _named_weights(layer).items():
            array = arrays.get(f"{here}/{name}")
            shape = tuple(weight.variable.shape)
            if array is None:
                raise TraceError(f"{here}: the torch model has no {name} for it")
            if array.size == 2 * int(np.prod(shape)):  # the second bias of a GRU that has one
                array = array[0]
            if array.size != int(np.prod(shape)):
                raise TraceError(f"{here}: its {name} is {shape}, the torch model's is {array.shape}")
            weight.variable.assign(array.reshape(shape))


def _named_weights(layer: Any) -> dict[str, Any]:
    """A layer's weights by the part of it that holds them and their names."""
    found = {}
    for unit, weights in weight_layout.units(layer.name, layer).items():
        part = unit.removeprefix(layer.name).lstrip("/")
        for name, weight in weights.items():
            # Of two weights with one name the path tells them apart.
            own = name.rsplit(f"{layer.name}/", 1)[-1]
            found[f"{part}/{own}" if part else own] = weight
    return found


def compiled(model: keras.Model) -> dict[str, Any] | None:
    """The optimizer, losses and metrics that a model was compiled with, as plain values; None if it was
    not."""
    if not getattr(model, "compiled", False) or model.optimizer is None:
        return None
    losses, metrics = model._compile_loss, model._compile_metrics
    return {
        "optimizer": _described(model.optimizer),
        "loss": _plain(None if losses is None else losses._user_loss),
        "loss_weights": _plain(None if losses is None else losses._user_loss_weights),
        "metrics": _plain(None if metrics is None else metrics._user_metrics),
        "weighted_metrics": _plain(None if metrics is None else metrics._user_weighted_metrics),
    }


class _Reader:
    """Reads a model and those nested in it; `arrays` takes up weights and constants."""

    def __init__(self) -> None:
        self.arrays: Arrays = {}

    def graph(self, model: keras.Model, path: str = "") -> Graph:
        functional, why = _functional(model), ""
        if functional is None:
            functional, why = from_call(model)
        if functional is None:
            graph = Graph(model.name, "Subclass", refused=why)
            for layer in model.layers:
                graph.layers[layer.name] = self.layer(layer, path)
            return graph
        kind = "Sequential" if isinstance(model, keras.Sequential) else "Functional"
        graph, known = Graph(model.name, kind), {}

        def known_tensor(tensor: Any) -> dict[str, int]:
            if id(tensor) not in known:
                known[id(tensor)] = len(graph.tensors)
                graph.tensors.append(Tensor(list(tensor.shape), str(tensor.dtype)))
            return {"tensor": known[id(tensor)]}

        def argument(value: Any) -> Any:
            return _plain(value, known_tensor, self.constant)

        graph.inputs = argument(_by_keys(functional._inputs_struct))
        graph.input_names = [tensor._keras_history.operation.name for tensor in functional.inputs]
        masks = _implied_masks(functional)
        for node in _in_order(functional, masks):
            operation = node.operation
            kwargs = {name: argument(value) for name, value in _given(node, masks).items()}
            args = argument(_by_keys(list(node.arguments.args)))
            for layer, units in self.below(operation, path):  # each takes what the one before it gives
                graph.layers.setdefault(layer.name, layer)
                graph.tensors.append(Tensor([*node.input_tensors[0].shape[:2], units], node.outputs[0].dtype))
                graph.calls.append(Call(layer.name, args, kwargs, [len(graph.tensors) - 1]))
                args = [{"tensor": len(graph.tensors) - 1}]
            if operation.name not in graph.layers:
                graph.layers[operation.name] = self.layer(operation, path)
            outputs = [known_tensor(tensor)["tensor"] for tensor in node.outputs]
            graph.calls.append(Call(operation.name, args, kwargs, outputs))
        graph.outputs = argument(functional._outputs_struct)
        return graph

    def layer(self, operation: Any, path: str) -> Layer:
        found = Layer(operation.name, type(operation).__name__, type(operation).__module__)
        found.frozen = not getattr(operation, "trainable", True)
        if isinstance(operation, keras.Model):
            found.graph = self.graph(operation, f"{path}{operation.name}/")
            return found
        try:
            found.settings, found.penalties = _settings(operation.get_config())
        except Exception as error:  # whatever a custom layer's get_config raises
            found.settings = {"unreadable": told(error)}
        if isinstance(operation, keras.layers.Layer):
            if found.of_keras:
                found.settings |= _built(operation)
            for name, array in self._weights(operation, f"{path}{operation.name}").items():
                found.weights[name] = list(array.shape)
            if (cells := _cells(operation)) is not None:
                _apply(found, cells[-1])
            if operation.dtype_policy.name != keras.config.dtype_policy().name:
                found.settings["dtype"] = operation.dtype_policy.name
        return found

    def below(self, operation: Any, path: str) -> Iterator[tuple[Layer, int]]:
        """The cells below the last of StackedRNNCells, each as a layer, with the size of what it gives."""
        cells = _cells(operation) or [None]
        for number, cell in enumerate(cells[:-1]):
            whole = self.layer(operation, path)
            layer = replace(whole, name=f"{operation.name}/l{number}", settings={**whole.settings})
            layer.weights = {
                name.partition("/")[2]: shape
                for name, shape in whole.weights.items()
                if name.startswith(f"l{number}/")
            }
            _apply(layer, cell)
            layer.settings |= {"return_sequences": True, "return_state": False}
            yield layer, cell.units

    def _weights(self, layer: Any, path: str) -> Arrays:
        found = {name: np.asarray(weight.value) for name, weight in _named_weights(layer).items()}
        self.arrays |= {f"{path}/{name}": array for name, array in found.items()}
        return found

    def constant(self, value: Any) -> dict[str, str]:
        key = f"array/{len(self.arrays)}"
        self.arrays[key] = np.asarray(keras.ops.convert_to_numpy(value))
        return {"array": key}


def from_call(model: keras.Model) -> tuple[Any, str]:
    """The graph that a subclassed model's Python code makes of symbolic inputs, as a functional model of the
    same layers; None, and why, where it makes none, or does other things in training.
    """
    shapes = getattr(model, "_build_shapes_dict", None) or {}
    if len(shapes) != 1:
        return None, "its shapes are not known: call it once, on an example, where you build it"
    takes_mode = "training" in inspect.signature(model.call).parameters
    try:
        found = []
        for training in (True, False) if takes_mode else (None,):
            inputs = _symbolic(next(iter(shapes.values())))
            given = {} if training is None else {"training": training}
            with _opened(model):
                outputs = model.call(inputs, **given)
            found.append(Functional(inputs, outputs, name=model.name))
    except Exception as error:  # whatever the user's code raises of tensors without numbers
        return None, f"its code needs numbers, not symbols ({told(error)})"
    steps = [[_step(node) for node in _in_order(one, {})] for one in found]
    if any(one != steps[0] for one in steps):
        return None, "its code does other things in training than in evaluation"
    trained = _in_order(found[0], {})
    held = [node.operation.name for node in trained if node.arguments.kwargs.get("training") is False]
    if takes_mode and held:
        return None, f"it calls {held[0]} with training=False always"
    return found[-1], ""


def _symbolic(shape: Any) -> Any:
    """Symbolic inputs of a shape, or of several in a list or a dictionary."""
    if isinstance(shape, dict):
        return {name: _symbolic(inner) for name, inner in shape.items()}
    if isinstance(shape, list) or (
        isinstance(shape, tuple) and any(isinstance(n, tuple | list) for n in shape)
    ):
        return [_symbolic(inner) for inner in shape]
    return keras.Input(tuple(shape)[1:])


@contextmanager
def _opened(model: keras.Model) -> Iterator[None]:
    """Until it is left, a user's own layers that are made of others run their code, as the model does."""
    classes = {type(layer) for layer in model._flatten_layers(include_self=False) if is_composite(layer)}
    with ExitStack() as stack:
        for cls in classes:
            if not cls.__module__.startswith("keras."):
                stack.enter_context(patch.object(cls, "__call__", cls.call))
        yield


def _step(node: Any) -> tuple[Any, ...]:
    """A call without the tensors: whether two graphs do the same, these show."""
    operation = node.operation
    name = operation.name if isinstance(operation, keras.Layer) else type(operation).__name__
    return name, len(node.input_tensors), [tuple(tensor.shape) for tensor in node.outputs]


def _functional(model: keras.Model) -> Any:
    """What holds the graph of a model; None where its Python code alone says what it computes."""
    if isinstance(model, keras.Sequential):
        if type(model).call is not keras.Sequential.call:
            return None
        if model._functional is None:
            if not model.built:
                raise TraceError(f"{model.name}: has no shapes yet: begin it with keras.Input(...)")
            return None
        return model._functional
    if isinstance(model, Functional) and type(model).call is Functional.call:
        return model
    return None


def _by_keys(value: Any) -> Any:
    """Nested values with every dictionary in the order of its keys, as Keras flattens it."""
    if isinstance(value, dict):
        return {key: _by_keys(value[key]) for key in sorted(value)}
    return [_by_keys(inner) for inner in value] if isinstance(value, list | tuple) else value


def _given(node: Any, masks: Mapping[Any, Mapping[str, Any]]) -> dict[str, Any]:
    """A call's keyword arguments, with the masks that Keras adds to them as it runs.

    Without `training`: a functional model gives its own mode to all of its layers.
    """
    given = {n: v for n, v in node.arguments.kwargs.items() if v is not None and n != "training"}
    return {**given, **masks.get(node, {})}


def _implied_masks(functional: Any) -> dict[Any, dict[str, Any]]:
    """By call, the masks that a layer is given though its call does not say so.

    A MultiHeadAttention takes the masks off its inputs, and what is called later on them gets none: so the
    model runs once, to see which are there.
    """
    in_turn = [
        node
        for depth in sorted(functional._nodes_by_depth, reverse=True)
        for node in functional._nodes_by_depth[depth]
        if not node.is_input
    ]
    implied = {node: masks for node in in_turn if (masks := _possible_masks(node))}
    if not implied:
        return {}
    operations = {id(node.operation): node.operation for node in implied}
    seen: dict[int, list[dict[str, Any]]] = {key: [] for key in operations}

    def watched(key: int, call: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            seen[key].append(kwargs)
            return call(*args, **kwargs)

        return run

    try:
        for key, operation in operations.items():
            operation.__dict__["call"] = watched(key, operation.call)
        shapes = [tuple(size or 1 for size in tensor.shape) for tensor in functional.inputs]
        zeros = [np.zeros(s, t.dtype) for s, t in zip(shapes, functional.inputs, strict=True)]
        functional(keras.tree.pack_sequence_as(functional._inputs_struct, zeros), training=False)
    finally:
        for operation in operations.values():
            del operation.__dict__["call"]
    for node in in_turn:
        if id(node.operation) in seen:
            kwargs = seen[id(node.operation)].pop(0)
            masks = {n: _there(kwargs.get(n), mask) for n, mask in implied.pop(node, {}).items()}
            if masks := {n: mask for n, mask in masks.items() if _tensors(mask)}:
                implied[node] = masks
    return implied


def _there(seen: Any, masks: Any) -> Any:
    """Those of a call's masks, one or a list, that were seen as the model ran."""
    if isinstance(masks, list | tuple):
        return [_there(*both) for both in zip(seen or [None] * len(masks), masks, strict=True)]
    return None if seen is None else masks


def _possible_masks(node: Any) -> dict[str, Any]:
    """Masks by the arguments that Keras gives them by (Layer.__call__), of the tensors that have them."""
    signature = inspect.signature(node.operation.call)
    names = [n for n in signature.parameters if n.endswith("_mask") or n == "mask"]
    if isinstance(node.operation, keras.Model) or not names:
        return {}
    bound = signature.bind_partial(*node.arguments.args, **_given(node, {})).arguments
    holding = [value for value in bound.values() if _tensors(value)]
    masks = {}
    for name in (n for n in names if n not in node.arguments.kwargs and bound.get(n) is None):
        if (name == "mask") != (len(holding) == 1):  # by itself it is that of the one argument with tensors
            continue
        of = holding[0] if name == "mask" else bound.get(name.removesuffix("_mask"))
        mask = keras.tree.map_structure(lambda tensor: getattr(tensor, "_keras_mask", None), of)
        if any(part is not None for part in keras.tree.flatten(mask)):
            masks[name] = mask
    return masks


def _tensors(structure: Any) -> list[Any]:
    return [leaf for leaf in keras.tree.flatten(structure) if isinstance(leaf, keras.KerasTensor)]


def _in_order(functional: Any, masks: Mapping[Any, Mapping[str, Any]]) -> list[Any]:
    """The model's calls, each branch whole before the next, the last of a layer's inputs first."""
    own = {node for nodes in functional._nodes_by_depth.values() for node in nodes}
    pending = [tensor for given in masks.values() for tensor in _tensors(given)]
    while pending:  # what computes masks counts, too
        operation, index, _ = pending.pop()._keras_history
        node = operation._inbound_nodes[index]
        if node not in own:
            own.add(node)
            pending += node.input_tensors
    done, order = set(), []
    stack = [(tensor._keras_history, False) for tensor in functional.outputs]
    while stack:
        (operation, index, _), opened = stack.pop()
        node = operation._inbound_nodes[index]
        if node in done or node not in own or node.is_input:
            continue
        if opened:
            done.add(node)
            order.append(node)
            continue
        stack.append(((operation, index, 0), True))
        tensors = {id(tensor): tensor for tensor in (*node.input_tensors, *_tensors(masks.get(node, {})))}
        stack += [(tensor._keras_history, False) for tensor in tensors.values()]
    return order


def _settings(config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A layer's config as settings and as regularizers by weight."""
    settings, penalties = {}, {}
    for key, value in config.items():
        if key.endswith("_regularizer"):
            if value is not None:
                penalties[key.removesuffix("_regularizer")] = _penalty(value)
        elif key not in LEFT_OUT and not key.endswith("_initializer"):
            settings[key] = _plain(value)
    if isinstance(inner := config.get("layer"), dict) and "config" in inner:  # of a wrapper
        penalties |= {f"layer/{k}": v for k, v in _settings(inner["config"])[1].items()}
    return settings, penalties


def _cells(layer: Any) -> list[Any] | None:
    """The cells that a layer applies to every step, the first first; None where one is no cell of Keras's."""
    if type(layer) is not keras.layers.RNN:
        return None
    cells = list(getattr(layer.cell, "cells", [layer.cell]))
    return cells if all(type(cell) in CELLS for cell in cells) else None


def _apply(layer: Layer, cell: Any) -> None:
    """Let a layer be that which applies a cell."""
    settings, layer.penalties = _settings(cell.get_config())
    layer.kind, layer.module = CELLS[type(cell)], "keras"
    layer.weights = {name: shape for name, shape in layer.weights.items() if "/" not in name}
    layer.settings = {n: v for n, v in layer.settings.items() if n != "cell"} | settings


def _penalty(config: Any) -> Any:
    """A regularizer's config; Keras's L1 gives the factor that float32 made of its user's."""
    plain = _plain(config)
    if isinstance(plain, dict) and isinstance(settings := plain.get("settings"), dict):
        given = {k: as_given(v) if type(v) is float else v for k, v in settings.items()}
        return {**plain, "settings": given}
    return plain


def _built(layer: Any) -> dict[str, Any]:
    """What a layer of Keras's holds that its config does not say: statistics that were adapted to data."""
    adapted = isinstance(layer, keras.layers.Normalization) and layer.input_mean is None
    if adapted and getattr(layer, "mean", None) is not None:
        mean, variance = (keras.ops.convert_to_numpy(v) for v in (layer.mean, layer.variance))
        return {"mean": mean.tolist(), "variance": variance.tolist()}
    return {}


def _plain(value: Any, tensor: Any = None, array: Any = None) -> Any:
    """A value as JSON has it; objects of Keras's as {"kind", "settings"}, tensors as the functions say."""
    if isinstance(value, keras.KerasTensor) and tensor is not None:
        return tensor(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if value is Ellipsis:
        return {"ellipsis": True}
    if isinstance(value, slice):
        return {"slice": [_plain(v, tensor, array) for v in (value.start, value.stop, value.step)]}
    if isinstance(value, list | tuple):
        return [_plain(inner, tensor, array) for inner in value]
    if isinstance(value, dict):
        if "class_name" in value and "config" in value:
            return _simple(value, tensor, array)
        return {str(key): _plain(inner, tensor, array) for key, inner in value.items()}
    if array is not None and hasattr(value, "shape"):
        return array(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "get_config"):
        return _described(value)
    if inspect.isfunction(value):
        own = value.__module__.startswith("keras.")
        return value.__name__ if own else {"kind": "function", "settings": value.__qualname__}
    return {"kind": type(value).__name__, "settings": str(value)}


def _simple(serialized: dict[str, Any], tensor: Any = None, array: Any = None) -> Any:
    """What `keras.saving` writes of an object, in the graph's words."""
    kind, config = serialized["class_name"], serialized["config"]
    if kind == "function":
        own = str(serialized.get("module") or "").split(".")[0] in ("keras", "builtins")
        return config if own else {"kind": kind, "settings": str(config)}
    if not isinstance(config, dict):
        return {"kind": kind, "module": serialized.get("module"), "settings": _plain(config)}
    settings = {
        k: _plain(v, tensor, array)
        for k, v in config.items()
        if k not in LEFT_OUT and not k.endswith(("_initializer", "_regularizer"))
    }
    return {"kind": kind, "settings": settings}


def _described(thing: Any) -> dict[str, Any]:
    """An object of Keras's (an optimizer, a loss, a metric) by its class and config."""
    config = {k: _plain(v) for k, v in thing.get_config().items() if k != "dtype"}
    return {"kind": type(thing).__name__, "module": type(thing).__module__, "settings": config}


def _callbacks(name: str) -> list[dict[str, Any]]:
    try:
        given: Iterable[Any] = user_object(name)()
    except Exception as error:  # whatever the user's function raises
        raise TraceError(f"{name}: gives no callbacks: {told(error)}") from error
    described = []
    for callback in given:
        values = {k: v for k, v in vars(callback).items() if not k.startswith("_")}
        plain = {k: v for k, v in values.items() if isinstance(v, bool | int | float | str)}
        described.append({"kind": type(callback).__name__, "settings": plain})
    return described


def _save(model: keras.Model, path: Path) -> None:
    """Save a model for the proof, which then starts from the same weights; one that cannot be is left out,
    as is one that could not be loaded without its code.
    """
    if any(isinstance(m, keras.Model) and _functional(m) is None for m in (model, *model._flatten_layers())):
        return
    try:
        model.save(path)
        _exact_rate(path)
    except Exception:  # whatever a custom layer's get_config raises
        path.unlink(missing_ok=True)


def _exact_rate(path: Path) -> None:
    """Put the learning rate that the user wrote into a saved model: Keras saves what float32 left of it."""
    with zipfile.ZipFile(path) as saved:
        parts = {entry: saved.read(entry) for entry in saved.namelist()}
    config = json.loads(parts["config.json"])
    optimizer = ((config.get("compile_config") or {}).get("optimizer") or {}).get("config", {})
    if isinstance(rate := optimizer.get("learning_rate"), float):
        optimizer["learning_rate"] = float(str(np.float32(rate)))
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as saved:
        for entry, content in parts.items():
            saved.writestr(entry, content)


def _users(build: str) -> keras.Model:
    """A user's model; what its builder draws is what a trace of it draws."""
    experiment = Experiment()
    return users_model(Request(experiment, build=build), experiment.seed)


def _of_run(directory: Path) -> keras.Model:
    """The best model of a run of this project's Keras side, without the shared dropout of its training."""
    from keras_impl.checkpoint import load

    trained = TrainedRun.open(directory, "keras")
    training = trained.experiment.training.model_copy(update={"dropout_masks": "independent"})
    experiment = trained.experiment.model_copy(update={"training": training})
    return load(replace(trained, experiment=experiment))


if __name__ == "__main__":
    sys.exit(main())
