"""The results of parity/accuracy/command.py in words: a sentence, and Markdown."""

from __future__ import annotations

from typing import Any

from experiment.system.markdown import table
from parity.accuracy.results import TARGET_POWER

WHY = {
    "equivalent": "lies within the margin",
    "not shown": "reaches beyond the margin",
    "different": "lies wholly beyond the margin",
}


def statement(results: dict[str, Any]) -> str:
    """The verdict in one sentence."""
    claim = results["comparisons"][0]
    where = "above" if claim["difference"] >= 0 else "below"
    return (
        f"{results['verdict'].capitalize()}: over {len(results['seeds'])} seeds Lightning's test accuracy "
        f"lies {abs(claim['difference']) * 100:.2f} points {where} Keras's on average, and the "
        f"{_confidence(results)} confidence interval, {_interval(claim)} points, "
        f"{WHY[results['verdict']]} of {_margin(results)} (p = {claim['p']:.2g})."
    )


def notes(results: dict[str, Any]) -> list[str]:
    """Remarks that a reader must know beside the verdict, a sentence each."""
    found, margin = [], results["margin"]
    claim, *baseline = results["comparisons"]
    if claim["power"] < TARGET_POWER:
        needed = claim["needed_seeds"]
        found.append(
            f"With this spread, {len(results['seeds'])} seeds show two equal sides to be equivalent with a "
            f"probability of {claim['power']:.2f} only; {TARGET_POWER} takes "
            f"{needed or 'more than a million'} seeds, to be chosen before they are run."
        )
    if claim["verdict"] == "equivalent" and (claim["ci_low"] > 0 or claim["ci_high"] < 0):
        found.append(
            "The difference is not zero: its interval leaves zero out. It is smaller than the margin."
        )
    for one in baseline[:2]:
        if one["verdict"] != "equivalent":
            side = one["name"].split()[0].capitalize()
            found.append(f"On these terms {side} is not shown to be equivalent to itself: {one['verdict']}.")
    wrong = 1 - max(side["own"]["mean"] for side in results["sides"].values())
    if wrong <= margin:
        found.append(
            f"The better side errs on {wrong:.2%} of the images, no more than the margin: a side that erred "
            "twice as often would still pass."
        )
    if claim["sd"] == 0:
        found.append("Every seed gave the same difference: a t-test takes it for certain, which it is not.")
    if results["excess"] and results["excess"]["ci_low"] > 0:
        found.append(
            "The frameworks answer more images differently from one another than each from itself: by "
            f"{_interval(results['excess'])} points."
        )
    for before in results["earlier"]:
        found.append(
            f"These runs were judged before by other terms ({before['seeds']} seeds, margin "
            f"{before['margin']:g}, alpha {before['alpha']:g}: {before['verdict']}). The level holds only "
            "for terms that were stated before any result."
        )
    return found


def markdown(results: dict[str, Any]) -> str:
    """The report as Markdown."""
    paragraphs = [
        f"# Accuracy of both sides over {len(results['seeds'])} seeds",
        f"**{results['statement']}**",
        "\n".join(f"- {note}" for note in results["notes"]),
        _setup(results),
        "## Two one-sided t-tests",
        table(
            ("", "difference", "sd", f"{_confidence(results)} interval", "p", "power", "seeds for 0.8", ""),
            [*map(_test_row, results["comparisons"]), _independent_row(results["independent"])],
        ),
        f"In points; margin {_margin(results)}, level {results['alpha']:g}. p is the larger of the two "
        "tests'. Power is the probability of showing equivalence where the true difference is zero and the "
        "sd is as found.",
        "## Images that two runs answer differently",
        table(
            ("", "share", "smallest, largest", "right on one alone: first, second", "McNemar"),
            [_image_row(one, results["alpha"]) for one in results["comparisons"]],
        ),
        _disagreement(results),
        "## Every seed",
        table(
            ("seed", "Keras", "Lightning", "points apart", "Keras, shared masks", "Lightning, shared masks"),
            _seed_rows(results),
        ),
        f"    {results['command']}",
        _environment(results),
    ]
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph) + "\n"


