"""The layout of a data set's folders: its classes, and its splits."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from experiment.errors import DataError
from experiment.system.names import printable

SPLITS = {
    "training": {"train", "training", "trainval"},
    "validation": {"val", "valid", "validation", "dev"},
    "test": {"test", "testing", "eval", "evaluation"},
    "unlabelled": {"pred", "predict", "prediction", "predictions", "unlabelled", "unlabeled"},
}
ROLES = {word: role for role, words in SPLITS.items() for word in words}
# What a name may hold beside the word that names the split.
FILLERS = (
    "dataset",
    "data",
    "folder",
    "images",
    "image",
    "imgs",
    "img",
    "photos",
    "pictures",
    "set",
    "split",
)
MAC_COPY = "__MACOSX"  # what macOS adds to its archives

IsImage = Callable[[str], bool]  # of a file's name


@dataclass(frozen=True)
class Layout:
    """The places of the class folders of each split."""

    training: Path
    validation: Path | None
    test: Path | None  # None: still to be divided off the training images
    folders: dict[str, str | None]  # split -> its folder below the root; empty where the root holds classes
    ignored: list[str]  # folders beside the splits
    note: str | None  # all of it in a line, for the user


def subfolders(folder: Path) -> list[str]:
    """The names of the folders in a folder, sorted, without hidden ones."""
    return sorted(
        p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".") and p.name != MAC_COPY
    )


def role(name: str) -> str | None:
    """The split that a folder's name speaks of, if any: seg_train, Testing, "Validation Set", val2017."""
    found = _parts(name)
    return found[0] if found else None


