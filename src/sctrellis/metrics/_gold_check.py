from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sctrellis._core import checks
from sctrellis.metrics import _ranking
from sctrellis.metrics._bootstrap import draws, why_not
from sctrellis.metrics._degree_null import degree_null


@dataclass(frozen=True)
class GoldCheck:
    """What known edges say of a claimed false discovery rate.

    Parameters
    ----------
    table
        A row for each claimed rate; see :func:`gold_check`.
    words
        What follows for the last rate at which anything is selected.
    """

    table: pd.DataFrame
    words: str


def gold_check(
    qvalues: Any,
    labels: Any,
    *,
    rows: Any,
    columns: Any,
    q: float | Sequence[float] = (0.05, 0.1, 0.2),
    n_boot: int = 500,
    n_perm: int = 1000,
    level: float = 0.95,
    seed: int | None = 0,
    n_jobs: int | None = None,
) -> GoldCheck:
    r"""Put claimed false discovery rates beside a reference that knows some of the edges.

    Of the pairs selected at q, a share :math:`1 - q` or more should be true. The reference holds only a share c of the
    true edges, its completeness, so that it should know :math:`c (1 - q)` of them. What it does know of them tells how
    incomplete it would have to be for the claim to hold.

    Parameters
    ----------
    qvalues : (n,)
        q-value of each pair.
    labels : (n,)
        Whether the reference holds the pair: Boolean, or 0 and 1.
    rows, columns : (n,)
        Regulator and target of each pair.
    q
        Claimed rates, in (0, 1).
    n_boot
        Replicates of the two-way bootstrap.
    n_perm
        Random references with the same degrees; 0 leaves ``null`` and ``p`` NaN.
    level
        Coverage of the intervals, in (0, 1).
    seed
        Seed of all draws, in [0, 2**32); None draws one.
    n_jobs
        Workers of the random references; None is `settings.n_jobs`, -1 all cores. The result does not depend on them.

    Returns
    -------
    GoldCheck
        ``table`` has the columns

        ``q``, ``n_selected``, ``n_known``
            The claim, the pairs that are selected, and those of them that the reference holds.
        ``precision``, ``low``, ``high``
            ``n_known / n_selected`` and its interval, from drawing regulators and targets anew.
        ``density``, ``enrichment``
            Share of all pairs that the reference holds, and the precision divided by it.
        ``null``, ``p``
            Mean precision on random references with the same degrees, and the share of them, the reference included, on
            which it is at least as high.
        ``completeness``, ``completeness_low``, ``completeness_high``
            Largest completeness of the reference with which the claim can be true, at most 1: ``precision / (1 - q)``.
            The reference has to lack the rest of the true edges.
        ``note``
            Why there is no interval, or empty.

    Raises
    ------
    ValueError
        If a q-value is NaN or outside [0, 1], all or none of the pairs are in the reference, there are fewer than two
        regulators or targets, and on numbers out of range.

    Notes
    -----
    The bound takes every pair of the reference as true, and the true edges that it holds as drawn at random from all.
    Where it prefers edges that are easy to see, such as strong ones, the bound is too kind; where it holds false
    edges too. It can refute a claim, for a reference known to be more complete than that, and never prove one.

    Selected pairs that share regulators go together, so that intervals need 10 regulators and 10 targets; with fewer
    they are NaN.

    References
    ----------
    :cite:p:`elkan2008` for labels of some positives; :cite:p:`kernfeld2024` for known edges as a test of such claims.

    Examples
    --------
    >>> import numpy as np
    >>> from sctrellis import metrics
    >>> rng = np.random.default_rng(0)
    >>> rows, columns = np.divmod(np.arange(4000), 100)
    >>> true = rng.random(4000) < 0.1
    >>> known = true & (rng.random(4000) < 0.4)
    >>> found = metrics.gold_check(np.where(true, 0.01, 1.0), known, rows=rows, columns=columns, q=0.1, n_perm=99)
    >>> bool(abs(found.table["completeness"].item() * 0.9 - 0.4) < 0.06)
    True
    """
    claimed = [q] if isinstance(q, int | float) else list(q)
    claimed = [checks.number("q", value, low=0, high=1, open_low=True, open_high=True) for value in claimed]
    n_boot, n_perm = checks.integer("n_boot", n_boot, minimum=0), checks.integer("n_perm", n_perm, minimum=0)
    level = checks.number("level", level, low=0, high=1, open_low=True, open_high=True)
    seed = checks.seed(seed)
    values = np.asarray(qvalues, dtype=np.float64)
    labels = _ranking.as_labels(labels, len(values))
    if not ((values >= 0) & (values <= 1)).all():
        msg = "Expected `qvalues` to lie between 0 and 1, without NaN."
        raise ValueError(msg)
    rows, columns = (np.unique(np.asarray(names), return_inverse=True)[1] for names in (rows, columns))
    random = None
    if n_perm:
        random = degree_null(rows, columns, labels, n_perm=n_perm, seed=seed, n_jobs=n_jobs).positive
    n_rows, n_columns = int(rows.max()) + 1, int(columns.max()) + 1
    note = why_not(n_rows, n_columns, n_boot)
    drawn = draws(n_rows, n_columns, 0 if note else n_boot, seed)
    tail = 50 * (1 - level)
    lines = []
    for rate in claimed:
        selected = values <= rate
        n_selected, n_known = int(selected.sum()), int((selected & labels).sum())
        line: dict[str, Any] = {"q": rate, "n_selected": n_selected, "n_known": n_known, "density": labels.mean()}
        line["note"] = note if n_selected else "nothing is selected"
        if n_selected:
            precision = n_known / n_selected
            low, high = np.nan, np.nan
            if not note:
                # Of a selection that is not drawn at all there is no precision.
                weight = [u[rows[selected]] * v[columns[selected]] for u, v in zip(*drawn, strict=True)]
                total = np.array([w.sum() for w in weight], dtype=float)
                found = np.array([w[labels[selected]].sum() for w in weight], dtype=float)
                low, high = np.percentile(found[total > 0] / total[total > 0], [tail, 100 - tail])
            line |= {"precision": precision, "low": low, "high": high, "enrichment": precision / labels.mean()}
            if random is not None:
                null = selected[random].sum(axis=1) / n_selected
                line |= {"null": null.mean(), "p": (1 + (null >= precision).sum()) / (1 + n_perm)}
            for name, value in (("", precision), ("_low", low), ("_high", high)):
                line[f"completeness{name}"] = np.fmin(value / (1 - rate), 1.0) if np.isfinite(value) else np.nan
        lines.append(line)
    columns_of_table = ["q", "n_selected", "n_known", "precision", "low", "high", "density", "enrichment", "null", "p"]
    columns_of_table += ["completeness", "completeness_low", "completeness_high", "note"]
    table = pd.DataFrame(lines).reindex(columns=columns_of_table)
    return GoldCheck(table, _words(table))


def _words(table: pd.DataFrame) -> str:
    there = table[table["n_selected"] > 0]
    if there.empty:
        return f"Nothing is selected at q = {table['q'].max():g}, so that there is nothing to check."
    row = there.iloc[-1]
    text = (
        f"Of {row['n_selected']:,} pairs selected at q = {row['q']:g} the reference holds {row['precision']:.1%}, "
        f"{row['enrichment']:.2f} times its density {row['density']:.2%}"
    )
    if np.isfinite(row["null"]):
        text += f" (random references of the same degrees: {row['null']:.1%}, p = {row['p']:.2g})"
    text += "."
    if row["completeness"] >= 1:
        return f"{text} The claim needs no missing edges."
    text += f" For the claim to be true it must lack {1 - row['completeness']:.0%} of the true edges"
    if np.isfinite(row["completeness_high"]):
        text += f" ({1 - row['completeness_high']:.0%} to {1 - row['completeness_low']:.0%})"
    return f"{text}."
