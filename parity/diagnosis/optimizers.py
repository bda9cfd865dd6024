"""Which settings of two optimizers, or which places of them, part the steps that both sides take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from parity.diagnosis.optimizer_steps import Way, complete, walk
from parity.diagnosis.patterns import LEFT, Explanation
from parity.traces.pair import Pair

EXACT = 1e-9  # of how far a weight moves: between a step and what reckons it
CLIPPING = ("clipnorm", "global_clipnorm", "clipvalue")
MARGIN = 1e-6  # that torch's clip_grad_norm_ adds to a norm
FELT = 1e-10  # of a weight: as the rung `one step` has it

# Other ways of writing a step, where torch's is not what its class has: a subclass of one's own.
ALTERNATIVES: dict[str, Sequence[Any]] = {
    "epsilon_place": ("before", "after", "inside", "outside", "within", "added", "uncorrected"),
    "momentum_form": ("velocity", "buffer"),
    "decay": ("coupled", "decoupled"),
    "nesterov": (False, True),
    "centered": (False, True),
    "amsgrad": (False, True),
    "maximize": (True,),
    "epsilon": (1e-3, 1e-5, 1e-6, 1e-7, 1e-8, 1e-10),
}
PLACES = {
    "before": "before the bias correction",
    "after": "after the bias correction",
    "uncorrected": "in a step without any bias correction",
    "inside": "inside of the square root",
    "outside": "outside of the square root",
    "added": "beside the norm, where it divides",
    "within": "within the norm that is kept",
}


@dataclass(frozen=True)
class Optimizers:
    """Keras's and torch's optimizers as their traces have them, and torch's weights on their way."""

    keras: Mapping[str, Any]
    torch: Mapping[str, Any]
    ways: Mapping[str, Way]  # by Keras's name of the weight, under torch's own gradients and learning rates
    values: Mapping[str, np.ndarray]  # (steps + 1, E) of torch's
    names: Mapping[str, str]  # torch's name of the weight
    keras_rates: np.ndarray

    @classmethod
    def of(cls, pair: Pair) -> Optimizers | None:
        """None where a side did not trace its optimizer."""
        if not pair.keras.optimizer or not pair.torch.optimizer or "path/names" not in pair.torch:
            return None
        turned = {torch: keras for keras, torch in pair.names.items()}
        arrays = {name: pair.torch[f"path/{name}"] for name in ("values", "raw", "norms", "rates")}
        all_norms = np.sqrt(np.square(arrays["norms"]).sum(0))
        ways, values, names = {}, {}, {}
        for row, name in enumerate(pair.torch["path/names"].tolist()):
            layer, _, weight = name.rpartition("/")
            if layer in turned:
                key = f"{turned[layer]}/{weight}"
                start = arrays["values"][row, 0]
                ways[key] = Way(start, arrays["raw"][row], arrays["norms"][row], all_norms, arrays["rates"])
                values[key], names[key] = arrays["values"][row], name
        torch = pair.torch.optimizer
        if not any(torch["settings"].get(name) for name in CLIPPING):
            clipping = clipped(arrays["raw"], pair.torch["path/gradients"], arrays["norms"])
            torch = torch | {"settings": {**torch["settings"], **clipping}}
        return cls(pair.keras.optimizer, torch, ways, values, names, pair.keras["rates"])

    @property
    def family(self) -> str:
        return self.keras["family"]

    def settings(self, keras: bool) -> dict[str, dict[str, Any]]:
        """One side's settings of every weight."""
        if keras:
            return {key: complete(self.keras, key) for key in self.ways}
        return {key: complete(self.torch, name) for key, name in self.names.items()}

    def walked(
        self, settings: Mapping[str, dict[str, Any]], rates: np.ndarray, family: str
    ) -> dict[str, np.ndarray]:
        """Every weight on its way under torch's gradients, with these settings."""
        with np.errstate(all="ignore"):
            return {
                key: walk(family, settings[key], replace(way, rates=rates)) for key, way in self.ways.items()
            }

    def apart(self, values: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]) -> float:
        """The largest distance of two ways, infinite for NaN."""
        distances = [float(np.abs(values[key] - others[key]).max(initial=0.0)) for key in values]
        return max((d if d == d else np.inf for d in distances), default=0.0)

    @property
    def moved(self) -> float:
        """How far torch's weights move."""
        return max((float(np.abs(v - v[0]).max(initial=0.0)) for v in self.values.values()), default=0.0)


