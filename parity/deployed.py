"""An exported file at work with nothing but its runtime and Pillow: what a deployer writes.

    python parity/deployed.py model.onnx|model.tflite IMAGE...

It stands alone on purpose: copy it. Reading an image is what is not inside the file: `read` makes of an image
file the numbers that the model was trained on.
"""

import json
import os
import sys
import zipfile

import numpy as np
from PIL import Image, ImageOps


def open_model(path):
    """What the file says of itself, and a function from uint8 images (N, S, S, 3) to probabilities (N, C).

    Exits with 2 and a line for a file that is damaged, or was not written by `export`.
    """
    try:
        with open(path, "rb") as file:  # runtimes open no file whose name is not UTF-8
            content = file.read()
        if path.endswith(".onnx"):
            import onnxruntime

            session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
            facts = session.get_modelmeta().custom_metadata_map

            def classify(images):
                return session.run(None, {"images": images})[0]
        else:
            from ai_edge_litert.interpreter import Interpreter

            runner = Interpreter(model_content=content).get_signature_runner()
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


def check(path):
    """Raises ValueError for what is no file: a named pipe would be waited for."""
    if not os.path.isfile(path):
        raise ValueError("no regular file" if os.path.exists(path) else "no such file")


def read(path, size, background="#ffffff", bits=16):
    """An image file as uint8 (size, size, 3): turned upright, on a ground, its values from 0 to 255.

    background: what transparent parts are laid over. bits: white is 2**bits - 1 in grey images above 8 bits.
    """
    check(path)
    Image.init()
    still = [name for name in Image.OPEN if Image.MIME.get(name, "image/").startswith("image/")]
    with Image.open(path, formats=still) as opened:
        white = 2**bits - 1
        if opened.mode == "F":
            white = 1
        elif opened.format in ("PPM", "JPEG2000"):  # Pillow scales what they hold
            white = 65535
        elif any("I;12" in str(tile.args) for tile in opened.tile):
            white = 4095
        inverted = getattr(opened, "tag_v2", {}).get(262) == 0  # a TIFF file in which 0 is white
        opened.load()
        try:
            image = ImageOps.exif_transpose(opened)
        except Exception:  # damaged EXIF, of many kinds, says nothing, and the pixels were read
            image = opened.copy()
    if image.mode.startswith(("F", "I")):
        values = np.asarray(image)
        if not ((values >= 0) & (values <= white)).all():
            raise ValueError(f"values from {values.min():g} to {values.max():g}, not 0 to {white}")
        hidden = image.info.get("transparency")
        levels = np.rint(values / (white / 255)).astype(np.uint8)
        image = Image.fromarray(255 - levels if inverted else levels)
        if isinstance(hidden, int):
            image.putalpha(Image.fromarray(np.where(values == hidden, 0, 255).astype(np.uint8)))
    if image.has_transparency_data:
        if image.mode in ("La", "RGBa"):
            image = image.convert(image.mode.upper())
        image, ground = image.convert("RGBA"), Image.new("RGB", image.size, background)
        ground.paste(image, mask=image)
        image = ground
    return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))


def main():
    """Print the three likeliest classes of every image; returns the exit code."""
    if len(sys.argv) < 3:
        print("usage: python deployed.py model.onnx|model.tflite IMAGE...", file=sys.stderr)
        return 2
    path, *images = sys.argv[1:]
    try:
        check(path)
        facts, classify = open_model(path)
        names, size = json.loads(facts["class_names"]), int(facts["image_size"])
        reading = facts.get("background", "#ffffff"), int(facts.get("bits", 16))
    except Exception as error:  # runtimes raise many kinds for a damaged file
        print(f"error: {path}: cannot be read as an exported model ({_line(error)})", file=sys.stderr)
        return 2
    failed = 0
    for image in images:
        try:
            pixels = read(image, size, *reading)
        except Exception as error:  # decoders raise whatever a damaged file leads them into
            print(f"unreadable: {image} ({_line(error)})", file=sys.stderr)
            failed = 1
            continue
        [probabilities] = classify(pixels[None])
        best = np.argsort(-probabilities)[:3]
        shown = os.fsencode(image).decode(errors="replace")  # a name may be no UTF-8
        print(shown, *(f"{names[i]} {probabilities[i]:.4f}" for i in best), sep="  ")
    return failed


def _line(error):
    return " ".join(str(error).split())[:200] or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
