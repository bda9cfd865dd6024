"""klp: one name for every command, from the checkout and from an installed wheel."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from parity import klp

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("command", "module", "rest"),
    [
        ("keras train --gpus 1", "keras_impl.train", ["--gpus", "1"]),
        ("lightning export runs/a", "lightning_impl.export", ["runs/a"]),
        ("migrate a:b", "parity.migrate", ["a:b"]),
        ("prove --quick", "parity.command", ["--quick"]),
        ("runs a b", "experiment.__main__", ["runs", "a", "b"]),
        ("parity accuracy", "parity.__main__", ["accuracy"]),
        ("benchmarks train", "benchmarks.__main__", ["train"]),
    ],
)
def test_a_command_is_that_of_its_module(command: str, module: str, rest: list[str]) -> None:
    assert klp.module_of(command.split()) == (module, rest)
    assert importlib.util.find_spec(module) is not None


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("trian", "klp --help lists the commands"),
        ("keras", "keras train or tune or predict or export"),
        ("keras trian", "keras train or tune"),
    ],
)
def test_a_mistake_is_told_in_a_line(command: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert klp.main(command.split()) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1


def test_help_names_commands_that_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert klp.main([]) == 0
    told = capsys.readouterr().out
    named = re.findall(r"^    klp (\w+)(?: (\w+))?", told, re.MULTILINE)
    assert len(named) > 12
    for first, second in named:
        words = ["keras" if first == "SIDE" else first, *([second] if second else [])]
        assert words == ["completion"] or klp.module_of(words) is not None, words


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
@pytest.mark.parametrize(
    ("line", "found"),
    [
        *(("mig", {"migrate"}), ("keras ex", {"export"}), ("parity fam", {"families"})),
        *(("lightning train --training.ep", {"--training.epochs"}), ("migrate net:build --stu", {"--stub"})),
    ],
)
def test_bash_completes_commands_and_options(
    line: str, found: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert klp.main(["completion"]) == 0
    words = ["klp", *line.split()]
    script = (
        f'klp() {{ PYTHONPATH={ROOT} {sys.executable} -m parity.klp "$@"; }}\n'
        f"{capsys.readouterr().out}\nCOMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; "
        "_klp; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == found


@pytest.mark.slow
def test_an_installed_wheel_trains_and_lists_runs_outside_the_checkout(tmp_path: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    for command in (
        [uv, "build", "--quiet", "--out-dir", tmp_path / "dist", ROOT],
        [
            uv,
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            tmp_path / "site",
            "--python",
            sys.executable,
        ],
    ):
        wheel = [] if "build" in command else list((tmp_path / "dist").glob("*.whl"))
        subprocess.run([*command, *wheel], check=True)
    assert list((tmp_path / "dist").glob("*.tar.gz"))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}

    def run(*arguments: str) -> str:
        command = [sys.executable, "-P", tmp_path / "site" / "bin" / "klp", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    small = ["--data.name=digits", "--data.limit=200", "--training.epochs=1", "--model.filters=[4,4]"]
    for side in ("keras", "lightning"):
        run(side, "train", *small, f"--run.dir={side}")
        assert (tmp_path / side / "history.csv").is_file()
    told = run("runs", "keras", "lightning")
    assert "keras" in told
    assert "lightning" in told
    body = "return keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])"
    (tmp_path / "net.py").write_text(f"import keras\n\n\ndef build():\n    {body}\n")
    run("migrate", "net:build", "--out", "written", "--no-proof")
    assert (tmp_path / "written" / "model.py").is_file()
