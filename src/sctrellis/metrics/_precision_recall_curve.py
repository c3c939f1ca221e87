from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn import metrics as sklearn_metrics

from sctrellis.metrics import _ranking


def precision_recall_curve(
    scores: Any, labels: Any, *, weights: Any = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision and recall at each score, for drawing.

    Parameters
    ----------
    scores : (n,)
        Higher is more likely an edge; ``-inf`` marks pairs without a score, ranked last together.
    labels : (n,)
        Boolean, or 0 and 1.
    weights : (n,)
        Non-negative weight of each pair; an integer weight equals repeating the pair.

    Returns
    -------
    precision, recall : (m + 1,)
        In order of rising score, ending at precision 1 and recall 0.
    thresholds : (m,)
        Scores at which pairs were cut; points on a straight line between their neighbours are left out.

    Raises
    ------
    ValueError
        Without a positive pair, and on NaN scores.

    Notes
    -----
    :func:`sklearn.metrics.precision_recall_curve`, after the checks of this module.

    Examples
    --------
    >>> from sctrellis import metrics
    >>> precision, recall, thresholds = metrics.precision_recall_curve([0.9, 0.4, 0.1], [True, False, True])
    >>> precision.round(2).tolist(), recall.tolist(), thresholds.tolist()
    ([0.67, 0.5, 1.0, 1.0], [1.0, 0.5, 0.5, 0.0], [0.1, 0.4, 0.9])
    """
    _ranking.read(scores, labels, weights)
    scores = _ranking.as_scores(scores)
    labels, weights = _ranking.as_labels(labels, len(scores)), _ranking.as_weights(weights, len(scores))
    unscored = np.isneginf(scores)
    lowest = scores[~unscored].min() - 1 if not unscored.all() else 0.0
    precision, recall, thresholds = sklearn_metrics.precision_recall_curve(
        labels, np.where(unscored, lowest, scores), sample_weight=weights, drop_intermediate=True
    )
    return precision, recall, np.where(thresholds == lowest, -np.inf, thresholds) if unscored.any() else thresholds


def curve_table(scores: Mapping[str, np.ndarray], labels: np.ndarray, *, n_points: int = 300) -> pd.DataFrame:
    """Return ``key``, ``recall`` and ``precision`` of several score vectors, thinned for drawing, in ranking order."""
    tables = []
    for key, vector in scores.items():
        recall, precision = _ranking.points(_ranking.read(vector, labels, None), n_points)
        tables.append(pd.DataFrame({"key": key, "recall": recall, "precision": precision}))
    return pd.concat(tables, ignore_index=True)
