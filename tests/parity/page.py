"""What the tests of the report share: its text as a reader sees it, and small results."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import sample_results
import sample_seeds

VOID = {"meta", "path", "use", "line", "rect", "br"}


class Page(HTMLParser):
    """The text of a page, its ids, links and unbalanced tags."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.text, self.ids, self.references, self.tags, self.open = "", [], [], [], []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.text += " "
        values = dict(attrs)
        if values.get("id"):
            self.ids.append(values["id"])
        self.references += [values[name] or "" for name in ("href", "src", "xlink:href") if name in values]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        self.text += " "
        assert self.open, f"</{tag}> closes nothing"
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


FULL = {**sample_results.results(), "accuracy": sample_seeds.accuracy()}
FAILED = sample_results.failed()


def small(**changes: Any) -> dict[str, Any]:
    """Results of one rung that passed, without a figure."""
    return {"verdict": "passed", "rungs": [rung()], **changes}


def rung(largest: float = 1e-13, **changes: Any) -> dict[str, Any]:
    checks = [{"quantity": "bn1 (train)", "largest": largest, "tolerance": 1e-12, "where": ""}]
    values = {
        "name": "forward",
        "pair": "cnn",
        "backend": "tensorflow",
        "precision": "float64",
        "device": "cpu",
    }
    return {**values, "checks": checks, "note": "", "seconds": 1.0, "skipped": False, **changes}


def skipped(
    device: str = "cuda", note: str = "unproven on CUDA: no GPU here", **changes: Any
) -> dict[str, Any]:
    return rung(device=device, note=note, checks=[], skipped=True, **changes)
