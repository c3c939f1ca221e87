from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from sctrellis._core import checks
from sctrellis.metrics import _ranking
from sctrellis.metrics._degree_null import DegreeDraws
from sctrellis.metrics._maximum_entropy import fit_table
from sctrellis.metrics._pair_table import PairTable
from sctrellis.metrics._ranking import Conventions

Null = Literal["degree", "regulator", "labels", "maxent"]
NULLS: tuple[Null, ...] = get_args(Null)
NULL_METRICS = ("auroc", "auprc", "early_precision", "hit_rate")
LEVEL = 0.05
_SAME = 1e-12
"""Relative difference below which two metrics are equal but for rounding."""
NAMES = {"auroc": "AUROC", "auprc": "AUPRC", "early_precision": "early precision", "hit_rate": "hit rate"}
_KEPT = {
    "degree": "the degrees of regulators and targets",
    "regulator": "how many edges each regulator has",
    "labels": "how many edges there are",
    "maxent": "the average degrees of regulators and targets",
}


@dataclass(frozen=True, kw_only=True)
class NullTest:
    """A score beside labels that are random but for what the null keeps.

    Parameters
    ----------
    table
        One row per metric; see :func:`null_test`.
    replicates
        One column per metric, one row per drawn labelling.
    words
        What follows, in words.
    mixing
        How well the drawn networks are mixed; of the null ``"degree"`` only.
    shuffled
        How correlated the pairs are beside shuffled cells; of :func:`cells_null` only.
    """

    table: pd.DataFrame
    replicates: pd.DataFrame
    words: str
    mixing: dict[str, Any] = field(default_factory=dict)
    shuffled: dict[str, float] = field(default_factory=dict)


def null_test(
    scores: Any,
    labels: Any,
    *,
    rows: Any,
    columns: Any,
    kind: Null = "degree",
    metrics: Sequence[str] | str = ("auprc", "auroc", "hit_rate"),
    n_perm: int = 1000,
    fraction: float = 0.01,
    seed: int | None = 0,
    n_jobs: int | None = None,
) -> NullTest:
    r"""Test whether a score finds edges beyond what the numbers of edges of its genes explain.

    Parameters
    ----------
    scores : (n,)
        Higher is more likely an edge; ``-inf`` marks pairs without a score, ranked last together.
    labels : (n,)
        Boolean, or 0 and 1.
    rows, columns : (n,)
        Regulator and target of each pair.
    kind
        What random labels keep: ``"degree"`` the number of edges of every regulator and of every target
        (:func:`degree_null`), ``"maxent"`` the same on average, with independent edges (:func:`maximum_entropy`),
        ``"regulator"`` that of every regulator, ``"labels"`` that of the whole network only.
    metrics
        Names among ``"auprc"``, ``"auroc"``, ``"early_precision"`` and ``"hit_rate"``.
    n_perm
        Random labellings.
    fraction
        Share of the pairs in the hit rate; see :func:`hit_rate`.
    seed
        Seed of the draws, in [0, 2**32); None draws one.
    n_jobs
        Workers of ``"degree"``; None is `settings.n_jobs`, -1 all cores. The result does not depend on them.

    Returns
    -------
    NullTest
        Its ``table`` has one row per metric, with ``observed``; ``chance`` (share of positives, 0.5 for AUROC);
        ``null_mean``, ``null_sd``, ``null_low``, ``null_median`` and ``null_high`` (quantiles 0.025, 0.5, 0.975);
        ``z`` (NaN where the null does not vary); ``p``, one-sided; ``ratio_to_null`` and ``ratio_to_chance``; and
        ``identity``, the metric of the degrees themselves (:func:`maximum_entropy`), the ceiling for a score that
        knows who has how many edges and nothing else.

    Raises
    ------
    ValueError
        On an unknown kind or metric, without a positive pair or without another, on NaN scores, and where
        :func:`degree_null` raises.

    Notes
    -----
    :math:`p = (1 + \#\{\text{null} \ge \text{observed}\}) / (B + 1)` for B labellings, so it is never below
    1 / (B + 1). With ``"degree"`` it is exact for labels that are random given both degrees: see :func:`degree_null`.

    Ratio to chance and ratio to null differ where popular genes score high, or low. A score that ranks hubs first is
    above chance and not above the degree null; one that ranks hubs last may be below chance and above the null.

    ``"labels"`` is there for contrast: it calls popularity a discovery. ``"maxent"`` varies two to three times as much
    as ``"degree"``, so its z is smaller, but costs nothing to mix.

    References
    ----------
    :cite:p:`besag1989` for p-values from a chain.

    Examples
    --------
    >>> import numpy as np
    >>> from sctrellis import metrics
    >>> rng = np.random.default_rng(0)
    >>> rows, columns = np.divmod(np.arange(600), 40)
    >>> popular = rng.normal(size=15)
    >>> labels = rng.random(600) < 1 / (1 + np.exp(1 - 2 * popular[rows]))
    >>> where = {"rows": rows, "columns": columns, "metrics": "auroc", "n_perm": 99}
    >>> metrics.null_test(popular[rows], labels, **where).table["p"].item()
    1.0
    >>> metrics.null_test(popular[rows], labels, kind="labels", **where).table["p"].item()
    0.01
    """
    checks.choice("kind", kind, NULLS)
    metrics = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    for metric in _ranking.check_metrics(metrics):
        checks.choice("metrics", metric, NULL_METRICS)
    n_perm, seed, workers = checks.integer("n_perm", n_perm), checks.seed(seed), checks.n_jobs(n_jobs)
    conventions = Conventions(fraction=fraction)
    scores = _ranking.as_scores(scores)
    labels = known_edges(labels, len(scores))
    table = PairTable.of(rows, columns, len(scores))
    probabilities = fit_table(table, labels)[table.row, table.column]
    mixing: dict[str, Any] = {}
    drawn: Iterable[np.ndarray]
    if kind == "degree":
        draws = DegreeDraws.start(table, labels, n_rounds=None, seed=seed)
        mixing = draws.mixing
        drawn = (positive for batch in draws.batches(n_perm, workers) for positive in batch)
    else:
        drawn = _shuffles(kind, table, labels, probabilities, n_perm, np.random.default_rng(seed))
    order = _ranking.Order(scores)

    def measured(ranking: _ranking.Order, positive: np.ndarray) -> list[float]:
        curve = ranking.curve(positive)
        return [_ranking.measure(metric, curve, conventions) for metric in metrics]

    edges = np.flatnonzero(labels)
    observed = np.array(measured(order, edges))
    identity = measured(_ranking.Order(probabilities), edges)
    replicates = np.array([measured(order, positive) for positive in drawn])
    found = summary(metrics, observed, replicates, labels).assign(identity=identity)
    words = f"{_words(found.iloc[0], kind)}{_warning(kind, mixing)}"
    return NullTest(table=found, replicates=pd.DataFrame(replicates, columns=list(metrics)), words=words, mixing=mixing)


