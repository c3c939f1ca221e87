from typing import Any

import numpy as np

from sctrellis.metrics import _ranking
from sctrellis.metrics._ranking import Conventions


def hit_rate(scores: Any, labels: Any, *, fraction: float = 0.01, weights: Any = None) -> float:
    """Precision in the top fraction of the pairs, such as the top 1 % (hit@1%).

    Parameters
    ----------
    scores : (n,)
        Higher is more likely an edge; ``-inf`` marks pairs without a score, ranked last together.
    labels : (n,)
        Boolean, or 0 and 1.
    fraction
        Share of the pairs to take, in (0, 1]; the number taken is rounded up.
    weights : (n,)
        Non-negative weight of each pair; an integer weight equals repeating the pair.

    Returns
    -------
    float
        In [0, :func:`hit_rate_ceiling`]; averaged over every order of tied pairs.

    Raises
    ------
    ValueError
        Without a positive pair, on NaN scores, and on a fraction outside (0, 1].

    Examples
    --------
    >>> from sctrellis import metrics
    >>> metrics.hit_rate([0.9, 0.4, 0.4, 0.1], [True, True, False, False], fraction=0.5)
    0.75
    """
    return _ranking.measure("hit_rate", _ranking.read(scores, labels, weights), Conventions(fraction=fraction))


def hit_rate_ceiling(labels: Any, *, fraction: float = 0.01, weights: Any = None) -> float:
    """Return the hit rate of a perfect ranking, below 1 where the top fraction holds more pairs than are positive.

    Parameters
    ----------
    labels : (n,)
        Boolean, or 0 and 1.
    fraction
        Share of the pairs to take, in (0, 1]; the number taken is rounded up.
    weights : (n,)
        Non-negative weight of each pair; an integer weight equals repeating the pair.

    Returns
    -------
    float
        In (0, 1].

    Raises
    ------
    ValueError
        Without a positive pair, and on a fraction outside (0, 1].

    Examples
    --------
    >>> from sctrellis import metrics
    >>> metrics.hit_rate_ceiling([True, False, False, False], fraction=0.5)
    0.5
    """
    curve = _ranking.read(np.zeros(np.shape(labels)), labels, weights)
    return _ranking.ceiling("hit_rate", curve, Conventions(fraction=fraction))