def clipped(raw: np.ndarray, gradients: np.ndarray, norms: np.ndarray) -> dict[str, float]:
    """How gradients were clipped, in Keras's words, from some of their elements before and after.

    raw, gradients: (P, steps, E). norms: (P, steps) of the whole gradients before. Empty where none was, or
    in a way that Keras has no word for.
    """
    if np.allclose(raw, gradients, rtol=1e-12, atol=0):
        return {}
    limit = float(np.abs(gradients).max())
    if np.allclose(np.clip(raw, -limit, limit), gradients, rtol=1e-12, atol=0):
        return {"clipvalue": limit}
    together = np.broadcast_to(np.sqrt(np.square(norms).sum(0)), norms.shape)
    ratios = np.abs(gradients).max(-1) / np.maximum(np.abs(raw).max(-1), 1e-300)
    cut = (ratios < 1 - 1e-9) & (norms > 0)
    for name, lengths in (("clipnorm", norms), ("global_clipnorm", together)):
        for margin in (0.0, MARGIN):
            limits = (ratios * (lengths + margin))[cut]
            if limits.size and np.ptp(limits) <= 1e-9 * limits.max():
                return {name: float(limits.mean()), "clip_margin": margin}
    return {}


def explain(pair: Pair) -> Explanation | None:
    """The differences of two optimizers that part their steps under the same gradients, None where none does.

    Every difference is tried in Keras's steps: together they must give torch's, each by itself be felt.
    """
    both = Optimizers.of(pair)
    if both is None or not both.ways:
        return None
    keras, torch = both.keras, both.torch
    if not keras["family"]:
        return Explanation(
            f"torch.optim has no twin of Keras's {keras['class']}",
            f"torch's module steps by {torch['class']}",
            "train both by an optimizer that both have, such as Adam",
        )
    if keras["family"] != torch["family"]:
        own = "" if torch["family"] else ", which is none of torch.optim's that Keras has"
        return Explanation(
            f"another optimizer: torch's {torch['class']} for Keras's {keras['class']}",
            f"their steps are other ones{own}",
            f"configure the torch twin of Keras's {keras['class']}",
        )
    return _by_settings(both) or _by_alternatives(both)


def _by_settings(both: Optimizers) -> Explanation | None:
    """What the two sides' own settings explain."""
    theirs, ours = both.settings(True), both.settings(False)
    rates = {True: both.keras_rates, False: next(iter(both.ways.values())).rates}
    count = min(len(rates[True]), len(rates[False]))
    rates = {side: values[:count] for side, values in rates.items()}
    if both.apart(both.walked(ours, rates[False], both.family), both.values) > EXACT * both.moved:
        return None  # torch's steps are not those of its settings
    keras_way = both.walked(theirs, rates[True], both.family)
    if both.apart(keras_way, both.values) <= max(EXACT * both.moved, FELT * 1e-2):
        return None  # the steps are the same
    names = sorted(
        {name for key in theirs for name in theirs[key] if theirs[key][name] != ours[key].get(name)}
    )
    names += [] if np.allclose(*rates.values(), rtol=1e-12, atol=0) else ["rates"]
    effects: dict[str, float] = {}
    either: dict[str, float] = {}
    for name in names:
        mixed = {key: {**ours[key], name: theirs[key].get(name)} for key in ours}
        rate = rates[name == "rates"]
        effects[name] = both.apart(
            both.walked(mixed if name != "rates" else ours, rate, both.family), both.values
        )
        alone = {key: {**theirs[key], name: ours[key].get(name)} for key in ours}
        rate = rates[name != "rates"]
        other = both.apart(both.walked(alone if name != "rates" else theirs, rate, both.family), keras_way)
        # A momentum's form is no difference where one side has no momentum: either side must feel it.
        effects[name], either[name] = min(effects[name], other), max(effects[name], other)
    if all(effect <= FELT for effect in effects.values()):
        effects = either
    felt = sorted((name for name in names if effects[name] > FELT), key=lambda name: -effects[name])
    if not felt:
        return None
    words = [_words(both, name, theirs, ours, rates) for name in felt]
    evidence = "; ".join(
        f"{cause.evidence} moves weights by {effects[name]:.1e}"
        for name, cause in zip(felt, words, strict=True)
    )
    return Explanation(
        "; ".join(cause.cause for cause in words),
        f"{evidence}; with Keras's settings reckoned so, torch's steps come out",
        "; ".join(dict.fromkeys(cause.change for cause in words if cause.change)),
    )


