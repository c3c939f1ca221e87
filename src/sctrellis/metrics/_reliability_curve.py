from typing import Any

import numpy as np
import pandas as pd

from sctrellis._core import checks
from sctrellis.metrics import _calibration, _ranking
from sctrellis.metrics._bootstrap import draws, why_not
from sctrellis.metrics._calibration import Bins


def reliability_curve(
    probabilities: Any,
    labels: Any,
    *,
    rows: Any,
    columns: Any,
    bins: Bins = "mass",
    n_bins: int = 15,
    n_boot: int = 500,
    level: float = 0.95,
    seed: int | None = 0,
) -> pd.DataFrame:
    """Share of edges among the pairs that are claimed to be equally likely, bin by bin.

    Parameters
    ----------
    probabilities : (n,)
        Claimed probability of each pair, in [0, 1].
    labels : (n,)
        Boolean, or 0 and 1.
    rows, columns : (n,)
        Regulator and target of each pair.
    bins
        ``"mass"``: bins that hold about equally many pairs; ``"width"``: bins of equal width.
    n_bins
        Bins at most. Equal probabilities are never parted, and empty bins are left out.
    n_boot
        Replicates of the two-way bootstrap; 0 leaves its limits NaN.
    level
        Coverage of the intervals, in (0, 1).
    seed
        Seed of the resampling, in [0, 2**32); None draws one.

    Returns
    -------
    DataFrame
        One row per bin in increasing order: ``probability`` (mean claim), ``share`` (of edges), ``low`` and ``high``
        (percentile limits of the share; NaN with fewer than 10 regulators or targets), ``from`` and ``to`` (smallest
        and largest claim), ``n_pairs`` and ``n_positive``.

    Raises
    ------
    ValueError
        As :func:`calibration_error`.

    Notes
    -----
    A calibrated predictor has its points on the diagonal. Limits resample regulators and targets at once
    (:func:`bootstrap`), with the bins as they are; where a bin has no edge at all they are both 0 and say nothing.

    Examples
    --------
    >>> import numpy as np
    >>> from sctrellis import metrics
    >>> rows, columns = np.divmod(np.arange(400), 20)
    >>> claimed = np.where(columns < 10, 0.2, 0.8)
    >>> curve = metrics.reliability_curve(claimed, columns % 10 < 5, rows=rows, columns=columns, n_boot=50)
    >>> curve[["probability", "share"]].round(2).to_numpy().tolist()
    [[0.2, 0.5], [0.8, 0.5]]
    """
    checks.choice("bins", bins, _calibration.BINS)
    n_bins, n_boot = checks.integer("n_bins", n_bins), checks.integer("n_boot", n_boot, minimum=0)
    level = checks.number("level", level, low=0, high=1, open_low=True, open_high=True)
    values = _calibration.as_probabilities(probabilities)
    found = _ranking.as_labels(labels, len(values))
    row_names, row = np.unique(np.asarray(rows), return_inverse=True)
    column_names, column = np.unique(np.asarray(columns), return_inverse=True)
    code = _calibration.bin_codes(values, bins, n_bins)
    size = np.bincount(code)
    low = high = np.full(len(size), np.nan)
    if not why_not(len(row_names), len(column_names), n_boot):
        drawn = draws(len(row_names), len(column_names), n_boot, checks.seed(seed))
        total, edges = (
            _calibration.resampled_sums(v, row, column, drawn, group=code) for v in (np.ones(len(values)), found * 1.0)
        )
        # A replicate that drew no pair of a bin says nothing about it; the share itself keeps the limits honest there.
        share = np.divide(edges, total, out=np.tile(edges.sum(0) / total.sum(0), (n_boot, 1)), where=total > 0)
        low, high = np.percentile(share, [50 * (1 - level), 50 * (1 + level)], axis=0)
    order = np.argsort(values, kind="stable")
    ends = np.cumsum(size)
    return pd.DataFrame(
        {
            "probability": np.bincount(code, values) / size,
            "share": np.bincount(code, found) / size,
            "low": low,
            "high": high,
            "from": values[order][ends - size],
            "to": values[order][ends - 1],
            "n_pairs": size,
            "n_positive": np.bincount(code, found).astype(np.int64),
        }
    )
