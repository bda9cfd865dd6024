"""A mask on one side alone is named where it explains which sequences differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parity.diagnosis import masks
from parity.diagnosis.patterns import Explanation
from tests.parity.diagnosis.traced import layer, pair

LENGTHS = np.array([5, 2, 5, 3])
MASK = np.arange(5) < LENGTHS[:, None]
OUTPUT = np.random.default_rng(0).normal(size=(4, 2))
APART = OUTPUT + (LENGTHS < 5)[:, None]


def explained(
    folder: Path, torch: np.ndarray, keras_mask: Any = None, torch_mask: Any = None
) -> Explanation | None:
    layers = [layer("words", "Embedding", shape=[5, 2]), layer("lstm", "LSTM", inputs=["words"])]
    given = {"eval/lstm": OUTPUT}, {"eval/lstm": torch}
    for arrays, mask in zip(given, (keras_mask, torch_mask), strict=True):
        arrays.update({} if mask is None else {"mask/lstm": mask})
    return masks.explain("lstm", "eval", pair(folder, layers, *given))


def test_keras_alone_leaves_steps_out(tmp_path: Path) -> None:
    found = explained(tmp_path, APART, keras_mask=MASK)
    assert found is not None
    assert found.cause.startswith("Keras's lstm leaves masked steps out")
    assert found.evidence == "only the 2 of 4 sequences with masked steps differ"


def test_torch_alone_leaves_steps_out_and_its_longest_sequence_may_be_short(tmp_path: Path) -> None:
    short = MASK[1:2].repeat(4, axis=0)[:, :2]
    found = explained(tmp_path, OUTPUT + 1, torch_mask=short)
    assert found is not None
    assert found.cause.startswith("torch's lstm leaves padded steps out")


def test_other_lengths_are_named(tmp_path: Path) -> None:
    found = explained(tmp_path, APART, MASK, np.arange(5) < np.array([5, 2, 4, 3])[:, None])
    assert found is not None
    assert found.evidence == "of sequence 2 torch takes 4 steps, Keras 5"


@pytest.mark.parametrize(
    ("torch", "mask"), [(OUTPUT + 1, MASK), (APART, None)], ids=["whole sequences differ too", "no mask"]
)
def test_another_cause_is_left_to_others(tmp_path: Path, torch: np.ndarray, mask: Any) -> None:
    assert explained(tmp_path, torch, keras_mask=mask) is None


def test_equal_masks_explain_nothing(tmp_path: Path) -> None:
    assert explained(tmp_path, APART, MASK, MASK) is None
