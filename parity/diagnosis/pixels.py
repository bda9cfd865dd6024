"""What a model does to its images before the first weights, read from what these make of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from parity.diagnosis.patterns import LEFT, Explanation
from parity.traces.pair import Pair

SAMPLES = 2  # images that the causes are tried on
# How images may be resized, each as a function of (pixels before, pixels after) to a matrix (after, before).
WAYS = {
    "bilinear with half-pixel centres": lambda n, m: _weights(n, m, _half_pixel),
    "bilinear with antialias": lambda n, m: _weights(n, m, _half_pixel, antialias=True),
    "bilinear with align_corners": lambda n, m: _weights(n, m, _corners),
    "bilinear without half-pixel centres": lambda n, m: _weights(n, m, _asymmetric),
    "nearest": lambda n, m: _nearest(n, m, 0.0),
    "nearest with half-pixel centres": lambda n, m: _nearest(n, m, 0.5),
    "bicubic (a = -0.75)": lambda n, m: _weights(n, m, _half_pixel, cubic=-0.75),
    "bicubic (a = -0.5)": lambda n, m: _weights(n, m, _half_pixel, cubic=-0.5),
    "bicubic with antialias": lambda n, m: _weights(n, m, _half_pixel, cubic=-0.5, antialias=True),
    "area": lambda n, m: _area(n, m),
}


def explain(layer: str, pair: Pair) -> Explanation | None:
    """What torch does otherwise to the pixels of a layer, the first with weights; None where it is not that.

    The layer is done anew on what Keras gave it: with its colours reversed, each colour scaled and shifted,
    or resized in another way. What then gives torch's output is the cause.
    """
    facts = pair.keras.layer(layer)
    both = pair.both("eval", layer)
    source = _source(layer, pair)
    if both is None or source is None or both[0].shape != both[1].shape or facts["kind"] not in LINEAR:
        return None
    torch = both[1][:SAMPLES]
    weights = {name: pair.keras[f"initial/{layer}/{name}"] for name in pair.weights(layer)}
    if source.shape[-1] > 4 or "kernel" not in weights:
        return None  # no colours
    for words, pixels in _candidates(layer, source, pair):
        fitted = _fit(pixels, weights, facts["settings"], both[0][:SAMPLES], torch)
        if fitted is not None:
            return _told(words, *fitted)
    return None


def _candidates(layer: str, source: np.ndarray, pair: Pair) -> Iterator[tuple[str, np.ndarray]]:
    """What the layer may have been given, (N, H, W, C), each with what was done to it."""
    yield "", source
    yield "reversed", source[..., ::-1]
    images, resized = _resized(layer, pair)
    if images is None or resized is None or resized.shape != source.shape:
        return
    sizes = [(images.shape[axis], resized.shape[axis]) for axis in (1, 2)]
    ways = {way: _apply(images, [weights(*size) for size in sizes]) for way, weights in WAYS.items()}
    own = next(
        (way for way, pixels in ways.items() if np.allclose(pixels, resized, rtol=1e-9, atol=1e-9)), ""
    )
    scale, shift = _affine(resized, source)
    for way, pixels in ways.items():
        if way != own:
            yield f"resized: {way}|{own or 'another way'}", pixels * scale + shift


def _told(words: str, scale: np.ndarray, shift: np.ndarray) -> Explanation:
    same, unmoved = np.allclose(scale, 1, rtol=1e-9), np.abs(shift).max() < 1e-9
    numbers = f"{_listed(scale)} and shifted by {_listed(shift)}"
    if words.startswith("resized: "):
        torch, keras = words.removeprefix("resized: ").split("|")
        return Explanation(
            f"images are resized otherwise: the interpolation differs, torch's is {torch}, Keras's {keras}",
            "the first layer with weights, done on images resized so, gives torch's output",
            f"resize as Keras does: {keras}" if keras in WAYS else "resize as Keras does",
        )
    if words == "reversed":
        more = "" if same and unmoved else f", and each colour is scaled by {numbers}"
        return Explanation(
            "the colour channels are reversed (RGB for BGR)",
            f"the first layer with weights, done on reversed colours, gives torch's output{more}",
            "flip the channel axis: x.flip(1)",
        )
    if unmoved and np.ptp(scale) < 1e-9 * np.abs(scale).max():
        return Explanation(
            "the pixels are scaled otherwise",
            f"torch's are {scale[0]:.8g} times Keras's",
            f"divide them by {scale[0]:.8g}",
        )
    if same:
        return Explanation(
            "a mean colour is not subtracted, or another",
            f"torch's pixels are off by {_listed(shift)}",
            "subtract Keras's mean",
        )
    return Explanation(
        "the pixels are scaled and shifted otherwise (another scale, mean or variance)",
        f"torch's colours are Keras's scaled by {numbers}",
        "check the scale, the mean and the variance",
    )


def _listed(values: np.ndarray) -> str:
    return f"({', '.join(f'{value:.6g}' for value in values)})"


def _fit(
    pixels: np.ndarray,
    weights: Mapping[str, np.ndarray],
    settings: Mapping[str, Any],
    keras: np.ndarray,
    torch: np.ndarray,
) -> tuple[np.ndarray, np.ndarray] | None:
    """The scale and shift of each colour with which the layer gives torch's output of these pixels."""
    colours, count = pixels.shape[-1], np.prod(torch.shape)
    columns = []
    for values in (pixels, np.ones_like(pixels)):
        for colour in range(colours):
            alone = np.zeros_like(values)
            alone[..., colour] = values[..., colour]
            columns.append(convolved(alone, weights["kernel"], settings).reshape(count))
    target = (torch - weights.get("bias", 0.0)).reshape(count)
    matrix = np.stack(columns, axis=1)
    fitted, *_ = np.linalg.lstsq(matrix, target, rcond=1e-13)
    apart = float(np.abs(torch - keras).max())
    if not apart or np.abs(matrix @ fitted - target).max() > LEFT * apart:
        return None
    # Of the shifts only as many as the layer tells apart: none is left in what it cannot see.
    return fitted[:colours], np.where(np.abs(fitted[colours:]) < 1e-9, 0.0, fitted[colours:])


