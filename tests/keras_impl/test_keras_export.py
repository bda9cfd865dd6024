"""TFLite files: what holds for exported files of both sides, and what stands in them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from exported import *  # noqa: F403
from exported import Side

from keras_impl import export, predict, train


@pytest.fixture(scope="module")
def side() -> Side:
    return Side("keras", export, predict, train)


def operations(file: Path) -> list[str]:
    return [one["op_name"] for one in Interpreter(model_content=file.read_bytes())._get_ops_details()]


def test_what_stands_in_the_file(file: Path) -> None:
    assert not [name for name in operations(file) if name.startswith("Flex")]
    [given] = Interpreter(model_content=file.read_bytes()).get_input_details()
    assert given["dtype"] == np.uint8
    assert list(given["shape_signature"]) == [-1, 32, 32, 3]
    with zipfile.ZipFile(file) as archive:
        assert archive.read("labels.txt").decode().split() == [str(digit) for digit in range(10)]
        metadata = json.loads(archive.read("metadata.json"))
    assert metadata["run"] == "run"
    assert len(metadata["config_sha256"]) == 64


def test_batchnorm_is_folded(file: Path) -> None:
    assert [operations(file).count(name) for name in ("CONV_2D", "MUL", "ADD")] == [4, 0, 0]
