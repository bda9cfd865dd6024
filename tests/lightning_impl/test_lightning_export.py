"""ONNX files: what holds for exported files of both sides, and what stands in them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from exported import *  # noqa: F403
from exported import Side
from onnx import TensorProto, helper, numpy_helper

from experiment.deploy.export import metadata
from experiment.deploy.prediction import TrainedRun
from lightning_impl import export, predict, train


@pytest.fixture(scope="module")
def side() -> Side:
    return Side("lightning", export, predict, train)


@pytest.fixture
def with_metadata() -> Callable[[Path, dict[str, str], Path], None]:
    """Write a file again with other metadata."""

    def write(file: Path, metadata: dict[str, str], to: Path) -> None:
        model = onnx.load(file)
        del model.metadata_props[:]
        helper.set_model_props(model, metadata)
        onnx.save(model, to)

    return write


@pytest.fixture
def foreign() -> Callable[[str, dict[str, str], Path], None]:
    """Write a graph that is none of ours under our metadata."""

    def write(kind: str, metadata: dict[str, str], to: Path) -> None:
        name = "x" if kind == "other name" else "images"
        shape = numpy_helper.from_array(np.array([7 if kind == "failing" else 1, 10]), "shape")
        graph = helper.make_graph(
            [helper.make_node("ConstantOfShape", ["shape"], ["y"])],
            "foreign",
            [
                helper.make_tensor_value_info(
                    name, TensorProto.FLOAT if kind == "float" else TensorProto.UINT8, ["N", 32, 32, 3]
                )
            ],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])],
            [shape],
        )
        if kind == "failing":
            cast = helper.make_node("Cast", [name], ["c"], to=TensorProto.FLOAT)
            del graph.node[:]
            graph.node.extend([cast, helper.make_node("Reshape", ["c", "shape"], ["y"])])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
        helper.set_model_props(model, metadata)
        onnx.save(model, to)

    return write


def test_what_stands_in_the_file(run: Path, file: Path) -> None:
    model = onnx.load(file)
    [given], [gives] = model.graph.input, model.graph.output
    assert given.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert given.type.tensor_type.shape.dim[0].dim_param
    assert gives.name == "probabilities"
    operations = {node.op_type for node in model.graph.node}
    assert operations.isdisjoint({"Dropout", "BatchNormalization"}), "BatchNorm is folded"
    assert not any(a.name == "training_mode" and a.i for node in model.graph.node for a in node.attribute)
    assert sorted(run.glob("model.*")) == [file], "no sidecar"
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["run"] == "run"
    assert len(metadata["config_sha256"]) == 64


def test_a_file_asks_for_no_newer_runtime_than_it_needs(
    run: Path, file: Path, quantised: dict[str, Path]
) -> None:
    """Operation set 14 and format 7 are of 2021."""
    for path in (file, *quantised.values()):
        model = onnx.load(path)
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 14)]
        assert model.ir_version == 7
        keys = {entry.key for entry in model.metadata_props}
        assert keys == set(metadata(TrainedRun.open(run, "lightning"))), "and nothing of torch's"
        assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8


@pytest.mark.parametrize("kind", ["dynamic", "int8"])
def test_no_processor_can_saturate_on_quantised_weights(quantised: dict[str, Path], kind: str) -> None:
    """x86 without VNNI adds two products of an unsigned byte and a signed one in 16 bits (pmaddubsw).

    Two of unsigned bytes are added in 32: weights, activations and their zero points are all unsigned.
    """
    kept = [onnx.numpy_helper.to_array(entry) for entry in onnx.load(quantised[kind]).graph.initializer]
    whole = [array for array in kept if array.itemsize == 1]
    assert {array.dtype for array in whole} == {np.dtype(np.uint8)}
    weights = [array for array in whole if array.ndim > 1]
    assert len(weights) == 6, "two blocks of two convolutions, and two dense layers"
    assert max(int(array.max()) for array in weights) == 255, "of all 8 bits"


def test_predicting_needs_no_lightning(run: Path, tmp_path: Path) -> None:
    """Its import takes longer than all else that classifying an image takes."""
    np.save(tmp_path / "images.npy", np.zeros((1, 32, 32, 3), np.uint8))
    code = "import sys; from lightning_impl import predict; "
    code += "print(predict.main(sys.argv[1:]), 'lightning' in sys.modules)"
    command = [sys.executable, "-c", code, str(run), str(tmp_path / "images.npy")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0 False", done.stderr
