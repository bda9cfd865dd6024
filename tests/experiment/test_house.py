"""The rules of the house: who imports whom, and the mirror."""

from __future__ import annotations

import ast
import fnmatch
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("experiment", "keras_impl", "lightning_impl", "parity", "benchmarks")

TORCH = {"torch", "torchvision", "torchmetrics", "lightning", "pytorch_lightning"}
KERAS = {"keras", "tensorflow", "jax"}
SIDES = {"keras_impl", "lightning_impl"}
FORBIDDEN = {
    "experiment": TORCH | KERAS | SIDES | {"parity", "benchmarks"},
    "keras_impl": TORCH | {"lightning_impl", "parity", "benchmarks"},
    "lightning_impl": KERAS | {"keras_impl", "parity", "benchmarks"},
    "parity": TORCH | KERAS | SIDES | {"benchmarks"},
    "benchmarks": TORCH | KERAS | SIDES,
}
BACKENDS = {"tensorflow", "jax", "torch"}  # keras_impl may import these in a function, for one backend

# Files that a reader lays side by side. Other rooms are idiomatic on each side.
MIRRORED = (
    *("model", "backbones", "augment", "dropout", "data", "optimizers", "classifier", "callbacks"),
    *("precision", "checkpoint", "fit", "train", "predict", "runtime", "export", "tune"),
)

# Public names that one side has alone, and functions with (arguments of Keras's | of Lightning's alone); *
# stands for any characters.
DIFFERENCES = {
    "keras augment.as_inputs": "the parameters are an input of Keras's model",
    "augment.augment(inputs | parameters)": "as for as_inputs",
    "lightning augment.build_augment": "only torchvision has stock transforms to choose as well",
    "lightning augment.PerImage": "a v2 transform draws one set of parameters for a whole batch",
    "keras augment.compiled": "torch augments in few operations, none of them compiled",
    "callbacks.build_callbacks(classifier, batches | )": "Lightning's callbacks get them from the Trainer",
    "keras callbacks.Resume": "Keras's callbacks keep no state; Lightning's is in its checkpoint",
    "keras callbacks.learning_rate": "what Keras's own LearningRateScheduler is given",
    "lightning callbacks.seed_devices": "torch has generators of its own for each device",
    "lightning callbacks.LearningRateScheduler": "Keras brings its own",
    "lightning callbacks.WholeFiles": "Keras writes to the path that it is told to",
    "classifier.build_classifier( | class_weights)": "Keras's `fit` takes them",
    "keras classifier.with_augmentation": "Lightning augments in on_after_batch_transfer",
    "keras classifier.compile_model": "configure_optimizers and loss of the LightningModule",
    "keras classifier.use_xla": "torch does not compile",
    "lightning data.EpochOrder": "a PyDataset orders its batches itself, a DataLoader has a sampler",
    "lightning data.Batch": "Keras's batches are what `fit` takes",
    "lightning data.resident": "Keras's models take uint8 images from the host",
    "data.build_data( | device)": "torch is told where to compute",
    "lightning precision.to_float": "Keras's model takes uint8 and channels last",
    "keras export.converter_settings": "TFLite's converter quantises",
    "lightning export.lowest": "TFLite's converter takes the oldest versions itself",
    "lightning export.quantize": "ONNX files are quantised once they are written",
    "lightning export.halved": "ONNX Runtime has no float16 of weights alone",
    "lightning dropout.Dropout": "torch's own is slow on a CPU",
    "lightning fit.build_trainer": "Keras has no Trainer",
    "optimizers.build_optimizer( | parameters)": "Keras's optimizers take them when they are built",
    "lightning optimizers.restore_slots": "Keras's slots are variables to assign",
    "keras precision.convolves_in_bfloat16": "torch computes in bfloat16 on every processor",
    "keras precision.check": "as for convolves_in_bfloat16",
    "lightning precision.use_gpu": "Keras's backends find the GPU themselves",
    "lightning fit.synchronise": "one Keras process has all of a batch",
    "lightning fit.check_shares": "as for synchronise",
    "backbones.*(images | size)": "Keras's layers are called where they are made; torch pads by the size",
    "lightning backbones.*Residual": "keras.applications brings its own",
    "fit.augmented_samples( | data)": "Lightning's DataModule augments",
    "fit.layers( | size)": "a Keras model knows its input's shape",
    "fit.base_features( | device)": "torch is told where to compute",
    "fit.describe( | device)": "torch is told where to compute",
    "model.cnn(l2, dropout | )": "Keras's layers carry both, at their making",
    "model.transfer(l2, dropout | )": "as for cnn",
    "keras model.undrawn": "torch's layers draw in no time",
    "keras model.penalty": "Keras's layers carry l2",
    "keras model.choose_dropout": "Keras's layers cannot be swapped in a built model",
    "lightning model.share_dropout": "torch's can",
    "lightning model.keras_shape": "Keras's kernels have Keras's shape",
    "lightning model.as_keras": "as for keras_shape",
    "lightning model.Probabilities": "Keras's model ends in a softmax itself",
    "lightning model.Rescaling": "Keras brings its own",
    "lightning model.Flip": "Keras has keras.ops.flip",
    "lightning model.Normalization": "Keras brings its own",
}


