"""python -m experiment shards OUT: a data set in pieces, for one that is larger than memory.

A folder of shards holds class_names.txt, a name a line, reading.json, how image files were read, and for each
of train and test, and for validation where there is such a split, numbered from 00000,
train-00000-images.npy, (N, S, S, 3) uint8, and train-00000-labels.npy, (N,) integers from 0. Training reads
the rows of each batch where they lie (--data.name shards --data.root OUT): what grows in memory with their
number is their labels, rows, order and digests, 32 bytes an image. Further options are those of train that
choose data: --data.name cifar10.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from experiment import cli
from experiment.data.decoding import Reading
from experiment.data.table import READING, SPLITS, Writer
from experiment.system.files import replacing


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = cli.PlainParser(
        prog="experiment shards",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="a new folder")
    parser.add_argument("--size", type=int, default=10000, help="images of a shard (default 10000)")
    arguments, data = parser.parse_known_args(argv)
    if arguments.size < 1:
        parser.error("--size must be at least 1")
    if arguments.out.exists() and (not arguments.out.is_dir() or any(arguments.out.iterdir())):
        parser.error(f"{arguments.out} exists: name another folder")
    # No model is trained: one that takes images of any size.
    small = [
        "--gpus=0",
        "--model.filters=[1]",
        "--model.block_dropout=[0]",
        "--model.convolutions_per_block=1",
    ]
    with cli.refusing():
        config = cli.train_request("lightning", [*data, *small]).experiment
    return cli.guarded(lambda: _write(config, arguments.out, arguments.size))


def _write(config: Any, out: Path, size: int) -> int:
    from experiment.data.dataset import load

    dataset = load(config.data, config.seed)
    splits = SPLITS
    if not dataset.own_validation:  # it is held out of the shards, when they are trained on
        dataset = load(config.data.model_copy(update={"validation": "test"}), config.seed)
        splits = ("train", "test")
    out.mkdir(parents=True, exist_ok=True)
    for split in splits:
        rows, writer = getattr(dataset, split), Writer(out, split, size)
        for start in tqdm(range(0, len(rows), size), desc=split, unit="shard", disable=None):
            writer.add(*rows.batch(np.arange(start, min(start + size, len(rows)))))
    reading = Reading(config.data.background, config.data.bits)
    with replacing(out / READING) as path:
        path.write_text(json.dumps(dataclasses.asdict(reading)) + "\n")
    with replacing(out / "class_names.txt") as path:
        path.write_text("".join(f"{name}\n" for name in dataset.class_names), "utf-8")
    counts = [f"{len(getattr(dataset, split))} {split}" for split in splits]
    print(f"{', '.join(counts)} images: --data.name shards --data.root {out}")
    return 0
