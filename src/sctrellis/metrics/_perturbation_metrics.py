from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from sctrellis._core import checks

METRICS = ("mae", "mse", "pearson", "spearman", "top_overlap", "direction")


def perturbation_metrics(
    predicted: Any, observed: Any, *, excluded: Any = None, k: int = 20, min_change: Any = 0.0
) -> pd.DataFrame:
    r"""Compare predicted with observed changes of expression, perturbation by perturbation.

    A change is the mean expression after a perturbation minus that of control cells. The perturbed gene itself is left
    out: that a knocked-out gene falls is no prediction.

    Parameters
    ----------
    predicted, observed : (n_perturbations, n_genes)
        Changes.
    excluded : (n_perturbations, n_genes)
        Boolean; what is left out, at least the perturbed genes. None leaves nothing out.
    k
        Number of genes in the overlap.
    min_change : (n_perturbations, n_genes) or a number
        Observed changes up to this size have no direction.

    Returns
    -------
    DataFrame
        One row per perturbation with

        ``mae``, ``mse``
            Mean absolute and mean squared error over the genes.
        ``pearson``, ``spearman``
            Correlation over the genes; NaN where either side is constant.
        ``top_overlap``
            Share of the `k` genes that change most, by absolute value, that are also among the `k` predicted to. Ties
            are broken at random, in expectation: a constant prediction gets `k` over the number of genes.
        ``direction``
            Share of the changed genes (above `min_change`) predicted to change in the right direction; a prediction
            of no change counts one half. NaN without a changed gene.

    Raises
    ------
    ValueError
        On arrays of unequal shape, values that are not finite, and fewer than `k` genes.

    Notes
    -----
    The squared error is a mean over genes. Some published tables call its sum, or its root, by the same name.

    References
    ----------
    :cite:p:`kernfeld2023pereggrn`, :cite:p:`ahlmanneltze2025`.

    Examples
    --------
    >>> from sctrellis import metrics
    >>> metrics.perturbation_metrics([[1.0, -1.0, 0.0]], [[2.0, -1.0, 0.0]], k=1)[["mae", "top_overlap"]].round(2)
        mae  top_overlap
    0  0.33          0.5
    """
    predicted, observed = as_changes("predicted", predicted), as_changes("observed", observed)
    left_out = np.zeros(observed.shape, bool) if excluded is None else np.asarray(excluded, dtype=bool)
    for name, shape in (("predicted", predicted.shape), ("excluded", left_out.shape)):
        if shape != observed.shape:
            msg = f"Expected `{name}` to have shape {observed.shape} as `observed`, found {shape}."
            raise ValueError(msg)
    k = checks.integer("k", k)
    fewest = int((~left_out).sum(axis=1).min())
    if k > fewest:
        msg = f"Expected `k` to be at most the number of genes that are judged, {fewest}, found {k}."
        raise ValueError(msg)
    x, y = (np.where(left_out, np.nan, values) for values in (predicted, observed))
    error = x - y
    changed = (np.abs(y) > min_change) & ~left_out
    right = np.where(changed, (1 + np.sign(x) * np.sign(y)) / 2, 0.0).sum(axis=1)
    n_changed = changed.sum(axis=1)
    ranks = [stats.rankdata(values, axis=1, nan_policy="omit") for values in (x, y)]
    return pd.DataFrame(
        {
            "mae": np.nanmean(np.abs(error), axis=1),
            "mse": np.nanmean(error**2, axis=1),
            "pearson": _correlation(x, y),
            "spearman": _correlation(*ranks),
            "top_overlap": (_membership(x, k) * _membership(y, k)).sum(axis=1) / k,
            "direction": np.divide(right, n_changed, out=np.full(len(right), np.nan), where=n_changed > 0),
        }
    )


def as_changes(name: str, values: Any) -> np.ndarray:
    """Return changes as float64, shape (n_perturbations, n_genes), finite."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or 0 in array.shape:
        msg = f"Expected `{name}` to have shape (n_perturbations, n_genes), found {array.shape}."
        raise ValueError(msg)
    n_bad = int((~np.isfinite(array)).sum())
    if n_bad:
        msg = f"`{name}` has {n_bad} NaN or infinite values. Leave such perturbations or genes out."
        raise ValueError(msg)
    return array


def _correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = (values - np.nanmean(values, axis=1, keepdims=True) for values in (x, y))
    # Rounding makes the spread of equal numbers tiny rather than zero.
    spread = [np.sqrt(np.nansum(values**2, axis=1)) for values in (x, y)]
    moves = np.minimum(*spread) > 1e-12
    return np.divide(np.nansum(x * y, axis=1), spread[0] * spread[1], out=np.full(len(x), np.nan), where=moves)


def _membership(values: np.ndarray, k: int) -> np.ndarray:
    """Return the probability of each gene to be among the ``k`` largest by absolute value."""
    size = np.where(np.isnan(values), -np.inf, np.abs(values))
    threshold = np.partition(size, -k, axis=1)[:, [-k]]
    above, tied = size > threshold, size == threshold
    return above + tied * (k - above.sum(axis=1, keepdims=True)) / tied.sum(axis=1, keepdims=True)
