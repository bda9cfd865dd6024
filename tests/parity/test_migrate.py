"""The command line of `parity migrate`, and the inputs that it draws for a proof."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiment.protocols.graph import Call, Graph, Layer, Tensor
from parity import migrate


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "name a Keras model"),
        (["--back", "a:b"], "--back needs --keras"),
        (["a:b", "--layer", "Gate"], "--layer takes"),
        (["a:b", "--weights", "nowhere.safetensors"], "no such file"),
        (["a:b", "--steps", "0"], "at least 1"),
    ],
)
def test_a_mistake_is_told_in_a_line(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        migrate.main(argv)
    assert exit.value.code == 2
    assert said in capsys.readouterr().err


def test_a_place_that_is_taken_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as exit:
        migrate.main(["a:b", "--out", str(tmp_path)])
    assert exit.value.code == 2
    assert "exists" in capsys.readouterr().err


def graph(layer: Layer, dtype: str = "float32") -> Graph:
    call = Call(layer.name, [{"tensor": 0}], {}, [1])
    tensors = [Tensor([None, None, 3], dtype), Tensor([None, 4], "float32")]
    return Graph("net", "Functional", {layer.name: layer}, [call], tensors, [{"tensor": 0}], [{"tensor": 1}])


def test_tokens_are_drawn_for_an_embedding_and_pixels_for_a_rescaling() -> None:
    tokens = migrate.inputs(graph(Layer("e", "Embedding")), 2, 5)["input0"]
    pixels = migrate.inputs(graph(Layer("r", "Rescaling", settings={"scale": 1 / 255})), 2, 5)["input0"]
    plain = migrate.inputs(graph(Layer("d", "Dense")), 2, 5)["input0"]
    assert tokens.shape == pixels.shape == (32, 5, 3)
    assert migrate.inputs(graph(Layer("d", "Dense")), 2, 1366)["input0"].shape == (8, 1366, 3)
    assert np.issubdtype(tokens.dtype, np.integer)
    assert 200 < pixels.max() <= 255
    assert 0.5 < plain.max() <= 1


def test_the_verdict_names_the_first_rung_that_fails() -> None:
    failed = {"status": "failed", "rung": "forward", "layer": "conv", "cause": "padding"}
    said = {"verdict": "failed", "refused": None, "computation": failed, "weights": {"status": "passed"}}
    assert migrate.line_of(said) == "not proven: forward fails at conv: padding"
    rungs = [{"name": name, "status": "passed"} for name in ("weights", "forward")]
    passed = {"verdict": "passed", "refused": None, "rungs": rungs}
    assert migrate.line_of(passed) == "proven: weights, forward agree"
    rungs.append({"name": "trajectory", "status": "skipped"})
    assert migrate.line_of(passed) == "proven: weights, forward agree; trajectory says nothing"
