"""Writes lightning_module.py: what a Keras model was compiled with, as a LightningModule."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from experiment.protocols.graph import Graph, Layer, Migration, tensors
from experiment.protocols.trace import FURTHER_LOSSES
from experiment.randomness import OF_ROWS
from lightning_impl.layers import weight_layout
from lightning_impl.layers.source import CONSTRAINTS, Value
from lightning_impl.migrate.lowering import Lowered, activity, snake, tensors_of
from lightning_impl.migrate.rendering import _literal
from lightning_impl.migrate.weights import holders

# Losses by Keras's names: torch's call on outputs `{o}` and targets `{t}`, and which of a model's endings they
# are computed without.
SPARSE = ("sparse_categorical_crossentropy", "SparseCategoricalCrossentropy")
CATEGORICAL = ("categorical_crossentropy", "CategoricalCrossentropy")
BINARY = ("binary_crossentropy", "BinaryCrossentropy", "bce")
OTHERS = {
    **dict.fromkeys(("mse", "mean_squared_error", "MeanSquaredError"), "F.mse_loss({o}, {t})"),
    **dict.fromkeys(("mae", "mean_absolute_error", "MeanAbsoluteError"), "F.l1_loss({o}, {t})"),
    **dict.fromkeys(("huber", "Huber"), "F.huber_loss({o}, {t}, delta={delta})"),
}
# Functions of keras_semantics, by all of Keras's names for them: KLDivergence, kl_divergence, kld.
SHORT = {
    "mape": "mean_absolute_percentage_error",
    "msle": "mean_squared_logarithmic_error",
    "kld": "kl_divergence",
}
FURTHER = {name.replace("_", ""): name for name in FURTHER_LOSSES} | SHORT
OPTIMIZERS = {
    "Adam": "Adam",
    "AdamW": "AdamW",
    **{name: name for name in ("SGD", "RMSprop", "Adagrad", "Adadelta", "Adamax", "Nadam", "Lion")},
}
ARGUMENTS = {
    "epsilon": "eps",
    **{name: name for name in ("momentum", "nesterov", "rho", "centered", "amsgrad", "weight_decay")},
    "initial_accumulator_value": "initial_accumulator_value",
}
CALLBACKS = ("Callback", "ModelCheckpoint")
PENALTIES = {"kernel": "kernel", "bias": "bias", "gamma": "gamma", "beta": "beta", "embeddings": "embeddings"}


@dataclass
class Training:
    """A written lightning_module.py, what it takes from keras_semantics, and what it leaves out, in words."""

    text: str = ""
    pieces: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)  # of 256 samples, by output


def endings(migration: Migration, count: int) -> list[tuple[str, ...]]:
    """By output, which of softmax and sigmoid its loss is better computed without."""
    training = migration.training
    if training is None or training["loss"] is None:
        return [("softmax", "sigmoid")] * count
    found: list[tuple[str, ...]] = []
    for loss in _each(training["loss"], output_names(migration.graph, count)):
        kind, settings = _named(loss)
        logits = settings.get("from_logits", False)
        if kind in (*SPARSE, *CATEGORICAL) and not logits:
            found.append(("softmax",))
        elif kind in BINARY and not logits:
            found.append(("sigmoid",))
        else:
            found.append(())
    return found


def output_names(graph: Graph, count: int) -> list[str]:
    """The names that Keras gives a model's outputs: a dictionary's keys, else the layers that give them."""
    if isinstance(graph.outputs, dict) and not isinstance(graph.outputs.get("tensor"), int):
        return list(graph.outputs)
    makers = {tensor: call.layer for call in graph.calls for tensor in call.outputs}
    names = [makers.get(tensor, "") for tensor in tensors(graph.outputs)]
    return names if len(names) == count else [""] * count


def write(migration: Migration, lowered: Lowered, network: nn.Module) -> Training:
    """The LightningModule of a written network."""
    return _Writer(migration, lowered, network).write()


class _Writer:
    def __init__(self, migration: Migration, lowered: Lowered, network: nn.Module) -> None:
        self.migration, self.lowered, self.network = migration, lowered, network
        self.training = migration.training
        self.out = Training()
        self.outputs = list(tensors_of(lowered.outputs))
        self.names = output_names(migration.graph, len(self.outputs))
        self.metrics: dict[str, tuple[str, int]] = {}
        self.missing = ""  # a loss that is not translated

    def write(self) -> Training:
        losses = self.losses()
        self.collect_metrics()
        penalty = self.penalty()
        constraints = self.constraints()
        optimizer = self.optimizer(bool(constraints))
        callbacks = self.callbacks()
        told = (
            "with what the Keras model was compiled with"
            if self.training
            else "with Adam and cross-entropy: the Keras model was not compiled"
        )
        body = [f'class Module(pl.LightningModule):\n    """The network of model.py, trained {told}."""\n']
        body.append(self.initialiser())
        body.append(self.forward_and_loss(losses, penalty))
        body.append(self.steps())
        body.append(optimizer)
        text = "\n\n".join(part.rstrip() for part in body if part)
        text += (
            "\n\n\n"
            + callbacks
            + '\n\n\ndef build() -> Module:\n    """The module with the migrated weights."""\n    return Module()\n'
        )
        for before in (constraints, penalty):
            text = before + "\n\n\n" + text if before else text
        self.out.text = self.head(text) + text
        return self.out

    def head(self, text: str) -> str:
        lines = [
            '"""Trains the network of model.py as Keras trained it."""',
            "",
            "from __future__ import annotations",
            "",
        ]
        lines += [
            "from pathlib import Path",
            "from typing import Any",
            "",
            "import lightning.pytorch as pl",
            "import torch",
        ]
        names = [n for n in CALLBACKS if re.search(rf"\b{n}\b", text)]
        lines.append(f"from lightning.pytorch.callbacks import {', '.join(names)}")
        lines.append("from torch import Tensor, nn")
        if "F." in text:
            lines.append("from torch.nn import functional as F")
        if "LambdaLR" in text:
            lines.append("from torch.optim.lr_scheduler import LambdaLR")
        used = [
            n
            for n in ("Metric", "MetricCollection", "classification", "regression")
            if re.search(rf"\b{n}\b", text)
        ]
        if self.metrics:
            lines.append(f"from torchmetrics import {', '.join(used)}")
        self.out.pieces = sorted(set(self.out.pieces))
        if self.out.pieces:
            lines += ["", f"from .keras_semantics import {', '.join(self.out.pieces)}"]
        lines += ["from .model import build as build_network", "", ""]
        return "\n".join(lines) + "\n"

    # === Loss and metrics ===

    def output(self, index: int, name: str) -> str:
        structure = self.lowered.outputs
        if isinstance(structure, dict):
            return f'{name}["{list(structure)[index]}"]'
        return f"{name}[{index}]" if isinstance(structure, list) else name

    def losses(self) -> list[str]:
        """By output, the expression of its loss."""
        count = len(self.outputs)
        given = self.training["loss"] if self.training else None
        losses = [None] * count if given is None else _each(given, self.names)
        weights = [1.0] * count
        if self.training and self.training["loss_weights"] is not None:
            weights = [1.0 if w is None else w for w in _each(self.training["loss_weights"], self.names)]
        terms = []
        for index, (loss, weight) in enumerate(zip(losses, weights, strict=True)):
            if given is not None and loss is None:
                self.out.targets.append("torch.zeros(256)")  # unused
                continue
            text = self.loss(index, loss)
            terms.append(text if weight == 1.0 else f"{weight} * {text}")
        return terms

    def loss(self, index: int, loss: Any) -> str:
        value = self.lowered.values[self.outputs[index]]
        outputs, targets = self.output(index, "outputs"), self.output(index, "targets")
        finish = self.lowered.finish[index]
        kind, settings = _named(loss)
        if loss is None:
            if finish == "sigmoid":
                kind = BINARY[0]
            elif finish == "softmax" or (value.rank == 2 and (value.shape[-1] or 2) > 1):
                kind = SPARSE[0]
                settings = {"from_logits": finish is None and not self.probabilities(index)}
            else:
                kind = "mse"
        self.out.targets.append(self.drawn(value, kind))
        text = self.loss_of(value, outputs, targets, kind, settings, finish)
        if (
            settings.get("reduction") == "sum" and not self.missing
        ):  # over samples, of the mean over the last axis
            return f"{outputs}[..., 0].numel() * {text}"
        return text

    def drawn(self, value: Value, kind: str) -> str:
        """Random targets of 256 samples, as the loss takes them."""
        sizes = [32 if size is None else size for size in value.shape[1:]]
        classes, further = sizes[-1], _further(kind)
        numbers = f"torch.randint(0, {classes}, {(256, *sizes[:-1])})"
        if kind in SPARSE or further == "categorical_generalized_cross_entropy":
            return numbers
        if kind in CATEGORICAL or further in OF_ROWS:
            return f"torch.eye({classes})[{numbers}]"
        placed = [classes, *sizes[:-1]] if value.first else sizes
        shape = ", ".join(map(str, [256, *placed]))
        return f"torch.randint(0, 2, ({shape})).float()" if kind in BINARY else f"torch.rand({shape})"

    def loss_of(
        self,
        value: Value,
        outputs: str,
        targets: str,
        kind: str,
        settings: dict[str, Any],
        finish: str | None,
    ) -> str:
        """A loss as the mean over samples."""
        smoothing = settings.get("label_smoothing") or 0.0
        more = f", label_smoothing={smoothing}" if smoothing else ""
        logits = finish is not None or settings.get("from_logits", False)
        if kind in (*SPARSE, *CATEGORICAL):
            moved = ".movedim(-1, 1)" if value.rank > 2 and not value.first else ""  # the classes, to axis 1
            shown = f"{outputs}{moved}"
            if logits:
                rows = moved if kind in CATEGORICAL else ""
                return f"F.cross_entropy({shown}, {targets}{rows}{more})"
            if kind in SPARSE:
                return f"F.nll_loss({shown}.clamp(1e-7, 1 - 1e-7).log(), {targets})"
            self.out.pieces.append("categorical_crossentropy")
            return f"categorical_crossentropy({outputs}, {targets}.to({outputs}){more}).mean()"
        shaped = f"{targets}.to({outputs}).view_as({outputs})"  # Keras gives targets (N,) a last axis
        if kind in BINARY:
            function = "binary_cross_entropy_with_logits" if logits else "binary_cross_entropy"
            if smoothing:
                shaped = f"{shaped} * {1 - smoothing} + {smoothing / 2}"
            return f"F.{function}({outputs}, {shaped})"
        if kind in OTHERS:
            return OTHERS[kind].format(o=outputs, t=shaped, delta=settings.get("delta", 1.0))
        further = _further(kind)
        axis = settings.get("axis", -1)
        if further is not None and axis in (None, -1):
            self.out.pieces.append(further)
            own = ("alpha", "gamma", "from_logits", "label_smoothing", "apply_class_balancing", "beta", "q")
            given = {name: settings[name] for name in own if settings.get(name) not in (None, False, 0.0)}
            arguments = "".join(f", {name}={_literal(value)}" for name, value in given.items())
            numbers = further == "categorical_generalized_cross_entropy"
            return f"{further}({outputs}, {targets if numbers else shaped}{arguments}).mean()"
        self.out.notes.append(f"the loss {kind} is not translated: write it in `loss` of lightning_module.py")
        self.missing = self.missing or kind
        return "torch.zeros(())"

    def probabilities(self, index: int) -> bool:
        number = self.outputs[index]
        makers = [step for step in self.lowered.steps if number in step.outputs]
        return bool(makers) and makers[0].module is not None and makers[0].module.name == "nn.Softmax"

    def collect_metrics(self) -> None:
        count = len(self.outputs)
        if self.training is None:
            return
        for given in (self.training["metrics"], self.training["weighted_metrics"]):
            if given is None:
                continue
            by_output = _each(given, self.names) if count > 1 or isinstance(given, dict) else [given]
            for index, metrics in enumerate(by_output):
                for metric in metrics if isinstance(metrics, list) else [metrics] if metrics else []:
                    self.metric(index, metric)

    def metric(self, index: int, metric: Any) -> None:
        kind, settings = _named(metric)
        value = self.lowered.values[self.outputs[index]]
        classes = value.shape[-1] or 2
        name = str(settings.get("name") or snake(kind))
        binary = self.lowered.finish[index] == "sigmoid" or classes == 1
        task = "Binary" if binary and classes == 1 else "Multilabel" if binary else "Multiclass"
        count = {"Binary": "", "Multilabel": f"num_labels={classes}", "Multiclass": f"num_classes={classes}"}[
            task
        ]
        short = kind.lower().replace("_", "")
        text = None
        if short in ("accuracy", "acc", "categoricalaccuracy", "sparsecategoricalaccuracy", "binaryaccuracy"):
            micro = ', average="micro"' if task != "Binary" else ""
            text = f"classification.{task}Accuracy({count}{micro})"
        elif "topk" in short:
            k = settings.get("k", 5)
            if k >= classes:
                self.out.notes.append(
                    f"the metric {kind} is left out: of {classes} classes the top {k} are all"
                )
                return
            text = f'classification.MulticlassAccuracy({count}, top_k={k}, average="micro")'
        elif short in ("auc", "precision", "recall"):
            which = {"auc": "AUROC", "precision": "Precision", "recall": "Recall"}[short]
            text = f"classification.{task}{which}({count})"
        elif short in ("mse", "meansquarederror", "mae", "meanabsoluteerror", "rootmeansquarederror"):
            which = "MeanAbsoluteError" if "abs" in short or short == "mae" else "MeanSquaredError"
            text = f"regression.{which}({'squared=False' if 'root' in short else ''})"
        if text is None:
            self.out.notes.append(f"the metric {kind} is not translated")
            return
        if len(self.outputs) > 1:
            name = (
                f"output{index}_{name}"
                if not isinstance(self.lowered.outputs, dict)
                else f"{list(self.lowered.outputs)[index]}_{name}"
            )
        self.metrics[name] = (text, index)

    # === The class ===

    def initialiser(self) -> str:
        lines = [
            '    def __init__(self, weights: Path | None = Path(__file__).with_name("weights.safetensors")) -> None:'
        ]
        lines += ["        super().__init__()", "        self.network = build_network(weights)"]
        if self.metrics:
            entries = ", ".join(f'"{name}": {text}' for name, (text, _) in self.metrics.items())
            lines.append(f"        metrics: dict[str, Metric] = {{{entries}}}")
            lines.append("        self.train_metrics = MetricCollection(dict(metrics))")
            lines.append("        self.val_metrics = self.train_metrics.clone()")
        return "\n".join(lines)

    def forward_and_loss(self, losses: list[str], penalty: str) -> str:
        many = len(self.lowered.inputs) > 1
        lines = [f"    def forward(self, {'*inputs' if many else 'inputs'}: Tensor) -> Any:"]
        lines.append(f"        return self.network({'*inputs' if many else 'inputs'})")
        lines += ["", "    def loss(self, outputs: Any, targets: Any) -> Tensor:"]
        lines.append(
            '        """The loss that Keras\'s model was compiled with, of what the network gives."""'
        )
        acts = any(s.module and s.module.name == "ActivityPenalty" for s in self.lowered.every_step())
        if acts:
            self.out.pieces.append("ActivityPenalty")
        penalised = bool(penalty) or acts
        total = " + ".join(losses) or "torch.zeros(())"
        if self.missing:
            lines.append(f'        raise NotImplementedError("write what Keras\'s {self.missing} computes")')
        else:
            lines.append(f"        return {total}{' + self.penalty()' if penalised else ''}")
        if penalised:
            lines += ["", "    def penalty(self) -> Tensor:"]
            lines.append(
                '        """Keras\'s regularizers: part of the loss in training and in validation."""'
            )
            if penalty:
                lines.append("        weights = dict(self.network.named_parameters())")
            parts = []
            if acts:
                lines.append(
                    "        kept = (m.value for m in self.network.modules() if isinstance(m, ActivityPenalty))"
                )
                parts.append("torch.stack([value for value in kept if value is not None]).sum()")
            if re.search(r"^L2\b", penalty, re.M):
                parts.append(
                    "torch.stack([share * weights[name].square().sum() for name, share in L2.items()]).sum()"
                )
            if re.search(r"^L1\b", penalty, re.M):
                parts.append(
                    "torch.stack([share * weights[name].abs().sum() for name, share in L1.items()]).sum()"
                )
            lines.append(f"        return {' + '.join(parts)}")
        lines += ["", "    def probabilities(self, outputs: Any) -> Any:"]
        lines.append('        """What Keras\'s model gives, from what the network gives."""')
        lines.append(f"        return {self.finished()}")
        return "\n".join(lines)

    def finished(self) -> str:
        texts = []
        for index in range(len(self.outputs)):
            text, finish = self.output(index, "outputs"), self.lowered.finish[index]
            dim = 1 if self.lowered.values[self.outputs[index]].first else -1
            texts.append(
                {"softmax": f"F.softmax({text}, dim={dim})", "sigmoid": f"torch.sigmoid({text})", None: text}[
                    finish
                ]
            )
        if isinstance(self.lowered.outputs, dict):
            pairs = zip(self.lowered.outputs, texts, strict=True)
            return "{" + ", ".join(f'"{key}": {text}' for key, text in pairs) + "}"
        return f"({', '.join(texts)},)" if isinstance(self.lowered.outputs, list) else texts[0]

    def steps(self) -> str:
        many = len(self.lowered.inputs) > 1
        star = "*" if many else ""
        lines = [
            "    def training_step(self, batch: Any, batch_index: int) -> Tensor:",
            '        return self.step(batch, "")',
            "",
        ]
        lines += [
            "    def validation_step(self, batch: Any, batch_index: int) -> Tensor:",
            '        return self.step(batch, "val_")',
            "",
        ]
        lines += ["    def step(self, batch: Any, prefix: str) -> Tensor:"]
        lines.append(
            '        """The loss of a batch of (inputs, targets); logs it and the metrics, over the epoch as Keras does."""'
        )
        lines += [
            "        inputs, targets = batch",
            f"        outputs = self({star}inputs)",
            "        loss = self.loss(outputs, targets)",
        ]
        size = "len(inputs[0])" if many else "len(inputs)"
        lines.append(
            f'        self.log(f"{{prefix}}loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size={size})'
        )
        if self.metrics:
            lines.append("        metrics = self.val_metrics if prefix else self.train_metrics")
            lines.append("        given = self.probabilities(outputs)")
            for name, (_, index) in self.metrics.items():
                shown, wanted = self.output(index, "given"), self.target(index)
                lines.append(f'        metrics["{name}"]({shown}, {wanted})')
            names = "for name, metric in metrics.items():"
            lines += [
                f"        {names}",
                f'            self.log(f"{{prefix}}{{name}}", metric, on_step=False, on_epoch=True, batch_size={size})',
            ]
        lines += [
            "        return loss",
            "",
            "    def predict_step(self, batch: Any, batch_index: int) -> Any:",
        ]
        lines.append("        inputs = batch[0] if isinstance(batch, tuple | list) else batch")
        lines.append(f"        return self.probabilities(self({star}inputs))")
        return "\n".join(lines)

    def target(self, index: int) -> str:
        text = self.output(index, "targets")
        loss = self.training["loss"] if self.training else None
        kind, _ = _named(_each(loss, self.names)[index]) if loss is not None else ("", {})
        rows = kind in CATEGORICAL or _further(kind) in OF_ROWS
        return f"{text}.argmax(-1)" if rows else text

    # === Optimizer ===

    def optimizer(self, constrained: bool) -> str:
        described = (self.training or {}).get("optimizer") or {"kind": "Adam", "settings": {}}
        kind, settings = described["kind"], described["settings"]
        lines = ["    def configure_optimizers(self) -> Any:"]
        name = OPTIMIZERS.get(kind)
        if name is None:
            self.out.notes.append(f"the optimizer {kind} is not translated: Adam stands in its place")
            name, settings = "Adam", {}
        self.out.pieces.append(name)
        rate = settings.get("learning_rate", 1e-3)
        schedule = rate if isinstance(rate, dict) else None
        initial = rate if schedule is None else self.initial(schedule)
        args = [f"lr={_number(initial)}"]
        if "beta_1" in settings:
            args.append(f"betas=({_number(settings['beta_1'])}, {_number(settings['beta_2'])})")
        for key, argument in ARGUMENTS.items():
            always = name == "AdamW" and key == "weight_decay"  # whose default is not zero
            value = settings.get(key)
            if always or value not in (None, False, 0.0):
                args.append(f"{argument}={_literal(_number(value))}")
        lines.append(
            "        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]"
        )
        lines.append(f"        optimizer = {name}(trained, {', '.join(args)})")
        if constrained:
            lines.append("        optimizer.register_step_post_hook(lambda *_: constrain(self.network))")
        if schedule is not None and (call := self.schedule(schedule)) is not None:
            lines.append(f"        schedule = LambdaLR(optimizer, lambda step: {call} / {_number(initial)})")
            lines.append(
                '        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}'
            )
        else:
            lines.append("        return optimizer")
        clip = {
            key: settings[key] for key in ("clipnorm", "clipvalue", "global_clipnorm") if settings.get(key)
        }
        if clip:
            self.out.pieces.append("clip_gradients")
            given = ", ".join(f"{key}={_number(value)}" for key, value in clip.items())
            lines += [
                "",
                "    def configure_gradient_clipping(self, optimizer: Any, *given: Any, **flags: Any) -> None:",
                f"        clip_gradients(self.network, {given})",
            ]
        overwritten = settings.get("use_ema") and settings.get("ema_overwrite_frequency")
        for key in ("loss_scale_factor", "gradient_accumulation_steps", "ema_overwrite_frequency"):
            if settings.get(key) and (overwritten or key != "ema_overwrite_frequency"):
                self.out.notes.append(f"the optimizer's {key} is not translated")
        return "\n".join(lines)

    def initial(self, schedule: dict[str, Any]) -> float:
        settings = schedule["settings"]
        if "values" in settings:
            return settings["values"][0]
        return settings.get("warmup_target") or settings.get("initial_learning_rate", 1e-3)

    def schedule(self, schedule: dict[str, Any]) -> str | None:
        function = snake(schedule["kind"])
        known = {"exponential_decay", "inverse_time_decay", "polynomial_decay", "piecewise_constant_decay"}
        if function not in known | {"cosine_decay", "cosine_decay_restarts"}:
            self.out.notes.append(
                f"the schedule {schedule['kind']} is not translated: its first learning rate stays"
            )
            return None
        self.out.pieces.append(function)
        given = {k: v for k, v in schedule["settings"].items() if k != "name" and v is not None}
        return f"{function}(step, {', '.join(f'{key}={_literal(_number(value))}' for key, value in given.items())})"

    # === Regularizers and callbacks ===

    def penalty(self) -> str:
        """The tables of what the regularizers weigh, by a parameter's name."""
        shares: dict[str, dict[float, list[str]]] = {"L1": defaultdict(list), "L2": defaultdict(list)}
        layers: dict[str, Layer] = dict(self.migration.graph.every_layer())
        names = {id(parameter): name for name, parameter in self.network.named_parameters()}
        for path, part, module in holders(self.network, self.lowered):
            layer = layers.get(path)
            if layer is None or not layer.penalties or layer.frozen:
                continue
            for key, regularizer in layer.penalties.items():
                weight = self.penalised(module, part, key)
                if weight is None:
                    continue
                for norm, share in _norms(regularizer):
                    shares[norm][share].append(names[id(weight)])
        for path, layer in layers.items():
            for key, regularizer in layer.penalties.items():
                told = activity(layer) if key == "activity" else list(_norms(regularizer))
                if "/" in key or not told:
                    self.out.notes.append(f"{path}: its {key} regularizer is not translated")
        lines = []
        for norm in ("L1", "L2"):
            if shares[norm]:
                entries = [f'"{name}": {share}' for share, found in shares[norm].items() for name in found]
                comment = "Keras adds this much of each weight's " + (
                    "sum of squares" if norm == "L2" else "absolute sum"
                )
                lines.append(f"# {comment}.\n{norm} = {{{', '.join(entries)}}}")
        return "\n".join(lines)

    def constraints(self) -> str:
        """The function that holds weights to Keras's constraints; "" where there are none."""
        layers: dict[str, Layer] = dict(self.migration.graph.every_layer())
        names = {id(parameter): name for name, parameter in self.network.named_parameters()}
        lines = []
        for path, part, module in holders(self.network, self.lowered):
            layer = layers.get(path)
            held = {} if layer is None or layer.frozen else layer.constraints
            for key, constraint in held.items():
                function = CONSTRAINTS.get(constraint["kind"], "")
                weight = self.weight(module, part, key)
                dims = None if weight is None else _dims(weight, constraint["settings"].get("axis", 0))
                if weight is None or dims is None or not function:
                    self.out.notes.append(f"{path}: its {key} constraint is not translated")
                    continue
                given = {k: v for k, v in constraint["settings"].items() if k != "axis"}
                arguments = [f'weights["{names[id(weight.tensors[0])]}"]']
                arguments += [f"{name}={_literal(_number(value))}" for name, value in given.items()]
                arguments += [] if function == "non_negative_" else [f"dim={dims}"]
                self.out.pieces.append(function)
                lines.append(f"    {function}({', '.join(arguments)})")
        if not lines:
            return ""
        head = "def constrain(network: nn.Module) -> None:\n"
        doc = '    """Hold weights to Keras\'s constraints, as Keras does after each step."""\n'
        return head + doc + "    weights = dict(network.named_parameters())\n" + "\n".join(lines)

    def penalised(self, module: nn.Module, part: str | None, key: str) -> Any:
        weight = self.weight(module, part, key)
        return None if weight is None else weight.tensors[0]

    def weight(self, module: nn.Module, part: str | None, key: str) -> Any:
        """A module's weight by Keras's word for it in `kernel_regularizer` and the like, if it has it."""
        wanted = {"depthwise": "kernel", "pointwise": "kernel", "recurrent": "recurrent_kernel"}.get(key)
        if (
            key in ("depthwise", "pointwise")
            and part is not None
            and (part == "depthwise") != (key == "depthwise")
        ):
            return None
        if part == "depthwise" and key != "depthwise":
            return None
        try:
            known = weight_layout.weights(module)
        except ValueError:
            return None
        return known.get(wanted or PENALTIES.get(key, key))

    def callbacks(self) -> str:
        lines = []
        optimizer = ((self.training or {}).get("optimizer") or {}).get("settings", {})
        if optimizer.get("use_ema") and not optimizer.get("ema_overwrite_frequency"):
            self.out.pieces.append("AverageAtEnd")
            lines.append(f"AverageAtEnd(decay={_number(optimizer['ema_momentum'])}, use_buffers=False),")
        for callback in self.migration.callbacks:
            settings = callback["settings"]
            monitor, mode = settings.get("monitor", "val_loss"), settings.get("mode", "auto")
            mode = (
                mode if mode in ("min", "max") else "max" if "acc" in monitor or "auc" in monitor else "min"
            )
            head = f'monitor="{monitor}", mode="{mode}"'
            if callback["kind"] == "EarlyStopping":
                self.out.pieces.append("EarlyStopping")
                usual = {
                    "min_delta": 0,
                    "restore_best_weights": False,
                    "baseline": None,
                    "start_from_epoch": 0,
                }
                own = {k: settings.get(k, v) for k, v in usual.items() if settings.get(k, v) != v}
                own |= (
                    {"min_delta": abs(own["min_delta"])} if "min_delta" in own else {}
                )  # signed by its mode
                text = "".join(f", {key}={value}" for key, value in own.items())
                lines.append(f"EarlyStopping(patience={settings.get('patience', 0)}{text}, {head}),")
            elif callback["kind"] == "ReduceLROnPlateau":
                self.out.pieces.append("ReduceLROnPlateau")
                given = {"patience": 10, "factor": 0.1, "min_delta": 1e-4, "cooldown": 0}
                text = ", ".join(f"{key}={settings.get(key, value)}" for key, value in given.items())
                lines.append(
                    f"ReduceLROnPlateau({text}, min_learning_rate={settings.get('min_lr', 0.0)}, {head}),"
                )
            elif callback["kind"] == "ModelCheckpoint":
                top = 1 if settings.get("save_best_only") else -1
                lines.append(f"ModelCheckpoint({head}, save_top_k={top}),")
            else:
                self.out.notes.append(f"the callback {callback['kind']} is not translated")
        given = "Keras's callbacks, and what else acts beside the steps."
        doc = given if lines else "None were given: pass Keras's with --callbacks."
        inner = "".join(f"        {line}\n" for line in lines)
        listed = f"[\n{inner}    ]" if lines else "[]"
        return f'def callbacks() -> list[Callback]:\n    """{doc}"""\n    return {listed}'


