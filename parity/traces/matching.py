"""Which layer of a torch model is which of a Keras model's, from what both `trace` commands say of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field

from parity.traces.layers import Layer, Layers, full, itself, listed, signature, sources

# Kinds of layers with weights that both sides write alike.
KNOWN = {
    *(f"Conv{n}D{transposed}" for n in (1, 2, 3) for transposed in ("", "Transpose")),
    *("Dense", "Embedding", "BatchNormalization", "LayerNormalization", "GroupNormalization"),
}
WAY_OUT = "give both the same names, or say --map torch_name=keras_name, once for each"


class MatchError(Exception):
    """Layers cannot be matched without guessing; the message says which, and what to do."""


@dataclass(frozen=True)
class Matching:
    """Layers by the names of the two sides, torch's first; notes say which are not compared by themselves."""

    weighted: dict[str, str]
    plain: dict[str, str]
    unmatched_keras: list[str] = field(default_factory=list)
    unmatched_torch: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def match(
    keras_layers: Iterable[Layer], torch_layers: Iterable[Layer], given: Mapping[str, str] | None = None
) -> Matching:
    """Match the layers of two structures, as structure.json lists them.

    Layers with weights go by name where both sides have the same ones, else by order where kinds and shapes
    are the same all along, else by kind, shapes and the layers that their inputs come from, where these leave
    one choice. Those without weights go by name, else by kind, shape and inputs; what is left is no error.
    given (torch name to Keras's) stands before all. Raises MatchError.
    """
    keras = {layer["name"]: layer for layer in keras_layers}
    torch = {layer["name"]: layer for layer in torch_layers}
    _check_given(given := dict(given or {}), keras, torch)
    _check_kinds(keras, "Keras")
    _check_kinds(torch, "torch")
    weighted = _weighted(keras, torch, {t: k for t, k in given.items() if torch[t]["weights"]})
    plain = _plain(keras, torch, weighted, {t: k for t, k in given.items() if t not in weighted})
    matched = weighted | plain
    alone_keras = [layer for name, layer in keras.items() if name not in matched.values()]
    alone_torch = [layer for name, layer in torch.items() if name not in matched]
    notes = []
    for side, alone in (("Keras", alone_keras), ("torch", alone_torch)):
        if said := [layer for layer in alone if layer["kind"] != "Identity"]:
            them = "itself" if len(said) == 1 else "themselves"
            notes.append(f"not compared by {them}: {side}'s {listed(said)}")
    one, other = ([layer["name"] for layer in alone] for alone in (alone_keras, alone_torch))
    return Matching(weighted, plain, one, other, notes)


def _check_given(given: Mapping[str, str], keras: Layers, torch: Layers) -> None:
    for torch_name, keras_name in given.items():
        for side, name, layers in (("torch", torch_name, torch), ("Keras", keras_name, keras)):
            if name not in layers:
                raise MatchError(
                    f"--map {torch_name}={keras_name}: the {side} model runs no layer {name!r}.\n"
                    f"It runs {', '.join(layers)}."
                )
        if signature(torch[torch_name])[1] != signature(keras[keras_name])[1]:
            raise MatchError(
                f"--map {torch_name}={keras_name}: weights of other shapes, "
                f"{full(torch[torch_name])} for Keras's {full(keras[keras_name])}."
            )
    if twice := [name for name, count in Counter(given.values()).items() if count > 1]:
        raise MatchError(f"--map gives Keras's {twice[0]} to more than one torch layer.")


def _check_kinds(layers: Layers, side: str) -> None:
    for layer in layers.values():
        if layer["weights"] and layer["kind"] not in KNOWN:
            raise MatchError(
                f"the {side} layer {layer['name']} is of a kind that is not covered: {full(layer)}.\n"
                f"Covered are {', '.join(sorted(KNOWN))}, and every layer without weights."
            )


# === Layers with weights ===


def _weighted(keras: Layers, torch: Layers, given: dict[str, str]) -> dict[str, str]:
    ours = {n: layer for n, layer in torch.items() if layer["weights"] and n not in given}
    theirs = {n: layer for n, layer in keras.items() if layer["weights"] and n not in given.values()}
    if ours.keys() == theirs.keys() and all(
        signature(ours[name]) == signature(theirs[name]) for name in ours
    ):
        return given | {name: name for name in ours}
    ordered = None
    if [signature(layer) for layer in ours.values()] == [signature(layer) for layer in theirs.values()]:
        ordered = given | dict(zip(ours, theirs, strict=True))
        if all(
            sources(torch, t, ordered, "torch") == sources(keras, k, itself(ordered), "Keras")
            for t, k in ordered.items()
        ):
            return ordered
    found = _narrowed(keras, torch, ours, theirs, given)
    if len(found) == len(given) + len(ours) == len(given) + len(theirs):
        return found
    if ordered is not None:  # the inputs speak against it, or are not known: the forward rung will tell
        return ordered
    raise MatchError(_problem({n: layer for n, layer in ours.items() if n not in found}, theirs, found))


