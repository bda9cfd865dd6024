"""The recorder: history, step losses, TensorBoard, Ctrl-C, losses that are no numbers."""

from __future__ import annotations

import errno
import math
import os
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

from experiment.config import Experiment
from experiment.errors import RunError
from experiment.runs.record import Run
from experiment.system import signals
from experiment.training import recorder as progress
from experiment.training.recorder import NonFiniteLoss, Recorder

BATCHES = (4, 4, 2)
IMAGES = sum(BATCHES)
METRICS = {"accuracy": 0.5, "val_loss": 2.0, "val_accuracy": 0.25, "learning_rate": 1e-3}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(Experiment.model_validate({"run": {"dir": str(tmp_path / "run")}}), "keras", "digits")


def recorder(
    run: Run, rows: list[dict[str, float]] | None = None, record_steps: bool = False, **training: Any
) -> Recorder:
    values = {"training": training, "run": {"record_steps": record_steps}}
    return Recorder(run, Experiment.model_validate(values), IMAGES, rows or [])


def steps(recorder: Recorder, epoch: int, losses: list[float] | None = None) -> None:
    """Report an epoch as the frameworks do: with the running mean over images."""
    recorder.epoch_begin(epoch)
    seen, total = 0, 0.0
    for images, loss in zip(BATCHES, losses or [1.0, 1.0, 1.0], strict=True):
        seen, total = seen + images, total + images * loss
        recorder.step(images, lambda mean=total / seen: (mean, 0.5))


def row(epoch: int, **values: float) -> dict[str, float]:
    return {"epoch": epoch, "loss": 1.0, **METRICS, "seconds": 1.0, "images_per_second": 10.0} | values


def scalars(run: Run) -> dict[str, list[tuple[int, float]]]:
    """(step, value) by tag, in the order written."""
    found: dict[str, list[tuple[int, float]]] = {}
    for event in events(run):
        for value in event.summary.value:
            simple = value.simple_value or sum(value.tensor.float_val)
            found.setdefault(value.tag, []).append((event.step, simple))
    return found


def events(run: Run) -> Iterator[Event]:
    # TFRecord: length, its checksum, the record, its checksum. TensorBoard's own reader wants TensorFlow.
    for path in sorted((run.directory / "tensorboard").iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            yield Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]


# === Rows ===


def test_every_epoch_is_a_row_of_the_history(run: Run) -> None:
    with recorder(run) as recording:
        for epoch in range(2):
            steps(recording, epoch)
            recording.epoch_end(loss=1.0 / (epoch + 3), **METRICS)
            assert run.history() == recording.rows
    assert recording.status == "completed"
    assert recording.message == ""
    assert [(r["epoch"], r["loss"]) for r in run.history()] == [(1, 1 / 3), (2, 1 / 4)]
    assert all(METRICS.items() <= r.items() for r in run.history())
    assert not (run.directory / "steps.csv").exists()


