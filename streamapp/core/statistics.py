"""How far is this sample from that one, and is it more than chance: PSI, KL, Kolmogorov-Smirnov, mean shift, intervals."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
from numba import njit

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

#: What an empty share becomes in PSI and KL; only empty ones change and nothing is renormalised.
ZERO_SHARE = 1e-4
#: The recipe in words, carried by every drift record so that a figure can be recomputed from the record alone.
RECIPE = "right-closed bins at the reference's inner quantile edges, outer bins open; empty shares become 1e-4; no renormalisation"

_EXACT_STEPS = 1000  #     up to here the one-sample Kolmogorov distribution is exact (a matrix of at most 4 * sqrt(n) rows)
_NEVER = 30.0  # n * distance^2 from which on P is below 2e-26
_SMIRNOV_STEPS = 20_000  # up to here the one-sided sum is exact
_SPARSE = 50.0  #          a bin that expects fewer events makes chance larger than the plain chi-square says


def quantile_edges(reference: Float64, bins: int = 10) -> Float64:
    """Takes a reference sample [m]; gives the inner edges [<= bins - 1], strictly increasing (ties in the sample merge bins)."""
    return np.unique(np.quantile(reference, np.arange(1, bins) / bins))


def bin_counts(values: Float64, edges: Float64) -> Int64:
    """Takes values [n] and inner edges [b - 1]; gives counts [b] of the right-closed bins. NaN is in no bin."""
    known = values[~np.isnan(values)]
    return np.bincount(np.searchsorted(edges, known, side="left"), minlength=len(edges) + 1).astype(np.int64)


def shares(counts: Int64) -> Float64:
    """Takes counts [b]; gives shares [b] that sum to 1, or zeros when nothing was counted."""
    total = counts.sum()
    return counts / total if total else np.zeros(len(counts))


def psi(expected: Float64, actual: Float64, zero_share: float | None = ZERO_SHARE) -> float:
    """Population stability index of two share vectors [b]: sum of (actual - expected) * ln(actual / expected).

    Symmetric, >= 0, and 0 only for equal shares. `zero_share` None leaves empty shares: then an empty bin gives infinity.
    """
    e, a = _without_zeros(expected, zero_share), _without_zeros(actual, zero_share)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = (a - e) * np.log(a / e)
    return float(np.sum(np.where(a == e, 0.0, terms)))


def kl(expected: Float64, actual: Float64, zero_share: float = ZERO_SHARE) -> float:
    """Kullback-Leibler divergence of `actual` from `expected` [b], in nats, with PSI's treatment of empty bins.

    As nothing is renormalised it can fall below 0 by at most b * zero_share.
    """
    e, a = _without_zeros(expected, zero_share), _without_zeros(actual, zero_share)
    return float(np.sum(a * np.log(a / e)))


def _without_zeros(share: Float64, zero_share: float | None) -> Float64:
    return share if zero_share is None else np.where(share == 0, zero_share, share)


def ks_binned(expected: Float64, actual: Float64) -> float:
    """Largest distance of two cumulative share vectors [b]: a lower bound of the unbinned KS distance, exact at the edges."""
    return float(np.max(np.abs(np.cumsum(actual - expected)[:-1]), initial=0.0))


def ks_samples(a: Float64, b: Float64) -> tuple[float, int]:
    """Takes two samples [n], [m]; gives the KS distance D and the integer D * n * m that `ks_exact_p` counts with."""
    both = np.sort(np.concatenate([a, b]))
    below_a, below_b = np.searchsorted(np.sort(a), both, side="right"), np.searchsorted(np.sort(b), both, side="right")
    steps = int(np.max(np.abs(below_a * len(b) - below_b * len(a)), initial=0))
    return steps / (len(a) * len(b)), steps


def ks_exact_p(steps: int, n: int, m: int) -> float:
    """P(D * n * m >= steps) for two samples of one continuous distribution, correctly rounded.

    Counts the lattice paths from (0, 0) to (n, m) that stay inside |i * m - j * n| < steps, in whole numbers
    (J. L. Hodges, "The significance probability of the Smirnov two-sample test", 1957). Cost n * m big additions.
    """
    if steps <= 0:
        return 1.0
    row = [1 if j * n < steps else 0 for j in range(m + 1)]
    for j in range(1, m + 1):
        row[j] = row[j] and row[j - 1]
    for i in range(1, n + 1):
        left = 0
        for j in range(m + 1):
            left = left + row[j] if abs(i * m - j * n) < steps else 0
            row[j] = left
    paths = math.comb(n + m, n)
    return (paths - row[m]) / paths


def ks_p(distance: float, n: int, m: int) -> float:
    """P(D >= distance) for samples of n and m, by the one-sample distribution at the effective size n * m / (n + m)."""
    return kolmogorov_sf(distance, round(n * m / (n + m))) if n and m else 1.0


def kolmogorov_sf(distance: float, n: int) -> float:
    """P(D_n >= distance) for the two-sided one-sample statistic of n values.

    Far tail: twice the one-sided probability (L. H. Miller 1956, an equality from distance 0.5 on); below 2e-26 P. Massart's bound (1990)
    stands for it, which is free. Body: the matrix power of Marsaglia, Tsang and Wang 2003 up to n = 1000; beyond that the limit law at
    J. Vrbik's corrected argument (2018).
    Absolute error below 3e-5; cost n below 20,000 in the tail, n log n with matrices of 4 * sqrt(n) rows in the body.
    """
    if n < 1 or distance <= 0.5 / n:
        return 1.0
    if distance >= 1.0:
        return 0.0
    if n * distance**2 > _NEVER:
        return 2.0 * math.exp(-2.0 * n * distance**2)
    if n * distance**2 > 4.0 and n <= _SMIRNOV_STEPS:
        return min(1.0, 2.0 * _smirnov_sf(distance, n))
    if n <= _EXACT_STEPS:
        return _matrix_sf(distance, n)
    x = distance * math.sqrt(n)
    return _limit_sf(x + 1.0 / (6.0 * math.sqrt(n)) + (x - 1.0) / (4.0 * n))


def _smirnov_sf(d: float, n: int) -> float:
    """One-sided P(D+ >= d) = d * sum C(n, j) (d + j/n)^(j-1) (1 - d - j/n)^(n-j) (Birnbaum and Tingey 1951); cost n."""
    return d * float(_smirnov_sum(d, n, _log_factorials()))


@njit(cache=True, nogil=True)
def _smirnov_sum(d: float, n: int, log_factorial: Float64) -> float:
    total = 0.0
    for j in range(math.floor(n * (1.0 - d)) + 1):
        rest = 1.0 - d - j / n
        if rest > 0:
            ways = log_factorial[n] - log_factorial[j] - log_factorial[n - j]
            total += math.exp(ways + (j - 1) * math.log(d + j / n) + (n - j) * math.log(rest))
    return total


@lru_cache(maxsize=1)
def _log_factorials() -> Float64:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, _SMIRNOV_STEPS + 1)))])


def _matrix_sf(d: float, n: int) -> float:
    k = math.floor(n * d) + 1
    h, size = k - n * d, 2 * k - 1
    lower = np.subtract.outer(np.arange(size), np.arange(size)) + 1
    step = np.where(lower >= 0, 1.0, 0.0)
    powers = h ** np.arange(1, size + 1)
    step[:, 0] -= powers
    step[-1, :] -= powers[::-1]
    step[-1, 0] += max(0.0, 2 * h - 1) ** size
    factorial = np.cumprod(np.concatenate([[1.0], np.arange(1.0, min(size, 170) + 1)]))
    # 1/171! is below the smallest double: such entries are 0 in effect.
    inverse = np.concatenate([1.0 / factorial, np.zeros(max(0, size - 170))])
    step *= np.where(lower >= 0, inverse[np.maximum(lower, 0)], 0.0)
    # log(n!/n^n) is spread over the steps, so that nothing leaves the range of a double.
    step *= math.exp((math.lgamma(n + 1) - n * math.log(n)) / n)
    return float(min(1.0, max(0.0, 1.0 - np.linalg.matrix_power(step, n)[k - 1, k - 1])))


def _limit_sf(x: float) -> float:
    """The Kolmogorov limit law: 2 * sum (-1)^(i-1) exp(-2 i^2 x^2); below x = 0.2 it is 1 within 1e-12."""
    if x < 0.2:
        return 1.0
    last = min(100, math.ceil(4.5 / x))  # what follows is below 1e-17
    return min(1.0, max(0.0, 2.0 * math.fsum((-1.0) ** (i - 1) * math.exp(-2.0 * i * i * x * x) for i in range(1, last + 1))))


def mean_shift_z(mean: float, std: float, n: int, reference_mean: float, reference_std: float, reference_n: int) -> float:
    """Difference of two means in standard errors: (mean - reference) / sqrt(std^2/n + reference_std^2/reference_n).

    Two constants that differ give a signed infinity, equal ones 0.
    """
    if not n or not reference_n:
        return 0.0
    error = math.sqrt(std**2 / n + reference_std**2 / reference_n)
    gap = mean - reference_mean
    return gap / error if error else (math.copysign(math.inf, gap) if gap else 0.0)


def wilson_interval(hits: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a share `hits / n` (E. B. Wilson 1927); stays inside [0, 1], and is (0, 1) when n is 0."""
    if n == 0:
        return 0.0, 1.0
    z = _normal_quantile(0.5 + confidence / 2)
    share, weight = hits / n, z * z / n
    centre, half = share + weight / 2, z * math.sqrt(share * (1 - share) / n + weight / (4 * n))
    low = 0.0 if hits == 0 else (centre - half) / (1 + weight)
    return max(0.0, low), 1.0 if hits == n else min(1.0, (centre + half) / (1 + weight))


