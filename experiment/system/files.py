"""Files that appear whole or not at all, directories that one process writes, and disks that take no more."""

from __future__ import annotations

import errno
import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nothing keeps two processes from writing one run there
    fcntl = None

LOCK = ".lock"
PARTIAL = ".*.partial*"  # what `replacing` writes before it takes its name
# What a disk answers, and the way out.
FULL = {
    errno.ENOSPC: "free space on its disk",
    errno.EDQUOT: "free space, or ask for a larger quota",
    errno.EFBIG: "raise the limit on a file's size (ulimit -f)",
}
REFUSED = {
    errno.EROFS: "make its file system writable",
    errno.EACCES: "make it writable",
    errno.EPERM: "make it writable",
    errno.EIO: "see to its disk",
    errno.ENOENT: "its directory was removed: put it back",
    errno.ENOTDIR: "name another place",
    errno.ESTALE: "see to its file system",
}

_held: dict[Path, int] = {}  # resolved directory -> the descriptor of its lock file


class WriteError(OSError):
    """A file could not be written: `filename`, its final name, under which what stood there still stands."""

    def __str__(self) -> str:
        return f"{self.filename}: cannot be written ({self.strerror}): {self.way_out}"

    @property
    def way_out(self) -> str:
        assert self.errno is not None
        return (FULL | REFUSED).get(self.errno, "see to its disk")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends well: no reader sees half a file.

    A process or a machine that dies at any moment leaves the old file or the new. Raises WriteError where the
    disk is full or refuses, whatever the block raised about it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial{path.suffix}")
    try:
        yield temporary
        _to_disk(temporary)
        os.replace(temporary, path)
        with suppress(OSError):  # some file systems have no such thing
            _to_disk(path.parent)
    except Exception as error:
        if (number := fault(error, temporary)) is None:
            raise
        raise WriteError(number, os.strerror(number), str(path)) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def fault(error: BaseException | None, path: Path) -> int | None:
    """The errno with which a disk refused `path`, found in what a library raised; None for others."""
    silent = isinstance(error, OSError | RuntimeError)
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        if match := re.search(r"errno = (\d+)", str(error)):  # HDF5's words
            number = int(match[1])
        if number in FULL | REFUSED and getattr(error, "filename", None) in (None, str(path)):
            return number
        silent = silent and number is None
        error = error.__cause__ or error.__context__
    return _why(path) if silent and path.exists() else None


def _why(path: Path) -> int | None:
    """The errno that more bytes meet: NumPy and torch tell that a write failed, and not why."""
    try:
        with path.open("ab") as file:
            file.write(bytes(1 << 16))
        _to_disk(path)
    except OSError as error:
        return error.errno
    return None


def told(error: OSError) -> str | None:
    """The fault of a file or its disk, in a line, or None where an error is about something else."""
    if isinstance(error, WriteError):
        return str(error)
    if error.errno is None or (error.filename is None and error.errno not in FULL):
        return None
    place = "the disk" if error.filename is None else error.filename
    way_out = FULL.get(error.errno)
    return f"{place}: {error.strerror}" + (f": {way_out}" if way_out else "")


def full(error: BaseException | None) -> bool:
    """True where an error, or what led to it, is a disk that has no more room."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        error = error.__cause__ or error.__context__
    return False


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def ours(path: Path) -> bool:
    """True for a lock file, and for what a killed writer left half-written."""
    return path.name == LOCK or path.match(PARTIAL)


def claim(directory: Path) -> str | None:
    """Become the one process that writes a directory, until `release`, or the end of this process.

    Returns None, or what the process that does so already is. Where the file system has no locks nobody is
    kept out.
    """
    place, path = directory.resolve(), directory / LOCK
    if place in _held:
        if _is(_held[place], path):
            return None
        os.close(_held.pop(place))  # the directory was removed since
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        if not locked(descriptor):
            other = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
            os.close(descriptor)
            return other or "another process"
        if _is(descriptor, path):
            break
        os.close(descriptor)  # its holder removed it in the meantime
    with suppress(OSError):  # the lock is held, with or without these words
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    _held[place] = descriptor
    return None


def writer(directory: Path) -> str | None:
    """The other process that writes a directory, as `claim` names it, or None."""
    path = directory / LOCK
    if directory.resolve() in _held or fcntl is None:
        return None
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        if locked(descriptor):
            return None
        return os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
    finally:
        os.close(descriptor)


def release() -> None:
    """Give back every directory that this process claimed."""
    while _held:
        place, descriptor = _held.popitem()
        with suppress(OSError):
            if _is(descriptor, place / LOCK):
                (place / LOCK).unlink()
        os.close(descriptor)


def locked(descriptor: int, without: bool = True) -> bool:
    """Lock an open file for this process; False where another has it, `without` where there are no locks."""
    if fcntl is None:
        return without
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return without
    return True


@contextmanager
def lock(path: Path, without: bool = True, wait: str = "") -> Iterator[int | None]:
    """The descriptor of a folder or a lock file that is held inside, or None where another process holds it.

    without: whether it counts as held where there are no locks. wait: say this on stderr, and wait for it.
    """
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o644)
    try:
        held = locked(descriptor, without)
        if not held and wait and fcntl is not None:
            print(wait, file=sys.stderr)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            held = True
        yield descriptor if held else None
    finally:
        os.close(descriptor)


def _is(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False
