"""python -m lightning_impl.bench.one_step OUT TOOL MODULE: what one step makes of a converted model.

For `parity converters`. MODULE is a Python file with `build()` (a package of `parity migrate`) or `Model`
(what pnnx writes). Writes OUT/TOOL.json: the largest differences of its outputs from those in
OUT/keras.npz, `before` and `after` one step of SGD on the crossentropy; without dropout.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

RATE = 0.01


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    folder, tool, path = sys.argv[1:] if argv is None else argv
    out, file = Path(folder), Path(path).resolve()
    network, own = _loaded(file)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    with np.load(out / "keras.npz") as arrays:
        keras = dict(arrays)
    x, y = torch.from_numpy(keras["x"]), torch.from_numpy(keras["y"])
    x = x.movedim(-1, 1).contiguous() if own and x.dim() == 4 else x
    found = {"before": _apart(_probabilities(network, x, own), keras["before"])}
    network.train()
    outputs = network(x)
    loss = F.cross_entropy(outputs, y) if own else F.nll_loss(outputs.log(), y)
    loss.backward()
    torch.optim.SGD(network.parameters(), RATE).step()
    found["after"] = _apart(_probabilities(network, x, own), keras["after"])
    (out / f"{tool}.json").write_text(json.dumps(found))
    return 0


def _loaded(file: Path) -> tuple[nn.Module, bool]:
    """The network, and whether it is a migrated package: these give logits of images channels first."""
    sys.path.insert(0, str(file.parent.parent))
    os.chdir(file.parent)  # pnnx's module reads its weights from where it runs
    spec = importlib.util.spec_from_file_location(f"{file.parent.name}.{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    if (file.parent / "__init__.py").is_file():
        importlib.import_module(file.parent.name)
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    own = hasattr(module, "build")
    return (module.build() if own else module.Model()), own


@torch.no_grad()
def _probabilities(network: nn.Module, x: Tensor, own: bool) -> np.ndarray:
    outputs = network.eval()(x)
    return (outputs.softmax(-1) if own else outputs).numpy()


def _apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours - theirs).max())


if __name__ == "__main__":
    sys.exit(main())