def _by_alternatives(both: Optimizers) -> Explanation | None:
    """What explains torch's steps where its settings do not: one or two of its places are others."""
    ours, rates = both.settings(False), next(iter(both.ways.values())).rates
    before = both.apart(both.walked(ours, rates, both.family), both.values)
    if before <= EXACT * both.moved:
        return None
    options = [
        (name, value)
        for name, values in ALTERNATIVES.items()
        for value in values
        if all(name in settings and settings[name] != value for settings in ours.values())
    ]
    for changes in (chosen for count in (1, 2) for chosen in combinations(options, count)):
        if len({name for name, _ in changes}) < len(changes):
            continue
        mixed = {key: {**settings, **dict(changes)} for key, settings in ours.items()}
        if both.apart(both.walked(mixed, rates, both.family), both.values) > max(
            LEFT * before, EXACT * both.moved
        ):
            continue
        altered = replace(both, torch={**both.torch, "settings": {**both.torch["settings"], **dict(changes)}})
        return _by_settings(altered) or Explanation(
            f"torch's {both.torch['class']} does not step as its class says",
            ", ".join(f"{name} is {value}" for name, value in changes),
            "",
        )
    return Explanation(
        f"torch's {both.torch['class']} does not step as torch.optim's does",
        f"under its own gradients its weights end {before:.1e} from there",
        "look for a step of your own: optimizer_step, on_before_optimizer_step, a hook, or a subclass",
    )


# === Words ===


def _words(
    both: Optimizers,
    name: str,
    theirs: Mapping[str, dict[str, Any]],
    ours: Mapping[str, dict[str, Any]],
    rates: Mapping[bool, np.ndarray],
) -> Explanation:
    """The cause, what it is from Keras's to torch's, and the change, of one setting."""
    if name == "rates":
        return _of_rates(both, rates)
    parted = [key for key in theirs if theirs[key].get(name) != ours[key].get(name)]
    keras, torch = theirs[parted[0]].get(name), ours[parted[0]].get(name)
    some = (
        f" (of {', '.join(parted[:3])}{', ...' if len(parted) > 3 else ''})"
        if len(parted) < len(theirs)
        else ""
    )
    if name in WORDS:
        cause, change = WORDS[name](both, keras, torch)
    else:
        label = LABELS.get(name, name)
        cause = f"{both.keras['class']}'s {label} differs{some}"
        change = f"{TORCH_NAMES.get(name, name)}={_plain(keras)}"
    return Explanation(cause, f"{name} {_plain(torch)} for Keras's {_plain(keras)}{some}", change)


def _of_rates(both: Optimizers, rates: Mapping[bool, np.ndarray]) -> Explanation:
    keras, torch = rates[True], rates[False]
    first = int(np.flatnonzero(~np.isclose(keras, torch, rtol=1e-12, atol=0))[0])
    schedules = both.keras["schedule"], both.torch["schedule"]
    evidence = f"learning rate {torch[first]:.6g} for Keras's {keras[first]:.6g} at step {first + 1}"
    if first == 0:
        return Explanation(f"{both.keras['class']}'s learning rate differs", evidence, f"lr={keras[0]:.6g}")
    if schedules[0] and schedules[1] and schedules[1]["interval"] != "step":
        return Explanation(
            f"Keras's {schedules[0]['class']} changes the learning rate at every step, torch's "
            f"{schedules[1]['class']} once an epoch",
            evidence,
            'return {"optimizer": ..., "lr_scheduler": {"scheduler": ..., "interval": "step"}}',
        )
    if schedules[0] and not schedules[1]:
        return Explanation(
            f"Keras's {schedules[0]['class']} changes the learning rate, torch's module has no scheduler",
            evidence,
            "return a scheduler of interval step from configure_optimizers",
        )
    if schedules[1] and not schedules[0]:
        return Explanation(
            f"torch's {schedules[1]['class']} changes the learning rate at every step, Keras's stays",
            evidence,
            "leave the scheduler out, or give Keras's optimizer a schedule",
        )
    return Explanation("the schedules of the learning rate differ", evidence, "give both the same steps")


def _place(both: Optimizers, keras: str, torch: str) -> tuple[str, str]:
    cause = (
        f"{both.keras['class']}'s epsilon stands {PLACES.get(keras, keras)} in Keras, "
        f"{PLACES.get(torch, torch)} in torch's own {both.torch['class']}"
    )
    if both.family == "Adam":
        return cause, "use lightning_impl.keras_semantics.Adam, or give eps / sqrt(1 - beta_2 ** t) at step t"
    return cause, f"write {both.torch['class']}'s step with epsilon {PLACES.get(keras, keras)}"


def _momentum_form(both: Optimizers, keras: str, torch: str) -> tuple[str, str]:
    return (
        f"{both.keras['class']}'s momentum holds the learning rates of earlier steps in Keras; torch's is "
        "multiplied by the present one",
        "scale momentum_buffer by the old over the new learning rate where that changes",
    )


