"""One image, several ways in: what training and predict read of a file, parity/deployed.py reads of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from experiment.data.decoding import DEFAULTS, Reading, decode, decode_files
from experiment.deploy import prediction
from parity import deployed

SIZE = 6
GROUND = (0x30, 0x60, 0x90)
OTHER = Reading("#306090", 12)

# How what is stored is turned to be upright: EXIF's orientations.
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: np.swapaxes(stored, 0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(np.swapaxes(stored, 0, 1), 2),
    8: lambda stored: np.rot90(stored, 1),
}


def noise(top: int, *bands: int, dtype: Any = np.uint8) -> np.ndarray:
    return np.random.default_rng(7).integers(0, top, (SIZE, SIZE, *bands), dtype=np.int64).astype(dtype)


def palette() -> list[int]:
    return [255, 0, 0, 0, 255, 0, 0, 0, 255, 90, 80, 70]


def grey(levels: np.ndarray) -> np.ndarray:
    return np.repeat(levels[..., None], 3, 2).astype(float)


def over(colours: np.ndarray, alpha: np.ndarray, ground: tuple[int, int, int]) -> np.ndarray:
    share = alpha[..., None] / 255
    return colours * share + np.array(ground) * (1 - share)


def paletted(stored: np.ndarray) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(stored))
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette(palette())
    return image


def of_bands(mode: str, stored: np.ndarray) -> Image.Image:
    return Image.frombytes(mode, (stored.shape[1], stored.shape[0]), np.ascontiguousarray(stored).tobytes())


Case = tuple[np.ndarray, Callable[[np.ndarray], Image.Image], str, dict[str, Any], Callable[..., Any]]


def case(kind: str) -> Case:
    """Values that are upright, an image of them, its format and settings, and the RGB that is expected.

    What is expected hangs on the values, the ground and the bits.
    """
    colours = np.array(palette()).reshape(4, 3)
    if kind == "1":
        bits = noise(2) * 255
        return bits, lambda s: Image.fromarray(s).convert("1"), "PNG", {}, lambda v, g, b: grey(v)
    if kind in ("L", "L tRNS"):
        settings, hidden = ({"transparency": 60}, 60) if "tRNS" in kind else ({}, -1)
        return (
            noise(6) * 20,
            lambda s: Image.fromarray(np.ascontiguousarray(s)),
            "PNG",
            settings,
            lambda v, g, b: over(grey(v), np.where(v == hidden, 0, 255), g),
        )
    if kind in ("LA", "La"):
        values = noise(256, 2)
        if kind == "La":
            values[..., 0] = values[..., 0] * (values[..., 1] / 255)
        return values, lambda s: of_bands(kind, s), "PNG", {}, lambda v, g, b: _grey_alpha(v, g, kind)
    if kind in ("P", "P tRNS"):
        alphas = [0, 255, 100, 255] if "tRNS" in kind else [255] * 4
        return (
            noise(4),
            paletted,
            "PNG",
            {"transparency": bytes(alphas)} if "tRNS" in kind else {},
            lambda v, g, b: over(colours[v].astype(float), np.array(alphas)[v], g),
        )
    if kind == "PA":

        def with_alpha(stored: np.ndarray) -> Image.Image:
            image = paletted(stored[..., 0]).convert("PA")
            image.putalpha(Image.fromarray(np.ascontiguousarray(stored[..., 1])))
            return image

        values = np.stack([noise(4), noise(256)], 2)
        return (
            values,
            with_alpha,
            "TIFF",
            {},
            lambda v, g, b: over(colours[v[..., 0]].astype(float), v[..., 1], g),
        )
    if kind == "RGB tRNS":
        values = noise(2, 3) * 200
        return (
            values,
            lambda s: of_bands("RGB", s),
            "PNG",
            {"transparency": (200, 0, 200)},
            lambda v, g, b: over(v.astype(float), np.where((v == (200, 0, 200)).all(2), 0, 255), g),
        )
    if kind == "RGBA":
        return (
            noise(256, 4),
            lambda s: of_bands("RGBA", s),
            "PNG",
            {},
            lambda v, g, b: over(v[..., :3].astype(float), v[..., 3], g),
        )
    if kind == "RGBX":
        return (
            noise(256, 4),
            lambda s: of_bands("RGBX", s),
            "TIFF",
            {},
            lambda v, g, b: v[..., :3].astype(float),
        )
    if kind in ("RGB", "CMYK", "YCbCr", "LAB", "HSV"):
        bands = len(Image.new(kind, (1, 1)).getbands())
        return (
            noise(256, bands),
            lambda s: of_bands(kind, s),
            "PNG" if kind == "RGB" else "TIFF",
            {},
            lambda v, g, b: np.asarray(of_bands(kind, v).convert("RGB")).astype(float),
        )
    if kind == "F":
        values = np.random.default_rng(7).random((SIZE, SIZE)).astype(np.float32)
        return values, _array, "TIFF", {}, lambda v, g, b: grey(v * 255)
    if kind == "I;16 tRNS":
        return (
            noise(4) * np.uint16(1000),
            _array,
            "PNG",
            {"transparency": 2000},
            lambda v, g, b: over(grey(v / (2**b - 1) * 255), np.where(v == 2000, 0, 255), g),
        )
    dtype, kind_of_file = {
        "I": (np.int32, "TIFF"),
        "I;16": (np.uint16, "PNG"),
        "I;16B": (">u2", "TIFF"),
        "I;16 TIFF": (np.uint16, "TIFF"),
    }[kind]
    make = (lambda s: of_bands("I;16B", s)) if kind == "I;16B" else _array
    return noise(4096, dtype=dtype), make, kind_of_file, {}, lambda v, g, b: grey(v / (2**b - 1) * 255)


def _array(stored: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(stored))


def _grey_alpha(values: np.ndarray, ground: tuple[int, int, int], kind: str) -> np.ndarray:
    levels, alpha = values[..., 0].astype(float), values[..., 1]
    if kind == "La":
        levels = np.clip(255 * levels / np.maximum(alpha, 1), 0, 255)
    return over(grey(levels), alpha, ground)


IN_FILES = ("1", "L", "L tRNS", "LA", "P", "P tRNS", "PA", "RGB", "RGB tRNS", "RGBA", "RGBX", "CMYK")
IN_FILES += ("YCbCr", "LAB", "I", "I;16", "I;16 TIFF", "I;16 tRNS", "I;16B", "F")


@pytest.mark.parametrize("reading", [DEFAULTS, OTHER], ids=["defaults", "other"])
@pytest.mark.parametrize("kind", IN_FILES)
def test_every_mode_in_every_orientation_is_read_alike(tmp_path: Path, kind: str, reading: Reading) -> None:
    values, make, form, settings, rgb = case(kind)
    ground = GROUND if reading is OTHER else (255, 255, 255)
    expected, found = rgb(values, ground, reading.bits), []
    paths = [tmp_path / f"{orientation}.{form.lower()}" for orientation in UPRIGHT]
    for (orientation, upright), path in zip(UPRIGHT.items(), paths, strict=True):
        back = UPRIGHT[{6: 8, 8: 6}.get(orientation, orientation)]
        stored = back(values)
        np.testing.assert_array_equal(upright(stored), values)
        exif = Image.Exif()
        exif[0x0112] = orientation
        make(stored).save(path, form, exif=exif, **settings)
        picture = decode(path, SIZE, reading).pixels
        np.testing.assert_allclose(picture, expected, atol=1.01, err_msg=f"{kind}, {orientation}")
        np.testing.assert_array_equal(
            deployed.read(str(path), SIZE, reading.background, reading.bits), picture
        )
        found.append(picture)
    assert np.ptp(found[0], axis=(0, 1)).max() > 10
    assert (np.array(found) == found[0]).all()
    # As training decodes, and as predict reads.
    decode_files(paths, SIZE, tmp_path, reading)
    np.testing.assert_array_equal(np.load(tmp_path / "images.npy"), found)
    np.testing.assert_array_equal(prediction.read(paths, SIZE, reading).images, found)


@pytest.mark.parametrize("kind", ["La", "HSV"])
def test_modes_that_no_file_has_are_read_alike(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    """As a plugin of Pillow's might open them."""
    values, make, _, _, rgb = case(kind)
    (tmp_path / "x").write_bytes(b"")

    def opened(*_: Any, **__: Any) -> Any:
        image: Any = make(values)
        image.tile = []
        return image

    monkeypatch.setattr(Image, "open", opened)
    picture = decode(tmp_path / "x", SIZE, OTHER).pixels
    np.testing.assert_allclose(picture, rgb(values, GROUND, 16), atol=2)
    np.testing.assert_array_equal(deployed.read(str(tmp_path / "x"), SIZE, "#306090", 12), picture)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("negative.tif", np.full((5, 5), -1, np.int32), "values from -1 to -1, not 0 to"),
        ("deep.png", np.full((5, 5), 5000, np.uint16), "values from 5000 to 5000, not 0 to 4095"),
        ("float.tif", np.full((5, 5), 1.5, np.float32), "values from 1.5 to 1.5, not 0 to 1"),
        ("nan.tif", np.full((5, 5), np.nan, np.float32), "values from nan to nan"),
    ],
)
def test_values_of_no_agreed_range_are_refused_alike(
    tmp_path: Path, name: str, content: np.ndarray, reason: str
) -> None:
    Image.fromarray(content).save(tmp_path / name)
    for read in (
        lambda: decode(tmp_path / name, SIZE, OTHER),
        lambda: deployed.read(str(tmp_path / name), SIZE, "#306090", 12),
    ):
        with pytest.raises(ValueError, match=reason):
            read()


