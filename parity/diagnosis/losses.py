"""What two losses of the same outputs and targets differ in, from their values and gradients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from parity.diagnosis.patterns import Explanation
from parity.traces.pair import Pair

CLOSE = 1e-7  # of a loss, or a gradient: what explains it leaves no more


@dataclass(frozen=True)
class Classified:
    """One output of classes, (N, C) logits, with its targets; and the head that gives it, where it is known.

    targets: (N,) class numbers. shares: (N,) of the samples in Keras's loss, and what these are `called`.
    smoothing: Keras's. loss: torch's, with nothing in it but the crossentropy. features: (N, F) that a Dense
    head takes; bias (C,) and kernel (F, C): torch's gradients of the head. summed, twice: Keras adds up the
    samples, applies a softmax twice.
    """

    logits: np.ndarray
    targets: np.ndarray
    shares: np.ndarray | None
    smoothing: float
    loss: float
    features: np.ndarray | None = None
    bias: np.ndarray | None = None
    kernel: np.ndarray | None = None
    summed: bool = False
    twice: bool = False
    called: str = "class weights"

    @property
    def wanted(self) -> np.ndarray:
        """The targets as shares of the classes, smoothed as Keras's are, (N, C)."""
        return self.smoothed(self.smoothing)

    def smoothed(self, amount: float) -> np.ndarray:
        classes = self.logits.shape[-1]
        return (1 - amount) * np.eye(classes)[self.targets] + amount / classes

    @property
    def own_shares(self) -> np.ndarray:
        """What each sample counts in Keras's loss, (N,)."""
        count = len(self.targets)
        shares = np.ones(count) if self.shares is None else self.shares
        return shares if self.summed else shares / count

    @property
    def change(self) -> str:
        """The torch code that weighs the samples as Keras does."""
        if self.called == "class weights":
            return "cross_entropy(..., weight=w, reduction='sum') / len(targets)"
        return "(cross_entropy(..., reduction='none') * weights).mean()"

    def fits(self, wanted: np.ndarray, shares: np.ndarray, twice: bool | None = None) -> bool:
        """Whether torch's loss is the crossentropy of these targets (N, C) and shares (N,), by its value and
        by the gradients of the head.
        """
        twice = self.twice if twice is None else twice
        probabilities = special.softmax(self.logits, -1)
        logs = special.log_softmax(probabilities if twice else self.logits, -1)
        if not _near(float(-(shares[:, None] * wanted * logs).sum()), self.loss):
            return False
        errors = shares[:, None] * (np.exp(logs) * wanted.sum(-1, keepdims=True) - wanted)
        if twice:
            errors = probabilities * (errors - (errors * probabilities).sum(-1, keepdims=True))
        return self.agrees(errors)

    def agrees(self, errors: np.ndarray) -> bool:
        """Whether the gradients of the head are those of these errors of the logits, (N, C)."""
        if self.bias is not None and not _near(errors.sum(0), self.bias):
            return False
        return self.kernel is None or self.features is None or _near(self.features.T @ errors, self.kernel)

    @property
    def is_checked(self) -> bool:
        """There are gradients of the head, so that a fitted value is no proof of itself."""
        return self.bias is not None or (self.kernel is not None and self.features is not None)


def explain(pair: Pair) -> Explanation | None:
    """What torch's loss does otherwise to the same outputs, None where nothing known does."""
    terms = pair.keras.losses
    if not terms or "loss/outputs/0" not in pair.keras:
        return None
    loss = float(pair.torch["loss"])
    if not np.isfinite(loss) or not np.isfinite(pair.keras["loss"]):
        sides = [
            name
            for name, side in (("Keras's", pair.keras), ("torch's", pair.torch))
            if not np.isfinite(side["loss"])
        ]
        return Explanation(
            f"{' and '.join(sides)} loss is NaN or infinite",
            f"torch's {loss:g} for Keras's {float(pair.keras['loss']):g}",
            "take the loss from the logits, and look for a logarithm of 0 or a division by zero",
        )
    if len(terms) > 1:
        return _of_several(pair, loss)
    if terms[0]["name"] == "crossentropy":
        # The penalty of Keras's loss may be in torch's as well.
        losses = dict.fromkeys((loss, loss - float(pair.keras["penalty"])))
        return next((found for one in losses for found in of_classes(_classified(pair, terms[0], one))), None)
    return next(_of_values(pair, terms[0], loss), None)


