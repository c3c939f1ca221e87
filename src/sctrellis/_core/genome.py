"""Which peaks lie near where a gene's transcription starts, as sparse signed distances."""

import numpy as np
from scipy import sparse

MAX_WINDOW = 2**24 - 2
"""Distances are stored as float32, which holds integers exactly up to 2**24."""

# Wider than any chromosome: positions of different chromosomes on one axis stay further apart than any window.
_STRIDE = 2**40


def cis(
    chrom: np.ndarray,
    start: np.ndarray,
    end: np.ndarray,
    gene_chrom: np.ndarray,
    tss: np.ndarray,
    forward: np.ndarray,
    window: int,
) -> sparse.csr_matrix:
    """Return the distance of every peak with at least one base within ``window`` of a gene's TSS.

    Parameters
    ----------
    chrom : (n_peaks,)
        Code of each peak's chromosome; negative where unknown.
    start, end : (n_peaks,)
        First base of the peak, and the base after its last, counted from 0.
    gene_chrom, tss : (n_genes,)
        Code of the chromosome and position of the base where transcription starts; code negative where unknown.
    forward : (n_genes,)
        True where the gene is transcribed towards larger positions.
    window
        Largest distance in bases.

    Returns
    -------
    CSR float32 of shape (n_genes, n_peaks): signed distances (see :func:`distance`), with zeros stored.
    """
    n_genes, n_peaks = len(tss), len(start)
    row, column = reaching(chrom, start, end, gene_chrom, tss - window, tss + window + 1)
    data = distance(start[column], end[column], tss[row], forward[row]).astype(np.float32)
    # Not through COO: its conversion is free to drop what it takes for zeros.
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=n_genes))])
    return sparse.csr_matrix((data, column, indptr), shape=(n_genes, n_peaks))


def reaching(
    chrom: np.ndarray, start: np.ndarray, end: np.ndarray, asked_chrom: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return which intervals share a base with which stretches, by sorted joins.

    Parameters
    ----------
    chrom : (n,)
        Code of each interval's chromosome; negative where unknown.
    start, end : (n,)
        First base of the interval, and the base after its last, counted from 0.
    asked_chrom : (m,)
        Code of each stretch's chromosome; negative where unknown.
    low, high : (m,)
        First base of the stretch, which may be negative, and the base after its last.

    Returns
    -------
    Positions of the stretch and of the interval of every pair, sorted by stretch and then by interval.
    """
    where, asked = np.flatnonzero(chrom >= 0), np.flatnonzero(asked_chrom >= 0)
    first = (chrom[where].astype(np.int64) + 1) * _STRIDE + start[where]
    length = (end - start)[where].astype(np.int64)
    offset = (asked_chrom[asked].astype(np.int64) + 1) * _STRIDE
    lowest, highest = offset + low[asked], offset + high[asked]
    rows, columns = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    # An interval reaches into a stretch if it starts in it, or before it by less than its length. Within a class of
    # lengths (powers of two) the second are few, however long the longest interval of all is.
    lengths = np.ceil(np.log2(length)).astype(np.int64)
    for size in np.unique(lengths):
        members = np.flatnonzero(lengths == size)
        members = members[np.argsort(first[members], kind="stable")]
        starts = first[members]
        begin = np.searchsorted(starts, lowest - length[members].max() + 1, side="left")
        count = np.searchsorted(starts, highest, side="left") - begin
        row = np.repeat(np.arange(len(asked)), count)
        column = members[np.arange(count.sum()) - np.repeat(np.cumsum(count) - count - begin, count)]
        reaches = first[column] + length[column] > lowest[row]
        rows.append(asked[row[reaches]])
        columns.append(where[column[reaches]])
    row, column = np.concatenate(rows), np.concatenate(columns)
    order = np.lexsort((column, row))
    return row[order], column[order]


def distance(start: np.ndarray, end: np.ndarray, tss: np.ndarray, forward: np.ndarray) -> np.ndarray:
    """Return bases from a TSS to the nearest base of a peak: 0 where they overlap, negative upstream of the gene."""
    right = np.maximum(np.asarray(start, dtype=np.int64) - tss, 0)
    left = np.maximum(tss - np.asarray(end, dtype=np.int64) + 1, 0)
    return np.where(forward, right - left, left - right)


def encode(distances: sparse.csr_matrix) -> sparse.csr_matrix:
    """Return distances one further from 0 (0 as 1), so that none is a zero, which sparse matrices may drop."""
    data = distances.data + np.where(distances.data < 0, -1, 1).astype(np.float32)
    return sparse.csr_matrix((data, distances.indices.copy(), distances.indptr.copy()), shape=distances.shape)


def decode(stored: sparse.csr_matrix) -> sparse.csr_matrix:
    """Undo :func:`encode`; distances of 0 are stored zeros."""
    data = stored.data - np.sign(stored.data)
    return sparse.csr_matrix((data, stored.indices.copy(), stored.indptr.copy()), shape=stored.shape)
