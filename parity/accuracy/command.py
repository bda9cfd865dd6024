"""python -m parity accuracy: do both sides reach the same accuracy, over seeds?

Both real `train` commands run with seeds 1 to N, each side with its own dropout masks. A seed fixes all
else that is drawn (initial weights, order, augmentation, held-out images) on both sides, so a seed makes a
pair: its two accuracies differ by the dropout masks alone, and by whatever the frameworks do differently. The
claim tested is that the mean difference lies within the margin (`parity.accuracy.equivalence`), on this test
split and for training repeated with other seeds. Choose N and the margin before, not until the verdict
pleases.

The baseline is each framework against itself under the same terms: same seed, other dropout masks. The second
draw of masks is `training.dropout_masks shared`, of the same distribution and unrelated to the framework's
own. What a framework differs from itself by, no comparison of two can undercut.

Writes OUT/accuracy.json and OUT/accuracy.md; the runs lie in OUT/runs, and a finished one is not trained
again. Exits with 0 where the sides are equivalent, else with 1. accuracy.json holds, all shares as fractions:

    verdict         "equivalent", "not shown" or "different", of comparisons[0]
    statement       the verdict, as a sentence
    notes           what to keep in mind with it, a list of sentences
    command, utc    how and when it was made
    margin, alpha   as stated before
    seeds           [1, ..., N]
    test_images     how many
    settings        the experiment, as in config.yaml, without seed, run and dropout_masks
    sides           {"keras": {"own": {"accuracies": [one a seed], "mean", "sd"},
                     "shared": as own, null without a baseline}, "lightning": as keras}; own and shared
                    are the dropout masks
    comparisons     [{"name", "first", "second": [side, masks], "what": a sentence, "seeds": [...],
                     "differences": [second - first, one a seed], "difference": their mean, "sd",
                     "ci_low", "ci_high": the 1 - 2 alpha interval of the mean difference,
                     "p_lower", "p_upper": of the two one-sided tests, "p": the larger,
                     "power": at a true difference of zero with this sd, "needed_seeds": for a power of 0.8,
                     or null, "verdict", "disagreement": {"shares": [share of test images with different
                     answers, one a seed], "mean", "first_only": right on the first alone, summed over the
                     seeds, "second_only", "mcnemar_p": [one a seed]}}, ...], in this order:
                    "frameworks" (the claim), then, with a baseline, "keras itself", "lightning itself"
                    and "frameworks, same masks", where both sides draw the shared masks
    independent     the claim without pairing (Welch): {"difference", "standard_error", "degrees", "ci_low",
                    "ci_high", "p_lower", "p_upper", "p", "power", "verdict"}
    excess          how much more the frameworks disagree with one another than each with itself, on the same
                    seeds: {"shares": [one a seed], "mean", "ci_low", "ci_high"}; null without a baseline
    other_seeds     mean share of test images on which runs of two different seeds disagree, over all pairs:
                    {"keras", "lightning", "frameworks"}; null where the test images depend on the seed
    earlier         reports of OUT before, by other terms: [{"seeds": N, "margin", "alpha", "verdict"}]
    environment     {"keras": environment.json of its first run, "lightning": as keras}
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiment import cli
from experiment.errors import ConfigError
from experiment.runs.record import Run
from experiment.system.files import replacing
from experiment.system.names import command_line
from parity.accuracy import report
from parity.accuracy import results as accuracy_results
from parity.accuracy.results import Unfit
from parity.accuracy.runs import MASKS, Job, jobs, train_all
from parity.ladder.whole_run import SIDES

DIGITS = ("--config", "configs/digits.yaml")
RESERVED = {
    "--seed": "the seeds are 1 to --seeds",
    "--run.dir": "the runs lie in --out",
    "--run.overwrite": "the runs lie in --out",
    "--training.dropout_masks": "own masks are compared, shared ones are the baseline",
    "--resume": "finished runs are not trained again as it is",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = cli.PlainParser(
        prog="parity accuracy",
        description="Train both sides over seeds and test whether their accuracies are equivalent. All other "
        "options are those of train; the default is --config configs/digits.yaml.",
        allow_abbrev=False,
    )
    parser.add_argument("--seeds", type=_at_least(2), default=10, help="how many seeds (default 10)")
    parser.add_argument(
        "--baseline",
        type=_at_least(0),
        metavar="N",
        help="seeds of the baseline: all (default), 0 (none) or N",
    )
    parser.add_argument("--margin", type=_share, default=0.01, help="margin of equivalence (default 0.01)")
    parser.add_argument("--alpha", type=_share, default=0.05, help="level of each test (default 0.05)")
    parser.add_argument("--gpus", help="as of train")
    parser.add_argument("--backend", help="Keras's, as of train")
    parser.add_argument("--out", type=Path, default=Path("runs/accuracy"), help="default: runs/accuracy")
    arguments, options = parser.parse_known_args(argv)
    baseline = arguments.seeds if arguments.baseline is None else arguments.baseline
    if baseline == 1 or baseline > arguments.seeds:
        cli.fail(f"--baseline {baseline}: 0, or 2 to --seeds {arguments.seeds}")
    if arguments.out.is_file():
        cli.fail(f"--out {arguments.out} is a file: name a directory")
    command = f"python -m parity accuracy {command_line(argv)}".rstrip()
    with cli.refusing():
        options = _train_options(options, arguments.gpus, arguments.backend)
        wanted = jobs(arguments.out, dict.fromkeys(SIDES, options), arguments.seeds, baseline)

    def work() -> int:
        try:
            train_all(wanted)
            results = judge(wanted, arguments.out, arguments.margin, arguments.alpha, command)
        except Unfit as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        return _say(results, arguments.out)

    return cli.guarded(work)


def judge(wanted: Sequence[Job], out: Path, margin: float, alpha: float, command: str) -> dict[str, Any]:
    """Compare the finished runs; writes accuracy.json and accuracy.md into `out` and returns the former.

    Raises Unfit where the runs cannot be compared.
    """
    runs: dict[tuple[str, str], list[Run]] = {(side, masks): [] for side in SIDES for masks in MASKS}
    for job in wanted:  # in the order of their seeds
        runs[job.side, job.masks].append(Run(job.directory))
    experiment = wanted[0].experiment
    results = {
        "command": command,
        "utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "settings": experiment.model_dump(
            mode="json", exclude={"seed": True, "run": True, "training": {"dropout_masks"}}
        ),
        **accuracy_results.results(runs, margin, alpha, experiment.data.limit),
    }
    results["earlier"] = _earlier(out / "accuracy.json", results)
    said = {"statement": report.statement(results), "notes": report.notes(results)}
    results = {"verdict": results.pop("verdict"), **said, **results}
    for name, text in (
        ("accuracy.json", json.dumps(results, indent=2) + "\n"),
        ("accuracy.md", report.markdown(results)),
    ):
        with replacing(out / name) as path:
            path.write_text(text)
    return results


def _earlier(path: Path, results: dict[str, Any]) -> list[dict[str, Any]]:
    """The terms by which a report that stands there was made, and those before it, where they are others."""

    def terms(some: dict[str, Any]) -> dict[str, Any]:
        return {"seeds": len(some["seeds"]), "margin": some["margin"], "alpha": some["alpha"]}

    if not path.is_file():
        return []
    before = json.loads(path.read_text())
    known = [*before["earlier"], terms(before) | {"verdict": before["verdict"]}]
    now = terms(results)
    return [one for one in known if any(one[key] != now[key] for key in now)]


def _say(results: dict[str, Any], out: Path) -> int:
    print(
        f"\n{results['statement']}",
        *(f"- {note}" for note in results["notes"]),
        out / "accuracy.md",
        sep="\n",
    )
    return 0 if results["verdict"] == "equivalent" else 1


def _train_options(options: list[str], gpus: str | None, backend: str | None) -> list[str]:
    for option in options:
        if (reason := RESERVED.get(option.split("=")[0])) is not None:
            raise ConfigError(f"{option.split('=')[0]} cannot be given: {reason}")
    if not any(option.split("=")[0] in ("--config", "--data.name") for option in options):
        options = [*DIGITS, *options]
    for name, value in (("--gpus", gpus), ("--backend", backend)):
        options += [name, value] if value is not None else []
    return options


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if (value := int(text)) < least:
            raise argparse.ArgumentTypeError(f"{text}: must be at least {least}")
        return value

    return number


def _share(text: str) -> float:
    if not 0 < (value := float(text)) < 0.5:
        raise argparse.ArgumentTypeError(f"{text}: must lie between 0 and 0.5")
    return value
