"""Which files are images, and what is said of the others."""

from __future__ import annotations

import os
import socket
from collections import Counter
from pathlib import Path

import pytest
from pictures import RED, fill, save
from PIL import Image, features

from experiment.data.folder import read_folder
from experiment.data.image_files import COMMON, count_beside, formats, images_below, suffixes, told


def test_suffixes_are_those_of_still_images_that_pillow_reads() -> None:
    usual = {".png", ".jpg", ".jpeg", ".jfif", ".mpo", ".gif", ".bmp", ".tif", ".tiff", ".jp2", ".tga"}
    assert usual | {".pbm", ".pgm", ".ppm", ".ico", ".psd", ".webp"} <= suffixes()
    assert (".avif" in suffixes()) == features.check("avif")
    others = {"", ".pdf", ".eps", ".ps", ".mpg", ".mpeg", ".h5", ".hdf", ".grib", ".wmf", ".emf"}
    assert not others & suffixes()
    assert not {"EPS", "PDF", "MPEG", "HDF5", "WMF", "GRIB", "BUFR"} & {*formats()}
    assert {*formats()[:5]} == {*COMMON}, "the usual ones are tried first"


@pytest.mark.parametrize(
    "name",
    ["a.jfif", "a.JPG", "a.avif", "a.webp", "a.jp2", "a.tif", "a.bmp", "a.gif", "a.tga", "a.ico", "a.qoi"],
)
def test_what_pillow_reads_is_trained_on(tmp_path: Path, name: str) -> None:
    fill(tmp_path / "d", count=1)
    suffix = Path(name).suffix.lower()
    if suffix not in suffixes():
        pytest.skip(f"this Pillow does not read {suffix}")
    form = Image.registered_extensions()[suffix]
    if form not in Image.SAVE:
        pytest.skip(f"this Pillow does not write {suffix}")
    Image.new("RGB", (16, 16), RED).save(tmp_path / "d" / "apple" / name, "JPEG" if form == "JPEG" else form)
    pool = read_folder(tmp_path / "d", 8, tmp_path / "cache", 0.0)
    assert len(pool.train) == 3
    assert abs(pool.images[1].astype(int) - RED).max() <= 6
    assert pool.note is None


def special(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What opening would wait for, or read for ever, each named like an image."""
    monkeypatch.chdir(folder)  # a socket's path may be no longer than 108 bytes
    os.mkfifo("pipe.png")
    os.symlink("pipe.png", "link_to_pipe.png")
    os.symlink("/dev/zero", "zero.png")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind("socket.png")
    listening.close()


def test_pipes_sockets_devices_and_links_to_them_are_never_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "a.png", RED)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "good.png").symlink_to(tmp_path / "a.png")
    special(tmp_path, monkeypatch)
    ignored: Counter[str] = Counter()
    assert [path.name for path in images_below(tmp_path, ignored)] == ["a.png", "gone.png", "good.png"]
    assert told(ignored) == "ignored: 2 named pipes, 1 device, 1 socket"


def test_folders_are_gone_through_but_for_hidden_and_linked_ones(tmp_path: Path) -> None:
    root = tmp_path / "d"
    save(root / "photo.png" / "tile.png", RED)
    (root / "empty.jpg").mkdir()
    (root / "plain").mkdir()
    (root / "loop").symlink_to(root)
    save(root / ".thumbnails" / "b.png", RED)
    ignored: Counter[str] = Counter()
    assert images_below(root, ignored) == [root / "photo.png" / "tile.png"]
    assert told(ignored) == "ignored: 1 empty folder named like an image, 1 linked folder"


def test_all_that_is_ignored_is_counted_by_suffix(tmp_path: Path) -> None:
    names = [
        "a.txt",
        "b.TXT",
        "c.heic",
        "README",
        "Mr. A. Smith",
        "x.tar.gz",
        "page.pdf",
        ".hidden.png",
        "._1.jpg",
    ]
    for name in [*names, ".DS_Store", "Thumbs.db", "desktop.ini", ".gitignore"]:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / os.fsdecode(b"caf\xe9.caf\xe9")).write_bytes(b"")
    ignored: Counter[str] = Counter()
    assert images_below(tmp_path, ignored) == []
    kinds = "3 without a suffix, 2 .txt, 2 hidden images, 1 .gz, 1 .heic, 1 .pdf"
    assert told(ignored) == f"ignored: {kinds}"


def test_many_kinds_are_summed_up() -> None:
    ignored = Counter({f".x{i:03}": 1 for i in range(40)}) + Counter({".txt": 5})
    said = told(ignored)
    assert said is not None
    assert said.startswith("ignored: 5 .txt, 1 .x000, 1 .x001,")
    assert said.endswith(", 26 others")
    assert told(Counter()) is None
    assert told(Counter({".txt": 0})) is None


def test_a_folder_that_cannot_be_read_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a.png", RED)
    save(tmp_path / "closed" / "b.png", RED)
    scan = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)  # root reads everything
    ignored: Counter[str] = Counter()
    assert [path.name for path in images_below(tmp_path, ignored)] == ["a.png"]
    assert told(ignored) == "ignored: 1 unreadable folder"


def test_files_beside_the_class_folders_are_counted(tmp_path: Path) -> None:
    save(tmp_path / "stray.png", RED)
    save(tmp_path / "apple" / "a.png", RED)
    for name in ("labels.csv", ".DS_Store"):
        (tmp_path / name).write_bytes(b"")
    ignored: Counter[str] = Counter()
    count_beside(tmp_path, ignored)
    assert told(ignored) == "ignored: 1 .csv, 1 .png outside the class folders"


def test_training_says_what_it_ignores_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    root = tmp_path / "d"
    fill(root / "train", count=2)
    fill(root / "test", count=1)
    special(root / "train" / "pear", monkeypatch)
    (root / "test" / "apple" / "notes.txt").write_text("")
    save(root / "train" / "stray.png", RED)
    save(root / "stray.png", RED)
    pool = read_folder(root, 8, tmp_path / "cache", 0.0)
    assert (len(pool.images), len(pool.train)) == (6, 4)
    said = "ignored: 2 .png outside the class folders, 2 named pipes, 1 .txt, 1 device, 1 socket"
    assert pool.note is not None
    assert pool.note.split("; ")[-1] == said
    assert said in capsys.readouterr().err.splitlines()
