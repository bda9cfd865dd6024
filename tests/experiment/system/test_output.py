"""Commands whose output nobody reads, or no disk takes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# Says a line, waits until the reader is gone, and says more than a pipe holds.
TALK = """
import sys
from experiment import cli
parser = cli.PlainParser()
def command():
    print("first", flush=True)
    sys.stdin.read()
    for _ in range(20000):
        print("more")
        print("warning", file=sys.stderr)
    open(sys.argv[1], "w").write("done")
    return 0
sys.exit(cli.guarded(command))
"""


def talk(done: Path, unbuffered: bool = False, **streams: object) -> subprocess.Popen:
    command = [sys.executable, *(["-u"] if unbuffered else []), "-c", TALK, str(done)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, text=True, cwd=ROOT, **streams)  # type: ignore


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize("both", [False, True])
def test_work_goes_on_when_its_reader_is_gone(tmp_path: Path, both: bool, unbuffered: bool) -> None:
    errors = (tmp_path / "errors").open("w+")
    stderr = subprocess.STDOUT if both else errors
    process = talk(tmp_path / "done", unbuffered, stdout=subprocess.PIPE, stderr=stderr)
    assert process.stdout is not None
    assert process.stdout.readline() == "first\n"
    process.stdout.close()
    process.communicate("")
    assert process.returncode == 0
    assert (tmp_path / "done").read_text() == "done"
    errors.seek(0)
    assert set(errors.read().splitlines()) == (set() if both else {"warning"})


def test_closed_streams_are_no_fault_and_give_their_numbers_to_no_file(tmp_path: Path) -> None:
    text = f"{sys.executable} -c '{TALK}' {tmp_path / 'done'} >&- 2>&- </dev/null"
    assert subprocess.run(text, shell=True, cwd=ROOT).returncode == 0
    assert (tmp_path / "done").read_text() == "done"


def test_help_may_be_piped_to_a_reader_that_leaves() -> None:
    # A pipe without a reader from the start: what head leaves behind.
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "keras_impl.train", "--help"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_no_disk_takes_is_told_and_the_work_is_done(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        process = talk(tmp_path / "done", stdout=full, stderr=subprocess.PIPE)
        _, errors = process.communicate("")
    assert process.returncode == 1
    assert errors.splitlines()[-1] == "error: what was printed is not all there (No space left on device)"
    assert (tmp_path / "done").read_text() == "done"


def test_ctrl_c_before_the_work_begins_is_a_word() -> None:
    code = "from experiment import cli; cli.PlainParser(); raise KeyboardInterrupt"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "interrupted\n")
    code = "from experiment import cli; cli.PlainParser(); 1 / 0"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert "ZeroDivisionError" in done.stderr
