"""The report of a search: a table of its trials, the best configuration, and figures."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiment.runs.record import Run
from experiment.system import markdown
from experiment.system.environment import environment_line
from experiment.system.files import replacing
from experiment.tuning import figures

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from experiment.tuning.study import Work

SHOWN = 10  # trials in the README; trials.csv has them all


def line(trial: FrozenTrial, work: Work) -> str:
    """A finished trial in a line of text."""
    return f"trial {trial.number:>3}  {_outcome(trial, work.base.training.monitor)}  {_values(trial)}"


def write(work: Work, command: str) -> Path | None:
    """Write README.md, trials.csv, best.yaml and figures into `work.out`; returns the path of the first.

    None, and nothing is written but trials.csv, where no trial was completed.
    """
    from optuna.trial import TrialState

    study, out, monitor = work.open(), work.out, work.base.training.monitor
    trials = study.get_trials()
    out.mkdir(parents=True, exist_ok=True)
    keys = list(work.search.space)
    with replacing(out / "trials.csv") as path, path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["trial", "state", monitor, "epochs", "seconds", *keys, "message"])
        for trial in trials:
            facts = trial.user_attrs
            values = [trial.params.get(key, "") for key in keys]
            told = (facts.get("epochs", 0), facts.get("seconds", 0.0))
            writer.writerow(
                [
                    trial.number,
                    trial.state.name.lower(),
                    _value(trial),
                    *told,
                    *values,
                    facts.get("message", ""),
                ]
            )
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if not done:
        return None
    ranked = sorted(done, key=lambda t: _score(t), reverse=work.direction == "maximize")
    best = Run(work.directory(ranked[0].number))
    if best.finished:  # on another machine it lies there
        with replacing(out / "best.yaml") as path:
            shutil.copyfile(best.directory / "config.yaml", path)
    names = figures.draw(study, out, monitor)
    count = {
        state: sum(trial.state.name == state for trial in trials) for state in ("PRUNED", "FAIL", "WAITING")
    }
    epochs = sum(trial.user_attrs.get("epochs", 0) for trial in trials)
    lines = [
        f"# Search: {work.framework}, {work.search.sampler}, {len(trials)} trials",
        "",
        f"Best {monitor} {_score(ranked[0]):.4f} in trial {ranked[0].number}, which "
        f"`train --config best.yaml` repeats. {len(done)} trials were completed, {count['PRUNED']} stopped "
        f"as hopeless ({work.search.pruning}), {count['FAIL']} failed, {count['WAITING']} are left; {epochs} "
        "epochs in all.",
        *([_tested(best)] if best.finished else []),
        "",
        markdown.table(["trial", monitor, "epochs", *keys], (_row(trial, keys) for trial in ranked[:SHOWN])),
        "",
        *(f"![{name}]({name}.png)\n" for name in names),
        f"`{command}`",
        "",
        environment_line(best.read_json("environment.json")) if best.finished else "",
    ]
    with replacing(out / "README.md") as path:
        path.write_text("\n".join(lines) + "\n")
    return out / "README.md"


def _tested(best: Run) -> str:
    accuracy = best.read_json("metrics.json")["test_accuracy"]
    return f"Chosen on validation images; test accuracy of that run, on others: {accuracy:.4f}."


def _score(trial: FrozenTrial) -> float:
    assert trial.value is not None
    return trial.value


def _value(trial: FrozenTrial) -> Any:
    """A trial's value, or of a stopped one the last that it reported."""
    if trial.values:
        return trial.values[0]
    steps = trial.intermediate_values
    return steps[max(steps)] if steps else ""


def _outcome(trial: FrozenTrial, monitor: str) -> str:
    value = _value(trial)
    text = f"{monitor} {value:.4f}" if isinstance(value, float) else ""
    state = {"PRUNED": "stopped after", "FAIL": "failed after"}.get(trial.state.name, "")
    said = f"  {trial.user_attrs['message']}" if "message" in trial.user_attrs else ""
    after = f" ({state} {trial.user_attrs.get('epochs', 0)} epochs)" if state else ""
    return f"{text}{after}{said}"


def _values(trial: FrozenTrial) -> str:
    return "  ".join(f"{key.split('.')[-1]} {_short(value)}" for key, value in trial.params.items())


def _row(trial: FrozenTrial, keys: list[str]) -> list[object]:
    values = (_short(trial.params[key]) for key in keys)
    return [trial.number, f"{_score(trial):.4f}", trial.user_attrs["epochs"], *values]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
