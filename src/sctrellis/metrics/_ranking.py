"""Score pairs sorted once, and the numbers read off the sorted list."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sctrellis._core import checks

Interpolation = Literal["step", "trapezoid", "davis_goadrich"]
Ties = Literal["expected", "beeline", "deepsem"]

INTERPOLATIONS: tuple[Interpolation, ...] = ("step", "trapezoid", "davis_goadrich")
TIES: tuple[Ties, ...] = ("expected", "beeline", "deepsem")


@dataclass(frozen=True, kw_only=True)
class Conventions:
    """How area and early precision are read; see :func:`average_precision` and :func:`early_precision`."""

    interp: Interpolation = "step"
    ties: Ties = "expected"
    fraction: float = 0.01
    k: int | None = None

    def __post_init__(self) -> None:
        checks.choice("interp", self.interp, INTERPOLATIONS)
        checks.choice("ties", self.ties, TIES)
        checks.number("fraction", self.fraction, low=0, high=1, open_low=True)
        if self.k is not None:
            checks.integer("k", self.k)


def as_scores(scores: Any) -> np.ndarray:
    """Return scores as float64, shape (n,); ``-inf`` marks a pair without a score, NaN is refused."""
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 1 or scores.size == 0:
        msg = f"Expected `scores` to have shape (n,) with n >= 1, found {scores.shape}."
        raise ValueError(msg)
    n_bad = int((np.isnan(scores) | np.isposinf(scores)).sum())
    if n_bad:
        msg = f"`scores` has {n_bad:,} NaN or infinite values. Pairs without a score may be given as -inf: ranked last."
        raise ValueError(msg)
    return scores


def as_labels(labels: Any, n: int) -> np.ndarray:
    """Return labels as Booleans, shape (n,)."""
    labels = np.asarray(labels)
    if labels.shape != (n,):
        msg = f"Expected `labels` to have shape ({n},) as `scores`, found {labels.shape}."
        raise ValueError(msg)
    if labels.dtype != bool:
        values = np.unique(labels)
        if labels.dtype.kind not in "iuf" or not np.isin(values, [0, 1]).all():
            found = ", ".join(str(v) for v in values[:5])
            msg = f"Expected `labels` to be Boolean or 0 and 1, found {found}. Compare first, as in `labels > 0`."
            raise ValueError(msg)
        labels = labels.astype(bool)
    return labels


def as_weights(weights: Any, n: int) -> np.ndarray | None:
    """Return weights as float64, shape (n,), or None."""
    if weights is None:
        return None
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape != (n,) or not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        msg = f"Expected `weights` to be {n} finite numbers of at least 0, not all 0."
        raise ValueError(msg)
    return weights


@dataclass(frozen=True)
class Curve:
    """Pairs and positives down to the end of each block of equal scores, highest score first."""

    n: np.ndarray
    tp: np.ndarray
    values: np.ndarray
    integral: bool = True

    @property
    def base(self) -> float:
        """Share of positives, which is what random scores get as precision."""
        return float(self.tp[-1] / self.n[-1])


class Ranking:
    """Pairs sorted by score once, to be read under many weights.

    Parameters
    ----------
    scores, labels : (n,)
        Scores and Boolean labels.
    merge
        Join neighbouring blocks without a positive: no area changes and the arrays shrink to about twice the number
        of positives. Only conventions that count the selected pairs at a given score need every block.
    """

    def __init__(self, scores: np.ndarray, labels: np.ndarray, *, merge: bool = True) -> None:
        self.order = np.argsort(-scores, kind="stable")
        values, found = scores[self.order], labels[self.order]
        ends = np.append(np.flatnonzero(values[1:] != values[:-1]), len(values) - 1)
        n_found = np.cumsum(found)[ends]
        if merge:
            gains = np.diff(n_found, prepend=0) > 0
            kept = gains | np.append(gains[1:], True)
            ends, n_found = ends[kept], n_found[kept]
        self._ends, self._n_found, self._values = ends, n_found, values[ends]
        self._positive = np.flatnonzero(found)

    def curve(self, weights: np.ndarray | None = None) -> Curve:
        """Return the curve; ``weights`` are in sorted order, as in ``weights[ranking.order]``."""
        if weights is None:
            return Curve(self._ends + 1.0, self._n_found.astype(np.float64), self._values)
        n = np.cumsum(weights)[self._ends].astype(np.float64)
        tp = np.concatenate([[0], np.cumsum(weights[self._positive])])[self._n_found].astype(np.float64)
        integral = weights.dtype.kind in "iu" or bool((weights == np.rint(weights)).all())
        return Curve(n, tp, self._values, integral)


class Order:
    """Pairs sorted by score once, to be read under many labellings.

    Parameters
    ----------
    scores : (n,)
        Scores.
    """

    def __init__(self, scores: np.ndarray) -> None:
        order = np.argsort(-scores, kind="stable")
        values = scores[order]
        ends = np.append(np.flatnonzero(values[1:] != values[:-1]), len(values) - 1)
        self._block = np.empty(len(values), dtype=np.int64)
        self._block[order] = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=-1))
        self._bounds = np.concatenate([[0.0], ends + 1.0])
        self._values = values[ends]

    def curve(self, positive: np.ndarray) -> Curve:
        """Return the curve of a labelling, given by the positions of its positive pairs (at least one)."""
        blocks, counts = np.unique(self._block[positive], return_counts=True)
        tp = np.cumsum(counts).astype(np.float64)
        # Blocks between two with a positive are one block: no area changes.
        n = np.column_stack([self._bounds[blocks], self._bounds[blocks + 1]]).ravel()
        found = np.column_stack([tp - counts, tp]).ravel()
        at = np.maximum(np.column_stack([blocks - 1, blocks]).ravel(), 0)
        last = len(self._values) - 1
        return Curve(np.append(n, self._bounds[-1]), np.append(found, tp[-1]), self._values[np.append(at, last)])


def _ratio(numerator: np.ndarray, denominator: np.ndarray, empty: float) -> np.ndarray:
    # Blocks whose weights are all 0 at the top of the list: 0 / 0, which stands for "no pair yet".
    return np.divide(numerator, denominator, out=np.full(len(numerator), empty), where=denominator > 0)


def points(curve: Curve, n_points: int) -> tuple[np.ndarray, np.ndarray]:
    """Return recall and precision at about ``n_points`` places of the curve, densest at its start, in ranking order."""
    gains = np.diff(curve.tp, prepend=0.0) > 0
    recall, precision = curve.tp[gains] / curve.tp[-1], curve.tp[gains] / curve.n[gains]
    if len(recall) > n_points:
        half = n_points // 2
        wanted = np.union1d(np.linspace(0, 1, half), np.geomspace(recall[0], 1, n_points - half))
        kept = np.unique(np.minimum(np.searchsorted(recall, wanted), len(recall) - 1))
        recall, precision = recall[kept], precision[kept]
    return recall, precision


def area_under_roc(curve: Curve) -> float:
    """Return the area under the ROC curve, NaN without both kinds of pair."""
    tp, fp = curve.tp, curve.n - curve.tp
    if tp[-1] <= 0 or fp[-1] <= 0:
        return float("nan")
    before = np.concatenate([[0.0], tp[:-1]])
    return float(np.sum(np.diff(fp, prepend=0.0) * (before + tp) / 2) / (tp[-1] * fp[-1]))


def area_under_precision_recall(curve: Curve, interp: Interpolation = "step") -> float:
    """Return the area under the precision-recall curve, NaN without a positive pair."""
    n, tp = curve.n, curve.tp
    if tp[-1] <= 0:
        return float("nan")
    if interp == "davis_goadrich":
        return _davis_goadrich(curve)
    precision = _ratio(tp, n, empty=1.0)
    if interp == "trapezoid":
        precision = (np.concatenate([[1.0], precision[:-1]]) + precision) / 2
    return float(np.sum(np.diff(tp, prepend=0.0) * precision) / tp[-1])


def _davis_goadrich(curve: Curve) -> float:
    # Between two points false positives grow linearly with true positives; one trapezoid for each true positive.
    if not curve.integral:
        msg = "`interp='davis_goadrich'` counts pairs one by one: it needs integer `weights`."
        raise ValueError(msg)
    tp, fp = curve.tp, curve.n - curve.tp
    tp0, fp0 = np.concatenate([[0.0], tp[:-1]]), np.concatenate([[0.0], fp[:-1]])
    step = np.arange(1, int(tp[-1]) + 1, dtype=np.float64)
    block = np.searchsorted(tp, step, side="left")
    slope = (fp[block] - fp0[block]) / (tp[block] - tp0[block])

    def precision(x: np.ndarray) -> np.ndarray:
        n = x + fp0[block] + slope * (x - tp0[block])
        return np.divide(x, n, out=1 / (1 + slope), where=n > 0)  # the limit at the very start of the list

    return float(np.sum(precision(step - 1) + precision(step)) / (2 * tp[-1]))


def expected_precision(curve: Curve, k: float) -> float:
    """Return the precision among the top ``k`` pairs, averaged over all orders of tied pairs."""
    return float(np.interp(k, np.concatenate([[0.0], curve.n]), np.concatenate([[0.0], curve.tp])) / k)


def precision_at_k(curve: Curve, conventions: Conventions) -> float:
    """Return the early precision, NaN without a positive pair; see :func:`early_precision`."""
    k = float(curve.tp[-1] if conventions.k is None else conventions.k)
    if k <= 0 or curve.tp[-1] <= 0:
        return float("nan")
    n, tp, values = curve.n, curve.tp, curve.values
    if conventions.ties == "expected":
        return expected_precision(curve, min(k, float(n[-1])))
    last_nonzero = int(np.count_nonzero(values > 0)) - 1
    if conventions.ties == "beeline":
        scored = int(np.count_nonzero(values > -np.inf)) - 1
        if min(scored, last_nonzero) < 0:
            return 0.0
        block = min(int(np.searchsorted(n, min(k, n[scored]), side="left")), last_nonzero)
        return float(tp[block] / n[block]) if n[block] > 0 else 0.0
    block = min(int(np.searchsorted(n, k, side="right")) - 1, last_nonzero)
    return float(tp[block] / k) if block >= 0 else 0.0


def top_size(n: float, fraction: float) -> int:
    """Return the number of pairs in the top ``fraction`` of ``n`` pairs."""
    # 0.07 * 100 is 7.000000000000001: without rounding it would count as 8.
    return max(1, int(np.ceil(round(fraction * n, 9))))


def precision_at_fraction(curve: Curve, fraction: float) -> float:
    """Return the precision in the top fraction of pairs."""
    return expected_precision(curve, min(top_size(curve.n[-1], fraction), float(curve.n[-1])))


METRICS = (
    "auroc",
    "auprc",
    "auprc_ratio",
    "early_precision",
    "early_precision_ratio",
    "hit_rate",
    "hit_rate_ratio",
)
"""Names that :func:`ranking_table` and :func:`bootstrap` know."""


def measure(metric: str, curve: Curve, conventions: Conventions) -> float:
    """Return one metric of :data:`METRICS`, NaN where it is undefined."""
    if curve.n[-1] <= 0 or curve.tp[-1] <= 0:
        return float("nan")
    if metric == "auroc":
        return area_under_roc(curve)
    name = metric.removesuffix("_ratio")
    base = curve.base
    if name == "auprc":
        value = area_under_precision_recall(curve, conventions.interp)
    elif name == "hit_rate":
        value = precision_at_fraction(curve, conventions.fraction)
    else:
        value = precision_at_k(curve, conventions)
        if conventions.k is not None:
            base = conventions.k / float(curve.n[-1])
    return value / base if metric.endswith("_ratio") else value


def ceiling(metric: str, curve: Curve, conventions: Conventions) -> float:
    """Return the value that the best possible ranking would get."""
    base = curve.base
    if not metric.startswith("hit_rate"):
        return 1 / base if metric.endswith("_ratio") else 1.0
    best = min(1.0, float(curve.tp[-1]) / top_size(curve.n[-1], conventions.fraction))
    return best / base if metric.endswith("_ratio") else best


def check_metrics(metrics: Any) -> tuple[str, ...]:
    """Return the metric names as a tuple if all are known."""
    metrics = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    if not metrics:
        msg = f"Expected `metrics` to name at least one of {', '.join(map(repr, METRICS))}; found none."
        raise ValueError(msg)
    for metric in metrics:
        checks.choice("metrics", metric, METRICS)
    return tuple(dict.fromkeys(metrics))


def read(scores: Any, labels: Any, weights: Any, *, merge: bool = True) -> Curve:
    """Return the curve of checked input that has at least one positive pair."""
    scores = as_scores(scores)
    labels, weights = as_labels(labels, len(scores)), as_weights(weights, len(scores))
    ranking = Ranking(scores, labels, merge=merge)
    curve = ranking.curve(None if weights is None else weights[ranking.order])
    if curve.tp[-1] <= 0:
        msg = f"None of the {len(scores):,} `labels` is positive: there is nothing to find."
        raise ValueError(msg)
    return curve


def check_nonnegative(scores: Any, ties: str) -> None:
    """Raise on negative scores where a convention compares them with zero."""
    scores = np.asarray(scores, dtype=np.float64)
    if ties != "expected" and ((scores < 0) & (scores > -np.inf)).any():
        msg = f"`ties={ties!r}` takes a score of 0 for 'no edge': pass absolute values, as in `np.abs(scores)`."
        raise ValueError(msg)
