"""python -m experiment shards OUT: a data set as Parquet files, in the layout of Hugging Face's `datasets`.

They hold the images in the configured size, as PNG, for --data.name parquet --data.root OUT, or for
`datasets.load_dataset("parquet", data_dir=OUT)`. Further options are those of train that choose data:
--data.name cifar10.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiment import cli
from experiment.data.table import SPLITS, write_file
from experiment.system.progress import Bar


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = cli.PlainParser(
        prog="experiment shards",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="a new folder")
    parser.add_argument("--size", type=int, default=10000, help="images of a file (default 10000)")
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
    if not dataset.own_validation:  # it is held out when they are trained on
        dataset = load(config.data.model_copy(update={"validation": "test"}), config.seed)
        splits = ("train", "test")
    out.mkdir(parents=True, exist_ok=True)
    for split in splits:
        rows = getattr(dataset, split)
        files = np.split(np.arange(len(rows)), range(size, len(rows), size))
        with Bar(split, len(rows), "images") as bar:
            for number, positions in enumerate(files):
                path = out / f"{split}-{number:05}-of-{len(files):05}.parquet"
                images, labels = rows.batch(positions)
                write_file(path, images, labels, dataset.class_names)
                bar.update(len(positions))
    counts = [f"{len(getattr(dataset, split))} {split}" for split in splits]
    print(f"{', '.join(counts)} images: --data.name parquet --data.root {out}")
    return 0
