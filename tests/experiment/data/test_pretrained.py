"""Pretrained weights from Keras's file layouts, made small."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from loopback import Server, md5

from experiment.backbones import BACKBONES, vgg16_layers
from experiment.data.pretrained import Weights, base_weights
from experiment.errors import DataError

BLOCKS = ((2, 4), (1, 5))
SHAPES = {"block1_conv1": (3, 4), "block1_conv2": (4, 4), "block2_conv1": (4, 5)}
Arrays = dict[str, tuple[np.ndarray, np.ndarray]]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = replace(BACKBONES["vgg16"], layers=tuple(vgg16_layers(BLOCKS)))
    monkeypatch.setitem(BACKBONES, "vgg16", tiny)


@pytest.fixture
def arrays() -> Arrays:
    random = np.random.default_rng(0)
    return {
        name: (random.random((3, 3, *channels), np.float32), random.random(channels[1], np.float32))
        for name, channels in SHAPES.items()
    }


def legacy(path: Path, arrays: Arrays) -> str:
    with h5py.File(path, "w") as file:
        for name, (kernel, bias) in arrays.items():
            file[f"{name}/{name}_W_1:0"], file[f"{name}/{name}_b_1:0"] = kernel, bias
        file.create_group("block1_pool")
    return str(path)


def keras3(path: Path, arrays: Arrays) -> str:
    with h5py.File(path, "w") as file:
        for layer, pair in enumerate(arrays.values()):
            for number, array in enumerate(pair):
                file[f"layers/conv2d{f'_{layer}' if layer else ''}/vars/{number}"] = array
        file.create_group("layers/max_pooling2d/vars")
    return str(path)


def imagenet(monkeypatch: pytest.MonkeyPatch, url: str, content: bytes | None) -> None:
    checksum = None if content is None else md5(content)
    monkeypatch.setitem(BACKBONES, "vgg16", replace(BACKBONES["vgg16"], url=url, checksum=checksum))


def assert_read(read: Weights, arrays: Arrays) -> None:
    assert list(read) == list(SHAPES)
    for name, pair in arrays.items():
        for got, expected in zip(read[name], pair, strict=True):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("write", [legacy, keras3])
def test_both_layouts_are_read_by_layer_name(write, arrays: Arrays, tmp_path: Path) -> None:
    assert_read(base_weights("vgg16", write(tmp_path / "w.h5", arrays), "nowhere"), arrays)


def test_random_needs_no_file() -> None:
    assert base_weights("vgg16", "random", "nowhere") == {}


def test_a_missing_layer_is_named(arrays: Arrays, tmp_path: Path) -> None:
    del arrays["block2_conv1"]
    with pytest.raises(DataError, match=r"w\.h5: not a Keras weights file of VGG16.*block2_conv1"):
        base_weights("vgg16", legacy(tmp_path / "w.h5", arrays), "nowhere")


@pytest.mark.parametrize("part", ["kernel", "bias"])
def test_a_wrong_shape_is_named_with_the_right_one(part: str, arrays: Arrays, tmp_path: Path) -> None:
    kernel, bias = arrays["block1_conv2"]
    arrays["block1_conv2"] = (kernel[:, :, :3], bias) if part == "kernel" else (kernel, bias[:3])
    with pytest.raises(DataError, match=r"w\.h5: block1_conv2 holds .* VGG16 has \(3, 3, 4, 4\) and \(4,\)"):
        base_weights("vgg16", keras3(tmp_path / "w.h5", arrays), "nowhere")


def test_a_layer_with_a_third_array_is_refused(arrays: Arrays, tmp_path: Path) -> None:
    path = keras3(tmp_path / "w.h5", arrays)
    with h5py.File(path, "a") as file:
        file["layers/conv2d/vars/2"] = np.zeros(4)
    with pytest.raises(DataError, match="conv2d holds 3 arrays"):
        base_weights("vgg16", path, "nowhere")


@pytest.mark.parametrize("content", [b"", b"not HDF5"])
def test_a_file_that_is_not_hdf5_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.h5").write_bytes(content)
    with pytest.raises(DataError, match=r"w\.h5: not a Keras weights file"):
        base_weights("vgg16", str(tmp_path / "w.h5"), "nowhere")
    with pytest.raises(DataError, match=r"absent\.h5"):
        base_weights("vgg16", str(tmp_path / "absent.h5"), "nowhere")


def test_imagenet_is_downloaded_once_into_the_cache(
    server: Server, arrays: Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = Path(legacy(tmp_path / "made.h5", arrays)).read_bytes()
    server.files["/vgg16.h5"] = content
    imagenet(monkeypatch, f"{server.url}/vgg16.h5", content)
    for _ in range(2):
        assert_read(base_weights("vgg16", "imagenet", str(tmp_path / "cache")), arrays)
    assert server.requests == [("/vgg16.h5", None)]
    assert (tmp_path / "cache" / "vgg16.h5").read_bytes() == content


def test_a_wrong_download_is_refused_and_not_kept(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imagenet(monkeypatch, f"{server.url}/file", b"another file")
    with pytest.raises(DataError, match=r"--model\.weights random"):
        base_weights("vgg16", "imagenet", str(tmp_path / "cache"))
    assert not (tmp_path / "cache" / "file").exists()


def test_a_server_that_refuses_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        imagenet(monkeypatch, f"http://127.0.0.1:{probe.getsockname()[1]}/vgg16.h5", b"")
        with pytest.raises(DataError, match=r"cannot download(.|\n)*--model\.weights random"):
            base_weights("vgg16", "imagenet", str(tmp_path / "cache"))


def test_without_a_published_checksum_the_server_states_one(
    server: Server, arrays: Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["/vgg16.h5"] = Path(legacy(tmp_path / "made.h5", arrays)).read_bytes()
    imagenet(monkeypatch, f"{server.url}/vgg16.h5", None)
    assert_read(base_weights("vgg16", "imagenet", str(tmp_path / "cache")), arrays)
    monkeypatch.setattr("experiment.data.pretrained.stated", lambda *_: md5(b"another file"))
    with pytest.raises(DataError, match="expected md5"):
        base_weights("vgg16", "imagenet", str(tmp_path / "other"))


@pytest.mark.parametrize("fault", ["no MD5", "no file"])
def test_a_server_that_states_no_checksum_names_the_way_out(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    server.states_md5 = fault != "no MD5"
    imagenet(monkeypatch, f"{server.url}/{'file' if fault == 'no MD5' else 'gone'}", None)
    reason = "the server states no MD5 of it" if fault == "no MD5" else "HTTP Error 404"
    with pytest.raises(DataError, match=rf"cannot download .*{reason}(.|\n)*--model\.weights random"):
        base_weights("vgg16", "imagenet", str(tmp_path / "cache"))


def other_names(path: Path, arrays: Arrays, layers: int = 3) -> str:
    """An older file, whose layers have other names than Keras's model has by now."""
    names = [f"old_{layer}" for layer in range(len(arrays))]
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"input", *(name.encode() for name in names[:layers]), b"old_pool"]
        for empty in ("input", "old_pool"):
            file.create_group(empty).attrs["weight_names"] = np.zeros(0)
        for name, (kernel, bias) in zip(names, arrays.values(), strict=True):
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}/kernel:0".encode(), f"{name}/bias:0".encode()]
            group["kernel:0"], group["bias:0"] = kernel, bias
    return str(path)


def test_layers_of_other_names_are_read_in_their_order(arrays: Arrays, tmp_path: Path) -> None:
    assert_read(base_weights("vgg16", other_names(tmp_path / "w.h5", arrays), "nowhere"), arrays)
    with pytest.raises(DataError, match=r"few\.h5: not a Keras weights file of VGG16"):
        base_weights("vgg16", other_names(tmp_path / "few.h5", arrays, layers=2), "nowhere")
    turned = dict(reversed(arrays.items()))
    with pytest.raises(DataError, match=r"turned\.h5: block1_conv1 holds .* VGG16 has \(3, 3, 3, 4\)"):
        base_weights("vgg16", other_names(tmp_path / "turned.h5", turned), "nowhere")