def files(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imported(node: ast.AST) -> Iterator[str]:
    """Top-level packages of every import below a node, import_module and __import__ included."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Import):
            yield from (alias.name.split(".")[0] for alias in inner.names)
        elif isinstance(inner, ast.ImportFrom) and inner.module and not inner.level:
            yield inner.module.split(".")[0]
        elif isinstance(inner, ast.Call) and ast.unparse(inner.func).endswith(
            ("import_module", "__import__")
        ):
            name = inner.args[0].value if inner.args and isinstance(inner.args[0], ast.Constant) else "?"
            yield str(name).split(".")[0]


def in_functions(module: ast.Module) -> set[str]:
    functions = (n for n in ast.walk(module) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    return set(chain.from_iterable(map(imported, functions)))


def at_import(node: ast.AST) -> set[str]:
    """What is imported when the file itself is."""
    children = (n for n in ast.iter_child_nodes(node) if not isinstance(n, ast.FunctionDef))
    here = set(imported(node)) if isinstance(node, ast.Import | ast.ImportFrom) else set()
    return here.union(*map(at_import, children))


def trespasses(room: str, module: ast.Module) -> set[str]:
    if room != "keras_impl":
        return set(imported(module)) & FORBIDDEN[room]
    return (at_import(module) | (in_functions(module) - BACKENDS)) & FORBIDDEN[room]


def public(path: Path) -> dict[str, list[str] | None]:
    """Public top-level functions with their argument names, and classes, in order."""
    found: dict[str, list[str] | None] = {}
    for node in tree(path).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            given = node.args
            found[node.name] = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            found[node.name] = None
    return found


def sides(stem: str) -> tuple[dict[str, list[str] | None], dict[str, list[str] | None]]:
    return public(ROOT / "keras_impl" / f"{stem}.py"), public(ROOT / "lightning_impl" / f"{stem}.py")


def differences(stem: str) -> Iterator[str]:
    keras, lightning = sides(stem)
    yield from (f"keras {stem}.{one}" for one in keras if one not in lightning)
    yield from (f"lightning {stem}.{one}" for one in lightning if one not in keras)
    for one in keras.keys() & lightning.keys():
        here, there = keras[one] or [], lightning[one] or []
        if here != there:
            alone = [[a for a in x if a not in y] for x, y in ((here, there), (there, here))]
            common = [[a for a in x if a in y] for x, y in ((here, there), (there, here))]
            order = "" if common[0] == common[1] else " in another order"
            yield f"{stem}.{one}({' | '.join(map(', '.join, alone))}){order}"


# === Imports ===


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_imports_what_it_must_not(room: str) -> None:
    found = {str(path.relative_to(ROOT)): trespasses(room, tree(path)) for path in files(room)}
    assert {path: names for path, names in found.items() if names} == {}
    assert found or room in ("parity", "benchmarks")


@pytest.mark.parametrize(
    ("room", "source", "names"),
    [
        ("experiment", "def f():\n    from torch.nn import Linear", {"torch"}),
        ("experiment", "import importlib\nimportlib.import_module('keras.ops')", {"keras"}),
        ("lightning_impl", "if True:\n    import keras", {"keras"}),
        ("keras_impl", "import torch", {"torch"}),
        (
            "keras_impl",
            "class A:\n    try:\n        import torch.nn as nn\n    except ImportError: pass",
            {"torch"},
        ),
        ("keras_impl", "def f():\n    import lightning_impl.fit", {"lightning_impl"}),
        ("keras_impl", "def f():\n    import torch, jax, tensorflow", set()),
        ("parity", "from keras_impl.model import build_model", {"keras_impl"}),
        ("parity", "from . import torch\nimport numpy", set()),
    ],
)
def test_the_reader_of_imports_sees_them(room: str, source: str, names: set[str]) -> None:
    assert trespasses(room, ast.parse(source)) == names


@pytest.mark.parametrize(
    ("side", "argv", "code", "said"),
    [
        ("lightning_impl", ["--training.epochs", "0"], 2, "training.epochs"),
        ("keras_impl", ["--help"], 0, "--training.learning_rate"),
    ],
)
def test_train_answers_without_importing_a_framework(
    side: str, argv: list[str], code: int, said: str
) -> None:
    command = [sys.executable, "-X", "importtime", "-m", f"{side}.train", *argv]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == code
    assert said in done.stdout + done.stderr
    timed = (line for line in done.stderr.splitlines() if line.startswith("import time:"))
    imported = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in timed}
    assert "experiment" in imported
    assert imported.isdisjoint(TORCH | KERAS)


# === The mirror ===


def test_both_sides_have_the_same_families_of_layers() -> None:
    keras, lightning = (
        {path.name for path in files(side) if path.parent.name == "layers"}
        for side in ("keras_impl", "lightning_impl")
    )
    assert keras - lightning == {"fused_batchnorm.py"}
    assert lightning - keras <= {"source.py", "sources.py", "operations.py"}  # what migrate writes


def test_public_names_and_arguments_differ_only_where_they_must() -> None:
    found = set(chain.from_iterable(differences(name) for name in MIRRORED))
    reasons = {pattern: set(fnmatch.filter(found, pattern)) for pattern in DIFFERENCES}
    assert sorted(found.difference(*reasons.values())) == [], "differences without a reason"
    assert [pattern for pattern, met in reasons.items() if not met] == [], "reasons for differences gone"


def test_common_public_names_stand_in_the_same_order() -> None:
    for name in MIRRORED:
        keras, lightning = sides(name)
        assert [one for one in keras if one in lightning] == [one for one in lightning if one in keras], name


def test_no_module_of_the_ground_floor_brings_a_framework_in() -> None:
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "experiment").rglob("[a-z]*.py")
    ]
    code = (
        f"import importlib, sys\nfor name in {names}: importlib.import_module(name)\n"
        "print(sorted({'torch', 'keras', 'tensorflow', 'jax', 'lightning'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
    assert len(names) > 15