def test_speed_counts_the_images_and_the_training_time_alone(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    with recorder(run) as recording:
        recording.epoch_begin(0)
        for images in BATCHES:
            clock[0] += 0.5
            recording.step(images, lambda: (1.0, 0.5))
        clock[0] += 100  # validation
        recording.epoch_end(loss=1.0, **METRICS)
    assert recording.rows[0]["seconds"] == 1.5
    assert recording.rows[0]["images_per_second"] == IMAGES / 1.5


def test_means_are_read_seldom_but_always_at_the_end(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, read = [0.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    with recorder(run) as recording:
        recording.images = 100
        recording.epoch_begin(0)
        for number in range(100):
            clock[0] += progress.REFRESH / 32
            recording.step(1, lambda number=number: read.append(number) or (1.0, 0.5))
    assert read == [32, 65, 98, 99]


def test_resumed_rows_are_kept_and_continued(run: Run) -> None:
    before = [row(1), row(2, val_loss=1.5)]
    with recorder(run, list(before)) as recording:
        steps(recording, 2)
        recording.epoch_end(loss=0.5, **METRICS)
    assert run.history()[:2] == before
    assert [r["epoch"] for r in run.history()] == [1, 2, 3]
    assert scalars(run)["loss/train"] == [(3, 0.5)]
    # From this mark on TensorBoard forgets what an interrupted run wrote.
    assert [e.step for e in events(run) if e.session_log.status == SessionLog.START] == [3]


# === Step losses ===


def test_step_losses_are_recovered_from_running_means(run: Run) -> None:
    expected = np.random.default_rng(0).uniform(0.1, 3, (2, 3)).tolist()
    with recorder(run, record_steps=True) as recording:
        for epoch, losses in enumerate(expected):
            steps(recording, epoch, losses)
            recording.epoch_end(loss=1.0, **METRICS)
    header, *lines = (run.directory / "steps.csv").read_text().splitlines()
    written = [line.split(",") for line in lines]
    assert header == "epoch,step,loss"
    assert [tuple(map(int, line[:2])) for line in written] == [(e, s) for e in (1, 2) for s in (1, 2, 3)]
    losses = np.array([float(line[2]) for line in written])
    np.testing.assert_allclose(losses, np.ravel(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize("content", [b"epoch,step,loss\n1,1", b"epoch,step,loss\n1,1,low\n", b"\x80"])
def test_damaged_step_losses_are_named(run: Run, content: bytes) -> None:
    (run.directory / "steps.csv").write_bytes(content)
    with pytest.raises(RunError, match=r"^.*steps\.csv: damaged \(.*\): remove it to go on without$"):
        recorder(run, record_steps=True)


# === The best epoch ===


@pytest.mark.parametrize(
    ("monitor", "min_delta", "values", "best"),
    [
        ("val_loss", 0.0, [3, 1, 2], 2),
        ("val_loss", 0.0, [3, 1, 1], 2),
        ("val_loss", 0.5, [3, 2.75, 2.25, 2.0], 3),
        ("val_accuracy", 0.0, [0.5, 0.75, 0.625], 2),
        ("val_accuracy", 0.25, [0.25, 0.5, 0.375], 1),
    ],
)
def test_best_epoch_beats_the_best_before_by_more_than_min_delta(
    run: Run, monitor: str, min_delta: float, values: list[float], best: int
) -> None:
    rows = [row(epoch, **{monitor: value}) for epoch, value in enumerate(values, 1)]
    recording = recorder(run, rows, monitor=monitor, early_stopping={"min_delta": min_delta})
    assert recording.best_row is rows[best - 1]
    assert recording.last_is_best == (best == len(rows))


def test_without_epochs_none_is_best(run: Run) -> None:
    assert recorder(run).best_row is None
    assert not recorder(run).last_is_best


# === TensorBoard ===


def test_tensorboard_holds_every_metric(run: Run) -> None:
    with recorder(run) as recording:
        for epoch in range(2):
            steps(recording, epoch)
            recording.epoch_end(loss=0.75 - epoch / 4, **METRICS)
    written = scalars(run)
    speeds = [r["images_per_second"] for r in recording.rows]
    assert [value for _, value in written.pop("images_per_second")] == pytest.approx(speeds, rel=1e-6)
    assert written.pop("learning_rate") == [(1, np.float32(1e-3)), (2, np.float32(1e-3))]
    assert written == {
        "loss/train": [(1, 0.75), (2, 0.5)],
        "loss/validation": [(1, 2.0), (2, 2.0)],
        "accuracy/train": [(1, 0.5), (2, 0.5)],
        "accuracy/validation": [(1, 0.25), (2, 0.25)],
    }


# === Endings ===


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_training(run: Run, bad: float) -> None:
    with recorder(run, record_steps=True) as recording:
        steps(recording, 0, [1.0, bad, 1.0])
        pytest.fail("training went on")
    assert recording.status == "non_finite"
    assert f"{bad} in epoch 1, step 2" in recording.message
    assert "training.learning_rate" in recording.message
    assert run.history() == []
    assert len((run.directory / "steps.csv").read_text().splitlines()) == 3


def test_a_validation_loss_that_is_no_number_ends_training_unrecorded(run: Run) -> None:
    with recorder(run, [row(1)]) as recording:
        steps(recording, 1)
        with pytest.raises(NonFiniteLoss):
            recording.epoch_end(loss=1.0, **{**METRICS, "val_loss": math.nan})
        recording.epoch_end(loss=1.0, **{**METRICS, "val_loss": math.inf})
    assert recording.status == "non_finite"
    assert recording.message == "the validation loss became inf in epoch 2"
    assert recording.rows == [row(1)]


def test_ctrl_c_ends_training_after_the_step_in_hand(run: Run) -> None:
    before = signal.getsignal(signal.SIGINT)
    with recorder(run) as recording:
        recording.epoch_begin(0)
        recording.step(4, lambda: (1.0, 0.5))
        os.kill(os.getpid(), signal.SIGINT)
        finished_step = True
        recording.step(4, lambda: (1.0, 0.5))
        pytest.fail("training went on")
    assert finished_step
    assert (recording.status, recording.message) == ("interrupted", "interrupted in epoch 1, step 2")
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("number", signals.STOPS)
def test_every_signal_that_asks_to_stop_ends_training_alike(
    run: Run, number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    with recorder(run, [row(1)]) as recording:
        recording.epoch_begin(1)
        for _ in range(2 if number != signal.SIGINT else 1):  # who repeats it asks for no more
            os.kill(os.getpid(), number)
        recording.step(4, lambda: (1.0, 0.5))
        pytest.fail("training went on")
    by = "" if number == signal.SIGINT else f" by {number.name}"
    assert recording.status == "interrupted"
    assert recording.message == f"interrupted{by} in epoch 2, step 1"
    assert recording.exit_code == 128 + number
    assert f"--resume {run.directory}" in capfd.readouterr().err
    assert signal.getsignal(number) is before


def test_a_signal_during_validation_keeps_the_epoch(run: Run) -> None:
    with recorder(run) as recording:
        steps(recording, 0)
        os.kill(os.getpid(), signal.SIGTERM)
        recording.epoch_end(loss=1.0, **METRICS)
        recording.epoch_begin(1)
        pytest.fail("training went on")
    assert recording.message == "interrupted by SIGTERM after epoch 1"
    assert len(run.history()) == 1


def test_a_signal_after_the_last_step_is_not_forgotten(run: Run) -> None:
    with recorder(run) as recording:
        steps(recording, 0)
        os.kill(os.getpid(), signal.SIGHUP)
        recording.epoch_end(loss=1.0, **METRICS)
    assert (recording.status, recording.exit_code) == ("interrupted", 129)


def test_a_framework_that_ends_itself_on_a_signal_is_interrupted(run: Run) -> None:
    with recorder(run, [row(1)]) as recording:
        os.kill(os.getpid(), signal.SIGTERM)
        raise SystemExit  # as Lightning does
    assert (recording.status, recording.exit_code) == ("interrupted", 143)


def test_handlers_that_a_framework_put_in_between_are_taken_back(run: Run) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with recorder(run) as recording:
        signal.signal(signal.SIGTERM, lambda number, frame: pytest.fail("not ours"))
        recording.listen()
        os.kill(os.getpid(), signal.SIGTERM)
        recording.epoch_begin(0)
        pytest.fail("training went on")
    assert recording.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_hangup_that_is_ignored_stays_ignored(run: Run) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    try:
        with recorder(run) as recording:
            os.kill(os.getpid(), signal.SIGHUP)
            steps(recording, 0)
        assert recording.status == "completed"
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_tensorboard_without_room_costs_a_warning_and_no_epoch(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(records: Any, event: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with recorder(run) as recording:
        monkeypatch.setattr("tensorboard.summary.writer.record_writer.RecordWriter.write", write)
        for epoch in range(2):
            steps(recording, epoch)
            recording.epoch_end(loss=1.0, **METRICS)
    assert (recording.status, len(run.history())) == ("completed", 2)
    warnings = [line for line in capsys.readouterr().err.splitlines() if "TensorBoard" in line]
    assert len(warnings) == 1
    assert "No space left on device" in warnings[0]


def test_a_directory_that_takes_no_events_costs_a_warning(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    (run.directory / "tensorboard").touch()  # a file in its place
    with recorder(run) as recording:
        steps(recording, 0)
        recording.epoch_end(loss=1.0, **METRICS)
    assert recording.status == "completed"
    assert capsys.readouterr().err.count("WARNING: TensorBoard: ") == 1


def test_a_full_disk_ends_training_and_is_not_hidden_by_another_error(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def training() -> None:
        with recorder(run, record_steps=True) as recording:
            steps(recording, 0)
            monkeypatch.setattr(Path, "write_text", no_room)
            raise first

    def no_room(path: Path, text: str) -> int:
        raise OSError(errno.ENOSPC, "second")

    first = OSError(errno.ENOSPC, "first")
    with pytest.raises(OSError, match="first"):
        training()


def test_a_second_ctrl_c_ends_at_once(run: Run) -> None:
    def impatient() -> None:
        with recorder(run):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        impatient()


def test_other_errors_pass_and_the_handler_is_put_back(run: Run) -> None:
    def broken() -> None:
        with recorder(run):
            raise ZeroDivisionError

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError):
        broken()
    assert signal.getsignal(signal.SIGINT) is before
