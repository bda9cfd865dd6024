"""Which layer of a torch model is which of a Keras model's, from what both `trace` commands say of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import SequenceMatcher

from parity.traces.layers import (
    Layer,
    Layers,
    activations,
    by_roles,
    full,
    itself,
    listed,
    pooled,
    signature,
    size,
    sources,
    without_ones,
)

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
    are the same all along, else by kind, shapes, the layers that their inputs come from and the activations
    that they end in, where these leave one choice, else by their order among those alike, with a note.
    Those without weights go by name, else by kind, shape and inputs; what is left is no error.
    given (torch name to Keras's) stands before all. Raises MatchError where one side has other layers.
    """
    keras = {layer["name"]: layer for layer in by_roles(keras_layers)}
    torch = {layer["name"]: layer for layer in by_roles(torch_layers)}
    _check_given(given := dict(given or {}), keras, torch)
    of_weights = {t: k for t, k in given.items() if torch[t]["weights"]}
    notes: list[str] = []
    try:
        weighted = _weighted(keras, torch, of_weights, notes)
    except MatchError as problem:
        try:  # where one side's layers go without a bias or a scale, the structure rung will tell
            bare = _bare(keras, torch)
            reduced = _without_vectors(keras, bare), _without_vectors(torch, bare)
            weighted = _weighted(*reduced, of_weights, notes)
        except MatchError:
            raise problem from None
    plain = _plain(keras, torch, weighted, {t: k for t, k in given.items() if t not in weighted})
    matched = weighted | plain
    taken = set(matched.values())
    alone_keras = [layer for name, layer in keras.items() if name not in taken]
    alone_torch = [layer for name, layer in torch.items() if name not in matched]
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


def check_covered(keras: Iterable[Layer], torch: Iterable[Layer]) -> None:
    """Raise a MatchError that names every layer with weights that no rule says how to compare."""
    alone = [("Keras", layer) for layer in keras] + [("torch", layer) for layer in torch]
    if not alone:
        return
    rows = [f"  {side}'s {layer['name']}, {full(layer)}" for side, layer in alone]
    kinds = list(dict.fromkeys(layer["kind"] for _, layer in alone))
    raise MatchError(
        "\n".join(
            [
                "no rule says how to compare the weights of",
                *rows,
                f"Write one for each: --layer {kinds[0]}=package.module:rule (see --help)"
                + (f"; likewise for {', '.join(kinds[1:])}." if kinds[1:] else "."),
            ]
        )
    )


# === Layers with weights ===

# What layers of one kind may have or not (use_bias, scale, center, track_running_stats).
OPTIONAL = ("bias", "gamma", "beta", "moving_mean", "moving_variance")


def _bare(keras: Layers, torch: Layers) -> set[str]:
    """The kinds that have layers whose weights may all be left out, and layers that do so."""
    layers = (*keras.values(), *torch.values())
    optional = {layer["kind"] for layer in layers if layer["weights"] and {*layer["weights"]} <= {*OPTIONAL}}
    return optional & {layer["kind"] for layer in layers if not layer["weights"]}


def _without_vectors(layers: Layers, bare: set[str]) -> dict[str, Layer]:
    """The layers with the weights alone that no option leaves out, or of vectors alone with the first one's
    shape; those of bare kinds with an empty one.
    """

    def weights(layer: Layer) -> dict[str, list[int]]:
        found = {name: shape for name, shape in layer["weights"].items() if name not in OPTIONAL}
        if layer["kind"] in bare:
            return {"": []}
        return found or dict(zip([""], layer["weights"].values(), strict=False))

    return {name: {**layer, "weights": weights(layer)} for name, layer in layers.items()}


