"""Each alignment switched off in turn: the rung meant for it must fail, and the diagnosis must name it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path

from experiment import cli
from experiment.system import processes
from parity.diagnosis.diagnose import Diagnosis, diagnose
from parity.ladder import pairs, photos, whole_run
from parity.ladder.rungs import RUNGS
from parity.traces.pair import Pair


@dataclass(frozen=True)
class Mutation:
    """What is done to the Lightning side, the rung meant to catch it, and words that must name it."""

    what: str
    rung: str
    words: str
    pair: str = "cnn"


MUTATIONS = {
    "bn_momentum": Mutation("BatchNorm's momentum is torch's 0.1", "one step", "momentum"),
    "bn_epsilon": Mutation("BatchNorm's epsilon is torch's 1e-5", "forward", "epsilon"),
    "bn_bessel": Mutation("BatchNorm's moving variance is the unbiased one", "one step", "Bessel"),
    "adam_epsilon": Mutation("Adam adds epsilon after the bias correction", "one step", "epsilon after"),
    "adam_beta_rounding": Mutation("Adam's betas are not rounded to float32", "one step", "betas"),
    "adam_stock": Mutation("torch's own Adam", "one step", "torch's own"),
    "flatten_order": Mutation("Flatten runs channel first", "forward", "channel first"),
    "initial_weights": Mutation("torch's own initial weights", "initial weights", "Kaiming"),
    "rescaling": Mutation("1/255 is not rounded to float32", "preprocessing", "scaled"),
    "bgr_order": Mutation("colours stay RGB", "preprocessing", "reversed", "vgg16"),
    "mean_subtraction": Mutation("the mean colour is not subtracted", "preprocessing", "mean", "vgg16"),
    "stride_placement": Mutation(
        "ResNet's blocks stride as torchvision's", "structure", "strides", "resnet50"
    ),
    "stride_padding": Mutation(
        "MobileNetV2 pads on both sides before it strides", "structure", "pads or crops", "mobilenet_v2"
    ),
    "relu6": Mutation("ReLU6 is a plain ReLU", "structure", "relu6", "mobilenet_v2"),
    "zoom_direction": Mutation("a zoom above 1 zooms in", "augmentation", "zoom"),
    "swapped_shifts": Mutation("the two shifts are swapped", "augmentation", "shifts"),
    "rotation_sign": Mutation("the rotation runs the other way", "augmentation", "rotation"),
    "flip_order": Mutation("images are flipped before the affine map", "augmentation", "flipped before"),
    "zero_fill": Mutation("what lies outside is black", "augmentation", "zeros"),
    "nearest": Mutation("pixels are not interpolated", "augmentation", "nearest"),
    "last_batch": Mutation("the last, partial batch is dropped", "preprocessing", "partial batch"),
    "shuffle_order": Mutation("images come in another order", "preprocessing", "order"),
    "l2_factor": Mutation("L2 is half of it, as weight decay has it", "loss and gradients", "L2"),
    "class_weights": Mutation(
        "the loss is divided by the sum of the class weights", "loss and gradients", "scaled"
    ),
    "dropout_masks": Mutation("dropout drops other elements", "forward", "dropout"),
    "plateau": Mutation("ReduceLROnPlateau waits one epoch more", "whole run", "patience"),
    "early_stopping": Mutation("EarlyStopping waits one epoch more", "whole run", "early stopping"),
}

# Short, and both callbacks act: nothing improves by the min_delta.
EVENTS = (
    "--data.name=digits",
    "--data.limit=60",
    "--model.filters=[4]",
    "--model.block_dropout=[0.2]",
    "--model.dense_units=8",
    "--training.epochs=8",
    "--training.plateau.patience=2",
    "--training.plateau.min_delta=9",
    "--training.early_stopping.patience=5",
    "--training.early_stopping.min_delta=9",
    "--training.early_stopping.restore_best_weights=false",
)


@dataclass
class Outcome:
    """What became of one mutation: the rungs that failed, and the diagnosis of the one meant for it."""

    name: str
    failed: list[str] = field(default_factory=list)
    diagnosis: Diagnosis | None = None

    @property
    def mutation(self) -> Mutation:
        return MUTATIONS[self.name]

    @property
    def caught(self) -> bool:
        return self.mutation.rung in self.failed

    @property
    def diagnosed(self) -> bool:
        return self.diagnosis is not None and self.mutation.words in self.diagnosis.cause

    def as_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "what": self.mutation.what,
            "rung": self.mutation.rung,
            "caught": self.caught,
            "diagnosed": self.diagnosed,
            "failed": self.failed,
            "diagnosis": self.diagnosis.cause if self.diagnosis else None,
        }


def run(
    folder: Path, device: str = "cpu", watch: Callable[[Outcome], None] = lambda _: None
) -> list[Outcome]:
    """Try every mutation on traces, or on whole runs where its rung is that; raises SideError."""

    def watched(outcomes: Iterable[Outcome]) -> list[Outcome]:
        kept = []
        for outcome in outcomes:
            kept.append(outcome)
            watch(outcome)
        return kept

    def of_pair(pair: str) -> list[Outcome]:
        names = [name for name, m in MUTATIONS.items() if m.pair == pair and m.rung != "whole run"]
        return watched(on_traces(names, pair, folder, device)) if names else []

    whole = [name for name, m in MUTATIONS.items() if m.rung == "whole run"]
    calls = [
        lambda: watched(on_whole_runs(whole, folder / "whole", device)),
        *(partial(of_pair, pair) for pair in pairs.MODELS),
    ]
    return list(chain.from_iterable(processes.together(calls)))


def on_traces(names: Sequence[str], pair: str, folder: Path, device: str):
    folder = folder / pair
    folder.mkdir(parents=True, exist_ok=True)
    data = photos.write(folder / "photos.npz")
    values = pairs.setup(pair, str(data), str(folder / "cache"), "float64")
    request = {"experiment": values, "steps": 2}
    keras = processes.trace("keras", folder, request, device, "tensorflow")
    path, out = folder / "keras.json", folder / "mutated"
    processes.start("lightning_impl.mutations", [",".join(names), "trace", str(path), str(out)], device)
    for name in names:
        traced = Pair.of(keras, out / name, cli.experiment_from(values))
        outcome = Outcome(name)
        for rung, compare in RUNGS.items():
            checks = compare(traced)
            if not all(check.passed for check in checks):
                outcome.failed.append(rung)
                if rung == MUTATIONS[name].rung:
                    outcome.diagnosis = diagnose(rung, checks, traced)
        yield outcome


def on_whole_runs(names: Sequence[str], folder: Path, device: str):
    keras = whole_run.train("keras", folder / "keras", EVENTS, device)
    for name in names:
        records = {
            "keras": keras,
            "lightning": whole_run.train("lightning", folder / name, EVENTS, device, mutation=name),
        }
        checks = whole_run.compare_runs(records["keras"], records["lightning"])
        outcome = Outcome(name)
        if (found := whole_run.diagnose(checks, records)) is not None:
            outcome.failed.append("whole run")
            outcome.diagnosis = Diagnosis(**found)
        yield outcome


def score(outcomes: Sequence[Outcome]) -> float:
    """The share of mutations that the rung meant for them caught and named."""
    return sum(outcome.caught and outcome.diagnosed for outcome in outcomes) / len(outcomes)
