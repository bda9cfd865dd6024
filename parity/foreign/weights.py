"""Are the weights the same? Both sides' weights as they are, before Keras's are carried over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np

from parity.checks import Check
from parity.diagnosis.patterns import Explanation, ratio_of

Weights = Mapping[str, np.ndarray]  # of one layer, by Keras's names and in Keras's layout
GATES = {"LSTM": ("input", "forget", "cell", "output"), "GRU": ("update", "reset", "candidate")}
ROUNDING = 2.0**-23  # relative: what float32 keeps of a weight
FEW = 64  # numbers that are looked at before all are
REACH = (0.8, 1 + 1e-6)  # of its bound: how far a uniform draw of many numbers reaches


@dataclass(frozen=True)
class Comparison:
    """The weights of a pair as they are: a check each, and of the first that differs the likely mistake.

    related: some weight that says anything (is not one number throughout) is Keras's, or Keras's with a
    mistake. Where none is, the two were initialised independently, or come from other checkpoints.
    """

    checks: list[Check]
    layer: str = ""
    cause: Explanation | None = None
    related: bool = True

    @property
    def same(self) -> bool:
        return all(check.passed for check in self.checks)


def compare(
    keras: Mapping[str, Weights],
    torch: Mapping[str, Weights],
    kinds: Mapping[str, str],
    inputs: Mapping[str, tuple[int, ...]],
) -> Comparison:
    """Compare the weights of matched layers, both by Keras's names of them.

    kinds: Keras's kind of each layer. inputs: of a layer on flattened images, the shape (H, W, C) of these.
    """
    checks, first, related = [], None, False
    for layer, weights in keras.items():
        for name, array in weights.items():
            other = torch[layer][name]
            check = _check(f"{layer}/{name}", array, other)
            checks.append(check)
            if check.passed:
                related |= _says_something(array)
                continue
            cause = _mistake(layer, name, keras, torch, kinds.get(layer, ""), inputs.get(layer))
            related |= cause is not None and _says_something(array)
            if cause is not None and first is None:
                first = layer, cause
    if first is None:
        first = next(
            (
                (check.quantity.rsplit("/", 1)[0], Explanation("the weights are other numbers", check.where))
                for check in checks
                if not check.passed
            ),
            ("", None),
        )
    return Comparison(checks, *first, related=related or all(check.passed for check in checks))


def look_initialised(model: Mapping[str, Weights]) -> bool:
    """Most kernels reach as far as initial ones do, and no farther.

    These are torch's own, uniform to 1 / sqrt(fan in), and Keras's (Glorot and Bengio 2010), uniform to
    sqrt(6 / (fan in + fan out)).
    """
    kernels = [
        weights["kernel"] for weights in model.values() if "kernel" in weights and weights["kernel"].ndim > 1
    ]
    low, high = REACH
    for bound in (_torchs_bound, _glorots_bound):
        reaches = [float(np.abs(kernel).max()) / bound(kernel.shape) for kernel in kernels]
        if reaches and sum(low < reach <= high for reach in reaches) > len(reaches) / 2:
            return True
    return False


def _torchs_bound(shape: tuple[int, ...]) -> float:
    return float(1 / np.sqrt(np.prod(shape[:-1])))


def _glorots_bound(shape: tuple[int, ...]) -> float:
    field = np.prod(shape[:-2])
    return float(np.sqrt(6 / (field * (shape[-2] + shape[-1]))))


def _check(quantity: str, keras: np.ndarray, torch: np.ndarray) -> Check:
    if keras.shape != torch.shape:
        return Check(quantity, np.inf, ROUNDING, f"shapes {keras.shape} and {torch.shape}")
    apart = np.abs(keras.astype(np.float64) - torch.astype(np.float64))
    scale = float(np.abs(keras).max(initial=0.0)) or 1.0
    beyond = int((~(apart <= ROUNDING * scale)).sum())
    where = f"{beyond} of {keras.size} numbers differ" if beyond else ""
    return Check(quantity, float(apart.max(initial=0.0)) / scale, ROUNDING, where)


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    if one.shape != other.shape:
        return False
    # Most of those asked about differ everywhere: a few numbers tell.
    apart = np.abs(one.flat[:FEW] - other.flat[:FEW])
    return bool((apart <= ROUNDING * _largest(one)).all()) and _check("", one, other).passed


def _largest(array: np.ndarray) -> float:
    return float(max(array.max(initial=0.0), -array.min(initial=0.0))) or 1.0


def _same_range(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays have the same extremes, as they must where one holds the other's numbers."""
    apart = max(abs(float(one.max() - other.max())), abs(float(one.min() - other.min())))
    return apart <= ROUNDING * _largest(one)


def _says_something(array: np.ndarray) -> bool:
    return array.size > 0 and bool((array != array.flat[0]).any())


