"""Are two means equivalent, and do two classifiers answer alike? Pure statistics, without a run record.

A test for a difference that finds none shows nothing: with few seeds it never finds any. So the claim to be
shown is that the difference lies within a margin that was stated beforehand, by two one-sided t-tests
(Schuirmann, J. Pharmacokinet. Biopharm. 15, 1987, 657-680): one must reject "-margin or less", the other
"margin or more", each at level alpha. Both do exactly where the 1 - 2 alpha confidence interval of the
difference lies within the margin, and two means that do differ by the margin pass with probability alpha
at most.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import integrate, stats

MOST = 10**6  # needed_pairs looks no further


@dataclass(frozen=True)
class Equivalence:
    """The two one-sided t-tests of a difference of means, second minus first."""

    difference: float
    standard_error: float
    degrees: float  # of freedom, of the t distribution
    margin: float
    alpha: float

    @property
    def p_lower(self) -> float:
        """p-value of the test that must reject "the difference is -margin or less"."""
        return self._p(self.margin + self.difference)

    @property
    def p_upper(self) -> float:
        """p-value of the test that must reject "the difference is margin or more"."""
        return self._p(self.margin - self.difference)

    @property
    def p(self) -> float:
        """p-value of "they are not equivalent": the larger of the two."""
        return max(self.p_lower, self.p_upper)

    @property
    def interval(self) -> tuple[float, float]:
        """The 1 - 2 alpha confidence interval of the difference."""
        half = _critical(self.alpha, self.degrees) * self.standard_error
        return self.difference - half, self.difference + half

    @property
    def verdict(self) -> str:
        """equivalent: the interval lies within the margin; different: all of it beyond; else not shown."""
        low, high = self.interval
        if self.p < self.alpha:
            return "equivalent"
        return "different" if low > self.margin or high < -self.margin else "not shown"

    @property
    def power(self) -> float:
        """Power at a true difference of zero, were the standard error the true one."""
        return power(self.standard_error, self.degrees, self.margin, self.alpha)

    def _p(self, distance: float) -> float:
        if self.standard_error == 0:
            return 0.0 if distance > 0 else 1.0
        return float(stats.t.sf(distance / self.standard_error, self.degrees))


def paired(first: Sequence[float], second: Sequence[float], margin: float, alpha: float) -> Equivalence:
    """The tests for pairs, such as two accuracies of each seed: t with n - 1 degrees of freedom.

    Raises ValueError where there are fewer than two pairs, or a number is missing or not finite.
    """
    x, y = _samples(first, second)
    if len(x) != len(y):
        raise ValueError(f"pairs are wanted: {len(x)} numbers and {len(y)}")
    differences = y - x
    error = float(stats.sem(differences))
    return Equivalence(float(differences.mean()), error, len(x) - 1, margin, alpha)


def welch(first: Sequence[float], second: Sequence[float], margin: float, alpha: float) -> Equivalence:
    """The tests for independent samples whose variances may differ.

    The degrees of freedom are Satterthwaite's, as in Welch, Biometrika 34, 1947, 28-35. Raises ValueError
    where a sample has fewer than two numbers, or one is not finite.
    """
    x, y = _samples(first, second)
    error = math.hypot(stats.sem(x), stats.sem(y))
    degrees = stats.ttest_ind(x, y, equal_var=False).df if error else len(x) + len(y) - 2.0
    return Equivalence(float(y.mean() - x.mean()), error, float(degrees), margin, alpha)


def power(
    standard_error: float, degrees: float, margin: float, alpha: float, difference: float = 0.0
) -> float:
    """Probability that the tests show equivalence, given the true standard error and true difference.

    The estimated standard error is the true one times r, where degrees * r^2 follows chi-squared, and is
    independent of the estimated difference, which is normal. So the power is the mean over r of the
    probability that the estimate is at least t r standard errors inside the margin: Phillips, J.
    Pharmacokinet. Biopharm. 18, 1990, 137-144, there as a difference of two of Owen's Q functions.
    """
    if standard_error == 0:
        return float(abs(difference) < margin)
    critical = _critical(alpha, degrees)
    root = math.sqrt(degrees)

    def shown(r: float) -> float:
        upper = stats.norm.cdf((margin - difference) / standard_error - critical * r)
        lower = stats.norm.cdf(critical * r - (margin + difference) / standard_error)
        return (upper - lower) * stats.chi.pdf(r * root, degrees) * root

    # Beyond the first bound nothing can be shown; outside the others r never lies.
    least, most = stats.chi.ppf(1e-13, degrees) / root, stats.chi.isf(1e-13, degrees) / root
    most = min(most, margin / (standard_error * critical))
    return float(integrate.quad(shown, least, most, epsabs=1e-10, limit=200)[0]) if most > least else 0.0


def needed_pairs(sd: float, margin: float, alpha: float, target: float = 0.8) -> int | None:
    """The fewest pairs with which the tests reach a power of `target` at a true difference of zero.

    sd: of the differences. None where a million would not do.
    """

    def reached(n: int) -> float:
        return power(sd / math.sqrt(n), n - 1, margin, alpha)

    n = 2 + bisect_left(range(2, MOST + 1), target, key=reached)
    return n if n <= MOST else None


@dataclass(frozen=True)
class Disagreement:
    """Disagreement of two classifiers' top-1 answers to the same images."""

    images: int
    differing: int  # answers that differ, both wrong among them
    first_only: int  # images that only the first has right
    second_only: int

    @property
    def share(self) -> float:
        return self.differing / self.images

    @property
    def p(self) -> float:
        """Exact two-sided p-value of McNemar's test (Psychometrika 12, 1947) that both err equally often.

        It is about these two trained models, not about how they were trained.
        """
        either = self.first_only + self.second_only
        return float(stats.binomtest(self.first_only, either).pvalue) if either else 1.0


def disagreement(y_true: np.ndarray, first: np.ndarray, second: np.ndarray) -> Disagreement:
    """Compare two classifiers image by image.

    All three: (N,) integers, the true class and the two top-1 answers. Raises ValueError on other shapes.
    """
    if not (y_true.ndim == 1 and y_true.shape == first.shape == second.shape and len(y_true)):
        raise ValueError(f"three equal shapes (N,) are wanted: {y_true.shape}, {first.shape}, {second.shape}")
    right = first == y_true, second == y_true
    return Disagreement(
        len(y_true),
        int((first != second).sum()),
        int((right[0] & ~right[1]).sum()),
        int((right[1] & ~right[0]).sum()),
    )


def _critical(alpha: float, degrees: float) -> float:
    return float(stats.t.isf(alpha, degrees))


def _samples(first: Sequence[float], second: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    samples = np.asarray(first, np.float64), np.asarray(second, np.float64)
    for sample in samples:
        if sample.ndim != 1 or len(sample) < 2 or not np.isfinite(sample).all():
            raise ValueError("at least two finite numbers a sample are wanted")
    return samples