def of_classes(case: Classified) -> Iterator[Explanation]:
    """The known differences of a crossentropy that give torch's loss and its head's gradients."""
    count, classes = len(case.targets), case.logits.shape[-1]
    shares = case.own_shares
    if case.fits(case.wanted, shares * (1 / count if case.summed else count)):
        words = ("the mean", "adds up") if case.summed else ("adds up", "the mean")
        yield Explanation(
            "torch's loss takes the mean over the samples, Keras's their sum"
            if case.summed
            else "torch's loss adds up the samples (reduction 'sum'), Keras's takes their mean",
            f"it is {words[0]} of {count} samples for {words[1]}",
            f"reduction={'sum' if case.summed else 'mean'!r}",
        )
    if case.fits(case.wanted, shares, not case.twice):
        yield Explanation(
            "Keras's loss takes probabilities for logits (from_logits=True after a softmax): the softmax "
            "acts twice"
            if case.twice
            else "torch's loss takes probabilities for logits: the softmax acts twice (double softmax)",
            "that of the softmax of the softmax has this value and these gradients",
            "from_logits=False in Keras" if case.twice else "give it logits, without a softmax before",
        )
    if case.shares is not None:
        yield from _of_shares(case)
    yield from _smoothed(case, shares)
    if case.shares is None and case.is_checked:
        yield from _weighted(case, classes)


def _of_shares(case: Classified) -> Iterator[Explanation]:
    assert case.shares is not None
    if case.fits(case.wanted, case.shares / case.shares.sum()):
        yield Explanation(
            f"torch's loss is divided by the sum of the {case.called} (the mean of {case.called}), Keras's "
            "by the number of samples",
            f"{case.shares.sum():.6g} for {len(case.shares)}",
            case.change,
        )
    if case.fits(case.wanted, np.full(len(case.targets), 1 / len(case.targets))):
        yield Explanation(
            f"torch's loss leaves the {case.called} out",
            "without them it has this value and these gradients",
            case.change,
        )


def _smoothed(case: Classified, shares: np.ndarray) -> Iterator[Explanation]:
    logs = special.log_softmax(special.softmax(case.logits, -1) if case.twice else case.logits, -1)
    ends = [float(-(shares[:, None] * case.smoothed(amount) * logs).sum()) for amount in (0.0, 1.0)]
    amount = (case.loss - ends[0]) / (ends[1] - ends[0]) if ends[1] != ends[0] else np.nan
    round_number = abs(amount * 200 - round(amount * 200)) < 1e-4 if np.isfinite(amount) else False
    if not 0 <= amount + CLOSE < 1 or not (case.is_checked or round_number):
        return
    if abs(amount - case.smoothing) > CLOSE and case.fits(case.smoothed(amount), shares):
        yield Explanation(
            "the label smoothing differs",
            f"torch's loss and gradients are those of {abs(amount):.6g} for Keras's {case.smoothing:g}",
            f"label_smoothing={case.smoothing:g}",
        )


def _weighted(case: Classified, classes: int) -> Iterator[Explanation]:
    """Weights of the classes that Keras's loss has not, from the gradients of the head."""
    probabilities = special.softmax(case.logits, -1)
    errors = probabilities - case.wanted
    present = np.unique(case.targets)
    columns, rows = [], []
    for number in present:
        own = np.where((case.targets == number)[:, None], errors, 0.0)
        parts = [] if case.bias is None else [own.sum(0)]
        parts += [] if case.kernel is None or case.features is None else [(case.features.T @ own).ravel()]
        columns.append(np.concatenate(parts))
    rows = ([] if case.bias is None else [case.bias]) + (
        [] if case.kernel is None or case.features is None else [case.kernel.ravel()]
    )
    matrix = np.stack(columns, axis=1)
    weights, *_ = np.linalg.lstsq(matrix, np.concatenate(rows), rcond=None)
    if np.ptp(weights) <= 1e-6 * np.abs(weights).max() or np.linalg.matrix_rank(matrix) < len(present):
        return
    by_class = np.zeros(classes)
    by_class[present] = weights
    if case.fits(case.wanted, by_class[case.targets]):
        ratios = ", ".join(f"{weight / weights[0]:.4g}" for weight in weights[:6])
        yield Explanation(
            "torch's loss weighs the classes, Keras's does not",
            f"in the ratios {ratios} (of the classes {', '.join(map(str, present[:6]))})",
            "give Keras's fit class_weight, and this command --class-weights; or leave weight out",
        )


def _classified(pair: Pair, term: dict[str, Any], loss: float) -> Classified:
    outputs, targets = pair.keras["loss/outputs/0"], pair.keras["loss/targets/0"]
    classes = outputs.shape[-1]
    ended = pair.keras.endings[0] == "softmax"
    with np.errstate(divide="ignore"):
        logits = (np.log(outputs) if ended else outputs).reshape(-1, classes)
    targets = (
        targets.argmax(-1) if targets.ndim == outputs.ndim and targets.shape == outputs.shape else targets
    )
    features, bias, kernel = _head(pair, classes)
    return Classified(
        logits,
        targets.ravel().astype(int),
        pair.keras["loss/shares"].ravel() if "loss/shares" in pair.keras else None,
        term["label_smoothing"],
        loss,
        features if features is not None and len(features) == len(logits) else None,
        bias,
        kernel,
        term["reduction"] == "sum",
        bool(term["from_logits"] and ended),
        "sample weights" if term["sample_weights"] else "class weights",
    )


