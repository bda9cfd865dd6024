"""Standard output and error that outlive their readers: `| head`, a lost terminal, a full disk."""

from __future__ import annotations

import io
import os
import sys

from experiment.system import files


class Lasting(io.FileIO):
    """A file descriptor whose failing writes are dropped; `lost` is the last error of a disk without room."""

    lost: OSError | None = None

    def write(self, data, /) -> int:  # type: ignore[no-untyped-def]
        try:
            return super().write(data)
        except OSError as error:
            if files.full(error):
                self.lost = error
            return memoryview(data).nbytes


def outlive_readers() -> None:
    """Let this process go on when nobody reads its output any more, or never did (`>&-`)."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file that is opened would get its number, and what is printed
            nowhere = os.open(os.devnull, os.O_WRONLY)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(number, "w", closefd=False, encoding="utf-8"))  # noqa: SIM115
        elif stream is getattr(sys, f"__{name}__") and type(_raw(stream)) is io.FileIO:
            stream.flush()
            raw = Lasting(number, "w", closefd=False)
            unbuffered = stream.buffer is _raw(stream)  # python -u
            lasting = io.TextIOWrapper(
                raw if unbuffered else io.BufferedWriter(raw),  # type: ignore[arg-type]
                encoding=stream.encoding,
                errors=stream.errors,
                line_buffering=stream.line_buffering,
                write_through=unbuffered,
            )
            setattr(sys, name, lasting)
            setattr(sys, f"__{name}__", lasting)


def _raw(stream: object) -> object:
    buffer = getattr(stream, "buffer", None)
    return getattr(buffer, "raw", buffer)


def lost() -> OSError | None:
    """The error of a disk without room for what was printed, or None; flushes."""
    for stream in (sys.stdout, sys.stderr):
        raw = _raw(stream)
        if isinstance(raw, Lasting):
            stream.flush()
            if raw.lost is not None:
                return raw.lost
    return None
