"""The model, its dropout, its augmentation and its batches, against what both sides agreed on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras.src.legacy.preprocessing.image import ImageDataGenerator

from experiment import randomness
from experiment.backbones import BACKBONES
from experiment.config import Augment, Experiment
from experiment.data.dataset import load
from experiment.data.pretrained import base_weights
from keras_impl.augment import KerasAugment, affine, as_inputs, brightness
from keras_impl.backbones import BASES
from keras_impl.classifier import build_classifier
from keras_impl.data import build_data
from keras_impl.dropout import SharedDropout
from keras_impl.model import build_model, count_parameters, initialise, named_layers, undrawn

SMALL = {"data": {"name": "digits", "limit": 130}, "training": {"batch_size": 50}}


def experiment(**sections) -> Experiment:
    return Experiment.model_validate({**SMALL, **sections})


def test_cnn_is_the_tutorial_network() -> None:
    model = build_model(Experiment(), 10)
    assert count_parameters(model) == {"total": 479_786, "trainable": 478_890, "non_trainable": 896}
    kinds = [type(layer).__name__ for layer in model.layers]
    block = ["Conv2D", "ReLU", "BatchNormalization"] * 2 + ["MaxPooling2D", "Dropout"]
    head = ["Flatten", "Dense", "ReLU", "BatchNormalization", "Dropout", "Dense", "Activation"]
    assert kinds == ["InputLayer", "Rescaling", *block, *block, *head]
    rates = [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert rates == [0.2, 0.3, 0.5]
    np.testing.assert_allclose(model.predict(np.zeros((2, 32, 32, 3)), verbose=0).sum(1), 1, rtol=1e-6)


def test_vgg16_has_a_frozen_base() -> None:
    settings = {"name": "vgg16", "weights": "random", "fine_tune_blocks": 0}
    model = build_model(experiment(model=settings), 10)
    counts = {"total": 14_848_586, "trainable": 133_898, "non_trainable": 14_714_688}
    assert count_parameters(model) == counts
    tuned = build_model(experiment(model={**settings, "fine_tune_blocks": 1}), 10)
    assert count_parameters(tuned)["trainable"] == 133_898 + 3 * (3 * 3 * 512 * 512 + 512)
    trained = {name for name, layer in named_layers(tuned).items() if layer.trainable_weights}
    assert trained == {"block5_conv1", "block5_conv2", "block5_conv3", "dense", "logits"}


@pytest.mark.parametrize("name", BACKBONES)
def test_a_base_sees_what_keras_applications_prepare(name: str) -> None:
    model = build_model(experiment(model={"name": name, "weights": "random"}), 10)
    images = np.random.default_rng(0).uniform(0, 255, size=(2, 32, 32, 3)).astype("float32")
    base = model.get_layer("base")
    prepared = keras.Model(base.inputs, base.get_layer("preprocess").output).predict(images, verbose=0)
    expected = getattr(keras.applications, name).preprocess_input(images.copy())
    np.testing.assert_allclose(prepared, expected, atol=1e-4)


@pytest.mark.parametrize("biases", ["zeros", "uniform"])
def test_initial_weights_are_the_shared_draws(biases: str) -> None:
    layers = named_layers(build_model(experiment(model={"initial_biases": biases}, seed=5), 10))
    for name in ("conv3", "dense"):
        kernel, bias = layers[name].get_weights()
        np.testing.assert_array_equal(kernel, randomness.kernel(5, name, kernel.shape).astype("float32"))
        np.testing.assert_array_equal(bias, randomness.bias(5, name, len(bias), biases).astype("float32"))


@pytest.mark.parametrize("shape", [(6, 5, 5, 8), (6, 40)])
def test_shared_dropout_draws_the_agreed_masks(shape: tuple[int, ...]) -> None:
    layer = SharedDropout(0.3, 1, name="dropout1")
    inputs = np.ones(shape, "float32")
    for step in range(3):
        mask = randomness.dropout_mask(randomness.dropout_key(1, "dropout1"), step, shape, 0.3)
        np.testing.assert_allclose(layer(inputs, training=True), mask / 0.7, rtol=1e-6)
    assert (np.asarray(layer(inputs, training=False)) == 1).all()
    copy = SharedDropout.from_config(layer.get_config())
    np.testing.assert_array_equal(copy(inputs, training=True) > 0, masked(shape, 0))


def masked(shape: tuple[int, ...], step: int) -> np.ndarray:
    return randomness.dropout_mask(randomness.dropout_key(1, "dropout1"), step, shape, 0.3)


@pytest.mark.parametrize("off", ["rotation", "shift", "zoom", "flip", "nothing"])
def test_augmentation_is_that_of_image_data_generator(off: str) -> None:
    config = Augment(
        rotation=0 if off == "rotation" else 15,
        width_shift=0 if off == "shift" else 0.1,
        height_shift=0 if off == "shift" else 0.1,
        zoom=0 if off == "zoom" else 0.2,
        horizontal_flip=off != "flip",
    )
    images = np.random.default_rng(0).uniform(0, 255, size=(20, 16, 16, 3))
    parameters = randomness.augmentation(randomness.generator(1, "test"), 20, config, 16)
    found = affine(keras.ops.array(images, "float64"), randomness.affine_matrices(parameters, 16))
    reference = ImageDataGenerator(dtype="float64")
    for i, image in enumerate(images):
        transform = {name: parameters[name][i] for name in ("theta", "tx", "ty", "zx", "zy")}
        transform["flip_horizontal"] = parameters["flip"][i]
        np.testing.assert_allclose(found[i], reference.apply_transform(image, transform), atol=1e-9)


def test_augmentation_acts_in_training_alone() -> None:
    layer = KerasAugment()
    images = np.random.default_rng(0).integers(0, 256, size=(4, 16, 16, 3), dtype="uint8")
    parameters = randomness.augmentation(randomness.generator(1, "test"), 4, Augment(), 16)
    inputs = as_inputs(parameters, 16)
    np.testing.assert_array_equal(layer(images, inputs, training=False), images)
    assert np.abs(np.asarray(layer(images, inputs, training=True)) - images).mean() > 1


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_brightness_is_that_of_image_data_generator(precision: str) -> None:
    """On whole levels and between them; 0 and 1 are shortcuts of Pillow's."""
    random = np.random.default_rng(0)
    whole = random.integers(0, 256, size=(6, 16, 16, 3)).astype(precision)
    between = random.uniform(0, 255, size=(6, 16, 16, 3)).astype(precision)
    if precision == "float32":
        between = np.round(between * 1024) / 1024  # which float32 pixels are taken for
    factors = np.array([0.0, 0.3, 1.0, 1.21, 2.5, 0.999])
    reference = ImageDataGenerator()
    for images in (whole, between):
        found = np.asarray(brightness(keras.ops.array(images), factors.astype(precision)))
        assert found.dtype == precision
        for image, factor, output in zip(images, factors, found, strict=True):
            expected = reference.apply_transform(image.astype("float32"), {"brightness": factor})
            np.testing.assert_array_equal(output, expected)


