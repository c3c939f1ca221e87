"""Variance that counting molecules leaves in log-normalised expression."""

from typing import Any

import numpy as np

from sctrellis._core import checks


def counting_noise(mean: Any) -> np.ndarray:
    r"""Variance of ``log1p`` of a Poisson count, to first order: :math:`\mu / (1 + \mu)^2`.

    Parameters
    ----------
    mean : (n_genes,)
        Mean count of each gene.

    Returns
    -------
    np.ndarray, (n_genes,)
        Variances: at most 0.25, at a mean of 1, and close to 1 / mean where counts are high.

    Raises
    ------
    ValueError
        If a mean is negative.

    Examples
    --------
    >>> from sctrellis import metrics
    >>> metrics.counting_noise([0.0, 1.0, 99.0]).round(4).tolist()
    [0.0, 0.25, 0.0099]
    """
    mean = np.asarray(mean, dtype=np.float64)
    if (mean < 0).any():
        msg = f"Expected `mean` not to be negative, found {np.nanmin(mean):.4g}."
        raise ValueError(msg)
    return mean / (1 + mean) ** 2


def thinned_noise(counts: Any, expression: Any, *, seed: int | None | np.random.Generator = 0) -> np.ndarray:
    r"""Variance of counting noise in ``log1p`` expression, from splitting every count in two halves by coin flips.

    Parameters
    ----------
    counts : (n_cells, n_genes)
        Counts of molecules.
    expression : (n_cells, n_genes)
        ``log1p`` of the counts, scaled cell by cell by whatever factor.
    seed
        Seed of the coin flips, in [0, 2**32), or a generator; None draws one.

    Returns
    -------
    np.ndarray, (n_genes,)
        Variances in the units of `expression`, a mean over cells.

    Raises
    ------
    ValueError
        If the arrays differ in shape or `counts` holds anything but counts.

    Notes
    -----
    The halves of a Poisson count are independent, with half its mean each. Scaled as the whole profile, they differ by
    twice the variance at half the depth, which is four times that of the whole to first order. Below about two
    molecules the curvature of the logarithm shows, and the estimate is too small, at worst by a factor of four.

    Examples
    --------
    >>> import numpy as np
    >>> from sctrellis import metrics
    >>> counts = np.random.default_rng(0).poisson(20, size=(2000, 1))
    >>> bool(abs(metrics.thinned_noise(counts, np.log1p(counts)) - metrics.counting_noise([20])) < 0.01)
    True
    """
    counts, expression = np.asarray(counts), np.asarray(expression, dtype=np.float64)
    if counts.shape != expression.shape or counts.ndim != 2:
        msg = f"Expected `counts` to have shape {expression.shape} as `expression`, found {counts.shape}."
        raise ValueError(msg)
    whole = np.rint(counts).astype(np.int64)
    if (counts < 0).any() or not np.array_equal(whole, counts):
        msg = "Expected `counts` to hold counts of molecules, found values that are negative or not whole."
        raise ValueError(msg)
    rng = seed if isinstance(seed, np.random.Generator) else np.random.default_rng(checks.seed(seed))
    total = whole.sum(axis=1, keepdims=True)
    factor = np.divide(
        np.expm1(expression).sum(axis=1, keepdims=True), total, out=np.zeros(total.shape), where=total > 0
    )
    half = rng.binomial(whole, 0.5)
    difference = np.log1p(2 * factor * half) - np.log1p(2 * factor * (whole - half))
    return (difference**2).mean(axis=0) / 4
