from typing import Any

import numpy as np

from sctrellis._core import checks
from sctrellis.metrics import _calibration


def label_bounds(probabilities: Any, completeness: float) -> tuple[np.ndarray, np.ndarray]:
    r"""Bounds of the probability that a pair is an edge, from that of its being a *known* edge.

    Parameters
    ----------
    probabilities : (n,)
        Calibrated probability that a pair is among the known edges, in [0, 1].
    completeness
        Share of the true edges that are known, at least: in (0, 1].

    Returns
    -------
    tuple of float64, (n,)
        Lower and upper bounds.

    Raises
    ------
    ValueError
        On probabilities outside [0, 1], NaN, and a completeness outside (0, 1].

    Notes
    -----
    Known edges are a part of the true ones: pairs without a label are unlabelled, not negative. If known edges are true
    and every true edge is known with a probability of at least :math:`c`, whatever its score, then

    .. math:: P(\text{known}) \le P(\text{edge}) \le \min(1, P(\text{known}) / c),

    with equality on the right where that probability is the same for all :cite:p:`elkan2008`. It cannot be learnt from
    the labels, so it has to be given. No completeness below the largest honest probability of being known is possible:
    pairs with :math:`P(\text{known}) > c` contradict it.

    Examples
    --------
    >>> from sctrellis import metrics
    >>> low, high = metrics.label_bounds([0.05, 0.3], 0.25)
    >>> high.tolist()
    [0.2, 1.0]
    """
    completeness = checks.number("completeness", completeness, low=0, high=1, open_low=True)
    low = _calibration.as_probabilities(probabilities)
    return low, np.minimum(1.0, low / completeness)