def test_a_file_that_says_what_is_white_is_not_scaled_by_the_setting(tmp_path: Path) -> None:
    levels = np.arange(36, dtype=np.uint16).reshape(6, 6) * 117  # to 4095
    header = b"P5 6 6 4095\n"
    (tmp_path / "a.pgm").write_bytes(header + levels.astype(">u2").tobytes())
    for bits in (16, 12):
        picture = decode(tmp_path / "a.pgm", SIZE, Reading("#ffffff", bits))
        np.testing.assert_allclose(picture.pixels[..., 0], levels / 4095 * 255, atol=1)
        assert picture.facts == (0, 0, -1, -1)
        np.testing.assert_array_equal(deployed.read(str(tmp_path / "a.pgm"), SIZE, bits=bits), picture.pixels)


def test_a_tiff_in_which_0_is_white_is_turned_round(tmp_path: Path) -> None:
    levels = np.arange(36, dtype=np.uint16).reshape(6, 6) * 1872
    Image.fromarray(levels).save(tmp_path / "a.tif", tiffinfo={262: 0})
    picture = decode(tmp_path / "a.tif", SIZE, DEFAULTS).pixels
    np.testing.assert_allclose(picture[..., 0], 255 - levels / 257, atol=1)
    np.testing.assert_array_equal(deployed.read(str(tmp_path / "a.tif"), SIZE), picture)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0", b"Exif\0\0II*\0\x08\0\0\0\xff\xff\1\1"]
)
def test_damaged_exif_says_nothing(tmp_path: Path, form: str, exif: bytes) -> None:
    of_bands("RGB", noise(256, 3)).save(tmp_path / "plain", form)
    of_bands("RGB", noise(256, 3)).save(tmp_path / "damaged", form, exif=exif)
    plain, damaged = (decode(tmp_path / name, SIZE, DEFAULTS).pixels for name in ("plain", "damaged"))
    np.testing.assert_array_equal(damaged, plain)
    np.testing.assert_array_equal(deployed.read(str(tmp_path / "damaged"), SIZE), plain)


