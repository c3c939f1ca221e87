"""Graphs in which every gene has as many neighbours as before, but others."""

import numpy as np
from scipy import sparse

_KEYS = 4_000_000
"""Random keys held at once: 32 MB."""


def random_neighbours(graph: sparse.csr_matrix, rng: np.random.Generator) -> sparse.csr_matrix:
    """Return a graph with the same number of neighbours in each row, drawn at random.

    Parameters
    ----------
    graph
        CSR, row = receiver, column = neighbour; only which entries are stored counts.
    rng
        Source of randomness.

    Returns
    -------
    csr_matrix, float32
        Ones. Each row draws without replacement among the columns that some row has as neighbour, itself left out,
        with chances in proportion to how many rows have them: so busy neighbours stay busy. A row that already had
        every possible neighbour keeps them.

    Notes
    -----
    Weighted draws without replacement are the largest of logarithm of weight plus Gumbel noise (Efraimidis and
    Spirakis 2006), for many rows at once.
    """
    graph = sparse.csr_matrix(graph)
    n = graph.shape[0]
    counts = np.diff(graph.indptr)
    popularity = np.bincount(graph.indices, minlength=graph.shape[1])
    pool = np.flatnonzero(popularity)
    receivers = np.flatnonzero(counts)
    log_weight = np.log(popularity[pool])
    rows, columns = [], []
    size = max(1, _KEYS // max(len(pool), 1))
    for start in range(0, len(receivers), size):
        part = receivers[start : start + size]
        key = log_weight + rng.gumbel(size=(len(part), len(pool)))
        key[part[:, None] == pool[None, :]] = -np.inf
        order = np.argsort(-key, axis=1, kind="stable")
        taken = np.arange(len(pool)) < counts[part, None]
        rows.append(np.repeat(part, counts[part]))
        columns.append(pool[order[taken]])
    if not rows:
        return sparse.csr_matrix(graph.shape, dtype=np.float32)
    row, column = np.concatenate(rows), np.concatenate(columns)
    drawn = sparse.csr_matrix((np.ones(len(row), np.float32), (row, column)), shape=(n, graph.shape[1]))
    drawn.sort_indices()
    return drawn
