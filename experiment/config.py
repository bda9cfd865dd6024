"""The schema of an experiment: plain values with bounds, the same for both frameworks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Literal

from PIL import ImageColor
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from experiment import optimizers
from experiment.backbones import BACKBONES, Backbone
from experiment.published import PUBLISHED
from experiment.system.names import printable, spelling

MANY = 1_000_000  # more epochs, images a step or units than anybody has; a typing error, to be told at once


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True, frozen=True, allow_inf_nan=False)


def fault(error: ValidationError) -> str:
    """The first fault that a schema found, in a line."""
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return message
    place = [str(part) for part in first["loc"]]  # among them the members of a union, as function-after[...]
    return f"{'.'.join(part for part in place if '[' not in part)}: {message}"


class Schedule(Section):
    kind: Literal["constant", "cosine", "step"] = Field(
        default="constant", description="learning rate by epoch"
    )
    step_epochs: int = Field(default=10, ge=1, le=MANY, description="step: epochs between two drops")
    step_factor: float = Field(default=0.1, gt=0, le=1, description="step: factor of one drop")
    final_factor: float = Field(default=0.0, ge=0, le=1, description="cosine: last over first learning rate")

    def factor(self, epoch: int, epochs: int) -> float:
        """Learning rate of an epoch (counted from 0) as a share of the initial one.

        Cosine: Loshchilov and Hutter, SGDR (arXiv 1608.03983), eq. 5, without restarts.
        """
        if self.kind == "cosine":
            progress = min(epoch / max(epochs - 1, 1), 1.0)
            return self.final_factor + (1 - self.final_factor) * 0.5 * (1 + math.cos(math.pi * progress))
        if self.kind == "step":
            return self.step_factor ** (epoch // self.step_epochs)
        return 1.0


class Plateau(Section):
    patience: int | None = Field(
        default=None, ge=1, le=MANY, description="epochs without improvement; null: off"
    )
    factor: float = Field(default=0.5, gt=0, lt=1, description="factor of one reduction")
    min_delta: float = Field(
        default=1e-4, ge=0, description="smallest change of val_loss that counts (absolute)"
    )
    cooldown: int = Field(default=0, ge=0, le=MANY, description="epochs to wait after a reduction")
    min_learning_rate: float = Field(default=0.0, ge=0, description="floor of the learning rate")


class EarlyStopping(Section):
    patience: int | None = Field(
        default=None, ge=0, le=MANY, description="epochs without improvement; null: off"
    )
    min_delta: float = Field(default=0.0, ge=0, description="smallest change that counts (absolute)")
    restore_best_weights: bool = Field(default=True, description="end with the weights of the best epoch")

    def ended(self, values: Sequence[float], lower_is_better: bool) -> int | None:
        """After how many epochs of these values of the monitor training ends, or None where it goes on."""
        sign, best, wait = 1.0 if lower_is_better else -1.0, math.inf, 0
        for epoch, value in enumerate(values, 1):
            wait += 1
            if sign * value + self.min_delta < best:
                best, wait = sign * value, 0
            elif self.patience is not None and wait >= self.patience:
                return epoch
        return None


Sampling = Literal["shuffle", "balanced"]


class Training(Section):
    epochs: int = Field(default=20, ge=1, le=MANY, description="passes over the training split")
    batch_size: int = Field(
        default=64, ge=1, le=MANY, description="images a step; the last batch of an epoch may be smaller"
    )
    optimizer: optimizers.Name = Field(default="adam", description="with Keras's semantics on both sides")
    learning_rate: float = Field(default=1e-3, gt=0, lt=10, description="initial learning rate")
    weight_decay: float | None = Field(
        default=None,
        ge=0,
        lt=10,
        description="adamw, sgd: each step takes learning_rate * weight_decay * w off every weight w; "
        "null: Keras's default",
    )
    momentum: float | None = Field(
        default=None, ge=0, lt=1, description="sgd: share of the velocity that a step keeps; null: 0"
    )
    nesterov: bool | None = Field(default=None, description="sgd: Nesterov's momentum; null: false")
    monitor: Literal["val_loss", "val_accuracy"] = Field(
        default="val_loss", description="decides the best epoch"
    )
    early_stopping: EarlyStopping = EarlyStopping()
    plateau: Plateau = Plateau()
    schedule: Schedule = Schedule()
    l2: float = Field(default=0.0, ge=0, description="adds l2 * sum(w^2) of every trained kernel to the loss")
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="share of the target spread over all classes"
    )
    sampling: Sampling = Field(
        default="shuffle",
        description="balanced: an epoch shows every class equally often, a rare one's images again and again",
    )
    class_weights: Literal["balanced"] | list[float] | None = Field(
        default=None, description="balanced, or one weight a class, for the training loss"
    )
    precision: Literal["float32", "tf32", "bfloat16", "float64"] = Field(
        default="float32",
        description="bfloat16 is mixed; tf32: products of 10 bits, on CUDA alone",
    )
    sync_batch_norm: bool = Field(
        default=True, description="several processes: statistics of the whole batch, not of each one's share"
    )
    compile: bool = Field(
        default=False, description="compile the step: torch.compile on Lightning's side, XLA on Keras's"
    )
    dropout_masks: Literal["own", "shared"] = Field(
        default="own", description="each framework's own dropout masks, or the same on both sides"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Training:
        if self.plateau.patience is not None and self.schedule.kind != "constant":
            raise ValueError(
                "training.plateau and training.schedule both set the learning rate: "
                "leave training.plateau.patience null or training.schedule.kind constant"
            )
        if self.sampling == "balanced" and self.class_weights is not None:
            raise ValueError(
                "training.sampling balanced and training.class_weights both make up for rare classes: "
                "leave training.class_weights null or training.sampling shuffle"
            )
        chosen = optimizers.OPTIMIZERS[self.optimizer].settings
        for name in sorted({name for one in optimizers.OPTIMIZERS.values() for name in one.settings}):
            if getattr(self, name) is not None and name not in chosen:
                takers = [taker for taker, one in optimizers.OPTIMIZERS.items() if name in one.settings]
                raise ValueError(
                    f"training.{name} is no setting of {self.optimizer}: leave it null, or set "
                    f"training.optimizer to {' or '.join(takers)}"
                )
        if self.nesterov and not self.momentum:
            raise ValueError("training.nesterov needs a training.momentum above 0")
        if isinstance(self.class_weights, list) and any(w < 0 for w in self.class_weights):
            raise ValueError("training.class_weights must not be negative")
        return self

    @property
    def optimizer_settings(self) -> dict[str, optimizers.Setting]:
        """Keras's arguments of the optimizer beside its learning rate: as configured, else Keras's own."""
        defaults = optimizers.OPTIMIZERS[self.optimizer].settings
        given = {name: getattr(self, name) for name in defaults}
        return {name: defaults[name] if value is None else value for name, value in given.items()}

    @property
    def use_best(self) -> bool:
        """The model that training leaves is the best epoch's, not the last's."""
        stopping = self.early_stopping
        return stopping.patience is not None and stopping.restore_best_weights


CACHE = "~/.cache/keras-lightning-parity"
if TYPE_CHECKING:
    DataName = str
else:  # the published ones are known by their records
    DataName = Literal["auto", *PUBLISHED, "digits", "folder", "npz", "parquet"]


class Data(Section):
    name: DataName = Field(
        default="auto", description="data set; auto: CIFAR-10 if it can be had, else scikit-learn's digits"
    )
    root: str | None = Field(
        default=None,
        description="the folder of images or of Parquet files, the .npz file, or where archives lie",
    )
    cache: str = Field(default=CACHE, description="where downloads and decoded arrays are kept")
    image_size: int = Field(default=32, ge=8, le=512, description="side of the square images, pixels")
    background: str = Field(
        default="white", description="what transparent images are laid over: a colour, as black or #808080"
    )
    bits: int = Field(
        default=16,
        ge=1,
        le=32,
        description="grey image files of more than 8 bits: how many are used, white is 2**bits - 1",
    )
    validation: Literal["auto", "split", "test"] = Field(
        default="auto",
        description="validate on a share held out of the training split (split), on the test split (test), "
        "or on the data's own validation split, where they have one (auto, which is split otherwise)",
    )
    validation_share: float = Field(
        default=0.1, gt=0, lt=1, description="share held out, stratified and seeded"
    )
    classes: list[str | int] | None = Field(default=None, description="use the images of these classes alone")
    replay: float = Field(
        default=0.0, ge=0, le=1, description="with warm_start: share of that run's images that is mixed in"
    )
    limit: int | None = Field(
        default=None,
        ge=1,
        le=2**31,
        description="use at most this many training images, and as many test images",
    )
    thin: dict[str | int, float] = Field(
        default={},
        description='share of a class\'s training images that is kept, to try imbalance out: {"cat": 0.05}',
    )
    max_unreadable: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="share of unreadable files in a folder above which the run fails",
    )

    @field_validator("background")
    @classmethod
    def _opaque(cls, background: str) -> str:
        try:
            colour = ImageColor.getrgb(background)
        except ValueError:
            colour = ()
        if len(colour) != 3:
            raise ValueError(f"data.background {background}: no colour, as white, black or #808080 are")
        return "#{:02x}{:02x}{:02x}".format(*colour)

    @field_validator("classes")
    @classmethod
    def _different(cls, classes: list[str | int] | None) -> list[str] | None:
        if classes is None:
            return None
        names = [printable(str(one)) for one in classes]  # YAML reads 7 as a number
        if len(set(map(spelling, names))) != len(names):
            raise ValueError("a class is named twice")
        return names

    @field_validator("thin")
    @classmethod
    def _shares(cls, thin: dict[str | int, float]) -> dict[str, float]:
        if any(not 0 < share <= 1 for share in thin.values()):
            raise ValueError("every share must lie in (0, 1]")
        return {printable(str(one)): share for one, share in thin.items()}


class Augment(Section):
    kind: Literal["keras", "torchvision", "none"] = Field(
        default="keras",
        description="keras: ImageDataGenerator's semantics; torchvision: stock v2 transforms (Lightning)",
    )
    rotation: float = Field(default=15.0, ge=0, le=180, description="largest rotation either way, degrees")
    width_shift: float = Field(default=0.1, ge=0, lt=1, description="largest shift, share of the width")
    height_shift: float = Field(default=0.1, ge=0, lt=1, description="largest shift, share of the height")
    zoom: float = Field(
        default=0.2, ge=0, lt=1, description="zoom factors are drawn from [1 - zoom, 1 + zoom]"
    )
    horizontal_flip: bool = Field(default=True, description="mirror every second image, at random")
    brightness: list[float] | None = Field(
        default=None,
        description="factors are drawn from [low, high], as ImageDataGenerator's brightness_range; null: off",
    )

    @field_validator("brightness")
    @classmethod
    def _range(cls, brightness: list[float] | None) -> list[float] | None:
        if brightness is not None and not (len(brightness) == 2 and 0 <= brightness[0] <= brightness[1]):
            raise ValueError("augment.brightness takes two factors, 0 <= low <= high, such as [0.8, 1.2]")
        return brightness

    @model_validator(mode="after")
    def _known(self) -> Augment:
        if self.kind == "torchvision" and self.brightness is not None:
            raise ValueError(
                "augment.brightness: augment.kind torchvision does not shift it: leave it null, or say keras"
            )
        return self


if TYPE_CHECKING:
    ModelName = str
else:
    ModelName = Literal[("cnn", *BACKBONES)]


class Model(Section):
    name: ModelName = Field(
        default="cnn",
        description="the BatchNorm/Dropout CNN, or transfer from "
        + " or ".join(backbone.title for backbone in BACKBONES.values()),
    )
    filters: list[int] = Field(
        default=[32, 64], min_length=1, max_length=6, description="cnn: filters of each block"
    )
    convolutions_per_block: int = Field(default=2, ge=1, le=6, description="cnn: convolutions in each block")
    block_dropout: list[float] = Field(default=[0.2, 0.3], description="cnn: dropout rate after each block")
    dense_units: int = Field(default=256, ge=1, le=MANY, description="units of the hidden dense layer")
    head_dropout: float = Field(default=0.5, ge=0, lt=1, description="dropout rate before the last layer")
    weights: str = Field(
        default="imagenet", description="of a base: imagenet, random, or a Keras weights file (.h5)"
    )
    fine_tune_blocks: int = Field(
        default=0,
        ge=0,
        le=max(backbone.blocks for backbone in BACKBONES.values()),
        description="of a base: how many of its last blocks are trained",
    )
    initial_biases: Literal["zeros", "uniform"] = Field(
        default="zeros", description="zeros as in Keras, or drawn from U(-0.05, 0.05), for parity runs"
    )

    @field_validator("filters")
    @classmethod
    def _positive(cls, filters: list[int]) -> list[int]:
        if any(not 1 <= f <= MANY for f in filters):
            raise ValueError(f"every number of filters must be at least 1 and at most {MANY:,}")
        return filters

    @field_validator("block_dropout")
    @classmethod
    def _rates(cls, rates: list[float]) -> list[float]:
        if any(not 0 <= r < 1 for r in rates):
            raise ValueError("every dropout rate must lie in [0, 1)")
        return rates

    @model_validator(mode="after")
    def _consistent(self) -> Model:
        if self.name == "cnn" and len(self.block_dropout) != len(self.filters):
            raise ValueError(
                f"model.block_dropout has {len(self.block_dropout)} rates for "
                f"{len(self.filters)} blocks in model.filters: give one rate a block"
            )
        if self.backbone is not None and self.fine_tune_blocks > self.backbone.blocks:
            raise ValueError(
                f"model.fine_tune_blocks {self.fine_tune_blocks}: {self.name} has "
                f"{self.backbone.blocks} blocks"
            )
        return self

    @property
    def backbone(self) -> Backbone | None:
        """The record of the base that the model transfers from; None of the CNN, which has none."""
        return BACKBONES.get(self.name)


class RunSettings(Section):
    dir: str | None = Field(
        default=None, description="where the run record goes; null: runs/<framework>-<model>-..."
    )
    overwrite: bool = Field(default=False, description="replace a run record that is already there")
    record_steps: bool = Field(default=False, description="also write the loss of every step (steps.csv)")


class MLflow(Section):
    uri: str = Field(default="sqlite:///mlflow.db", description="tracking store: a database or a server")
    experiment: str = Field(default="image-classifier", min_length=1, description="what runs are filed under")
    register_as: str | None = Field(
        default=None, description="name in the model registry; the new version gets the alias candidate"
    )


class Experiment(Section):
    """One training run, framework-neutral."""

    seed: int = Field(default=1, ge=0, lt=2**31, description="seed of every draw")
    gpus: int | None = Field(
        default=None, ge=0, le=MANY, description="0: the CPU; N: that many GPUs; null: what is there"
    )
    nodes: int = Field(
        default=1, ge=1, le=MANY, description="Lightning: machines, each with as many GPUs, by torchrun"
    )
    backend: Literal["tensorflow", "jax", "torch"] | None = Field(
        default=None,
        description="Keras's backend (Lightning takes no notice); null: KERAS_BACKEND, else by device",
    )
    warm_start: str | None = Field(
        default=None,
        description="a finished run whose weights training starts from; classes that it lacks are added",
    )
    tracking: Literal["tensorboard", "mlflow"] = Field(
        default="tensorboard", description="mlflow: log to MLflow too; TensorBoard's files are always written"
    )
    mlflow: MLflow = MLflow()
    data: Data = Data()
    augment: Augment = Augment()
    model: Model = Model()
    training: Training = Training()
    run: RunSettings = RunSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        if self.data.replay and self.warm_start is None:
            raise ValueError("data.replay mixes in the images of the run that --warm-start names: name one")
        paths = {
            "warm_start": self.warm_start,
            "data.root": self.data.root,
            "data.cache": self.data.cache,
            "model.weights": self.model.weights,
        }
        for key, path in paths.items():
            if path is not None and any("\ud800" <= character <= "\udfff" for character in path):
                raise ValueError(
                    f"{key} {printable(path)}: the name is not UTF-8, and config.yaml cannot hold it: "
                    "rename it, or name a link to it"
                )
        if (backbone := self.model.backbone) is not None:
            if self.data.image_size < backbone.smallest:
                raise ValueError(
                    f"data.image_size {self.data.image_size}: {self.model.name} needs at least "
                    f"{backbone.smallest}"
                )
        else:
            size = self.data.image_size
            for _ in self.model.filters:
                size = (size - 2 * self.model.convolutions_per_block) // 2
            if size < 1:
                raise ValueError(
                    f"model.filters has {len(self.model.filters)} blocks, too many for images of "
                    f"{self.data.image_size} pixels: use fewer blocks or a larger data.image_size"
                )
        return self


def address_fault(uri: str) -> str | None:
    """The reason why an address cannot be a store's, or None; the store itself is not asked."""
    scheme, _, rest = uri.partition(":")
    kinds = {"sqlite", "postgresql", "mysql", "mssql", "http", "https", "file", "databricks"}
    kinds |= {entry.name for entry in entry_points(group="mlflow.tracking_store")}
    if scheme.split("+")[0] in kinds and (rest.strip("/") or scheme == "databricks"):
        return None
    return f"mlflow.uri {uri}: no store's address: say sqlite:///FILE, postgresql://... or http://SERVER"
