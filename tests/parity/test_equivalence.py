"""Equivalence tests against closed forms, published tables, SciPy and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from parity.accuracy.equivalence import Equivalence, disagreement, needed_pairs, paired, power, welch

RUNS = 4000  # simulated experiments: a share of 0.05 then has a standard deviation of 0.0034


def shares(true: float, sd: float, n: int, margin: float, two_samples: bool = False) -> dict[str, float]:
    """How often each verdict falls when the true difference is `true`, at alpha 0.05."""
    draw = np.random.default_rng(7)
    found = {"equivalent": 0, "not shown": 0, "different": 0}
    for _ in range(RUNS):
        if two_samples:
            first, second = draw.normal(0, sd, n), draw.normal(true, sd / 2, n)
            found[welch(first.tolist(), second.tolist(), margin, 0.05).verdict] += 1
        else:
            first = draw.normal(0, 5 * sd, n)  # what pairs share does not count
            found[
                paired(first.tolist(), (first + draw.normal(true, sd, n)).tolist(), margin, 0.05).verdict
            ] += 1
    return {verdict: count / RUNS for verdict, count in found.items()}


def error(share: float) -> float:
    return 3.5 * math.sqrt(share * (1 - share) / RUNS)


# === The tests ===


def test_paired_equals_a_hand_computed_case() -> None:
    # Differences 1, 2, 3: mean 2, standard error 1 / sqrt 3. With 2 degrees of freedom t's distribution is
    # 1/2 + t / (2 sqrt(2 + t^2)); t is 2 sqrt 3 above (margin 4) and 6 sqrt 3 below.
    found = paired([5, 5, 5], [6, 7, 8], margin=4, alpha=0.05)
    assert found.difference == 2
    assert found.standard_error == pytest.approx(1 / math.sqrt(3))
    assert found.p_upper == pytest.approx(0.5 - math.sqrt(12) / (2 * math.sqrt(14)))  # 0.0371
    assert found.p_lower == pytest.approx(0.5 - math.sqrt(108) / (2 * math.sqrt(110)))  # 0.0046
    assert found.p == found.p_upper
    assert found.verdict == "equivalent"
    assert found.interval == pytest.approx((2 - 2.9199856 / math.sqrt(3), 2 + 2.9199856 / math.sqrt(3)))


def test_paired_equals_scipy() -> None:
    draw = np.random.default_rng(1)
    first = draw.normal(0.9, 0.01, 12)
    second = first + draw.normal(0.003, 0.004, 12)
    found = paired(first.tolist(), second.tolist(), 0.005, 0.05)
    below, above = (
        stats.ttest_1samp(second - first, bound, alternative=side)
        for bound, side in ((-0.005, "greater"), (0.005, "less"))
    )
    assert found.p_lower == pytest.approx(below.pvalue, rel=1e-9)
    assert found.p_upper == pytest.approx(above.pvalue, rel=1e-9)
    assert found.interval == pytest.approx(stats.ttest_rel(second, first).confidence_interval(0.9))


def test_welch_equals_scipy() -> None:
    draw = np.random.default_rng(2)
    first, second = draw.normal(0.9, 0.01, 12), draw.normal(0.903, 0.003, 7)
    found = welch(first.tolist(), second.tolist(), 0.005, 0.05)
    plain = stats.ttest_ind(second, first, equal_var=False)
    assert found.interval == pytest.approx(plain.confidence_interval(0.9))
    assert found.degrees == pytest.approx(plain.df)
    below = stats.ttest_ind(second + 0.005, first, equal_var=False, alternative="greater")
    above = stats.ttest_ind(second - 0.005, first, equal_var=False, alternative="less")
    assert found.p_lower == pytest.approx(below.pvalue, rel=1e-9)
    assert found.p_upper == pytest.approx(above.pvalue, rel=1e-9)


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [
        (0.0, "equivalent"),
        (0.0081, "equivalent"),  # not zero, and within the margin all the same
        (0.0082, "not shown"),
        (-0.0082, "not shown"),
        (0.0118, "not shown"),  # beyond the margin, but its interval still reaches in
        (0.0119, "different"),
        (-0.0119, "different"),
    ],
)
def test_the_interval_decides_the_verdict(difference: float, verdict: str) -> None:
    found = Equivalence(difference, 0.001, 9, 0.01, 0.05)  # the interval is +- 0.001833
    assert found.verdict == verdict
    low, high = found.interval
    assert (verdict == "equivalent") == (low > -0.01 and high < 0.01)


def test_equal_differences_leave_no_error() -> None:
    assert paired([0.5, 0.75], [0.5, 0.75], 0.01, 0.05).p == 0
    assert welch([0.5, 0.5], [0.5, 0.5], 0.01, 0.05).verdict == "equivalent"
    apart = paired([0.5, 0.75], [0.625, 0.875], 0.01, 0.05)
    assert (apart.p, apart.verdict, apart.power) == (1.0, "different", 1.0)


@pytest.mark.parametrize(("first", "second"), [([1], [1]), ([1, 2], [1, 2, 3]), ([1, 2], [1, math.nan])])
def test_what_cannot_be_tested_is_refused(first: list[float], second: list[float]) -> None:
    with pytest.raises(ValueError, match="wanted"):
        paired(first, second, 0.01, 0.05)


# === Error rates ===


@pytest.mark.parametrize("two_samples", [False, True])
def test_a_difference_of_the_margin_passes_at_rate_alpha(two_samples: bool) -> None:
    rate = shares(0.01, 0.004, 10, 0.01, two_samples)["equivalent"]
    assert rate == pytest.approx(0.05, abs=error(0.05) + 0.002 * two_samples)  # Welch's is approximate


def test_a_difference_beyond_the_margin_passes_seldom_and_none_is_called_different_wrongly() -> None:
    assert shares(0.015, 0.004, 10, 0.01)["equivalent"] < 0.001
    assert shares(0.01, 0.004, 10, 0.01)["different"] <= 0.05 + error(0.05)
    assert shares(0.0, 0.02, 5, 0.01)["different"] < 0.02


@pytest.mark.parametrize(("sd", "n"), [(0.004, 4), (0.008, 10), (0.011, 10), (0.02, 10)])
def test_power_equals_a_simulation(sd: float, n: int) -> None:
    expected = power(sd / math.sqrt(n), n - 1, 0.01, 0.05)
    assert shares(0.0, sd, n, 0.01)["equivalent"] == pytest.approx(expected, abs=error(expected) + 1e-9)
    off = power(sd / math.sqrt(n), n - 1, 0.01, 0.05, difference=0.004)
    assert shares(0.004, sd, n, 0.01)["equivalent"] == pytest.approx(off, abs=error(off) + 1e-9)


# R's PowerTOST (exact method), manual of power.TOST and README: a 2x2 crossover has a standard error of
# s sqrt(2 / n) and n - 2 degrees of freedom, parallel groups s sqrt(1 / n1 + 1 / n2); on the logarithm.
@pytest.mark.parametrize(
    ("cv", "share", "degrees", "limit", "ratio", "published"),
    [
        (0.25, 2 / 24, 22, 1.25, 0.95, 0.7391155),
        (0.20, 2 / 20, 18, 1.25, 0.95, 0.834680),
        (0.125, 2 / 32, 30, 1 / 0.9, 0.975, 0.800218),
        (0.35, 1 / 52 + 1 / 49, 99, 1.25, 0.95, 0.8011186),
    ],
)
def test_power_equals_published_values(
    cv: float, share: float, degrees: int, limit: float, ratio: float, published: float
) -> None:
    sd = math.sqrt(math.log(1 + cv**2))
    found = power(sd * math.sqrt(share), degrees, math.log(limit), 0.05, math.log(ratio))
    assert found == pytest.approx(published, abs=1e-6)


@pytest.mark.parametrize("sd", [0.002, 0.0057, 0.01, 0.03])
def test_needed_pairs_are_the_fewest(sd: float) -> None:
    n = needed_pairs(sd, 0.01, 0.05)
    assert n is not None
    assert power(sd / math.sqrt(n), n - 1, 0.01, 0.05) >= 0.8
    assert n == 2 or power(sd / math.sqrt(n - 1), n - 2, 0.01, 0.05) < 0.8
    if n > 50:  # Chow, Shao and Wang, Sample Size Calculations, 2003: (z_alpha + z_beta/2)^2 sd^2 / margin^2
        assert n == pytest.approx((1.645 + 1.2816) ** 2 * (sd / 0.01) ** 2, rel=0.03)


def test_extremes_of_power() -> None:
    assert power(1e-9, 9, 0.01, 0.05) == pytest.approx(1)
    assert power(0.1, 9, 0.01, 0.05) == pytest.approx(0, abs=1e-9)
    assert power(0.0, 9, 0.01, 0.05, difference=0.01) == 0
    assert needed_pairs(0.0, 0.01, 0.05) == 2
    assert needed_pairs(1.0, 1e-4, 0.05) is None


# === Images ===


def test_disagreement_counts_by_hand() -> None:
    y_true = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
    first = np.array([0, 0, 1, 1, 1, 0, 1, 2, 2, 2])
    second = np.array([0, 0, 2, 0, 0, 1, 1, 2, 0, 1])
    found = disagreement(y_true, first, second)
    assert (found.images, found.differing) == (10, 6)
    assert (found.first_only, found.second_only) == (3, 2)
    assert found.share == 0.6
    assert found.first_only - found.second_only == (first == y_true).sum() - (second == y_true).sum()


def test_mcnemar_is_the_exact_binomial_test() -> None:
    y_true = np.zeros(20, int)
    first, second = np.zeros(20, int), np.zeros(20, int)
    assert disagreement(y_true, first, second).p == 1
    first[0], second[1:6] = 1, 1
    assert disagreement(y_true, first, second).p == pytest.approx(2 * (1 + 6) / 2**6)
    with pytest.raises(ValueError, match="shapes"):
        disagreement(y_true, first, second[:-1])
