"""Float32 and other backends against a float64 reference: neither side may round much more than the other.

Each side's own rounding is how far its float32 numbers are from the float64 ones, as a root mean square. That
the two sides differ by at most the sum of these says nothing where the float64 numbers agree (the triangle
inequality), so it is the larger of the two that is bounded, by a multiple of the smaller: as the accuracy
check of torch.compile's benchmarks (torch/_dynamo/utils.py, `same`) bounds a compiled model's error by a
multiple of the eager one's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from parity.checks import Check
from parity.diagnosis.patterns import Explanation
from parity.traces.pair import Pair, Trace

MULTIPLE = 3.0  # of the other side's rounding; kernels add up in other orders
# As shares: where one side happens to round little. Gradients are sums whose terms cancel.
FLOORS = {"forward": 2e-5, "loss and gradients": 2e-4}


def compare(reference: Pair, keras: Trace, torch: Trace) -> dict[str, list[Check]]:
    """The rungs of two float32 traces of the pair whose float64 traces are `reference`.

    A check's difference is the larger of the two sides' roundings, as a share of the output's root mean
    square (of a gradient: its layer's largest); its tolerance hangs on the smaller one.
    """
    sides = (reference.keras, reference.torch), (keras, torch)
    rungs: dict[str, list[Check]] = {rung: [] for rung in FLOORS}
    for stage in ("eval", "train"):
        for layer, torch_layer in reference.names.items():
            keys = f"{stage}/{layer}", f"{stage}/{torch_layer}"
            rungs["forward"] += _checks({f"{layer} ({stage})": keys}, sides, "forward")
    rungs["forward"] += _checks({"the model's outputs": ("outputs", "outputs")}, sides, "forward")
    rungs["loss and gradients"] += _checks({"loss": ("loss", "loss")}, sides, "loss and gradients")
    for layer, torch_layer in reference.names.items():
        of_layer = {
            f"{layer}/{weight}": (f"gradient/{layer}/{weight}", f"gradient/{torch_layer}/{weight}")
            for weight in reference.weights(layer)
        }
        rungs["loss and gradients"] += _checks(of_layer, sides, "loss and gradients")
    return rungs


def explain(rungs: dict[str, list[Check]]) -> tuple[str, str, Explanation] | None:
    """(rung, layer, cause) of the first check that failed, or None."""
    for rung, checks in rungs.items():
        for check in checks:
            if not check.passed:
                layer = check.quantity.split(" (")[0].rsplit("/", 1)[0]
                return (
                    rung,
                    layer,
                    Explanation(
                        "one side computes less exactly than float32",
                        f"{check.quantity}: {check.where}",
                        "look for half precision, TF32 or a cast at this layer",
                    ),
                )
    return None


def _checks(
    quantities: Mapping[str, tuple[str, str]], sides: Sequence[tuple[Trace, Trace]], rung: str
) -> Iterator[Check]:
    """A check for each quantity that all four traces hold, in one shape; `quantities` share one scale."""
    arrays = {}
    for quantity, keys in quantities.items():
        exact, rounded = ([side.get(key) for side, key in zip(two, keys, strict=True)] for two in sides)
        if exact[0].size and len({array.shape for array in (*exact, *rounded)}) == 1:
            arrays[quantity] = exact, rounded
    scale = max((_rms(exact[0]) for exact, _ in arrays.values()), default=0.0) or 1.0
    for quantity, (exact, rounded) in arrays.items():
        apart = [_rms(single - double) / scale for single, double in zip(rounded, exact, strict=True)]
        where = f"Keras rounds by {apart[0]:.1e}, torch by {apart[1]:.1e}, as shares of the layer's size"
        yield Check(quantity, max(apart), MULTIPLE * min(apart) + FLOORS[rung], where)


def _rms(array: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(array, dtype=np.float64))))
