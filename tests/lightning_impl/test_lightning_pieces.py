"""The model, its dropout, its augmentation and its batches, against what both sides agreed on."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform
from torchvision.transforms import v2

from experiment import randomness
from experiment.config import Augment, Experiment
from experiment.data.dataset import load
from lightning_impl.augment import KerasAugment, affine, brightness, build_augment
from lightning_impl.classifier import build_classifier
from lightning_impl.data import build_data
from lightning_impl.dropout import Dropout, SharedDropout
from lightning_impl.model import build_model, count_parameters, initialise, keras_shape

SMALL = {"data": {"name": "digits", "limit": 130}, "training": {"batch_size": 50}}


def experiment(**sections) -> Experiment:
    return Experiment.model_validate({**SMALL, **sections})


def test_cnn_is_the_tutorial_network() -> None:
    model = build_model(Experiment(), 10)
    assert count_parameters(model) == {"total": 479_786, "trainable": 478_890, "non_trainable": 896}
    kinds = [type(layer).__name__ for layer in model.children()]
    block = ["Conv2d", "ReLU", "BatchNorm"] * 2 + ["MaxPool2d", "Dropout"]
    head = ["Flatten", "Linear", "ReLU", "BatchNorm", "Dropout", "Linear"]
    assert kinds == ["Rescaling", *block, *block, *head]
    assert [layer.p for layer in model.children() if isinstance(layer, torch.nn.Dropout)] == [0.2, 0.3, 0.5]
    assert model.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_vgg16_has_a_frozen_base() -> None:
    settings = {"name": "vgg16", "weights": "random", "fine_tune_blocks": 0}
    model = build_model(experiment(model=settings), 10)
    counts = {"total": 14_848_586, "trainable": 133_898, "non_trainable": 14_714_688}
    assert count_parameters(model) == counts
    tuned = build_model(experiment(model={**settings, "fine_tune_blocks": 1}), 10)
    assert count_parameters(tuned)["trainable"] == 133_898 + 3 * (3 * 3 * 512 * 512 + 512)
    trained = {name.split(".")[1] for name, p in tuned.named_parameters() if p.requires_grad}
    assert trained == {"block5_conv1", "block5_conv2", "block5_conv3", "dense", "logits"}


def test_vgg16_sees_bgr_minus_the_mean() -> None:
    model = build_model(experiment(model={"name": "vgg16", "weights": "random"}), 10)
    image = torch.tensor([200.0, 150.0, 100.0]).reshape(1, 3, 1, 1)
    flipped = model.get_submodule("base.flip")(image)
    seen = model.get_submodule("base.preprocess")(flipped).flatten()
    torch.testing.assert_close(seen, torch.tensor([100 - 103.939, 150 - 116.779, 200 - 123.68]))


@pytest.mark.parametrize("biases", ["zeros", "uniform"])
def test_initial_weights_are_the_shared_draws(biases: str) -> None:
    model = build_model(experiment(model={"initial_biases": biases}, seed=5), 10)
    for name, axes in (("conv3", (2, 3, 1, 0)), ("dense", (1, 0))):
        layer: Any = model.get_submodule(name)
        shape = keras_shape(layer)
        kernel = randomness.kernel(5, name, shape).astype("float32")
        np.testing.assert_array_equal(layer.weight.detach().permute(*axes), kernel)
        bias = randomness.bias(5, name, shape[-1], biases).astype("float32")
        np.testing.assert_array_equal(layer.bias.detach(), bias)  # type: ignore[operator]


@pytest.mark.parametrize("shape", [(6, 8, 5, 5), (6, 40)])
def test_shared_dropout_draws_the_agreed_masks(shape: tuple[int, ...]) -> None:
    layer = SharedDropout(0.3, seed=1, name="dropout1").train()
    last = (shape[0], *shape[2:], shape[1]) if len(shape) == 4 else shape
    for step in range(3):
        output = layer(torch.ones(shape)).numpy()
        output = output.transpose(0, 2, 3, 1) if len(shape) == 4 else output
        mask = randomness.dropout_mask(randomness.dropout_key(1, "dropout1"), step, last, 0.3)
        np.testing.assert_allclose(output, mask / 0.7, rtol=1e-6)
    assert (layer.eval()(torch.ones(shape)) == 1).all()


@pytest.mark.parametrize("off", ["rotation", "shift", "zoom", "flip", "nothing"])
def test_augmentation_resamples_as_scipy_does(off: str) -> None:
    config = Augment(
        rotation=0 if off == "rotation" else 15,
        width_shift=0 if off == "shift" else 0.1,
        height_shift=0 if off == "shift" else 0.1,
        zoom=0 if off == "zoom" else 0.2,
        horizontal_flip=off != "flip",
    )
    images = np.random.default_rng(0).uniform(0, 255, size=(20, 3, 16, 16))
    matrices = randomness.affine_matrices(
        randomness.augmentation(randomness.generator(1, "test"), 20, config, 16), 16
    )
    found = affine(torch.from_numpy(images), matrices).numpy()
    for image, matrix, output in zip(images, matrices, found, strict=True):
        swapped = matrix[::-1, [1, 0]]  # scipy counts rows first
        for channel, resampled in zip(image, output, strict=True):
            expected = affine_transform(channel, swapped, matrix[::-1, 2], order=1, mode="nearest")
            np.testing.assert_allclose(resampled, expected, atol=1e-9)


def test_augmentation_composes_and_repeats() -> None:
    images = torch.rand(4, 3, 16, 16)
    chain = v2.Compose([KerasAugment(Augment()), v2.Normalize([0.5] * 3, [2.0] * 3)])
    torch.manual_seed(3)
    first = chain(images)
    second = chain(images)
    torch.manual_seed(3)
    assert torch.equal(chain(images), first)
    assert not torch.equal(first, second)
    assert chain(images[0]).shape == (3, 16, 16)
    moved = [(a - b).abs().mean() for a, b in zip(first, images, strict=True)]
    assert len({round(float(m), 6) for m in moved}) == 4  # one draw an image


def test_brightness_is_whole_levels_times_a_factor() -> None:
    images = torch.tensor([0.0, 9.0, 99.9, 200.0, 254.9999]).expand(5, 3, 1, 5).contiguous()
    factors = np.array([0.0, 0.5, 1.0, 1.21, 2.5])
    expected = torch.tensor(
        [[0] * 5, [0, 4, 49, 100, 127], [0, 9, 99, 200, 254], [0, 10, 119, 242, 255], [0, 22, 247, 255, 255]]
    )
    assert torch.equal(brightness(images.double(), factors)[:, 0, 0], expected.double())
    expected[2, 4] = 255  # what float32 leaves within a 2048th of a level is on it
    assert torch.equal(brightness(images, factors)[:, 0, 0], expected.float())


def test_several_processes_take_their_shares_of_every_parameter() -> None:
    augment = KerasAugment(Augment(brightness=[0.4, 1.6]))
    images = torch.rand(6, 3, 16, 16) * 255

    def part(place: tuple[int, ...], rows: slice) -> torch.Tensor:
        augment.generator, augment.place = randomness.generator(1, "augment", 0, 0), place
        return augment(images[rows])

    whole = part((), slice(None))
    torch.testing.assert_close(torch.cat([part((0, 6), slice(0, 2)), part((2, 6), slice(2, 6))]), whole)
    assert torch.equal(whole, whole.floor()), "brightness ends in whole levels"


def test_stock_augmentation_draws_for_each_image() -> None:
    augment = build_augment(Augment(kind="torchvision"))
    assert augment is not None
    image = torch.rand(3, 16, 16)
    outputs = augment(torch.stack([image] * 5))
    assert len({float(output.sum()) for output in outputs}) == 5
    assert build_augment(Augment(kind="none")) is None


@pytest.mark.parametrize("sampling", ["shuffle", "balanced"])
def test_batches_come_in_the_shared_order_and_the_last_is_smaller(sampling: str) -> None:
    settings = experiment(training={"batch_size": 50, "sampling": sampling}, augment={"kind": "none"})
    dataset = load(settings.data, settings.seed)
    data = build_data(settings, dataset)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(3)  # type: ignore[attr-defined]
    order = randomness.training_order(settings.seed, 3, dataset.train.labels, settings.training.sampling)
    start = 0
    for step, batch in enumerate(loader):
        images, labels = data.on_after_batch_transfer(batch, 0)[:2]
        expected, expected_labels = dataset.train.batch(order[start : start + 50])
        np.testing.assert_array_equal(images.permute(0, 2, 3, 1), expected)
        np.testing.assert_array_equal(labels, expected_labels)
        assert list(batch[2:]) == [3, step, 0, len(labels)]
        start += len(labels)
    assert start == len(dataset.train) == 117
    assert len(labels) == 17


def test_resident_images_give_the_same_batches() -> None:
    settings = experiment(augment={"kind": "none"})
    dataset = load(settings.data, settings.seed)
    data = build_data(settings, dataset)
    direct = [data.on_after_batch_transfer(batch, 0) for batch in data.val_dataloader()]
    data.resident = torch.from_numpy(dataset.images[:].copy())
    batch = next(iter(data.val_dataloader()))
    assert batch[0].dim() == 1
    resident = [data.on_after_batch_transfer(batch, 0) for batch in data.val_dataloader()]
    for (images, labels, *_), (same, same_labels, *_) in zip(direct, resident, strict=True):
        assert torch.equal(images, same)
        assert torch.equal(labels, same_labels)


def test_loss_is_that_of_keras() -> None:
    settings = experiment(training={"l2": 0.01, "label_smoothing": 0.2})
    weights = [0.5, 1.0, 2.0]
    classifier = build_classifier(settings, 3, weights)
    logits, labels = torch.randn(7, 3), torch.tensor([0, 1, 2, 2, 1, 0, 2])
    targets = np.eye(3)[labels] * 0.8 + 0.2 / 3
    losses = -(targets * torch.log_softmax(logits, 1).numpy()).sum(1)
    layers = [classifier.network.get_submodule(f"conv{i}") for i in (1, 2, 3, 4)]
    layers += [classifier.network.get_submodule(name) for name in ("dense", "logits")]
    penalty = 0.01 * sum(float((layer.weight**2).sum()) for layer in layers)  # type: ignore[operator]
    weighted = (losses * np.array(weights)[labels]).mean() + penalty
    assert float(classifier.loss(logits, labels, classifier.class_weights)) == pytest.approx(weighted)
    assert float(classifier.loss(logits, labels)) == pytest.approx(losses.mean() + penalty)


def test_mean_loss_counts_images_not_batches() -> None:
    classifier = build_classifier(experiment(), 3)
    for loss, images in ((1.0, 3), (2.0, 1)):
        classifier.train_loss.update(torch.tensor(loss).expand(images))
    assert float(classifier.train_loss.compute()) == 1.25


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dropout_keeps_the_share_that_it_should_and_scales_it(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = Dropout(0.3)
    ones = torch.ones(64, 32, 14, 14, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
    out = layer(ones)
    kept = out != 0
    assert kept.float().mean().item() == pytest.approx(0.7, abs=0.003)
    assert out.dtype == dtype
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(out[kept], torch.tensor(1 / 0.7, dtype=dtype))
    out.sum().backward()
    assert ones.grad is not None
    assert torch.equal(ones.grad, out)
    # Each image, channel and place is drawn by itself.
    for axes in ((1, 2, 3), (0, 2, 3), (0, 1)):
        shares = kept.float().mean(axes)
        count = kept.numel() / shares.numel()
        assert (shares - 0.7).abs().max() < 5 * (0.21 / count) ** 0.5
    torch.manual_seed(0)
    assert torch.equal(layer(ones), out)
    assert layer.eval()(ones) is ones


def test_weights_that_nothing_draws_are_refused() -> None:
    model = torch.nn.Sequential(OrderedDict(up=torch.nn.ConvTranspose2d(3, 4, 3)))
    with pytest.raises(ValueError, match=r"layer up of kind ConvTranspose2d: nothing draws its kernel, bias"):
        initialise(model, 1, "zeros")


@pytest.mark.parametrize("biases", [True, False])
def test_every_kind_of_kernel_is_the_shared_draw(biases: bool) -> None:
    depthwise = torch.nn.Conv2d(3, 6, 3, groups=3, bias=biases)
    grouped = torch.nn.Conv2d(6, 8, 3, groups=2, bias=biases)
    initialise(torch.nn.Sequential(OrderedDict(depthwise=depthwise, grouped=grouped)), 5, "uniform")
    drawn = randomness.kernel(5, "depthwise", (3, 3, 3, 2)).astype("float32")
    for channel in range(3):  # Keras's output c * multiplier + j is that of channel c with its j-th kernel
        for j in range(2):
            np.testing.assert_array_equal(
                depthwise.weight.detach()[channel * 2 + j, 0], drawn[:, :, channel, j]
            )
    drawn = randomness.kernel(5, "grouped", (3, 3, 3, 8)).astype("float32")
    np.testing.assert_array_equal(grouped.weight.detach().permute(2, 3, 1, 0), drawn)
    for layer, name, units in ((depthwise, "depthwise", 6), (grouped, "grouped", 8)):
        if biases:
            expected = randomness.bias(5, name, units, "uniform").astype("float32")
            np.testing.assert_array_equal(layer.bias.detach(), expected)  # type: ignore[union-attr]
        else:
            assert layer.bias is None