def _decay(both: Optimizers, keras: str, torch: str) -> tuple[str, str]:
    if keras == "decoupled":
        return (
            f"weight decay is decoupled in Keras's {both.keras['class']}, coupled to the gradient (an L2 "
            f"penalty) in torch's {both.torch['class']}",
            "torch.optim.AdamW, or decoupled_weight_decay=True"
            if both.family == "Adam"
            else "multiply the weights by 1 - lr * weight_decay before each step, with weight_decay=0",
        )
    return "weight decay is coupled to the gradient in Keras, decoupled in torch", "torch.optim.Adam"


def _clip(what: str, change: str) -> Callable[[Optimizers, Any, Any], tuple[str, str]]:
    def words(both: Optimizers, keras: Any, torch: Any) -> tuple[str, str]:
        if not torch:
            return f"Keras clips {what}, torch's module does not", change.format(keras)
        if not keras:
            return f"torch's module clips {what}, Keras does not", "leave the clipping out"
        return f"gradients are clipped to another size ({what})", change.format(keras)

    return words


def _accumulated(both: Optimizers, keras: Any, torch: Any) -> tuple[str, str]:
    return (
        f"gradients are accumulated over {keras} batches in Keras, over {torch} in torch",
        f"Trainer(accumulate_grad_batches={keras})",
    )


def _factor(both: Optimizers, keras: Any, torch: Any) -> tuple[str, str]:
    if torch == 0:
        return (
            "no parameter group of torch's optimizer has some of the weights: they never move",
            "pass them all",
        )
    return (
        "a parameter group has another learning rate, Keras's optimizer has one for all",
        "lr of the first group",
    )


def _initial(both: Optimizers, keras: Any, torch: Any) -> tuple[str, str]:
    return (
        f"{both.keras['class']}'s initial accumulator differs (Keras's 0.1, torch's 0)",
        f"initial_accumulator_value={_plain(keras)}",
    )


def _momentum_decay(both: Optimizers, keras: Any, torch: Any) -> tuple[str, str]:
    return (
        "Nadam's schedule of the momentum differs (Keras's 0.96 ** t, torch's 0.96 ** (0.004 t))",
        f"momentum_decay={_plain(keras)}",
    )


def _averages(both: Optimizers, keras: Any, torch: Any) -> tuple[str, str]:
    return (
        f"Keras puts the average of the weights in their place every {keras} steps (use_ema), torch does not",
        "average them in torch as well, or leave ema_overwrite_frequency out",
    )


WORDS: dict[str, Callable[[Optimizers, Any, Any], tuple[str, str]]] = {
    "epsilon_place": _place,
    "momentum_form": _momentum_form,
    "decay": _decay,
    "clipnorm": _clip(
        "each variable's gradient by its norm (clipnorm)",
        "in configure_gradient_clipping: nn.utils.clip_grad_norm_ of each parameter by itself, to {}",
    ),
    "global_clipnorm": _clip(
        "all gradients by their norm (global_clipnorm)", "Trainer(gradient_clip_val={})"
    ),
    "clipvalue": _clip(
        "gradients by value (clipvalue)", 'Trainer(gradient_clip_val={}, gradient_clip_algorithm="value")'
    ),
    "clip_margin": lambda both, keras, torch: (
        "torch's clip_grad_norm_ adds 1e-6 to the norm that it divides by",
        "clip by limit / max(norm, limit)",
    ),
    "gradient_accumulation_steps": _accumulated,
    "learning_rate_factor": _factor,
    "initial_accumulator_value": _initial,
    "momentum_decay": _momentum_decay,
    "ema_overwrite_frequency": _averages,
    "maximize": lambda both, keras, torch: ("torch's optimizer maximizes the loss", "maximize=False"),
    "nesterov": lambda both, keras, torch: (
        "the momentum is Nesterov's on one side alone",
        f"nesterov={keras}",
    ),
    "centered": lambda both, keras, torch: ("RMSprop is centered on one side alone", f"centered={keras}"),
    "amsgrad": lambda both, keras, torch: (
        f"{both.keras['class']} keeps the largest second moments (amsgrad) on one side alone",
        f"amsgrad={keras}",
    ),
}
LABELS = {
    "epsilon": "epsilon",
    "beta_1": "first beta",
    "beta_2": "second beta",
    "weight_decay": "weight decay",
    "rho": "rho (torch's alpha)",
    "lr_decay": "decay of the learning rate",
}
TORCH_NAMES = {"epsilon": "eps", "beta_1": "betas[0]", "beta_2": "betas[1]", "learning_rate": "lr"}


def _plain(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float | int) and not isinstance(value, bool) else str(value)