@njit(cache=True, nogil=True)
def chi2_cdf(x: float, degrees: float) -> float:
    """P(X <= x) for chi-square: the regularised incomplete gamma P(degrees/2, x/2).

    Series below a + 1 (Abramowitz and Stegun 6.5.29), continued fraction above (6.5.31, evaluated by Lentz's method).
    """
    a, x = degrees / 2.0, x / 2.0
    if x <= 0:
        return 0.0
    front = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1.0:
        term = total = 1.0 / a
        k = a
        while term > total * 1e-17:
            k += 1.0
            term *= x / k
            total += term
        return front * total
    b = x + 1.0 - a
    c, d = math.inf, 1.0 / b
    fraction, i = d, 0
    while True:
        i += 1
        top = -i * (i - a)
        b += 2.0
        d = 1.0 / (top * d + b)
        c = b + top / c
        fraction *= c * d
        if abs(c * d - 1.0) < 1e-15 or i > 10_000:
            return 1.0 - front * fraction


@lru_cache(maxsize=1024)
def chi2_quantile(probability: float, degrees: float) -> float:
    """The x with chi2_cdf(x, degrees) = probability, within 1e-10 relative; 0 for no degrees of freedom.

    Newton's steps from the Wilson-Hilferty cube (1931), kept inside a bracket.
    """
    if degrees <= 0 or probability <= 0:
        return 0.0
    low, high, a = 0.0, math.inf, degrees / 2.0
    ninth = 2.0 / (9.0 * degrees)
    x = degrees * max(1.0 - ninth + NormalDist().inv_cdf(probability) * math.sqrt(ninth), 0.01) ** 3
    for _ in range(100):
        gap = chi2_cdf(x, degrees) - probability
        low, high = (low, x) if gap > 0 else (x, high)
        density = 0.5 * math.exp((a - 1.0) * math.log(x / 2.0) - x / 2.0 - math.lgamma(a))
        step = gap / density if density else math.inf
        if abs(step) <= 1e-11 * x:
            break
        x = x - step if low < x - step < high else (low + high) / 2.0 if high < math.inf else 2.0 * x
    return x