def _weighted(keras: Layers, torch: Layers, given: dict[str, str], notes: list[str]) -> dict[str, str]:
    ours = {n: layer for n, layer in torch.items() if layer["weights"] and n not in given}
    theirs = {n: layer for n, layer in keras.items() if layer["weights"] and n not in given.values()}
    same = _same_names(ours, theirs)
    if same and all(signature(ours[name]) == signature(theirs[same[name]]) for name in ours):
        return given | same
    ordered = None
    if [signature(layer) for layer in ours.values()] == [signature(layer) for layer in theirs.values()]:
        ordered = given | dict(zip(ours, theirs, strict=True))
        ends, theirs_known = (activations(torch), activations(keras)), itself(ordered)
        if all(
            sources(torch, t, ordered, "torch") == sources(keras, k, theirs_known, "Keras")
            and pooled(torch, t) == pooled(keras, k)
            and (ends[0].get(t) == ends[1].get(k) or None in (ends[0].get(t), ends[1].get(k)))
            for t, k in ordered.items()
        ):
            return ordered
    found = _narrowed(keras, torch, ours, theirs, given)
    if len(found) == len(given) + len(ours) == len(given) + len(theirs):
        return found
    if ordered is not None:  # the inputs speak against it, or are not known: the forward rung will tell
        return ordered
    if in_turn := _in_turn(ours, theirs, found):
        guessed = [f"{t} as Keras's {k}" for t, k in in_turn.items() if t not in found]
        shown = ", ".join(guessed[:4]) + (f" and {len(guessed) - 4} more" if len(guessed) > 4 else "")
        notes.append(
            f"taken in their order, for more than one choice is left: torch's {shown}; else {WAY_OUT}"
        )
        return in_turn
    problem = _problem({n: layer for n, layer in ours.items() if n not in found}, theirs, found)
    raise MatchError("\n".join([problem, *_shared(keras, torch)]))


def _same_names(ours: Layers, theirs: Layers) -> dict[str, str]:
    """Each of torch's names with Keras's, where they are the same but for what holds the network, as in
    `network.conv1`; empty where they are not.
    """
    names = {name: name for name in ours}
    while set(names.values()) != theirs.keys():
        heads = {name.partition(".")[0] if "." in name else "" for name in names.values()}
        if len(heads) != 1 or heads == {""}:
            return {}
        names = {name: rest.partition(".")[2] for name, rest in names.items()}
    return names


def _narrowed(
    keras: Layers, torch: Layers, ours: Layers, theirs: Layers, given: dict[str, str]
) -> dict[str, str]:
    """Pairs of layers that nothing else resembles, the found ones narrowing down the others."""
    found = dict(given)
    # Only layers with weights are matched here: what each takes its inputs from stays the same.
    reached = {
        "torch": {n: sources(torch, n, {m: m for m in torch if torch[m]["weights"]}, "") for n in ours},
        "Keras": {n: sources(keras, n, {m: m for m in keras if keras[m]["weights"]}, "") for n in theirs},
    }
    signatures = (
        {n: signature(layer) for n, layer in ours.items()},
        {n: signature(layer) for n, layer in theirs.items()},
    )

    def flow(side: str, name: str, known: Mapping[str, str]) -> Hashable:
        own = signatures[side == "Keras"][name]
        return own, tuple(sorted(known.get(s, f"{side} {s}" if s else "") for s in reached[side][name]))

    ends = {"torch": activations(torch), "Keras": activations(keras)}

    def flow_and_end(side: str, name: str, known: Mapping[str, str]) -> Hashable:
        return flow(side, name, known), ends[side].get(name)

    def shapes(side: str, name: str, known: Mapping[str, str]) -> Hashable:
        return signatures[side == "Keras"][name]

    def pair(alike: Callable[[str, str, Mapping[str, str]], Hashable], every: bool) -> bool:
        """Pair those that are alike to one layer alone: every one of them, or the first."""
        taken, known = set(found.values()), itself(found)
        torch_left: dict[Hashable, list[str]] = {}
        for name in (n for n in ours if n not in found):
            torch_left.setdefault(alike("torch", name, found), []).append(name)
        keras_left: dict[Hashable, list[str]] = {}
        for name in (n for n in theirs if n not in taken):
            keras_left.setdefault(alike("Keras", name, known), []).append(name)
        single = [
            (names[0], keras_left[key][0])
            for key, names in torch_left.items()
            if len(names) == 1 and len(keras_left.get(key, ())) == 1
        ]
        found.update(single if every else single[:1])
        return bool(single)

    def surroundings() -> bool:
        """Pair those whose neighbours are alike, in circles that grow."""
        for colours in _colours({"torch": torch, "Keras": keras}, {"torch": found, "Keras": itself(found)}):
            if pair(lambda side, name, known, seen=colours: seen[side, name], every=True):
                return True
        return False

    while (
        pair(flow_and_end, every=True)
        or pair(flow, every=True)
        or pair(shapes, every=False)
        or surroundings()
    ):
        pass
    return found


