"""Faults planted in pairs that stand for a user's: each must fail, and its cause must be named.

`keras_impl.planted` and `lightning_impl.planted` hold the models. As a command, `python -m
parity.foreign.mutations`, it prints every fault, what was said of it, and the score.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from experiment import cli
from experiment.system.environment import environment, environment_line
from experiment.system.markdown import table
from experiment.system.names import command_line
from parity.checks import Check
from parity.foreign.inputs import drawn
from parity.foreign.prove import Request, prove
from parity.foreign.sides import Sides
from parity.foreign.verdict import Verdict
from parity.ladder.climb import Findings
from parity.report.formatting import number

STEPS = 3
IMAGES, SMALL, SEQUENCES, NUMBERS = (12, 12, 3), (6, 6, 3), (7, 5), (10,)
SHAPES = {
    **dict.fromkeys(
        ("convolutional", "frozen", "preprocessed", "backbone", "flattened", "augmented"), IMAGES
    ),
    "transposed": SMALL,
    **dict.fromkeys(("lstm", "gru", "gru_reset_before", "bidirectional"), SEQUENCES),
    **dict.fromkeys(("attention", "own_attention", "gated", "dropped", "dropped_inside"), SEQUENCES),
    "masked": (7,),
}
SAMPLE_WEIGHTS = {"sample_weights": True}
CLASS_WEIGHTS = {"class_weights": [1.0, 2.0, 0.5, 1.5]}


@dataclass(frozen=True)
class Fault:
    """A pair by Keras's model, and the words of the cause that must be named; none of a right pair."""

    keras: str
    words: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


