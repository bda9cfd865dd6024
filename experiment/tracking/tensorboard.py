"""TensorBoard event files, written without a framework (tensorboardX and TensorBoard's writer import one)."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, BinaryIO

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from experiment.config import Experiment
from experiment.runs.record import Run
from experiment.system import files
from experiment.tracking import mlflow

Layers = Sequence[tuple[str, str, Sequence[str]]]  # name, kind and inputs of each


def write(run: Run, experiment: Experiment, metrics: Mapping[str, Any], layers: Layers) -> None:
    """Write a finished run's pictures, settings and graph for TensorBoard."""
    epochs = len(run.history())
    names = ("samples", "confusion", "mistakes", "calibration", "curves")
    pictures = {name: path for name in names if (path := run.directory / f"{name}.png").is_file()}
    with closing(EventWriter(run.directory / "tensorboard", epochs + 1)) as events:
        events.images(epochs, pictures)
        reached = {key: metrics[key] for key in ("test_accuracy", "test_loss", "macro_f1")}
        events.hyperparameters(mlflow.settings(experiment), reached)
        if layers:
            events.graph(layers)


class EventWriter:
    """Writes scalars into a new event file; TensorBoard then drops earlier ones from `first_step` on.

    The run record holds all of it: where the disk takes no more, that is said once and training goes on.
    """

    def __init__(self, directory: Path, first_step: int) -> None:
        self._file: BinaryIO | None = None
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self._path = directory / name
        self._attempt(self._open)
        self._write(Event(file_version="brain.Event:2"))
        self._write(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Write one value for each tag."""
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=v) for tag, v in values.items()])
        self._write(Event(step=step, summary=summary))
        self._attempt(lambda: self._file and self._file.flush())

    def images(self, step: int, paths: Mapping[str, Path]) -> None:
        """Write PNG files, each by its tag."""
        for tag, path in paths.items():
            image = Summary.Image(encoded_image_string=path.read_bytes())
            self._write(Event(step=step, summary=Summary(value=[Summary.Value(tag=tag, image=image)])))

    def hyperparameters(self, values: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Write a run's settings and what it reached, for the table of TensorBoard's HParams."""
        from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        plain = {k: v if isinstance(v, int | float | bool | str) else str(v) for k, v in values.items()}
        self._write(Event(summary=hparams_pb(plain, trial_id="run")))
        end = plugin_data_pb2.HParamsPluginData(
            session_end_info=plugin_data_pb2.SessionEndInfo(
                status=api_pb2.STATUS_SUCCESS, end_time_secs=time.time()
            )
        )
        value = Summary.Value(tag="_hparams_/session_end_info")
        value.metadata.plugin_data.plugin_name = "hparams"
        value.metadata.plugin_data.content = end.SerializeToString()
        self._write(Event(summary=Summary(value=[value])))
        self.scalars(0, {f"hparams/{key}": value for key, value in metrics.items()})

    def graph(self, layers: Sequence[tuple[str, str, Sequence[str]]]) -> None:
        """Write a model's graph: name, kind and inputs of each layer, "" for the model's own input."""
        graph = GraphDef()
        graph.node.add(name="images", op="Input")
        for name, kind, inputs in layers:
            graph.node.add(name=name, op=kind, input=[one or "images" for one in inputs])
        self._write(Event(graph_def=graph.SerializeToString()))

    def close(self) -> None:
        self._attempt(lambda: self._file and self._file.close())

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("wb")
        self._records = RecordWriter(self._file)

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._attempt(lambda: self._file and self._records.write(event.SerializeToString()))

    def _attempt(self, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError as error:
            if self._file is not None:
                with suppress(OSError):  # of what it still holds back
                    self._file.close()
                self._file = None
            said = files.told(error) or error
            print(f"WARNING: TensorBoard: {said}; the run record is whole without it", file=sys.stderr)
