import json

import numpy as np
import pytest
from sklearn.metrics import classification_report, confusion_matrix

from experiment.evaluation.metrics import confusion, evaluate, report, shorten

# Six images of three classes; predictions 0 0 1 | 1 2 | 1.
TRUE = np.array([0, 0, 0, 1, 1, 2])
PROBABILITIES = np.array(
    [[0.8, 0.1, 0.1], [0.5, 0.3, 0.2], [0.2, 0.6, 0.2], [0.0, 1.0, 0.0], [0.1, 0.4, 0.5], [0.3, 0.4, 0.3]]
)
NAMES = ["ant", "bee", "cat"]


def test_confusion_has_true_rows_and_predicted_columns():
    matrix = confusion(TRUE, PROBABILITIES)
    assert matrix.dtype == np.int64
    assert matrix.tolist() == [[2, 1, 0], [0, 1, 1], [0, 1, 0]]


def test_scores_by_hand():
    metrics = evaluate(TRUE, PROBABILITIES, NAMES)
    assert metrics["test_accuracy"] == 3 / 6
    assert metrics["per_class"]["ant"] == {"precision": 1.0, "recall": 2 / 3, "f1": 0.8, "support": 3}
    assert metrics["per_class"]["bee"] == {"precision": 1 / 3, "recall": 0.5, "f1": 0.4, "support": 2}
    assert metrics["per_class"]["cat"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1}
    assert metrics["macro_f1"] == pytest.approx(0.4)


def test_a_class_without_test_images_scores_zero_and_counts_in_the_mean():
    probabilities = np.eye(4)[[0, 1, 1]]
    metrics = evaluate(np.array([0, 1, 1]), probabilities, ["a", "b", "c", "d"])
    assert metrics["test_accuracy"] == 1.0
    assert metrics["per_class"]["d"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    assert metrics["macro_f1"] == 0.5
    assert confusion(np.array([0, 1, 1]), probabilities).shape == (4, 4)


def test_agrees_with_scikit_learn():
    generator = np.random.default_rng(3)
    y_true, probabilities = generator.integers(0, 9, 500), generator.random((500, 10))
    predicted = probabilities.argmax(axis=1)
    names = [f"class {i}" for i in range(10)]
    expected = classification_report(
        y_true,
        predicted,
        labels=range(10),
        target_names=names,
        output_dict=True,
        zero_division=0,  # pyright: ignore[reportArgumentType]
    )
    assert isinstance(expected, dict)
    metrics = evaluate(y_true, probabilities, names)
    for name in names:
        for ours, theirs in (("precision",) * 2, ("recall",) * 2, ("f1", "f1-score"), ("support",) * 2):
            assert metrics["per_class"][name][ours] == pytest.approx(expected[name][theirs], abs=1e-15)
    assert metrics["macro_f1"] == pytest.approx(expected["macro avg"]["f1-score"], abs=1e-15)
    assert (confusion(y_true, probabilities) == confusion_matrix(y_true, predicted, labels=range(10))).all()


def test_result_is_plain_json():
    metrics = evaluate(TRUE.astype(np.int32), PROBABILITIES.astype(np.float32), NAMES)
    assert json.loads(json.dumps(metrics)) == metrics


@pytest.mark.parametrize(
    ("y_true", "probabilities", "names", "message"),
    [
        (TRUE, PROBABILITIES[:, 0], NAMES, r"\(N, C\)"),
        (TRUE[:0], PROBABILITIES[:0], NAMES, "at least 1"),
        (TRUE[:5], PROBABILITIES, NAMES, r"shape \(6,\)"),
        (TRUE[:, None], PROBABILITIES, NAMES, r"shape \(6,\)"),
        (TRUE.astype(float), PROBABILITIES, NAMES, "integers"),
        (TRUE + 1, PROBABILITIES, NAMES, r"\[0, 3\)"),
        (TRUE - 1, PROBABILITIES, NAMES, r"\[0, 3\)"),
        (TRUE, PROBABILITIES * np.nan, NAMES, "NaN"),
        (TRUE, PROBABILITIES, NAMES[:2], "2 class names for 3"),
        (TRUE, PROBABILITIES, ["a", "b", "a"], "differ"),
    ],
)
def test_wrong_input_is_named(y_true, probabilities, names, message):
    with pytest.raises(ValueError, match=message):
        evaluate(y_true, probabilities, names)


def test_report_is_aligned_and_complete():
    names = ["ant", "bee", "x" * 40 + "end"]
    lines = report(evaluate(TRUE, PROBABILITIES, names)).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split() == ["class", "precision", "recall", "f1", "support"]
    assert lines[1].split() == ["ant", "1.0000", "0.6667", "0.8000", "3"]
    assert lines[3].split()[0] == "x" * 12 + "…" + "x" * 8 + "end"
    assert lines[-2].split() == ["accuracy", "0.5000", "6"]
    assert lines[-1].split() == ["macro", "F1", "0.4000", "6"]


def test_shorten_keeps_both_ends():
    assert shorten("frog", 4) == "frog"
    assert shorten("n0123-poodle", 7) == "n01…dle"
    assert shorten("abcdef", 4) == "ab…f"
