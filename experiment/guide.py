"""The last lines of every command's help: an example, and the page of the guide that says more."""

from __future__ import annotations

# By the command's last word: what follows it in an example, and the page.
HELP = {
    "train": ("--data.name folder --data.root photos --training.epochs 20", "train"),
    "tune": ("--config configs/tune.yaml --trials 20", "tune"),
    "predict": ("runs/mine photo.jpg", "export"),
    "export": ("runs/mine", "export"),
    "serve": ("runs/mine", "export"),
    "runs": ("runs/a runs/b", "track"),
    "promote": ("runs/mine", "track"),
    "shards": ("parquet --data.name folder --data.root photos", "data"),
    "experiment": ("runs", "track"),
    "parity": ("--keras nets:build --torch ports:build --input-shape 32 32 3", "prove"),
    "accuracy": ("--out runs/accuracy", "ladder"),
    "applications": ("--pairs resnet50", "prove"),
    "ablation": ("--out runs/ablation", "differences"),
    "convert": ("runs/mine --to lightning --out runs/twin", "export"),
    "converters": ("--out runs/converters", "migrate"),
    "demo": ("runs/keras-digits runs/lightning-digits", "prove"),
    "doctor": ("--torch ports:build --input-shape 32 32 3", "differences"),
    "emitter": ("--rules Conv2D --out runs/emitter", "migrate"),
    "exports": ("runs/keras-digits runs/lightning-digits", "export"),
    "families": ("--families ResNet50 --out runs/families", "migrate"),
    "imbalance": ("--out runs/imbalance", "data"),
    "migrate": ("nets:build --out migrated", "migrate"),
    "report": ("parity/reports/cpu", "ladder"),
    "sensitivity": ("--out runs/sensitivity", "differences"),
    "update": ("--out runs/update", "update"),
    "gpu": ("--out runs/gpu", "scale"),
    "compare": ("a/results.json b/results.json", "reports"),
}


def ending(prog: str) -> str:
    """The last lines of a command's help; "" for a command that is no user's."""
    room, _, word = prog.replace(".", " ").rpartition(" ")
    suite = room == "benchmarks" and word not in ("compare", "gpu")
    if (word not in HELP and not suite) or room.endswith(("trace", "bench")):
        return ""
    example, page = ("--quick", "reports") if suite else HELP[word]
    return f"\nexample: python -m {prog} {example}".rstrip() + f"\nguide: docs/{page}.md\n"
