"""Search space: ranges and choices of configuration keys, and how the next values are proposed."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from experiment.config import Experiment, Section, fault
from experiment.errors import RunError
from experiment.randomness import derived_seed
from experiment.system import documents

# Optuna takes a second to import, and a command line that is mistaken needs none of it.
if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial

MOST_CELLS = 10_000
LARGEST = 2**53  # of a range's numbers: beyond it floats have gaps
# What a search does not vary, and why.
FIXED = {
    "run": "each trial has a directory of its own",
    "mlflow": "all trials are tracked alike",
    "tracking": "all trials are tracked alike",
    "data.cache": "it changes no result",
    "data.name": "trials on other images cannot be compared",
    "data.root": "trials on other images cannot be compared",
    "data.classes": "trials on other images cannot be compared",
    "gpus": "a worker's share of the machine decides",
    "nodes": "a trial is one machine's",
    "backend": "a search is one framework's",
    "training.monitor": "it is what trials are judged by",
}


class Range(Section):
    """Numbers from `low` to `high`, both included; integers where both are and `step` is none or one."""

    low: float | int
    high: float | int
    log: bool = False
    step: float | int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low {self.low} must be less than high {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low {self.low}: a log scale begins above 0")
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other")
        return self

    @field_validator("low", "high", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        if isinstance(value, bool):  # which is an int to Python
            raise ValueError(f"{str(value).lower()} is no number: list the choices")
        if isinstance(value, int | float) and abs(value) > LARGEST:
            raise ValueError(f"numbers beyond {LARGEST:.0e} cannot be searched")
        return value

    @property
    def integers(self) -> bool:
        return all(isinstance(one, int) for one in (self.low, self.high, self.step or 1))

    def values(self) -> list[float | int]:
        """Every value of a range with a step; of integers without one, each."""
        step = self.step or (1 if self.integers and not self.log else None)
        if step is None:
            raise ValueError("a grid needs a step, or a list of choices")
        if (self.high - self.low) / step > MOST_CELLS:
            raise ValueError(f"more than {MOST_CELLS:,} values: give a longer step")
        count = int((self.high - self.low) / step + 1e-9) + 1
        # 0.1 + 2 * 0.1 is not 0.3: the digits of a configuration are kept short.
        return [
            self.low + i * step if self.integers else round(self.low + i * step, 12) for i in range(count)
        ]


Domain = Range | list[Any]


class Search(Section):
    """A search: what `--space` holds."""

    sampler: Literal["grid", "random", "tpe", "gp"] = Field(default="tpe", description="what proposes trials")
    trials: int = Field(default=20, ge=1, le=MOST_CELLS, description="how many; of a grid: all its cells")
    seed: int = Field(default=1, ge=0, lt=2**31, description="seed of the proposals")
    pruning: Literal["none", "median", "hyperband"] = Field(
        default="median", description="what stops hopeless trials"
    )
    pruning_after: int = Field(default=2, ge=1, description="epochs that no trial is stopped before")
    space: dict[str, Domain] = Field(min_length=1, description="configuration keys and what they may be")

    @field_validator("space")
    @classmethod
    def _choices(cls, space: dict[str, Domain]) -> dict[str, Domain]:
        for key, domain in space.items():
            for fixed, reason in FIXED.items():
                if key == fixed or key.startswith(f"{fixed}."):
                    raise ValueError(f"{key} cannot be searched: {reason}")
            if domain == []:
                raise ValueError(f"{key} has no choices")
            if isinstance(domain, list) and (value := repeated(domain)) is not None:
                raise ValueError(f"{key}: {value[0]} is listed twice")
        return space

    def cells(self) -> list[dict[str, Any]]:
        """Every combination, the last key varying fastest; raises RunError where a range has no step."""
        values = []
        for key, domain in self.space.items():
            try:
                values.append([_stored(v) for v in (domain if isinstance(domain, list) else domain.values())])
            except ValueError as error:
                raise RunError(f"space {key}: {error}") from error
        if (count := math.prod(map(len, values))) > MOST_CELLS:
            raise RunError(f"the grid has {count:,} cells: give longer steps or fewer choices, or sample it")
        return [dict(zip(self.space, cell, strict=True)) for cell in itertools.product(*values)]

    def queue(self) -> list[dict[str, Any]]:
        """The values that each trial is fixed to beforehand: a grid's cells, else none."""
        return self.cells() if self.sampler == "grid" else [{}] * self.trials

    def sampled_by(self, number: int) -> BaseSampler:
        """The sampler of trial `number`, seeded by it, so that neither a restart nor other workers matter."""
        from optuna import samplers

        seed = derived_seed(self.seed, f"trial {number}")
        if self.sampler == "tpe":
            return samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=10)
        if self.sampler == "gp":
            return samplers.GPSampler(seed=seed, n_startup_trials=10)
        return samplers.RandomSampler(seed=seed)

    def pruned_by(self, epochs: int) -> BasePruner:
        """The pruner of trials of so many epochs."""
        from optuna import pruners

        if self.pruning == "median":
            return pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=self.pruning_after)
        if self.pruning == "hyperband":
            return pruners.HyperbandPruner(min_resource=self.pruning_after, max_resource=epochs)
        return pruners.NopPruner()

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """The trial's value of every key, proposed now or before."""
        values = {}
        for key, domain in self.space.items():
            if isinstance(domain, list):
                values[key] = _plain(trial.suggest_categorical(key, [_stored(v) for v in domain]), domain)
            elif domain.integers:
                step = int(domain.step or 1)
                values[key] = trial.suggest_int(
                    key, int(domain.low), int(domain.high), step=step, log=domain.log
                )
            else:
                low, high = float(domain.low), float(domain.high)
                values[key] = trial.suggest_float(key, low, high, step=domain.step, log=domain.log)
        return values


