"""Everything that only a GPU can show, in one call of under nine minutes, the most important first.

The ladder on CUDA, the tutorial's 50 epochs, throughput, accuracy over seeds. Each stage is a command of its
own, ended where its time is over; what it wrote by then is kept, and README.md says after every stage how far
it all came. Called again with the same --out, it goes on where stages are left. --small runs the same on a
CPU in minutes, to see that it works.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from experiment import cli
from experiment.errors import ConfigError
from experiment.system import devices, environment
from experiment.system.files import replacing
from experiment.system.markdown import table
from experiment.system.names import command_line

HERE = Path(__file__).parents[1]
LOG, DONE = "output.txt", "done"
SMALL = ("--data.limit=200", "--model.filters=[4,8]", "--model.dense_units=16")


class Stage(NamedTuple):
    """A command of `python -m`; the seconds that it may take, and those without which it is not begun."""

    name: str
    command: list[str]
    most: float
    least: float


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 0 where every stage passed, 1 where one did not, 2 for a mistake."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = cli.PlainParser(prog="benchmarks gpu", description=(__doc__ or "").strip())
    parser.add_argument(
        "--out", type=Path, default=Path("runs/gpu"), help="where the reports go (default runs/gpu)"
    )
    parser.add_argument("--minutes", type=float, default=8.5, help="all stages together (default 8.5)")
    parser.add_argument("--data.root", dest="root", type=Path, help="images in train/ and test/; else digits")
    parser.add_argument("--small", action="store_true", help="on the CPU, with a small model on few digits")
    arguments = parser.parse_args(argv)
    return cli.guarded(lambda: run(arguments, argv))


def run(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    """Run the stages that are left; raises ConfigError where there is no GPU."""
    if not arguments.small and not devices.count_gpus():
        raise ConfigError("no GPU here: --small tries the same on the CPU")
    if arguments.root and not arguments.root.is_dir():
        raise ConfigError(f"--data.root {arguments.root}: no such folder")
    out = Path(os.path.relpath(arguments.out, HERE))  # commands run there, and reports name them
    (HERE / out).mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + 60 * arguments.minutes
    todo = stages(out, arguments.root and arguments.root.resolve(), arguments.small)
    rows: dict[str, list[str]] = {stage.name: [stage.name, "not begun", "", ""] for stage in todo}
    for stage in todo:
        folder = HERE / out / stage.name
        left = ends - time.monotonic()
        if (folder / DONE).is_file():
            rows[stage.name] = (folder / DONE).read_text().splitlines()
        elif left >= stage.least:
            print(f"{stage.name} (at most {min(stage.most, left):.0f} s)", flush=True)
            rows[stage.name] = _run(stage, folder, min(stage.most, left))
            print(f"  {rows[stage.name][1]}", flush=True)
        with replacing(HERE / out / "README.md") as path:
            path.write_text(readme(list(rows.values()), argv))
    return 0 if all(row[1] == "done" for row in rows.values()) else 1


def stages(out: Path, root: Path | None, small: bool) -> list[Stage]:
    """The stages in the order of their weight."""
    device, gpus = ("cpu", "--gpus=0") if small else ("cuda", "--gpus=1")
    data = ["--data.name=folder", f"--data.root={root}"] if root else ["--data.name=digits"]
    train = [*data, gpus, *(SMALL if small else ())]
    backends = [name for name in ("torch", "jax") if devices.installed(name)]
    batches = ["16"] if small else ["64", "512", "2048"]
    epochs = ["--training.epochs=2"] if small else []

    def report(name: str) -> str:
        return f"--out={out / name / 'report'}"

    def throughput(name: str, precisions: list[str], *options: str) -> list[str]:
        quick = ["--quick", "--only", "lightning", "bare"] if small else []
        return [
            *("benchmarks", "train", "--turns=1", *quick, "--batches", *batches, "--precisions", *precisions),
            *(*options, report(name), "--", *train),
        ]

    def tutorial(side: str, name: str, *options: str) -> list[str]:
        record = [f"--run.dir={out / name / 'run'}", "--run.overwrite=true"]
        return [
            f"{side}_impl.train",
            "--config",
            "configs/cnn_tutorial.yaml",
            *train,
            *epochs,
            *options,
            *record,
        ]

    ladder = [
        "parity",
        f"--device={device}",
        "--quick",
        "--backends",
        *backends,
        *(["--pairs", "cnn"] if small else []),
    ]
    seeds = ["--seeds=2", "--baseline=0"] if small else ["--seeds=5", "--baseline=0"]
    keras = devices.keras_backend(0 if small else 1)
    return [
        Stage("ladder", [*ladder, report("ladder")], 150, 60),
        Stage("tutorial_lightning", tutorial("lightning", "tutorial_lightning"), 150, 30),
        Stage("throughput_float32", throughput("throughput_float32", ["float32"]), 160, 60),
        Stage(
            "accuracy",
            ["parity", "accuracy", *seeds, gpus, f"--backend={keras}", report("accuracy"), *epochs],
            120,
            60,
        ),
        Stage(
            "throughput_bfloat16",
            throughput("throughput_bfloat16", ["float32" if small else "bfloat16"]),
            140,
            60,
        ),
        Stage(
            "throughput_compiled",
            throughput("throughput_compiled", ["float32" if small else "tf32"], "--compile"),
            140,
            60,
        ),
        Stage("tutorial_keras", tutorial("keras", "tutorial_keras", f"--backend={keras}"), 200, 60),
    ]


def _run(stage: Stage, folder: Path, seconds: float) -> list[str]:
    """Run a stage for so long at most; the row of the report on it."""
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with (folder / LOG).open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *stage.command],
            cwd=HERE,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(seconds)
            verdict = code == 1 and b"Traceback" not in (folder / LOG).read_bytes()
            said = f"failed: {_last(folder / LOG)}"
            state = "done" if code == 0 else "done, not passed" if verdict else said
        except subprocess.TimeoutExpired:
            state = "cut off"
        finally:
            _end(process)
    # The weights are of no use to a reader, and large.
    for checkpoints in folder.rglob("checkpoints"):
        shutil.rmtree(checkpoints, ignore_errors=True)
    row = [
        stage.name,
        state,
        f"{time.monotonic() - began:.0f}",
        f"`{command_line(['python', '-m', *stage.command])}`",
    ]
    if state.startswith("done"):
        (folder / DONE).write_text("\n".join(row))
    return row


def _end(process: subprocess.Popen) -> None:
    """End a process and all that it started; they have ten seconds to keep what they have."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, number)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                continue
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # what outlived it


def _last(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:200].replace("|", "/") if lines else "it said nothing"


def readme(rows: Sequence[Sequence[str]], argv: Sequence[str]) -> str:
    """The report of how far it came; each stage's own report lies in its folder."""
    facts = environment.environment("both", "cuda", 0, 0, {})
    lines = [
        "# What a GPU shows",
        "",
        f"`{command_line(['python', '-m', 'benchmarks', 'gpu', *argv])}`",
        "",
        table(["stage", "", "s", "command"], [[f"[{row[0]}]({row[0]})", *row[1:]] for row in rows]),
        "",
        f"{facts['gpu'] or 'no GPU'}; {environment.environment_line(facts)}",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