def test_a_batch_holds_the_brightness_of_each_image() -> None:
    settings = experiment(training={"batch_size": 50}, augment={"brightness": [0.5, 1.5]})
    dataset = load(settings.data, settings.seed)
    batches = build_data(settings, dataset).train
    inputs: Any = batches[0][0]
    assert inputs.keys() == {"images", "matrices", "brightness"}
    drawn = randomness.augmentation(
        randomness.generator(settings.seed, "augment", 0, 0), 50, settings.augment, 32
    )
    np.testing.assert_allclose(inputs["brightness"], drawn["brightness"], rtol=1e-6)
    trained = build_classifier(settings, len(dataset.class_names)).trained
    assert {tensor.name for tensor in trained.inputs} == inputs.keys()
    assert np.isfinite(trained.train_on_batch(*batches[0])[0])


@pytest.mark.parametrize("sampling", ["shuffle", "balanced"])
def test_batches_come_in_the_shared_order_and_the_last_is_smaller(sampling: str) -> None:
    settings = experiment(training={"batch_size": 50, "sampling": sampling})
    dataset = load(settings.data, settings.seed)
    batches = build_data(settings, dataset).train
    batches.epoch = 3
    order = randomness.training_order(settings.seed, 3, dataset.train.labels, settings.training.sampling)
    assert len(batches) == 3
    for step in range(3):
        inputs, targets = batches[step]
        expected, labels = dataset.train.batch(order[50 * step : 50 * (step + 1)])
        np.testing.assert_array_equal(inputs["images"], expected)
        np.testing.assert_array_equal(targets.argmax(1), labels)
        generator = randomness.generator(settings.seed, "augment", 3, step)
        drawn = randomness.augmentation(generator, len(labels), settings.augment, 32)
        np.testing.assert_allclose(
            inputs["matrices"], randomness.affine_matrices(drawn, 32), rtol=1e-6, atol=1e-6
        )
    assert len(labels) == 17


