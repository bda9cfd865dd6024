"""An exported model in a script of its own, which needs the runtime, numpy and Pillow and nothing else.

python examples/deploy.py MODEL.onnx|MODEL.tflite IMAGE...
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def onnx(path: Path) -> tuple[int, Callable[[np.ndarray], np.ndarray]]:
    """The side length of the images that an ONNX file takes, and a function from images to probabilities."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.get_inputs()[0].shape[1], lambda images: session.run(None, {"images": images})[0]


def tflite(path: Path) -> tuple[int, Callable[[np.ndarray], np.ndarray]]:
    """As `onnx`, of a TFLite file."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=str(path)).get_signature_runner()
    [size] = {int(details["shape"][1]) for details in runner.get_input_details().values()}
    return size, lambda images: next(iter(runner(images=images).values()))


def main(path: str, images: Sequence[str]) -> np.ndarray:
    """Classify N images and print the likeliest class of each; returns probabilities (N, classes)."""
    size, classify = (onnx if path.endswith(".onnx") else tflite)(Path(path))
    pixels = [np.asarray(Image.open(image).convert("RGB").resize((size, size))) for image in images]
    probabilities = np.asarray(classify(np.stack(pixels)))
    for image, row in zip(images, probabilities, strict=True):
        print(f"{image}  class {row.argmax()}  {row.max():.4f}")
    return probabilities


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
