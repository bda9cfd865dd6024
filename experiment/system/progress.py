"""Progress bars of every command: on stderr, and only where that is a terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType

REFRESH = 0.25  # seconds between two drawings, each of which takes a millisecond


class Bar:
    """A bar that is drawn when it is made and then as `update` is called, and is erased by `close`.

    unit: of what is counted; "B" is shown as bytes. done: how much was there before. shown: False for none.
    """

    def __init__(
        self, description: str, total: int | None = None, unit: str = "", done: int = 0, shown: bool = True
    ) -> None:
        self.total, self.done, self.unit = total, done, unit
        self._drawn, self._progress = time.monotonic(), None
        if not (shown and sys.stderr.isatty()):
            return
        from rich.console import Console  # here: --help needs none of it
        from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeRemainingColumn as Remaining

        count = DownloadColumn() if unit == "B" else MofNCompleteColumn()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(16),
            count,
            Remaining(),
            TextColumn("{task.fields[text]}"),
        )
        # What is printed meanwhile goes where it would go without a bar: rich would turn stdout to stderr.
        self._progress = Progress(
            *columns,
            console=Console(stderr=True),
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._progress.add_task(description, total=total, completed=done, text="")
        self._progress.start()
        self._progress.refresh()

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def update(self, count: int = 1, text: str | None = None) -> None:
        """Count so many more; text: what is said beside the bar from here on, in place of the speed."""
        self.done += count
        if self._progress is None or (text is None and time.monotonic() - self._drawn < REFRESH):
            return
        self._drawn = time.monotonic()
        speed = self._progress.tasks[0].speed
        if text is None and speed and self.unit != "B":
            text = f"{speed:,.4g} {self.unit}/s"
        self._progress.update(
            self._task, completed=self.done, total=self.total, refresh=True, text=text or ""
        )

    def say(self, line: str) -> None:
        """Print a line to stdout, above the bar."""
        if self._progress is not None:
            self._progress.stop()
        print(line, flush=True)
        if self._progress is not None:
            self._progress.start()

    def reset(self) -> None:
        """Count from 0 again."""
        self.done = 0

    def close(self) -> None:
        """Erase the bar."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