def test_loss_smooths_labels_and_penalises_every_trained_kernel() -> None:
    settings = experiment(training={"l2": 0.01, "label_smoothing": 0.2}, augment={"kind": "none"})
    classifier = build_classifier(settings, 3)
    images = np.random.default_rng(0).integers(0, 256, size=(7, 32, 32, 3), dtype="uint8")
    labels = np.array([0, 1, 2, 2, 1, 0, 2])
    probabilities = classifier.model.predict(images.astype("float32"), verbose=0)
    targets = np.eye(3)[labels] * 0.8 + 0.2 / 3
    layers = named_layers(classifier.model)
    kernels = [layers[f"conv{i}"].kernel for i in (1, 2, 3, 4)] + [layers["dense"].kernel]
    kernels.append(layers["logits"].kernel)
    penalty = 0.01 * sum(float(np.square(kernel).sum()) for kernel in kernels)
    expected = -(targets * np.log(probabilities)).sum(1).mean() + penalty
    scores = classifier.trained.evaluate(images, np.eye(3)[labels], verbose=0, return_dict=True)
    assert scores["loss"] == pytest.approx(expected, rel=1e-5)
    tuned = experiment(
        model={"name": "vgg16", "weights": "random", "fine_tune_blocks": 1}, training={"l2": 0.01}
    )
    penalised = {
        layer.name
        for layer in named_layers(build_model(tuned, 3)).values()
        for weight in layer.trainable_weights
        if weight.regularizer is not None
    }
    assert penalised == {"block5_conv1", "block5_conv2", "block5_conv3", "dense", "logits"}


@pytest.mark.parametrize("name", BACKBONES)
def test_base_is_read_from_a_file_that_keras_wrote(name: str, tmp_path: Path) -> None:
    net = BASES[name](keras.Input((32, 32, 3)))
    random = np.random.default_rng(0)
    net.set_weights([random.random(w.shape, np.float32) for w in net.weights])
    net.save_weights(tmp_path / "base.weights.h5")
    found = base_weights(name, str(tmp_path / "base.weights.h5"), "nowhere")
    expected = {layer.name: layer.get_weights() for layer in net.layers if layer.weights}
    assert found.keys() == expected.keys()
    for layer, arrays in found.items():
        for got, wanted in zip(arrays, expected[layer], strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_weights_that_nothing_draws_are_refused() -> None:
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2DTranspose(4, 3, name="up")(images)
    with pytest.raises(ValueError, match=r"layer up of kind Conv2DTranspose: nothing draws its kernel, bias"):
        initialise(keras.Model(images, x), 1, "zeros")


@pytest.mark.parametrize("biases", [True, False])
def test_every_kind_of_kernel_is_the_shared_draw(biases: bool) -> None:
    images = keras.Input((8, 8, 3))
    x = keras.layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=biases, name="depthwise")(images)
    x = keras.layers.Conv2D(8, 3, groups=2, use_bias=biases, name="grouped")(x)
    with undrawn():
        model = keras.Model(images, x)
    initialise(model, 5, "uniform")
    for name, shape, units in (("depthwise", (3, 3, 3, 2), 6), ("grouped", (3, 3, 3, 8), 8)):
        kernel, *bias = model.get_layer(name).get_weights()
        np.testing.assert_array_equal(kernel, randomness.kernel(5, name, shape).astype("float32"))
        assert len(bias) == biases
        for array in bias:
            np.testing.assert_array_equal(array, randomness.bias(5, name, units, "uniform").astype("float32"))
