"""A data set in Parquet files, as Hugging Face's `datasets` writes one of images.

ROOT, or ROOT/data, holds train-00000-of-00003.parquet and so on, also for test and validation where there is
such a split: a column of images, struct{bytes, path}, and one of labels, and what they are called in the
schema's metadata, under "huggingface". The images are decoded once, into an array in the cache, of which
training reads the rows of each batch where they lie: what grows in memory with their number is their labels,
rows, order and digests, 32 bytes an image.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL
from PIL import Image

from experiment.data.decoding import DEFAULTS, Reading, decode_table, kept
from experiment.data.folder import Pool, readable
from experiment.errors import DataError
from experiment.system.files import replacing
from experiment.system.names import brief, printable

if TYPE_CHECKING:  # it takes a while to import, and no other data set needs it
    import pyarrow as pa

SPLITS = ("train", "test", "validation")
GROUP = 256  # images of a row group, which is read at once


class Rows:
    """An .npy file of images (M, S, S, 3) uint8 as an array: only the rows that are asked for are read.

    Not memory-mapped: pages that were looked at would count as the process's memory.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, images: np.ndarray, path: Path) -> None:
        self.shape, self.nbytes, self.path = images.shape, images.nbytes, path
        self._stride = self.nbytes // max(len(images), 1)
        self._file = path.open("rb", buffering=0)
        self._start = os.fstat(self._file.fileno()).st_size - self.nbytes

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        rows = np.asarray(rows, dtype=np.int64)
        if rows.ndim == 0:
            return self[rows[None]][0]
        images = np.empty((len(rows), *self.shape[1:]), np.uint8)
        # Rows that lie one after another are read at once.
        ends = [*(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)] if len(rows) else []
        for start, end in zip([0, *ends], ends, strict=False):
            self._read(int(rows[start]), images[start:end].reshape(-1).data)
        return images

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype)

    def _read(self, row: int, wanted: memoryview) -> None:
        place = self._start + row * self._stride
        while wanted:  # by place, since threads and forked processes share the file
            if not (count := os.preadv(self._file.fileno(), [wanted], place)):
                raise DataError(f"{self.path}: ends early: remove it")
            wanted, place = wanted[count:], place + count


def read_table(
    root: Path, image_size: int, cache: Path, max_unreadable: float, reading: Reading = DEFAULTS
) -> Pool:
    """The pool of a folder of Parquet files.

    Images of any mode and size become RGB, `image_size` pixels square, resized bilinearly without keeping
    their aspect. Raises DataError: no training files, files that are missing or no such table, labels
    that have no class, more than `max_unreadable` (a share) of the images unreadable.
    """
    paths = {split: _files(root, split) for split in SPLITS}
    if not paths["train"]:
        raise DataError(f"{root} has no train-*.parquet: write it with python -m experiment shards")
    tables = [path for split in SPLITS for path in paths[split]]
    content = hashlib.sha256(PIL.__version__.encode())
    names, labels, image, counts = None, [], "", []
    for path in tables:
        image, label, known = _columns(path)
        names = names or known
        values, groups = _labels(path, label)
        labels.append(values)
        counts.append((path, groups))
        with path.open("rb") as file:
            content.update(hashlib.file_digest(file, "sha256").digest())
    class_names, numbers = _numbered(root, names, np.concatenate(labels))

    choices = f"{reading.background.removeprefix('#')}-{reading.bits}bit"
    key = f"parquet-{image_size}px-{choices}-{content.hexdigest()[:40]}"
    arrays = kept(cache, key, lambda out: decode_table(counts, image, image_size, out, reading))
    places = [f"{path.name} row {row}" for path, groups in counts for row in range(sum(groups))]
    whole, notes = readable(root, places, arrays, max_unreadable, reading)
    of_split = np.repeat([split_of(path) for path, _ in counts], [sum(groups) for _, groups in counts])
    rows = {split: whole[of_split[whole] == split] for split in SPLITS}
    for split in SPLITS:
        if paths[split] and not len(rows[split]):
            raise DataError(f"{root}: no image of the {split} split can be read: repair or remove its files")
    return Pool(
        class_names,
        Rows(arrays["images"], cache / "arrays" / key / "images.npy"),
        numbers,
        rows["train"],
        rows["test"] if paths["test"] else None,
        rows["validation"] if paths["validation"] else None,
        "; ".join(notes) or None,
    )


