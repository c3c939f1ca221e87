"""Scores that know only which regulator and which target a pair joins: what a supervised model has to beat."""

from typing import Any

import numpy as np
from scipy import sparse


def one_hot_scores(rows: Any, columns: Any, labels: Any, query_rows: Any, query_columns: Any) -> np.ndarray:
    """Return logits of a logistic regression on the identity of regulator and target, without any expression.

    Parameters
    ----------
    rows, columns : (n,)
        Regulator and target of each training pair: non-negative integers.
    labels : (n,)
        Boolean, or 0 and 1.
    query_rows, query_columns : (m,)
        Regulator and target of each pair to score.

    Returns
    -------
    float64, (m,)
        :math:`c + a_i + b_k`. A gene without training pairs in that role has the coefficient 0, so pairs of two such
        genes all score exactly :math:`c`.

    Notes
    -----
    The penalty is half the sum of squared coefficients (``C=1`` of scikit-learn); the intercept is not penalised. Where
    all labels are equal there is nothing to tell genes apart, and every pair gets the same logit.
    """
    intercept, row_effect, column_effect = one_hot_effects(rows, columns, labels, query_rows, query_columns)
    return intercept + row_effect + column_effect


def one_hot_effects(
    rows: Any, columns: Any, labels: Any, query_rows: Any, query_columns: Any
) -> tuple[float, np.ndarray, np.ndarray]:
    """Return the intercept of :func:`one_hot_scores`, and what regulator and target add to it, each of shape (m,)."""
    from sklearn.linear_model import LogisticRegression

    rows, columns, labels = np.asarray(rows), np.asarray(columns), np.asarray(labels).astype(bool)
    regulators, row = np.unique(rows, return_inverse=True)
    targets, column = np.unique(columns, return_inverse=True)
    if labels.all() or not labels.any():
        none = np.zeros(len(np.asarray(query_rows)))
        return float(np.log((labels.sum() + 0.5) / ((~labels).sum() + 0.5))), none, none
    n, n_regulators = len(rows), len(regulators)
    index = np.stack([row, n_regulators + column], axis=1).ravel()
    one_hot = sparse.csr_matrix(
        (np.ones(2 * n), index, np.arange(0, 2 * n + 1, 2)), shape=(n, n_regulators + len(targets))
    )
    # A tight tolerance: the order of genes must not show in the scores.
    model = LogisticRegression(C=1.0, tol=1e-8, max_iter=10_000).fit(one_hot, labels)
    effects = model.coef_[0]
    return (
        float(model.intercept_[0]),
        _at(regulators, effects[:n_regulators], np.asarray(query_rows)),
        _at(targets, effects[n_regulators:], np.asarray(query_columns)),
    )


def degree_scores(rows: Any, columns: Any, labels: Any, query_rows: Any, query_columns: Any) -> np.ndarray:
    """Return the popularity of pairs: the log of one plus the known targets and that of one plus the known regulators.

    Parameters
    ----------
    rows, columns : (n,)
        Regulator and target of each training pair: non-negative integers.
    labels : (n,)
        Boolean, or 0 and 1.
    query_rows, query_columns : (m,)
        Regulator and target of each pair to score.

    Returns
    -------
    float64, (m,)
        0 for two genes without a known edge in the training pairs.
    """
    labels = np.asarray(labels).astype(bool)
    return np.log1p(degrees(np.asarray(rows)[labels], query_rows)) + np.log1p(
        degrees(np.asarray(columns)[labels], query_columns)
    )


def degrees(ends: Any, query: Any) -> np.ndarray:
    """Return how often each gene of ``query`` is among ``ends``."""
    genes, counts = np.unique(np.asarray(ends), return_counts=True)
    return _at(genes, counts.astype(float), np.asarray(query))


def _at(genes: np.ndarray, values: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Return the value of each queried gene, 0 for one that is not among ``genes`` (sorted)."""
    if not len(genes):
        return np.zeros(len(query))
    place = np.minimum(np.searchsorted(genes, query), len(genes) - 1)
    return np.where(genes[place] == query, values[place], 0.0)