# Torch's models that are right, with Keras's.
RIGHT = {
    **{
        name: Fault(name)
        for name in (
            *("convolutional", "frozen", "preprocessed", "backbone", "transposed", "flattened"),
            *("lstm", "gru", "bidirectional", "attention", "own_attention", "gated", "masked", "dropped"),
            *(
                "dense",
                "two_outputs",
                "regression",
                "l2",
                "smoothed",
                "adam",
                "sgd",
                "momentum",
                "nesterov",
                "scheduled",
            ),
            *("clipnorm", "global_clipnorm", "clipvalue", "accumulated", "adadelta", "nadam"),
        )
    },
    "class_weights": Fault("dense", options=CLASS_WEIGHTS),
    "sample_weights": Fault("dense", options=SAMPLE_WEIGHTS),
    "packed_attention": Fault("attention"),
}
FAULTS = {
    "same_padding": Fault("convolutional", "padded otherwise"),
    "batchnorm_epsilon": Fault("convolutional", "epsilon differs"),
    "batchnorm_momentum": Fault("convolutional", "momentum differs"),
    "unbiased_variance": Fault("convolutional", "Bessel"),
    "never_trains": Fault("convolutional", "in evaluation while Keras's trains"),
    "flatten_order": Fault("flattened", "the rows follow torch's flattening"),
    "depthwise_layout": Fault("convolutional", "another order"),
    "tanh_gelu": Fault("convolutional", "approximated by tanh"),
    "layernorm_epsilon": Fault("convolutional", "epsilon differs"),
    "padding_counts": Fault("convolutional", "counts the zeros of the padding"),
    "frozen_batchnorm": Fault("frozen", "trainable=False stops BatchNorm's statistics"),
    "scale": Fault("preprocessed", "the pixels are scaled and shifted"),
    "mean": Fault("preprocessed", "a mean colour is not subtracted"),
    "reversed_colours": Fault("preprocessed", "RGB for BGR"),
    "antialias": Fault("preprocessed", "torch's is bilinear with antialias"),
    "align_corners": Fault("preprocessed", "with align_corners"),
    "nearest": Fault("preprocessed", "torch's is nearest"),
    "strided_second": Fault("backbone", "strides differ"),
    "without_biases": Fault("backbone", "bias"),
    "backbone_epsilon": Fault("backbone", "epsilon differs"),
    "cropped_before": Fault("transposed", "cropped on the other side"),
    "lstm_gates": Fault("lstm", "gates are in the order"),
    "two_biases": Fault("lstm", "added twice"),
    "gru_gates": Fault("gru", "gates are in the order"),
    "reset_after": Fault("gru_reset_before", "reset gate"),
    "first_step": Fault("bidirectional", "the first step of the sequence"),
    "last_step_of_both": Fault("bidirectional", "the last step of both ways"),
    "mean_of_steps": Fault("bidirectional", "the mean of all steps"),
    "one_head": Fault("attention", "has 1 head, Keras's 2"),
    "unscaled": Fault("attention", "does not divide its scores"),
    "by_the_size": Fault("attention", "divides its scores by a head's size"),
    "causal": Fault("attention", "masks later steps"),
    "interleaved": Fault("attention", "takes its heads from every so many features"),
    "over_queries": Fault("attention", "softmax runs over the queries"),
    "exchanged": Fault("attention", "key and value exchanged"),
    "three_heads": Fault("own_attention", "has 3 heads, Keras's 2"),
    "exchanged_gate": Fault("gated", "multiplies by 1 minus what Keras multiplies by"),
    "without_affine": Fault("gated", "torch's layers have no gamma and no beta"),
    "over_features": Fault("gated", "softmax runs over axis 2 (channels last), Keras's over axis 1"),
    "subtracted": Fault("gated", "a layer of another kind, Subtract for Keras's Add"),
    "always_dropped": Fault("dropped", "torch's Dropout acts in evaluation, too"),
    "undropped": Fault("dropped", "Dropout stands on Keras's side alone"),
    "dropped_steps": Fault("dropped_inside", "drops its states (recurrent_dropout) on one side alone"),
    "unmasked": Fault("masked", "leaves masked steps out (mask_zero or Masking), torch's takes them all"),
    "augmented": Fault("augmented", "RandomFlip stands on Keras's side alone"),
    "nan": Fault("nan", "NaN"),
    "probabilities": Fault("dense", "the softmax acts twice"),
    "smoothing": Fault("dense", "label smoothing"),
    "summed": Fault("dense", "adds up the samples"),
    "quartered": Fault("dense", "as for 4 accumulated batches"),
    "mean_of_class_weights": Fault("dense", "the mean of class weights", CLASS_WEIGHTS),
    "some_class_weights": Fault("dense", "weighs the classes"),
    "unweighted_samples": Fault("dense", "leaves the sample weights out", SAMPLE_WEIGHTS),
    "mean_of_sample_weights": Fault("dense", "the mean of sample weights", SAMPLE_WEIGHTS),
    "unweighted_outputs": Fault("two_outputs", "loss weights"),
    "summed_squares": Fault("regression", "the sum of the squared errors"),
    "absolute": Fault("regression", "the mean absolute error"),
    "coupled_decay": Fault(
        "l2", "an L2 penalty in the loss (Keras) for weight_decay coupled in Adam (torch)"
    ),
    "decoupled_decay": Fault("l2", "decoupled in AdamW (torch)"),
    "penalty_factor": Fault("l2", "penalty has another factor"),
    "without_l1": Fault("l1", "leaves out Keras's L1 penalty"),
    "without_activity": Fault("activity", "penalty on outputs"),
    "added_penalty": Fault("dense", "penalty that Keras's has not"),
    "held": Fault("dense", "whole model is frozen on torch's side alone"),
    "held_hidden": Fault("dense", "frozen on one side alone"),
    "adam_epsilon": Fault("adam", "Adam's epsilon differs"),
    "adam_place": Fault("adam", "Adam's epsilon stands before the bias correction in Keras"),
    "adamw_place": Fault("adamw", "AdamW's epsilon stands before the bias correction in Keras"),
    "adamw_coupled": Fault("adamw", "weight decay is decoupled in Keras's AdamW, coupled"),
    "adam_betas": Fault("adam", "second beta differs"),
    "learning_rate": Fault("adam", "learning rate differs"),
    "amsgrad": Fault("amsgrad", "amsgrad"),
    "momentum_dampened": Fault("momentum", "dampening differs"),
    "plain_momentum": Fault("nesterov", "Nesterov"),
    "scheduled_momentum": Fault("scheduled_momentum", "holds the learning rates of earlier steps"),
    "once_an_epoch": Fault("scheduled", "once an epoch"),
    "rmsprop_place": Fault("rmsprop", "RMSprop's epsilon stands inside of the square root in Keras"),
    "rmsprop_rho": Fault("rmsprop", "RMSprop's rho"),
    "uncentered": Fault("centered", "centered on one side alone"),
    "adagrad_initial": Fault("adagrad", "initial accumulator"),
    "adadelta_defaults": Fault("adadelta", "Adadelta's epsilon differs"),
    "adamax_epsilon": Fault("adamax", "Adamax's epsilon differs"),
    "nadam_schedule": Fault("nadam", "schedule of the momentum"),
    "unclipped": Fault("global_clipnorm", "torch's module does not"),
    "clipped_together": Fault("clipnorm", "each variable's gradient by its norm"),
    "every_batch": Fault("accumulated", "accumulated over 2 batches in Keras"),
    "averaged": Fault("averaged", "average of the weights"),
    "ftrl": Fault("ftrl", "no twin of Keras's Ftrl"),
    "another_optimizer": Fault("adam", "another optimizer: torch's SGD for Keras's Adam"),
    "sgd_decay": Fault("sgd", "weight decay"),
}


