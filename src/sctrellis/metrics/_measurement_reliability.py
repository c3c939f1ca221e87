from typing import Any

import numpy as np

from sctrellis._core import checks
from sctrellis.metrics._effective_size import standardised
from sctrellis.metrics._thinning import Counts


def measurement_reliability(counts: Any, total: Any = None, *, n_repeats: int = 3, seed: int | None = 0) -> np.ndarray:
    r"""Measure which share of the variance of each gene is more than the noise of counting.

    Parameters
    ----------
    counts : (n, p)
        Counts of the genes.
    total : (n,)
        Counts of all genes of a cell; None for those in `counts`.
    n_repeats
        Random splits to average over.
    seed
        Seed of the splits, in [0, 2**32); None draws one.

    Returns
    -------
    float64, (p,)
        Reliability, in [0, 1]: 1 for a gene measured without error. NaN for a gene that is constant in some half of the
        molecules.

    Raises
    ------
    ValueError
        If counts are negative or no integers, totals are smaller than the sums of counts, or a number is out of range.

    Notes
    -----
    The molecules of every cell are split into two random halves, both are log-normalised, and r is the correlation
    between the halves, which are independent measurements of the same cells. The reliability of the whole is
    :math:`2r / (1 + r)` (Spearman and Brown), exact on a linear scale. What counts measure with noise correlates less
    with everything: correlations with a gene are :math:`\sqrt{\text{reliability}}` of what they would be.

    Only noise of counting is seen. mRNA that says little of the protein, or lags behind it, may be measured reliably.

    References
    ----------
    :cite:p:`spearman1910,brown1910`.

    Examples
    --------
    >>> import numpy as np
    >>> from sctrellis import metrics
    >>> rng = np.random.default_rng(0)
    >>> rate = rng.gamma(2.0, size=(500, 1)) * [0.1, 1, 10]
    >>> found = metrics.measurement_reliability(rng.poisson(rate), np.full(500, 1000))
    >>> bool((np.diff(found) > 0).all())
    True
    """
    n_repeats, seed = checks.integer("n_repeats", n_repeats), checks.seed(seed)
    whole = check_counts(counts, total)
    scale = float(np.median(whole.total)) or 1.0
    found = np.zeros((n_repeats, whole.values.shape[1]))
    for i, child in enumerate(np.random.SeedSequence(seed).spawn(n_repeats)):
        half = whole.thinned(0.5, np.random.default_rng(child))
        one, two = (standardised(part.log_normalised(scale)) for part in (half, whole.minus(half)))
        r = np.einsum("ij,ij->j", one, two, dtype=np.float64) / len(one)
        flat = ~(one.any(axis=0) & two.any(axis=0))
        found[i] = np.where(flat, np.nan, r)
    r = np.clip(found.mean(axis=0), 0, 1)
    return 2 * r / (1 + r)


def check_counts(counts: Any, total: Any) -> Counts:
    """Return counts and totals as integers."""
    values = np.asarray(counts)
    if values.ndim != 2 or not np.isfinite(values).all() or values.min() < 0 or (values != np.rint(values)).any():
        msg = "Expected `counts` to be a matrix of integers of at least 0: raw counts, not normalised ones."
        raise ValueError(msg)
    values = values.astype(np.int64)
    total = values.sum(axis=1) if total is None else np.rint(np.asarray(total)).astype(np.int64)
    if total.shape != (len(values),) or (total < values.sum(axis=1)).any():
        msg = "Expected `total` to hold the counts of each cell, at least those of the genes in `counts`."
        raise ValueError(msg)
    return Counts(values, total)
