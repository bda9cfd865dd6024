"""Growth: the time and the memory that an epoch takes for more and more images, which lie on disk."""

from __future__ import annotations

import argparse
import shutil
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import drawing, throughput
from benchmarks.collect import Cell, Sample
from benchmarks.suite import Measured, digits
from benchmarks.throughput import Way
from experiment.data.table import write_file

SIZES = (10_000, 50_000, 500_000, 2_000_000)
QUICK_SIZES = (2_000, 10_000)
SHARD, TEST, SIDE = 10_000, 1_000, 32


class Suite(throughput.Suite):
    """The suite's cells, and how one is measured."""

    title = "Growth: an epoch of ever more images"
    notes = (
        "Synthetic images of 32 pixels in Parquet files, decoded once into an array on disk, read in "
        "shuffled batches and augmented as `train` does, without a model, whose step does not know how many "
        "images there are. The second epoch of a process counts, with the files in the page cache. Linear: "
        "microseconds an image stay; flat: so does peak memory, but for the 8-byte labels, rows and order of "
        "the images (24 MB a million)."
    )
    quantity, higher_is_better = "µs an image", False
    ways = {  # noqa: RUF012
        "Lightning": Way("lightning_impl.bench.baselines", ("--mode=input",)),
        "Keras on TensorFlow": Way(
            "keras_impl.bench.baselines", ("--mode=input", "--backend=tensorflow"), "tensorflow"
        ),
    }
    quick = tuple(ways)

    def __init__(self, arguments: argparse.Namespace, out: Path) -> None:
        super().__init__(arguments, out)
        self.epochs = 2
        self.sizes = QUICK_SIZES if arguments.quick else tuple(arguments.sizes)
        self.work = out / "work"
        shutil.rmtree(self.work, ignore_errors=True)
        self._make(max(self.sizes))

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        throughput.Suite.arguments(parser)
        parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="how many images")

    @property
    def cells(self) -> list[Cell]:
        return [
            Cell(f"{size:,} images", {"side": name, "batch": batch, "precision": precision})
            for name in self.names
            for batch in self.batches
            for precision in self.precisions
            for size in self.sizes
        ]

    def measure(self, cell: Cell) -> Sample:
        size = int(cell.name.split()[0].replace(",", ""))
        data = ["--data.name=parquet", f"--data.root={self._of(size)}", "--data.validation=test"]
        data.append(f"--data.cache={self.work / 'cache'}")
        _, *chosen = self.train_options(cell.setting)  # no limit
        return self.sample(self.ways[cell.setting["side"]], [*chosen, *data])

    @staticmethod
    def value(sample: Sample) -> float:
        return 1e6 / statistics.median(sample["windows"])

    def columns(self, cell: Measured) -> dict[str, str]:
        size = int(cell["name"].split()[0].replace(",", ""))
        middle = statistics.median(self.value(sample) for sample in cell["samples"])
        return {
            "an epoch, s": digits(middle * size / 1e6),
            "peak, MiB": digits(statistics.median(sample["peak_mib"] for sample in cell["samples"])),
            "the images, MiB": digits(size * SIDE * SIDE * 3 / 2**20),
        }

    def figures(self, out: Path, values: dict[str, Any]) -> list[str]:
        lines: dict[str, dict[float, list[float]]] = {}
        for cell in values["cells"]:
            size = int(cell["name"].split()[0].replace(",", ""))
            peaks = [sample["peak_mib"] for sample in cell["samples"]]
            lines.setdefault(cell["setting"]["side"], {})[size] = peaks
        drawing.scaling(out / "memory.png", "Peak memory of a process", "images", "MiB", lines)
        return ["memory.png"]

    def close(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)

    def _make(self, count: int) -> None:
        """Files of random images, `count` of them."""
        folder, random = self.work / "all", np.random.default_rng(0)
        folder.mkdir(parents=True)
        names = [f"class {i}" for i in range(10)]
        for split, images in (("test", TEST), ("train", count)):
            for number, start in enumerate(range(0, images, SHARD)):
                shape = (min(SHARD, images - start), SIDE, SIDE, 3)
                pixels, labels = random.integers(0, 256, shape, np.uint8), random.integers(10, size=shape[0])
                write_file(folder / f"{split}-{number:05}.parquet", pixels, labels, names)

    def _of(self, size: int) -> Path:
        """A folder of the first files, `size` images in all."""
        folder = self.work / str(size)
        if folder.exists():
            return folder
        folder.mkdir()
        for path in (self.work / "all").iterdir():
            if path.stem.startswith("train") and int(path.stem.split("-")[1]) * SHARD >= size:
                continue
            (folder / path.name).symlink_to(path.resolve())
        return folder
