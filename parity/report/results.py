"""results.json as `python -m parity` writes it, checked before the report believes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError, model_validator

from parity.checks import Rung


class ResultsError(ValueError):
    """A folder holds no results that can be read; the message names the file and the fault."""


class Diagnosis(BaseModel):
    pair: str
    backend: str
    precision: str
    rung: str
    layer: str | None = None
    cause: str
    evidence: str = ""
    change: str = ""


class Trajectory(BaseModel):
    """Every step's training loss on both sides, and the learning rate it was made with."""

    name: str
    keras: list[float]
    lightning: list[float]
    tolerance: float
    learning_rate: list[float] | None = None


class Layers(BaseModel):
    """The largest scaled difference of every layer's output and gradient; None where there is none."""

    pair: str
    backend: str
    precision: str
    tolerance: float
    names: list[str]
    eval: list[float | None]
    train: list[float | None]
    gradient: list[float | None]

    @model_validator(mode="after")
    def _one_value_a_layer(self) -> Layers:
        if not len(self.names) == len(self.eval) == len(self.train) == len(self.gradient):
            raise ValueError("names, eval, train and gradient differ in length")
        return self


class ExportedModel(BaseModel):
    """One way to run the weights; bytes is None where that is no file."""

    name: str
    bytes: int | None
    accuracy: float


class Exports(BaseModel):
    """Every two ways to run one model's weights beside one another: a row and a column for each."""

    name: str
    what: str
    models: list[ExportedModel]
    largest: list[list[float]]
    mean: list[list[float]]
    cosine: list[list[float]]
    agreement: list[list[float]]

    @model_validator(mode="after")
    def _one_row_a_model(self) -> Exports:
        for matrix in (self.largest, self.mean, self.cosine, self.agreement):
            if not len(matrix) == len(self.models) or any(len(row) != len(matrix) for row in matrix):
                raise ValueError("a matrix has not a row and a column for each model")
        return self


class Mutation(BaseModel):
    """One alignment switched off: whether the rung meant for it failed, and the cause was named."""

    name: str
    what: str
    rung: str
    caught: bool
    diagnosed: bool
    failed: list[str] = []
    diagnosis: str | None = None


class AblationRow(BaseModel):
    """The cost of one unmatched default; first_step counts from 1 and is None where no step differs."""

    name: str
    what: str
    first_step: int | None
    loss_difference: float
    final_loss: float
    accuracies: list[float] = []
    mean_difference: float | None = None


class Ablation(BaseModel):
    """The cost of each unmatched default."""

    setup: str
    threshold: float
    rows: list[AblationRow]


class Sample(BaseModel):
    accuracies: list[float]
    mean: float
    sd: float


class Side(BaseModel):
    """One side's test accuracies, with dropout masks of its own and with those that both sides share."""

    own: Sample
    shared: Sample | None = None


class Disagreement(BaseModel):
    mean: float
    first_only: int
    second_only: int


class Comparison(BaseModel):
    """Two samples of accuracies, seed by seed; the interval is that of the mean difference."""

    name: str
    what: str = ""
    differences: list[float]
    difference: float
    ci_low: float
    ci_high: float
    p: float
    power: float
    needed_seeds: int | None = None
    verdict: str
    disagreement: Disagreement | None = None


class Accuracy(BaseModel):
    """The part of accuracy.json that the report reads; parity/accuracy/command.py describes all of it."""

    statement: str
    notes: list[str] = []
    margin: float
    alpha: float
    seeds: list[int]
    test_images: int
    sides: dict[str, Side]
    comparisons: list[Comparison]


class StockAugmentation(BaseModel):
    """`augment.kind: torchvision` beside Keras's, as parity/ladder/stock_augmentation.py measures them."""

    difference: dict[str, float]
    keras: dict[str, float]
    keras_again: dict[str, float]
    torchvision: dict[str, float]


class Results(BaseModel):
    """All that one run of the suite found; a part that was not run is None."""

    verdict: Literal["passed", "failed"]
    command: str = ""
    utc: str = ""
    seconds: float | None = None
    rungs: list[Rung]
    reasons: dict[str, str] = {}
    notes: list[str] = []
    diagnoses: list[Diagnosis] = []
    trajectories: list[Trajectory] = []
    layers: list[Layers] = []
    exports: list[Exports] = []
    mutations: list[Mutation] | None = None
    ablation: Ablation | None = None
    accuracy: Accuracy | None = None
    stock_augmentation: StockAugmentation | None = None
    environment: dict[str, dict[str, Any]] = {}


def read(folder: Path) -> Results:
    """The results in `folder`: results.json and, for what it lacks, ablation.json and accuracy.json.

    Raises ResultsError, in one line, where a file is missing or is not what it should be.
    """
    path = folder / "results.json"
    values = _read_json(path)
    sources = {}
    for part in ("ablation", "accuracy"):
        if values.get(part) is None and (folder / f"{part}.json").exists():
            sources[part] = folder / f"{part}.json"
            values[part] = _read_json(sources[part])
    try:
        return Results.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        source = sources.get(str(first["loc"][0]), path)
        place = ".".join(map(str, first["loc"]))
        raise ResultsError(f"{source}: {place}: {first['msg'].removeprefix('Value error, ')}") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ResultsError(f"{path}: there is no such file; `python -m parity` writes it") from None
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path}: cannot be read ({error})") from None
    if not isinstance(values, dict):
        raise ResultsError(f"{path}: holds no JSON object")
    return values
