"""TFLite Metadata: what a file says of its images and classes, read by MediaPipe and the Task Library.

A FlatBuffer of Google's metadata_schema.fbs among the model's buffers, and the files that it names in a zip
archive behind the model. No library that still installs writes it: its tables are written by their slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LABELS = "labels.txt"
FACTS = "metadata.json"
RGB = np.uint8(1)  # of ColorSpaceType
IMAGE_PROPERTIES = np.uint8(2)  # of ContentProperties
NORMALISATION = np.uint8(1)  # of ProcessUnitOptions
AXIS_LABELS = np.uint8(2)  # of AssociatedFileType


@dataclass(frozen=True)
class Table:
    """A table of a FlatBuffer: by slot a text, number, table, or list of tables or of floats."""

    fields: dict[int, Any]

    def write(self, builder) -> int:
        """Write it behind what it refers to; returns where it stands."""
        kept = {slot: _write(builder, value) for slot, value in self.fields.items()}
        builder.StartObject(max(kept) + 1)
        for slot, value in kept.items():
            if type(value) is np.uint8:
                builder.PrependUint8Slot(slot, int(value), 0)
            elif type(value) is np.uint32:
                builder.PrependUint32Slot(slot, int(value), 0)
            else:
                builder.PrependUOffsetTRelativeSlot(slot, value, 0)
        return builder.EndObject()


def _write(builder, value: Any) -> Any:
    """A number as it is; of anything else, written now, where it stands."""
    if type(value) in (np.uint8, np.uint32):
        return value
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, Table):
        return value.write(builder)
    if isinstance(value[0], float):
        return builder.CreateNumpyVector(np.array(value, np.float32))
    places = [table.write(builder) for table in value]
    builder.StartVector(4, len(places), 4)
    for place in reversed(places):
        builder.PrependUOffsetTRelative(place)
    return builder.EndVector()


def describe(model: bytes, size: int) -> bytes:
    """The model with its metadata: RGB images of `size` as they are (0 to 255), and one score a label."""
    import flatbuffers
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    builder = flatbuffers.Builder()
    builder.Finish(_metadata(size).write(builder), b"M001")
    content = flatbuffer_utils.read_model_from_bytearray(bytearray(model))
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(builder.Output(), np.uint8)
    entry.name, entry.buffer = "TFLITE_METADATA", len(content.buffers)
    content.buffers.append(buffer)
    content.metadata = [*(content.metadata or []), entry]
    return flatbuffer_utils.convert_object_to_bytearray(content)


def _metadata(size: int) -> Table:
    """ModelMetadata of one graph from images to probabilities."""
    image_size = Table({0: np.uint32(size), 1: np.uint32(size)})
    content = Table({0: IMAGE_PROPERTIES, 1: Table({0: RGB, 1: image_size})})
    as_they_are = Table({0: NORMALISATION, 1: Table({0: [0.0], 1: [1.0]})})  # mean, standard deviation
    images = {
        0: "images",
        1: "RGB as it comes from an image file.",
        3: content,
        4: [as_they_are],
        5: Table({0: [255.0], 1: [0.0]}),  # largest, smallest
    }
    labels = Table({0: LABELS, 1: "The classes, one a line.", 2: AXIS_LABELS})
    probabilities = {
        0: "probabilities",
        1: "Of every class.",
        5: Table({0: [1.0], 1: [0.0]}),
        6: [labels],
    }
    facts = Table({0: FACTS, 1: "Class names, image size, the run and its configuration."})
    graph = Table({2: [Table(images)], 3: [Table(probabilities)]})
    # Slot 7: the oldest parser that reads it.
    return Table({0: "Image classifier", 3: [graph], 6: [facts], 7: "1.0.0"})


def labels(class_names: Sequence[str]) -> str:
    """The text of labels.txt: one line a class."""
    return "".join(" ".join(name.splitlines()) + "\n" for name in class_names)