def psi_limit(threshold: float, expected: Float64, n: int, m: int, alpha: float) -> float:
    """The PSI above which a window of n is called drifted against reference shares [b] of m values: `threshold`, or chance if larger.

    Without drift PSI is about (1/n + 1/m) * chi-square with b - 1 degrees of freedom (B. Yurdakul, "Statistical properties of the
    population stability index", 2018). Where bins expect few events that is too small (an empty bin costs share * ln(share / 1e-4)):
    there the scaled chi-square takes its first two moments from the bins themselves, each Poisson at n * m / (n + m) * share.
    """
    chance = _chance(n, m) * chi2_quantile(1.0 - alpha, len(expected) - 1)
    return max(threshold, chance, _sparse_limit(expected, n, m, alpha, _OF_PSI))


def kl_limit(threshold: float, expected: Float64, n: int, m: int, alpha: float) -> float:
    """As `psi_limit`: 2 * KL is the likelihood ratio statistic, about (1/n + 1/m) * chi-square without drift (S. S. Wilks 1938)."""
    chance = 0.5 * _chance(n, m) * chi2_quantile(1.0 - alpha, len(expected) - 1)
    return max(threshold, chance, _sparse_limit(expected, n, m, alpha, _OF_KL))


def _sparse_limit(expected: Float64, n: int, m: int, alpha: float, which: int) -> float:
    """The 1 - alpha quantile of a sum of bin terms of Poisson counts, by F. E. Satterthwaite's two moments (1946); 0 if none is sparse."""
    if not n or not m:
        return math.inf
    size = n * m / (n + m)
    if not any(0 < share * size < _SPARSE for share in expected.tolist()):
        return 0.0
    mean, variance = map(float, _poisson_moments(expected, size)[which])
    scale = variance / (2.0 * mean)
    return scale * chi2_quantile(1.0 - alpha, mean / scale)


