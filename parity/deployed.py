"""An exported file at work with nothing but its runtime and Pillow: what a deployer writes.

    python parity/deployed.py model.onnx|model.tflite IMAGE...

It stands alone on purpose: copy it. Resizing is the one step that is not inside the file.
"""

import json
import sys
import zipfile

import numpy as np
from PIL import Image


def open_model(path):
    """What the file says of itself, and a function from uint8 images (N, S, S, 3) to probabilities (N, C)."""
    if path.endswith(".onnx"):
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return session.get_modelmeta().custom_metadata_map, lambda images: session.run(
            None, {"images": images}
        )[0]
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(path).get_signature_runner()
    with zipfile.ZipFile(path) as archive:
        facts = json.loads(archive.read("metadata.json"))
    return facts, lambda images: next(iter(runner(images=images).values()))


def main():
    facts, classify = open_model(sys.argv[1])
    names, size = json.loads(facts["class_names"]), int(facts["image_size"])
    for path in sys.argv[2:]:
        image = Image.open(path).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
        [probabilities] = classify(np.asarray(image)[None])
        best = np.argsort(-probabilities)[:3]
        print(path, *(f"{names[i]} {probabilities[i]:.4f}" for i in best), sep="  ")


if __name__ == "__main__":
    main()
