"""The rules of the house: who imports whom, and the mirror."""

from __future__ import annotations

import ast
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

# Public names that one side has alone, and functions with (arguments of Keras's | of Lightning's alone).
DIFFERENCES = {
    "keras augment.draw_matrices": "data.py draws the matrices, an input of Keras's model",
    "lightning augment.build_augment": "only torchvision has stock transforms to choose as well",
    "lightning augment.PerImage": "a v2 transform draws one set of parameters for a whole batch",
    "keras augment.compiled": "torch augments in few operations, none of them compiled",
    "lightning augment.sampling": "affine_grid has coordinates of its own",
    "lightning augment.resample": "what of it a CUDA graph can hold",
    "keras trace/augmented.stock_generator": "torchvision's transforms are built by augment.build_augment",
    "keras bench/baselines.bare": "train_on_batch is Keras's",
    "keras bench/baselines.tutorial": "as is ImageDataGenerator",
    "keras bench/baselines.read_tutorial": "as is ImageDataGenerator",
    "lightning bench/baselines.compute": "PyTorch alone",
    "lightning bench/baselines.phases": "Keras's step is one compiled function",
    "lightning bench/baselines.loop": "PyTorch alone",
    "lightning bench/baselines.captured": "a CUDA graph is torch's",
    "lightning bench/baselines.ceilings": "measured once for both",
    "lightning bench/baselines.barebones": "a mode of Lightning's Trainer",
    "callbacks.build_callbacks(classifier, batches | )": "Lightning's callbacks get them from the Trainer",
    "keras callbacks.Resume": "Keras's callbacks keep no state; Lightning's is in its checkpoint",
    "keras callbacks.learning_rate": "what Keras's own LearningRateScheduler is given",
    "lightning callbacks.seed_devices": "torch has generators of its own for each device",
    "lightning callbacks.LearningRateScheduler": "Keras brings its own",
    "lightning callbacks.WholeFiles": "Keras writes to the path that it is told to",
    "keras classifier.with_augmentation": "Lightning augments in on_after_batch_transfer",
    "keras classifier.compile_model": "configure_optimizers and loss of the LightningModule",
    "keras classifier.use_xla": "torch does not compile",
    "lightning data.EpochOrder": "a PyDataset orders its batches itself, a DataLoader has a sampler",
    "lightning data.to_float": "Keras's model takes uint8 and channels last",
    "keras export.converter_settings": "TFLite's converter quantises",
    "lightning export.lowest": "TFLite's converter takes the oldest versions itself",
    "lightning export.quantize": "ONNX files are quantised once they are written",
    "lightning export.halved": "ONNX Runtime has no float16 of weights alone",
    "lightning dropout.Dropout": "torch's own is slow on a CPU",
    "lightning fit.build_trainer": "Keras has no Trainer",
    "keras precision.convolves_in_bfloat16": "torch computes in bfloat16 on every processor",
    "keras precision.check": "as for convolves_in_bfloat16",
    "lightning precision.use_gpu": "Keras's backends find the GPU themselves",
    "lightning fit.synchronise": "one Keras process has all of a batch",
    "lightning fit.check_shares": "as for synchronise",
    "fit.augmented_samples(session | data)": "Lightning's DataModule augments",
    "fit.base_features( | device)": "torch is told where to compute",
    "fit.describe( | device)": "torch is told where to compute",
    "model.cnn(l2, dropout | )": "Keras's layers carry both, at their making",
    "model.transfer(l2, dropout | )": "as for cnn",
    "keras model.undrawn": "torch's layers draw in no time",
    "keras model.penalty": "Keras's layers carry l2",
    "keras model.choose_dropout": "Keras's layers cannot be swapped in a built model",
    "lightning model.share_dropout": "torch's can",
    "keras model.named_layers": "torch has named_modules",
    "lightning model.keras_shape": "Keras's kernels have Keras's shape",
    "lightning model.Rescaling": "Keras brings its own",
    "lightning model.Flip": "Keras has keras.ops.flip",
    "lightning model.Normalization": "Keras brings its own",
    "keras layers/layer_type.own_weights": "a Keras layer lists its own weights by Keras's names",
    "keras layers/layer_type.attributes": "Keras's settings are attributes of Keras's names",
    "lightning layers/layer_type.Call": "torch's layers may be functions",
    "lightning layers/layer_type.own": "torch's names are turned into Keras's",
    "lightning layers/layer_type.each": "torch takes one number for all axes",
    "keras layers/activation.of_function": "Keras's layers end in functions",
    "keras layers/convolution.padding": "Keras's `same` depends on the input's shape",
    "keras layers/convolution.spans": "as for padding",
    "layers/registry.settings(input_shape | )": "Keras's `same` padding depends on the input's shape",
    "lightning layers/registry.of_function": "torch's layers may be functions",
    "keras layers/weight_layout.units": "Keras's SeparableConv2D is two layers in torch",
    "layers/weight_layout.arrays( | rows)": "only torch flattens channel first",
    "lightning layers/weight_layout.keras_layout": "as for arrays",
    "lightning layers/weight_layout.tensors": "Keras's variables have Keras's layout",
    "lightning layers/weight_layout.flat_rows": "only torch flattens channel first",
    "lightning layers/weight_layout.keras_view": "Keras's variables have Keras's layout",
    "lightning layers/weight_layout.load": "weights go from Keras to torch in a trace",
    "keras trace/recorder.is_composite": "torch's modules tell by their children",
    "keras trace/recorder.leaves": "torch has named_modules",
    "lightning trace/recorder.Mark": "torch's tensors have lost their layout: it is followed from layer to "
    "layer",
    "keras layers/layer_type.exact": "TensorFlow rounds Keras's constants to float32",
    "keras layers/layer_type.no_weights": "to Keras a Normalization's constants are variables",
    "keras layers/layer_type.prefixed": "Keras's attention is made of layers",
    "keras layers/shape.pairs": "Keras says one pair, or one for each axis",
    "lightning layers/registry.is_whole": "a subclass in torch may do more than its class",
    "lightning layers/registry.of_parameter": "torch's layers may be parameters of a block",
    "lightning layers/weight_layout.write": "weights go from Keras to torch in a trace",
    "lightning layers/weight_layout.without_ones": "as for write",
    "keras trace/recorder.named_leaves": "torch has named_modules",
    "keras trace/recorder.without_record": "torch's side tells by the parameters that no layer has",
    "lightning trace/recorder.Origin": "torch's functions take parameters, and what is made of them",
    "lightning trace/recorder.in_keras_order": "Keras's arrays are in Keras's order",
    "keras trace/precision.exact_constants": "Keras on TensorFlow rounds constants to float32",
    "keras trace/precision.kept_in_float32": "Keras's layers have a dtype, torch's casts show as they run",
    "lightning trace/precision.WithoutCasts": "as for kept_in_float32",
    "lightning trace/precision.hardsigmoid": "torch's gradient of it rounds a constant to float32",
    "trace/precision.in_one_precision( | casts)": "as for kept_in_float32",
    "keras trace/signature.arrays_of": "torch's outputs are put in Keras's order first",
    "lightning trace/signature.Inputs": "torch's forward takes arguments by place and by name",
    "lightning trace/signature.scan": "the way in which torch's model takes inputs is found by trying",
    "lightning trace/signature.to_float": "Keras's models cast their inputs",
    "lightning trace/signature.to_torch": "Keras's inputs are channels last",
    "keras trace/losses.Loss": "Keras's side draws the targets with the loss it chooses",
    "lightning trace/losses.finished": "Keras's side says what torch's outputs are finished to",
    "trace/losses.loss_of(name, shape, ending, seed, compiled | outputs, targets, terms, endings, "
    "keras_endings)": "Keras's side chooses the loss, torch's follows it",
    "keras trace/command.uncovered": "torch's side finds them with the unused ones",
    "trace/command.count_parameters(model | subject)": "torch's weights are known once the model has run",
    "lightning trace/command.weights": "Keras's stand in target, which needs them",
    "keras trace/target.weights": "as for command.weights",
    "keras trace/target.users_model": "a .keras file is a Keras model",
    "trace/target.users( | seed)": "Keras's users_model takes it",
    "lightning trace/target.hand_over": "weights go from Keras to torch in a trace",
    "keras trace/target.unsettle": "the weights of both sides start in the Keras model",
    "lightning trace/target.built": "the doctor reads torch modules alone",
    "lightning trace/target.configured": "a LightningModule brings its optimizer",
    "lightning trace/target.users_optimizer": "Keras's optimizer is in the compiled model",
    "keras trace/command.gradient": "torch's backward() is one line, Keras's backends have one each",
    "trace/command.of_trained(values | of)": "Keras lists values in its variables' order",
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


def places(side: str) -> set[str]:
    """A side's files by their place in it, such as trace/target.py."""
    return {str(path.relative_to(ROOT / side)) for path in files(side) if path.name != "__init__.py"}


def mirrored() -> list[str]:
    """Names of the files that both sides have."""
    keras, lightning = map(places, ("keras_impl", "lightning_impl"))
    return sorted(keras & lightning)


def sides(name: str) -> tuple[dict[str, list[str] | None], dict[str, list[str] | None]]:
    return public(ROOT / "keras_impl" / name), public(ROOT / "lightning_impl" / name)


def differences(name: str) -> Iterator[str]:
    (keras, lightning), stem = sides(name), name.removesuffix(".py")
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


def test_both_sides_have_the_same_files() -> None:
    keras, lightning = map(places, ("keras_impl", "lightning_impl"))
    assert keras - lightning == {"distribution.py", "layers/fused_batchnorm.py", "tflite_metadata.py"}
    of_torch = {"doctor/defaults.py", "doctor/command.py", "keras_semantics.py", "mutations.py"}
    assert lightning - keras == of_torch | {
        "backbones.py",
        "bench/cuda_graph.py",
        "bench/ceilings.py",
        "bench/setup.py",
    }


def test_public_names_and_arguments_differ_only_where_they_must() -> None:
    found = set(chain.from_iterable(differences(name) for name in mirrored()))
    assert sorted(found - DIFFERENCES.keys()) == [], "differences without a reason"
    assert sorted(DIFFERENCES.keys() - found) == [], "reasons for differences that are gone"


def test_common_public_names_stand_in_the_same_order() -> None:
    for name in mirrored():
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
