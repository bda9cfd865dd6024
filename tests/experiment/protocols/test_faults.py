"""Whatever a user's builder does instead of returning a model is told on one line."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiment.protocols import trace
from experiment.protocols.trace import TraceError

BUILDERS = """
import sys


class Net:
    pass


def raises():
    return inner()


def inner():
    raise ValueError("first line\\n\\nsecond line\\nthird line")


def interrupts():
    raise SystemExit


def exits():
    sys.exit("no GPU here")


def needs(width, depth, *, rate, classes=3):
    return Net()


def raises_type_error():
    return len(3)


def gives_class():
    return Net


number = 3
"""


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "builders.py").write_text(BUILDERS)
    (tmp_path / "broken_module.py").write_text("import sys\nsys.exit(4)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "builders", raising=False)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("raises", "builders:raises: ValueError: first line second line (inner, builders.py:14)"),
        ("interrupts", "builders:interrupts: calls sys.exit(): a builder must return a model"),
        ("exits", "builders:exits: calls sys.exit('no GPU here'): a builder must return a model"),
        (
            "needs",
            "builders:needs takes width, depth, rate: name a function without arguments",
        ),
        (
            "raises_type_error",
            "object of type 'int' has no len() (raises_type_error, builders.py:",
        ),
        ("missing", "builders has no 'missing': write package.module:function"),
        ("number", "builders:number is no function that builds a model"),
    ],
)
def test_a_builder_that_gives_no_model_is_told(function: str, said: str) -> None:
    with pytest.raises(TraceError) as refused:
        trace.build(f"builders:{function}")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_module_that_exits_is_told() -> None:
    with pytest.raises(TraceError, match=r"importing broken_module fails: .* calls sys.exit\(4\)"):
        trace.build("broken_module:build")


def test_a_class_is_told_from_a_model() -> None:
    assert trace.described(trace.build("builders:gives_class")) == "the class Net, not a model"
    assert trace.described(3) == "an object of type int"


CONVERSATION = """
import sys, threading, time
from pathlib import Path
import numpy as np
from experiment.protocols import conversation


class Tracer:
    def describe(self):
        print("printed by a model")
        threading.Thread(target=time.sleep, args=(100,)).start()
        return {"layers": []}, {"own/dense/kernel": np.ones(3)}

    def trace(self, handover):
        raise RuntimeError("layer dense fails")

    def rebuild(self, seed, precision):
        sys.exit(5)


sys.exit(conversation.serve(lambda request: Tracer()))
"""


def test_a_tracing_process_answers_until_it_is_told_no_more(tmp_path: Path) -> None:
    (tmp_path / "talk.py").write_text(CONVERSATION)
    requests = io.StringIO()
    for do in ("describe", "trace", "rebuild", "describe"):
        model = {"request": {"build": "net:build"}, "out": "out"}
        requests.write(json.dumps({"do": do, "seed": 1, "precision": "float32", **model}) + "\n")
    done = subprocess.run(
        [sys.executable, "talk.py"],
        input=requests.getvalue(),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=50,
        env=dict(os.environ, PYTHONPATH=str(Path(__file__).parents[3])),
    )
    replies = [json.loads(line) for line in done.stdout.splitlines()]
    assert replies[0] == replies[3] == {}
    assert replies[1]["error"].startswith("net:build: RuntimeError: layer dense fails (trace, talk.py:")
    assert "calls sys.exit(5)" in replies[2]["error"]
    assert "printed by a model" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "out" / "structure.json").read_text()) == {"layers": []}