def read_search(path: Path, **given: Any) -> Search:
    """Read a space's YAML; `given` replaces its settings, but for None. Raises RunError, naming the key."""
    try:
        values = documents.read(path)
    except documents.DocumentError as error:
        raise RunError(f"--space {error} (see configs/tune.yaml)") from error
    values |= {key: value for key, value in given.items() if value is not None}
    try:
        return Search.model_validate(values)
    except ValidationError as error:
        raise RunError(f"--space {path}: {fault(error)}") from error


def check(search: Search, base: Experiment) -> None:
    """Raise RunError, before anything is begun, for an unknown key, and for choices that come to the same."""
    for key, domain in search.space.items():
        configured(base, {key: value_at(base, key)})
        if isinstance(domain, list) and (value := repeated([_resolved(base, key, v) for v in domain])):
            raise RunError(f"space {key}: {value[0]} is listed twice")


def repeated(values: list[Any]) -> tuple[Any] | None:
    """The first value that was there before: 1.0 is 1, true is not. In a tuple, for it may be None."""
    kinds = [(value, isinstance(value, bool)) for value in values]
    return next(((values[i],) for i in range(len(values)) if kinds[i] in kinds[:i]), None)


def value_at(base: Experiment, key: str) -> Any:
    """The value that the configuration has at a dotted key; None where it has no such key."""
    value: Any = base
    for name in key.split("."):
        value = getattr(value, name, None)
    return value


def _resolved(base: Experiment, key: str, value: Any) -> Any:
    """A choice as the configuration reads it: "0.1" and 0.1 are one learning rate."""
    try:
        return value_at(configured(base, {key: value}), key)
    except RunError:  # alone; with other keys it may well do
        return value


def configured(base: Experiment, values: dict[str, Any]) -> Experiment:
    """The experiment with dotted keys replaced; raises RunError for an unknown key or an impossible value."""
    nested = base.model_dump()
    for key, value in values.items():
        *sections, last = key.split(".")
        place: Any = nested
        for name in sections:
            place = place.get(name) if isinstance(place, dict) else None
        if not isinstance(place, dict) or last not in place or isinstance(place[last], dict):
            raise RunError(f"space: there is no configuration key {key}")
        place[last] = value
    try:
        return Experiment.model_validate(nested)
    except ValidationError as error:
        raise RunError(fault(error)) from error


def _stored(value: Any) -> Any:
    """As Optuna keeps a choice: a list as JSON."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def _plain(stored: Any, domain: list[Any]) -> Any:
    return next(
        value for value in domain if _stored(value) == stored and type(_stored(value)) is type(stored)
    )