def split_of(path: Path) -> str:
    """The split that a file's name begins with."""
    return path.stem.split("-")[0]


def _files(root: Path, split: str) -> list[Path]:
    """A split's files, in order; raises DataError where some of those that the names count are missing."""
    found = [*root.glob(f"{split}-*.parquet"), *root.glob(f"{split}.parquet")]
    found = sorted(found or [*root.glob(f"data/{split}-*.parquet"), *root.glob(f"data/{split}.parquet")])
    for path in found:
        if not path.is_file():  # a pipe would be waited for
            raise DataError(f"{path}: cannot be read (no regular file)")
        whole = re.search(r"-of-(\d+)", path.name)
        if whole is not None and len(found) != int(whole[1]):
            raise DataError(
                f"{path.parent} holds {len(found)} of {int(whole[1])} files {split}-*: add the rest"
            )
    return found


def _columns(path: Path) -> tuple[str, str, list[str] | None]:
    """The columns of images and of labels, and the names of the classes, if the file tells them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
        said = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = said.get("info", {}).get("features", {})
        kinds = {name: features.get(name, {}).get("_type") for name in schema.names}
    except (OSError, ValueError, AttributeError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read ({brief(error)})") from error
    images = [name for name in schema.names if kinds[name] == "Image"]
    structs = [field for field in schema if pa.types.is_struct(field.type)]
    images += [field.name for field in structs if field.type.get_field_index("bytes") >= 0]
    labels = [name for name in schema.names if kinds[name] == "ClassLabel"]
    labels += [name for name in ("label", "labels") if name in schema.names]
    if not images or not labels:
        lacking = "images (struct of bytes and path)" if not images else "labels"
        raise DataError(f"{path}: no column of {lacking} among {', '.join(schema.names)}")
    names = features.get(labels[0], {}).get("names")
    return images[0], labels[0], [printable(str(name)) for name in names] if names else None


def _labels(path: Path, column: str) -> tuple[np.ndarray, list[int]]:
    """The labels of a file's rows, and how many rows each of its groups has."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
            values = file.read([column]).column(0).combine_chunks()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read ({brief(error)})") from error
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    kind = values.type
    texts = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if values.null_count or not (texts or pa.types.is_integer(kind)):
        held = f"{kind}, {values.null_count} of {len(values)} null"
        raise DataError(f"{path}: {column} holds {held}: give every row the number or the name of a class")
    return values.to_numpy(zero_copy_only=False), groups


def _numbered(root: Path, names: list[str] | None, labels: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """The class names, and each label's number among them."""
    if labels.dtype.kind in "OU":
        found, numbers = np.unique(labels.astype(str), return_inverse=True)
        return tuple(map(printable, found)), numbers.astype(np.int64)
    names = names or [str(number) for number in range(int(labels.max(initial=-1)) + 1)]
    if labels.min(initial=0) < 0 or labels.max(initial=-1) >= len(names):
        raise DataError(f"{root}: labels from {labels.min()} to {labels.max()}, for {len(names)} classes")
    return tuple(names), labels.astype(np.int64)


def schema_of(class_names: Sequence[str]) -> pa.Schema:
    """The schema of a table of images of these classes, with Hugging Face's metadata."""
    import pyarrow as pa

    features = {"image": {"_type": "Image"}, "label": {"names": list(class_names), "_type": "ClassLabel"}}
    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema({"image": image, "label": pa.int64()}, metadata)


def write_file(path: Path, images: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> None:
    """Write uint8 (N, S, S, 3) images, as PNG, and (N,) labels into one Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def encoded(image: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()

    rows = [{"bytes": encoded(image), "path": None} for image in images]
    table = pa.table({"image": rows, "label": labels.astype(np.int64)}, schema_of(class_names))
    with replacing(path) as temporary:
        pq.write_table(table, temporary, row_group_size=GROUP, compression="none")
