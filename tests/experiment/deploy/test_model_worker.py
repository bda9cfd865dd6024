"""A worker process that dies is started again; one that cannot be, is not tried for ever."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from experiment.data.decoding import Reading
from experiment.deploy.model_worker import RESTARTS, Lasting, RestartingError, Worker
from experiment.system import processes

# Speaks as `python -m <side>_impl.serve` does, of a "model" that is a file with a number in it.
SERVE = """
import json, sys
import numpy as np
factor = float(open(sys.argv[1]).read())
with open(sys.argv[1] + ".started", "a") as file:
    file.write("x")
reading = {"background": "#102030", "bits": 12}
print(json.dumps({"class_names": ["a", "b"], "image_size": 4, "reading": reading}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    images = np.load(request["images"])
    if images.max() == 255:
        print(json.dumps({"error": "too bright"}), flush=True)
        continue
    if images.max() == 254:
        print('{"half a li', end="", flush=True)
        sys.exit(3)
    np.save(request["out"], np.full((len(images), 2), factor))
    print("{}", flush=True)
"""


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "stand_impl").mkdir()
    (tmp_path / "stand_impl" / "serve.py").write_text(SERVE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "model").write_text("0.5")
    return tmp_path / "model"


@pytest.fixture
def lasting(model: Path) -> Iterator[Lasting]:
    with Lasting("TFLite", lambda: Worker("stand", model)) as lasting:
        yield lasting


def images(tmp_path: Path, value: int = 1) -> Path:
    np.save(tmp_path / "images.npy", np.full((3, 4, 4, 3), value, np.uint8))
    return tmp_path / "images.npy"


def kill(lasting: Lasting) -> None:
    assert lasting._worker is not None
    os.kill(lasting._worker._process.pid, signal.SIGKILL)
    lasting._worker._process.wait()


def starts(model: Path) -> int:
    return len(Path(f"{model}.started").read_text())


def test_a_worker_says_what_it_serves(lasting: Lasting, tmp_path: Path) -> None:
    assert (lasting.class_names, lasting.image_size) == (["a", "b"], 4)
    assert lasting.reading == Reading("#102030", 12)
    assert lasting.predict(images(tmp_path), 2).tolist() == [[0.5, 0.5]] * 3


@pytest.mark.parametrize("times", [1, 5])
def test_a_worker_that_is_killed_is_started_again(
    lasting: Lasting, model: Path, tmp_path: Path, times: int
) -> None:
    for _ in range(times):
        kill(lasting)
        with pytest.raises(RestartingError, match="TFLite died and is started again: try in a few seconds"):
            lasting.predict(images(tmp_path), 2)
        lasting._thread.join()
        assert lasting.predict(images(tmp_path), 2).tolist() == [[0.5, 0.5]] * 3
    assert starts(model) == 1 + times


def test_one_that_dies_in_the_middle_of_an_answer_is_started_again(lasting: Lasting, tmp_path: Path) -> None:
    with pytest.raises(RestartingError, match="started again"):
        lasting.predict(images(tmp_path, 254), 2)
    lasting._thread.join()
    assert lasting.predict(images(tmp_path), 2).shape == (3, 2)


def test_an_error_of_one_that_lives_is_no_reason_to_restart(
    lasting: Lasting, model: Path, tmp_path: Path
) -> None:
    with pytest.raises(processes.SideError, match="too bright"):
        lasting.predict(images(tmp_path, 255), 2)
    assert lasting.predict(images(tmp_path), 2).shape == (3, 2)
    assert starts(model) == 1


def fail_to_restart(lasting: Lasting, path: Path, times: int) -> None:
    for _ in range(times):
        with pytest.raises(RestartingError, match="is started again"):
            lasting.predict(path, 2)
        lasting._thread.join()


def test_one_that_cannot_be_started_again_is_given_up(lasting: Lasting, model: Path, tmp_path: Path) -> None:
    model.write_text("no number")
    kill(lasting)
    fail_to_restart(lasting, images(tmp_path), RESTARTS)
    model.write_text("0.5")
    last = lasting._thread
    for _ in range(3):
        with pytest.raises(RestartingError, match=r"(?s)3 times it could not be started again: .*no number"):
            lasting.predict(images(tmp_path), 2)
    assert lasting._thread is last
    assert starts(model) == 1


def test_one_that_can_be_again_is_taken_up(lasting: Lasting, model: Path, tmp_path: Path) -> None:
    for _ in range(2):  # what failed before a start that went well does not count
        model.write_text("no number")
        kill(lasting)
        fail_to_restart(lasting, images(tmp_path), RESTARTS - 1)
        model.write_text("0.25")
        fail_to_restart(lasting, images(tmp_path), 1)
        assert lasting.predict(images(tmp_path), 2)[0].tolist() == [0.25, 0.25]


def test_what_is_closed_while_it_starts_ends(lasting: Lasting, tmp_path: Path) -> None:
    kill(lasting)
    with pytest.raises(RestartingError):
        lasting.predict(images(tmp_path), 2)
    lasting.close()
    lasting._thread.join()
    assert lasting._worker is None or not lasting._worker.alive