@dataclass(frozen=True)
class Outcome:
    """What was said of one pair."""

    name: str
    fault: Fault
    verdict: Verdict

    @property
    def said(self) -> str:
        """The causes, or why the pair was refused."""
        causes = (self.verdict.weights.cause, self.verdict.computation.cause, self.verdict.refused)
        return "; ".join(filter(None, causes)) or self.verdict.status

    @property
    def caught(self) -> bool:
        return self.verdict.status != "passed"

    @property
    def named(self) -> bool:
        return self.caught and self.fault.words in self.said


def run(
    pairs: Mapping[str, Fault],
    folder: Path,
    device: str = "cpu",
    watch: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Prove every pair, by torch's name, in two processes that stay; files go to `folder`."""
    outcomes = []
    with Sides(folder, device) as sides:
        for name, fault in pairs.items():
            inputs = folder / name / "inputs.npz"
            inputs.parent.mkdir(parents=True)
            np.savez(inputs, **drawn([SHAPES.get(fault.keras, NUMBERS)], STEPS))  # type: ignore[arg-type]
            options = {"inputs_file": str(inputs), "drawn": True, "steps": STEPS, **fault.options}
            names = f"keras_impl.planted:{fault.keras}", f"lightning_impl.planted:{name}"
            verdict = prove(Request(*names, options), inputs.parent, Findings(), sides=sides)
            outcomes.append(Outcome(name, fault, verdict))
            watch(outcomes[-1])
    return outcomes


def checks(outcomes: Iterable[Outcome]) -> list[Check]:
    """One a fault: whether it was missed, and what was said of it."""
    return [Check(outcome.name, float(not outcome.named), 0.0, outcome.said) for outcome in outcomes]


def score(outcomes: Iterable[Outcome]) -> float:
    """The share of faults that were caught and named."""
    named = [outcome.named for outcome in outcomes]
    return sum(named) / len(named)


def markdown(outcomes: Iterable[Outcome], command: Sequence[str]) -> str:
    """A table of the faults: where each is caught, what it is called, and what it changes."""
    rows = []
    for outcome in outcomes:
        failed = next((rung.name for rung in outcome.verdict.rungs if rung.status == "failed"), "refused")
        found = {check.quantity: check.largest for rung in outcome.verdict.rungs for check in rung.checks}
        changes = [number(found.get(name)) for name in ("the model's outputs", "step loss")]
        words = outcome.said.replace("|", "/")
        rows.append([outcome.name, outcome.fault.keras, failed if outcome.caught else "", words, *changes])
    heads = ["fault", "in the pair", "first failing rung", "named as", "outputs", f"loss, {STEPS} steps"]
    lines = [
        "# What faults in a port change",
        "",
        "Each fault is planted in the torch side of a small pair that is right without it "
        "(`keras_impl/planted.py`, `lightning_impl/planted.py`), and must be caught and named. Outputs: the "
        "largest difference from Keras's before any training, as a share of the largest output. Loss: the "
        "largest difference of a step's loss over the first steps of training.",
        "",
        table(heads, rows),
        "",
        f"`{command_line(command)}`",
        "",
        environment_line(environment("both", "cpu", 0, 0, {})),
    ]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 0 where every fault is named and every right pair passes."""
    parser = cli.PlainParser(prog="parity.foreign.mutations", description=__doc__)
    parser.add_argument("names", nargs="*", help="which (default all)")
    parser.add_argument("--out", type=Path, help="where a table of the faults goes (README.md)")
    arguments = parser.parse_args(argv)
    wanted = arguments.names or [*RIGHT, *FAULTS]
    right = {name: RIGHT[name] for name in wanted if name in RIGHT}
    faults = {name: FAULTS[name] for name in wanted if name in FAULTS and name not in right}

    def show(outcome: Outcome) -> None:
        good = outcome.named if outcome.fault.words else not outcome.caught
        took = f"{outcome.verdict.seconds:5.1f} s"
        print(f"{'ok' if good else 'MISSED':<7}{outcome.name:<24}{took}  {outcome.said}", flush=True)

    with tempfile.TemporaryDirectory(prefix="parity-") as folder:
        outcomes = run(right | faults, Path(folder), watch=show)
    wrong = [o for o in outcomes if (o.caught and o.name in right) or (not o.named and o.name in faults)]
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        command = ["python", "-m", "parity.foreign.mutations", *(sys.argv[1:] if argv is None else argv)]
        text = markdown([o for o in outcomes if o.name in faults], command)
        (arguments.out / "README.md").write_text(text)
    if faults:
        print(f"mutation score of foreign pairs {score(o for o in outcomes if o.name in faults):.0%}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
