"""The bare loops that the benchmarks compare with, and what the hardware gives at best."""

from __future__ import annotations

import json

import pytest
from torch.nn import Module

from lightning_impl.bench import baselines


@pytest.mark.parametrize("mode", ["loop", "graphs"])
def test_the_loop_tells_its_epochs(
    mode: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []
    monkeypatch.setattr(Module, "compile", lambda self, mode: modes.append(mode))  # takes a minute
    options = ["--data.name=digits", "--data.limit=90", "--model.filters=[4,8]", "--training.epochs=2"]
    assert baselines.main([f"--mode={mode}", "--gpus=0", *options]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (len(told["seconds"]), told["images"]) == (2, 81)
    assert modes == (["reduce-overhead"] if mode == "graphs" else [])


def test_ceilings_are_measured(capsys: pytest.CaptureFixture) -> None:
    assert baselines.main(["--mode=ceilings", "--gpus=0"]) == 0
    measured = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert 1e9 < measured["operations_per_second"] < 1e14
    assert 1e8 < measured["bytes_per_second"] < 1e13
