"""The signals that ask a program to stop, all taken alike."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# Ctrl-C, kill and schedulers, a terminal that closes, what SLURM is told to send before the time is up
# (--signal=USR1@120), and a limit on processor time.
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
STOPS = tuple(signal.Signals[name] for name in NAMES if name in signal.Signals.__members__)

Handler = Callable[[int, FrameType | None], None]


class Stopped(BaseException):
    """A signal asked this program to stop; no Exception, so that only those who know it catch it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def exit_code(self) -> int:
        return exit_code(self.number)


def exit_code(number: int) -> int:
    """The exit code of a program that a signal stopped, as shells give it."""
    return 128 + number


class Listener:
    """Has `handler` called for every signal that asks to stop, but for those that are ignored (nohup)."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self._before: dict[int, object] = {}

    def start(self) -> None:
        """Take the signals, also from those who took them after an earlier start."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in STOPS:
            current = signal.getsignal(number)
            if number in self._before or current not in (signal.SIG_IGN, None):
                self._before.setdefault(number, current)
                signal.signal(number, self.handler)

    def stop(self) -> None:
        """Give the signals back to those who had them before."""
        while self._before:
            number, before = self._before.popitem()
            signal.signal(number, before)  # type: ignore[arg-type]


@contextmanager
def listening(handler: Handler) -> Iterator[None]:
    """A Listener that has started, and stops when the block ends."""
    listener = Listener(handler)
    listener.start()
    try:
        yield
    finally:
        listener.stop()


def stop(number: int, frame: FrameType | None) -> None:
    """A handler that ends at once what runs; raises Stopped."""
    raise Stopped(number)
