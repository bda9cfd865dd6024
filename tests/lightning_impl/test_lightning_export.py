"""ONNX files: what holds for exported files of both sides, and what stands in them."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from exported import *  # noqa: F403
from exported import Side

from lightning_impl import export, predict, train


@pytest.fixture(scope="module")
def side() -> Side:
    return Side("lightning", export, predict, train)


def test_what_stands_in_the_file(run: Path, file: Path) -> None:
    model = onnx.load(file)
    assert {one.domain: one.version for one in model.opset_import}[""] == export.OPSET
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


def test_quantised_files_keep_the_metadata_alone(run: Path) -> None:
    for kind in ("float16", "dynamic", "int8"):
        assert export.main([str(run), f"--quantize={kind}", "--max-loss=100"]) == 0
        model = onnx.load(run / f"model_{kind}.onnx")
        keys = {entry.key for entry in model.metadata_props}
        assert keys == {"class_names", "image_size", "background", "bits", "run", "config_sha256"}
        assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
