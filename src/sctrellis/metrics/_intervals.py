"""Intervals on chromosomes: 0-based, half-open, as peaks, genes and elements are stored."""

from dataclasses import dataclass

import numpy as np

from sctrellis._core import genome


@dataclass(frozen=True)
class Intervals:
    """Stretches of chromosomes.

    Parameters
    ----------
    chrom : (n,)
        Code of the chromosome; negative where unknown, which is near nothing.
    start, end : (n,)
        First base, and the base after the last.
    """

    chrom: np.ndarray
    start: np.ndarray
    end: np.ndarray

    def __len__(self) -> int:
        return len(self.chrom)

    def take(self, index: np.ndarray) -> "Intervals":
        """Return some of the intervals, in the order of ``index``."""
        return Intervals(self.chrom[index], self.start[index], self.end[index])


def distance(one: Intervals, other: Intervals) -> np.ndarray:
    """Return the bases between nearest bases of two intervals each, float64: 0 where they overlap, inf where apart.

    Neighbours without a gap are 1 apart, as with bedtools.
    """
    start, end = np.asarray(one.start, dtype=np.float64), np.asarray(one.end, dtype=np.float64)
    gap = np.maximum(np.maximum(start - other.end, other.start - end) + 1, 0)
    return np.where((one.chrom == other.chrom) & (one.chrom >= 0), gap, np.inf)


def near(intervals: Intervals, queries: Intervals, window: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return every interval within ``window`` bases of a query.

    Parameters
    ----------
    intervals, queries
        Where to look, and what to look around.
    window
        Largest distance in bases; 0 for overlaps only.

    Returns
    -------
    Position of the query, position of the interval, and their distance, sorted by both positions.
    """
    query, member = genome.reaching(
        intervals.chrom,
        intervals.start,
        intervals.end,
        queries.chrom,
        queries.start - window,
        queries.end + window,
    )
    return query, member, distance(intervals.take(member), queries.take(query))
