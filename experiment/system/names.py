"""Names and messages in writing that can go anywhere."""

from __future__ import annotations

import shlex
import unicodedata
from collections.abc import Sequence


def printable(name: str) -> str:
    """A name as text that any file, terminal and figure can hold.

    Bytes that are no UTF-8 (surrogates) and characters that end a line or steer a terminal are escaped.
    """
    return "".join(map(_visible, name))


def _visible(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # what os.fsdecode makes of a byte that it cannot read
        return f"\\x{ord(character) - 0xDC00:02x}"
    hidden = unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
    return character.encode("unicode_escape").decode() if hidden else character


def command_line(words: Sequence[str]) -> str:
    """A command and its arguments as a shell takes them, in a line that any file can hold."""
    return printable(shlex.join(words))


def spelling(name: str) -> str:
    """A class name in one way of writing: archives made on macOS write an accent as its own character."""
    return unicodedata.normalize("NFC", name)


def brief(error: BaseException) -> str:
    """An exception's message in one line of at most 200 characters, or its kind where it has none."""
    said = " ".join(str(error).split()) or type(error).__name__
    return said if len(said) <= 200 else f"{said[:200]}..."