def _parts(name: str) -> tuple[str, tuple[str, ...]] | None:
    """The split that a name speaks of, and the words before that, which are the data set's own."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).casefold()
    joined = re.sub(r"\btrain[\W_]+val\b", "trainval", spaced.replace("_", " "))
    words = [_bare(word) for word in re.findall(r"[^\W\d_]+", joined)]
    at = [i for i, word in enumerate(words) if word in ROLES]
    if len(at) != 1 or any(words[at[0] + 1 :]):
        return None
    return ROLES[words[at[0]]], tuple(filter(None, words[: at[0]]))


def _bare(word: str) -> str:
    """A word without fillers: trainset -> train; nothing is left of a filler."""
    for filler in FILLERS:
        if word == filler or (word.endswith(filler) and word.removesuffix(filler) in ROLES):
            return word.removesuffix(filler)
    return word


def find(root: Path, validation: str, is_image: IsImage) -> Layout:
    """Find the classes and the splits among the folders below `root`.

    validation: `auto`, `split` or `test`, as `data.validation`: with the latter two, a validation folder is
    the test split where there is none, and ignored otherwise. Raises DataError where it cannot be told.
    """
    if not root.is_dir():
        raise DataError(f"data.root {root}: there is no such directory")
    place = _unpacked(root, is_image)
    names = subfolders(place)
    parts = {name: found for name in names if (found := _parts(name))}
    holding = {name: folder for name in parts if (folder := _classes(place / name, is_image))}
    splits = {name: parts[name][0] for name in holding if parts[name][0] != "unlabelled"}
    if not _divided(place, names, parts, splits, is_image):
        taken = [name for name in parts if not parts[name][1]]
        said = [f"{_listed(taken)} taken for {'a class' if len(taken) == 1 else 'classes'}"] if taken else []
        inner = {tuple(subfolders(place / name)) for name in names}
        if len(names) > 1 and len(inner) == 1 and (each := list(inner.pop())):
            said.append(f"each class folder holds {_listed(each)}: what is in them is taken together")
        return Layout(place, None, None, {}, [], "; ".join(said) or None)

    chosen: dict[str, str] = {}
    for name, split in splits.items():
        if split in chosen:
            raise DataError(f"{place}: {chosen[split]}/ and {name}/ both name the {split} split: leave one")
        chosen[split] = name
    spare = None
    if validation != "auto" and "validation" in chosen:
        spare = chosen.pop("validation")
        chosen.setdefault("test", spare)
    paths = {split: holding[name] for split, name in chosen.items()}
    folders: dict[str, str | None] = {
        split: paths[split].relative_to(root).as_posix() if split in paths else None
        for split in ("training", "validation", "test")
    }
    said = [f"{printable(folder)}/ is the {split} split" for split, folder in folders.items() if folder]
    if "test" not in chosen:
        said.append(f"a share of {printable(chosen['training'])}/ is held out as the test split")
    ignored = [name for name in names if name not in chosen.values()]
    reasons = {spare: f"data.validation {validation}"} | {
        name: "no class folders in it" for name in parts if name not in holding
    }
    for reason in dict.fromkeys(reasons.get(name, "") for name in ignored):
        because = [name for name in ignored if reasons.get(name, "") == reason]
        said.append(f"{_listed(because)} ignored" + (f" ({reason})" if reason else ""))
    return Layout(
        paths["training"], paths.get("validation"), paths.get("test"), folders, ignored, ", ".join(said)
    )


def _unpacked(root: Path, is_image: IsImage) -> Path:
    """The folder of splits that an archive left in a folder of its own, or in two; else the root."""
    folder = root
    for _ in range(3):
        names = subfolders(folder)
        if any(role(name) == "training" and _classes(folder / name, is_image) for name in names):
            return folder
        if len(names) != 1 or role(names[0]) is not None or _has_images(folder, is_image):
            return root
        folder = folder / names[0]
    return root


def _divided(
    place: Path,
    names: list[str],
    parts: dict[str, tuple[str, tuple[str, ...]]],
    splits: dict[str, str],
    is_image: IsImage,
) -> bool:
    """True where `place` holds splits, and not classes; raises DataError where it cannot be told.

    splits: of the folders that are named as splits and hold class folders, which split each names.
    """
    classes = [name for name in names if name not in parts]
    kinds = set(splits.values())
    if "training" in kinds and len(kinds) > 1:
        return True
    if "training" in kinds:
        beside = [name for name in classes if _has_images(place / name, is_image, deep=True)]
        own = [name for name, split in splits.items() if split == "training"]
        if not beside:
            return True
        # A class may be called "train", with trucks beside it, and a class folder may nest.
        if all(_has_images(place / name, is_image) for name in own):
            return False
        raise DataError(
            f"{place}: is {own[0]}/ the training split, or a class like {_listed(beside)}? If a split, move "
            f"those elsewhere; if a class, move every class folder into one folder train/"
        )
    for name in splits:
        if both := sorted(set(subfolders(place / name)) & set(classes)):
            raise DataError(
                f"{place}: {name}/ holds {_listed(both)}, which stand beside it, too: "
                "move the class folders that are for training into one folder train/"
            )
    own_words = {words for _, words in parts.values()}
    if not classes and not (len(own_words) > 1 and () not in own_words):
        has = _listed(names) or "no folders"
        raise DataError(f"{place} has {has}: it needs class folders, or train/ with class folders in it")
    return False


def _classes(folder: Path, is_image: IsImage) -> Path | None:
    """The folder of class folders: this one, or the one that alone lies in it, as in seg_train/seg_train."""
    inner = subfolders(folder)
    if len(inner) == 1 and not _has_images(folder, is_image):
        found = _parts(inner[0])
        alike = inner[0] == folder.name or (found is not None and found[0] == role(folder.name))
        if alike or not any(map(_bare, re.findall(r"[^\W\d_]+", inner[0].casefold()))):
            return folder / inner[0] if subfolders(folder / inner[0]) else None
    return folder if inner else None


def _has_images(folder: Path, is_image: IsImage, deep: bool = False) -> bool:
    for _, folders, files in os.walk(folder):
        if any(is_image(name) for name in files if not name.startswith(".")):
            return True
        folders[:] = [name for name in folders if deep and not name.startswith(".")]
    return False


def _listed(names: list[str]) -> str:
    shown = [f"{printable(name)}/" for name in names[:10]]
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(shown) + more
