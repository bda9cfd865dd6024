"""Made-up results of the studies over seeds: ablation and accuracy."""

from __future__ import annotations

from typing import Any

import numpy as np


def ablation(draw: np.random.Generator) -> dict[str, Any]:
    rows = [
        ("all aligned", "nothing: every alignment is on", None, 3.9e-12, 0.0),
        ("beta rounding", "Adam’s betas in float64", 4, 2.1e-3, 0.0),
        ("Adam’s epsilon", "1e-8, after the bias correction", 1, 6.4e-2, -0.001),
        ("Bessel’s correction", "the unbiased variance in the moving variance", 21, 5.9e-2, 0.001),
        ("BatchNorm’s momentum", "0.9 in place of 0.99", 21, 3.1e-2, 0.004),
        ("BatchNorm’s epsilon", "1e-5 in place of 1e-3", 1, 8.8e-2, 0.002),
        ("initial weights", "Kaiming uniform, uniform biases", 1, 2.7e-1, -0.006),
        ("plateau’s patience", "acts one epoch later", 169, 4.4e-3, 0.001),
        ("everything", "torch’s defaults throughout", 1, 4.0e-1, -0.012),
    ]
    return {
        "setup": "cnn, digits, float64, learning rate 3e-4, 300 steps; accuracy over 5 seeds",
        "threshold": 1e-6,
        "rows": [
            {
                "name": name,
                "what": what,
                "first_step": first,
                "loss_difference": size,
                "final_loss": 0.41 + size / 3,
                "accuracies": np.clip(0.962 + shift + draw.normal(0, 0.005, 5), 0, 1).round(4).tolist(),
                "mean_difference": shift,
            }
            for name, what, first, size, shift in rows
        ],
    }


def accuracy(seeds: int = 10) -> dict[str, Any]:
    """accuracy.json of two sides that are equivalent."""
    draw = np.random.default_rng(3)
    base = 0.962 + draw.normal(0, 0.004, seeds)
    samples = {
        (side, masks): (base + draw.normal(0, 0.003, seeds)).round(4)
        for side in ("keras", "lightning")
        for masks in ("own", "shared")
    }
    pairs = {
        "frameworks": (("keras", "own"), ("lightning", "own")),
        "keras itself": (("keras", "own"), ("keras", "shared")),
        "lightning itself": (("lightning", "own"), ("lightning", "shared")),
    }
    return {
        "verdict": "equivalent",
        "statement": "Equivalent: over 10 seeds the mean test accuracies differ by less than 1 pp.",
        "notes": ["One test split of 360 images; seeds 1 to 10, chosen before."],
        "command": "python -m parity accuracy --seeds 10",
        "margin": 0.01,
        "alpha": 0.05,
        "seeds": list(range(1, seeds + 1)),
        "test_images": 360,
        "sides": {
            side: {masks: summary(samples[side, masks]) for masks in ("own", "shared")}
            for side in ("keras", "lightning")
        },
        "comparisons": [
            comparison(name, samples[first], samples[second]) for name, (first, second) in pairs.items()
        ],
    }


def summary(sample: np.ndarray) -> dict[str, Any]:
    return {"accuracies": sample.tolist(), "mean": float(sample.mean()), "sd": float(sample.std(ddof=1))}


def comparison(name: str, first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    differences = second - first
    mean, half = float(differences.mean()), 1.833 * float(differences.std(ddof=1)) / len(differences) ** 0.5
    return {
        "name": name,
        "what": "same seed, other dropout masks",
        "differences": differences.tolist(),
        "difference": mean,
        "ci_low": mean - half,
        "ci_high": mean + half,
        "p": 3.1e-5,
        "power": 0.998,
        "needed_seeds": 5,
        "verdict": "equivalent",
        "disagreement": {"mean": 0.021, "first_only": 31, "second_only": 27},
    }
