"""A data set in Parquet files: Hugging Face's layout, written here and by others, read row by row."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from experiment.config import Data, Experiment
from experiment.data import dataset as datasets
from experiment.data import decoding, features
from experiment.data.decoding import Reading
from experiment.data.folder import Pool
from experiment.data.table import Rows, read_table
from experiment.data.write_table import main
from experiment.errors import DataError


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("table") / "digits"
    assert main([str(out), "--size", "500", "--data.name=digits", "--data.image_size=16"]) == 0
    return out


def load(root: Path, cache: Path, **more: object) -> datasets.Dataset:
    values = {"name": "parquet", "root": str(root), "image_size": 16, "cache": str(cache)}
    return datasets.load(Data.model_validate(values | more), 3)


def read(root: Path, cache: Path, **more: Any) -> Pool:
    options: dict[str, Any] = {"max_unreadable": 0.0} | more
    return read_table(root, 16, cache, **options)


def test_the_splits_are_those_of_the_data_they_were_written_from(digits: Path, tmp_path: Path) -> None:
    names = {path.name for path in digits.iterdir()}
    assert names == {"test-00000-of-00001.parquet", *(f"train-0000{i}-of-00003.parquet" for i in range(3))}
    one, other = load(digits, tmp_path), datasets.load(Data(name="digits", image_size=16), 3)
    assert one.class_names == other.class_names
    assert one.sha256 == other.sha256
    for name in ("train", "validation", "test"):
        rows = np.arange(len(getattr(other, name)))[::-1]
        for found, expected in zip(
            getattr(one, name).batch(rows), getattr(other, name).batch(rows), strict=True
        ):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "rows",
    [slice(0, 7), slice(495, 1005), slice(None, None, 300), [3, 1, 2, 499, 500, 0], np.array([], int), 5],
)
def test_rows_are_those_of_the_whole_array(tmp_path: Path, rows: Any) -> None:
    whole = np.random.default_rng(0).integers(0, 256, (1200, 4, 4, 3), np.uint8)
    np.save(tmp_path / "images.npy", whole)
    found = Rows(whole, tmp_path / "images.npy")
    assert (found.shape, found.nbytes, len(found)) == (whole.shape, whole.nbytes, 1200)
    np.testing.assert_array_equal(found[rows], whole[rows])
    np.testing.assert_array_equal(np.asarray(found), whole)


def test_a_file_that_ends_early_is_named(tmp_path: Path) -> None:
    whole = np.zeros((20, 4, 4, 3), np.uint8)
    np.save(tmp_path / "images.npy", whole)
    found = Rows(whole, tmp_path / "images.npy")
    os.truncate(tmp_path / "images.npy", 300)
    with pytest.raises(DataError, match="ends early"):
        found[np.array([19])]


def test_a_limit_draws_from_them_and_features_are_computed_from_them(digits: Path, tmp_path: Path) -> None:
    dataset = load(digits, tmp_path, limit=100)
    assert len(dataset.train) + len(dataset.validation) == 100
    experiment = Experiment.model_validate({"data": {"cache": str(tmp_path)}})

    def mean(images: np.ndarray) -> np.ndarray:
        return images.mean(axis=(1, 2))

    replaced = features.replace_images(dataset, [], mean, experiment, "keras")
    images, _ = dataset.train.batch([4, 2])
    np.testing.assert_array_equal(replaced.train.batch([4, 2])[0], mean(images))


# === What others write ===


def encoded(colour: int, kind: str = "PNG", size: int = 20, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (size, size), colour if mode == "L" else (colour, 10, 20)).save(buffer, kind)
    return buffer.getvalue()


def write(
    path: Path, images: list[Any], labels: Any, columns: tuple[str, str] = ("image", "label"), **more: Any
) -> None:
    """A table as `datasets` writes it; names: of the classes, in its metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image, label = columns
    rows = [value if isinstance(value, dict) else {"bytes": value, "path": "x"} for value in images]
    table = pa.table({"id": list(range(len(rows))), image: rows, label: labels})
    if names := more.get("names"):
        kinds = {image: {"_type": "Image"}, label: {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": kinds}})})
    pq.write_table(table, path, row_group_size=more.get("group", 3))


def test_columns_and_classes_are_those_of_the_metadata(tmp_path: Path) -> None:
    columns, names = ("img", "fine_label"), ["ant", "bee", "wasp"]
    images = [encoded(200), encoded(40, "JPEG"), encoded(90, mode="L"), encoded(7), encoded(8)]
    for i in range(2):
        path = tmp_path / "set" / "data" / f"train-0000{i}-of-00002.parquet"
        write(path, images, [0, 1, 2, 1, 0], columns, names=names)
    write(
        tmp_path / "set" / "data" / "validation-00000-of-00001.parquet",
        images[:2],
        [2, 1],
        columns,
        names=names,
    )
    pool = read(tmp_path / "set", tmp_path)
    assert pool.class_names == ("ant", "bee", "wasp")
    assert pool.labels.tolist() == [0, 1, 2, 1, 0] * 2 + [2, 1]
    assert (pool.train.tolist(), pool.test) == (list(range(10)), None)
    assert pool.validation is not None
    assert pool.validation.tolist() == [10, 11]
    assert np.asarray(pool.images)[[0, 2, 8], 0, 0].tolist() == [[200, 10, 20], [90, 90, 90], [7, 10, 20]]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_labels_may_be_names(tmp_path: Path, kind: pa.DataType) -> None:
    labels = pa.array(["dog", "caf\u00e9", "dog"]).cast(kind)
    write(tmp_path / "set" / "train.parquet", [encoded(i) for i in range(3)], labels)
    pool = read(tmp_path / "set", tmp_path)
    assert (pool.class_names, pool.labels.tolist()) == (("caf\u00e9", "dog"), [1, 0, 1])


def test_images_that_cannot_be_read_are_skipped_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    images = [encoded(1), b"no image", None, {"bytes": None, "path": "elsewhere.png"}, encoded(5)]
    write(tmp_path / "set" / "train.parquet", images, [0, 1, 0, 1, 1])
    with pytest.raises(DataError, match=r"3 of 5 .* unreadable: train\.parquet row 1, train\.parquet row 2"):
        read(tmp_path / "set", tmp_path)
    pool = read(tmp_path / "set", tmp_path, max_unreadable=0.6)
    assert pool.train.tolist() == [0, 4]
    assert "skipped: 3 of 5" in capsys.readouterr().err
    assert pool.note == "3 of 5 files unreadable and skipped"


def test_reading_is_the_users(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("LA", (20, 20), (200, 0)).save(buffer, "PNG")
    write(tmp_path / "set" / "train.parquet", [buffer.getvalue(), encoded(3)], [0, 1])
    pool = read(tmp_path / "set", tmp_path, reading=Reading("#102030"))
    assert np.asarray(pool.images)[0, 0, 0].tolist() == [16, 32, 48]


def test_processes_decode_what_threads_decode(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = read(digits, tmp_path / "one")
    monkeypatch.setattr(decoding, "PROCESSES_FROM", 1)
    monkeypatch.setattr(decoding, "_decode_in_threads", None)
    np.testing.assert_array_equal(
        np.asarray(read(digits, tmp_path / "two").images), np.asarray(threads.images)
    )


def test_a_changed_file_is_decoded_again(tmp_path: Path) -> None:
    for colour in (9, 200):
        write(tmp_path / "set" / "train.parquet", [encoded(colour), encoded(1)], [0, 1])
        assert np.asarray(read(tmp_path / "set", tmp_path).images)[0, 0, 0, 0] == colour


# === Faults ===


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


TEST = "test-00000-of-00001.parquet"
ONE, TWO = [encoded(1)], [encoded(1), encoded(2)]


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda root: (root / "train-00001-of-00003.parquet").unlink(), "2 of 3 files train-"),
        (lambda root: [path.unlink() for path in root.glob("train-*")], "has no train-"),
        (lambda root: (root / TEST).write_bytes(b"no"), "test-.*cannot be read"),
        (lambda root: pipe(root / "train-00001-of-00003.parquet"), r"train-00001.*no regular file"),
        (lambda root: write(root / TEST, ONE, [10]), "labels from 0 to 10, for 10"),
        (lambda root: write(root / TEST, ONE, [-1]), "labels from -1"),
        (lambda root: write(root / TEST, ONE, [0.5]), "label holds double"),
        (lambda root: write(root / TEST, TWO, [0, None]), "1 of 2 null"),
        (
            lambda root: write(root / TEST, ONE, [1], ("image", "kind")),
            "no column of labels",
        ),
        (
            lambda root: pq.write_table(pa.table({"image": [b"x"], "label": [1]}), root / TEST),
            r"no column of images .* among image, label",
        ),
        (
            lambda root: write(root / TEST, [b"x"], [1]),
            "no image of the test split can be read",
        ),
    ],
)
def test_what_is_wrong_is_named(digits: Path, tmp_path: Path, break_it: Any, said: str) -> None:
    root = tmp_path / "copy"
    shutil.copytree(digits, root)
    break_it(root)
    with pytest.raises(DataError, match=said):
        read(root, tmp_path, max_unreadable=1.0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--size", "0"], "--size must be at least 1"), ([], "exists: name another folder")],
)
def test_mistakes_on_the_command_line(
    digits: Path, capsys: pytest.CaptureFixture, arguments: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as refused:
        main([str(digits), *arguments])
    assert refused.value.code == 2
    assert said in capsys.readouterr().err


def test_class_names_are_printable_and_differ(tmp_path: Path) -> None:
    images = [encoded(1), encoded(2)]
    write(tmp_path / "a" / "train.parquet", images, [0, 1], names=["a\u2028b", "x y"])
    assert read(tmp_path / "a", tmp_path).class_names == ("a\\u2028b", "x y")
    write(tmp_path / "b" / "train.parquet", images, [0, 1], names=["1", "1"])
    with pytest.raises(DataError, match="two classes of one name, '1'"):
        load(tmp_path / "b", tmp_path)
