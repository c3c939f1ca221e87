import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
from scipy import sparse, stats

from sctrellis._core import checks, logs, record, slots
from sctrellis._core.keys import Keys
from sctrellis.metrics import selection_bound
from sctrellis.tl import _benchmark_runs as runs

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

Scheme = Literal["complementary_pairs", "seeds"]
_KEY = "stability_fit"
_THRESHOLDS = (0.6, 0.7, 0.8, 0.9, 1.0)
_UNSTABLE = 0.5


def stability(
    adata: "AnnData | MuData",
    method: str | Callable[..., Any] = "ridge",
    *,
    scheme: Scheme = "complementary_pairs",
    n: int = 25,
    n_top: int | None = None,
    options: Mapping[str, Any] | None = None,
    batch_key: str | None = None,
    network: str = "network",
    regulators: str | Sequence[str] | None = None,
    layer: str | None = None,
    seed: int | None = 0,
    mod: str | None = None,
    n_jobs: int | None = None,
    progress: bool | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> "AnnData | MuData | None":
    r"""Fit a method many times and say which edges it selects again: on halves of the cells, or with other seeds.

    Expects what the method expects, most often log-normalised expression. An edge is selected if it is among the
    `n_top` strongest.

    Parameters
    ----------
    adata
        Cells x genes; a MuData with ``mod``.
    method
        A name of :func:`sctrellis.tl.benchmark`, or a function of your own that takes the object first and writes a
        network to ``.varp[key_added]``; it is given what it has parameters for, as there.
    scheme
        ``"complementary_pairs"``: the cells are halved at random `n` times and both halves are fitted, with one seed.
        The two halves of a pair share no cell, so that their agreement is what new cells would show.
        ``"seeds"``: all cells, with `n` seeds. That is the noise of the method alone.
    n
        Pairs of halves, or seeds.
    n_top
        Edges to select in each fit; None is 1 % of the pairs that the method scores. Ties are broken by position, and
        pairs with score 0 are never selected.
    options
        Arguments of the method.
    batch_key
        Column of ``adata.obs`` with donors or batches: none of them is split, so that agreement is that of new donors.
        ``"complementary_pairs"`` only.
    network
        Key of ``adata.varp`` with known edges, for methods that learn from them.
    regulators
        Candidate regulators: None for ``adata.var["is_regulator"]``, the name of another Boolean column of
        ``adata.var``, ``"all"``, or gene names.
    layer
        Layer with the expression; None is ``adata.X``.
    seed
        Seed of halves and fits, in [0, 2**32); None draws one and records it.
    mod
        Modality to use where ``adata`` is a MuData.
    n_jobs
        Fits at once: None is ``settings.n_jobs``, -1 all cores. The result does not depend on it.
    progress
        Progress bar over fits; None follows ``settings.progress``.
    key_added
        Name of the slots; None is ``"stability"``.
    copy
        Return a copy with the result instead of writing to ``adata``.

    Returns
    -------
    `None`, or the copy if ``copy=True``. Sets:

    ``adata.varp[key_added + "_frequency"]`` : csr_matrix, float32, shape (n_vars, n_vars)
        Share of the fits that select the edge. Edges that none selects are absent.
    ``adata.uns[key_added]`` : dict
        Record of the run with

        ``agreement``
            One row per pair of fits that are compared, the two halves of a pair or each seed with the next: the
            ``jaccard`` index of the selected edges, what ``chance`` would give, and Spearman's ``correlation`` of the
            scores of the edges that both select.
        ``selected``
            For each ``threshold`` of the frequency the ``n_edges`` at or above it, and with ``"complementary_pairs"``
            the ``bound`` on those that half of the cells would rarely select, and the smaller ``bound_unimodal``, which
            assumes more (NaN where it does not hold); see :func:`sctrellis.metrics.selection_bound`.
        ``fit``
            ``n_fits``, ``n_top``, ``n_pairs``, and the mean ``jaccard`` and ``chance``.
        ``words``
            What follows, with ``UNSTABLE`` where fits share less than half of what they select.

    Raises
    ------
    KeyError
        If a layer, column, modality or the known network is missing.
    ValueError
        If there are too few cells or batches to halve, the method selects nothing, and on unknown names.

    Notes
    -----
    Stable is not true: a method that is wrong in the same way each time is perfectly stable. Unstable is not useful,
    though: which edges such a list holds is chance. Half of the cells carry less than all, so that frequencies are on
    the low side.

    References
    ----------
    :cite:p:`meinshausen2010`, :cite:p:`shah2013`.

    Examples
    --------
    >>> import sctrellis as tr
    >>> adata = tr.datasets.simulate_grn(200, 60, 12, density=0.1)
    >>> tr.tl.stability(adata, "pearson", n=5)
    >>> agreement = tr.get.record(adata, "stability")["agreement"]
    >>> bool((agreement["jaccard"] > agreement["chance"]).all())
    True
    """
    from joblib import Parallel, delayed

    values = locals()
    checks.choice("scheme", scheme, get_args(Scheme))
    n, seed, workers = checks.integer("n", n, minimum=2), checks.seed(seed), checks.n_jobs(n_jobs)
    n_top = None if n_top is None else checks.integer("n_top", n_top)
    slot = Keys.for_method("stability", key_added)
    root, ad = slots.target(adata, copy=copy, mod=mod)
    if batch_key is not None and scheme == "seeds":
        msg = f"`batch_key={batch_key!r}` says how cells are halved, and `scheme='seeds'` halves none. Leave it out."
        raise ValueError(msg)
    name = method if isinstance(method, str) else getattr(method, "__name__", type(method).__name__)
    spec = (method, dict(options or {}))
    plan = runs.plan(name, None if isinstance(method, str) and not options else spec, network=network, embedding=None)
    common = runs.Common(network, "", 0, 0, (), regulators, layer)
    parts: list[Any] = [None] * n if scheme == "seeds" else _halves(ad, n, batch_key, seed)
    seeds = [seed + i for i in range(n)] if scheme == "seeds" else [seed] * len(parts)
    base = runs.part(ad, common, [] if plan.embedding is None else [plan.embedding])
    jobs = Parallel(n_jobs=workers, return_as="generator")(
        delayed(_selected)(base, plan, common, cells, own, n_top) for cells, own in zip(parts, seeds, strict=True)
    )
    found: list[tuple[np.ndarray, np.ndarray, int]] = []
    with logs.progress_bar(len(parts), "stability", progress=progress, unit="fit") as bar:
        for fit in jobs:
            found.append(fit)
            bar.update()
    n_pairs = max(pairs for _, _, pairs in found)
    size = max(len(edges) for edges, _, _ in found)
    if size == 0:
        msg = f"`method`: {name!r} gives every edge the score 0, so that none can be selected. Use more cells."
        raise ValueError(msg)
    edges, counts = np.unique(np.concatenate([edges for edges, _, _ in found]), return_counts=True)
    frequency = counts / len(found)
    agreement = _agreement(found, scheme, n_pairs)
    table = _table(frequency, scheme, size, n_pairs, len(found))
    jaccard, chance = float(agreement["jaccard"].mean()), float(agreement["chance"].mean())
    what = "halves of the cells" if scheme == "complementary_pairs" else "seeds"
    words = (
        f"{name}: two {what} share {jaccard:.0%} of the {size:,} strongest edges that they select between them (by "
        f"chance {chance:.1%})."
    )
    if jaccard < _UNSTABLE:
        words = f"UNSTABLE: {words} Which edges such a list holds is for the most part chance."
    matrix = sparse.csr_matrix(
        (frequency.astype(np.float32), np.divmod(edges, ad.n_vars)), shape=(ad.n_vars, ad.n_vars)
    )
    place = f"{slot.record}_frequency"
    entry = record.build(
        "stability",
        ad,
        params={**record.arguments(stability, values), "method": name, "options": str(dict(options or {}))},
        seed=seed,
        slots={"frequency": f"varp/{place}"},
        layer=layer,
        fit={"n_fits": len(found), "n_top": size, "n_pairs": n_pairs, "jaccard": jaccard, "chance": chance},
        extra={"agreement": agreement, "selected": table, "words": words},
    )
    logs.logger.info("%s", words)
    logs.added(slots.write(ad, varp={place: matrix}, uns={slot.record: entry}))
    return root if copy else None


def _halves(ad: Any, n: int, batch_key: str | None, seed: int) -> list[np.ndarray]:
    """Return the cells of ``2 n`` halves, one after the other the two of a pair."""
    if batch_key is None:
        unit = np.arange(ad.n_obs)
    else:
        checks.has_slot("batch_key", batch_key, ad.obs.columns, "adata.obs")
        column = ad.obs[batch_key]
        if column.isna().any():
            n_without = int(column.isna().sum())
            msg = f"`batch_key`: {batch_key!r} has no value for {n_without} cells. Fill it, or leave them out."
            raise ValueError(msg)
        unit = pd.factorize(column)[0]
    n_units = int(unit.max()) + 1
    if batch_key is not None and n_units < 2:
        msg = f"`batch_key`: {batch_key!r} has one value only, and is not split. Leave it out."
        raise ValueError(msg)
    made = []
    for i in range(n):
        order = np.random.default_rng([seed, i]).permutation(n_units)
        first = np.isin(unit, order[: n_units // 2])
        # An odd one is left out, so that both halves are of one size.
        second = np.isin(unit, order[n_units // 2 : 2 * (n_units // 2)])
        made += [np.flatnonzero(first), np.flatnonzero(second)]
    least = min(map(len, made))
    if least < checks.MIN_CELLS:
        msg = f"Half of the cells are {least}: a fit needs {checks.MIN_CELLS}. Use more cells, or `scheme='seeds'`."
        raise ValueError(msg)
    return made


def _selected(
    ad: Any, plan: runs.Plan, common: runs.Common, cells: np.ndarray | None, seed: int, n_top: int | None
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the strongest edges of a fit (row x number of genes + column), their scores, and how many have a score."""
    part = ad.copy() if cells is None else ad[cells].copy()
    given = runs.arguments_of(inspect.signature(plan.function).parameters, seed, common)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plan.function(part, **{**given, **plan.options, "key_added": _KEY})
    scores = slots.read_scores(part, _KEY).tocsr()
    row = np.repeat(np.arange(scores.shape[0]), np.diff(scores.indptr))
    keep = (row != scores.indices) & np.isfinite(scores.data)
    edges = row[keep].astype(np.int64) * scores.shape[1] + scores.indices[keep]
    strength = scores.data[keep]
    wanted = max(1, len(edges) // 100) if n_top is None else n_top
    order = np.argsort(-strength, kind="stable")[:wanted]
    order = order[strength[order] > 0]
    return edges[order], strength[order], len(edges)


def _agreement(found: list[tuple[np.ndarray, np.ndarray, int]], scheme: str, n_pairs: int) -> pd.DataFrame:
    step = 2 if scheme == "complementary_pairs" else 1
    lines = []
    for i in range(0, len(found) - 1, step):
        (one, first, _), (other, second, _) = found[i], found[i + 1]
        both, at, there = np.intersect1d(one, other, return_indices=True)
        union = len(one) + len(other) - len(both)
        expected = len(one) * len(other) / n_pairs
        varies = len(both) > 2 and np.ptp(first[at]) > 0 and np.ptp(second[there]) > 0
        lines.append(
            {
                "first": i,
                "second": i + 1,
                "jaccard": len(both) / union if union else np.nan,
                "chance": expected / (len(one) + len(other) - expected) if union else np.nan,
                "correlation": stats.spearmanr(first[at], second[there]).statistic if varies else np.nan,
            }
        )
    return pd.DataFrame(lines)


def _table(frequency: np.ndarray, scheme: str, n_top: int, n_pairs: int, n_fits: int) -> pd.DataFrame:
    lines = []
    for threshold in _THRESHOLDS:
        line = {"threshold": threshold, "n_edges": int((frequency >= threshold - 1e-9).sum())}
        if scheme == "complementary_pairs":
            line["bound"] = selection_bound(threshold, n_top, n_pairs, n_halves=n_fits)
            try:
                line["bound_unimodal"] = selection_bound(threshold, n_top, n_pairs, n_halves=n_fits, unimodal=True)
            except ValueError:
                line["bound_unimodal"] = np.nan
        lines.append(line)
    return pd.DataFrame(lines)
