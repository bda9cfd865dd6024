"""Bars are drawn on a terminal and nowhere else, and what is printed keeps to stdout."""

from __future__ import annotations

import io
import sys

import pytest

from experiment.system.progress import REFRESH, Bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def show_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Put a terminal in the place of stderr: in a test, since pytest puts its own there before."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


def use(bar: Bar) -> None:
    with bar:
        bar.update(3, "loss 0.5")
        print("from elsewhere")
        bar.say("a line")
        bar.update(4)
        bar.update(0, "the end")


def test_a_terminal_sees_counts_and_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    terminal = show_terminal(monkeypatch)
    use(Bar("epoch 1/2", 10, "images", done=1))
    drawn = terminal.getvalue()
    for text in ("epoch 1/2", " 1/10", " 4/10", "loss 0.5", " 8/10", "the end"):
        assert text in drawn
    assert capsys.readouterr().out == "from elsewhere\na line\n"


def test_a_file_sees_the_lines_alone(capsys: pytest.CaptureFixture) -> None:
    use(Bar("epoch 1/2", 10))
    assert capsys.readouterr() == ("from elsewhere\na line\n", "")


def test_other_processes_draw_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = show_terminal(monkeypatch)
    use(Bar("epoch 1/2", 10, shown=False))
    assert terminal.getvalue() == ""


def test_steps_that_come_fast_are_drawn_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = show_terminal(monkeypatch)
    times = iter([0.0, *(REFRESH * i / 10 for i in range(1, 200))])
    monkeypatch.setattr("experiment.system.progress.time.monotonic", lambda: next(times, 1e9))
    with Bar("epoch", 1000) as bar:
        for _ in range(100):
            bar.update()
        assert 5 < terminal.getvalue().count("epoch") < 30
        assert bar.done == 100
