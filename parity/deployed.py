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
    """What the file says of itself, and a function from uint8 images (N, S, S, 3) to probabilities (N, C).

    Exits with 2 and a line for a file that is damaged, or was not written by `export`.
    """
    try:
        if path.endswith(".onnx"):
            import onnxruntime

            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            facts = session.get_modelmeta().custom_metadata_map

            def classify(images):
                return session.run(None, {"images": images})[0]
        else:
            from ai_edge_litert.interpreter import Interpreter

            runner = Interpreter(path).get_signature_runner()
            with zipfile.ZipFile(path) as archive:
                facts = json.loads(archive.read("metadata.json"))

            def classify(images):
                return next(iter(runner(images=images).values()))

        names, size = json.loads(facts["class_names"]), int(facts["image_size"])
        given = classify(np.zeros((2, size, size, 3), np.uint8)).shape
        if not isinstance(names, list) or given != (2, len(names)):
            raise ValueError(f"its class names do not fit its output, {given}")
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        print(f"error: {path}: cannot be used as a file that `export` wrote ({reason})", file=sys.stderr)
        raise SystemExit(2) from None
    return facts, classify


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
