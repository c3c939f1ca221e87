"""Sorted joins of genes and peaks against the definition, base by base."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from sctrellis._core import genome


def nearest_base(start, end, tss, forward):
    """Return the signed distance by looking at every base of a peak."""
    offsets = np.arange(start, end) - tss
    nearest = offsets[np.argmin(np.abs(offsets))]
    return nearest if forward else -nearest


def brute_force(chrom, start, end, gene_chrom, tss, forward, window):
    found = {}
    for g in range(len(tss)):
        for p in range(len(start)):
            if chrom[p] >= 0 and chrom[p] == gene_chrom[g]:
                d = nearest_base(start[p], end[p], tss[g], forward[g])
                if abs(d) <= window:
                    found[g, p] = d
    return found


def as_dict(csr):
    row = np.repeat(np.arange(csr.shape[0]), np.diff(csr.indptr))
    return {(int(r), int(c)): int(v) for r, c, v in zip(row, csr.indices, csr.data, strict=True)}


@settings(deadline=None, max_examples=150)
@given(
    peaks=st.lists(
        st.tuples(st.integers(-1, 2), st.integers(0, 300), st.one_of(st.integers(1, 9), st.integers(1, 300))),
        max_size=25,
    ),
    genes=st.lists(st.tuples(st.integers(-1, 2), st.integers(0, 320), st.booleans()), max_size=8),
    window=st.integers(0, 120),
)
def test_equals_brute_force(peaks, genes, window):
    """Nested and overlapping peaks, peaks longer than the window, starts at 0, unknown chromosomes, no peaks at all."""
    chrom, start, length = np.array(peaks, dtype=np.int64).reshape(-1, 3).T
    gene_chrom, tss, forward = np.array(genes, dtype=np.int64).reshape(-1, 3).T
    arguments = (chrom, start, start + length, gene_chrom, tss, forward.astype(bool), window)
    found = genome.cis(*arguments)
    assert found.shape == (len(genes), len(peaks))
    assert as_dict(found) == brute_force(*arguments)
    assert found.has_canonical_format


def test_one_long_peak_among_many_short_ones():
    """A gap wider than the window between the start of a long peak and the gene that it covers."""
    start = np.array([0, *range(1000, 90_000, 1000)])
    end = np.append(100_000, start[1:] + 10)
    zero = np.zeros(len(start), dtype=int)
    found = genome.cis(zero, start, end, np.array([0]), np.array([80_500]), np.array([True]), 600)
    assert as_dict(found) == {(0, 0): 0, (0, 80): -491, (0, 81): 500}


def test_direction_follows_the_strand():
    start, end = np.array([10, 60]), np.array([20, 70])
    assert genome.distance(start, end, 40, True).tolist() == [-21, 20]
    assert genome.distance(start, end, 40, False).tolist() == [21, -20]
    assert genome.distance(start, end, 19, True)[0] == 0
    assert genome.distance(start, end, 20, True)[0] == -1
    assert genome.distance(start, end, 9, True)[0] == 1


def test_distances_survive_their_encoding():
    values = np.array([0, 1, -1, 500_000, -500_000, genome.MAX_WINDOW, -genome.MAX_WINDOW], dtype=np.float32)
    n = len(values)
    csr = sparse.csr_matrix((values, np.arange(n), [0, n]), shape=(1, n))
    stored = genome.encode(csr)
    assert (stored.data != 0).all()
    assert stored.data.tolist()[:4] == [1, 2, -2, 500_001]
    back = genome.decode(stored)
    assert back.data.tolist() == values.tolist()
    assert back.nnz == n
    assert csr.data.tolist() == values.tolist()


@pytest.mark.parametrize("far", [False, True])
def test_chromosomes_do_not_touch(far):
    """Neither the last base of one chromosome and the first of the next, nor a window as wide as is allowed."""
    tss = np.array([2**31 - 1 if far else 0])
    found = genome.cis(
        np.array([0, 1]),
        np.array([2**31, 5]),
        np.array([2**31 + 5, 9]),
        np.array([1 - far]),
        tss,
        np.array([True]),
        2**24,
    )
    assert as_dict(found) == ({(0, 0): 1} if far else {(0, 1): 5})
