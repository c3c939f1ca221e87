"""How far a knockoff may lie from its variable: the diagonal `s` of Gaussian knockoffs."""

from typing import Literal, get_args

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve, eigvalsh
from scipy.linalg.blas import dger

Spread = Literal["mvr", "maxent"]
SPREADS: tuple[Spread, ...] = get_args(Spread)
MAX_SWEEPS = 50
TOLERANCE = 1e-3
"""Largest relative change of an entry in a sweep at which the descent stops."""
_INSIDE = 0.999
"""Share of the way to the edge of what is possible, so that the conditional covariance has a Cholesky factor."""


def spread(correlation: np.ndarray, method: Spread = "mvr") -> np.ndarray:
    r"""Return s such that knockoffs have covariance R with each other and R - diag(s) with their variables.

    Parameters
    ----------
    correlation : float64, (p, p)
        Positive definite correlation matrix R.
    method
        ``"mvr"`` makes each variable hard to rebuild from the others and all knockoffs: it minimises the trace of the
        inverse of their joint covariance. ``"maxent"`` maximises its determinant.

    Returns
    -------
    float64, (p,)
        Positive, and 2 R - diag(s) is positive definite.

    Notes
    -----
    With :math:`D = (2R - \operatorname{diag} s)^{-1}`, :math:`a = D_{jj}` and :math:`c = \lVert D_{\cdot j}\rVert^2`,
    the objective in one coordinate has its optimum at :math:`\delta = (1 - \sqrt c\, s_j) / (a + \sqrt c)` (MVR) or
    :math:`\delta = (1/a - s_j) / 2` (maximum entropy), after which :math:`D` changes by the rank-one matrix
    :math:`\delta / (1 - \delta a)\, D_{\cdot j} D_{j \cdot}`. Both stay inside what is possible by themselves. O(p^3) a
    sweep, 4 to 10 sweeps.
    """
    p = len(correlation)
    lowest = eigvalsh(correlation, subset_by_index=[0, 0])[0]
    s = np.full(p, min(1.0, lowest))
    inverse = np.asfortranarray(cho_solve(cho_factor(2 * correlation - np.diag(s)), np.eye(p)))
    for _ in range(MAX_SWEEPS):
        largest = 0.0
        for j in range(p):
            column = inverse[:, j].copy()
            a = column[j]
            if method == "mvr":
                root = np.sqrt(column @ column)
                delta = (1 - root * s[j]) / (a + root)
            else:
                delta = (1 / a - s[j]) / 2
            s[j] += delta
            largest = max(largest, abs(delta) / s[j])
            inverse = dger(delta / (1 - delta * a), column, column, a=inverse, overwrite_a=1)
        if largest < TOLERANCE:
            break
    return _fit_inside(correlation, s)


def _fit_inside(correlation: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Scale s down where rounding took 2 R - diag(s) over the edge."""
    low, high, scale = 0.0, 1.0, 1.0
    for _ in range(30):
        try:
            np.linalg.cholesky(2 * correlation - np.diag(scale * s))
        except LinAlgError:
            high = scale
        else:
            if scale == 1.0:
                break
            low = scale
        scale = (low + high) / 2
    return s * (_INSIDE if scale == 1.0 else low * _INSIDE)
