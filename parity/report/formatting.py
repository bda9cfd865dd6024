"""Numbers and states as the report words them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from parity.checks import Check, Rung, used

UNPROVEN = "unproven on CUDA"
DECADES, BEYOND = 8, 2  # of a margin's bar: up to the tolerance, and above it


def number(value: float | None) -> str:
    """1.1e-16, or 0.27 where that is as short; 0 for an exact zero, – for None."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "∞" if value > 0 else "−∞"
    if not value:
        return "0"
    return f"{value:.3g}" if 0.1 <= abs(value) < 1e4 else _exponent(f"{value:.1e}")


def bound(value: float) -> str:
    """1e-12, with no more digits than it needs."""
    return _exponent(f"{value:.0e}" if float(f"{value:.0e}") == value else f"{value:.3g}") if value else "0"


def margin(check: Check) -> str:
    """1.1e-16 of 1e-12 (0.01 %)."""
    if not check.tolerance:
        return "equal" if check.largest == 0 else f"{number(check.largest)}, must be equal"
    return f"{number(check.largest)} of {bound(check.tolerance)} ({share(check)})"


def share(check: Check) -> str:
    """The share of its tolerance that a check uses, in words: 0.01 %, <0.01 %, 32 times."""
    part = used(check)
    if not math.isfinite(part):
        return "beyond any"
    if part > 1:
        return f"{part:,.3g} times" if part < 1000 else f"{number(part)} times"
    if 0 < part < 1e-4:
        return "<0.01 %"
    return f"{100 * part:.2g} %" if part < 0.995 else f"{100 * part:.4g} %"


def fill(check: Check) -> float:
    """The length of a check's bar in percent: the share used, on a log scale; 0 for an exact zero."""
    part = used(check)
    if part == 0:
        return 0.0
    exponent = BEYOND if math.isinf(part) else min(math.log10(part), BEYOND)
    return round(max(100 * (exponent + DECADES) / (DECADES + BEYOND), 1.5), 2)


def status(rung: Rung) -> str:
    """passed, failed, not run, or unproven on CUDA."""
    if rung.status != "skipped":
        return rung.status
    return UNPROVEN if rung.device.startswith("cuda") else "not run"


def note(rung: Rung) -> str:
    """A rung's note without the words that its status says already."""
    return rung.note.removeprefix(f"{UNPROVEN}: ") or ("" if rung.checks else "nothing was compared")


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"


def points(value: float | None) -> str:
    """A difference of two shares, in percentage points with its sign."""
    return "–" if value is None else f"{100 * value:+.2f}".replace("-", "−") + " pp"


def mebibytes(count: int | None) -> str:
    return "–" if count is None else f"{count / 2**20:.2f}"


def heat(difference: float) -> float:
    """The shade of a difference of probabilities, in percent: none at 1e-8, all at 1, by decades."""
    if not math.isfinite(difference):
        return 100.0
    return round(min(max(100 * (math.log10(difference) + 8) / 8, 0), 100), 1) if difference > 0 else 0.0


def _exponent(text: str) -> str:
    mantissa, e, exponent = text.partition("e")
    return f"{mantissa}e{int(exponent)}" if e else mantissa


def listed(names: Sequence[object]) -> str:
    """a, b and c."""
    words = [str(name) for name in names]
    return " and ".join([", ".join(words[:-1]), *words[-1:]] if len(words) > 1 else words)
