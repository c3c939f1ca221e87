"""What a gene is like, from how it varies over control cells."""

from typing import Any

import numpy as np
from sklearn.utils.extmath import randomized_svd

N_COMPONENTS = 10
_MAX_CELLS = 2_000


def gene_loadings(rows: Any, cells: np.ndarray, *, seed: int) -> np.ndarray:
    """Return the genes' loadings on the first principal components of some cells, scaled by their spread.

    Parameters
    ----------
    rows
        Source of cells: any object with ``shape`` and ``take``, such as ``_core.rows.Rows``.
    cells : (n,)
        Positions of the cells; of more than 2,000 that many are drawn.
    seed
        Seed of the draw and of the decomposition.

    Returns
    -------
    ndarray, (n_genes, d)
        At most ten components of the standardised genes; 0 for a constant gene.
    """
    rng = np.random.default_rng(seed)
    if len(cells) > _MAX_CELLS:
        cells = np.sort(rng.choice(cells, _MAX_CELLS, replace=False))
    x = rows.take(cells).astype(np.float64)
    x -= x.mean(axis=0)
    spread = x.std(axis=0)
    x = np.divide(x, spread, out=np.zeros_like(x), where=spread > 0)
    size = min(N_COMPONENTS, *x.shape)
    _, scale, components = randomized_svd(x, size, random_state=seed)
    return (components * scale[:, None]).T / np.sqrt(len(x))
