"""Folders of small images, for the tests that read them."""

from __future__ import annotations

from pathlib import Path

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