def _head(pair: Pair, classes: int) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """The features (N, F) of the last layer with weights, and torch's gradients of its bias and kernel."""
    layers = [layer for layer in pair.names if list(pair.weights(layer))]
    if not layers or pair.keras.layer(layers[-1])["kind"] != "Dense":
        return None, None, None
    head = layers[-1]
    found = {weight: pair.both("gradient", head, weight) for weight in pair.weights(head)}
    gradients = {weight: both[1] for weight, both in found.items() if both is not None and both[1].size}
    kernel, bias = gradients.get("kernel"), gradients.get("bias")
    if kernel is None or kernel.ndim != 2 or kernel.shape[-1] != classes:
        return None, None, None
    inputs = pair.keras.layer(head)["inputs"]
    key = f"train/{inputs[0]}" if len(inputs) == 1 else ""
    features = pair.keras[key] if key in pair.keras else None  # noqa: SIM401  get() gives an empty array
    if features is None or features.ndim != 2 or features.shape[-1] != kernel.shape[0]:
        return None, bias, None
    return features, bias, kernel


# === Outputs of numbers, and several ===


def _of_values(pair: Pair, term: dict[str, Any], loss: float) -> Iterator[Explanation]:
    outputs, targets = pair.keras["loss/outputs/0"], pair.keras["loss/targets/0"]
    if targets.shape != outputs.shape:
        return
    count, off = len(outputs), outputs - targets
    sums = float(pair.keras["loss"] - pair.keras["penalty"])
    ended = pair.keras.endings[0] == "sigmoid"
    logits = special.logit(outputs) if ended else outputs
    with np.errstate(all="ignore"):
        binary = -(targets * special.log_expit(logits) + (1 - targets) * special.log_expit(-logits))
        doubled = special.expit(logits)
        twice = -(targets * special.log_expit(doubled) + (1 - targets) * special.log_expit(-doubled))
    candidates = {
        "the mean squared error": np.square(off).mean(),
        "half of the mean squared error": np.square(off).mean() / 2,
        "the sum of the squared errors": np.square(off).sum(),
        "the mean absolute error": np.abs(off).mean(),
        "the sum of the absolute errors": np.abs(off).sum(),
        "Huber's loss": np.where(np.abs(off) <= 1, off**2 / 2, np.abs(off) - 0.5).mean(),
        "the root of the mean squared error": np.sqrt(np.square(off).mean()),
    }
    if term["name"] == "binary":
        candidates = {
            "the sum of the binary crossentropies": binary.sum(),
            "the binary crossentropy of probabilities as logits (the sigmoid acts twice)": twice.mean(),
            **candidates,
        }
        smooth = _binary_smoothing(logits, targets, loss)
        if smooth is not None and abs(smooth - term["label_smoothing"]) > CLOSE:
            yield Explanation(
                "the label smoothing differs",
                f"torch's loss is that of {smooth:.6g} for Keras's {term['label_smoothing']:g}",
                f"targets * (1 - s) + s / 2 with s = {term['label_smoothing']:g}",
            )
    for name, value in candidates.items():
        if _near(float(value), loss) and not _near(sums, loss):
            yield Explanation(
                f"torch's loss is {name}, Keras's is another ({term['name']}, the {term['reduction']})",
                f"{loss:.8g} for {sums:.8g}, of {count} samples",
                f"take the {term['reduction']} of Keras's {term['name']}",
            )


def _binary_smoothing(logits: np.ndarray, targets: np.ndarray, loss: float) -> float | None:
    """The amount of smoothing that gives torch's loss, where it is a round number."""
    ends = [
        float(-(t * special.log_expit(logits) + (1 - t) * special.log_expit(-logits)).mean())
        for t in (targets, np.full_like(targets, 0.5))
    ]
    amount = (loss - ends[0]) / (ends[1] - ends[0]) if ends[1] != ends[0] else np.nan
    is_round = np.isfinite(amount) and abs(amount * 200 - round(amount * 200)) < 1e-4
    return float(amount) if is_round and 0 <= amount + CLOSE < 1 else None


def _of_several(pair: Pair, loss: float) -> Explanation | None:
    """Loss weights that torch leaves out: its loss is the plain sum of the outputs' losses."""
    terms = pair.keras.losses
    if "loss/each" not in pair.keras:
        return None
    each, weights = pair.keras["loss/each"], np.array([term["weight"] for term in terms])
    told = ", ".join(f"{weight:g}" for weight in weights)
    for cause, others in (
        ("torch's loss leaves out the loss weights of the outputs", np.ones(len(each))),
        (
            "torch's loss is the mean of the outputs' losses, not their weighted sum",
            np.ones(len(each)) / len(each),
        ),
        *((f"torch's loss is that of output {i} alone", np.eye(len(each))[i]) for i in range(len(each))),
    ):
        if not np.allclose(weights, others) and _near(float(each @ others), loss):
            return Explanation(cause, f"Keras's weights are {told}", f"weigh the losses by {told}")
    return None


def _near(value: Any, other: Any) -> bool:
    scale = float(np.abs(other).max()) or 1.0
    return bool(np.abs(np.asarray(value) - other).max() <= CLOSE * scale)
