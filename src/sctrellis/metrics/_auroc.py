from typing import Any

import numpy as np

from sctrellis.metrics import _ranking


def auroc(scores: Any, labels: Any, *, weights: Any = None) -> float:
    """Area under the ROC curve: the probability that a positive pair outranks a negative one.

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
    float
        In [0, 1]; 0.5 by chance. Equal scores count one half.

    Raises
    ------
    ValueError
        Without a positive or without a negative pair, and on NaN scores.

    Notes
    -----
    The Mann-Whitney statistic divided by the number of positive-negative pairs, in time O(n log n).

    Examples
    --------
    >>> from sctrellis import metrics
    >>> metrics.auroc([0.9, 0.4, 0.4, 0.1], [True, True, False, False])
    0.875
    """
    value = _ranking.area_under_roc(_ranking.read(scores, labels, weights))
    if np.isnan(value):
        msg = "None of the `labels` is negative: the area under the ROC curve is undefined."
        raise ValueError(msg)
    return value
