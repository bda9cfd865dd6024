"""TFLite files: what holds for exported files of both sides, and what stands in them."""

from __future__ import annotations

import json
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from exported import *  # noqa: F403
from exported import Side, environment, pictures
from flatbuffers import number_types
from flatbuffers.table import Table
from tensorflow.lite.python.schema_py_generated import BuiltinOperator
from tensorflow.lite.tools.flatbuffer_utils import convert_object_to_bytearray, read_model_from_bytearray

from experiment.deploy.export import muted
from keras_impl import export, predict, tflite_metadata, train
from keras_impl.runtime import load_exported


@pytest.fixture(scope="module")
def side() -> Side:
    return Side("keras", export, predict, train)


@pytest.fixture
def with_metadata() -> Callable[[Path, dict[str, str], Path], None]:
    """Write a file again with other metadata."""

    def write(file: Path, metadata: dict[str, str], to: Path) -> None:
        content = file.read_bytes()
        to.write_bytes(content[: content.index(b"PK\x03\x04")])
        with zipfile.ZipFile(to, "a") as archive:
            archive.writestr("metadata.json", json.dumps(metadata))

    return write


@pytest.fixture
def foreign(
    with_metadata: Callable[[Path, dict[str, str], Path], None],
) -> Callable[[str, dict[str, str], Path], None]:
    """Write a graph that is none of ours under our metadata."""
    import tensorflow as tf

    def write(kind: str, metadata: dict[str, str], to: Path) -> None:
        name, dtype = "x" if kind == "other name" else "images", tf.float32 if kind == "float" else tf.uint8

        def classify(images):
            rows = tf.reshape(tf.cast(images, tf.float32), (7 if kind == "failing" else -1, 32 * 32 * 3))
            return {"probabilities": rows[:1, :10] if kind == "constant" else rows[:, :10]}

        signature = [tf.TensorSpec((None, 32, 32, 3), dtype, name)]
        module, folder = tf.Module(), to.parent / "saved"
        function = tf.function(classify, input_signature=signature).get_concrete_function()
        with muted():
            tf.saved_model.save(module, folder, {"serving_default": function})
            (to.parent / "graph").write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(folder)).convert())
        with (to.parent / "graph").open("ab") as file:
            file.write(b"PK\x03\x04")
        with_metadata(to.parent / "graph", metadata, to)

    return write


def operations(file: Path) -> list[str]:
    return [one["op_name"] for one in Interpreter(model_content=file.read_bytes())._get_ops_details()]


def test_what_stands_in_the_file(file: Path) -> None:
    assert not [name for name in operations(file) if name.startswith("Flex")]
    [given] = Interpreter(model_content=file.read_bytes()).get_input_details()
    assert given["dtype"] == np.uint8
    assert list(given["shape_signature"]) == [-1, 32, 32, 3]
    [gives] = Interpreter(model_content=file.read_bytes()).get_signature_runner().get_output_details()
    assert gives == "probabilities"
    with zipfile.ZipFile(file) as archive:
        assert archive.read("labels.txt").decode().split() == [str(digit) for digit in range(10)]
        metadata = json.loads(archive.read("metadata.json"))
    assert metadata["run"] == "run"
    assert len(metadata["config_sha256"]) == 64


def test_batchnorm_is_folded(file: Path) -> None:
    assert [operations(file).count(name) for name in ("CONV_2D", "MUL", "ADD")] == [4, 0, 0]


def parts(table: Table, slot: int) -> list[Table]:
    """The tables of a list that a FlatBuffer's table holds."""
    place = table.Offset(4 + 2 * slot)
    start, size = table.Vector(place), table.VectorLen(place)
    return [Table(table.Bytes, table.Indirect(start + 4 * i)) for i in range(size)]


def part(table: Table, slot: int) -> Table:
    return Table(table.Bytes, table.Indirect(table.Pos + table.Offset(4 + 2 * slot)))


def text(table: Table, slot: int) -> str:
    return table.String(table.Pos + table.Offset(4 + 2 * slot)).decode()


def value(table: Table, slot: int, kind: Any) -> Any:
    return table.Get(kind, table.Pos + table.Offset(4 + 2 * slot))


