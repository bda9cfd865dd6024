"""Published data sets, a record each: their classes, their files, and the reader of those."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class Published(NamedTuple):
    """A published data set.

    files: the checksum of each, "md5:HEX", by address. members: where there is one file, an archive, what is
    read of it. read: the contents of the members, or of the files, in order -> x_train, y_train, x_test,
    y_test: images (N, H, W) or (N, H, W, 3) uint8, labels (N,) int64; raises ValueError for other content.
    """

    class_names: tuple[str, ...]
    files: dict[str, str]
    read: Callable[[Sequence[bytes]], Arrays]
    members: tuple[str, ...] = ()


def read_cifar(contents: Sequence[bytes], labels: int, classes: int) -> Arrays:
    """Read CIFAR's binary files, the last of which is the test split.

    An image is `labels` bytes, the last of them its class, and a plane of 1024 bytes for each colour.
    """
    images, numbers = [], []
    for content in contents:
        if len(content) % (labels + 3072):
            raise ValueError(f"{len(content)} bytes are not images of {labels + 3072}")
        records = np.frombuffer(content, np.uint8).reshape(-1, labels + 3072)
        images.append(records[:, labels:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        numbers.append(records[:, labels - 1].astype(np.int64))
        if (numbers[-1] >= classes).any():
            raise ValueError(f"class {numbers[-1].max()} of {classes}")
    train, test = slice(-1), -1
    return np.concatenate(images[train]), np.concatenate(numbers[train]), images[test], numbers[test]


def read_idx(contents: Sequence[bytes]) -> Arrays:
    """Read the gzipped IDX files of MNIST: training images and labels, then those of the test split."""
    arrays = []
    for compressed in contents:
        content = gzip.decompress(compressed)
        # big-endian: two zeros, type 8 (uint8), number of axes, their lengths, the numbers
        zeros, kind, axes = struct.unpack(">HBB", content[:4])
        shape = struct.unpack(f">{axes}I", content[4 : 4 + 4 * axes])
        if (zeros, kind) != (0, 8) or len(content) != 4 + 4 * axes + int(np.prod(shape)):
            raise ValueError("not an IDX file of bytes")
        arrays.append(np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape))
    x_train, y_train, x_test, y_test = arrays
    return x_train, y_train.astype(np.int64), x_test, y_test.astype(np.int64)


MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist"
FASHION_MNIST = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
TORONTO = "https://www.cs.toronto.edu/~kriz"

PUBLISHED = {
    "cifar10": Published(
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        {f"{TORONTO}/cifar-10-binary.tar.gz": "md5:c32a1d4ab5d03f1284b67883e8d87530"},
        partial(read_cifar, labels=1, classes=10),
        tuple(
            f"cifar-10-batches-bin/{name}.bin"
            for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
        ),
    ),
    "cifar100": Published(
        (
            *("apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle"),
            *("bottle", "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle"),
            *("caterpillar", "cattle", "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch"),
            *("crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest", "fox"),
            *("girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion"),
            *("lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom"),
            *("oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree"),
            *("plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road"),
            *("rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake"),
            *("spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone"),
            *("television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale"),
            *("willow_tree", "wolf", "woman", "worm"),
        ),
        {f"{TORONTO}/cifar-100-binary.tar.gz": "md5:03b5dce01913d631647c71ecec9e9cb8"},
        partial(read_cifar, labels=2, classes=100),  # of a superclass, then of the class
        ("cifar-100-binary/train.bin", "cifar-100-binary/test.bin"),
    ),
    "mnist": Published(
        tuple("0123456789"),
        {
            f"{MNIST}/train-images-idx3-ubyte.gz": "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
            f"{MNIST}/train-labels-idx1-ubyte.gz": "md5:d53e105ee54ea40749a09fcbcd1e9432",
            f"{MNIST}/t10k-images-idx3-ubyte.gz": "md5:9fb629c4189551a2d022fa330f9573f3",
            f"{MNIST}/t10k-labels-idx1-ubyte.gz": "md5:ec29112dd5afa0611ce80d1b7f02629c",
        },
        read_idx,
    ),
    "fashion_mnist": Published(
        (
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
        {
            f"{FASHION_MNIST}/train-images-idx3-ubyte.gz": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            f"{FASHION_MNIST}/train-labels-idx1-ubyte.gz": "md5:25c81989df183df01b3e8a0aad5dffbe",
            f"{FASHION_MNIST}/t10k-images-idx3-ubyte.gz": "md5:bef4ecab320f06d8554ea6380940ec79",
            f"{FASHION_MNIST}/t10k-labels-idx1-ubyte.gz": "md5:bb300cfdad3c16e7a12a480ee83cd310",
        },
        read_idx,
    ),
}
