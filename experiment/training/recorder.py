"""Recorder of a training run: progress bar, history, TensorBoard, signals, losses that are not finite."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

from experiment.config import Experiment
from experiment.errors import RunError
from experiment.runs.record import Run, brief
from experiment.system import distributed, signals
from experiment.system.files import replacing
from experiment.system.progress import Bar
from experiment.tracking import mlflow
from experiment.tracking.tensorboard import EventWriter

REFRESH = 0.25  # seconds between two readings of loss and accuracy, which may cost a device sync

TAGS = {
    "loss/train": "loss",
    "loss/validation": "val_loss",
    "accuracy/train": "accuracy",
    "accuracy/validation": "val_accuracy",
    "learning_rate": "learning_rate",
    "images_per_second": "images_per_second",
}


class Interrupted(Exception):
    """The user asked the run to stop."""


class NonFiniteLoss(Exception):
    """The loss became NaN or infinite."""


class Recorder:
    """Keeps the record of a training run; both frameworks' callbacks report to it.

    As a context manager it turns the first signal that asks to stop into `Interrupted`, raised after the step
    in hand, and swallows `Interrupted` and `NonFiniteLoss`: `status` then says how training ended, `message`
    why. `stopping` is the number of that signal, or 0.

    settle: called once, before the first epoch is written.
    """

    def __init__(
        self,
        run: Run,
        experiment: Experiment,
        images: int,
        rows: list[dict[str, float]],
        settle: Callable[[], None] = lambda: None,
    ) -> None:
        self.run, self.images, self.rows, self._settle = run, images, rows, settle
        self.experiment, self.training = experiment, experiment.training
        self.tracker: mlflow.Tracker | None = None
        self.epochs = experiment.training.epochs
        self.status, self.message = "completed", ""
        self.step_losses = self._earlier_steps() if experiment.run.record_steps else None
        self.stopping = 0
        self._bar: Bar | None = None
        self._listener = signals.Listener(self._stop)

    def __enter__(self) -> Recorder:
        self._tensorboard = EventWriter(self.run.directory / "tensorboard", len(self.rows) + 1)
        self.tracker = mlflow.start(self.run, self.experiment, self.rows)
        self.listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._listener.stop()
        if self._bar is not None:
            self._bar.close()
        self._tensorboard.close()
        if self.stopping and (error is None or isinstance(error, SystemExit)):
            # There was no step after the one in hand, or Lightning saw the signal first.
            error = Interrupted(self._interrupted(f"after epoch {len(self.rows)}"))
        expected = isinstance(error, Interrupted | NonFiniteLoss)
        try:
            self._write_steps()
        except OSError:
            if error is None or expected:  # else it would hide the error
                raise
        if error is not None and self.tracker is not None:
            stopped = isinstance(error, Interrupted | KeyboardInterrupt | signals.Stopped)
            self.tracker.end("KILLED" if stopped else "FAILED")
        if expected:
            self.status = "interrupted" if isinstance(error, Interrupted) else "non_finite"
            self.message = str(error)
        return expected

    def listen(self) -> None:
        """Take the signals that ask to stop, also from a framework that took them in the meantime."""
        self._listener.start()

    @property
    def exit_code(self) -> int:
        """Of a command whose work ended as this training did."""
        if self.status == "interrupted" and self.stopping:
            return signals.exit_code(self.stopping)
        return 0 if self.status == "completed" else 1

    def epoch_begin(self, epoch: int) -> None:
        """Start the clock of an epoch, counted from 0. Raises Interrupted."""
        if self.stopping and distributed.world() == 1:  # several processes stop together, after a step
            raise Interrupted(self._interrupted(f"after epoch {epoch}"))
        self._epoch, self._step, self._seen, self._total = epoch, 0, 0, 0.0
        description, shown = f"epoch {epoch + 1}/{self.epochs}", distributed.rank() == 0
        self._bar = Bar(description, self.images, "images", shown=shown)
        self._started = self._ended = self._read = time.perf_counter()

    def step(self, images: int, means: Callable[[], tuple[float, float]]) -> None:
        """Report a step; `means` reads the epoch's running mean loss and accuracy, and is called seldom.

        Raises Interrupted and NonFiniteLoss.
        """
        self._step += 1
        self._seen += images
        last = self._seen == self.images
        now = time.perf_counter()
        # Several processes read together, at the end, or each at every step.
        due = now - self._read > REFRESH and distributed.world() == 1
        text = None
        if last or self.step_losses is not None or due:
            loss, accuracy = means()
            if last or due:
                text = f"loss {loss:.4f}, accuracy {accuracy:.4f}"
            self._read = self._ended = time.perf_counter()
            self._record_step(loss, images)
            if not math.isfinite(loss):
                raise NonFiniteLoss(
                    f"the loss became {loss} in epoch {self._epoch + 1}, step {self._step}: try a smaller "
                    "training.learning_rate, or training.precision float32"
                )
        assert self._bar is not None
        self._bar.update(images, text)
        if self.stopping:
            raise Interrupted(self._interrupted(f"in epoch {self._epoch + 1}, step {self._step}"))

    def epoch_end(self, **metrics: float) -> None:
        """Write the row of an epoch: loss, accuracy, val_loss, val_accuracy, learning_rate.

        Raises NonFiniteLoss, after writing nothing, where val_loss is not finite.
        """
        if not math.isfinite(metrics["val_loss"]):
            raise NonFiniteLoss(
                f"the validation loss became {metrics['val_loss']} in epoch {self._epoch + 1}"
            )
        self.settle()
        seconds = self._ended - self._started
        row = {"epoch": self._epoch + 1, **metrics, "seconds": seconds}
        row["images_per_second"] = self._seen / seconds
        self.rows.append(row)
        self.run.write_history(self.rows)
        self._write_steps()
        self._tensorboard.scalars(row["epoch"], {tag: row[key] for tag, key in TAGS.items()})
        if self.tracker is not None:
            self.tracker.epoch(row)
        if self._bar is not None:
            self._bar.close()
        print(
            f"epoch {row['epoch']:>3}/{self.epochs}  loss {row['loss']:.4f}  accuracy {row['accuracy']:.4f}  "
            f"val_loss {row['val_loss']:.4f}  val_accuracy {row['val_accuracy']:.4f}  "
            f"lr {row['learning_rate']:.2e}  {row['images_per_second']:.0f} images/s",
            flush=True,
        )

    def settle(self) -> None:
        """Write what goes before the first new epoch, once."""
        self._settle()
        self._settle = lambda: None

    @property
    def best_row(self) -> dict[str, float] | None:
        """The row of the best epoch so far: each must beat the best before it by more than min_delta.

        That is how the early stopping of both frameworks judges.
        """
        monitor, min_delta = self.training.monitor, self.training.early_stopping.min_delta
        sign = -1.0 if monitor == "val_loss" else 1.0
        best: dict[str, float] | None = None
        for row in self.rows:
            if best is None or sign * (row[monitor] - best[monitor]) > min_delta:
                best = row
        return best

    @property
    def last_is_best(self) -> bool:
        return bool(self.rows) and self.best_row is self.rows[-1]

    def _record_step(self, mean: float, images: int) -> None:
        if self.step_losses is None:
            return
        # The frameworks report the epoch's running mean over images: the step's own loss is its increment.
        total = mean * self._seen
        self.step_losses.append((self._epoch + 1, self._step, (total - self._total) / images))
        self._total = total

    def _earlier_steps(self) -> list[tuple[int, int, float]]:
        path = self.run.directory / "steps.csv"
        if not path.exists():
            return []
        try:
            lines = [line.split(",") for line in path.read_text().splitlines()[1:]]
            steps = [(int(epoch), int(step), float(loss)) for epoch, step, loss in lines]
        except (OSError, ValueError) as error:
            raise RunError(f"{path}: damaged ({brief(error)}): remove it to go on without") from error
        return [step for step in steps if step[0] <= len(self.rows)]

    def _write_steps(self) -> None:
        if self.step_losses is None:
            return
        with replacing(self.run.directory / "steps.csv") as path:
            lines = [f"{epoch},{step},{loss!r}\n" for epoch, step, loss in self.step_losses]
            path.write_text("epoch,step,loss\n" + "".join(lines))

    def _interrupted(self, where: str) -> str:
        by = "" if self.stopping == signal.SIGINT else f" by {signal.Signals(self.stopping).name}"
        return f"interrupted{by} {where}"

    def _stop(self, number: int, frame: FrameType | None) -> Any:
        if self.stopping:
            # Schedulers and torchrun repeat themselves; a user who does means it.
            if number == signal.SIGINT and distributed.world() == 1:
                self._listener.stop()
                signal.raise_signal(number)
            return
        self.stopping = number
        if distributed.rank() == 0:
            said = "\nstopping after this step (Ctrl-C again to end at once)\n"
            if self.rows:  # said now: who sent the signal may not wait for the results
                said += f"go on later with: --resume {self.run.directory}\n"
            with suppress(OSError):  # not print: the step in hand may be printing
                os.write(2, said.encode())
