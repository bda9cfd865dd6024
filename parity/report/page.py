"""results.json as one self-contained HTML page: the verdict first, then the evidence.

python -m parity report FOLDER      # writes FOLDER/report.html again
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from experiment.cli import PlainParser, fail
from experiment.deploy import export
from experiment.system.files import replacing
from parity.checks import Check, Rung, used
from parity.report import formatting, plots, seed_plots
from parity.report.formatting import UNPROVEN, listed
from parity.report.results import Layers, Results, ResultsError, read

T = TypeVar("T")

# The wording that the page uses, as filters of the template.
WORDS = (
    "number",
    "bound",
    "margin",
    "share",
    "fill",
    "status",
    "note",
    "duration",
    "mean",
    "percent",
    "points",
    "mebibytes",
    "heat",
)
# What runs a part that results.json lacks.
COMMANDS = {
    "trajectories": "python -m parity",
    "layers": "python -m parity",
    "mutations": "python -m parity",
    "ablation": "python -m parity ablation --out FOLDER",
    "accuracy": "python -m parity accuracy --seeds 10 --out FOLDER",
}


def write(folder: Path) -> Path:
    """Write FOLDER/report.html from the results in it, and return its path.

    Raises ResultsError where they are missing or cannot be read.
    """
    page = render(read(folder))
    path = folder / "report.html"
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def render(results: Results) -> str:
    """The page as text; the same results give the same page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for word in WORDS:
        environment.filters[word] = getattr(formatting, word)
    state, sentence = verdict(results)
    return environment.get_template("report.html.jinja").render(
        results=results,
        state=state,
        sentence=sentence,
        cuda=cuda(results.rungs),
        ladder=ladder(results.rungs),
        pairs=_grouped(dict.fromkeys(map(setup, results.rungs)), lambda one: one[0]),
        setup=setup,
        tightest=tightest(results.rungs),
        key=Check("", 1e-3, 1.0),
        trajectories=[plots.trajectory(run, f"trajectory-{i}") for i, run in enumerate(results.trajectories)],
        layers=[
            (plots.layers(one, f"layers-{i}"), folded)
            for i, (one, folded) in enumerate(folding(results.layers))
        ],
        ablation=seed_plots.ablation(cost, "ablation") if (cost := results.ablation) and cost.rows else None,
        accuracy=seed_plots.accuracy(results.accuracy, "accuracy") if results.accuracy else None,
        environment=side_by_side(results.environment),
        commands=COMMANDS,
        export_tolerance=export.TOLERANCE,
    )


# === What was found ===


def verdict(results: Results) -> tuple[str, str]:
    """(passed, failed or nothing; the verdict in one sentence)."""
    ran = [rung for rung in results.rungs if not rung.skipped]
    failed = [rung for rung in ran if rung.status == "failed"]
    every = "the only rung that ran" if len(ran) == 1 else f"all {_rungs(len(ran))} that ran"
    # What stands on the first rung is a pair; later ones have names of their own, such as a run's.
    pairs = listed(list(dict.fromkeys(r.pair for r in results.rungs if r.name == results.rungs[0].name)))
    if failed:
        first = failed[0]
        state = "failed"
        sentence = (
            f"Keras and Lightning differ: {len(failed)} of the {_rungs(len(ran))} that ran failed, first "
            f"“{first.name}” of {first.pair} ({first.backend}, {first.precision})"
        )
    elif not ran:
        state, sentence = (
            "nothing",
            f"Nothing is proven{f' for {pairs}' if pairs else ''}: no rung of the ladder ran",
        )
    elif results.verdict == "failed":
        tried = results.mutations or []
        missed, unnamed = (
            [m.name for m in tried if not m.caught],
            [m.name for m in tried if not m.diagnosed],
        )
        why = f"{listed(missed)} went uncaught" if missed else "the suite itself reports a failure"
        why = f"{listed(unnamed)} went unnamed" if unnamed and not missed else why
        state, sentence = "failed", f"Failed, although {every} passed: {why}"
    else:
        state, sentence = "passed", f"Keras and Lightning agree on {pairs}: {every} passed"
    return state, f"{sentence}{_unproven(results.rungs)}."


def _unproven(rungs: Sequence[Rung]) -> str:
    there = cuda(rungs)
    elsewhere = [rung.name for rung in rungs if rung.skipped and not rung.device.startswith("cuda")]
    parts = [there] if UNPROVEN in there else []
    parts += [f"not run: {listed(list(dict.fromkeys(elsewhere)))}"] if elsewhere else []
    return "".join(f"; {part}" for part in parts)


def cuda(rungs: Sequence[Rung]) -> str:
    """passed, failed, or what is unproven on CUDA: a rung that did not run there proves nothing there."""
    there = [rung for rung in rungs if rung.device.startswith("cuda")]
    if any(rung.status == "failed" for rung in there):
        return "failed"
    left = sum(rung.skipped for rung in there)
    if left == len(there):
        return UNPROVEN
    return f"{_rungs(left)} {UNPROVEN}" if left else "passed"


def ladder(rungs: Sequence[Rung]) -> dict[str, list[tuple[int, Rung]]]:
    """(place in the file, rung) of every rung, those of one name together, in the order of the names."""
    return _grouped(enumerate(rungs, 1), lambda both: both[1].name)


def setup(rung: Rung) -> tuple[str, str, str, str]:
    return rung.pair, rung.backend, rung.precision, rung.device


def tightest(rungs: Sequence[Rung]) -> tuple[Rung, Check] | None:
    """The rung and the check that come nearest to their bound, or lie furthest beyond it."""
    worst = [(rung, rung.worst) for rung in rungs if rung.worst is not None]
    return max(worst, key=lambda both: used(both[1]), default=None)


def folding(found: Sequence[Layers]) -> list[tuple[Layers, bool]]:
    """Each figure of layers, and if it is folded away: a pair's first stands open, as does a failure."""
    first = {one.pair: i for i, one in reversed(list(enumerate(found)))}
    return [(one, first[one.pair] != i and not plots.beyond(one)) for i, one in enumerate(found)]


def side_by_side(sides: dict[str, dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """(name, a value for each side) of all that the environments hold, nested names with dots."""
    columns = [_flat(values) for values in sides.values()]
    names = dict.fromkeys(name for column in columns for name in column)
    return [(name, [column.get(name, "–") for column in columns]) for name in names]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            more = [f"… ({len(value)})"] if len(value) > 12 else []
            found[f"{prefix}{name}"] = ", ".join([*map(str, value[:12]), *more])
        else:
            found[f"{prefix}{name}"] = "–" if value is None else str(value)
    return found


def _rungs(count: int) -> str:
    return f"{count} rung" if count == 1 else f"{count} rungs"


def _grouped(items: Iterable[T], name: Callable[[T], str]) -> dict[str, list[T]]:
    groups: dict[str, list[T]] = {}
    for item in items:
        groups.setdefault(name(item), []).append(item)
    return groups


def main(argv: Sequence[str] | None = None) -> int:
    parser = PlainParser(prog="parity report", description="Write a suite's report.html again.")
    parser.add_argument("folder", type=Path, help="where results.json lies")
    try:
        print(write(parser.parse_args(argv).folder))
    except (ResultsError, OSError) as error:
        fail(str(error))
    return 0
