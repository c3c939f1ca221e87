from typing import Any

from sctrellis.metrics import _ranking
from sctrellis.metrics._ranking import Conventions, Interpolation


def average_precision(scores: Any, labels: Any, *, interp: Interpolation = "step", weights: Any = None) -> float:
    r"""Area under the precision-recall curve (AUPRC), with blocks of equal scores treated as one step.

    Parameters
    ----------
    scores : (n,)
        Higher is more likely an edge; ``-inf`` marks pairs without a score, ranked last together.
    labels : (n,)
        Boolean, or 0 and 1.
    interp
        ``"step"``: average precision, as scikit-learn and DeepSEM compute it; ``"trapezoid"``: straight lines between
        the points of the curve from recall 0 and precision 1, as BEELINE 1.1 does; ``"davis_goadrich"``: false
        positives grow linearly with true positives between two points, as older BEELINE versions do.
    weights : (n,)
        Non-negative weight of each pair; an integer weight equals repeating the pair.

    Returns
    -------
    float
        In (0, 1]; a constant score gets the share of positives with ``"step"`` and ``"davis_goadrich"``.

    Raises
    ------
    ValueError
        Without a positive pair, on NaN scores, and on fractional weights with ``"davis_goadrich"``.

    Notes
    -----
    With recall :math:`R_b` and precision :math:`P_b` at the end of block :math:`b`, ``"step"`` is
    :math:`\sum_b (R_b - R_{b-1}) P_b`. The three differ little on scores without ties. A large block of
    equal scores makes the trapezoid too high: the straight line passes above what random order within the block gives.

    References
    ----------
    Davis and Goadrich, "The relationship between precision-recall and ROC curves", ICML 2006. Pratapa et al.,
    "Benchmarking algorithms for gene regulatory network inference from single-cell transcriptomic data", Nature
    Methods 17 (2020).

    Examples
    --------
    >>> from sctrellis import metrics
    >>> metrics.average_precision([0.9, 0.4, 0.4, 0.1], [True, True, False, False])
    0.8333333333333333
    """
    conventions = Conventions(interp=interp)
    return _ranking.area_under_precision_recall(_ranking.read(scores, labels, weights), conventions.interp)


def auprc_ratio(scores: Any, labels: Any, *, interp: Interpolation = "step", weights: Any = None) -> float:
    """Area under the precision-recall curve, divided by the share of positives that chance gets.

    Parameters
    ----------
    scores : (n,)
        Higher is more likely an edge; ``-inf`` marks pairs without a score, ranked last together.
    labels : (n,)
        Boolean, or 0 and 1.
    interp
        How the area is read; see :func:`average_precision`.
    weights : (n,)
        Non-negative weight of each pair; an integer weight equals repeating the pair.

    Returns
    -------
    float
        1 by chance. Ratios of different sets of pairs are not comparable: a sparser set allows a larger ratio.

    Raises
    ------
    ValueError
        As :func:`average_precision`.

    Examples
    --------
    >>> from sctrellis import metrics
    >>> metrics.auprc_ratio([0.9, 0.4, 0.4, 0.1], [True, True, False, False])
    1.6666666666666665
    """
    return _ranking.measure("auprc_ratio", _ranking.read(scores, labels, weights), Conventions(interp=interp))
