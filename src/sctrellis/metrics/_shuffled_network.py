from typing import Any

import numpy as np
from scipy import sparse

from sctrellis._core import checks
from sctrellis.metrics._degree_null import degree_null


def shuffled_network(network: Any, *, seed: int | None = 0) -> sparse.csr_matrix:
    """Return a network of the same degrees and the same weights of each regulator, with other targets.

    What such a network predicts needs no knowledge of which regulator acts on which gene.

    Parameters
    ----------
    network : (n_genes, n_genes)
        Weights, row = regulator, column = target; sparse or dense. Zeros are no edges.
    seed
        Seed in [0, 2**32); None draws one.

    Returns
    -------
    csr_matrix
        Every regulator keeps its number of targets and its weights, every target its number of regulators. There are no
        self edges. Weights keep the dtype of `network`.

    Raises
    ------
    ValueError
        If the network is not square or has no edge.

    Notes
    -----
    Edges are traded as in :func:`degree_null`, then the weights of each regulator are dealt at random to its new
    targets. Where every pair is an edge, as in networks from ridge regression, there is nothing to trade and only the
    weights move: then the sum of weights that a target receives is not kept.

    Examples
    --------
    >>> import numpy as np
    >>> from sctrellis import metrics
    >>> network = np.zeros((5, 5))
    >>> network[0, 1:3], network[1, 3] = [0.5, -0.5], 2.0
    >>> sorted(metrics.shuffled_network(network)[0].data.tolist())
    [-0.5, 0.5]
    """
    seed = checks.seed(seed)
    edges = sparse.coo_matrix(network)
    if edges.shape[0] != edges.shape[1]:
        msg = f"Expected `network` to be square, genes x genes, found shape {edges.shape}."
        raise ValueError(msg)
    kept = (edges.data != 0) & (edges.row != edges.col)
    row, column, weight = edges.row[kept], edges.col[kept], edges.data[kept]
    if not len(row):
        msg = "`network` has no edge: there is nothing to shuffle."
        raise ValueError(msg)
    order = np.lexsort((column, row))
    row, column, weight = row[order], column[order], weight[order]
    trade, deal = np.random.SeedSequence(seed).spawn(2)
    row, column = _traded(row, column, int(trade.generate_state(1)[0]))
    # Within each regulator: edges in order, weights in random order.
    dealt = np.lexsort((np.random.default_rng(deal).random(len(row)), row))
    return sparse.csr_matrix((weight[dealt], (row, column)), shape=edges.shape)


def _traded(row: np.ndarray, column: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the edges of a random network of the same degrees, by regulator and then target."""
    rows, columns = np.unique(row), np.unique(column)
    place = np.repeat(rows, len(columns)), np.tile(columns, len(rows))
    allowed = place[0] != place[1]
    place = place[0][allowed], place[1][allowed]
    width = int(max(rows.max(), columns.max())) + 1
    labels = np.isin(place[0].astype(np.int64) * width + place[1], row.astype(np.int64) * width + column)
    if len(rows) < 2 or len(columns) < 2 or labels.all():
        return row, column
    drawn = np.sort(degree_null(*place, labels, n_perm=1, seed=seed, n_jobs=1).positive[0])
    return place[0][drawn], place[1][drawn]
