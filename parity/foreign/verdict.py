"""The answer to a pair, kept apart: are the weights the same, and is the computation?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from parity.checks import Rung
from parity.report.formatting import duration, margin

SCHEMA = 1  # of `--format json`; it changes where a field is renamed, removed, or means something else

Status = Literal["passed", "failed", "independent", "not compared"]


@dataclass(frozen=True)
class Answer:
    """One question's answer, and where it is no, the first failing rung and layer, the cause and the mend."""

    status: Status
    rung: str | None = None
    layer: str | None = None
    torch_layer: str | None = None
    cause: str | None = None
    evidence: str | None = None
    change: str | None = None


@dataclass(frozen=True)
class Verdict:
    """Whether a pair is the same, with its causes; `refused` holds why it could not be compared at all."""

    weights: Answer
    computation: Answer
    notes: Sequence[str] = ()
    rungs: Sequence[Rung] = ()
    seconds: float = 0.0
    report: Path | None = None
    refused: str | None = None
    more: Sequence[Answer] = field(default_factory=tuple)  # of other backends and precisions

    @property
    def status(self) -> Literal["passed", "failed", "refused"]:
        if self.refused is not None:
            return "refused"
        answers = (self.weights, self.computation)
        return "failed" if any(answer.status == "failed" for answer in answers) else "passed"

    @property
    def exit_code(self) -> int:
        return {"passed": 0, "failed": 1, "refused": 2}[self.status]

    def as_json(self) -> dict[str, Any]:
        """The verdict in the schema that docs/prove.md describes."""
        return {
            "schema": SCHEMA,
            "verdict": self.status,
            "refused": self.refused,
            "weights": asdict(self.weights),
            "computation": asdict(self.computation),
            "rungs": [
                {
                    "name": rung.name,
                    "backend": rung.backend,
                    "precision": rung.precision,
                    "status": rung.status,
                    "worst": None
                    if rung.worst is None
                    else {
                        "quantity": rung.worst.quantity,
                        "difference": _finite(rung.worst.largest),
                        "tolerance": rung.worst.tolerance,
                        "where": rung.worst.where,
                    },
                    "note": rung.note,
                }
                for rung in self.rungs
            ],
            "notes": list(self.notes),
            "seconds": round(self.seconds, 1),
            "report": None if self.report is None else str(self.report),
        }


WEIGHTS = {
    "passed": "The weights are the same.",
    "failed": "The weights differ",
    "independent": "The weights were initialised independently.",
    "not compared": "The weights were not compared.",
}
COMPUTATION = {
    "passed": "The computation is the same.",
    "failed": "The computation differs",
    "independent": "",
    "not compared": "The computation was not compared.",
}


def text(verdict: Verdict) -> list[str]:
    """The verdict, its two answers and the notes as lines of plain text."""
    answers = [*told(verdict.weights, WEIGHTS), *told(verdict.computation, COMPUTATION)]
    notes = [f"- {note}" for note in verdict.notes]
    return [f"{verdict.status.upper()} in {duration(verdict.seconds)}", *answers, *notes]


def show(verdict: Verdict, console: Console) -> None:
    """Print the verdict first, then the causes, then a table of the rungs."""
    style = "green" if verdict.status == "passed" else "red bold"
    first, *lines = text(verdict)
    console.print(first, style=style, highlight=False)
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True, end="\n\n")
    for rung in verdict.rungs:
        setup = f"{rung.backend} {rung.precision}"
        console.print(f"{rung.name:<20}{setup:<21}", end="", highlight=False)
        colour = {"passed": "green", "skipped": "yellow"}.get(rung.status, "red bold")
        console.print(f"{rung.status:<10}", style=colour, end="")
        compared = rung.worst is not None and not rung.skipped
        worst = f"{rung.worst.quantity}: {margin(rung.worst)}" if compared and rung.worst else rung.note
        console.print(worst, highlight=False, markup=False, soft_wrap=True)
    if verdict.report is not None:
        console.print(f"\n{verdict.report}", highlight=False, soft_wrap=True)


def told(answer: Answer, words: dict[str, str]) -> list[str]:
    """An answer as lines of plain text: where, why, and the change that would mend it."""
    if answer.status != "failed":
        evidence = f" {answer.evidence}" if answer.evidence else ""
        return [words[answer.status] + evidence]
    where = f" at {answer.layer}" if answer.layer else ""
    if answer.layer and answer.torch_layer and answer.torch_layer != answer.layer:
        where += f" (torch's {answer.torch_layer})"
    lines = [f"{words['failed']}{where}, rung {answer.rung}: {answer.cause}."]
    lines += [f"  Evidence: {answer.evidence}"] if answer.evidence else []
    lines += [f"  To mend it: {answer.change}"] if answer.change else []
    return lines


def _finite(value: float) -> float | str:
    """JSON has no infinity and no NaN: they are said as text."""
    return value if value - value == 0 else str(value)