def _setup(results: dict[str, Any]) -> str:
    data, settings = results["environment"]["keras"]["data"], results["settings"]
    images, training = data["images"], settings["training"]
    baseline = (
        "The baseline is each framework against itself on the same terms: same seed, other masks (those that "
        "both sides can share, of the same distribution). "
    )
    return (
        f"The {settings['model']['name']} on {data['name']}: {images['train']} training, "
        f"{images['validation']} validation and {images['test']} test images; {training['epochs']} epochs, "
        f"{training['precision']}; through the real `train` commands. A seed fixes initial weights, order, "
        "augmentation and held-out images on both sides; the dropout masks are each side's own. "
        f"{baseline if len(results['comparisons']) > 1 else ''}What is said holds for this test split, and "
        "for training repeated with other seeds."
    )


def _test_row(one: dict[str, Any]) -> tuple[str, ...]:
    return (
        one["name"],
        f"{one['difference'] * 100:+.2f}",
        f"{one['sd'] * 100:.2f}",
        _interval(one),
        f"{one['p']:.2g}",
        f"{one['power']:.2f}",
        str(one["needed_seeds"] or "–"),
        one["verdict"],
    )


def _independent_row(one: dict[str, Any]) -> tuple[str, ...]:
    row = _test_row(one | {"name": "frameworks, not paired (Welch)", "sd": 0.0, "needed_seeds": None})
    return (*row[:2], "–", *row[3:])


def _image_row(one: dict[str, Any], alpha: float) -> tuple[str, ...]:
    found = one["disagreement"]
    shares, below = found["shares"], sum(p < alpha for p in found["mcnemar_p"])
    return (
        one["name"],
        f"{found['mean']:.2%}",
        f"{min(shares):.2%}, {max(shares):.2%}",
        f"{found['first_only']}, {found['second_only']}",
        f"{below} of {len(shares)} below {alpha:g}",
    )


def _disagreement(results: dict[str, Any]) -> str:
    excess, others, said = results["excess"], results["other_seeds"], []
    if excess:
        said.append(
            f"On the same seed the frameworks answer {excess['mean'] * 100:+.2f} points more images "
            f"differently from one another than each does from itself ({_confidence(results)} interval "
            f"{_interval(excess)})."
        )
    if others:
        said.append(
            f"Two runs of different seeds disagree on {others['keras']:.2%} of the images (Keras), "
            f"{others['lightning']:.2%} (Lightning) and {others['frameworks']:.2%} (one of each)."
        )
    said.append("McNemar's test is about two trained models: two runs of one framework may fail it, too.")
    return " ".join(said)


def _seed_rows(results: dict[str, Any]) -> list[tuple[str, ...]]:
    sides, rows = results["sides"], []
    columns = [sides[side][masks] for masks in ("own", "shared") for side in ("keras", "lightning")]
    for place, seed in enumerate(results["seeds"]):
        cells = []
        for column in columns:
            given = column["accuracies"][place : place + 1] if column else []
            cells.append(f"{given[0]:.4f}" if given else "–")
        apart = f"{results['comparisons'][0]['differences'][place] * 100:+.2f}"
        rows.append((str(seed), *cells[:2], apart, *cells[2:]))
    for key in ("mean", "sd"):
        cells = [f"{column[key]:.4f}" if column else "–" for column in columns]
        rows.append((key, *cells[:2], "", *cells[2:]))
    return rows


def _environment(results: dict[str, Any]) -> str:
    keras, lightning = (results["environment"][side] for side in ("keras", "lightning"))
    versions = ", ".join(f"{name} {version}" for name, version in keras["versions"].items())
    return (
        f"{keras['cpu']}, {keras['cores']} cores; Keras on {keras.get('backend')} ({keras['device']}), "
        f"Lightning ({lightning['device']}); {results['utc']}; {versions}. The data set's sha256 is "
        f"{keras['data']['sha256'][:16]}...."
    )


def _confidence(results: dict[str, Any]) -> str:
    return f"{100 * (1 - 2 * results['alpha']):g} %"


def _interval(one: dict[str, Any]) -> str:
    return f"{one['ci_low'] * 100:+.2f} to {one['ci_high'] * 100:+.2f}"


def _margin(results: dict[str, Any]) -> str:
    return f"±{results['margin'] * 100:g} points"
