from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from sctrellis.metrics import _ranking
from sctrellis.metrics._bootstrap import MIN_GROUPS, Bootstrap, bootstrap, named
from sctrellis.metrics._macro import MACRO_METRICS, macro
from sctrellis.metrics._ranking import Conventions, Interpolation, Ties


def ranking_table(
    scores: Any,
    labels: Any,
    *,
    rows: Any,
    columns: Any,
    metrics: Sequence[str] | str = ("auroc", "auprc", "auprc_ratio", "early_precision_ratio", "hit_rate"),
    min_count: int = 5,
    n_boot: int = 500,
    level: float = 0.95,
    interp: Interpolation = "step",
    ties: Ties = "expected",
    fraction: float = 0.01,
    seed: int | None = 0,
) -> pd.DataFrame:
    """All ranking metrics of one or more score vectors: over all pairs, per regulator and per target.

    Parameters
    ----------
    scores : (n,)
        One vector, or a mapping from names to vectors. Higher is more likely an edge; ``-inf`` marks pairs without a
        score, ranked last together.
    labels : (n,)
        Boolean, or 0 and 1.
    rows, columns : (n,)
        Regulator and target of each pair.
    metrics
        Names among ``"auroc"``, ``"auprc"``, ``"auprc_ratio"``, ``"early_precision"``, ``"early_precision_ratio"``,
        ``"hit_rate"`` and ``"hit_rate_ratio"``. The first three are also averaged over regulators and over targets.
    min_count
        Positive, and negative, pairs that a regulator (or target) must have to enter the average.
    n_boot
        Replicates of the two-way bootstrap; 0 leaves its limits NaN.
    level
        Coverage of the intervals, in (0, 1).
    interp
        How the area under precision-recall is read over all pairs; averages over regulators and targets always use
        ``"step"``.
    ties
        Which pairs count as the top k; see :func:`early_precision`.
    fraction
        Share of the pairs in the hit rate; see :func:`hit_rate`.
    seed
        Seed of the resampling, in [0, 2**32); None draws one.

    Returns
    -------
    DataFrame
        One row per score vector (``key``), ``metric`` and ``level`` (``"micro"``, ``"regulator"``, ``"target"``), with
        ``value``, ``low``, ``high``, ``ceiling`` (value of a perfect ranking), ``base`` (share of positives),
        ``n_pairs``, ``n_positive``, ``n_regulators``, ``scored`` (share of the pairs that have a score), ``coverage``
        (share of the regulators or targets in the average; 1 for micro) and ``note`` (why limits are NaN, or empty).

    Raises
    ------
    ValueError
        As :func:`bootstrap`.

    Notes
    -----
    Micro limits come from :func:`bootstrap`, on the same replicates for all score vectors. Limits of the averages are
    Student's, from the standard error over regulators (or targets).

    Examples
    --------
    >>> import numpy as np
    >>> from sctrellis import metrics
    >>> rows, columns = np.divmod(np.arange(400), 20)
    >>> labels = (rows + columns) % 3 == 0
    >>> table = metrics.ranking_table(labels * 1.0, labels, rows=rows, columns=columns, metrics="auroc", n_boot=50)
    >>> table[["metric", "level", "value"]].to_numpy().tolist()
    [['auroc', 'micro', 1.0], ['auroc', 'regulator', 1.0], ['auroc', 'target', 1.0]]
    """
    vectors = named(scores)
    result = bootstrap(
        vectors,
        labels,
        rows=rows,
        columns=columns,
        metrics=metrics,
        n_boot=n_boot,
        level=level,
        interp=interp,
        ties=ties,
        fraction=fraction,
        seed=seed,
    )
    conventions = Conventions(interp=interp, ties=ties, fraction=fraction)
    return tabulate(result, vectors, labels, rows=rows, columns=columns, conventions=conventions, min_count=min_count)


def tabulate(
    result: Bootstrap,
    vectors: Mapping[str, np.ndarray],
    labels: Any,
    *,
    rows: Any,
    columns: Any,
    conventions: Conventions,
    min_count: int = 5,
) -> pd.DataFrame:
    """Return the table of :func:`ranking_table` where the replicates of its micro limits are there already."""
    limits = result.interval().set_index(["key", "metric"])
    labels = _ranking.as_labels(labels, len(np.asarray(rows)))
    best = _ranking.Ranking(labels.astype(float), labels).curve()
    shared = {
        "base": float(labels.mean()),
        "n_pairs": len(labels),
        "n_positive": int(labels.sum()),
        "n_regulators": len(np.unique(np.asarray(rows))),
    }
    averaged = [m for m in result.metrics if m in MACRO_METRICS]
    lines = []
    for key, vector in vectors.items():
        own = {**shared, "scored": float(np.isfinite(vector).mean())}
        for metric in result.metrics:
            value, low, high = limits.loc[(key, metric), ["value", "low", "high"]]
            top = _ranking.ceiling(metric, best, conventions)
            place = {"key": key, "metric": metric, "level": "micro"}
            found = {"value": value, "low": low, "high": high, "ceiling": top}
            lines.append({**place, **found, **own, "coverage": 1.0, "note": result.reason})
        for name, groups in (("regulator", rows), ("target", columns)):
            means = macro(vector, labels, groups, min_count=min_count)
            for metric in averaged:
                mean, se, n_groups, coverage = map(float, means.loc[metric, ["mean", "se", "n_groups", "coverage"]])
                half, note = np.nan, f"only {n_groups:.0f} {name}s with enough pairs: an interval needs {MIN_GROUPS}"
                if n_groups >= MIN_GROUPS:
                    half, note = stats.t.ppf((1 + result.level) / 2, n_groups - 1) * se, ""
                place = {"key": key, "metric": metric, "level": name}
                top = np.nan if metric == "auprc_ratio" else 1.0
                found = {"value": mean, "low": mean - half, "high": mean + half, "ceiling": top}
                lines.append({**place, **found, **own, "coverage": coverage, "note": note})
    return pd.DataFrame(lines)
