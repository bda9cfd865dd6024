"""Whole files through deaths and full disks, and one writer a directory."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest

from experiment.system import files
from experiment.system.files import WriteError, claim, release, replacing, writer

# Holds a directory until its stdin ends; says so first.
HOLD = """
import sys
from pathlib import Path
from experiment.system import files
print(files.claim(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


@contextmanager
def no_file_over(size: int) -> Iterator[None]:
    """A disk that takes no more, for every file and every library that writes one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["a"] = np.ones(100_000)


WRITERS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("new" * 100_000),
    "npy": lambda path: np.save(path, np.ones(100_000)),
    "npz": lambda path: np.savez(path, a=np.ones(100_000)),
    "hdf5": hdf5,
}


@pytest.fixture(autouse=True)
def released() -> Iterator[None]:
    yield
    release()


def write(path: Path, error: Exception | None = None) -> None:
    with replacing(path) as temporary:
        temporary.write_text("new")
        if error is not None:
            raise error


def held(directory: Path) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "None\n"
    return process


# === Whole files ===


@pytest.mark.parametrize("name", WRITERS)
def test_a_disk_that_takes_no_more_leaves_the_old_file_and_says_why(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{name}"
    path.write_text("old")

    def overflow() -> None:
        with replacing(path) as temporary:
            WRITERS[name](temporary)

    with no_file_over(5000), pytest.raises(WriteError) as caught:
        overflow()
    assert caught.value.errno == errno.EFBIG
    assert str(path) in str(caught.value)
    assert "ulimit -f" in str(caught.value)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == [path.name]


def test_a_writer_that_dies_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    child = os.fork()
    if child == 0:
        with replacing(path) as temporary:
            temporary.write_text("half")
            os._exit(0)
    os.waitpid(child, 0)
    assert path.read_text() == "old"
    [left] = set(tmp_path.iterdir()) - {path}
    assert files.ours(left)


def test_a_file_is_on_the_disk_before_it_takes_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, done = tmp_path / "a.json", []
    monkeypatch.setattr(os, "fsync", lambda descriptor: done.append((os.fstat(descriptor).st_ino, "synced")))
    rename = os.replace
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append((0, "renamed")), rename(*paths)))
    with replacing(path) as temporary:
        temporary.write_text("new")
    file, folder = path.stat().st_ino, tmp_path.stat().st_ino
    assert done == [(file, "synced"), (0, "renamed"), (folder, "synced")]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(WriteError, match=r"a\.json: cannot be written \(Permission denied\)"):
        write(tmp_path / "a.json")


def test_a_directory_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"gone/a\.json: cannot be written \(No such file"):
        write(tmp_path / "gone" / "a.json")


@pytest.mark.parametrize("error", [ValueError("a"), RuntimeError("b"), OSError(errno.ENOENT, "c", "other")])
def test_errors_about_something_else_pass_as_they_are(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as caught:
        write(tmp_path / "a", error)
    assert caught.value is error
    assert os.listdir(tmp_path) == []


def test_what_is_told_of_errors() -> None:
    no_room = OSError(errno.ENOSPC, "No space left on device")
    assert files.told(no_room) == "the disk: No space left on device: free space on its disk"
    assert files.told(FileNotFoundError(errno.ENOENT, "No such file", "a")) == "a: No such file"
    assert files.told(OSError("strange")) is None
    assert files.told(BrokenPipeError(errno.EPIPE, "Broken pipe")) is None
    wrapped = ValueError("no data")
    wrapped.__cause__ = no_room
    assert files.full(wrapped)
    assert not files.full(ValueError("no data"))


# === One writer ===


def test_one_process_writes_a_directory_and_is_named_to_others(tmp_path: Path) -> None:
    assert writer(tmp_path) is None
    first = held(tmp_path)
    for other in (writer(tmp_path), claim(tmp_path)):
        assert other is not None
        assert other.startswith(f"process {first.pid} on ")
    first.communicate("")
    assert writer(tmp_path) is None
    assert claim(tmp_path) is None
    assert claim(tmp_path) is None  # it is this process's already
    release()
    assert os.listdir(tmp_path) == []


def test_a_lock_dies_with_its_process(tmp_path: Path) -> None:
    first = held(tmp_path)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert (tmp_path / ".lock").exists()
    assert writer(tmp_path) is None
    assert claim(tmp_path) is None


def test_a_lock_holds_where_its_file_was_removed_in_the_meantime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Opened just before the holder ends: what is locked then is no longer in the directory.
    (tmp_path / ".lock").touch()
    honest, opened = files.locked, []

    def late(descriptor: int) -> bool:
        if not opened:
            (tmp_path / ".lock").unlink()
        opened.append(descriptor)
        return honest(descriptor)

    monkeypatch.setattr(files, "locked", late)
    assert claim(tmp_path) is None
    assert len(opened) == 2
    assert (tmp_path / ".lock").exists()


def test_without_locks_nobody_is_kept_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    assert claim(tmp_path) is None
    assert writer(tmp_path) is None
