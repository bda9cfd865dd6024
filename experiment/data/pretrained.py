"""The weights of pretrained bases, from the Keras files that both sides read."""

from __future__ import annotations

import base64
import re
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from experiment.backbones import BACKBONES, Backbone
from experiment.data.catalog import fetch
from experiment.errors import DataError

STATISTICS = ("gamma", "beta", "moving_mean", "moving_variance")
INSTEAD = "--model.weights random"

Weights = dict[str, list[np.ndarray]]


def base_weights(model: str, source: str, cache: str) -> Weights:
    """The arrays of every layer of a base that has any, by layer name, in Keras's order.

    Shapes are those of the backbone's record: of a BatchNormalization gamma, beta, moving mean and moving
    variance. model: a name in `BACKBONES`. source: "imagenet" (downloaded once into `cache`), a Keras weights
    file, or "random" (gives none). Raises DataError where the file cannot be had or does not hold the model's
    layers.
    """
    if source == "random":
        return {}
    backbone, path = BACKBONES[model], Path(source).expanduser()
    if source == "imagenet":
        path = Path(cache).expanduser() / backbone.url.rsplit("/", 1)[1]
        if not path.is_file():
            fetch(backbone.url, path, backbone.checksum or stated(backbone.url, path), instead=INSTEAD)
    return _read(path, backbone)


def stated(url: str, path: Path) -> str:
    """The MD5, as "md5:HEX", that Google's storage states of a file; raises DataError where it does not.

    path: where the file may be put by hand.
    """
    way_out = f"put the file at {path} yourself, or use {INSTEAD}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=10) as answer:
            hashes = ",".join(answer.headers.get_all("x-goog-hash", []))
    except OSError as error:
        raise DataError(f"cannot download {url}: {error}\n{way_out}") from error
    if not (md5 := re.search(r"md5=([\w+/]+=*)", hashes)):
        raise DataError(f"cannot download {url}: the server states no MD5 of it\n{way_out}")
    return f"md5:{base64.b64decode(md5[1]).hex()}"


def _read(path: Path, backbone: Backbone) -> Weights:
    import h5py  # costs start-up, and only these bases need it

    weights: Weights = {}
    counts: Counter[str] = Counter()
    try:
        with h5py.File(path) as file:
            # Keras 3 writes layers/conv2d_K/vars/0, K in the order of the layers of a kind (no _0);
            # Keras's own, older files conv1_conv/conv1_conv/kernel:0 or block1_conv1/block1_conv1_W_1:0.
            root: Any = file.get("layers", file)
            order = _in_order(root)
            for place, (kind, name, expected, *_) in enumerate(backbone.layers):
                numbered = f"{kind}_{counts[kind]}" if counts[kind] else kind
                counts[kind] += 1
                known = next((key for key in (numbered, name) if key in root), None)
                if known is None and len(order) == len(backbone.layers):
                    known = order[place]  # of another name: Keras goes by the order of such a file
                arrays = _arrays(root[known or name], expected)
                if tuple(array.shape for array in arrays) != expected:
                    held = _and(array.shape for array in arrays)
                    raise DataError(f"{path}: {name} holds {held}, {backbone.title} has {_and(expected)}")
                weights[name] = arrays
    except (OSError, KeyError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path}: not a Keras weights file of {backbone.title} without its top ({error})"
        ) from error
    return weights


def _in_order(root: Any) -> list[str]:
    """The groups of an older file that hold arrays, in the order of the model that wrote it."""
    names = [name.decode() if isinstance(name, bytes) else name for name in root.attrs.get("layer_names", ())]
    return [name for name in names if len(root[name].attrs.get("weight_names", ()))]


def _arrays(group: Any, expected: tuple[tuple[int, ...], ...]) -> list[np.ndarray]:
    """A layer's arrays in Keras's order."""
    import h5py

    arrays: dict[str, np.ndarray] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            arrays[name.rsplit("/", 1)[-1].split(":")[0]] = item[()]

    group.visititems(visit)
    count = len(expected)
    if len(arrays) != count:
        wanted = {1: "a kernel was", 2: "a kernel and a bias were"}.get(count, f"{count} were")
        raise ValueError(f"{group.name} holds {len(arrays)} arrays, {wanted} expected")
    if count <= 2:
        return sorted(arrays.values(), key=lambda array: -array.ndim)
    names = [str(i) for i in range(count)] if "0" in arrays else STATISTICS
    return [arrays[name] for name in names]


def _and(shapes: Any) -> str:
    return " and ".join(str(tuple(shape)) for shape in shapes)
