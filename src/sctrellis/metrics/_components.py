"""Principal components of cells."""

import numpy as np
from scipy.sparse.linalg import svds

from sctrellis.metrics._effective_size import standardised


def components(x: np.ndarray, n_components: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the leading principal components of standardised genes, and their shares of the variance.

    Parameters
    ----------
    x : (n, p)
        Expression.
    n_components
        How many; fewer come back where the smaller side of the matrix has no more.

    Returns
    -------
    scores : float64, (n, k)
        Orthonormal columns.
    share : float64, (k,)
        Share of the variance of all genes.
    """
    z = standardised(x).astype(np.float64)
    total = float(np.vdot(z, z))
    k, least = min(n_components, min(z.shape) - 1), min(z.shape)
    if least <= 200 or k > least // 2:
        left, scale, _ = np.linalg.svd(z, full_matrices=False)
    else:
        # A fixed start makes equal runs equal; ARPACK gives the smallest first.
        left, scale, _ = svds(z, k=k, v0=np.random.default_rng(0).standard_normal(least))
        order = np.argsort(-scale)
        left, scale = left[:, order], scale[order]
    return left[:, :k], scale[:k] ** 2 / total
