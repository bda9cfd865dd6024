"""Shards hold the same data set, and are read row by row."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from experiment.config import Data, Experiment
from experiment.data import dataset as datasets
from experiment.data import features, table
from experiment.data.decoding import DEFAULTS
from experiment.data.table import Shards, Writer, read_shards
from experiment.data.write_table import main
from experiment.errors import DataError


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards") / "digits"
    assert main([str(out), "--size", "500", "--data.name=digits", "--data.image_size=16"]) == 0
    return out


def load(root: Path, **more: object) -> datasets.Dataset:
    return datasets.load(Data(name="shards", root=str(root), image_size=16, **more), 3)  # type: ignore[arg-type]


def test_the_splits_are_those_of_the_data_they_were_written_from(digits: Path) -> None:
    names = {path.name for path in digits.iterdir()}
    assert {"class_names.txt", "train-00002-images.npy", "test-00000-labels.npy"} <= names
    assert len(names) == 2 + 2 * (3 + 1)
    one, other = load(digits), datasets.load(Data(name="digits", image_size=16), 3)
    assert one.class_names == other.class_names
    for name in ("train", "validation", "test"):
        rows = np.arange(len(getattr(other, name)))[::-1]
        for found, expected in zip(
            getattr(one, name).batch(rows), getattr(other, name).batch(rows), strict=True
        ):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "rows",
    [
        slice(0, 7),
        slice(495, 1005),
        slice(None, None, 300),
        [3, 1, 2, 499, 500, 501, 0, 1436],
        np.array([], int),
        5,
    ],
)
def test_rows_are_those_of_the_whole_array(digits: Path, rows: object) -> None:
    paths = sorted(digits.glob("train-*-images.npy"))
    whole = np.concatenate([np.load(path) for path in paths])
    found = Shards(paths)
    assert found.shape == whole.shape
    assert found.nbytes == whole.nbytes
    np.testing.assert_array_equal(found[rows], whole[rows])  # type: ignore[index]
    np.testing.assert_array_equal(np.asarray(found), whole)


def test_few_files_are_open_at_a_time(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "OPEN", 2)
    found = Shards(sorted(digits.glob("train-*-images.npy")))
    whole = np.asarray(found)
    order = np.random.default_rng(0).permutation(len(found))
    np.testing.assert_array_equal(found[order], whole[order])
    assert len(found._files) == 2


def test_a_limit_draws_from_them_and_features_are_computed_from_them(digits: Path, tmp_path: Path) -> None:
    dataset = load(digits, limit=100)
    assert len(dataset.train) + len(dataset.validation) == 100
    experiment = Experiment.model_validate({"data": {"cache": str(tmp_path)}})

    def mean(images: np.ndarray) -> np.ndarray:
        return images.mean(axis=(1, 2))

    replaced = features.replace_images(dataset, [], mean, experiment, "keras")
    images, _ = dataset.train.batch([4, 2])
    np.testing.assert_array_equal(replaced.train.batch([4, 2])[0], mean(images))


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda root: (root / "class_names.txt").unlink(), "no folder of shards"),
        (lambda root: (root / "class_names.txt").write_text("0\n1\n"), "labels reach 9"),
        (lambda root: (root / "test-00000-images.npy").unlink(), "no test-00000-images.npy"),
        (lambda root: (root / "train-00001-labels.npy").unlink(), "train-00001-labels.npy: cannot be read"),
        (lambda root: (root / "train-00001-images.npy").write_bytes(b"no"), "cannot be read"),
        (lambda root: np.save(root / "train-00001-labels.npy", np.zeros(3, int)), "500 images, but labels"),
        (lambda root: np.save(root / "train-00001-images.npy", np.zeros((5, 4))), "shards hold uint8"),
        (lambda root: pipe(root / "class_names.txt"), "no regular file: class_names.txt"),
        (lambda root: pipe(root / "train-00001-images.npy"), r"train-00001-images.npy: .*no regular file"),
        (lambda root: pipe(root / "test-00000-labels.npy"), r"test-00000-labels.npy: .*no regular file"),
        (
            lambda root: (root / "reading.json").write_text('{"background": "#000000", "bits": 16}'),
            "was written with data.background #000000: --data.background '#000000'",
        ),
        (lambda root: (root / "reading.json").write_text('{"bits'), "reading.json: cannot be read"),
        (lambda root: (root / "reading.json").write_text('{"bit": 1}'), "reading.json: cannot be read"),
        (lambda root: (root / "reading.json").write_text("[]"), "reading.json: cannot be read"),
        (lambda root: (root / "reading.json").write_text('{"bits": 12}'), "data.bits 12: --data.bits '12'"),
        (lambda root: Writer(root, "val", 1), "holds images of 16 pixels: --data.image_size 16"),
        (
            lambda root: np.save(root / "train-00001-images.npy", np.zeros((500, 4, 4, 3), np.uint8)),
            "differ in their images' size",
        ),
    ],
)
def test_what_is_wrong_is_named(digits: Path, tmp_path: Path, break_it, said: str) -> None:
    root = tmp_path / "copy"
    shutil.copytree(digits, root)
    break_it(root)
    with pytest.raises(DataError, match=said):
        read_shards(root, 32 if "of 16 pixels" in said else 16, DEFAULTS)


def test_a_file_that_ends_early_is_named(digits: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(digits, root)
    pool = read_shards(root, 16, DEFAULTS)
    with (root / "train-00001-images.npy").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(DataError, match="ends early"):
        pool.images[np.array([600])]


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


def test_classes_are_named_line_by_line(digits: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(digits, root)
    names = ["a\u2028b", "\u00e9", "x y", *"3456789"]
    (root / "class_names.txt").write_bytes("\r\n".join(names).encode() + b"\r\n")
    assert read_shards(root, 16).class_names == ("a\\u2028b", "\u00e9", "x y", *"3456789")
    (root / "class_names.txt").write_bytes(b"caf\xe9\n" + b"\n".join(b"%d" % i for i in range(1, 10)))
    assert read_shards(root, 16).class_names[0] == "caf\\xe9"
    (root / "class_names.txt").write_bytes(b"1\n" + b"\n".join(b"%d" % i for i in range(1, 10)))
    with pytest.raises(DataError, match="two classes of one name, '1'"):
        load(root)
