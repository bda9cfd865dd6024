"""The suites themselves, small, and the model of a step's work."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import gpu, roofline, stages, waiting
from benchmarks.inference import summary
from benchmarks.suite import setting_of
from benchmarks.train import Suite
from experiment.config import Experiment
from experiment.system import devices, processes

SMALL = ("--data.name=digits", "--model.filters=[4,8]", "--model.dense_units=16", "--gpus=0")


def test_the_work_of_the_tutorials_network() -> None:
    """By hand: 3x3 convolutions of 30², 28², 12² and 10² outputs, then 1600 to 256 to 10."""
    operations, traffic = roofline.work(Experiment())
    products = {
        "conv1": 30 * 30 * 9 * 3 * 32,
        "conv2": 28 * 28 * 9 * 32 * 32,
        "conv3": 12 * 12 * 9 * 32 * 64,
        "conv4": 10 * 10 * 9 * 64 * 64,
        "dense": 1600 * 256,
        "logits": 256 * 10,
    }
    assert operations == 2 * (3 * sum(products.values()) - products["conv1"])
    sizes = [(3072, 28800), (28800, 25088), (6272, 9216), (9216, 6400), (1600, 256), (256, 10)]
    assert traffic == 4 * 3 * sum(map(sum, sizes))


def test_a_frozen_layer_has_the_forward_pass_alone() -> None:
    frozen, _ = roofline.work(Experiment.model_validate({"model": {"name": "vgg16"}}))
    tuned, _ = roofline.work(Experiment.model_validate({"model": {"name": "vgg16", "fine_tune_blocks": 1}}))
    block5 = 3 * 2 * 9 * 2 * 2 * 512 * 512
    # Backwards too, but for the way back from its first layer; and the head's way back to it.
    assert tuned - frozen == 2 * block5 - block5 / 3 + 2 * 512 * 256
    cached, _ = roofline.work(
        Experiment.model_validate({"model": {"name": "vgg16"}, "augment": {"kind": "none"}})
    )
    assert cached == 2 * (2 * 512 * 256 + 3 * 256 * 10)


def test_the_work_of_resnet50() -> None:
    """Table 1 of He et al. 2015 counts 3.8 thousand million products for an image of 224 x 224."""

    def operations(size: int, trained: int) -> float:
        model = {"name": "resnet50", "fine_tune_blocks": trained}
        return roofline.work(Experiment.model_validate({"model": model, "data": {"image_size": size}}))[0]

    head = 2 * (2 * 2048 * 256 + 3 * 256 * 10)
    assert 3.8e9 < (operations(224, 0) - head) / 2 < 3.9e9
    # Stage 5 makes 2 x 2 images 1 x 1: nine 1x1 and 3x3 convolutions and a shortcut, learnt twice over,
    # but for the way back from the two that read the stage's input; and the head's way back to it.
    stage = [1024 * 512, 1024 * 2048, *[2048 * 512] * 2, *[9 * 512 * 512] * 3, *[512 * 2048] * 3]
    back = 2 * sum(stage) - 1024 * 512 - 1024 * 2048 + 2048 * 256
    assert operations(32, 1) - operations(32, 0) == 2 * back


def test_half_the_bytes_are_half_the_traffic() -> None:
    half = Experiment.model_validate({"training": {"precision": "bfloat16"}})
    assert roofline.work(half)[1] == roofline.work(Experiment())[1] / 2


def test_the_least_time_is_that_of_the_scarcer() -> None:
    operations, traffic = roofline.work(Experiment())
    plenty = {"operations_per_second": 1e30, "bytes_per_second": 1e9}
    assert roofline.seconds(Experiment(), plenty) == traffic / 1e9
    plenty = {"operations_per_second": 1e9, "bytes_per_second": 1e30}
    assert roofline.seconds(Experiment(), plenty) == operations / 1e9


def test_calls_are_summed_up_by_deciles() -> None:
    found = summary(np.arange(1, 102) / 1000)
    assert found["count"] == 101
    assert found["deciles"] == [1, 11, 21, 31, 41, 51, 61, 71, 81, 91, 101]


def test_a_speed_stands_beside_its_verdict() -> None:
    sample = {
        "windows": [90.0, 100.0, 110.0],
        "end_to_end": [50.0, 52.0],
        "warm_up": 3.0,
        "peak_mib": 800.0,
    }
    suite = suite_of(["--only", "train"])
    suite.losses = {
        ("Lightning, train", "cnn", "float32", "no"): 2.3,
        ("Keras on TensorFlow, train", "cnn", "float32", "no"): 2.32,
    }
    traffic = roofline.work(Experiment())[1]
    suite.found = {"float32": {"operations_per_second": 1e30, "bytes_per_second": traffic * 200}}
    [setting] = suite.settings()
    assert suite.value(sample) == 100
    found = suite.columns({"name": "Lightning, train", "setting": setting, "samples": [sample]})
    assert found["ms/batch"] == "640"
    assert found["end to end"] == "51"
    assert found["of the roofline"] == "50 %"
    assert found["same numbers"] == "NO (2e-02)"


def suite_of(options: list[str]) -> Suite:
    parser = argparse.ArgumentParser()
    Suite.arguments(parser)
    parser.add_argument("--quick", action="store_true")
    return Suite(parser.parse_args([*options, "--", "--gpus=0"]), Path("unused"))


def test_settings_become_options_of_train() -> None:
    suite = suite_of(["--models", "cnn", "vgg16-cached", "--batches", "32", "64", "--compile"])
    assert len(suite.settings()) == 2 * 2 * 2
    assert len(suite.cells) == 8 * len(suite.names) - 4, "the tutorial caches nothing"
    assert not [name for name in suite.names if "CUDA graphs" in name]
    experiment = suite.experiment(suite.settings()[-1])
    assert experiment.model.name == "vgg16"
    assert experiment.augment.kind == "none"
    assert experiment.training.batch_size == 64
    assert experiment.training.compile
    assert experiment.data.limit == 14400
    assert not suite.experiment(suite.settings()[0]).training.compile


def test_the_tuned_table_has_each_ways_fastest_setting(tmp_path: Path) -> None:
    suite = suite_of(["--batches", "32", "64", "--only", "bare", "lightning,"])

    def cell(name: str, setting: dict, speed: float) -> dict:
        sample = {"windows": [speed], "end_to_end": [], "warm_up": 0.0, "peak_mib": 1.0}
        return {"name": name, "setting": setting, "samples": [sample]}

    suite.found = {"float32": {"operations_per_second": 1e30, "bytes_per_second": 1e12}}
    suite.losses = {("Lightning, train", "cnn", "float32", "no"): 2.3}
    small, large = suite.settings()
    cells = [
        cell("bare PyTorch loop", small, 100),
        cell("bare PyTorch loop", large, 200),
        cell("Lightning, train", small, 150),
        cell("Lightning, train", large, 120),
    ]
    lines = suite.tuned(cells)
    assert lines[0] == "## cnn, tuned"
    bare_line, train_line = lines[-3:-1]
    assert bare_line.split("|")[2].strip() == "200"
    assert bare_line.endswith("batch 64, float32 |")
    assert train_line.split("|")[2].strip() == "150"
    assert train_line.split("|")[4].strip() == "0.750"
    assert train_line.endswith("batch 32, float32 |")
    parts = {"input": 1.0, "forward": 10.0, "backward": 20.0, "optimizer": 2.0}
    values = {"cells": cells, "phases": {setting_of({"setting": one}): parts for one in (small, large)}}
    names = suite.figures(tmp_path, values)
    assert names == ["step.png", "scaling_cnn.png"]
    assert all((tmp_path / name).stat().st_size > 10_000 for name in names)


@pytest.mark.slow
def test_training_is_measured_and_reported(tmp_path: Path) -> None:
    arguments = ["train", "--quick", "--turns=1", f"--out={tmp_path}", "--", *SMALL]
    assert command.main(arguments) == 0
    found = json.loads((tmp_path / "results.json").read_text())
    assert {cell["name"] for cell in found["cells"]} == {
        "bare PyTorch loop",
        "Lightning, train",
        "Keras on TensorFlow, train",
        "the tutorial's recipe",
    }
    for cell in found["cells"]:
        [sample] = cell["samples"]
        assert len(sample["windows"]) == 2
        assert sample["windows"][0] > 100
        assert len(sample["end_to_end"]) == (0 if cell["name"].startswith("bare") else 2)
        assert all(value < 1.2 * max(sample["windows"]) for value in sample["end_to_end"])
        assert sample["peak_mib"] > 100
    assert len(found["verdicts"]) == 2
    assert all(verdict.startswith("yes") for verdict in found["verdicts"].values())
    [parts] = found["phases"].values()
    assert set(parts) == {"input", "forward", "backward", "optimizer"}
    assert (tmp_path / "step.png").exists()
    assert "| Lightning, train |" in (tmp_path / "README.md").read_text()
    assert not (tmp_path / "samples.jsonl").exists()


@pytest.mark.slow
def test_inference_is_measured_and_reported(tmp_path: Path) -> None:
    run = tmp_path / "run"
    processes.start(
        "lightning_impl.train", [*SMALL, "--data.limit=100", "--training.epochs=1", f"--run.dir={run}"]
    )
    out = tmp_path / "out"
    assert command.main(["inference", str(run), "--quick", "--turns=1", f"--out={out}"]) == 0
    text = (out / "README.md").read_text()
    assert text.count("| ONNX |") >= 2
    assert "batch 64" in text
    assert not (out / "work").exists()


@pytest.mark.slow
def test_growth_is_measured_and_reported(tmp_path: Path) -> None:
    assert command.main(["growth", "--quick", "--turns=1", f"--out={tmp_path}", "--", "--gpus=0"]) == 0
    found = json.loads((tmp_path / "results.json").read_text())
    assert [cell["name"] for cell in found["cells"][:2]] == ["2,000 images", "10,000 images"]
    assert len(found["cells"]) == 4
    text = (tmp_path / "README.md").read_text()
    assert text.count("| 10,000 images |") == 2
    assert (tmp_path / "memory.png").exists()
    assert not (tmp_path / "work").exists()


def test_waiting_is_until_something_is_said_and_until_the_end(tmp_path: Path) -> None:
    code = (
        "import time; print('here', flush=True); time.sleep(0.4); print('epoch', flush=True); time.sleep(0.4)"
    )
    command = [sys.executable, "-c", code]
    at_once, whole = waiting.in_terminal(command, tmp_path, tmp_path)
    awaited, _ = waiting.in_terminal(command, tmp_path, tmp_path, b"epoch")
    assert at_once + 0.8 <= whole
    assert awaited >= at_once + 0.2
    with pytest.raises(processes.SideError, match="no good"):
        waiting.in_terminal([sys.executable, "-c", "raise SystemExit('no good')"], tmp_path, tmp_path)


@pytest.mark.slow
def test_waiting_is_measured_beside_another_checkout(tmp_path: Path) -> None:
    here = str(Path(__file__).parents[2])
    arguments = ["--turns=1", "--only=mistake", f"--beside={here}", f"--out={tmp_path}"]
    assert command.main(["waiting", *arguments]) == 0
    [row] = [
        line for line in (tmp_path / "README.md").read_text().splitlines() if line.startswith("| a mistake")
    ]
    assert all(float(cell) > 0 for cell in row.strip("|").split("|")[1:6])


def test_a_stage_that_takes_too_long_is_cut_off_and_what_it_wrote_is_kept(tmp_path: Path) -> None:
    code = f"import pathlib, time; pathlib.Path({str(tmp_path / 'kept')!r}).touch(); time.sleep(60)"
    stage = gpu.Stage("endless", ["timeit", "-n1", "-r1", code], most=2, least=0)
    row = gpu._run(stage, tmp_path / "endless", 2)
    assert row[:2] == ["endless", "cut off"]
    assert (tmp_path / "kept").exists()
    assert not (tmp_path / "endless" / gpu.DONE).exists()


def test_a_stage_that_fails_says_why_and_one_that_is_done_is_not_run_again(tmp_path: Path) -> None:
    failed = gpu._run(gpu.Stage("train", ["lightning_impl.train", "--no=1"], 60, 0), tmp_path / "a", 60)
    assert failed[1].startswith("failed: ")
    assert "--no" in failed[1]
    broken = gpu._run(gpu.Stage("broken", ["timeit", "1 / 0"], 60, 0), tmp_path / "c", 60)
    assert broken[1].startswith("failed: "), "a traceback is no verdict"
    done = gpu._run(gpu.Stage("help", ["lightning_impl.train", "--help"], 60, 0), tmp_path / "b", 60)
    assert done[1] == "done"
    assert (tmp_path / "b" / gpu.DONE).read_text().splitlines() == done
    text = gpu.readme([failed, done], ["--out", "x"])
    assert "| [help](help) | done |" in text


def test_without_a_gpu_only_the_small_stages_are_begun(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    if devices.count_gpus():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit, match="2"):
        gpu.main([f"--out={tmp_path}"])
    assert "no GPU here" in capsys.readouterr().err
    names = [stage.name for stage in gpu.stages(tmp_path, None, small=True)]
    assert names == [stage.name for stage in gpu.stages(tmp_path, None, small=False)]
    assert names[0] == "ladder", "the most important first"


def test_stages_are_measured_as_they_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = {"classes": (2, 3, 4), "images in a folder": (20, 40, 60)}
    monkeypatch.setattr(stages, "STAGES", {name: (stages.STAGES[name][0], chosen[name]) for name in chosen})
    assert command.main(["stages", "--turns=1", f"--out={tmp_path}"]) == 0
    text = (tmp_path / "README.md").read_text()
    assert "| classes | 2 / 3 / 4 |" in text
    assert "| images in a folder | 20 / 40 / 60 |" in text
    found = json.loads((tmp_path / "results.json").read_text())["cells"]
    assert [cell["name"] for cell in found] == ["2", "3", "4", "20", "40", "60"]
    assert all(cell["samples"][0]["seconds"] > 0 and cell["samples"][0]["peak_mib"] > 10 for cell in found)