def _dims(weight: Any, axis: Any) -> tuple[int, ...] | None:
    """Where torch's tensor has some axes of Keras's weight; None where it has no such axes."""
    tensor = weight.tensors[0].detach()
    view = weight.view(tensor)
    axes = axis if isinstance(axis, list | tuple) else [axis]
    if view.data_ptr() != tensor.data_ptr() or sorted(view.stride()) != sorted(tensor.stride()):
        return None
    return tuple(sorted(tensor.stride().index(view.stride(a)) for a in axes))


def _norms(regularizer: Any) -> list[tuple[str, float]]:
    kind, settings = _named(regularizer)
    if kind in ("L1", "L2", "L1L2", "l1", "l2", "l1_l2"):
        return [(norm.upper(), settings[norm]) for norm in ("l1", "l2") if settings.get(norm)]
    return []


def _named(thing: Any) -> tuple[str, dict[str, Any]]:
    """The name of a loss or metric that is a name or an object, and its settings."""
    if isinstance(thing, dict):
        return str(thing.get("kind", "")), thing["settings"] if isinstance(
            thing.get("settings"), dict
        ) else {}
    return str(thing or ""), {}


def _further(kind: str) -> str | None:
    """The function of keras_semantics that a loss of Keras's is, by any of its names; None for others."""
    return FURTHER.get(kind.lower().replace("_", ""))


def _is_object(value: dict[str, Any]) -> bool:
    """True of a dictionary that describes an object of Keras's, and lists nothing by the names of outputs."""
    return value.keys() - {"module"} == {"kind", "settings"} and isinstance(value["kind"], str)


def _each(value: Any, names: Sequence[str]) -> list[Any]:
    """One for each output, from one for all, a list, or a dictionary by the outputs' names."""
    if isinstance(value, dict) and not _is_object(value):
        return [value.get(name) for name in names]
    if isinstance(value, list) and len(value) == len(names):
        return value
    return [value] * len(names)


def _number(value: Any) -> Any:
    """A number of Keras's float32 configuration in the fewest digits that give it back."""
    if isinstance(value, list):
        return tuple(_number(inner) for inner in value)
    if not isinstance(value, float):
        return value
    import numpy as np

    short = float(str(np.float32(value)))
    return short if abs(short - value) <= 1e-7 * abs(value) else value
