"""Image modes, decoding processes, the cache."""

from __future__ import annotations

import os
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pictures import GREEN, RED, fill, save
from PIL import Image

from experiment import decoding, folder
from experiment.decoding import kept
from experiment.download import DataError
from experiment.files import full
from experiment.folder import Pool, read_folder


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Pool]:
    def read(root: Path, size: int = 8, max_unreadable: float = 0.0) -> Pool:
        return read_folder(root, size, tmp_path / "cache", max_unreadable)

    return read


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the files of each decoding that really happens."""
    counts = []

    def counting(files: list[Path], size: int, out: Path) -> None:
        counts.append(len(files))
        decoding.decode_files(files, size, out)

    monkeypatch.setattr(folder, "decode_files", counting)
    return counts


# === Image modes ===


def save_modes(root: Path) -> dict[str, tuple[int, int, int]]:
    """One file of each kind, and the RGB that it should decode to (at the left edge)."""
    (root / "a").mkdir(parents=True)
    save(root / "b" / "x.png", RED)
    rgb = Image.new("RGB", (12, 10), RED)
    rgb.convert("P", palette=Image.Palette.ADAPTIVE).save(root / "a" / "palette.png")
    rgb.convert("CMYK").save(root / "a" / "cmyk.tif")
    Image.new("RGBA", (12, 10), (*RED, 128)).save(root / "a" / "rgba.png")
    Image.new("LA", (12, 10), (77, 128)).save(root / "a" / "la.png")
    Image.new("1", (12, 10), 1).save(root / "a" / "bits.png")
    Image.fromarray(np.full((10, 12), 64_000, np.uint16)).save(root / "a" / "grey16.png")
    Image.fromarray(np.full((10, 12), 65_535, np.int32)).save(root / "a" / "grey32.tif")
    frames = [Image.new("RGB", (12, 10), colour) for colour in (RED, GREEN)]
    frames[0].save(root / "a" / "animated.gif", save_all=True, append_images=frames[1:])
    # orientation 6: shown turned clockwise, so the bottom of what is stored becomes the left
    stored = np.zeros((20, 20, 3), np.uint8)
    stored[10:] = RED
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stored).save(root / "a" / "turned.png", exif=exif)
    return {
        "animated.gif": RED,
        "bits.png": (255, 255, 255),
        "cmyk.tif": RED,
        "grey16.png": (249, 249, 249),
        "grey32.tif": (255, 255, 255),
        "la.png": (77, 77, 77),
        "palette.png": RED,
        "rgba.png": RED,
        "turned.png": RED,
    }


def test_every_mode_becomes_rgb(read, tmp_path: Path) -> None:
    expected = save_modes(tmp_path / "d")
    pool = read(tmp_path / "d")
    for name, image, colour in zip(expected, pool.images, expected.values(), strict=False):
        assert image[:, 0].tolist() == [list(colour)] * 8, name
    assert (pool.images[8, :, 7] == 0).all()


def test_resize_is_bilinear_and_fills_the_square(read, tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(3).integers(0, 256, (30, 14, 3), dtype=np.uint8))
    fill(tmp_path / "d", count=1)
    noise.save(tmp_path / "d" / "apple" / "noise.png")
    image = read(tmp_path / "d", size=9).images[1]
    np.testing.assert_array_equal(image, np.asarray(noise.resize((9, 9), Image.Resampling.BILINEAR)))


# === Processes ===


def test_processes_decode_what_threads_decode(read, tmp_path: Path, monkeypatch) -> None:
    root = tmp_path / "d"
    save_modes(root)
    fill(root, ("c", "d"), count=20)
    (root / "c" / "5.png").write_bytes(b"?")
    threads = read(root, max_unreadable=1.0)
    expected = threads.images.copy()
    monkeypatch.setattr(decoding, "PROCESSES_FROM", 1)
    monkeypatch.setattr(decoding, "CHUNK", 7)
    monkeypatch.setattr(decoding, "_decode_in_threads", None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "json.py").write_text("raise SystemExit('a file of the user shadows the library')")
    processes = read_folder(root, 8, tmp_path / "other", 1.0)
    np.testing.assert_array_equal(processes.images, expected)
    np.testing.assert_array_equal(processes.train, threads.train)
    assert len(threads.train) == 9 + 1 + 39


def test_dying_process_is_a_data_error(read, tmp_path: Path, monkeypatch) -> None:
    fill(tmp_path / "d")
    monkeypatch.setattr(decoding, "PROCESSES_FROM", 1)
    monkeypatch.setattr(decoding.sys, "executable", shutil.which("true"))
    with pytest.raises(DataError, match=r"died between .*apple/0.png and .*pear/2.png"):
        read(tmp_path / "d")
    assert os.listdir(tmp_path / "cache" / "arrays") == []


# === Cache ===


def test_second_load_does_not_decode(read, tmp_path: Path, decoded: list[int]) -> None:
    fill(tmp_path / "d")
    first, second = read(tmp_path / "d"), read(tmp_path / "d")
    assert decoded == [6]
    np.testing.assert_array_equal(first.images, second.images)
    assert not second.images.flags.writeable


def test_changed_byte_name_or_size_decodes_again(read, tmp_path: Path, decoded: list[int]) -> None:
    root = tmp_path / "d"
    path = root / "pear" / "1.bmp"
    fill(root)
    save(path, GREEN)
    read(root)
    content = bytearray(path.read_bytes())
    content[-3:] = b"\xff\xff\xff"
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert read(root).images[4].max() > max(GREEN)
    assert len(decoded) == 2
    path.rename(root / "pear" / "1.gif")  # sorts where it was
    read(root)
    read(root, size=10)
    assert len(decoded) == 4


@pytest.mark.parametrize("damage", ["truncated", "altered", "absent", "no digests"])
def test_damaged_cache_is_never_read(read, tmp_path: Path, decoded: list[int], damage: str) -> None:
    fill(tmp_path / "d")
    expected = read(tmp_path / "d").images.copy()
    (entry,) = (tmp_path / "cache" / "arrays").iterdir()
    content = (entry / "images.npy").read_bytes()
    if damage == "truncated":
        (entry / "images.npy").write_bytes(content[:-100])
    elif damage == "altered":
        (entry / "images.npy").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "absent":
        (entry / "unreadable.npy").unlink()
    else:
        (entry / "sha256.json").write_text("{")
    np.testing.assert_array_equal(read(tmp_path / "d").images, expected)
    assert decoded == [6, 6]


def test_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def build(out: Path) -> None:
        np.save(out / "images.npy", np.zeros(3))
        raise OSError("disk full")

    with pytest.raises(DataError, match=r"disk full\nname another --data.cache"):
        kept(tmp_path, "key", build)
    assert list((tmp_path / "arrays").iterdir()) == []


def test_two_builds_at_once_agree(tmp_path: Path) -> None:
    def slow(out: Path) -> None:
        kept(tmp_path, "key", lambda inner: np.save(inner / "images.npy", np.arange(3)))
        np.save(out / "images.npy", np.arange(3) + 10)

    assert kept(tmp_path, "key", slow)["images"].tolist() == [0, 1, 2]


def test_unwritable_cache_is_a_data_error(tmp_path: Path) -> None:
    fill(tmp_path / "d")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="cannot keep images in"):
        read_folder(tmp_path / "d", 8, tmp_path / "file", 0.0)


def test_too_small_a_disk_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="do not fit"):
        decoding.blank_images(tmp_path, 10**12, 512)


def test_a_cache_on_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        with pytest.raises(DataError, match=r"File too large\nname another --data.cache") as caught:
            kept(tmp_path, "key", lambda out: np.save(out / "images.npy", np.zeros(10_000)))
        with pytest.raises(OSError, match="File too large"):  # before it is written to
            decoding.blank_images(tmp_path, 10, 64)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert full(caught.value)
    assert list((tmp_path / "arrays").iterdir()) == []


def test_what_a_killed_build_left_is_removed_by_the_next(tmp_path: Path) -> None:
    left, recent, going_on = (tmp_path / "arrays" / f".building-{n}" for n in ("left", "recent", "going_on"))
    for place in (left, recent, going_on):
        place.mkdir(parents=True)
        (place / "images.npy").write_text("half")
    long_ago = time.time() - 1e5
    for place in (left, going_on):
        os.utime(place, (long_ago, long_ago))
    with decoding._in_use(going_on):
        kept(tmp_path, "key", lambda out: np.save(out / "images.npy", np.zeros(3)))
    assert {path.name for path in (tmp_path / "arrays").iterdir()} == {"key", recent.name, going_on.name}
