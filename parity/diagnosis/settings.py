"""Settings of two layers that differ: the cause in words, and how torch's side takes Keras's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from parity.diagnosis.patterns import Explanation

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Cause:
    """What a setting that differs is called, and the change that mends it, from Keras's value of it."""

    words: str
    change: Callable[[Any], str] = lambda keras: ""


def _to(argument: str) -> Callable[[Any], str]:
    return lambda keras: f"{argument}={plain(keras)}"


def _padded(pixels: Any) -> str:
    # F.pad counts from the last axis backwards.
    amounts = ", ".join(str(amount) for axis in reversed(pixels) for amount in axis)
    return f"pad before it by F.pad(x, ({amounts})), with padding=0 in the layer itself"


def _cropped(pixels: Any) -> str:
    cuts = ", ".join(f"[{before}, {after}]" for before, after in pixels)
    return f"padding=0 and output_padding=0, then cut {cuts} pixels off before and after each axis of space"


def _interpolated(interpolation: Any) -> str:
    return f"interpolate with mode={interpolation!r}, align_corners=False, as Keras's half-pixel centres do"


CAUSES = {
    "momentum": Cause(
        "BatchNorm's momentum differs (torch's is 1 minus Keras's)",
        lambda keras: f"momentum={plain(1 - keras)}" if isinstance(keras, float) else "",
    ),
    "epsilon": Cause(
        "a normalisation's epsilon differs (by default Keras's is 1e-3, torch's 1e-5)", _to("eps")
    ),
    "rate": Cause("a dropout rate differs", _to("p")),
    "negative_slope": Cause(
        "LeakyReLU's slope differs (by default Keras's is 0.3, torch's 0.01)", _to("negative_slope")
    ),
    "dropout": Cause(
        "the dropout inside of the layer differs",
        lambda keras: "let it drop what Keras's layer drops" if keras else "dropout=0",
    ),
    "recurrent_dropout": Cause("a recurrent layer drops its states (recurrent_dropout) on one side alone"),
    "strides": Cause("strides differ", _to("stride")),
    "dilation": Cause("dilation differs", _to("dilation")),
    "groups": Cause("groups differ", _to("groups")),
    "pool_size": Cause("pool sizes differ", _to("kernel_size")),
    "approximate": Cause(
        "one GELU is exact, the other approximated by tanh",
        lambda keras: "approximate='tanh'" if keras else "approximate='none'",
    ),
    "cropping": Cause("the transposed convolution is cropped on the other side", _cropped),
    "padding": Cause("it is padded otherwise (Keras's `same` adds the odd pixel behind)", _padded),
    "amounts": Cause("it pads or crops other pixels", _padded),
    "count_include_pad": Cause(
        "the average counts the zeros of the padding (count_include_pad), Keras's does not",
        lambda keras: "count_include_pad=False",
    ),
    "align_corners": Cause(
        "the corners are aligned (align_corners), Keras has half-pixel centres",
        lambda keras: "align_corners=False",
    ),
    "antialias": Cause("one side smooths before it shrinks (antialias)", _to("antialias")),
    "interpolation": Cause("the interpolation differs", _interpolated),
    "size": Cause("it is enlarged by another factor", _to("scale_factor")),
    "output_size": Cause("the output has another size", _to("output_size")),
    "reset_after": Cause(
        "the GRU applies its reset gate at another place (Keras's reset_after)",
        lambda keras: "reset_after=True in Keras is torch's GRU; with False a cell must be written out",
    ),
    "activation": Cause("another activation inside of the layer", _to("activation")),
    "recurrent_activation": Cause("another activation of the gates", _to("recurrent activation")),
    "go_backwards": Cause("the sequence is read in the other direction"),
    "merge_mode": Cause("the two directions are merged otherwise", _to("merge_mode")),
    "num_heads": Cause("another number of heads", _to("num_heads")),
    "key_dim": Cause("heads of another size", _to("embed_dim / num_heads")),
    "alpha": Cause("the activation's alpha differs", _to("alpha")),
}


def explain(keras: Settings, torch: Settings, kind: str) -> Explanation | None:
    """The settings of Keras's and of torch's layer that differ, or None where none of those known does."""
    apart = {name: (keras[name], torch[name]) for name in differing(keras, torch)}
    known = {name: values for name, values in apart.items() if name in CAUSES}
    if not known:
        return None
    subject = {"Conv": "the convolution", "Pool": "the pooling"}
    who = next((words for part, words in subject.items() if part in kind), "the layer")
    causes = [CAUSES[name].words.replace("it is", f"{who} is", 1) for name in known]
    evidence = [f"{name} {plain(ours)} for Keras's {plain(theirs)}" for name, (theirs, ours) in known.items()]
    changes = [change for name, (theirs, _) in known.items() if (change := CAUSES[name].change(theirs))]
    return Explanation("; ".join(causes), "; ".join(evidence), "; ".join(changes))


def differing(keras: Settings, torch: Settings) -> list[str]:
    """Names of the settings that both have, with other values."""
    return [name for name in keras if name in torch and not _equal(keras[name], torch[name])]


def plain(value: Any) -> str:
    """A setting's value with no more digits than it needs."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _equal(one: Any, other: Any) -> bool:
    numbers = all(isinstance(value, float | int) for value in (one, other))
    return abs(one - other) < 1e-9 if numbers else one == other
