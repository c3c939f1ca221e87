"""Counts under chance: drawing without replacement, and sums of independent draws, exactly."""

from dataclasses import dataclass

import numpy as np
from scipy import special


@dataclass(frozen=True)
class Urns:
    """Independent draws without replacement: each urn has ``total`` balls, ``marked`` of them; ``drawn`` are taken."""

    total: np.ndarray
    marked: np.ndarray
    drawn: np.ndarray

    def expected(self) -> np.ndarray:
        """Return the expected number of marked balls drawn from each urn."""
        total = np.maximum(self.total, 1)
        return self.drawn * self.marked / total

    def none(self) -> np.ndarray:
        """Return the chance of drawing no marked ball, of each urn."""
        return hypergeometric(np.zeros(1), self.total, self.marked, self.drawn)

    def count(self) -> np.ndarray:
        """Return the distribution of the number of marked balls drawn from all urns together."""
        kept = (np.asarray(self.drawn) > 0) & (np.asarray(self.marked) > 0)
        total, marked, drawn = (np.asarray(a)[kept].astype(np.int64) for a in (self.total, self.marked, self.drawn))
        most = np.minimum(marked, drawn)
        values = np.arange(most.max(initial=0) + 1)
        table = hypergeometric(values, total[:, None], marked[:, None], drawn[:, None])
        return convolved([row[: n + 1] for row, n in zip(table, most, strict=True)])


def hypergeometric(count: np.ndarray, total: np.ndarray, marked: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Return the chance of ``count`` marked balls among those drawn; as SciPy's, all at once."""
    possible = (count <= marked) & (drawn - count <= total - marked)
    with np.errstate(invalid="ignore"):
        logarithm = _log_choose(marked, count) + _log_choose(total - marked, drawn - count) - _log_choose(total, drawn)
    return np.where(possible, np.exp(logarithm, where=possible, out=np.zeros(np.shape(possible))), 0.0)


def _log_choose(n: np.ndarray, k: np.ndarray) -> np.ndarray:
    return -special.betaln(n - k + 1.0, k + 1.0) - np.log(n + 1.0)


def convolved(distributions: list[np.ndarray]) -> np.ndarray:
    """Return the distribution of the sum of independent counts, each given as probabilities of 0, 1, 2, …"""
    # Pairs of equal length first: fewer steps, and all sums are of non-negative numbers, so small tails stay exact.
    parts = distributions or [np.ones(1)]
    while len(parts) > 1:
        merged = [np.convolve(a, b) for a, b in zip(parts[::2], parts[1::2], strict=False)]
        parts = merged + ([parts[-1]] if len(parts) % 2 else [])
    return parts[0]


def poisson_binomial(chance: np.ndarray) -> np.ndarray:
    """Return the distribution of the number of successes of independent trials with their own chances."""
    chance = np.asarray(chance, dtype=np.float64)
    return convolved(list(np.column_stack([1 - chance, chance])))


def at_least(distribution: np.ndarray, observed: int) -> float:
    """Return the chance of ``observed`` or more."""
    return float(min(distribution[max(observed, 0) :].sum(), 1.0))


def central(distribution: np.ndarray, level: float = 0.95) -> tuple[int, int]:
    """Return the smallest counts that leave at most half of 1 - ``level`` below and above."""
    tail = (1 - level) / 2
    cumulative = np.cumsum(distribution)
    low = int(np.searchsorted(cumulative, tail))
    return low, int(np.searchsorted(cumulative, 1 - tail - 1e-12))
