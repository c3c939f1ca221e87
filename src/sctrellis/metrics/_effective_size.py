from dataclasses import dataclass
from typing import Any

import numpy as np

_BLOCK = 2048


@dataclass(frozen=True, kw_only=True)
class EffectiveSize:
    """How many independent cells a matrix is worth.

    Parameters
    ----------
    n_cells, n_genes
        Shape of the matrix, without constant genes.
    n_eff
        Effective number of cells.
    permuted
        What n_eff is on average if the values of each gene are shuffled over the cells.
    ratio
        `n_eff` / `permuted`: 1 for genes that know nothing of each other.
    """

    n_cells: int
    n_genes: int
    n_eff: float
    permuted: float
    ratio: float


def effective_size(x: Any) -> EffectiveSize:
    r"""Measure how many independent cells a matrix is worth, and how many it could be.

    Parameters
    ----------
    x : (n, p)
        Expression. Genes are standardised; constant ones are left out.

    Returns
    -------
    EffectiveSize
        The effective number of cells, beside that of shuffled genes.

    Raises
    ------
    ValueError
        If the matrix is not finite, has fewer than 3 rows, or fewer than 2 columns vary.

    Notes
    -----
    :math:`n_\text{eff} = (\operatorname{tr} K)^2 / \operatorname{tr} K^2` of the Gram matrix :math:`K = ZZ^\top` of
    cells, which is :math:`p^2 / \sum_{jk} r_{jk}^2` in the correlations of genes: only the smaller of the two matrices
    is ever computed, in blocks. It is 1 where all cells lie on one line. Copies of cells leave it as it is.

    Even independent genes have chance correlations, so that the most that n cells and p genes can give is about
    :math:`np / (n + p)`. Over all shuffles of a gene, :math:`r^2` is :math:`1 / (n - 1)` on average, whatever its
    values, so `permuted` is :math:`p / (1 + (p - 1)/(n - 1))` without shuffling anything.

    Cost: O(n p min(n, p)).

    Examples
    --------
    >>> import numpy as np
    >>> from sctrellis import metrics
    >>> rng = np.random.default_rng(0)
    >>> independent = rng.normal(size=(200, 100))
    >>> driven = independent + 3 * rng.normal(size=(200, 1))
    >>> [round(metrics.effective_size(x).ratio, 2) for x in (independent, driven)]
    [1.01, 0.02]
    """
    x = np.asarray(x)
    if x.ndim != 2 or len(x) < 3:
        msg = f"Expected `x` to be a matrix of at least 3 rows, found shape {x.shape}."
        raise ValueError(msg)
    n_bad = int((~np.isfinite(x)).sum())
    if n_bad:
        msg = f"`x` has {n_bad:,} NaN or infinite values."
        raise ValueError(msg)
    z = standardised(x[:, np.ptp(x, axis=0) > 0])
    n, p = z.shape
    if p < 2:
        msg = f"Only {p} of the {x.shape[1]} columns of `x` vary: at least 2 must."
        raise ValueError(msg)
    sides = z if n < p else z.T
    squares = 0.0
    for start in range(0, len(sides), _BLOCK):
        gram = sides[start : start + _BLOCK] @ sides.T
        squares += float(np.einsum("ij,ij->", gram, gram, dtype=np.float64))
    n_eff = p**2 / (squares / n**2)
    permuted = p / (1 + (p - 1) / (n - 1))
    return EffectiveSize(n_cells=n, n_genes=p, n_eff=n_eff, permuted=permuted, ratio=n_eff / permuted)


def standardised(x: np.ndarray) -> np.ndarray:
    """Return columns with mean 0 and variance 1, float32; constant ones are 0."""
    mean, std = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    constant = std <= 1e-7 * np.maximum(1.0, np.abs(mean))
    return ((x - mean) / np.where(constant, np.inf, std)).astype(np.float32)
