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
from pictures import GREEN, RED, fill, save, save_wide
from PIL import Image

from experiment.data import decoding, folder
from experiment.data.decoding import DEFAULTS, Reading, kept
from experiment.data.folder import Pool, read_folder
from experiment.errors import DataError
from experiment.system.files import full, lock


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Pool]:
    def read(root: Path, size: int = 8, max_unreadable: float = 0.0, reading: Reading = DEFAULTS) -> Pool:
        return read_folder(root, size, tmp_path / "cache", max_unreadable, reading=reading)

    return read


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the files of each decoding that really happens."""
    counts = []

    def counting(files: list[Path], size: int, out: Path, reading: Reading) -> None:
        counts.append(len(files))
        decoding.decode_files(files, size, out, reading)

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
        "la.png": (166, 166, 166),  # half of it white, as the next but one
        "palette.png": RED,
        "rgba.png": (227, 132, 142),
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


# === Choices that are recorded ===


def strokes(path: Path, colour: int = 0) -> None:
    """Strokes of one grey on a transparent ground."""
    pixels = np.full((12, 12, 4), colour, np.uint8)
    pixels[..., 3] = 0
    pixels[4:8, :, 3] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_transparent_images_are_laid_over_a_ground_and_counted(read, tmp_path: Path, capsys, decoded) -> None:
    root = tmp_path / "d"
    fill(root)
    strokes(root / "apple" / "black.png")
    strokes(root / "apple" / "white.png", 255)
    Image.new("RGBA", (12, 12), (*RED, 255)).save(root / "pear" / "opaque.png")
    for reading, ground, lost in (
        (DEFAULTS, 255, "white.png"),
        (Reading("#000000", 16), 0, "black.png"),
        (DEFAULTS, 255, "white.png"),
    ):
        images = read(root, size=12, reading=reading).images
        black, white = images[3], images[4]
        assert (black[5].max(), black[0].min()) == (0, ground)
        assert (white[5].min(), white[0].max()) == (255, ground)
        [flat] = {image.tobytes() for image in (black, white) if not np.ptp(image)}
        assert flat == (black if lost == "black.png" else white).tobytes()
        said = capsys.readouterr().err.splitlines()[-1]
        colour = "#ffffff" if ground else "#000000"
        assert said == (
            f"2 of 9 images have transparent parts: laid over {colour}, on which 1 can no longer be seen "
            "(data.background)"
        )
    assert decoded == [9, 9], "a changed ground decodes again, and does not overwrite"
    fill(tmp_path / "plain")
    assert read(tmp_path / "plain").note is None


def deep(root: Path, peak: int, count: int = 3, name: str = "deep") -> None:
    for label in ("apple", "pear"):
        (root / label).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.fromarray(np.full((12, 12), peak - i, np.uint16)).save(root / label / f"{name}{i}.png")


@pytest.mark.parametrize(
    ("peak", "bits", "level", "dark"),
    [
        (
            255,
            16,
            1,
            "hold no value above 255, dark where 65535 is white; if 255 is white: train with --data.bits 8",
        ),
        (1000, 16, 4, "above 1023, dark where 65535 is white; if 1023 is white: train with --data.bits 10"),
        (4000, 16, 16, "above 4095, dark where 65535 is white; if 4095 is white: train with --data.bits 12"),
        (
            16000,
            16,
            62,
            "above 16383, dark where 65535 is white; if 16383 is white: train with --data.bits 14",
        ),
        (17000, 16, 66, None),
        (65535, 16, 255, None),
        (4000, 12, 249, None),
        (1000, 12, 62, "above 1023, dark where 4095 is white"),
        (255, 8, 255, None),
    ],
)
def test_values_of_fewer_bits_than_the_file_has_are_scaled_or_warned_of(
    read, tmp_path: Path, peak: int, bits: int, level: int, dark: str | None
) -> None:
    deep(tmp_path / "d", peak)
    pool = read(tmp_path / "d", reading=Reading("#ffffff", bits))
    assert abs(int(pool.images.max()) - level) <= 1
    if dark is None:
        assert pool.note is None
    else:
        assert pool.note is not None
        assert pool.note.startswith("6 of 6 grey images of more than 8 bits a channel")
        assert dark in pool.note


def test_a_few_bright_ones_do_not_hide_that_most_are_dark(read, tmp_path: Path) -> None:
    root = tmp_path / "d"
    deep(root, 4000, count=4)
    deep(root, 65535, count=2, name="bright")
    assert read(root).note.startswith("8 of 12 grey images")
    deep(root, 65535, count=5, name="bright")
    assert read(root).note is None
    with pytest.raises(
        DataError, match=r"bright0.png \(values from 65535 to 65535, not 0 to 4095 \(data.bits\)"
    ):
        read(root, reading=Reading("#ffffff", 12))


def test_colour_images_of_which_pillow_keeps_the_upper_bits_are_warned_of(read, tmp_path: Path) -> None:
    for name, value in (("apple", 4000), ("pear", 4000), ("plum", 60000)):
        save_wide(tmp_path / "d" / name / "0.png", value)
    pool = read(tmp_path / "d")
    assert pool.images[:, 0, 0, 0].tolist() == [4000 >> 8, 4000 >> 8, 60000 >> 8]
    assert pool.note == (
        "2 of 3 colour images of more than 8 bits a channel hold no value above 4095, dark where 65535 is "
        "white; if 4095 is white: convert them to 8 bits a channel"
    )


def test_no_file_is_an_image_that_is_not_a_regular_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", Path("/dev/zero"), tmp_path):
        with pytest.raises(decoding.UnfitError, match="no regular file"):
            decoding.decode(path, 8, DEFAULTS)


def test_a_page_description_is_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would start Ghostscript for it, whatever the file is called."""
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with pytest.raises(OSError, match="cannot identify image file"):
        decoding.decode(tmp_path / "a.png", 8, DEFAULTS)


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
    with lock(going_on):
        kept(tmp_path, "key", lambda out: np.save(out / "images.npy", np.zeros(3)))
    assert {path.name for path in (tmp_path / "arrays").iterdir()} == {"key", recent.name, going_on.name}
