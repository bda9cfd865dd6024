"""The matrix of exported models: what it measures, and that each of its checks can fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiment.deploy.exported import Model
from parity.exports.comparison import Predicted, check, markdown, summary
from parity.report import formatting
from parity.report import page as report
from parity.report.results import Results

LABELS = np.arange(40) % 4
EXACT = ("Keras", "TFLite", "Lightning", "ONNX")


@pytest.fixture
def models(tmp_path: Path) -> list[Model]:
    found = []
    for name, side in zip(EXACT, ("keras", "keras", "lightning", "lightning"), strict=True):
        path = tmp_path / name
        if name in ("TFLite", "ONNX"):
            path.write_bytes(bytes(1000))
        found.append(Model(name, side, path))
    (tmp_path / "int8").write_bytes(bytes(300))
    return [*found, Model("ONNX int8", "lightning", tmp_path / "int8", "int8")]


@pytest.fixture
def predicted(models: list[Model]) -> Predicted:
    """Nine in ten right; every way of running it gives the same."""
    probabilities = np.random.default_rng(0).uniform(0, 0.2, (40, 4))
    probabilities[np.arange(40), np.where(np.arange(40) % 10, LABELS, (LABELS + 1) % 4)] = 0.7
    ways = [("64",) if model.quantize else ("1", "7", "64") for model in models]
    return {
        (model.name, way): probabilities.copy()
        for model, several in zip(models, ways, strict=True)
        for way in (*several, *(("plain",) if model.exported else ()))
    }


def failed(models: list[Model], predicted: Predicted) -> set[str]:
    return {one.quantity for one in check(models, predicted, LABELS) if not one.passed}


def test_what_agrees_passes(models: list[Model], predicted: Predicted) -> None:
    assert failed(models, predicted) == set()
    assert len(check(models, predicted, LABELS)) == 12 + 8 + 3 + 1


@pytest.mark.parametrize(
    ("key", "names"),
    [
        (("Keras", "7"), {"Keras, batches of 7"}),
        (("ONNX", "1"), {"ONNX, batches of 1"}),
        (("TFLite", "plain"), {"TFLite without XNNPACK"}),
        (("ONNX", "plain"), {"ONNX without graph optimisations"}),
        (
            ("TFLite", "64"),
            {
                "Keras and TFLite",
                "TFLite and Lightning",
                "TFLite and ONNX",
                "TFLite, batches of 1",
                "TFLite, batches of 7",
                "TFLite without XNNPACK",
            },
        ),
    ],
)
def test_each_difference_is_caught(
    models: list[Model], predicted: Predicted, key: tuple[str, str], names: set[str]
) -> None:
    predicted[key][3, 1] += 1.1e-5
    assert failed(models, predicted) == names
    predicted[key][3, 1] = np.nan
    assert failed(models, predicted) >= names


def test_another_class_is_caught_however_small_the_difference(
    models: list[Model], predicted: Predicted
) -> None:
    for probabilities in predicted.values():
        probabilities[5] = 0.25
        probabilities[5, 2] += 1e-9
    predicted["Lightning", "64"][5, 3] += 2e-9
    assert failed(models, predicted) == {
        "Keras and Lightning: top-1 apart",
        "TFLite and Lightning: top-1 apart",
        "Lightning and ONNX: top-1 apart",
    }


def test_accuracy_lost_by_quantising_is_caught(models: list[Model], predicted: Predicted) -> None:
    right = np.flatnonzero(predicted["ONNX int8", "64"].argmax(1) == LABELS)[:8]
    for way in ("64", "plain"):
        predicted["ONNX int8", way][right] = np.roll(predicted["ONNX int8", way][right], 1, axis=1)
    assert failed(models, predicted) == {"ONNX int8: accuracy lost"}


@pytest.mark.parametrize("way", ["64", "plain"])
def test_accuracy_lost_in_one_way_alone_is_caught(
    models: list[Model], predicted: Predicted, way: str
) -> None:
    right = np.flatnonzero(predicted["ONNX int8", "64"].argmax(1) == LABELS)[:8]
    predicted["ONNX int8", way][right] = np.roll(predicted["ONNX int8", way][right], 1, axis=1)
    assert "ONNX int8: accuracy lost" in failed(models, predicted)


def test_an_image_lost_of_few_is_chance(models: list[Model], predicted: Predicted) -> None:
    right = int(np.flatnonzero(predicted["ONNX int8", "64"].argmax(1) == LABELS)[0])
    for way in ("64", "plain"):
        predicted["ONNX int8", way][right] = np.roll(predicted["ONNX int8", way][right], 1)
    assert failed(models, predicted) == set()


def test_the_matrix_and_its_pages(models: list[Model], predicted: Predicted) -> None:
    predicted["ONNX int8", "64"] = predicted["ONNX int8", "64"] + 0.01
    predicted["ONNX int8", "64"][1] = [0, 0, 0, 1]
    found = summary("cnn, digits", "cnn, digits, 40 test images", models, predicted, LABELS)
    assert [model.bytes for model in found.models] == [None, 1000, None, 1000, 300]
    assert found.largest[0][4] == found.largest[4][0] > 0.7
    assert found.mean[0][4] > 0.01
    assert found.agreement[0][4] == 39 / 40
    assert found.cosine[0][1] == pytest.approx(1, abs=1e-12)
    assert found.cosine[0][4] < 0.999
    assert "| ONNX int8 | 0.00 | 87.50 % | 97.50 % |" in markdown(found)
    rung = {"name": "export", "pair": "a", "backend": "b", "precision": "float32", "device": "cpu"}
    page = report.render(Results.model_validate({"verdict": "passed", "rungs": [rung], "exports": [found]}))
    assert "Four ways to run the same weights" in page
    assert "same class for 97.50 %" in page
    assert f"--heat:{formatting.heat(found.largest[0][4])}%" in page


@pytest.mark.parametrize(
    ("value", "heat"), [(0, 0), (1e-9, 0), (1e-8, 0), (1e-4, 50), (1, 100), (np.nan, 100)]
)
def test_heat(value: float, heat: float) -> None:
    assert formatting.heat(value) == heat