def _in_turn(ours: Layers, theirs: Layers, found: dict[str, str]) -> dict[str, str]:
    """All pairs, those that are left matched in their order among the layers of their kind and shapes; none
    where one side has more of a kind. So a norm that stands behind in one model and before in the other is
    compared, and the structure or the forward rung tells where it stands.
    """
    places: dict[Hashable, list[str]] = {}
    for name, layer in theirs.items():
        if name not in found.values():
            places.setdefault(signature(layer), []).append(name)
    left = [name for name in ours if name not in found]
    counts = Counter(signature(ours[name]) for name in left)
    if counts != {key: len(names) for key, names in places.items()}:
        return {}
    return found | {name: places[signature(ours[name])].pop(0) for name in left}


CIRCLES = 6  # of neighbours around a layer


def _colours(
    sides: Mapping[str, Layers], known: Mapping[str, Mapping[str, str]]
) -> Iterator[dict[tuple[str, str], int]]:
    """Colours of the layers with weights of both sides, equal where ever more of what lies around is alike.

    These are the rounds of colour refinement (Weisfeiler and Leman 1968) over the layers that each takes its
    inputs from and gives its output to. known: a common name of the layers that are matched already.
    """
    numbers: dict[Hashable, int] = {}

    def number(key: Hashable) -> int:
        return numbers.setdefault(key, len(numbers))

    before: dict[tuple[str, str], list[tuple[str, str]]] = {}
    after: dict[tuple[str, str], list[tuple[str, str]]] = {}
    colours = {}
    for side, layers in sides.items():
        weighted = {name: name for name, layer in layers.items() if layer["weights"]}
        for name in weighted:
            key = side, name
            before[key] = [(side, s) for s in sources(layers, name, weighted, side) if s in weighted]
            for source in before[key]:
                after.setdefault(source, []).append(key)
            own = signature(layers[name]), pooled(layers, name), known[side].get(name)
            colours[key] = number(own)
    for _ in range(CIRCLES):
        colours = {
            key: number(
                (colour, *(tuple(sorted(colours[n] for n in near.get(key, ()))) for near in (before, after)))
            )
            for key, colour in colours.items()
        }
        yield colours


def _problem(ours: Layers, theirs: Layers, found: Mapping[str, str]) -> str:
    """What to tell of the layers that are left over: all without a counterpart."""
    left = {name: layer for name, layer in theirs.items() if name not in found.values()}
    lonely = _without_counterpart(ours, left)
    rows = []
    for side, mine, others, alone, alone_there in (
        ("torch", ours, left, *lonely),
        ("Keras", left, ours, *lonely[::-1]),
    ):
        for name in alone:
            near = _nearest(mine[name], [others[n] for n in alone_there or others])
            other = "Keras" if side == "torch" else "torch"
            told = (
                f"nearest is {other}'s {near['name']}: {_difference(mine[name], near)}"
                if near
                else "none near"
            )
            rows.append(f"  {side}'s {name}, {full(mine[name])}; {told}")
    return "\n".join(
        [
            "layers with weights have no counterpart on the other side:",
            *rows,
            "The two must have the same layers with weights, of the same shapes.",
        ]
    )


def _shared(keras: Layers, torch: Layers) -> list[str]:
    """The layers that one side alone calls again, with the same weights."""
    calls = {
        side: [
            name.partition("@")[0]
            for name, layer in layers.items()
            if "@" in name and layer["shape"] and layers[name.partition("@")[0]]["weights"]
        ]
        for side, layers in (("Keras", keras), ("torch", torch))
    }
    if len(calls["Keras"]) == len(calls["torch"]):
        return []
    return [
        f"{side} uses the weights of {', '.join(dict.fromkeys(names))} more than once."
        for side, names in calls.items()
        if names
    ]


def _without_counterpart(ours: Layers, theirs: Layers) -> tuple[list[str], list[str]]:
    """The layers that no layer of the other side has kind and shapes of, or too few have; in their order."""
    one, other = ([signature(layer) for layer in layers.values()] for layers in (ours, theirs))
    counts = Counter(one), Counter(other)
    uneven = {key for key in counts[0] | counts[1] if counts[0][key] != counts[1][key]}
    # Of several alike, those are told that the order of the rest leaves over.
    blocks = SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks()
    aligned = [{block.a + i for block in blocks for i in range(block.size)}]
    aligned += [{block.b + i for block in blocks for i in range(block.size)}]
    names = []
    for side, (layers, keys) in enumerate(((ours, one), (theirs, other))):
        excess = Counter({key: counts[side][key] - counts[1 - side][key] for key in uneven})
        alone = []
        for place in sorted(range(len(keys)), key=lambda i: (i in aligned[side], i)):
            if excess[keys[place]] > 0:
                excess[keys[place]] -= 1
                alone.append(place)
        names.append([list(layers)[place] for place in sorted(alone)])
    return names[0], names[1]


