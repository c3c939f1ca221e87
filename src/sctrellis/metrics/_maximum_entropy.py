from typing import Any

import numpy as np
from scipy import special
from scipy.linalg import solve

from sctrellis.metrics import _ranking
from sctrellis.metrics._pair_table import PairTable

MAX_STEPS = 200
TOLERANCE = 1e-7
"""Largest difference between an expected and an observed degree at which the fit stops."""


def maximum_entropy(rows: Any, columns: Any, labels: Any) -> np.ndarray:
    r"""Probability of each pair in the most random network that has the known degrees on average.

    What degrees alone say of a pair. As a score it is the best that can be done by knowing who has how many edges, and
    nothing else; it has seen the labels, so it is a ceiling and no method.

    Parameters
    ----------
    rows, columns : (n,)
        Regulator and target of each pair.
    labels : (n,)
        Boolean, or 0 and 1.

    Returns
    -------
    float64, (n,)
        Probabilities, whose sums over each regulator and over each target are the known degrees.

    Raises
    ------
    ValueError
        If a pair stands there twice.

    Notes
    -----
    Edges are independent with :math:`\operatorname{logit} p_{ij} = a_i + b_j`, fitted by Newton's method on the
    likelihood; each step solves a system of regulators x regulators. Where a gene has no edge, or all it could have,
    its pairs are 0 or 1 and are taken out first. Cost: O(regulators² x targets) a step, some 10 steps.

    References
    ----------
    :cite:p:`park2004`, for networks of given mean degrees.

    Examples
    --------
    >>> import numpy as np
    >>> from sctrellis import metrics
    >>> rows, columns = np.divmod(np.arange(4), 2)
    >>> metrics.maximum_entropy(rows, columns, [1, 0, 0, 1]).round(2).tolist()
    [0.5, 0.5, 0.5, 0.5]
    """
    labels = np.asarray(labels)
    labels = _ranking.as_labels(labels, len(labels))
    table = PairTable.of(rows, columns, len(labels))
    return fit_table(table, labels)[table.row, table.column]


def fit_table(table: PairTable, labels: np.ndarray) -> np.ndarray:
    """Return the probabilities of all cells, 0 where a cell is no pair, shape (n_rows, n_columns)."""
    free = table.allowed.copy()
    p = np.zeros(free.shape)
    left = [
        np.bincount(table.row[labels], minlength=len(p)),
        np.bincount(table.column[labels], minlength=len(p.T)),
    ]
    _fix_forced(free, p, left)
    rows, columns = np.flatnonzero(free.any(axis=1)), np.flatnonzero(free.any(axis=0))
    if len(rows):
        inner = np.ix_(rows, columns)
        fitted = _newton(free[inner], left[0][rows].astype(float), left[1][columns].astype(float))
        p[inner] = np.where(free[inner], fitted, p[inner])
    return p


def _fix_forced(free: np.ndarray, p: np.ndarray, left: list[np.ndarray]) -> None:
    """Fix cells of rows and columns that are empty or full; each may make others so."""
    while True:
        for axis in (0, 1):
            degrees, capacity = left[axis], free.sum(axis=1 - axis)
            full = (degrees == capacity) & (capacity > 0)
            forced = full | ((degrees == 0) & (capacity > 0))
            if not forced.any():
                continue
            lines = np.expand_dims(full, 1 - axis) & free
            p[lines] = 1.0
            left[0] = left[0] - lines.sum(axis=1)
            left[1] = left[1] - lines.sum(axis=0)
            free &= ~np.expand_dims(forced, 1 - axis)
            break
        else:
            return


def _newton(free: np.ndarray, out_degree: np.ndarray, in_degree: np.ndarray) -> np.ndarray:
    """Return sigmoid(a + b) whose sums over the free cells are the degrees."""
    a = special.logit(out_degree / free.sum(axis=1))
    b = special.logit(in_degree / free.sum(axis=0)) - special.logit(out_degree.sum() / free.sum())
    value = -np.inf
    step_a, step_b, scale = np.zeros_like(a), np.zeros_like(b), 1.0
    for _ in range(MAX_STEPS):
        logit = a[:, None] + b
        # log-likelihood, with the log of 1 + exp safe for large logits
        new = float(a @ out_degree + b @ in_degree - np.where(free, np.logaddexp(0.0, logit), 0.0).sum())
        if new < value - 1e-9 * abs(value) and scale > 1e-4:
            scale /= 2
            a, b = a - scale * step_a, b - scale * step_b
            continue
        value, scale = new, 1.0
        p = np.where(free, special.expit(logit), 0.0)
        gap_a, gap_b = out_degree - p.sum(axis=1), in_degree - p.sum(axis=0)
        if max(np.abs(gap_a).max(), np.abs(gap_b).max()) < TOLERANCE:
            break
        w = p * (1 - p)
        weight_a, weight_b = w.sum(axis=1) + 1e-12, w.sum(axis=0) + 1e-12
        # Adding a constant to a and taking it from b changes nothing: the small ridge picks one solution.
        system = -(w / weight_b) @ w.T
        system.flat[:: len(a) + 1] += weight_a * (1 + 1e-10)
        step_a = solve(system, gap_a - w @ (gap_b / weight_b), assume_a="sym")
        step_b = (gap_b - w.T @ step_a) / weight_b
        # The zero direction may come in by rounding; a step longer than this means probabilities of 0 or 1.
        shift = step_a.mean()
        step_a, step_b = np.clip(step_a - shift, -5, 5), np.clip(step_b + shift, -5, 5)
        a, b = a + step_a, b + step_b
    return special.expit(a[:, None] + b)
