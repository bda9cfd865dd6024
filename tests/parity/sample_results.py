"""Made-up results of the suite, with the sizes and the shapes of real ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import sample_seeds

CNN = [
    "rescaling",
    *(f"{kind}{n}" for n in (1, 2) for kind in ("conv", "relu", "bn")),
    "pool1",
    "dropout1",
    *(f"{kind}{n}" for n in (3, 4) for kind in ("conv", "relu", "bn")),
    "pool2",
    "dropout2",
    "flatten",
    "dense",
    "relu_dense",
    "bn_dense",
    "dropout_dense",
    "logits",
    "softmax",
]
VGG16 = [
    "caffe_preprocess",
    *(
        f"block{block}_{layer}"
        for block, convolutions in enumerate((2, 2, 3, 3, 3), 1)
        for layer in (*(f"{kind}{n + 1}" for n in range(convolutions) for kind in ("conv", "relu")), "pool")
    ),
    "flatten",
    "dense",
    "logits",
    "softmax",
]
LAYERS = {"cnn": CNN, "vgg16": VGG16}
COMBINATIONS = [
    ("tensorflow", "float64"),
    ("tensorflow", "float32"),
    ("jax", "float32"),
    ("torch", "float32"),
]
REASONS = {
    "structure": "Kinds, order, names, shapes and counts are either equal or not.",
    "initial weights": "Both sides copy the same draw: not one bit may differ.",
    "preprocessing": "One multiplication a pixel: a rounding or two.",
    "augmentation": "Bilinear weights from a 3×3 product of matrices: some dozen roundings a pixel.",
    "forward": "Rounding grows with the depth; sums of up to 4,608 products.",
    "loss and gradients": "As forward, and back again; relative to the largest entry.",
    "one step": "Adam divides by the root of small second moments.",
    "trajectory": "Rounding, carried through some hundred steps of Adam and BatchNorm.",
    "whole run": "Both real train commands; a missed alignment shows at 1e-6 within a few steps.",
}
LADDER = [name for name in REASONS if name != "whole run"]
ALIGNMENTS = {
    "bn_momentum": ("BatchNorm’s momentum is torch’s 0.1", "one step"),
    "bn_epsilon": ("BatchNorm’s epsilon is torch’s 1e-5", "forward"),
    "bessel": ("the moving variance holds the unbiased variance", "one step"),
    "adam_epsilon": ("Adam’s epsilon stands after the bias correction", "one step"),
    "beta_rounding": ("Adam’s betas are not rounded to float32", "one step"),
    "flatten_order": ("flatten runs channel, height, width", "forward"),
    "initial_weights": ("Kaiming-uniform initial weights", "initial weights"),
    "bgr": ("VGG16 gets RGB", "preprocessing"),
    "mean_subtraction": ("ImageNet’s means are not subtracted", "preprocessing"),
    "zoom": ("a zoom above 1 zooms in", "augmentation"),
    "shifts": ("width and height shift in the order of their names", "augmentation"),
    "flip_order": ("the flip comes before the affine map", "augmentation"),
    "last_batch": ("the last partial batch is dropped", "whole run"),
    "shuffle": ("each side shuffles for itself", "whole run"),
    "l2": ("weight_decay in place of L2", "loss and gradients"),
    "plateau": ("ReduceLROnPlateau acts one epoch late", "whole run"),
}


def results() -> dict[str, Any]:
    """A passed run of the whole suite on a CPU, as results.json holds it."""
    draw = np.random.default_rng(7)
    return {
        "verdict": "passed",
        "command": "python -m parity --out parity/reports/cpu",
        "utc": "2026-11-23T10:00:00+00:00",
        "seconds": 312.4,
        "rungs": rungs(draw),
        "reasons": REASONS,
        "diagnoses": [],
        "trajectories": [
            trajectory("cnn, digits, 322 steps", 322),
            trajectory("vgg16, digits, 300 steps", 300),
        ],
        "layers": [layers(draw, pair, *one) for pair in LAYERS for one in COMBINATIONS],
        "mutations": [
            {
                "name": name,
                "what": what,
                "rung": rung,
                "caught": True,
                "diagnosed": True,
                "failed": [rung, "whole run"] if rung != "whole run" else [rung],
                "diagnosis": what,
            }
            for name, (what, rung) in ALIGNMENTS.items()
        ],
        "ablation": sample_seeds.ablation(draw),
        "accuracy": None,
        "environment": {"keras": environment("keras"), "lightning": environment("lightning")},
    }


def rungs(draw: np.random.Generator) -> list[dict[str, Any]]:
    """Pair by pair and backend by backend, as the suite climbs; then whole runs, and what needs a GPU."""
    found = []
    for pair in LAYERS:
        for backend, precision in COMBINATIONS:
            found += [rung(draw, name, pair, backend, precision) for name in LADDER]
            if pair == "cnn":
                found.append(rung(draw, "augmentation", "ImageDataGenerator", backend, precision))
    for run in ("cnn, digits", "vgg16's head, digits"):
        found.append(rung(draw, "whole run", run, "tensorflow", "float64"))
    found += [rung(draw, name, pair, "all", "float64", "cuda") for pair in LAYERS for name in LADDER]
    return found


def rung(
    draw: np.random.Generator, name: str, pair: str, backend: str, precision: str, device: str = "cpu"
) -> dict[str, Any]:
    checks, skipped = [], device == "cuda"
    unit, tolerance = (1e-16, 1e-12) if precision == "float64" else (6e-8, 1e-5)
    if skipped:
        pass
    elif name in ("structure", "initial weights"):
        counts = ("parameters, total", "parameters, trainable") if name == "structure" else ()
        checks = [check(quantity, 0.0, 0.0) for quantity in (*counts, *LAYERS[pair])]
    elif name in ("forward", "loss and gradients"):
        for kind in ("eval", "train") if name == "forward" else ("gradient",):
            for depth, layer in enumerate(LAYERS[pair]):
                size = 0.0 if depth < 2 else unit * (1 + depth) * draw.lognormal(0, 0.6)
                checks.append(check(f"{layer} ({kind})", size, tolerance))
    elif name in ("trajectory", "whole run"):
        bounds = {"step loss": (3.9e-12, 1e-9), "learning_rate": (0.0, 0.0), "predictions": (5.7e-12, 1e-8)}
        checks = [check(quantity, *both) for quantity, both in bounds.items()]
    else:
        quantities = (
            "kernel",
            "momentums of kernel",
            "velocities of kernel",
            "moving_variance",
        )
        checks = [check(quantity, unit * draw.lognormal(3, 1), tolerance * 10) for quantity in quantities]
    return {
        "name": name,
        "pair": pair,
        "backend": backend,
        "precision": precision,
        "device": device,
        "checks": checks,
        "note": "unproven on CUDA: no GPU here" if skipped else "",
        "seconds": 0.0 if skipped else float(draw.uniform(0.4, 9)),
        "skipped": skipped,
        "status": "skipped" if skipped else "passed",
    }


def check(quantity: str, largest: float, tolerance: float, where: str = "") -> dict[str, Any]:
    return {
        "quantity": quantity,
        "largest": largest,
        "tolerance": tolerance,
        "where": where,
        "passed": bool(largest <= tolerance),
    }


def trajectory(name: str, steps: int) -> dict[str, Any]:
    """A noisy decay; the difference grows exponentially from exactly 0 to 4e-12."""
    draw = np.random.default_rng(steps)
    step = np.arange(steps)
    losses = 0.45 + 2.2 * np.exp(-step / (steps / 4)) + draw.normal(0, 0.05, steps)
    gaps = 10 ** (-16 + 4.4 * step / steps) * draw.normal(0, 1, steps)
    gaps[: steps // 20] = 0
    rates = np.select([step < 0.45 * steps, step < 0.73 * steps], [3e-4, 2.4e-4], 1.92e-4)
    return {
        "name": name,
        "keras": losses.tolist(),
        "lightning": (losses + gaps).tolist(),
        "tolerance": 1e-9,
        "learning_rate": rates.tolist(),
    }


def layers(draw: np.random.Generator, pair: str, backend: str, precision: str) -> dict[str, Any]:
    names = LAYERS[pair]
    unit, tolerance = (1e-16, 1e-12) if precision == "float64" else (6e-8, 1e-5)
    sizes = unit * np.arange(1, len(names) + 1)[:, None] * draw.lognormal(0, 0.5, (len(names), 3))
    sizes[:2] = 0
    weighted = [name.startswith(("conv", "bn", "dense", "logits")) or "_conv" in name for name in names]
    return {
        "pair": pair,
        "backend": backend,
        "precision": precision,
        "tolerance": tolerance,
        "names": names,
        "eval": sizes[:, 0].tolist(),
        "train": sizes[:, 1].tolist(),
        "gradient": [float(size) if has else None for size, has in zip(sizes[:, 2], weighted, strict=True)],
    }


def environment(side: str) -> dict[str, Any]:
    return {
        "framework": side,
        "device": "cpu",
        "threads": 2,
        "cpu": "AMD EPYC",
        "cores": 2,
        "python": "3.11.7",
        "platform": "Linux-6.18-x86_64-with-glibc2.36",
        "versions": {"keras": "3.15.1", "tensorflow-cpu": "2.20.0", "torch": "2.15.0", "lightning": "2.6.6"},
        "git_revision": "e412d54413f6df5d8b7e2a57004929ad3b0cc92c",
        "seed": 1,
        "data": {
            "name": "digits",
            "sha256": "c211c25063117f08692f032f9969e77621a2cd0bfc78726924f33bd48990cfcf",
            "note": None,
            "class_names": [str(i) for i in range(10)],
            "images": {"train": 630, "validation": 70, "test": 360},
        },
        "utc": "2026-11-23T09:51:00+00:00" if side == "keras" else "2026-11-23T09:50:00+00:00",
        **({"backend": "tensorflow"} if side == "keras" else {}),
    }


def failed() -> dict[str, Any]:
    """The same with Bessel's correction left in: one step fails on bn_dense, and the cause is named."""
    values = results()
    values["verdict"] = "failed"
    for one in values["rungs"]:
        if (
            one["name"] == "one step"
            and one["pair"] == "cnn"
            and one["precision"] == "float64"
            and one["checks"]
        ):
            one["checks"][-1] = check("moving_variance", 2.3e-4, 1e-11, "first beyond it at (0,) of bn_dense")
            one["status"] = "failed"
    values["diagnoses"] = [
        {
            "pair": "cnn",
            "backend": "tensorflow",
            "precision": "float64",
            "rung": "one step",
            "layer": "bn_dense",
            "cause": "the moving variance holds the unbiased batch variance (Bessel’s correction)",
            "evidence": "moving variance’s step is 1.0159 times Keras’s; n/(n-1) = 1.0159",
        }
    ]
    values["layers"][0]["train"][-3:] = [2.3e-4, 4.1e-4, float("nan")]
    run = values["trajectories"][0]
    run["lightning"] = [loss * (1 + 1e-5 * max(i - 20, 0)) for i, loss in enumerate(run["keras"])]
    run["lightning"][300:] = [float("nan")] * 22
    values["mutations"][3] |= {"diagnosed": False, "diagnosis": None}
    values["mutations"][7] |= {"caught": False, "diagnosed": False, "failed": [], "diagnosis": None}
    return values
