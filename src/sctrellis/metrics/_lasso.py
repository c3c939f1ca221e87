"""The lasso for many targets with the same regressors."""

import numpy as np
from sklearn.linear_model import lasso_path

TOLERANCE = 1e-5
"""Duality gap at which a target is solved, as a share of its variance."""


def lasso(gram: np.ndarray, moments: np.ndarray, penalty: float) -> np.ndarray:
    r"""Return the lasso coefficients of many targets from the second moments alone.

    Minimises :math:`\tfrac12 b^\top G b - c^\top b + \lambda \lVert b \rVert_1` for each column c of the moments.

    Parameters
    ----------
    gram : (q, q)
        :math:`G = X^\top X / n` of standardised regressors.
    moments : (q, m)
        :math:`X^\top Y / n` of standardised targets.
    penalty
        :math:`\lambda`.

    Returns
    -------
    float64, (q, m)
        Coefficients.

    Notes
    -----
    Coordinate descent by scikit-learn, one target at a time: few coefficients of a target are not 0, and each step
    touches one row of the matrix only. Batched proximal gradients over all targets took 20 times as long (1,000
    regressors, 100 targets): with correlated regulators the largest eigenvalue, and so the number of steps, is large.
    """
    gram = np.ascontiguousarray(gram, dtype=np.float64)
    moments = np.asarray(moments, dtype=np.float64)
    # Only second moments enter: one row that stands for all cells, of the targets' variance, carries the shapes.
    row, one = np.zeros((1, len(gram)), order="F"), np.ones(1)
    coefficients = np.zeros(moments.shape)
    for j in np.flatnonzero((np.abs(moments) > penalty).any(axis=0)):
        coefficients[:, j] = lasso_path(
            row,
            one,
            alphas=[penalty],
            precompute=gram,
            Xy=np.ascontiguousarray(moments[:, j]),
            check_input=False,
            tol=TOLERANCE,
            max_iter=10_000,
            random_state=0,  # not used, but without it numbers are taken from the global generator
        )[1][:, 0]
    return coefficients
