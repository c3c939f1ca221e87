import numpy as np

from sctrellis._core import checks


def selection_bound(threshold: float, n_top: int, n_pairs: int, *, n_halves: int, unimodal: bool = False) -> float:
    r"""Bound how many edges that are rarely selected from half the cells are selected often.

    Parameters
    ----------
    threshold
        Selection frequency from which an edge is kept, above 1/2 and at most 1.
    n_top
        Edges selected in each half.
    n_pairs
        Edges to select from.
    n_halves
        Number of halves: two for each complementary pair.
    unimodal
        Whether to use that the share of pairs in which both halves select such an edge is unimodal: smaller, and no
        longer free of assumptions.

    Returns
    -------
    float
        Bound on the expected number of edges with a frequency of at least `threshold` whose probability of being
        selected from half the cells is at most :math:`\theta = n_\text{top} / n_\text{pairs}`, what a blind choice has.

    Raises
    ------
    ValueError
        If a number is out of range, and with ``unimodal`` where :math:`\theta > 1 / \sqrt 3` or `threshold` is too low
        for the bound to hold.

    Notes
    -----
    Without assumptions :math:`\theta\, n_\text{top} / (2 \tau - 1)`. With unimodality, for B complementary pairs,
    :math:`C(\tau, B)\, \theta\, n_\text{top}` with

    .. math::
        C(\tau, B) = \frac{1}{2 (2 \tau - 1 - 1 / (2B))} \text{ for } \tau \le \tfrac 3 4, \quad
        \frac{4 (1 - \tau + 1 / (2B))}{1 + 1 / B} \text{ above.}

    What is bounded are edges that half of the cells would rarely select, which is not the same as wrong edges: a method
    that errs in the same way every time is perfectly stable.

    References
    ----------
    :cite:p:`shah2013`, theorems 1 and 2; :cite:p:`meinshausen2010` for the idea.

    Examples
    --------
    >>> from sctrellis import metrics
    >>> metrics.selection_bound(0.9, 100, 10_000, n_halves=100)
    1.25
    """
    threshold = checks.number("threshold", threshold, low=0.5, high=1, open_low=True)
    n_top, n_pairs = checks.integer("n_top", n_top), checks.integer("n_pairs", n_pairs)
    n_halves = checks.integer("n_halves", n_halves, minimum=2)
    if n_top > n_pairs:
        msg = f"Expected `n_top` to be at most `n_pairs`, {n_pairs}, found {n_top}."
        raise ValueError(msg)
    theta = n_top / n_pairs
    if not unimodal:
        return theta * n_top / (2 * threshold - 1)
    b = n_halves // 2
    least = min(0.5 + theta**2, 0.5 + 1 / (2 * b) + 0.75 * theta**2)
    if theta > 1 / np.sqrt(3) or threshold <= least:
        msg = f"With `unimodal=True`, `threshold` has to be above {least:.3g} and `n_top / n_pairs` at most 0.577."
        raise ValueError(msg)
    if threshold <= 0.75:
        factor = 1 / (2 * (2 * threshold - 1 - 1 / (2 * b)))
    else:
        factor = 4 * (1 - threshold + 1 / (2 * b)) / (1 + 1 / b)
    return float(factor * theta * n_top)
