"""Images among the files of a folder: those that Pillow reads. All others are counted, to be named aloud."""

from __future__ import annotations

import functools
import os
import re
import stat
from collections import Counter
from pathlib import Path

from PIL import Image, ImageFile

LITTER = ("thumbs.db", "desktop.ini")  # a file manager's own, as hidden files are
COMMON = ("JPEG", "PNG", "BMP", "GIF", "PPM")  # tried first, as Pillow does: not every format has a signature
NAMED = 15  # kinds of ignored files that are told apart


@functools.cache
def formats() -> tuple[str, ...]:
    """The formats of still images that the installed Pillow reads: no page descriptions, videos and data."""
    Image.init()
    read = [
        name
        for name, (reader, _) in Image.OPEN.items()
        if Image.MIME.get(name, "image/").startswith("image/")  # not of PostScript, say
        and not (isinstance(reader, type) and issubclass(reader, ImageFile.StubImageFile))
    ]
    return tuple(sorted(read, key=lambda name: name not in COMMON))


@functools.cache
def suffixes() -> frozenset[str]:
    """Suffixes of such files, with the dot, in lower case."""
    read = {*formats(), "MPO"}  # several photographs in one JPEG file, which JPEG's reader opens
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in read)


def named_as_image(name: str) -> bool:
    """True for the name of an image; hidden files are not asked of."""
    return _suffix(name) in suffixes()


def images_below(folder: Path, ignored: Counter[str]) -> list[Path]:
    """Every image file in a folder and the folders in it, sorted; all else is counted in `ignored`.

    Names alone decide, and that it is no pipe, socket or device: nothing is opened. A link that leads nowhere
    counts as an image: reading will miss it. Neither hidden files and folders nor a file manager's own are
    counted, except hidden images.
    """
    images = []

    def unreadable(_: OSError) -> None:
        ignored["unreadable folder"] += 1

    for parent, folders, files in os.walk(folder, onerror=unreadable):
        shown = [name for name in folders if not name.startswith(".")]
        folders[:] = [name for name in shown if not os.path.islink(os.path.join(parent, name))]
        ignored["linked folder"] += len(shown) - len(folders)
        if not files and not shown and _suffix(parent) in suffixes() and parent != str(folder):
            ignored["empty folder named like an image"] += 1
        images += [Path(parent, name) for name in files if _is_image(parent, name, ignored)]
    return sorted(images)


def count_beside(folder: Path, ignored: Counter[str]) -> None:
    """Count the files that lie beside the class folders in a folder, and so belong to no class."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_dir() and _is_image(entry.path.removesuffix(entry.name), entry.name, ignored):
                ignored[f"{_suffix(entry.name)} outside the class folders"] += 1


def told(ignored: Counter[str]) -> str | None:
    """The ignored files in a line, the most frequent kind first; None where there are none."""
    kinds = sorted(((kind, n) for kind, n in ignored.items() if n), key=lambda item: (-item[1], item[0]))
    if not kinds:
        return None
    listed = [f"{number} {_plural(kind, number)}" for kind, number in kinds[:NAMED]]
    rest = sum(number for _, number in kinds[NAMED:])
    return f"ignored: {', '.join([*listed, *([f'{rest} others'] if rest else [])])}"


def _plural(kind: str, number: int) -> str:
    if number == 1 or kind.startswith("."):
        return kind
    return re.sub(r"\b(folder|image|pipe|socket|device)\b", r"\1s", kind, count=1)


def _is_image(parent: str, name: str, ignored: Counter[str]) -> bool:
    suffix = _suffix(name)
    if name.startswith(".") or name.lower() in LITTER:
        ignored["hidden image"] += suffix in suffixes()
        return False
    if (special := _special(os.path.join(parent, name))) is not None:
        ignored[special] += 1
        return False
    if suffix not in suffixes():
        ignored[suffix or "without a suffix"] += 1
        return False
    return True


def _special(path: str) -> str | None:
    """The kind of a file that must not be opened, since that may wait for ever; None for others."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return None
    kinds = {stat.S_ISFIFO: "named pipe", stat.S_ISSOCK: "socket"}
    kinds |= {stat.S_ISCHR: "device", stat.S_ISBLK: "device"}
    return next((kind for holds, kind in kinds.items() if holds(mode)), None)


def _suffix(name: str) -> str:
    suffix = Path(name).suffix.lower()
    return suffix if re.fullmatch(r"\.\w{1,12}", suffix) else ""  # "Mr. Smith" has none
