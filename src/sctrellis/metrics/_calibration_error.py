from typing import Any

import numpy as np

from sctrellis._core import checks
from sctrellis.metrics import _calibration, _ranking
from sctrellis.metrics._calibration import Bins


def calibration_error(
    probabilities: Any, labels: Any, *, bins: Bins = "mass", n_bins: int = 15, corrected: bool = False
) -> float:
    r"""Expected calibration error: how far the share of edges lies from the mean probability, bin by bin.

    Parameters
    ----------
    probabilities : (n,)
        Claimed probability of each pair, in [0, 1].
    labels : (n,)
        Boolean, or 0 and 1.
    bins
        ``"mass"``: bins that hold about equally many pairs; ``"width"``: bins of equal width.
    n_bins
        Bins at most. Equal probabilities are never parted, and empty bins are left out.
    corrected
        Take off what a perfectly calibrated predictor would show in bins of this size by chance.

    Returns
    -------
    float
        In [0, 1], 0 for perfect calibration.

    Raises
    ------
    ValueError
        On probabilities outside [0, 1], NaN, unknown bins and arrays of unequal length.

    Notes
    -----
    With :math:`g_b` the share of positive labels in bin :math:`b` minus its mean probability, the error is
    :math:`\sum_b (n_b / n) |g_b|`. Every bin is closed below and the last one on both sides, so a probability of 1
    counts. Chance alone makes :math:`|g_b|` positive; ``corrected`` replaces it by
    :math:`\sqrt{\max(0, g_b^2 - \sigma_b^2)}` with :math:`\sigma_b^2 = \sum_b p (1 - p) / n_b^2`: the square is then
    unbiased, and of what chance adds to a calibrated predictor about two thirds are gone.

    Never report it alone: a predictor that gives every pair the share of edges has an error near 0 and says nothing.
    :func:`calibration_table` puts skill beside it.

    Examples
    --------
    >>> from sctrellis import metrics
    >>> round(metrics.calibration_error([0.0, 0.5, 0.5, 1.0], [False, True, True, True], bins="width"), 3)
    0.25
    """
    checks.choice("bins", bins, _calibration.BINS)
    n_bins = checks.integer("n_bins", n_bins)
    values = _calibration.as_probabilities(probabilities)
    found = _ranking.as_labels(labels, len(values))
    gap, size, noise = gaps(values, found, _calibration.bin_codes(values, bins, n_bins))
    size_of_gap = np.sqrt(np.maximum(0.0, gap**2 - noise**2)) if corrected else np.abs(gap)
    return float(size @ size_of_gap / size.sum())


def gaps(probabilities: np.ndarray, labels: np.ndarray, code: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return of each bin the share of edges less the mean probability, its pairs, and the gap's sd if calibrated."""
    size = np.bincount(code).astype(np.float64)
    gap = np.bincount(code, labels - probabilities) / size
    noise = np.sqrt(np.bincount(code, probabilities * (1 - probabilities))) / size
    return gap, size, noise
