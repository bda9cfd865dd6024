"""Images in .npz files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiment.data.folder import read_npz
from experiment.errors import DataError

IMAGES = np.random.default_rng(4).integers(0, 256, (6, 9, 7, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 2, 1, 0])


def write_npz(path: Path, **changes: np.ndarray | None) -> Path:
    arrays: dict[str, Any] = {
        "x_train": IMAGES,
        "y_train": LABELS,
        "x_test": IMAGES[:2],
        "y_test": LABELS[:2],
    } | changes
    np.savez(path, **{key: array for key, array in arrays.items() if array is not None})
    return path


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, IMAGES),
        ({"x_train": IMAGES[..., 0]}, IMAGES[..., 0]),
        ({"x_train": IMAGES[..., :1]}, IMAGES[..., 0]),
        ({"x_train": (IMAGES / 255).astype(np.float32)}, IMAGES),
        ({"y_train": LABELS[:, None]}, IMAGES),
        ({"y_train": np.eye(3)[LABELS]}, IMAGES),
    ],
)
def test_npz_forms(tmp_path: Path, changes: dict, expected: np.ndarray) -> None:
    names, (x_train, y_train, x_test, y_test) = read_npz(write_npz(tmp_path / "a.npz", **changes))
    np.testing.assert_array_equal(x_train, expected)
    assert (x_train.dtype, y_train.dtype) == (np.uint8, np.int64)
    assert y_train.tolist() == [0, 1, 2, 2, 1, 0]
    assert (len(x_test), y_test.tolist()) == (2, [0, 1])
    assert names == ["0", "1", "2"]


def test_npz_class_names(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", class_names=np.array(["ant", "bee", "cow", "dog"]))
    assert read_npz(path)[0] == ["ant", "bee", "cow", "dog"]


def test_npz_class_names_of_any_bytes(tmp_path: Path) -> None:
    path = write_npz(
        tmp_path / "a.npz", class_names=np.array([b"caf\xe9", b"b\nc", "d\u00e9j\u00e0".encode()])
    )
    assert read_npz(path)[0] == ["caf\\xe9", "b\\nc", "d\u00e9j\u00e0"]


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_npz_validation_arrays(tmp_path: Path, name: str, capsys) -> None:
    more = {f"x_{name}": IMAGES[3:], f"y_{name}": LABELS[3:], "x_extra": IMAGES}
    _, arrays = read_npz(write_npz(tmp_path / "a.npz", **more))
    assert len(arrays) == 6
    np.testing.assert_array_equal(arrays[4], IMAGES[3:])
    assert arrays[5].tolist() == LABELS[3:].tolist()
    assert capsys.readouterr().err == f"{tmp_path / 'a.npz'}: x_extra ignored\n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None, "x_train": None}, "has no x_train, y_test"),
        ({"x_train": IMAGES.transpose(0, 3, 1, 2)}, r"x_train has shape \(6, 3, 9, 7\)"),
        ({"x_train": IMAGES.astype(np.float32)}, r"x_train has values outside \[0, 1\]"),
        ({"x_train": np.full((6, 9, 7), np.nan)}, r"outside \[0, 1\]"),
        ({"x_train": IMAGES.astype(np.int64)}, "x_train is int64"),
        ({"x_train": IMAGES[:5]}, "5 images in x_train, 6 labels in y_train"),
        ({"x_test": IMAGES[:0], "y_test": LABELS[:0]}, "0 images in x_test"),
        ({"y_train": LABELS - 1}, "y_train has labels that are negative"),
        ({"y_train": LABELS + 0.5}, "not whole"),
        ({"y_train": LABELS + 1}, "y_train has 3 classes, but the labels reach 3"),
        ({"y_test": np.array([0, 3])}, "labels reach 3"),
        ({"y_train": np.ones((6, 3))}, r"y_train has shape \(6, 3\)"),
        ({"y_train": LABELS.astype(object)}, "of plain numbers"),
        ({"y_train": np.array(list("abcabc"))}, "of plain numbers"),
        ({"y_train": np.array(["0", "1"] * 3)}, "y_train holds <U1: number the classes from 0"),
        ({"y_train": np.array([0, 1, np.nan] * 2)}, "not whole"),
        ({"y_train": np.array([0, 1, np.inf] * 2)}, "not whole"),
        ({"class_names": np.array(["ant", "bee"])}, "class_names has 2 names, but the labels reach 2"),
        ({"class_names": np.array(["ant", "bee", "ant"])}, "two classes of one name, 'ant'"),
        ({"class_names": np.array(["1", "2", "1"])}, "two classes of one name, '1'"),
        ({"class_names": np.array(["e\u0301", "bee", "\u00e9"])}, "two classes of one name"),
        ({"class_names": np.array([["ant", "bee", "cow"]])}, r"class_names is <U3 \(1, 3\)"),
        ({"class_names": np.arange(3)}, r"class_names is int64 \(3,\): give a list of names"),
        ({"x_val": IMAGES, "y_val": LABELS[:5]}, "6 images in x_val, 5 labels in y_val"),
        ({"x_val": IMAGES, "y_val": LABELS + 1}, "labels reach 3"),
    ],
)
def test_wrong_npz_is_a_data_error(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_npz(write_npz(tmp_path / "a.npz", **changes))


def test_what_is_no_npz_is_a_data_error(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", LABELS)
    with pytest.raises(DataError, match=r"cannot read .*a.npy"):
        read_npz(tmp_path / "a.npy")
