"""How much of a gene's own profile to trust beside the mean of its neighbours, from the data alone."""

from typing import Any

import numpy as np

from sctrellis._core import checks


def eb_weight(deviation: Any, noise: Any, *, n_samples: int) -> np.ndarray:
    r"""Empirical-Bayes weight on a gene's own profile beside the mean of its neighbours (positive-part James-Stein).

    Parameters
    ----------
    deviation : (n_genes,)
        Mean over cells of the squared difference between a gene and the mean of its neighbours. NaN where a gene has
        none.
    noise : (n_genes,)
        Variance of the measurement noise, in the units of `deviation`.
    n_samples
        Cells that `deviation` is a mean over.

    Returns
    -------
    np.ndarray, (n_genes,)
        Weights in [0, 1]; NaN where `deviation` is 0 or NaN, or `noise` is NaN.

    Raises
    ------
    ValueError
        If the arrays differ in shape, a value is negative, or there are fewer than 3 cells.

    Notes
    -----
    With :math:`x \mid \theta \sim N(\theta, \sigma^2)` and :math:`\theta \sim N(m, \tau^2)` the posterior mean is
    :math:`w x + (1 - w) m` with :math:`w = \tau^2 / (\tau^2 + \sigma^2)`. The deviation :math:`r` estimates
    :math:`\sigma^2 + \tau^2`, and :math:`\hat w = \max(0, 1 - \frac{S - 2}{S} \frac{\sigma^2}{r})` over :math:`S`
    cells.

    Examples
    --------
    >>> from sctrellis import metrics
    >>> metrics.eb_weight([2.0, 1.0, 0.5], [1.0, 1.0, 1.0], n_samples=1000).round(2).tolist()
    [0.5, 0.0, 0.0]
    """
    n_samples = checks.integer("n_samples", n_samples, minimum=3)
    deviation, noise = np.asarray(deviation, dtype=np.float64), np.asarray(noise, dtype=np.float64)
    if deviation.shape != noise.shape:
        msg = f"Expected `noise` to have shape {deviation.shape} as `deviation`, found {noise.shape}."
        raise ValueError(msg)
    for name, values in (("deviation", deviation), ("noise", noise)):
        if (values < 0).any():
            msg = f"Expected `{name}` not to be negative, found {np.nanmin(values):.4g}."
            raise ValueError(msg)
    ratio = np.divide(noise, deviation, out=np.full(deviation.shape, np.nan), where=deviation > 0)
    return np.maximum(0.0, 1.0 - (n_samples - 2) / n_samples * ratio)
