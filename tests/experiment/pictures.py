"""Folders of small images, for the tests that read them."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

RED, GREEN = (200, 10, 30), (20, 180, 40)


def save(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (12, 10)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def fill(root: Path, classes: tuple[str, ...] = ("apple", "pear"), count: int = 3) -> None:
    """Images of one colour a class: the first class RED, the others GREEN, red channel + number."""
    for name in classes:
        base = RED if name == classes[0] else GREEN
        for i in range(count):
            save(root / name / f"{i}.png", (base[0] + i, *base[1:]))


def save_wide(path: Path, value: int) -> None:
    """An RGB image of 16 bits a channel, each of them `value`, which Pillow reads and does not write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.full((4, 12), value, ">u2")
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b""))
