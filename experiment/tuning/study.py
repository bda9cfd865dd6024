"""The study of a search: what its workers share, where it is kept, and the queue of its trials."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from experiment.cli import Framework
from experiment.config import Experiment
from experiment.errors import RunError
from experiment.system.names import brief
from experiment.tuning.search_space import Search

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage

POLL = 0.2  # seconds between two looks at what others do
ATTEMPTS = 5  # at opening a database


@dataclass
class Work:
    """A study and what its workers share. base: what no trial varies. out: where runs and logs go."""

    framework: Framework
    search: Search
    base: Experiment
    out: Path
    storage: BaseStorage
    name: str
    workers: int = 1
    stopping: threading.Event = field(default_factory=threading.Event)
    errors: list[Exception] = field(default_factory=list)

    def open(self) -> Study:
        """The study; each thread opens its own, because a study's sampler is its trial's."""
        import optuna

        pruner = self.search.pruned_by(self.base.training.epochs)
        return optuna.load_study(study_name=self.name, storage=self.storage, pruner=pruner)

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        return "minimize" if self.base.training.monitor == "val_loss" else "maximize"

    def directory(self, number: int) -> Path:
        return self.out / "trials" / f"{number:04}"


def open_storage(where: str) -> BaseStorage:
    """A journal file, or a database by its URL; raises RunError where it cannot be reached."""
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if "://" not in where:
        path = Path(where).expanduser()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return JournalStorage(JournalFileBackend(str(path), JournalFileOpenLock(str(path))))
        except OSError as error:
            raise RunError(f"--storage {where}: cannot be opened ({error.strerror})") from error
    for attempt in range(ATTEMPTS):
        try:
            # psycopg 3 is the driver that is installed, and SQLAlchemy would look for another.
            return optuna.storages.RDBStorage(where.replace("postgresql://", "postgresql+psycopg://", 1))
        except Exception as error:  # drivers raise what they like
            if attempt == ATTEMPTS - 1 or "already exists" not in str(error):
                raise RunError(f"--storage {where}: cannot be opened ({brief(error)})") from error
            time.sleep(1)  # another worker is just making the tables
    raise AssertionError("unreachable")


def fill(work: Work) -> None:
    """Make the study, or add trials up to those wanted; raises RunError where another search has its name.

    Whoever makes the study fills it; others wait for that.
    """
    import optuna

    queue = work.search.queue()
    described = {
        "search": work.search.model_dump(mode="json", exclude={"trials"}, exclude_defaults=True),
        "base": work.base.model_dump(
            mode="json", exclude={"run", "gpus", "tracking", "mlflow"}, exclude_defaults=True
        ),
    }
    try:
        study = optuna.create_study(study_name=work.name, storage=work.storage, direction=work.direction)
    except optuna.exceptions.DuplicatedStudyError:
        study = work.open()
        for _ in range(100):
            if "filled" in study.user_attrs:
                break
            time.sleep(POLL)
        else:
            raise RunError(f"the search {work.name} was not begun to its end: name another --out") from None
        for part in described:
            if study.user_attrs[part] != described[part]:
                raise RunError(
                    f"{work.name} is a search with another {part}: repeat its command, or name another --out"
                ) from None
    else:
        for part, value in described.items():
            study.set_user_attr(part, value)
    for cell in queue[len(study.get_trials(deepcopy=False)) :]:
        study.enqueue_trial(cell)
    study.set_user_attr("filled", True)
