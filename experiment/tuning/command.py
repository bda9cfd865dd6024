"""The command line of `tune`: searches the configuration for the best value of `training.monitor`."""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from experiment import cli
from experiment.cli import Framework
from experiment.errors import RunError
from experiment.system import devices
from experiment.system.names import command_line
from experiment.system.progress import Bar
from experiment.system.signals import Stopped
from experiment.tuning.search_space import check, read_search
from experiment.tuning.study import POLL, Work, fill, open_storage
from experiment.tuning.worker import worker

SPACE = Path(__file__).parents[2] / "configs" / "tune.yaml"
DESCRIPTION = """\
Search the configuration: each trial is a run of train. Options that are not named below are those of train
and hold for every trial (--config configs/digits.yaml --training.epochs 5). The same command goes on after a
kill, adds trials where --trials is more, and joins in where another machine is at it (--storage)."""


def main(framework: Framework, argv: Sequence[str] | None = None) -> int:
    """Run `python -m <framework>_impl.tune`; returns its exit code: 1 where no trial was completed."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = cli.PlainParser(
        prog=f"{framework}_impl.tune",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--space", type=Path, default=SPACE, help="YAML of keys and what they may be")
    parser.add_argument("--sampler", choices=("grid", "random", "tpe", "gp"), help="in place of the space's")
    parser.add_argument("--trials", type=int, help="in place of the space's")
    parser.add_argument("--pruning", choices=("none", "median", "hyperband"), help="in place of the space's")
    parser.add_argument("--workers", type=int, default=1, help="trials at a time here (default 1)")
    parser.add_argument("--storage", help="journal file, or postgresql://... (default OUT/journal.log)")
    parser.add_argument("--out", type=Path, help="where runs and report go (runs/tune-FRAMEWORK)")
    given, options = parser.parse_known_args(argv)
    if given.workers < 1:
        parser.error("--workers must be at least 1")
    for option in options:  # of train it may be, or one of these mistyped
        near = get_close_matches(option.split("=")[0], parser._option_string_actions, n=1, cutoff=0.8)
        if near and near[0] != "--config":
            parser.error(f"unrecognized arguments: {option}: did you mean {near[0]}?")
    own = "--resume, --run.dir and --run.overwrite are set for each trial: leave them out"
    if any(option.split("=")[0] in ("--resume", "--run.dir", "--run.overwrite") for option in options):
        parser.error(own)
    with cli.refusing():
        base = cli.train_request(framework, options).experiment
    if base.run.dir is not None or base.run.overwrite:  # by --config, or --run with both
        parser.error(own)
    out = given.out or Path("runs") / f"tune-{framework}"
    command = command_line(["python", "-m", f"{framework}_impl.tune", *argv])

    def search() -> int:
        if not devices.installed("optuna"):
            raise RunError("tune needs Optuna: pip install optuna")
        plan = read_search(given.space, sampler=given.sampler, trials=given.trials, pruning=given.pruning)
        if plan.sampler == "gp" and not devices.installed("torch"):
            raise RunError("sampler gp needs torch: pip install torch, or use tpe")
        check(plan, base)
        storage = open_storage(given.storage or str(out / "journal.log"))
        work = Work(framework, plan, base, out, storage, f"{framework}-{out.name}", given.workers)
        fill(work)
        return run(work, command)

    return cli.guarded(search)


def run(work: Work, command: str) -> int:
    """Let workers do what is left of a search, and write its report; returns the exit code."""
    from experiment.tuning.report import line, write

    study = work.open()
    finished = {trial.number for trial in study.trials if trial.state.is_finished()}
    threads = [threading.Thread(target=worker, args=(work, place)) for place in range(work.workers)]
    try:
        for thread in threads:
            thread.start()
        with Bar("trials", len(study.trials), "trials", len(finished)) as bar:
            while True:
                alive = any(thread.is_alive() for thread in threads)
                for trial in study.get_trials(deepcopy=False):
                    if trial.state.is_finished() and trial.number not in finished:
                        finished.add(trial.number)
                        bar.say(line(trial, work))
                        bar.update()
                if not alive:
                    break
                time.sleep(POLL)
    except (KeyboardInterrupt, Stopped):
        work.stopping.set()
        print("stopping after this step", file=sys.stderr)
    for thread in threads:
        if thread.is_alive():  # or was never started
            thread.join()
    if work.errors:
        raise work.errors[0]
    left = sum(not trial.state.is_finished() for trial in study.trials)
    report = write(work, command)
    if left:
        print(f"{left} trials are left: go on with the same command", file=sys.stderr)
        return 1
    if report is None:
        print(f"no trial was completed: see {work.out / 'trials'}", file=sys.stderr)
        return 1
    print(report)
    return 0
