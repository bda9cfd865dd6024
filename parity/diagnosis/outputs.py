"""Why a layer's output differs where its inputs agree, from the numbers alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy import special

from parity.diagnosis.patterns import Explanation, explains, ratio_of

Function = Callable[[np.ndarray], np.ndarray]


def _softmax(x: np.ndarray) -> np.ndarray:
    return special.softmax(x, axis=-1)


def _tanh_gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


# Activations that one side may have and the other not, or in another's place.
ACTIVATIONS: dict[str, Function] = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "softmax": _softmax,
    "sigmoid": special.expit,
    "tanh": np.tanh,
    "exact gelu": lambda x: x * special.ndtr(x),
    "tanh gelu": _tanh_gelu,
    "silu": lambda x: x * special.expit(x),
    "leaky_relu (slope 0.01)": lambda x: np.where(x > 0, x, 0.01 * x),
    "leaky_relu (slope 0.2)": lambda x: np.where(x > 0, x, 0.2 * x),
    "leaky_relu (slope 0.3)": lambda x: np.where(x > 0, x, 0.3 * x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "softplus": lambda x: np.logaddexp(x, 0),
    "hard sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "hard silu": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "log_softmax": lambda x: special.log_softmax(x, axis=-1),
    "exponential": np.exp,
}


def explain(keras: np.ndarray, torch: np.ndarray, source: np.ndarray | None) -> Explanation | None:
    """What makes torch's output of Keras's, or of the input of both; None where nothing known does.

    Arrays are (N, ..., C), float. source: the layer's input, where it is one array.
    """
    if not np.isfinite(torch).all() or not np.isfinite(keras).all():
        return _not_finite(keras, torch)
    if keras.shape != torch.shape:
        return _other_shape(keras, torch)
    return next(_patterns(keras, torch, source), None)


def _patterns(keras: np.ndarray, torch: np.ndarray, source: np.ndarray | None) -> Iterator[Explanation]:
    if source is not None and source.shape == torch.shape:
        yield from _of_softmax(keras, torch, source)
    with np.errstate(all="ignore"):
        for name, function in ACTIVATIONS.items():
            if explains(keras, torch, function(keras)):
                twice = " (twice, if Keras's has it already)" if name == "softmax" else ""
                yield Explanation(
                    f"torch applies {name} on top{twice}",
                    "Keras's output through it is torch's",
                    f"leave {name} out",
                )
            if explains(torch, keras, function(torch)):
                yield Explanation(
                    f"torch leaves {name} out",
                    "torch's output through it is Keras's",
                    f"apply {name} to the output",
                )
            if (
                source is not None
                and source.shape == torch.shape
                and explains(keras, torch, function(source))
            ):
                yield Explanation(f"torch applies {name} in its place", "to the same input", "")
    if source is not None and explains(keras, torch, source):
        yield Explanation("torch's layer does nothing here", "its output is its input", "")
    yield from _of_channels(keras, torch)
    yield from _of_space(keras, torch)


def _of_softmax(keras: np.ndarray, torch: np.ndarray, source: np.ndarray) -> Iterator[Explanation]:
    """Two softmaxes over other axes of the same input."""
    axes = {axis: special.softmax(source, axis=axis) for axis in range(1, source.ndim)}
    theirs = next((axis for axis, values in axes.items() if np.allclose(values, keras)), None)
    ours = next((axis for axis, values in axes.items() if explains(keras, torch, values)), None)
    if theirs is not None and ours is not None:
        yield Explanation(
            f"torch's softmax runs over axis {ours} (channels last), Keras's over axis {theirs}",
            "computed so from the same input, it is torch's",
            "let it run over the axis that Keras's does",
        )


def _of_channels(keras: np.ndarray, torch: np.ndarray) -> Iterator[Explanation]:
    """The same numbers for other channels, or each channel scaled and shifted."""
    if keras.shape[-1] > 1 and explains(keras, torch, keras[..., ::-1]):
        yield Explanation(
            "the channels are reversed (RGB for BGR)",
            "reversed, they agree",
            "flip the channel axis: x.flip(1)",
        )
    ratio = ratio_of(keras, torch)
    if ratio is not None:
        yield Explanation(
            "the output is scaled otherwise",
            f"torch's is {ratio:.8g} times Keras's",
            f"divide by {ratio:.8g}",
        )
    flat = [array.reshape(-1, array.shape[-1]) for array in (keras, torch)]
    offset = flat[1][0] - flat[0][0]
    if explains(keras, torch, keras + offset):
        values = ", ".join(f"{value:.5g}" for value in offset[:4])
        yield Explanation(
            "the output is shifted (a mean or a bias that one side adds)",
            f"by {values} a channel",
            "subtract it",
        )
    if 1 < keras.shape[-1] <= 4096 and (order := _order(*flat)) is not None:
        first = ", ".join(map(str, order[:6]))
        yield Explanation(
            "the features come in another order",
            f"torch's are Keras's {first}, ...",
            "permute them as Keras does",
        )
    if len(flat[0]) > 3:
        scale, shift = _affine(*flat)
        if explains(keras, torch, keras * scale + shift):
            yield Explanation(
                "each channel is scaled and shifted (a normalisation with other numbers)",
                f"the first by {scale[0]:.6g} and {shift[0]:+.6g}",
                "check mean, variance, gamma, beta and epsilon",
            )


def _of_space(keras: np.ndarray, torch: np.ndarray) -> Iterator[Explanation]:
    """The same numbers at other places of space."""
    axes = range(1, keras.ndim - 1)
    for axis in axes:
        for step in (-1, 1):
            here = np.take(keras, range(1, keras.shape[axis] - 1), axis)
            there = np.take(torch, range(1 + step, keras.shape[axis] - 1 + step), axis)
            if here.size and np.abs(here).max() and np.allclose(here, there, rtol=1e-9, atol=1e-12):
                way = "behind" if step > 0 else "before"
                yield Explanation(
                    "the output is moved by a pixel (padding or cropping on the other side)",
                    f"torch's lies one {way} Keras's along axis {axis}",
                    "pad or crop as Keras's `same` does, the odd pixel behind",
                )
        if explains(keras, torch, np.flip(keras, axis)):
            yield Explanation("the output is mirrored", f"along axis {axis}", "flip it")
    if len(axes) == 2 and keras.shape[1] == keras.shape[2] and explains(keras, torch, keras.swapaxes(1, 2)):
        yield Explanation("height and width are swapped", "swapped, they agree", "transpose height and width")
    if np.allclose(np.sort(keras, axis=None), np.sort(torch, axis=None), rtol=1e-9, atol=1e-12):
        yield Explanation(
            "the same numbers stand in another order (a reshape or a flattening of channels first)",
            "sorted, they agree",
            "bring channels last before it: x.movedim(1, -1)",
        )


def _order(keras: np.ndarray, torch: np.ndarray) -> np.ndarray | None:
    """For each of torch's features which of Keras's it is, or None where they are others."""
    rows = min(len(keras), 8)
    order = np.lexsort(keras[:rows])[np.argsort(np.lexsort(torch[:rows]))]
    if (order == np.arange(len(order))).all():
        return None
    return order if np.allclose(keras[:, order], torch, rtol=1e-9, atol=1e-12) else None


def _affine(keras: np.ndarray, torch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The scale and the shift of each channel that take Keras's output nearest to torch's."""
    means = keras.mean(0), torch.mean(0)
    centred = keras - means[0], torch - means[1]
    spread = np.square(centred[0]).sum(0)
    scale = (centred[0] * centred[1]).sum(0) / np.where(spread > 0, spread, 1)
    return scale, means[1] - scale * means[0]


def _not_finite(keras: np.ndarray, torch: np.ndarray) -> Explanation:
    sides = [name for name, array in (("Keras's", keras), ("torch's", torch)) if not np.isfinite(array).all()]
    return Explanation(
        f"{' and '.join(sides)} output holds NaN or infinity",
        "from inputs that the layers before agree on",
        "look for a division by zero, a logarithm of 0, or a square root of a negative number",
    )


def _other_shape(keras: np.ndarray, torch: np.ndarray) -> Explanation:
    evidence = f"{torch.shape[1:]} for Keras's {keras.shape[1:]}"
    if sorted(keras.shape) == sorted(torch.shape) and keras.ndim == torch.ndim:
        return Explanation("the output's axes are in another order", evidence, "permute them")
    if keras.size == torch.size:
        return Explanation("the output is reshaped otherwise", evidence, "")
    return Explanation("the output has another shape", evidence, "check strides, padding and kernel sizes")
