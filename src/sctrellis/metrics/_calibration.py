"""What the measures of calibration share: checked probabilities, bins, and sums under resampling."""

from typing import Any, Literal

import numpy as np
from scipy import sparse, special

Bins = Literal["width", "mass"]
BINS: tuple[Bins, ...] = ("width", "mass")
CLIP = 1e-7
"""Distance from 0 and 1 at which probabilities are cut before a logarithm: about what float32 can tell from 1."""
_CHUNK = 100
"""Replicates that are summed at once."""


def as_probabilities(probabilities: Any) -> np.ndarray:
    """Return probabilities as float64, shape (n,); values outside [0, 1] and NaN are refused."""
    values = np.asarray(probabilities, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        msg = f"Expected `probabilities` to have shape (n,) with n >= 1, found {values.shape}."
        raise ValueError(msg)
    n_bad = int((~np.isfinite(values)).sum())
    if n_bad:
        msg = f"`probabilities` has {n_bad:,} NaN or infinite values. Leave out pairs without one."
        raise ValueError(msg)
    if values.min() < 0 or values.max() > 1:
        msg = (
            f"Expected `probabilities` to lie in [0, 1], found {values.min():.4g} to {values.max():.4g}. Log odds "
            "become probabilities by `scipy.special.expit`; other scores need `sctrellis.metrics.fit_calibrator`."
        )
        raise ValueError(msg)
    return values


def log_odds(probabilities: np.ndarray) -> np.ndarray:
    """Return the log odds of probabilities, cut at a distance of ``CLIP`` from 0 and 1."""
    return special.logit(np.clip(probabilities, CLIP, 1 - CLIP))


def bin_codes(probabilities: np.ndarray, bins: Bins, n_bins: int) -> np.ndarray:
    """Return the bin of each probability, numbered from 0 without gaps; equal probabilities share a bin."""
    if bins == "width":
        codes = np.minimum((probabilities * n_bins).astype(np.int64), n_bins - 1)
    else:
        inner = np.unique(np.quantile(probabilities, np.arange(1, n_bins) / n_bins))
        codes = np.searchsorted(inner, probabilities, side="right")
    return np.unique(codes, return_inverse=True)[1]


def resampled_sums(
    values: np.ndarray,
    row: np.ndarray,
    column: np.ndarray,
    drawn: tuple[np.ndarray, np.ndarray],
    *,
    group: np.ndarray | None = None,
) -> np.ndarray:
    """Return the weighted sum of values in each group of pairs, for each replicate of the two-way bootstrap.

    Parameters
    ----------
    values, row, column : (n,)
        Value, regulator and target of each pair, as codes from 0.
    drawn
        What :func:`sctrellis.metrics._bootstrap.draws` returns.
    group : (n,)
        Group of each pair, as codes from 0; None is one group.

    Returns
    -------
    (n_boot, n_groups)
        The pair of regulator i and target j weighs how often i was drawn times how often j was.
    """
    drawn_rows, drawn_columns = drawn
    n_boot, n_rows = drawn_rows.shape
    code = np.zeros(len(row), dtype=np.int64) if group is None else group
    n_groups = int(code.max()) + 1
    matrix = sparse.csr_matrix(
        (values, (code * n_rows + row, column)), shape=(n_groups * n_rows, drawn_columns.shape[1])
    )
    sums = np.empty((n_boot, n_groups))
    for start in range(0, n_boot, _CHUNK):
        u, v = drawn_rows[start : start + _CHUNK], drawn_columns[start : start + _CHUNK]
        by_row = (matrix @ v.T.astype(np.float64)).reshape(n_groups, n_rows, len(u))
        sums[start : start + _CHUNK] = np.einsum("grb,br->bg", by_row, u)
    return sums
