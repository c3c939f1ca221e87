"""Intervals on chromosomes: 0-based, half-open, as peaks, genes and elements are stored."""

from dataclasses import dataclass

import numpy as np

# Wider than any chromosome: positions of different chromosomes on one axis stay further apart than any window.
_STRIDE = 2**40


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
    where, asked = np.flatnonzero(intervals.chrom >= 0), np.flatnonzero(queries.chrom >= 0)
    first = (intervals.chrom[where].astype(np.int64) + 1) * _STRIDE + intervals.start[where]
    length = (intervals.end - intervals.start)[where].astype(np.int64)
    base = (queries.chrom[asked].astype(np.int64) + 1) * _STRIDE
    low, high = base + queries.start[asked] - window, base + queries.end[asked] + window
    found = [np.zeros((2, 0), dtype=np.int64)]
    # An interval reaches into a window if it starts in it, or before it by less than its length. Within a class of
    # lengths (powers of two) the second are few, however long the longest interval of all is.
    classes = np.ceil(np.log2(np.maximum(length, 1))).astype(np.int64)
    for size in np.unique(classes):
        members = np.flatnonzero(classes == size)
        members = members[np.argsort(first[members], kind="stable")]
        starts = first[members]
        begin = np.searchsorted(starts, low - length[members].max(), side="left")
        count = np.searchsorted(starts, high, side="left") - begin
        query = np.repeat(np.arange(len(asked)), count)
        member = members[np.arange(count.sum()) - np.repeat(np.cumsum(count) - count - begin, count)]
        reaches = (first[member] + length[member] > low[query]) & (first[member] < high[query])
        found.append(np.stack([asked[query[reaches]], where[member[reaches]]]))
    query, member = np.concatenate(found, axis=1)
    order = np.lexsort((member, query))
    query, member = query[order], member[order]
    return query, member, distance(intervals.take(member), queries.take(query))