def floats(table: Table, slot: int) -> list[float]:
    return table.GetVectorAsNumpy(number_types.Float32Flags, table.Offset(4 + 2 * slot)).tolist()


def test_tflite_metadata_tells_what_the_images_are_and_where_the_labels(file: Path) -> None:
    """Slots and numbers of Google's metadata_schema.fbs; MediaPipe itself reads it in a slow test."""
    model = read_model_from_bytearray(bytearray(file.read_bytes()))
    [entry] = [entry for entry in model.metadata if entry.name == b"TFLITE_METADATA"]
    content = bytes(model.buffers[entry.buffer].data)
    assert content[4:8] == b"M001"
    root = Table(content, int.from_bytes(content[:4], "little"))
    assert text(root, 7) == "1.0.0"
    [graph] = parts(root, 3)
    [images], [probabilities] = parts(graph, 2), parts(graph, 3)
    assert (text(images, 0), text(probabilities, 0)) == ("images", "probabilities")
    properties = part(part(images, 3), 1)
    size = part(properties, 1)
    assert value(part(images, 3), 0, number_types.Uint8Flags) == 2, "ImageProperties"
    assert value(properties, 0, number_types.Int8Flags) == 1, "RGB"
    assert [value(size, slot, number_types.Uint32Flags) for slot in (0, 1)] == [32, 32]
    [normalisation] = parts(images, 4)
    assert value(normalisation, 0, number_types.Uint8Flags) == 1, "NormalizationOptions"
    assert [floats(part(normalisation, 1), slot) for slot in (0, 1)] == [[0.0], [1.0]]
    assert [floats(part(images, 5), slot) for slot in (0, 1)] == [[255.0], [0.0]]
    [labels] = parts(probabilities, 6)
    assert text(labels, 0) == "labels.txt"
    assert value(labels, 2, number_types.Int8Flags) == 2, "TENSOR_AXIS_LABELS"


def test_a_label_is_a_line_whatever_the_class_is_called() -> None:
    assert tflite_metadata.labels(["a b", "c\nd", "é"]) == "a b\nc d\né\n"


def test_a_file_asks_for_no_newer_runtime_than_it_needs(quantised: dict[str, Path]) -> None:
    """tflite-runtime 2.14 knows FULLY_CONNECTED to version 11; 12 has a scale for every channel."""
    model = read_model_from_bytearray(bytearray(quantised["dynamic"].read_bytes()))
    versions = {code.builtinCode: code.version for code in model.operatorCodes}
    assert 1 <= versions[BuiltinOperator.FULLY_CONNECTED] <= 11


def test_a_file_whose_output_has_tflites_own_name_still_opens(file: Path, tmp_path: Path) -> None:
    """As `export` wrote them until the output was named."""
    content = file.read_bytes()
    model = read_model_from_bytearray(bytearray(content))
    model.signatureDefs[0].outputs[0].name = b"output_0"
    archive = content[content.index(b"PK\x03\x04") :]
    (tmp_path / "model.tflite").write_bytes(convert_object_to_bytearray(model) + archive)
    images = np.zeros((2, 32, 32, 3), np.uint8)
    old, new = (load_exported(path).predict(images) for path in (tmp_path / "model.tflite", file))
    np.testing.assert_array_equal(old, new)


@pytest.mark.slow
def test_mediapipe_names_the_classes(file: Path, quantised: dict[str, Path], tmp_path: Path) -> None:
    script = """
import sys, numpy as np, mediapipe
from mediapipe.tasks.python import BaseOptions, vision
options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=sys.argv[1]), max_results=1)
with vision.ImageClassifier.create_from_options(options) as classifier:
    for image in np.load(sys.argv[2]):
        picture = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=image)
        [head] = classifier.classify(picture).classifications
        print("->", head.head_name, head.categories[0].category_name)
"""
    python = environment(tmp_path / "environment", "mediapipe>=0.10.30", "numpy")
    np.save(tmp_path / "images.npy", pictures(5))
    for path in (file, *quantised.values()):
        command = [python, "-c", script, path, tmp_path / "images.npy"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        best = load_exported(path).predict(pictures(5)).argmax(1)
        said = [line for line in done.stdout.splitlines() if line.startswith("-> ")]
        assert said == [f"-> probabilities {digit}" for digit in best]
