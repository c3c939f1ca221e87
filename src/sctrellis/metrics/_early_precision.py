from typing import Any

from sctrellis.metrics import _ranking
from sctrellis.metrics._ranking import Conventions, Ties


def _early(metric: str, scores: Any, labels: Any, ties: Ties, k: int | None, weights: Any) -> float:
    conventions = Conventions(ties=ties, k=k)
    _ranking.check_nonnegative(scores, ties)
    curve = _ranking.read(scores, labels, weights, merge=ties == "expected")
    return _ranking.measure(metric, curve, conventions)


def early_precision(
    scores: Any, labels: Any, *, ties: Ties = "expected", k: int | None = None, weights: Any = None
) -> float:
    """Precision among the top k pairs, where k is the number of positive pairs.

    Parameters
    ----------
    scores : (n,)
        Higher is more likely an edge; ``-inf`` marks pairs without a score, ranked last together.
    labels : (n,)
        Boolean, or 0 and 1.
    ties
        ``"expected"``: exactly k pairs, averaged over every order of tied pairs; ``"beeline"``: all pairs that reach
        the score at rank k (or at the last scored pair), but none with score 0, divided by how many these are;
        ``"deepsem"``: the pairs strictly above the score at rank k + 1, divided by k.
    k
        Pairs to take instead of the number of positives, as where edges outside the pairs counted.
    weights : (n,)
        Non-negative weight of each pair; an integer weight equals repeating the pair.

    Returns
    -------
    float
        In [0, 1]; the share of positives by chance.

    Raises
    ------
    ValueError
        Without a positive pair, on NaN scores, and on negative scores where 0 means "no edge".

    Notes
    -----
    With tied scores at rank k, ``"beeline"`` takes more than k pairs and ``"deepsem"`` fewer while still dividing by
    k, so both depend on how many ties a method makes; ``"expected"`` does not: within the block that holds rank k it
    takes the block's own share of positives.

    References
    ----------
    Pratapa et al., Nature Methods 17 (2020), for early precision. Shu et al., "Modeling gene regulatory networks using
    neural network architectures", Nature Computational Science 1 (2021), for DeepSEM.

    Examples
    --------
    >>> from sctrellis import metrics
    >>> scores, labels = [0.9, 0.4, 0.4, 0.1], [True, True, False, False]
    >>> metrics.early_precision(scores, labels)
    0.75
    >>> round(metrics.early_precision(scores, labels, ties="beeline"), 3)
    0.667
    >>> metrics.early_precision(scores, labels, ties="deepsem")
    0.5
    """
    return _early("early_precision", scores, labels, ties, k, weights)


def early_precision_ratio(
    scores: Any, labels: Any, *, ties: Ties = "expected", k: int | None = None, weights: Any = None
) -> float:
    """Early precision divided by the share of positives (EPR): how many times better than chance.

    Parameters
    ----------
    scores : (n,)
        Higher is more likely an edge; ``-inf`` marks pairs without a score, ranked last together.
    labels : (n,)
        Boolean, or 0 and 1.
    ties
        Which pairs count as the top k; see :func:`early_precision`.
    k
        Pairs to take instead of the number of positives; chance is then k divided by the number of pairs.
    weights : (n,)
        Non-negative weight of each pair; an integer weight equals repeating the pair.

    Returns
    -------
    float
        1 by chance.

    Raises
    ------
    ValueError
        As :func:`early_precision`.

    Examples
    --------
    >>> from sctrellis import metrics
    >>> metrics.early_precision_ratio([0.9, 0.4, 0.4, 0.1], [True, True, False, False])
    1.5
    """
    return _early("early_precision_ratio", scores, labels, ties, k, weights)
