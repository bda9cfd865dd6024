"""python -m lightning_impl.export RUN: a trained run as one ONNX file, from uint8 images to probabilities."""

from __future__ import annotations

import logging
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiment import cli
from experiment.deploy import export
from experiment.deploy.export import Content
from lightning_impl.checkpoint import load
from lightning_impl.predict import predictor
from lightning_impl.runtime import load_exported

OPSET = 18  # the oldest that torch writes by itself; `lowest` declares an older one where it can


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = export.parse("lightning", argv)
    return cli.guarded(lambda: export.export("lightning", arguments, write, predictor, load_exported))


def write(content: Content, path: Path) -> None:
    """Write the run's model, with a batch of any size and the metadata inside."""
    import onnx
    import torch
    from torch import Tensor, nn

    from lightning_impl.batchnorm_folding import fold

    class Deployed(nn.Module):
        """uint8 (N, S, S, 3) -> probabilities (N, classes)."""

        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: Tensor) -> Tensor:
            return self.model(images.movedim(-1, 1).to(torch.float32))

    size = content.trained.experiment.data.image_size
    probabilities = load(content.trained).to(torch.float32)
    if content.fold:
        probabilities.network = fold(probabilities.network)
    model = Deployed(probabilities).eval()
    images = torch.zeros((2, size, size, 3), dtype=torch.uint8)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model,
            (images,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["probabilities"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    with tempfile.TemporaryDirectory() as folder:  # these libraries open no file whose name is not UTF-8
        file = Path(folder) / "model.onnx"
        program.save(str(file), external_data=False)
        if content.quantize:
            quantize(file, content.quantize, content.calibration)
        made = onnx.load(str(file))
        lowest(made)
        del made.metadata_props[:]
        onnx.helper.set_model_props(made, content.metadata)
        onnx.save(made, str(file))
        onnx.checker.check_model(str(file), full_check=True)
        path.write_bytes(file.read_bytes())


def quantize(path: Path, kind: str, calibration: np.ndarray | None) -> None:
    """Quantise an ONNX file in place, as one of `experiment.deploy.export.QUANTIZATIONS`.

    The same numbers on every processor: on x86 without VNNI, ONNX Runtime adds two products of an unsigned
    activation and a signed weight in 16 bits, which saturate; with unsigned weights it adds them in 32. (With
    signed ones of 7 bits no sum saturates either, but a CIFAR-10 run lost 3 points of accuracy by them.)
    Dynamic's runtimes before 1.20 have no other convolution.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization import CalibrationDataReader, QuantType
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):
        """The calibration images, one by one."""

        def __init__(self, images: np.ndarray) -> None:
            self.batches = iter(np.split(images, len(images)))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"images": batch}

    logging.getLogger().setLevel(logging.ERROR)  # that uint8 images stay as they are
    quant_pre_process(str(path), str(path), skip_symbolic_shape=True)
    if kind == "float16":
        onnx.save(halved(onnx.load(str(path))), str(path))
    elif kind == "dynamic":
        quantization.quantize_dynamic(path, path, per_channel=True, weight_type=QuantType.QUInt8)
    else:
        assert calibration is not None
        quantization.quantize_static(
            path,
            path,
            Images(calibration),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QUInt8,
            extra_options={"WeightSymmetric": True},  # one zero point for all channels, as the kernels want
        )


def lowest(model) -> None:
    """Let an onnx.ModelProto declare the oldest operations and file format in which it means the same.

    Older runtimes refuse what is declared newer than they are, whether or not it is used.
    """
    from onnx import defs, helper

    newest = {entry.domain: entry.version for entry in model.opset_import}
    needed: dict[str, int] = {}
    for node in model.graph.node:
        version = defs.get_schema(node.op_type, newest[node.domain], node.domain).since_version
        needed[node.domain] = max(version, needed.get(node.domain, 1))
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(*entry) for entry in needed.items())
    model.ir_version = helper.find_min_ir_version_for(model.opset_import)


def halved(model):
    """An onnx.ModelProto whose float32 weights are kept in float16 and widened as it is loaded.

    It computes in float32, as TFLite's float16 models do: ONNX Runtime's CPU kernels have no other.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph, casts = model.graph, []
    for weight in graph.initializer:
        if weight.data_type == TensorProto.FLOAT:
            name = weight.name
            weight.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), f"{name}_float16")
            )
            casts.append(helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return model


if __name__ == "__main__":
    sys.exit(main())
