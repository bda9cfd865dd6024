"""Audit of a data set's splits: images that lie in two of them, classes with too few."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from experiment.data.dataset import Dataset, Split
from experiment.evaluation.metrics import shorten


def identical(dataset: Dataset) -> dict[str, int]:
    """Numbers of images of one split that are, pixel for pixel, in another, too: `test_in_train` and so on.

    A validation split that is the test split is left out.
    """
    if dataset.digests is None:
        return {}
    found = {
        split: dataset.digests[getattr(dataset, split).indices] for split in ("train", "validation", "test")
    }
    pairs = [("test", "train")]
    if not _same(dataset.validation, dataset.test):
        pairs += [("validation", "train"), ("test", "validation")]
    return {f"{one}_in_{other}": int(np.isin(found[one], found[other]).sum()) for one, other in pairs}


def remarks(dataset: Dataset, updated: bool = False) -> list[str]:
    """Remarks on the splits for the user, a sentence each.

    updated: whether it is a warm start's, whose earlier classes may go untrained.
    """
    said = []
    for pair, count in identical(dataset).items():
        one, _, other = pair.partition("_in_")
        if count:
            total, what = len(getattr(dataset, one)), {"train": "training"}.get(other, other)
            said.append(
                f"{count} of {total} {one} images lie in the {what} split, too, byte for byte: "
                f"the {one} accuracy is too high"
            )
    counts = {
        split: np.bincount(getattr(dataset, split).labels, minlength=len(dataset.class_names))
        for split in ("train", "validation", "test")
    }
    train, test = counts["train"], counts["test"]
    same = _same(dataset.validation, dataset.test)
    single = (train == 1) & (test + counts["validation"] == 0)
    follows = "neither validated nor tested" if not same else "not tested"
    if single.any():
        said.append(f"one image alone of {_names(dataset, single)}: it is trained on and {follows}")
    if (few := (train == 1) & ~single).any():
        said.append(f"one training image alone of {_names(dataset, few)}: hardly enough to learn from")
    if (none := train == 0).any():
        why = "data.replay mixes the earlier run's in" if updated else "it cannot be learned"
        said.append(f"no training images of {_names(dataset, none)}: {why}")
    if not same and (none := (counts["validation"] == 0) & ~single).any():
        said.append(f"no validation images of {_names(dataset, none)}: the best epoch is chosen without")
    if (none := (test == 0) & ~single).any():
        said.append(f"no test images of {_names(dataset, none)}: support 0, scores 0")
    return said


def _same(one: Split, other: Split) -> bool:
    return np.array_equal(one.indices, other.indices)


def _names(dataset: Dataset, which: Sequence[bool] | np.ndarray) -> str:
    names = [shorten(name, 40) for name, wanted in zip(dataset.class_names, which, strict=True) if wanted]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
