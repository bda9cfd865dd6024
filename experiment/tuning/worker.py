"""Search worker: claims queued trials and runs each as a `train` process.

The study lies in a journal file or an SQL database, and its trials are queued in it beforehand, so that
workers, in one process or on several machines, take each of them once. A trial is its worker's while its lock
file is held, by the worker or by the `train` that it started: when both are gone, the next resumes the run.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from experiment.config import Experiment
from experiment.errors import RunError
from experiment.runs.record import Run
from experiment.system import devices
from experiment.system.files import lock, replacing
from experiment.tuning.search_space import configured
from experiment.tuning.study import POLL, Work

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

HOST = socket.gethostname()
UNCLAIMED = 60.0  # seconds after which a running trial of nobody's is taken over


def worker(work: Work, place: int) -> None:
    """Take trials until none is left; what goes wrong is added to `work.errors`."""
    try:
        study = work.open()
        while not work.stopping.is_set() and _one(work, study, place):
            pass
    except Exception as error:
        work.errors.append(error)
        work.stopping.set()


def _one(work: Work, study: Study, place: int) -> bool:
    """Do one trial; returns whether there may be more."""
    from optuna.trial import TrialState

    states = (TrialState.RUNNING, TrialState.WAITING)
    open_trials = study.get_trials(deepcopy=False, states=states)
    mine = [t for t in open_trials if t.state == TrialState.WAITING or abandoned(t)]
    for frozen in sorted(mine, key=lambda t: (t.state == TrialState.WAITING, t.number)):
        path = work.directory(frozen.number).with_suffix(".lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        with lock(path, without=False) as held:
            if held is not None and (trial := _claimed(work, study, frozen.number)) is not None:
                _run(work, study, trial, held, place)
                return True
    time.sleep(POLL)
    return bool(mine)  # what another worker holds may be left behind


def abandoned(trial: FrozenTrial) -> bool:
    """True for a running trial that is this machine's to go on with, if nobody holds its lock."""
    if "host" in trial.user_attrs:
        return trial.user_attrs["host"] == HOST
    return trial.datetime_start is not None and time.time() - trial.datetime_start.timestamp() > UNCLAIMED


def _claimed(work: Work, study: Study, number: int) -> Trial | None:
    """The trial, now this machine's, or None where it was taken before; its lock is held."""
    import optuna
    from optuna.trial import TrialState

    study_id = work.storage.get_study_id_from_name(work.name)
    trial_id = work.storage.get_trial_id_from_study_id_trial_number(study_id, number)
    state = work.storage.get_trial(trial_id).state
    if state.is_finished():
        return None
    if state == TrialState.WAITING:
        try:
            if not work.storage.set_trial_state_values(trial_id, TrialState.RUNNING):
                return None
        except optuna.exceptions.UpdateFinishedTrialError:
            return None
    work.storage.set_trial_user_attr(trial_id, "host", HOST)
    study.sampler = work.search.sampled_by(number)
    return optuna.trial.Trial(study, trial_id)


def _run(work: Work, study: Study, trial: Trial, held: int, place: int) -> None:
    """Train a trial's run, or what is left of it, and tell the study how it ended."""
    from optuna.trial import TrialState

    run, values = Run(work.directory(trial.number)), work.search.suggest(trial)
    try:
        experiment = configured(work.base, values)
    except RunError as error:
        trial.set_user_attr("message", str(error))
        study.tell(trial, state=TrialState.FAIL)
        return
    log, code, pruned = run.directory.with_suffix(".log"), 0, False
    if not ended(run):
        command = [sys.executable, "-m", f"{work.framework}_impl.train", *_arguments(run, experiment)]
        with log.open("ab") as file:
            process = subprocess.Popen(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is passed on below, once
                pass_fds=(held,),
                env=os.environ | share(place, work),
            )
        code, pruned = _watched(work, run, trial, process, experiment.training.epochs)
        if work.stopping.is_set() and not ended(run) and not pruned:
            return  # the trial stays this machine's, and is resumed
    if code == 2:
        raise RunError(f"trial {trial.number} was refused: {_last(log)}\n(see {log})")
    rows, monitor = run.history(), experiment.training.monitor
    trial.set_user_attr("epochs", len(rows))
    trial.set_user_attr("seconds", round(sum(row["seconds"] for row in rows), 3))
    if pruned:
        study.tell(trial, state=TrialState.PRUNED)
    elif ended(run) and run.read_json("metrics.json")["status"] == "completed":
        best = min if work.direction == "minimize" else max
        study.tell(trial, best(row[monitor] for row in rows))
    else:
        trial.set_user_attr("message", _last(log))
        study.tell(trial, state=TrialState.FAIL)


def ended(run: Run) -> bool:
    """True for a run that came to an end that is not to be resumed from."""
    return run.finished and run.read_json("metrics.json")["status"] != "interrupted"


def share(place: int, work: Work) -> dict[str, str]:
    """The environment that holds worker `place` to its share of the machine: of its cores, and one GPU."""
    found = {}
    if work.workers > 1:
        threads = str(max(1, devices.count_cores() // work.workers))
        found = {"OMP_NUM_THREADS": threads, "TF_NUM_INTRAOP_THREADS": threads}
        if work.base.gpus != 0 and (gpus := devices.count_gpus()) > 1:
            found["CUDA_VISIBLE_DEVICES"] = str(place % gpus)
    return found


def _watched(work: Work, run: Run, trial: Trial, process: subprocess.Popen, epochs: int) -> tuple[int, bool]:
    """Wait for a `train`, reporting its epochs; returns its exit code and whether it was stopped."""
    told, seen, monitor = False, 0, work.base.training.monitor
    while process.poll() is None:
        rows = run.history()
        fresh, seen = len(rows) > seen, len(rows)
        if fresh and _hopeless(rows, trial, monitor, epochs):
            process.terminate()
            process.wait()
            return 0, True
        if work.stopping.is_set() and not told:
            process.send_signal(signal.SIGINT)
            told = True
        time.sleep(POLL)
    return process.returncode, not ended(run) and _hopeless(run.history(), trial, monitor, epochs)


def _hopeless(rows: list[dict[str, float]], trial: Trial, monitor: str, epochs: int) -> bool:
    """Report epochs that were not yet; returns whether the trial is not worth its next one."""
    known = trial.study.trials[trial.number].intermediate_values
    for row in rows:
        epoch = int(row["epoch"])
        if epoch not in known:
            trial.report(row[monitor], epoch)
        if epoch < epochs and (epoch not in known or epoch == max(known)) and trial.should_prune():
            return True
    return False


def _arguments(run: Run, experiment: Experiment) -> list[str]:
    if run.resumable:
        return ["--resume", str(run.directory)]
    config = run.directory.with_suffix(".yaml")
    with replacing(config) as path:
        path.write_text(yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False))
    return [f"--config={config}", f"--run.dir={run.directory}", "--run.overwrite=true"]


def _last(log: Path) -> str:
    """The last words of a `train`: its error, if it said one."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return errors[-1] if errors else " ".join(lines[-2:])
