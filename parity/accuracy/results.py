"""Accuracy over seeds, from run records, as the plain values that parity/accuracy/command.py
documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Any

import numpy as np

from experiment.runs.record import Run
from parity.accuracy.equivalence import Equivalence, disagreement, needed_pairs, paired, welch

TARGET_POWER = 0.8

# Name, the two sides with their dropout masks, and what they share.
COMPARISONS = (
    (
        "frameworks",
        ("keras", "own"),
        ("lightning", "own"),
        "Lightning against Keras: same seed, each with its own dropout masks",
    ),
    (
        "keras itself",
        ("keras", "own"),
        ("keras", "shared"),
        "Keras against itself: same seed, other dropout masks",
    ),
    (
        "lightning itself",
        ("lightning", "own"),
        ("lightning", "shared"),
        "Lightning against itself: same seed, other dropout masks",
    ),
    (
        "frameworks, same masks",
        ("keras", "shared"),
        ("lightning", "shared"),
        "Lightning against Keras: same seed, same dropout masks, so that only rounding is left to differ",
    ),
)


class Unfit(Exception):
    """Runs that cannot be compared; the message says why."""


@dataclass(frozen=True)
class Outcome:
    """A run's answers on the test images."""

    y_true: np.ndarray  # (N,) integers
    answers: np.ndarray  # (N,) integers, top-1

    @property
    def accuracy(self) -> float:
        return float((self.answers == self.y_true).mean())


def outcome(run: Run) -> Outcome:
    """Read a run's predictions."""
    with np.load(run.directory / "predictions.npz") as arrays:
        return Outcome(arrays["y_true"], arrays["probabilities"].argmax(axis=1))


def results(
    runs: dict[tuple[str, str], list[Run]], margin: float, alpha: float, limit: int | None
) -> dict[str, Any]:
    """Compare runs, which are given by side and dropout masks, each list in the order of seeds 1, 2, ....

    limit: `data.limit` of the runs; where it binds, the test images depend on the seed. Raises Unfit.
    """
    environment = _environment(runs)
    outcomes = {which: [outcome(run) for run in some] for which, some in runs.items()}
    compared = [
        {"name": name, "first": first, "second": second, "what": what}
        | _comparison(name, outcomes[first], outcomes[second], margin, alpha)
        for name, first, second, what in COMPARISONS
        if outcomes[first] and outcomes[second]
    ]
    claim, excess = compared[0], None
    if len(compared) == len(COMPARISONS):
        shares = [np.array(one["disagreement"]["shares"]) for one in compared]
        within = (shares[1] + shares[2]) / 2
        more = paired(within.tolist(), shares[0][: len(within)].tolist(), margin, alpha)
        low, high = more.interval
        excess = {"shares": (shares[0][: len(within)] - within).tolist(), "mean": more.difference}
        excess |= {"ci_low": low, "ci_high": high}
    own = {side: outcomes[side, "own"] for side in ("keras", "lightning")}
    unpaired = welch(_accuracies(own["keras"]), _accuracies(own["lightning"]), margin, alpha)
    images = len(own["keras"][0].y_true)
    return {
        "verdict": claim["verdict"],
        "margin": margin,
        "alpha": alpha,
        "seeds": claim["seeds"],
        "test_images": images,
        "sides": {
            side: {masks: _summary(outcomes[side, masks]) for masks in ("own", "shared")} for side in own
        },
        "comparisons": compared,
        "independent": {"standard_error": unpaired.standard_error, "degrees": unpaired.degrees}
        | _tests(unpaired),
        "excess": excess,
        "other_seeds": None if limit is not None and images >= limit else _other_seeds(own),
        "environment": environment,
    }


def _comparison(
    name: str, first: list[Outcome], second: list[Outcome], margin: float, alpha: float
) -> dict[str, Any]:
    pairs = list(zip(first, second, strict=False))  # the baseline may have fewer seeds
    for seed, (a, b) in enumerate(pairs, 1):
        if not np.array_equal(a.y_true, b.y_true):
            raise Unfit(f"{name}, seed {seed}: the two runs were tested on different images")
    one, other = (_accuracies(some) for some in zip(*pairs, strict=True))
    differences = np.subtract(other, one)
    sd = float(differences.std(ddof=1))
    images = [disagreement(a.y_true, a.answers, b.answers) for a, b in pairs]
    return {
        "seeds": list(range(1, len(pairs) + 1)),
        "differences": differences.tolist(),
        "sd": sd,
        **_tests(paired(one, other, margin, alpha)),
        "needed_seeds": needed_pairs(sd, margin, alpha, TARGET_POWER),
        "disagreement": {
            "shares": [found.share for found in images],
            "mean": float(np.mean([found.share for found in images])),
            "first_only": sum(found.first_only for found in images),
            "second_only": sum(found.second_only for found in images),
            "mcnemar_p": [found.p for found in images],
        },
    }


def _tests(test: Equivalence) -> dict[str, Any]:
    low, high = test.interval
    return {
        "difference": test.difference,
        "ci_low": low,
        "ci_high": high,
        "p_lower": test.p_lower,
        "p_upper": test.p_upper,
        "p": test.p,
        "power": test.power,
        "verdict": test.verdict,
    }


def _summary(some: Sequence[Outcome]) -> dict[str, Any] | None:
    if not some:
        return None
    accuracies = _accuracies(some)
    mean, sd = float(np.mean(accuracies)), float(np.std(accuracies, ddof=1))
    return {"accuracies": accuracies, "mean": mean, "sd": sd}


def _other_seeds(own: dict[str, list[Outcome]]) -> dict[str, float]:
    pairs = {side: list(combinations(some, 2)) for side, some in own.items()}
    crossed = permutations(range(len(own["keras"])), 2)
    pairs["frameworks"] = [(own["keras"][i], own["lightning"][j]) for i, j in crossed]
    return {
        name: float(np.mean([(one.answers != other.answers).mean() for one, other in some]))
        for name, some in pairs.items()
    }


def _accuracies(some: Sequence[Outcome]) -> list[float]:
    return [one.accuracy for one in some]


def _environment(runs: dict[tuple[str, str], list[Run]]) -> dict[str, Any]:
    """environment.json of each side's first run; raises Unfit where runs were not made on the same terms."""
    first: dict[str, Any] = {}
    for (side, _), some in runs.items():
        for run in some:
            found = run.read_json("environment.json")
            before = first.setdefault(side, found)
            for key in ("framework", "backend", "device", "versions"):
                if found.get(key) != before.get(key):
                    raise Unfit(
                        f"{run.directory}: {key} is {found.get(key)}, before it was {before.get(key)}"
                    )
            if found["data"]["sha256"] != next(iter(first.values()))["data"]["sha256"]:
                raise Unfit(f"{run.directory}: trained on other data than the runs before it")
    return first
