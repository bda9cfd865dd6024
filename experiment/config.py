"""What one experiment is: plain values with bounds, the same for both frameworks."""

from __future__ import annotations

from typing import Literal

from PIL import ImageColor
from pydantic import Field, field_validator, model_validator

from experiment.names import printable, spelling
from experiment.training_config import MANY, Schedule, Section, Training, fault

__all__ = ["Augment", "Data", "Experiment", "Model", "Schedule", "Section", "Training", "fault"]

CACHE = "~/.cache/keras-lightning-parity"


class Data(Section):
    name: Literal["auto", "cifar10", "mnist", "fashion_mnist", "digits", "folder", "npz", "shards"] = Field(
        default="auto", description="data set; auto: CIFAR-10 if it can be had, else scikit-learn's digits"
    )
    root: str | None = Field(
        default=None,
        description="the folder of images or shards, the .npz file, or where archives lie",
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


class Model(Section):
    name: Literal["cnn", "vgg16", "resnet50"] = Field(
        default="cnn", description="the BatchNorm/Dropout CNN, or transfer from VGG16 or ResNet50"
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
        default=0, ge=0, le=5, description="of a base: how many of its last blocks are trained"
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
        return self


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
        if self.model.name != "cnn" and self.data.image_size < 32:
            raise ValueError(f"data.image_size {self.data.image_size}: {self.model.name} needs at least 32")
        if self.model.name == "cnn":
            size = self.data.image_size
            for _ in self.model.filters:
                size = (size - 2 * self.model.convolutions_per_block) // 2
            if size < 1:
                raise ValueError(
                    f"model.filters has {len(self.model.filters)} blocks, too many for images of "
                    f"{self.data.image_size} pixels: use fewer blocks or a larger data.image_size"
                )
        return self
