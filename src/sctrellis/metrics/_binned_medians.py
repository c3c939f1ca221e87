"""Medians along a quantity, with a band."""

import numpy as np
import pandas as pd


def binned_medians(
    x: np.ndarray, y: np.ndarray, *, edges: np.ndarray | None = None, n_bins: int = 10, n_boot: int = 500, seed: int = 0
) -> pd.DataFrame:
    """Return the median of `y` in bins of `x`, with 95 % bootstrap intervals.

    Parameters
    ----------
    x : (n,)
        Quantity to bin by.
    y : (n,) or (n_repeats, n)
        Values; with repeats the median is over all of them, and a replicate resamples the n.
    edges
        Borders of the bins, increasing; None takes quantiles of `x`, equal ones merged.
    n_bins
        Bins at most.
    n_boot
        Bootstrap replicates; 0 leaves limits NaN.
    seed
        Seed of the bootstrap.

    Returns
    -------
    DataFrame
        One row per bin that holds something: ``left`` and ``right`` (borders), ``x`` (median of `x`), ``value``,
        ``low``, ``high`` and ``n_genes``.
    """
    y = np.atleast_2d(y)
    kept = np.isfinite(x) & np.isfinite(y).all(axis=0)
    x, y = x[kept], y[:, kept]
    columns = ["left", "right", "x", "value", "low", "high", "n_genes"]
    if len(x) == 0:
        return pd.DataFrame(columns=columns, dtype=float)
    if edges is None:
        edges = np.unique(np.quantile(x, np.linspace(0, 1, n_bins + 1), method="inverted_cdf"))
    inner = edges[1:-1]
    code = np.searchsorted(inner, x, side="right")
    rng = np.random.default_rng(seed)
    lines = []
    for i in np.unique(code):
        part, there = y[:, code == i], x[code == i]
        low = high = np.nan
        if n_boot:
            drawn = rng.integers(part.shape[1], size=(n_boot, part.shape[1]))
            low, high = np.percentile(np.median(part[:, drawn], axis=(0, 2)), [2.5, 97.5])
        lines.append((there.min(), there.max(), np.median(there), np.median(part), low, high, len(there)))
    return pd.DataFrame(lines, columns=columns)