def _narrowed(
    keras: Layers, torch: Layers, ours: Layers, theirs: Layers, given: dict[str, str]
) -> dict[str, str]:
    """Pairs of layers that nothing else resembles, the found ones narrowing down the others."""
    found = dict(given)

    def flow(layers: Layers, name: str, known: Mapping[str, str], side: str) -> Hashable:
        return signature(layers[name]), sources(layers, name, known, side)

    def shapes(layers: Layers, name: str, known: Mapping[str, str], side: str) -> Hashable:
        return signature(layers[name])

    def pair(alike: Callable[[Layers, str, Mapping[str, str], str], Hashable]) -> bool:
        torch_left = {n: alike(torch, n, found, "torch") for n in ours if n not in found}
        keras_left = {n: alike(keras, n, itself(found), "Keras") for n in theirs if n not in found.values()}
        for name, what in torch_left.items():
            fitting = [n for n, other in keras_left.items() if other == what]
            if len(fitting) == 1 and [*torch_left.values()].count(what) == 1:
                found[name] = fitting[0]
                return True
        return False

    while pair(flow) or pair(shapes):
        pass
    return found


def _problem(ours: Layers, theirs: Layers, found: Mapping[str, str]) -> str:
    """What to tell of the layers that are left over: a missing one first, else the first with a choice."""
    left = {name: layer for name, layer in theirs.items() if name not in found.values()}

    def alike(layer: Layer, layers: Layers) -> list[str]:
        return [name for name, other in layers.items() if signature(other) == signature(layer)]

    for layer in [*ours.values(), *left.values()]:
        one, other = alike(layer, ours), alike(layer, left)
        if len(one) != len(other):
            same = [near for near in {**left, **ours}.values() if near["kind"] == layer["kind"]]
            others = [near for near in same if signature(near) != signature(layer)]
            near = f"; without a counterpart is also {listed(others[:1], full)}" if others else ""
            has = f"the torch model has {_names(one)}, the Keras model {_names(other)}"
            return (
                f"of {full(layer)} {has}{near}.\n"
                "The two must have the same layers with weights, of the same shapes."
            )
    name, layer = next(iter(ours.items()))
    more = f" ({len(ours)} layers in all)" if len(ours) > 1 else ""
    return (
        f"the torch layer {name}, {full(layer)}, may be Keras's {' or '.join(alike(layer, left))}{more}.\n"
        f"Names and order differ: {WAY_OUT}."
    )


def _names(names: list[str]) -> str:
    return ", ".join(names) or "none"


# === Layers without weights ===


def _plain(
    keras: Layers, torch: Layers, weighted: Mapping[str, str], given: Mapping[str, str]
) -> dict[str, str]:
    found = dict(given)
    left = {n: one for n, one in keras.items() if not one["weights"] and n not in given.values()}

    def fits(ours: Layer, theirs: Layer, needed: tuple[str, ...]) -> bool:
        known = {**weighted, **found}
        came_from = sources(keras, theirs["name"], itself(known), "Keras")
        facts = {
            "kind": ours["kind"] == theirs["kind"],
            "shape": ours["shape"] == theirs["shape"],
            "inputs": came_from == sources(torch, ours["name"], known, "torch"),
            "role": _role(ours) == _role(theirs) != "",
            "unknown": "" in came_from and alone(ours, torch) and alone(theirs, left),
        }
        # Two layers of one name may differ in one thing: that is then a finding.
        named = ours["name"] == theirs["name"] and sum(facts[w] for w in ("kind", "shape", "inputs")) > 1
        return named or all(facts[what] for what in needed)

    def alone(layer: Layer, layers: Layers) -> bool:
        alike = (one for n, one in layers.items() if n not in found and not one["weights"])
        return sum((one["kind"], one["shape"]) == (layer["kind"], layer["shape"]) for one in alike) == 1

    # Keras's x + y in a layer's own code leaves no trace: what comes after it has inputs that are not known.
    # Last, an activation in the place of another, so that the two can be told to differ.
    by_inputs = ("kind", "shape", "inputs")
    for needed in (by_inputs, ("kind", "shape", "unknown"), by_inputs, ("role", "shape", "inputs")):
        for name, layer in torch.items():
            if layer["weights"] or name in weighted or name in found:
                continue
            twin = _other_call(name, weighted)
            candidates = sorted(left, key=lambda n: (n != name, n in torch)) if twin is None else [twin]
            fitting = (n for n in candidates if n in left and (twin or fits(layer, left[n], needed)))
            if (one := next(fitting, None)) is not None:
                found[name] = one
                del left[one]
    return found


def _other_call(name: str, weighted: Mapping[str, str]) -> str | None:
    """Keras's name for a further call of a layer with weights."""
    layer, _, number = name.rpartition("@")
    return f"{weighted[layer]}@{number}" if layer in weighted else None


def _role(layer: Layer) -> str:
    kind = layer["kind"]
    return "activation" if kind[0].islower() else "pooling" if "Pooling" in kind else ""