def _nearest(layer: Layer, others: Iterable[Layer]) -> Layer | None:
    """The layer of the other side that differs least, one of the same kind before any other."""

    def distance(other: Layer) -> tuple[bool, int, float]:
        mine, its = layer["weights"], other["weights"]
        shared = [(mine[name], its[name]) for name in mine.keys() & its.keys()]
        sizes = sum(abs(a - b) for one, two in shared for a, b in zip(one, two, strict=False))
        return other["kind"] != layer["kind"], len(mine.keys() ^ its.keys()), sizes

    return min(others, key=distance, default=None)


def _difference(layer: Layer, other: Layer) -> str:
    """What parts a layer from its nearest, its own first."""
    mine, its = layer["weights"], other["weights"]
    parts = [f"{layer['kind']} for {other['kind']}"] if layer["kind"] != other["kind"] else []
    for name in dict.fromkeys((*mine, *its)):
        if name not in its or name not in mine:
            parts.append(f"{'no ' if name not in mine else ''}{name}")
        elif list(mine[name]) != list(its[name]):
            parts.append(f"{name} {size(mine[name])} for {size(its[name])}")
    return ", ".join(parts) or "one layer fewer of this kind"


# === Layers without weights ===


def _plain(
    keras: Layers, torch: Layers, weighted: Mapping[str, str], given: Mapping[str, str]
) -> dict[str, str]:
    found = dict(given)
    left = {n: one for n, one in keras.items() if not one["weights"] and n not in given.values()}
    known = {**weighted, **found}
    own = itself(known)  # what `known` gives, of Keras's side

    def came_from(layer: Layer) -> tuple[str, ...]:
        return sources(torch, layer["name"], known, "torch")

    def fits(ours: Layer, theirs: Layer, needed: tuple[str, ...], ours_from: tuple[str, ...]) -> bool:
        same = {
            "kind": lambda: ours["kind"] == theirs["kind"],
            "shape": lambda: without_ones(ours["shape"]) == without_ones(theirs["shape"]),
            "inputs": lambda: sources(keras, theirs["name"], own, "Keras") == ours_from,
            "role": lambda: (
                _role(ours) == _role(theirs) != ""
                # With arithmetic in between they may be a part of something else.
                and all(name in known for name in ours["inputs"])
                and all(name in own for name in theirs["inputs"])
            ),
            "unknown": lambda: (
                "" in sources(keras, theirs["name"], own, "Keras")
                and alone(ours, torch)
                and alone(theirs, left)
            ),
        }
        # Two layers of one name may differ in one thing: that is then a finding.
        if ours["name"] == theirs["name"] and sum(same[fact]() for fact in ("kind", "shape", "inputs")) > 1:
            return True
        return all(same[fact]() for fact in needed)

    def alone(layer: Layer, layers: Layers) -> bool:
        alike = (one for n, one in layers.items() if n not in found and not one["weights"])
        return sum((one["kind"], one["shape"]) == (layer["kind"], layer["shape"]) for one in alike) == 1

    def candidates(name: str) -> Iterator[str]:
        """Keras's layers that are left: that of the name first, those of others of torch's names last."""
        yield name
        yield from (n for n in left if n not in torch)
        yield from (n for n in left if n in torch)

    # Keras's x + y in a layer's own code leaves no trace: what comes after it has inputs that are not known.
    # Last, an activation in the place of another, so that the two can be told to differ.
    by_inputs = ("kind", "shape", "inputs")
    for needed in (by_inputs, ("kind", "shape", "unknown"), by_inputs, ("role", "shape", "inputs")):
        for name, layer in torch.items():
            if layer["weights"] or name in weighted or name in found:
                continue
            twin = _other_call(name, weighted)
            ours_from = came_from(layer)
            fitting = (
                n
                for n in (candidates(name) if twin is None else [twin])
                if n in left and (twin or fits(layer, left[n], needed, ours_from))
            )
            if (one := next(fitting, None)) is not None:
                found[name] = known[name] = own[one] = one
                del left[one]
    return found


def _other_call(name: str, weighted: Mapping[str, str]) -> str | None:
    """Keras's name for a further call of a layer with weights."""
    layer, _, number = name.rpartition("@")
    return f"{weighted[layer]}@{number}" if layer in weighted else None


def _role(layer: Layer) -> str:
    kind = layer["kind"]
    return "activation" if kind[0].islower() else "pooling" if "Pooling" in kind else ""
