from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from sctrellis._core import checks
from sctrellis.metrics._knockoff_generator import basis, residual
from sctrellis.metrics._knockoffs import check_arrays, check_own

_LEAST = 1e-9
"""Share of a variance below which nothing is left of it."""


@dataclass(frozen=True, kw_only=True)
class PartialTest:
    """Tests of regression coefficients, for every regulator and target.

    Parameters
    ----------
    partial : float64, (p, m)
        Partial correlations given all other regulators; NaN for self pairs and constant targets.
    pvalue : float64, (p, m)
        Two-sided p-values.
    qvalue : float64, (p, m)
        Benjamini-Hochberg q-values, all targets that are no regulators together, and those that are.
    """

    partial: np.ndarray
    pvalue: np.ndarray
    qvalue: np.ndarray


def partial_test(x: Any, y: Any, *, own: Any = None, covariates: Any = None, robust: bool = False) -> PartialTest:
    r"""Test the regression coefficients of every target on all regulators, by least squares.

    Parameters
    ----------
    x : (n, p)
        Regulators, none of them constant.
    y : (n, m)
        Targets.
    own : (m,)
        Which regulator each target is, -1 for none; None for none at all. A regulator is no regulator of itself.
    covariates : (n, k)
        Known covariates, regressed out together with the regulators.
    robust
        Whether to allow for a noise that depends on the regulators.

    Returns
    -------
    PartialTest
        Partial correlations, p-values and q-values.

    Raises
    ------
    ValueError
        If there are not more cells than regulators and covariates, or regulators depend on each other linearly.

    Notes
    -----
    With :math:`e_j` the residuals of regulator j on all others, scaled to :math:`e_j^\top x_j = 1`, and :math:`r_k`
    those of target k, the coefficient is :math:`e_j^\top y_k` and its variance
    :math:`\sigma_k^2 \lVert e_j \rVert^2`, or :math:`\sum_i e_{ij}^2 r_{ik}^2 / (1 - h_i)^2` with `robust`, where
    :math:`h_i` is the leverage of cell i (the HC3 variance). Valid for linear effects and many more cells than
    regulators. O(n p (p + m)), once more with `robust`.

    References
    ----------
    :cite:p:`white1980,mackinnon1985` for the robust variance, :cite:p:`benjamini1995` for the q-values.

    Examples
    --------
    >>> import numpy as np
    >>> from sctrellis import metrics
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(300, 3))
    >>> found = metrics.partial_test(x, x[:, [0]] + rng.normal(size=(300, 1)))
    >>> (found.qvalue[:, 0] < 0.01).tolist()
    [True, False, False]
    """
    x, y, covariates = check_arrays(x, y, covariates)
    (n, p), m = x.shape, y.shape[1]
    own = check_own(own, p, m)
    design = np.ones((n, 1)) if covariates is None else np.column_stack([np.ones(n), covariates])
    n_known = basis(design).shape[1]
    freedom = n - p - n_known
    if freedom < 1:
        msg = (
            f"Least squares needs more than {p + n_known:,} cells for {p:,} regulators, found {n:,}. Use `knockoffs`, "
            "which shrinks correlations, or fewer regulators."
        )
        raise ValueError(msg)
    before = x.std(axis=0)
    x, y = (residual(a, design[:, 1:]) for a in (x, y))
    explained = np.flatnonzero(x.std(axis=0) < 1e-6 * before)
    if len(explained):
        msg = (
            f"{len(explained)} of the {p} regulators follow from the covariates (first at {checks.some(explained)}), "
            "so they have no coefficients of their own. Leave them out."
        )
        raise ValueError(msg)
    x = x / x.std(axis=0)
    scale = y.std(axis=0)
    varies = scale > 1e-9
    y = y / np.where(varies, scale, 1.0)
    precision = _inverse(x.T @ x / n) / n
    dual = x @ precision
    # How far each cell draws the fit to itself; the constant and the covariates do so as well.
    leverage = np.square(basis(design)).sum(axis=1) + np.einsum("ij,ij->i", dual, x) if robust else None
    t = np.full((p, m), np.nan)
    plain, regulates = (np.flatnonzero(part & varies) for part in (own < 0, own >= 0))
    t[:, plain] = _t(precision, dual, x, y[:, plain], freedom, leverage)
    # A regulator is regressed on one fewer.
    t[:, regulates] = _t_own(precision, dual, own[regulates], freedom + 1, leverage)
    degrees = np.where(own >= 0, freedom + 1, freedom)
    pvalue = 2 * stats.t.sf(np.abs(t), degrees)
    qvalue = np.full((p, m), np.nan)
    for part in (own < 0, own >= 0):
        tested = np.isfinite(pvalue) & part
        if tested.any():
            qvalue[tested] = stats.false_discovery_control(pvalue[tested])
    return PartialTest(partial=t / np.sqrt(t**2 + degrees), pvalue=pvalue, qvalue=qvalue)


def _inverse(gram: np.ndarray) -> np.ndarray:
    """Return the inverse of a correlation matrix; raises where columns follow from others."""
    p = len(gram)
    try:
        inverse = cho_solve(cho_factor(gram), np.eye(p))
    except LinAlgError:
        inverse = np.full((p, p), np.inf)
    # The inverse of the diagonal is the share of a regulator's variance that the others do not explain.
    if not np.diagonal(inverse).max() < 1 / _LEAST:
        values, vectors = np.linalg.eigh(gram)
        dependent = np.flatnonzero((np.abs(vectors[:, values < p * _LEAST]) > 1e-4).any(axis=1))
        msg = (
            f"{len(dependent)} of the {p} regulators follow from each other (first at {checks.some(dependent)}), so "
            "they have no coefficients of their own. Leave out copies."
        )
        raise ValueError(msg)
    return inverse


def _t(
    precision: np.ndarray, dual: np.ndarray, x: np.ndarray, y: np.ndarray, freedom: int, leverage: np.ndarray | None
) -> np.ndarray:
    """Return t-values of targets that are no regulators, shape (p, m); robust where leverages are given."""
    coefficients = dual.T @ y
    left = y - x @ coefficients
    if leverage is None:
        variance = np.diagonal(precision)[:, None] * (left**2).sum(axis=0) / freedom
    else:
        variance = (dual**2).T @ (left / np.maximum(1 - leverage, _LEAST)[:, None]) ** 2
    return coefficients / np.sqrt(variance)


def _t_own(
    precision: np.ndarray, dual: np.ndarray, own: np.ndarray, freedom: int, leverage: np.ndarray | None
) -> np.ndarray:
    """Return t-values of targets that are regulators, from the inverse with all of them, shape (p, m)."""
    # Regressing k on the others: coefficients -P_jk / P_kk, residuals dual_k / P_kk, inverse P - P_k P_k' / P_kk.
    h, g = np.diagonal(precision)[own], precision[:, own]
    coefficients, left = -g / h, dual[:, own] / h
    if leverage is None:
        variance = (np.diagonal(precision)[:, None] - g**2 / h) / h / freedom
    else:
        without = leverage[:, None] - dual[:, own] ** 2 / h
        square = (left / np.maximum(1 - without, _LEAST)) ** 2
        # Residuals of j on the others without k are those with k plus a multiple of k's.
        cross, own_square = dual.T @ (dual[:, own] * square), (dual[:, own] ** 2 * square).sum(axis=0)
        variance = (dual**2).T @ square - 2 * (g / h) * cross + (g / h) ** 2 * own_square
    with np.errstate(invalid="ignore", divide="ignore"):
        t = coefficients / np.sqrt(variance)
    t[own, np.arange(len(own))] = np.nan
    return t
