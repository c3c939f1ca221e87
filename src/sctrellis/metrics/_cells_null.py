from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from sctrellis._core import checks
from sctrellis.metrics import _ranking
from sctrellis.metrics._effective_size import standardised
from sctrellis.metrics._null_test import LEVEL, NAMES, NULL_METRICS, NullTest, known_edges, summary
from sctrellis.metrics._pair_table import PairTable
from sctrellis.metrics._ranking import Conventions


def cells_null(
    scores: Any,
    labels: Any,
    *,
    x: Any,
    y: Any,
    rows: Any,
    columns: Any,
    strata: Any = None,
    metrics: Sequence[str] | str = ("auprc", "auroc", "hit_rate"),
    n_perm: int = 1000,
    fraction: float = 0.01,
    seed: int | None = 0,
) -> NullTest:
    r"""Smoke test: put a score beside correlations in which the cells of every target are shuffled.

    It asks whether regulators and targets have *anything* to do with each other, which in cells they nearly always do.
    It says nothing of any single edge, and gives no q-value.

    Parameters
    ----------
    scores : (n,)
        Higher is more likely an edge; ``-inf`` marks pairs without a score, ranked last together.
    labels : (n,)
        Boolean, or 0 and 1.
    x : (n_cells, n_regulators)
        Regulators.
    y : (n_cells, n_targets)
        Targets.
    rows, columns : (n,)
        Regulator and target of each pair: columns of `x` and of `y`.
    strata : (n_cells,)
        Batch, time point or cluster of each cell, within which cells are shuffled; None shuffles all.
    metrics
        Names among ``"auprc"``, ``"auroc"``, ``"early_precision"`` and ``"hit_rate"``.
    n_perm
        Shuffles.
    fraction
        Share of the pairs in the hit rate; see :func:`hit_rate`.
    seed
        Seed of the shuffles, in [0, 2**32); None draws one.

    Returns
    -------
    NullTest
        Its ``table`` is that of :func:`null_test` without ``identity``: the null is the metric of absolute Pearson
        correlations between regulators and shuffled targets. ``shuffled`` holds ``share_beyond``, the share of the
        pairs whose absolute correlation in the data is above ``null_q95``, the 95 % quantile of the pairs in shuffled
        cells (mean over shuffles), and ``median_correlation`` in the data.

    Raises
    ------
    ValueError
        On arrays that do not fit, expression that is not finite, without a positive pair or without another, and on
        NaN scores.

    Notes
    -----
    Every target is shuffled by itself, so that targets are independent of each other as well. Correlation stands in
    for the method that made the scores, which would have to be run again on every shuffle: for a method whose scores
    of unrelated genes favour some pairs, the null is too weak.

    Cost: one product of the matrices a shuffle, O(cells x regulators x targets). Both are dense.

    References
    ----------
    :cite:p:`kernfeld2024`, where this is the null that tests the least.

    Examples
    --------
    >>> import numpy as np
    >>> from sctrellis import metrics
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(100, 5))
    >>> y = x[:, :4] + rng.normal(size=(100, 4))
    >>> rows, columns = np.divmod(np.arange(20), 4)
    >>> labels = rows == columns
    >>> where = {"rows": rows, "columns": columns, "metrics": "auroc", "n_perm": 99}
    >>> metrics.cells_null(labels, labels, x=x, y=y, **where).table["p"].item()
    0.01
    """
    metrics = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    for metric in _ranking.check_metrics(metrics):
        checks.choice("metrics", metric, NULL_METRICS)
    n_perm, seed = checks.integer("n_perm", n_perm), checks.seed(seed)
    conventions = Conventions(fraction=fraction)
    scores = _ranking.as_scores(scores)
    labels = known_edges(labels, len(scores))
    PairTable.of(rows, columns, len(scores))
    row, column = np.asarray(rows), np.asarray(columns)
    x, y = (_matrix(name, a, int(i.max()) + 1) for name, a, i in (("x", x, row), ("y", y, column)))
    group = np.zeros(len(x), dtype=np.int64) if strata is None else pd.factorize(np.asarray(strata))[0]
    if len(y) != len(x) or group.shape != (len(x),):
        msg = f"Expected `y` and `strata` to have a row for each of the {len(x)} rows of `x`."
        raise ValueError(msg)
    n = len(x)
    left, right = standardised(x), standardised(y)
    found = np.abs(left.T @ right / n)[row, column]
    rng, order = np.random.default_rng(seed), np.argsort(group, kind="stable")
    edges = np.flatnonzero(labels)
    replicates, quantiles = np.empty((n_perm, len(metrics))), np.empty(n_perm)

    def measured(values: np.ndarray) -> list[float]:
        curve = _ranking.Order(values).curve(edges)
        return [_ranking.measure(metric, curve, conventions) for metric in metrics]

    for i in range(n_perm):
        # Sorted by group and a random number, the cells of each group are shuffled, for every target by itself.
        drawn = np.argsort(group[:, None] + rng.random(right.shape), axis=0)
        shuffled = np.empty_like(right)
        shuffled[order] = np.take_along_axis(right, drawn, axis=0)
        null = np.abs(left.T @ shuffled / n)[row, column]
        replicates[i], quantiles[i] = measured(null), np.quantile(null, 1 - LEVEL)
    table, q95 = summary(metrics, np.array(measured(scores)), replicates, labels), float(quantiles.mean())
    beyond = {
        "null_q95": q95,
        "share_beyond": float((found > q95).mean()),
        "median_correlation": float(np.median(found)),
    }
    return NullTest(
        table=table,
        replicates=pd.DataFrame(replicates, columns=list(metrics)),
        words=_words(table.iloc[0], beyond),
        shuffled=beyond,
    )


def _matrix(name: str, a: Any, width: int) -> np.ndarray:
    a = np.asarray(a, dtype=np.float64)
    if a.ndim != 2 or a.shape[1] < width or not np.isfinite(a).all():
        msg = f"Expected `{name}` to be a finite matrix of at least {width} columns, found shape {a.shape}."
        raise ValueError(msg)
    return a


def _words(line: pd.Series, beyond: dict[str, float]) -> str:
    return (
        f"Smoke test against shuffled cells: {NAMES[line['metric']]} {line['observed']:.4f}, of correlations in them "
        f"{line['null_mean']:.4f} (p = {line['p']:.2g}). {beyond['share_beyond']:.0%} of the pairs are more "
        "correlated than 95 % are in shuffled cells, where 5 % would be if no genes had to do with each other. This is "
        "no evidence for an edge: compare with the degree null."
    )