def _mistake(
    layer: str,
    name: str,
    keras: Mapping[str, Weights],
    torch: Mapping[str, Weights],
    kind: str,
    flattened: tuple[int, ...] | None,
) -> Explanation | None:
    """The mistake that would make torch's weight of Keras's, or None where none of those known does."""
    array, other = keras[layer][name], torch[layer][name]
    if not _says_something(other):
        return _not_loaded(array, other, name)
    if array.shape == other.shape:
        for cause in (*_reordered(array, other, name, kind, flattened), *_changed(array, other)):
            return Explanation(
                cause, f"{layer}/{name}", "load the weight in the order that Keras keeps it in"
            )
    for sibling, values in keras[layer].items():
        if sibling != name and _says_something(values) and _same(values, other):
            return Explanation(f"the {name} is Keras's {sibling}", f"{layer}/{name}", "exchange the two")
    for elsewhere, weights in keras.items():
        theirs = weights.get(name)
        if elsewhere != layer and theirs is not None and _says_something(theirs) and _same(theirs, other):
            return Explanation(
                f"the layer has the weights of Keras's {elsewhere}", f"{layer}/{name}", "load its own"
            )
    return None


def _not_loaded(array: np.ndarray, other: np.ndarray, name: str) -> Explanation | None:
    if other.size == 0 or not _says_something(array):
        return None
    return Explanation(
        f"the {name} was not loaded",
        f"it is {other.flat[0]:g} throughout",
        "load it with the others (a moving statistic is a buffer, not a parameter)",
    )


def _reordered(
    array: np.ndarray, other: np.ndarray, name: str, kind: str, flattened: tuple[int, ...] | None
) -> Iterator[str]:
    """Orders of Keras's numbers that are torch's, the likeliest first."""
    if not _same_range(array, other):
        return
    if flattened and array.ndim and array.shape[0] == int(np.prod(flattened)):
        rows = np.arange(array.shape[0]).reshape(flattened)
        turned = np.moveaxis(rows, -1, 0).ravel()
        for order in (turned, np.argsort(turned)):
            if _same(array[order], other):
                yield "the rows follow torch's flattening (channel, height, width), not Keras's"
    axes = _axes(name, array.ndim, kind)
    for order in permutations(range(array.ndim)):
        moved = [axes[i] for i in range(array.ndim) if order[i] != i]
        if moved and _same(array.transpose(order), other):
            verb = "swapped" if len(moved) == 2 else "in another order"
            yield f"the {name}'s {' and '.join(moved)} are {verb}"
    for flips in product((False, True), repeat=min(array.ndim, 5)):
        if any(flips) and _same(np.flip(array, tuple(i for i, f in enumerate(flips) if f)), other):
            yield f"the {name}'s {' and '.join(axes[i] for i, f in enumerate(flips) if f)} run backwards"
    gates = GATES.get(kind.removeprefix("Bidirectional"), ())
    if gates and array.shape[-1] % len(gates) == 0:
        blocks = np.split(array, len(gates), axis=-1)
        for order in permutations(range(len(gates))):
            if _same(np.concatenate([blocks[i] for i in order], axis=-1), other):
                order_words = ", ".join(gates[i] for i in order)
                yield f"the gates are in the order {order_words}; Keras's is {', '.join(gates)}"
    if np.array_equal(np.sort(array.ravel()), np.sort(other.ravel())):
        yield f"the {name} holds the same numbers in another order"


def _changed(array: np.ndarray, other: np.ndarray) -> Iterator[str]:
    for half, bits in (("float16", 2.0**-11), ("bfloat16", 2.0**-8)):
        apart = np.abs(array - other)
        if (apart <= bits * np.abs(array)).all():
            yield f"the numbers were rounded to {half}"
            return
    ratio = ratio_of(array, other)
    if ratio is not None:
        yield f"the numbers are {ratio:.6g} times Keras's" + (
            " (added twice?)" if abs(ratio - 2) < 1e-6 else ""
        )
    if (array >= 0).all() and _same(np.sqrt(array), other):
        yield "standard deviations stand where Keras keeps variances"
    equal = array == other
    if equal.mean() > 0.5:
        yield f"{int((~equal).sum())} of {array.size} numbers are others"


def _axes(name: str, dimensions: int, kind: str) -> list[str]:
    """The words for a weight's axes in Keras's layout."""
    if name != "kernel" or dimensions < 2:
        return [f"axis {i}" for i in range(dimensions)]
    space = {2: [], 3: ["width"], 4: ["height", "width"], 5: ["depth", "height", "width"]}.get(dimensions)
    if space is None:
        return [f"axis {i}" for i in range(dimensions)]
    ends = ["outputs", "inputs"] if kind.endswith("Transpose") else ["inputs", "outputs"]
    return [*space, *ends]
