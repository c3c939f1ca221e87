from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sctrellis._core import checks
from sctrellis.metrics import _ranking
from sctrellis.metrics._ranking import Conventions, Interpolation, Ranking, Ties

MIN_GROUPS = 10
"""Regulators, and targets, below which resampling them says nothing."""


@dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """Resampled metrics of one or more score vectors.

    Parameters
    ----------
    names
        Names of the score vectors.
    metrics
        Names of the metrics.
    estimate : (n_names, n_metrics)
        Metrics of the data as they are.
    replicates : (n_boot, n_names, n_metrics)
        Metrics of each replicate, the same replicate for every name; empty where `reason` says so.
    level
        Coverage of the intervals.
    reason
        Why there are no intervals; empty where there are.
    """

    names: tuple[str, ...]
    metrics: tuple[str, ...]
    estimate: np.ndarray
    replicates: np.ndarray
    level: float = 0.95
    reason: str = ""

    def interval(self) -> pd.DataFrame:
        """Return ``key``, ``metric``, ``value``, ``low`` and ``high`` of every score vector."""
        low, high = self._percentiles(self.replicates)
        return pd.DataFrame(
            {
                "key": np.repeat(self.names, len(self.metrics)),
                "metric": np.tile(self.metrics, len(self.names)),
                "value": self.estimate.ravel(),
                "low": low.ravel(),
                "high": high.ravel(),
            }
        )

    def difference(self, first: str, second: str) -> pd.DataFrame:
        """Return ``metric``, ``value``, ``low`` and ``high`` of ``first`` minus ``second``, replicate by replicate."""
        for name in (first, second):
            if name not in self.names:
                msg = f"{name!r} is none of the score vectors: {', '.join(map(repr, self.names))}."
                raise KeyError(msg)
        i, j = self.names.index(first), self.names.index(second)
        low, high = self._percentiles(self.replicates[:, i] - self.replicates[:, j])
        value = self.estimate[i] - self.estimate[j]
        return pd.DataFrame({"metric": self.metrics, "value": value, "low": low, "high": high})

    def _percentiles(self, replicates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if len(replicates) == 0:
            empty = np.full(replicates.shape[1:], np.nan)
            return empty, empty
        tail = 50 * (1 - self.level)
        # A replicate that drew no positive pair has no metric; where all did, there is no interval either.
        lost = np.isnan(replicates).all(axis=0)
        low, high = np.nanpercentile(np.where(lost, 0.0, replicates), [tail, 100 - tail], axis=0)
        return np.where(lost, np.nan, low), np.where(lost, np.nan, high)


def named(scores: Any) -> dict[str, np.ndarray]:
    """Return score vectors by name: a mapping as it is, one vector under the name ``"scores"``."""
    if isinstance(scores, Mapping):
        vectors = {str(name): _ranking.as_scores(vector) for name, vector in scores.items()}
    else:
        vectors = {"scores": _ranking.as_scores(scores)}
    if len({len(v) for v in vectors.values()}) != 1:
        found = {name: len(v) for name, v in vectors.items()}
        msg = f"Expected `scores` to hold vectors of equal length, found {found}."
        raise ValueError(msg)
    return vectors


def why_not(n_rows: int, n_columns: int, n_boot: int) -> str:
    """Return why there are no intervals; empty where there are."""
    if n_boot == 0:
        return "no replicates (n_boot=0)"
    if n_rows < MIN_GROUPS or n_columns < MIN_GROUPS:
        few = f"{n_rows} regulators" if n_rows < MIN_GROUPS else f"{n_columns} targets"
        return f"only {few}: an interval needs {MIN_GROUPS}"
    return ""


def draws(n_rows: int, n_columns: int, n_boot: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return how often each replicate draws each regulator, (n_boot, n_rows), and each target, (n_boot, n_columns)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.empty((n_boot, n_rows), np.int64), np.empty((n_boot, n_columns), np.int64)
    for b in range(n_boot):
        rows[b] = rng.multinomial(n_rows, np.full(n_rows, 1 / n_rows))
        columns[b] = rng.multinomial(n_columns, np.full(n_columns, 1 / n_columns))
    return rows, columns


def bootstrap(
    scores: Any,
    labels: Any,
    *,
    rows: Any,
    columns: Any,
    metrics: Sequence[str] | str = ("auroc", "auprc", "auprc_ratio"),
    n_boot: int = 500,
    level: float = 0.95,
    interp: Interpolation = "step",
    ties: Ties = "expected",
    fraction: float = 0.01,
    seed: int | None = 0,
) -> Bootstrap:
    r"""Intervals of ranking metrics, from resampling regulators and targets at once.

    Parameters
    ----------
    scores : (n,)
        One vector, or a mapping from names to vectors that are to be compared on the same replicates. Higher is more
        likely an edge; ``-inf`` marks pairs without a score, ranked last together.
    labels : (n,)
        Boolean, or 0 and 1.
    rows, columns : (n,)
        Regulator and target of each pair.
    metrics
        Names among ``"auroc"``, ``"auprc"``, ``"auprc_ratio"``, ``"early_precision"``, ``"early_precision_ratio"``,
        ``"hit_rate"`` and ``"hit_rate_ratio"``.
    n_boot
        Replicates; 0 computes the metrics only.
    level
        Coverage of the intervals, in (0, 1).
    interp
        How the area under precision-recall is read; see :func:`average_precision`.
    ties
        Which pairs count as the top k; see :func:`early_precision`.
    fraction
        Share of the pairs in the hit rate; see :func:`hit_rate`.
    seed
        Seed of the resampling, in [0, 2**32); None draws one.

    Returns
    -------
    Bootstrap
        Its methods ``interval()`` and ``difference(first, second)`` return tables of percentile intervals. With fewer
        than 10 regulators or 10 targets the limits are NaN and ``reason`` says why.

    Raises
    ------
    ValueError
        On unknown metrics, without a positive pair, on NaN scores and on arrays of unequal length.

    Notes
    -----
    A replicate draws regulators with replacement, and independently targets; the pair :math:`(i, j)` weighs
    :math:`u_i v_j`, the product of how often each was drawn. Pairs that share a regulator are far from independent, so
    resampling pairs one by one would give intervals many times too narrow. The price is that the two-way bootstrap is
    conservative where pairs really are independent. Scores are sorted once: a replicate costs O(n).

    References
    ----------
    Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1 (2007).

    Examples
    --------
    >>> import numpy as np
    >>> from sctrellis import metrics
    >>> rng = np.random.default_rng(0)
    >>> rows, columns = np.divmod(np.arange(600), 30)
    >>> labels = rng.random(600) < 0.2
    >>> scores = {"good": labels + rng.normal(size=600), "random": rng.random(600)}
    >>> result = metrics.bootstrap(scores, labels, rows=rows, columns=columns, metrics="auroc", n_boot=100)
    >>> bool(result.difference("good", "random")["low"].item() > 0)
    True
    """
    metrics = _ranking.check_metrics(metrics)
    conventions = Conventions(interp=interp, ties=ties, fraction=fraction)
    n_boot, seed = checks.integer("n_boot", n_boot, minimum=0), checks.seed(seed)
    level = checks.number("level", level, low=0, high=1, open_low=True, open_high=True)
    vectors = named(scores)
    n = len(next(iter(vectors.values())))
    labels = _ranking.as_labels(labels, n)
    if not labels.any():
        msg = f"None of the {n:,} `labels` is positive: there is nothing to find."
        raise ValueError(msg)
    row_names, row = np.unique(np.asarray(rows), return_inverse=True)
    column_names, column = np.unique(np.asarray(columns), return_inverse=True)
    if row.shape != (n,) or column.shape != (n,):
        msg = f"Expected `rows` and `columns` to have shape ({n},) as `scores`, found {row.shape} and {column.shape}."
        raise ValueError(msg)

    rankings = []
    for vector in vectors.values():
        _ranking.check_nonnegative(vector, ties)
        rankings.append(Ranking(vector, labels, merge=ties == "expected"))
    sorted_pairs = [(ranking, row[ranking.order], column[ranking.order]) for ranking in rankings]
    shape = (len(vectors), len(metrics))
    estimate = np.array([[_ranking.measure(m, r.curve(), conventions) for m in metrics] for r in rankings])

    reason = why_not(len(row_names), len(column_names), n_boot)
    drawn_rows, drawn_columns = draws(len(row_names), len(column_names), 0 if reason else n_boot, seed)
    replicates = np.full((len(drawn_rows), *shape), np.nan)
    for b, (u, v) in enumerate(zip(drawn_rows, drawn_columns, strict=True)):
        for i, (ranking, row_sorted, column_sorted) in enumerate(sorted_pairs):
            curve = ranking.curve(u[row_sorted] * v[column_sorted])
            replicates[b, i] = [_ranking.measure(m, curve, conventions) for m in metrics]
    return Bootstrap(
        names=tuple(vectors), metrics=metrics, estimate=estimate, replicates=replicates, level=level, reason=reason
    )