# === The script ===


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "usage: python deployed.py"),
        (
            ["nowhere.onnx", "a.png"],
            2,
            "error: nowhere.onnx: cannot be read as an exported model (no such file)",
        ),
        (
            ["pipe.onnx", "a.png"],
            2,
            "error: pipe.onnx: cannot be read as an exported model (no regular file)",
        ),
        (["text.onnx", "a.png"], 2, "error: text.onnx: cannot be "),
        (["text.tflite", "a.png"], 2, "error: text.tflite: cannot be "),
    ],
)
def test_its_mistakes_are_told_in_a_line(tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    for name in ("text.onnx", "text.tflite"):
        (tmp_path / name).write_text("no model")
    done = subprocess.run(
        [sys.executable, str(Path(deployed.__file__)), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1


def test_images_that_it_cannot_read_are_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    facts = {"class_names": '["a", "b"]', "image_size": "6", "background": "#000000", "bits": "12"}
    seen: list[np.ndarray] = []

    def classify(images: np.ndarray) -> np.ndarray:
        seen.append(images)
        return np.array([[0.25, 0.75]])

    monkeypatch.setattr(deployed, "open_model", lambda path: (facts, classify))
    (tmp_path / "m.onnx").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "page.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    Image.new("LA", (6, 6), (255, 0)).save(tmp_path / "clear.png")
    Image.fromarray(np.full((6, 6), 4095, np.uint16)).save(tmp_path / "deep.png")
    paths = [str(tmp_path / name) for name in ("pipe.png", "page.png", "gone.png", "clear.png", "deep.png")]
    monkeypatch.setattr(sys, "argv", ["deployed.py", str(tmp_path / "m.onnx"), *paths])
    assert deployed.main() == 1
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert [line.split(" (")[0] for line in lines] == [f"unreadable: {path}" for path in paths[:3]]
    reasons = ("no regular file", "cannot identify image file", "no such file")  # and no Ghostscript
    assert [reason in line for reason, line in zip(reasons, lines, strict=True)] == [True] * 3
    assert said.out.splitlines() == [f"{path}  b 0.7500  a 0.2500" for path in paths[3:]]
    assert [images.max() for images in seen] == [0, 255]
