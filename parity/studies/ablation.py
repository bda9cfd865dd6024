"""python -m parity ablation: what each default costs that a migration by hand leaves unmatched.

Trains the Keras side once, then the Lightning side with one alignment off at a time, through the real
`train` commands. In float64, on every shared draw, it finds the first step whose loss differs; in
float32, over seeds and with each side's own dropout, what becomes of the test accuracy. Writes
OUT/ablation.json, after every row.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from experiment import cli
from experiment.runs.record import Run, step_losses
from experiment.system import processes
from experiment.system.files import replacing
from parity.ladder import whole_run
from parity.report.results import AblationRow

THRESHOLD = 1e-6
# What the accuracies are of: enough steps for BatchNorm's moving statistics, and a plateau that acts.
ACCURACY = (
    *whole_run.DIGITS,
    "--model.filters=[8,16]",
    "--model.dense_units=32",
    "--training.batch_size=32",
    "--training.epochs=15",
    "--training.plateau.patience=2",
    "--training.l2=1e-4",
    "--training.class_weights=balanced",
    "--training.early_stopping.patience=15",
)
# (name, what it is, mutations of the Lightning side, further options of it)
DEFAULTS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("all aligned", "nothing is switched off", "", ()),
    ("Adam", "torch.optim.Adam: epsilon 1e-8, after the bias correction; exact betas", "adam_stock", ()),
    ("Adam's epsilon", "1e-7 as in Keras, but after the bias correction", "adam_epsilon", ()),
    ("Adam's betas", "not rounded to float32", "adam_beta_rounding", ()),
    ("BatchNorm", "torch.nn.BatchNorm2d: momentum 0.1, epsilon 1e-5, unbiased variance", "bn_stock", ()),
    ("BatchNorm's momentum", "torch's 0.1 (0.9 in Keras's terms)", "bn_momentum", ()),
    ("BatchNorm's epsilon", "torch's 1e-5", "bn_epsilon", ()),
    ("BatchNorm's variance", "unbiased, as torch has it", "bn_bessel", ()),
    ("initial weights", "torch's Kaiming uniform, biases too", "initial_weights", ()),
    ("flatten order", "torch.nn.Flatten: channel first", "flatten_order", ()),
    ("last batch", "dropped where it is not full", "last_batch", ()),
    ("L2", "half the penalty, as weight decay counts it", "l2_factor", ()),
    ("class weights", "the loss divided by their sum, as torch's cross_entropy does", "class_weights", ()),
    ("plateau", "ReduceLROnPlateau waits one epoch more, as torch's does", "plateau", ()),
    ("augmentation", "torchvision's stock transforms", "", ("--augment.kind=torchvision",)),
    (
        "all of torch's defaults",
        "Adam, BatchNorm, initial weights, flatten order, class weights, plateau and augmentation",
        "adam_stock,bn_stock,initial_weights,flatten_order,class_weights,plateau",
        ("--augment.kind=torchvision",),
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = cli.PlainParser(prog="parity ablation", description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--seeds", type=int, default=5, help="seeds of the accuracies (default 5; 0: none)")
    parser.add_argument("--out", type=Path, default=Path("runs/parity"), help="where ablation.json goes")
    arguments = parser.parse_args(argv)
    return cli.guarded(lambda: _study(arguments.out, range(1, arguments.seeds + 1)))


def _study(out: Path, seeds: Sequence[int]) -> int:
    console, rows = Console(soft_wrap=True), []
    setup = (
        "cnn on digits, two blocks of 8 and 16 filters; steps in float64 at learning rate 2e-4 "
        "beside Keras on TensorFlow; accuracies in float32 after 15 epochs of all images at 1e-3, over "
        f"{len(seeds)} seeds, dropout independent"
    )
    for row in measure(out / "ablation", seeds):
        rows.append(row)
        console.print(
            f"{row.name:<24} first step {row.first_step or '-'!s:>4}  "
            f"last loss off by {row.loss_difference:.1e}  accuracies "
            + " ".join(f"{value:.3f}" for value in row.accuracies),
            highlight=False,
        )
        values = {"setup": setup, "threshold": THRESHOLD, "rows": [row.model_dump() for row in rows]}
        with replacing(out / "ablation.json") as path:
            path.write_text(json.dumps(values, indent=2) + "\n")
    console.print(out / "ablation.json")
    # Aligned, not one step may differ; were the rest as good, the table would show nothing.
    return 0 if rows[0].first_step is None and rows[-1].first_step is not None else 1


def measure(folder: Path, seeds: Sequence[int]) -> Iterator[AblationRow]:
    """One row for every default in turn; finished runs in `folder` are not trained again."""
    folder.mkdir(parents=True, exist_ok=True)
    keras = _identity(folder / "keras", "keras")
    reference = [_accuracy(folder / f"keras-{seed}", "keras", seed) for seed in seeds]
    for number, (name, what, mutations, options) in enumerate(DEFAULTS):
        run = _identity(folder / f"identity-{number}", "lightning", mutations, options)
        losses = step_losses(keras), step_losses(run)
        differences = whole_run.apart(*losses)
        first = whole_run.first_beyond(differences, THRESHOLD)
        if first is None and len(losses[0]) != len(losses[1]):
            first = len(differences) + 1
        accuracies = [
            _accuracy(folder / f"accuracy-{number}-{seed}", "lightning", seed, mutations, options)
            for seed in seeds
        ]
        difference = float(np.mean(np.subtract(accuracies, reference))) if accuracies else None
        yield AblationRow(
            name=name,
            what=what,
            first_step=first,
            loss_difference=float(differences[-1]),
            final_loss=float(losses[1][-1]),
            accuracies=accuracies,
            mean_difference=difference,
        )


def _identity(directory: Path, side: str, mutations: str = "", options: Sequence[str] = ()) -> Run:
    run = Run(directory)
    if run.finished:
        return run
    arguments = [*whole_run.CNN, "--run.overwrite=true", *options]
    return whole_run.train(side, directory, arguments, mutation=mutations or None, weights=False)


def _accuracy(
    directory: Path, side: str, seed: int, mutations: str = "", options: Sequence[str] = ()
) -> float:
    run = Run(directory)
    if not run.finished:
        arguments = [*ACCURACY, *options, f"--seed={seed}", "--gpus=0"]
        arguments += ["--run.dir", str(directory), "--run.overwrite=true"]
        if mutations:
            processes.start("lightning_impl.mutations", [mutations, "train", *arguments])
        else:
            processes.start(f"{side}_impl.train", arguments)
    return run.read_json("metrics.json")["test_accuracy"]
