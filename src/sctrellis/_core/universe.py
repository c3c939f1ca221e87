"""Which regulator-target pairs a network can be judged on."""

from typing import Literal

import numpy as np
from scipy import sparse

from sctrellis._core import checks

Universe = Literal["beeline_tf", "beeline_all", "listed", "labelled"]
UNIVERSES: tuple[Universe, ...] = ("beeline_tf", "beeline_all", "listed", "labelled")


def pairs(
    network: sparse.csr_matrix, regulators: np.ndarray | None, mode: Universe = "beeline_tf"
) -> sparse.csr_matrix:
    """Return the candidate pairs of a known network.

    Parameters
    ----------
    network
        CSR, row = regulator, column = target; > 0 known edge, -1 known non-edge, absent = unknown.
    regulators
        Boolean mask of the candidate regulators; needed by ``"listed"`` only.
    mode
        ``"beeline_tf"``: regulators with an edge x genes with an edge, as BEELINE does with ``TFEdges``;
        ``"beeline_all"``: all ordered pairs of genes with an edge; ``"listed"``: candidate regulators x all genes;
        ``"labelled"``: the pairs stored in the network (needs known non-edges). Self pairs are never included.

    Returns
    -------
    csr_matrix, bool, shape (n_vars, n_vars)
        True where a pair is a candidate.
    """
    checks.choice("universe", mode, UNIVERSES)
    network = sparse.csr_matrix(network)
    n_vars = network.shape[0]
    coo = network.tocoo()
    if mode == "labelled":
        kept = coo.row != coo.col
        return sparse.csr_matrix((np.ones(kept.sum(), bool), (coo.row[kept], coo.col[kept])), shape=network.shape)
    positive = (coo.data > 0) & (coo.row != coo.col)
    sources, targets = np.unique(coo.row[positive]), np.unique(coo.col[positive])
    genes = np.union1d(sources, targets)
    if mode == "beeline_all":
        sources = genes
    elif mode == "listed":
        if regulators is None:
            msg = "`universe='listed'` needs candidate regulators: run `sctrellis.pp.regulators(adata, names)` first."
            raise ValueError(msg)
        sources, genes = np.flatnonzero(regulators), np.arange(n_vars)
    row = np.repeat(sources, len(genes))
    column = np.tile(genes, len(sources))
    kept = row != column
    return sparse.csr_matrix((np.ones(kept.sum(), bool), (row[kept], column[kept])), shape=network.shape)
