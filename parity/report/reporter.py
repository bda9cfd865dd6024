"""Reporter of a climb of the ladder: its lines on the console, and the report that it leaves."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from experiment.system.files import replacing
from experiment.system.names import command_line
from parity.checks import Rung
from parity.ladder import mutations
from parity.ladder.climb import Findings
from parity.ladder.tolerances import ROWS
from parity.report import page as report
from parity.report.formatting import margin


class Record:
    """The console of one climb, and results.json and report.html in `out`, which is made.

    quiet: print nothing.
    """

    def __init__(self, out: Path, command: Sequence[str], quiet: bool = False) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.out, self.command, self.console = out, command, Console(quiet=quiet)
        self.started = time.perf_counter()
        self.console.print(f"{'rung':<20}{'pair':<22}{'backend':<12}{'precision':<11}{'verdict':<10}worst")

    def show(self, rung: Rung) -> None:
        worst = rung.worst
        text = f"{rung.name:<20}{rung.pair[:20]:<22}{rung.backend:<12}{rung.precision:<11}"
        colour = {"passed": "green", "skipped": "yellow"}.get(rung.status, "red bold")
        self.console.print(text, end="", highlight=False)
        self.console.print(f"{rung.status:<10}", style=colour, end="")
        said = rung.note if worst is None else f"{worst.quantity}: {margin(worst)}"
        self.console.print(said, highlight=False)

    def show_outcome(self, outcome: mutations.Outcome) -> None:
        fine = outcome.caught and outcome.diagnosed
        verdict = "caught and named" if fine else "caught, not named" if outcome.caught else "NOT CAUGHT"
        self.console.print(f"{outcome.name:<20}{outcome.mutation.rung:<22}", end="", highlight=False)
        self.console.print(verdict, style="green" if fine else "red bold")

    @contextmanager
    def kept(self, findings: Findings) -> Iterator[None]:
        """Write a climb that breaks off to `out`/unfinished; an earlier report stays."""
        try:
            yield
        except BaseException as error:
            if findings.rungs:
                note = str(error) or type(error).__name__
                findings.keep(Rung("unfinished", "", "", "", "", note=note))
                self.out = self.out / "unfinished"
                self.out.mkdir(exist_ok=True)
                self.conclude(findings)
            raise

    def conclude(self, findings: Findings, mutated: list[mutations.Outcome] | None = None) -> int:
        """Write the report; returns 0 where every rung passed and every mutation was caught, else 1."""
        for found in findings.diagnoses:
            where = f"{found['pair']}, {found['rung']}, {found['layer']}"
            self.console.print(f"\n{where}: {found['cause']}\n  {found['evidence']}")
        for note in findings.notes:
            self.console.print(note, style="dim", highlight=False)
        passed = findings.passed and (mutated is None or mutations.score(mutated) == 1)
        values = {
            "verdict": "passed" if passed else "failed",
            "command": command_line(self.command),
            "utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "seconds": time.perf_counter() - self.started,
            "rungs": [rung.as_json() for rung in findings.ordered],
            "reasons": {name: row.reason for name, row in ROWS.items()},
            "notes": findings.notes,
            "diagnoses": findings.diagnoses,
            "trajectories": findings.trajectories,
            "layers": findings.layers,
            "exports": findings.exports,
            "mutations": None if mutated is None else [outcome.as_json() for outcome in mutated],
            "stock_augmentation": findings.stock_augmentation,
            "environment": findings.environment,
        }
        with replacing(self.out / "results.json") as path:
            path.write_text(json.dumps(values, indent=1) + "\n")
        page = report.write(self.out)
        self.console.print(
            f"\n{values['verdict']} in {values['seconds']:.0f} s", style="green" if passed else "red bold"
        )
        self.console.print(page)
        return 0 if passed else 1