# === The layer ===

LINEAR = ("Conv2D", "Dense")


def convolved(images: np.ndarray, kernel: np.ndarray, settings: Mapping[str, Any]) -> np.ndarray:
    """A Conv2D without its bias, (N, H, W, C); a kernel of two axes is a Dense layer's."""
    if kernel.ndim == 2:
        return images @ kernel
    strides, dilation = settings.get("strides", (1, 1)), settings.get("dilation", (1, 1))
    padding = settings.get("padding", ((0, 0), (0, 0)))
    images = np.pad(images, ((0, 0), *map(tuple, padding), (0, 0)))
    spans = [(size - 1) * step + 1 for size, step in zip(kernel.shape[:2], dilation, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(images, spans, axis=(1, 2))  # type: ignore[call-overload]
    windows = windows[:, :: strides[0], :: strides[1], :, :: dilation[0], :: dilation[1]]
    groups, outputs = settings.get("groups", 1), kernel.shape[-1]
    parts = zip(np.split(windows, groups, axis=3), np.split(kernel, groups, axis=3), strict=True)
    assert outputs % groups == 0
    return np.concatenate([np.einsum("nhwcij,ijco->nhwo", seen, own) for seen, own in parts], axis=-1)


def _source(layer: str, pair: Pair) -> np.ndarray | None:
    """The layer's input on Keras's side, of images alone."""
    inputs = pair.keras.layer(layer)["inputs"]
    key = (f"eval/{inputs[0]}" if inputs[0] else "inputs") if len(inputs) == 1 else ""
    source = pair.keras[key][:SAMPLES] if key in pair.keras else None
    return source if source is not None and source.ndim == 4 else None


def _resized(layer: str, pair: Pair) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The model's images, and the same as a Resizing layer before this one gives them."""
    waiting = list(pair.keras.layer(layer)["inputs"])
    while waiting:
        name = waiting.pop()
        if name and pair.keras.layer(name)["kind"] == "Resizing" and "inputs" in pair.keras:
            return pair.keras["inputs"][:SAMPLES], pair.keras[f"eval/{name}"][:SAMPLES]
        waiting += pair.keras.layer(name)["inputs"] if name else []
    return None, None


# === Resizing ===


def _half_pixel(n: int, m: int) -> np.ndarray:
    return (np.arange(m) + 0.5) * n / m - 0.5


def _corners(n: int, m: int) -> np.ndarray:
    return np.arange(m) * ((n - 1) / max(m - 1, 1))


def _asymmetric(n: int, m: int) -> np.ndarray:
    return np.arange(m) * n / m


def _weights(n: int, m: int, places: Any, antialias: bool = False, cubic: float | None = None) -> np.ndarray:
    """What each of m pixels takes of n, (m, n), by a kernel around its place among them."""
    width = max(n / m, 1.0) if antialias else 1.0
    reach = int(np.ceil((1 if cubic is None else 2) * width)) + 1
    matrix = np.zeros((m, n))
    for row, place in enumerate(places(n, m)):
        near = np.arange(int(np.floor(place)) - reach, int(np.floor(place)) + reach + 1)
        shares = _kernel((near - place) / width, cubic)
        if antialias:  # beyond the edge there is nothing
            shares = np.where((near >= 0) & (near < n), shares, 0.0)
            shares = shares / shares.sum()
        np.add.at(matrix[row], np.clip(near, 0, n - 1), shares)
    return matrix


def _kernel(distance: np.ndarray, cubic: float | None) -> np.ndarray:
    """The triangle of bilinear, or Keys's cubic convolution (1981)."""
    x = np.abs(distance)
    if cubic is None:
        return np.maximum(1 - x, 0)
    inner = (cubic + 2) * x**3 - (cubic + 3) * x**2 + 1
    outer = cubic * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, inner, np.where(x < 2, outer, 0.0))


def _nearest(n: int, m: int, centre: float) -> np.ndarray:
    taken = np.minimum(np.floor((np.arange(m) + centre) * n / m).astype(int), n - 1)
    return np.eye(n)[taken]


def _area(n: int, m: int) -> np.ndarray:
    starts, ends = np.arange(m) * n // m, -(-(np.arange(m) + 1) * n // m)
    pixels = np.arange(n)
    within = ((pixels >= starts[:, None]) & (pixels < ends[:, None])).astype(float)
    return within / within.sum(1, keepdims=True)


def _apply(images: np.ndarray, matrices: list[np.ndarray]) -> np.ndarray:
    return np.einsum("ah,bw,nhwc->nabc", *matrices, images, optimize=True)


def _affine(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The scale and the shift of each colour that lead from one to the other."""
    colours = before.shape[-1]
    lines = [np.polyfit(before[..., c].ravel(), after[..., c].ravel(), 1) for c in range(colours)]
    return np.array([line[0] for line in lines]), np.array([line[1] for line in lines])
