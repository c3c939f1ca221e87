"""From statistics of variables against their knockoffs to q-values."""

from typing import Any

import numpy as np

from sctrellis._core import checks

SHARE = 0.4
"""Share of the wanted rate at which single draws are filtered before their e-values are averaged. At more than half, a
pair must be selected by nearly all draws; at half, nothing may pass where the number selected varies between draws."""


def knockoff_qvalues(statistics: Any) -> np.ndarray:
    r"""Smallest false discovery rate at which each hypothesis is selected by the knockoff filter.

    Parameters
    ----------
    statistics
        One number per hypothesis, of any shape: positive where the variable explains more than its knockoff, negative
        where the knockoff does. Signs of hypotheses without an effect must be fair coins.

    Returns
    -------
    float64, of the same shape
        In (0, 1]; 1 where the statistic is not positive.

    Raises
    ------
    ValueError
        If a statistic is NaN.

    Notes
    -----
    :math:`q = \min_{0 < t \le W} (1 + \#\{W \le -t\}) / \#\{W \ge t\}` over all hypotheses given: pooling them is part
    of the claim, and so is not picking among them afterwards. For a subset, pass the subset. The 1 is what makes the
    bound hold; with few hypotheses it also means that q cannot be below 1 / (number selected).

    References
    ----------
    :cite:p:`candes2018`.

    Examples
    --------
    >>> from sctrellis import metrics
    >>> metrics.knockoff_qvalues([5, 4, 3, -2, 1]).round(2).tolist()
    [0.33, 0.33, 0.33, 1.0, 0.5]
    """
    statistics = np.asarray(statistics, dtype=np.float64)
    w = statistics.ravel()
    if np.isnan(w).any():
        msg = f"`statistics` has {int(np.isnan(w).sum()):,} NaN values."
        raise ValueError(msg)
    q = np.ones(len(w))
    positive, negative = np.sort(w[w > 0]), np.sort(-w[w < 0])
    if len(positive):
        thresholds = np.unique(positive)
        selected = len(positive) - np.searchsorted(positive, thresholds, side="left")
        wrong = len(negative) - np.searchsorted(negative, thresholds, side="left")
        best = np.minimum(np.minimum.accumulate((1 + wrong) / selected), 1.0)
        found = w > 0
        q[found] = best[np.searchsorted(thresholds, w[found])]
    return q.reshape(statistics.shape)


def knockoff_evalues(statistics: np.ndarray, level: float) -> np.ndarray:
    """Return the e-values of one draw: hypotheses / (1 + negatives beyond the threshold) where selected, else 0.

    Parameters
    ----------
    statistics
        As in :func:`knockoff_qvalues`.
    level
        False discovery rate at which the filter selects.
    """
    selected = knockoff_qvalues(statistics) <= level
    if not selected.any():
        return np.zeros(statistics.shape)
    threshold = statistics[selected].min()
    return selected * (statistics.size / (1 + np.count_nonzero(statistics <= -threshold)))


def e_bh(evalues: Any) -> np.ndarray:
    r"""Smallest false discovery rate at which each hypothesis is selected by its e-value.

    Parameters
    ----------
    evalues
        Non-negative numbers, one per hypothesis, of any shape. Under the null their means sum to no more than their
        number.

    Returns
    -------
    float64, of the same shape
        In (0, 1].

    Raises
    ------
    ValueError
        If an e-value is negative or NaN.

    Notes
    -----
    The Benjamini-Hochberg procedure on 1 / e: with n hypotheses and :math:`e_{(k)}` the k-th largest e-value,
    :math:`\min_{l \ge k} n / (l\, e_{(l)})`. It holds under any dependence, which is why e-values of many draws may be
    averaged.

    References
    ----------
    :cite:p:`wang2022ebh`.

    Examples
    --------
    >>> from sctrellis import metrics
    >>> metrics.e_bh([40, 20, 0, 0]).tolist()
    [0.1, 0.1, 1.0, 1.0]
    """
    evalues = np.asarray(evalues, dtype=np.float64)
    e = evalues.ravel()
    if not (e >= 0).all():
        msg = "Expected `evalues` to be non-negative numbers."
        raise ValueError(msg)
    order = np.argsort(-e, kind="stable")
    rank = np.arange(1, len(e) + 1)
    ratio = np.divide(len(e), rank * e[order], out=np.full(len(e), np.inf), where=e[order] > 0)
    q = np.empty(len(e))
    q[order] = np.minimum(np.minimum.accumulate(ratio[::-1])[::-1], 1.0)
    return q.reshape(evalues.shape)


def family_qvalues(statistics: np.ndarray, tested: np.ndarray, family: str, q: float) -> np.ndarray:
    """Return q-values of several draws of a regulators x targets table, pooled or target by target.

    Parameters
    ----------
    statistics : (n_draws, p, m)
        Statistics of each draw.
    tested : bool, (p, m)
        Which pairs are hypotheses; the others get NaN.
    family
        ``"network"``: all tested pairs together; ``"target"``: those of each target.
    q
        Level that the e-values are made for: :data:`SHARE` of it, where there are several draws.
    """
    found = np.full(tested.shape, np.nan)
    groups = [slice(None)] if family == "network" else [slice(j, j + 1) for j in range(tested.shape[1])]
    for columns in groups:
        where = tested[:, columns]
        part = statistics[:, :, columns][:, where]
        found[:, columns][where] = _combined(part, q) if part.size else 1.0
    return found


def _combined(statistics: np.ndarray, q: float) -> np.ndarray:
    if len(statistics) == 1:
        return knockoff_qvalues(statistics[0])
    return e_bh(np.mean([knockoff_evalues(draw, SHARE * q) for draw in statistics], axis=0))


def check_level(q: float) -> float:
    """Return a false discovery rate strictly between 0 and 1."""
    return checks.number("q", q, low=0, high=1, open_low=True, open_high=True)