_OF_PSI, _OF_KL = 0, 1


@njit(cache=True, nogil=True)
def _poisson_moments(expected: Float64, size: float) -> Float64:
    """Gives mean and variance of PSI's and of KL's sum of bin terms, [2, 2], each bin a Poisson count at size * its expected share."""
    found = np.zeros((2, 2))
    for q in expected:
        rate = q * size
        if rate <= 0:
            continue
        # Ten deviations around the rate; beyond lies less than 1e-15.
        reach = 10 * math.sqrt(rate) + 30
        mean_psi, mean_kl = 0.0, 0.0
        for count in range(max(0, math.floor(rate - reach)), math.ceil(rate + reach)):
            weight = math.exp(count * math.log(rate) - rate - math.lgamma(count + 1.0))
            s = count / size if count else ZERO_SHARE
            log = math.log(s / q)
            # The bins' differences add up to 0; with them each bin's term of KL is never negative, as the moments need.
            psi_term, kl_term = (s - q) * log, s * log - s + q
            mean_psi += weight * psi_term
            mean_kl += weight * kl_term
            found[0, 1] += weight * psi_term**2
            found[1, 1] += weight * kl_term**2
        found[0, 0] += mean_psi
        found[1, 0] += mean_kl
        found[0, 1] -= mean_psi**2
        found[1, 1] -= mean_kl**2
    return found


def ks_limit(threshold: float, n: int, m: int, alpha: float) -> float:
    """The KS distance that chance exceeds with probability alpha at most: sqrt(ln(2/alpha)/2 * (1/n + 1/m)), or `threshold`."""
    return max(threshold, math.sqrt(math.log(2.0 / alpha) / 2.0 * _chance(n, m)))


def _chance(n: int, m: int) -> float:
    return 1.0 / n + 1.0 / m if n and m else math.inf


def z_limit(alpha: float) -> float:
    """The |z| that chance exceeds with probability alpha."""
    return _normal_quantile(1.0 - alpha / 2.0)


@lru_cache(maxsize=64)
def _normal_quantile(probability: float) -> float:
    return NormalDist().inv_cdf(probability)


def warm_up() -> None:
    """Compiles the kernels (or loads them from the cache), so that the first report of a worker does not take its processor for seconds."""
    few = np.array([0.01, 0.99])
    psi_limit(0.1, few, 1000, 1000, 0.001)
    kolmogorov_sf(0.5, 100)