def known_edges(labels: Any, n: int) -> np.ndarray:
    """Return labels as Booleans; raises unless there are edges and others."""
    labels = _ranking.as_labels(labels, n)
    if not labels.any() or labels.all():
        msg = f"{'All' if labels.any() else 'None'} of the {n:,} `labels` are positive: nothing can be ranked."
        raise ValueError(msg)
    return labels


def summary(metrics: Sequence[str], observed: np.ndarray, replicates: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """Return one row per metric: what was observed beside replicates of the null, as :func:`null_test` describes.

    Parameters
    ----------
    metrics
        Their names.
    observed : (n_metrics,)
        What the score gets.
    replicates : (n_perm, n_metrics)
        What it gets under the null.
    labels : bool, (n,)
        Known edges, which say what chance is.
    """
    n_perm = len(replicates)
    mean, sd = replicates.mean(axis=0), replicates.std(axis=0, ddof=1) if n_perm > 1 else np.full(len(metrics), np.nan)
    low, median, high = np.quantile(replicates, [LEVEL / 2, 0.5, 1 - LEVEL / 2], axis=0)
    varies = sd > _SAME * np.abs(observed)
    chance = np.array([0.5 if metric == "auroc" else labels.mean() for metric in metrics])
    return pd.DataFrame(
        {
            "metric": metrics,
            "observed": observed,
            "chance": chance,
            "null_mean": mean,
            "null_sd": sd,
            "null_low": low,
            "null_median": median,
            "null_high": high,
            "z": np.divide(observed - mean, sd, out=np.full(len(metrics), np.nan), where=varies),
            "p": (1 + (replicates >= observed * (1 - _SAME)).sum(axis=0)) / (n_perm + 1),
            "ratio_to_null": np.divide(observed, mean, out=np.full(len(metrics), np.nan), where=mean > 0),
            "ratio_to_chance": observed / chance,
        }
    )


def _shuffles(
    kind: str, table: PairTable, labels: np.ndarray, probabilities: np.ndarray, n_perm: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yield the positive pairs of each random labelling."""
    n, n_positive = len(labels), int(labels.sum())
    size, degree = np.bincount(table.row), np.bincount(table.row, weights=labels)
    start = np.cumsum(size) - size
    first = np.arange(n) - np.repeat(start, size) < np.repeat(degree, size)
    for _ in range(n_perm):
        if kind == "labels":
            yield rng.choice(n, n_positive, replace=False)
        elif kind == "regulator":
            yield np.argsort(table.row + rng.random(n))[first]
        else:
            drawn = np.flatnonzero(rng.random(n) < probabilities)
            while not len(drawn):
                drawn = np.flatnonzero(rng.random(n) < probabilities)
            yield drawn


def _words(line: pd.Series, kind: str) -> str:
    """Say what the first metric means."""
    name, kept = NAMES[line["metric"]], _KEPT[kind]
    chance = "0.5" if line["metric"] == "auroc" else f"the density {line['chance']:.4f}"
    numbers = (
        f"{name} {line['observed']:.4f} is {line['ratio_to_null']:.2f} times that of the {kind} null "
        f"({line['null_mean']:.4f}; z = {line['z']:.1f}, p = {line['p']:.2g}) and {line['ratio_to_chance']:.2f} times "
        f"{chance}."
    )
    above, beyond = line["observed"] > line["chance"], line["p"] <= LEVEL
    if np.isnan(line["z"]):
        says = f"Every labelling that keeps {kept} gets this value: the score says no more."
    elif kind == "labels":
        says = (
            "The score is better than chance; whether by more than popularity, only the degree null says."
            if beyond
            else "The score is not told from chance."
        )
    elif beyond and above:
        says = f"The score tells edges apart beyond {kept}."
    elif beyond:
        says = (
            f"The score tells edges apart beyond {kept}, though it ranks popular genes so low that chance does better."
        )
    elif above:
        says = f"It is above chance, but no more than {kept} explain."
    else:
        says = f"It is not above chance, nor beyond {kept}."
    return f"{numbers} {says}"


def _warning(kind: str, mixing: dict[str, Any]) -> str:
    if kind == "labels":
        return " This null is for contrast: it takes knowing the hubs for knowing the edges."
    if mixing and not mixing["mixed"]:
        return (
            f" The drawn networks still share {mixing['overlap']:.3f} of the known edges, where independent ones would "
            f"share {mixing['overlap_expected']:.3f}: p is valid, but z is too small."
        )
    return ""
