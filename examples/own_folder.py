"""Training on a folder of one's own images: a folder for each class, as any camera roll may be sorted."""

import sys
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits

from experiment.runs.record import Run
from lightning_impl import predict, train


def main(folder: str) -> float:
    """Write 600 digits as PNG files, train on them and classify one; returns the test accuracy."""
    photos, run = Path(folder) / "photos", Path(folder) / "run"
    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images[:600], digits.target, strict=False)):
        path = photos / ("test" if number % 6 == 0 else "train") / f"digit {label}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15.9).astype("uint8")).resize((32, 32)).save(path)
    options = ["--data.name=folder", f"--data.root={photos}", "--augment.horizontal_flip=false", "--gpus=0"]
    options += ["--model.filters=[16,32]", "--training.batch_size=16", "--training.epochs=12"]
    train.main([*options, "--training.schedule.kind=cosine", f"--run.dir={run}", "--run.overwrite=true"])
    predict.main([str(run), str(photos / "test" / "digit 3")])
    return Run(run).read_json("metrics.json")["test_accuracy"]


if __name__ == "__main__":
    print(main(*sys.argv[1:] or ["runs/own-folder"]))
