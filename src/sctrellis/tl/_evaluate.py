import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
from scipy import sparse

from sctrellis._core import checks, logs, record, slots
from sctrellis._core import universe as universes
from sctrellis._core.keys import REGULATORS, Keys
from sctrellis._core.universe import Universe
from sctrellis.metrics import bootstrap
from sctrellis.metrics._precision_recall_curve import curve_table
from sctrellis.metrics._ranking import Conventions
from sctrellis.metrics._ranking_table import tabulate
from sctrellis.tl._baseline_scores import BASELINES, Baseline, baseline_scores

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

Metric = Literal[
    "auroc", "auprc", "auprc_ratio", "early_precision", "early_precision_ratio", "hit_rate", "hit_rate_ratio"
]
_FOLDS = {"train": 1, "validation": 2, "test": 3}
_CLASSES = {"SS": 1, "SU": 2, "US": 3, "UU": 4}
_CONVENTIONS: dict[str | None, dict[str, Any]] = {
    None: {"interp": "step", "ties": "expected"},
    "beeline": {"interp": "trapezoid", "ties": "beeline"},
    "deepsem": {"interp": "step", "ties": "deepsem"},
}
_MIN_POSITIVE = 5


def evaluate(
    adata: "AnnData | MuData",
    keys: str | Sequence[str],
    *,
    network: str = "network",
    fold: Literal["train", "validation", "test", "all"] | None = "test",
    pair_class: Literal["SS", "SU", "US", "UU"] | None = None,
    universe: Universe = "beeline_tf",
    regulators: str | Sequence[str] | None = None,
    baselines: Sequence[Baseline] = ("random", "degree", "pearson", "ridge"),
    metrics: Sequence[Metric] = ("auroc", "auprc", "auprc_ratio", "early_precision_ratio", "hit_rate"),
    missing: Literal["error", "lowest"] = "error",
    compat: Literal["beeline", "deepsem"] | None = None,
    n_boot: int = 500,
    seed: int | None = 0,
    layer: str | None = None,
    mod: str | None = None,
    n_jobs: int | None = None,
    progress: bool | None = None,
    key_added: str | None = None,
) -> pd.DataFrame:
    r"""Judge inferred networks against known edges, beside the baselines that they must beat.

    Scores are compared by absolute value. The baselines expect log-normalised expression; the networks in `keys` are
    taken as they are stored.

    Parameters
    ----------
    adata
        Cells x genes, with the inferred and the known networks in ``.varp``; a MuData with ``mod``.
    keys
        One or more inferred networks: keys of ``adata.varp``.
    network
        Key of ``adata.varp`` with known edges, as :func:`sctrellis.pp.network` writes it.
    fold
        Pairs to judge on: a fold of :func:`sctrellis.pp.split_edges`, or ``"all"`` (or None) for the whole universe.
        Without stored folds ``"test"`` takes the whole universe, and raises if a network in `keys` was fitted with
        these labels.
    pair_class
        Pairs to judge on within the fold, after a split with ``scheme="infosem"``: ``"SS"`` both genes seen in
        training, ``"SU"`` an unseen target, ``"US"`` an unseen regulator, ``"UU"`` both unseen. None takes every pair
        of the fold, a mixture that depends on how many pairs each class has: name a class to compare methods.
    universe
        Candidate pairs: ``"beeline_tf"`` (regulators with a known edge x genes with a known edge), ``"beeline_all"``
        (all ordered pairs of genes with a known edge), ``"listed"`` (candidate regulators x all genes) or
        ``"labelled"`` (pairs stored in `network`, for networks with known non-edges). Never self pairs.
    regulators
        Candidate regulators, of ``"listed"`` and of the baselines: None for ``adata.var["is_regulator"]``, the name of
        another Boolean column of ``adata.var``, ``"all"``, or gene names.
    baselines
        Methods of :func:`sctrellis.tl.baseline` to fit and judge as well; those already in `keys` are not repeated.
    metrics
        Names among ``"auroc"``, ``"auprc"``, ``"auprc_ratio"``, ``"early_precision"``, ``"early_precision_ratio"``,
        ``"hit_rate"`` (precision in the top 1 %) and ``"hit_rate_ratio"``.
    missing
        What to do with candidate pairs that a network does not score: ``"error"``, or ``"lowest"`` to rank them last
        together. A baseline's unscored pairs, those of constant genes, are always ranked last.
    compat
        Conventions of area and early precision: None for exact handling of tied scores, ``"beeline"`` or
        ``"deepsem"`` to compare with published numbers; see :func:`sctrellis.metrics.average_precision` and
        :func:`sctrellis.metrics.early_precision`.
    n_boot
        Replicates of the two-way bootstrap; 0 leaves its limits NaN.
    seed
        Seed of baselines and bootstrap, in [0, 2**32); None draws one and records it.
    layer
        Layer with the expression; None is ``adata.X``. Read by the baselines only.
    mod
        Modality to use where ``adata`` is a MuData.
    n_jobs
        Workers of the baselines: None is ``settings.n_jobs``, -1 all cores. The result does not depend on it.
    progress
        Progress bar of the baselines; None follows ``settings.progress``.
    key_added
        Key of ``adata.uns`` for the table and its record; None is ``"evaluate"``.

    Returns
    -------
    DataFrame
        One row per network, metric and level, also stored in ``adata.uns[key_added]["table"]``. Columns:

        ``key``, ``kind``
            Network, and whether it is a ``"method"`` or a ``"baseline"``.
        ``metric``, ``level``
            What is measured, over all pairs (``"micro"``) or as the mean within each ``"regulator"`` or ``"target"``
            that has at least 5 positive and 5 negative pairs.
        ``value``, ``low``, ``high``, ``ceiling``
            The number, its 95 % interval, and what a perfect ranking would get (NaN where it differs by group).
        ``base``, ``n_pairs``, ``n_positive``, ``n_regulators``, ``fold``, ``pair_class``
            Share of positive pairs (the precision of random scores), and what was judged on.
        ``scored``, ``coverage``, ``note``
            Share of the pairs that the network scores, share of regulators (or targets) in the mean, and why an
            interval is missing.

    ``adata.uns[key_added]`` : dict
        Record of the run with ``table``; ``differences`` (``key`` less ``baseline`` for each metric over all pairs,
        with the interval of the difference on the same replicates); ``curves`` (``key``, ``kind``, ``recall``,
        ``precision``: some 300 points of each precision-recall curve, for drawing); and ``universe_sha256``,
        ``labels_sha256`` and ``scores_sha256``, equal where two evaluations saw equal pairs, labels and scores,
        whatever the order of genes.

    Raises
    ------
    KeyError
        If a network, layer, column or modality is missing, or `fold` or `pair_class` is asked for and the split that
        stores it was not made.
    ValueError
        If a network in `keys` was fitted with labels that it would be judged on, leaves candidate pairs unscored
        (``missing="error"``), or scores regulators only (``"beeline_all"``); if the pairs hold no known edge or
        nothing else; and on unknown names.

    Notes
    -----
    Pairs without a known edge count as negatives, as in BEELINE; known non-edges do so rightly, the others because
    nothing better is known. Micro intervals resample regulators and targets at once, with the same draws for every
    network (:func:`sctrellis.metrics.bootstrap`); those of the averages are Student's. A network that was fitted with
    labels of `network` says so in its record (``labels_used``): judged on ``"train"`` it warns, on ``"all"`` or
    without folds it raises. ``"degree"`` counts train edges only and is left out where there are no folds.

    Cost: one sort per network and O(`n_boot` x pairs): about a second for 25,000 pairs and four networks.

    References
    ----------
    Pratapa et al., Nature Methods 17 (2020), for the universe of pairs and early precision. Owen, Annals of Applied
    Statistics 1 (2007), for the bootstrap.

    Examples
    --------
    >>> import anndata as ad, numpy as np, sctrellis as tr
    >>> rng = np.random.default_rng(0)
    >>> x = rng.gamma(2.0, size=(60, 30))
    >>> x[:, 15:] += 2 * x[:, np.arange(15)]
    >>> adata = ad.AnnData(x.astype("float32"))
    >>> known = np.zeros((30, 30), dtype="float32")
    >>> known[np.arange(15), np.arange(15, 30)] = 1
    >>> adata.varp["network"] = known
    >>> tr.tl.baseline(adata, "pearson", regulators="all")
    >>> table = tr.tl.evaluate(adata, "pearson", baselines=["random"], metrics=["auroc"], n_boot=50)
    >>> table.query("key == 'pearson' and level == 'micro'")["value"].round(2).item()
    1.0
    """
    values = locals()
    keys = _names("keys", keys)
    metrics, baselines = _choices("metrics", metrics, get_args(Metric)), _choices("baselines", baselines, BASELINES)
    judged: str = "all" if fold is None else checks.choice("fold", fold, (*_FOLDS, "all"))
    if pair_class is not None:
        checks.choice("pair_class", pair_class, tuple(_CLASSES))
    checks.choice("universe", universe, universes.UNIVERSES)
    checks.choice("missing", missing, ("error", "lowest"))
    checks.choice("compat", compat, tuple(_CONVENTIONS))
    n_boot, seed, workers = checks.integer("n_boot", n_boot, minimum=0), checks.seed(seed), checks.n_jobs(n_jobs)
    slot = Keys.for_method("evaluate", key_added)
    _, ad = slots.target(adata, mod=mod)

    known, folds = slots.read_network(ad, network), slots.read_folds(ad, network)
    stored = {key: slots.read_scores(ad, key, argument="keys") for key in keys}
    records = {key: ad.uns[key] for key in keys if isinstance(ad.uns.get(key), Mapping)}
    if network in keys:
        msg = f"`keys`: {network!r} is the known network itself. Name the networks to judge against it."
        raise ValueError(msg)
    judged = _guard(judged, network, folds, {key: entry for key, entry in records.items() if _saw(entry, network)})
    candidates = None
    if regulators is not None or universe == "listed" or REGULATORS in ad.var:
        candidates = slots.read_regulators(ad, regulators)
    pairs = universes.pairs(known, candidates, universe)
    if judged != "all":
        pairs = _in_fold(pairs, folds, judged)
    if pair_class is not None:
        pairs = _in_class(pairs, ad, network, pair_class)
    row, column = _positions(pairs)
    labels = slots.values_at(known, row, column) > 0
    _check_labels(labels, network, judged, universe, pair_class)

    unscored = 0.0 if compat == "beeline" else -np.inf
    scores, scored = {}, {}
    for key in keys:
        found = slots.values_at(stored[key], row, column)
        n_bad = int((~np.isfinite(stored[key].data)).sum())
        if n_bad:
            msg = f"`keys`: {key!r} has {n_bad:,} NaN or infinite scores. Infer it again, or leave such pairs out."
            raise ValueError(msg)
        if universe == "beeline_all":
            _check_rows(key, stored[key], row)
        _check_scores(key, found, row, column, ad.var_names, missing)
        scored[key] = float(1 - np.isnan(found).mean())
        scores[key] = np.where(np.isnan(found), unscored, found)
    present = {*keys, *(entry.get("method") for entry in records.values())}
    wanted = [name for name in baselines if name not in present]
    if "degree" in wanted and (folds is None or judged == "all"):
        wanted.remove("degree")
        logs.logger.info("the baseline 'degree' counts train edges: left out without a fold to judge on")
    if wanted:
        mask = np.zeros(ad.n_vars, dtype=bool) if candidates is None else candidates.copy()
        mask[row] = True
        place = np.cumsum(mask) - 1
        rows = slots.read_matrix(ad, layer)
        for name in wanted:
            matrix = baseline_scores(
                name, rows, mask, network=known, folds=folds, seed=seed, n_jobs=workers, progress=progress
            )
            found = np.abs(matrix[place[row], column])
            scored[name] = float(1 - np.isnan(found).mean())
            scores[name] = np.where(np.isnan(found), unscored, found)

    read = Conventions(**_CONVENTIONS[compat])
    replicates = bootstrap(
        scores, labels, rows=row, columns=column, metrics=metrics, n_boot=n_boot, seed=seed, **_CONVENTIONS[compat]
    )
    table = tabulate(replicates, scores, labels, rows=row, columns=column, conventions=read)
    kinds = {key: "baseline" if records.get(key, {}).get("method") in BASELINES else "method" for key in keys}
    curves = curve_table(scores, labels)
    for part in (table, curves):
        part.insert(1, "kind", [kinds.get(key, "baseline") for key in part["key"]])
    table["scored"] = table["key"].map(scored)
    table["fold"] = judged
    table["pair_class"] = pair_class or "all"
    gains = [replicates.difference(key, name).assign(key=key, baseline=name) for key in keys for name in wanted]
    columns = ["key", "baseline", "metric", "value", "low", "high"]
    differences = pd.concat(gains, ignore_index=True)[columns] if gains else pd.DataFrame(columns=columns, dtype=float)
    entry = record.build(
        "evaluate",
        ad,
        params=_storable(record.arguments(evaluate, values)),
        seed=seed,
        slots={"table": f"uns/{slot.record}/table", "curves": f"uns/{slot.record}/curves"},
        layer=layer,
        extra={
            "table": table,
            "curves": curves,
            "differences": differences,
            **_hashes(ad.var_names, row, column, labels, scores),
        },
    )
    logs.added(slots.write(ad, uns={slot.record: entry}))
    return table


def _names(argument: str, names: str | Sequence[str]) -> list[str]:
    listed = [names] if isinstance(names, str) else list(names)
    if not listed or len(set(listed)) < len(listed):
        msg = f"Expected `{argument}` to hold at least one name, each once; found {listed!r}."
        raise ValueError(msg)
    return listed


def _choices(argument: str, chosen: str | Sequence[str], options: Sequence[str]) -> list[Any]:
    listed = [chosen] if isinstance(chosen, str) else list(chosen)
    for value in listed:
        checks.choice(argument, value, options)
    return list(dict.fromkeys(listed)) if argument == "baselines" else _names(argument, listed)


def _saw(entry: Mapping[str, Any], network: str) -> bool:
    used = entry.get("labels_used")
    return used is not None and network in ([used] if isinstance(used, str) else [str(u) for u in used])


def _guard(fold: str, network: str, folds: sparse.csr_matrix | None, saw: Mapping[str, Any]) -> str:
    """Return the fold to judge on; raise or warn where pairs to judge on were used in a fit."""
    names = ", ".join(map(repr, saw))
    if folds is None and fold in ("train", "validation"):
        checks.has_slot(
            "fold",
            Keys(network).fold,
            [],
            "adata.varp",
            f"`fold={fold!r}` needs folds: run `sctrellis.pp.split_edges(adata, {network!r})` before fitting.",
        )
    if saw and (folds is None or fold == "all"):
        msg = f"`keys`: {names} was fitted with labels of {network!r}, and would be judged on labels that it has seen. "
        msg += (
            f"Run `sctrellis.pp.split_edges(adata, {network!r})`, fit again, and evaluate with `fold='test'`."
            if folds is None
            else "Use `fold='test'`."
        )
        raise ValueError(msg)
    if saw and fold == "train":
        checks.warn(f"{names} was fitted with the labels of fold 'train': these numbers describe the fit, no more.")
    if folds is None and fold == "test":
        logs.logger.info("no folds are stored for %r: judging on all of its candidate pairs", network)
        return "all"
    return fold


def _in_fold(pairs: sparse.csr_matrix, folds: sparse.csr_matrix | None, fold: str) -> sparse.csr_matrix:
    chosen = sparse.csr_matrix(folds == _FOLDS[fold])
    inside = pairs.multiply(chosen).tocsr()
    if inside.nnz < chosen.nnz:
        outside = chosen.nnz - inside.nnz
        logs.logger.info("%d of %d pairs of fold %r lie outside the universe", outside, chosen.nnz, fold)
    return inside


def _in_class(pairs: sparse.csr_matrix, adata: Any, network: str, pair_class: str) -> sparse.csr_matrix:
    key = Keys(network).stage("class")
    remedy = f"Run `sctrellis.pp.split_edges(adata, {network!r}, scheme='infosem')`: other schemes have no classes."
    # Splitting again with another scheme leaves an empty matrix.
    stored = [name for name in adata.varp if name != key or adata.varp[name].nnz]
    checks.has_slot("pair_class", key, stored, "adata.varp", remedy)
    classes = slots.read_network(adata, key, argument="pair_class")
    return pairs.multiply(sparse.csr_matrix(classes == _CLASSES[pair_class])).tocsr()


def _positions(pairs: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    pairs.sort_indices()
    coo = pairs.tocoo()
    return coo.row[coo.data], coo.col[coo.data]


def _check_labels(labels: np.ndarray, network: str, fold: str, universe: str, pair_class: str | None) -> None:
    n_positive, where = int(labels.sum()), "" if fold == "all" else f" in fold {fold!r}"
    where += "" if pair_class is None else f" of class {pair_class!r}"
    if n_positive == 0:
        msg = (
            f"`network`: {network!r} has no known edge among the {len(labels):,} pairs of `universe={universe!r}`"
            f"{where}: nothing can be found. Choose another `fold`, or split again with a larger test part."
        )
        raise ValueError(msg)
    if n_positive == len(labels):
        msg = (
            f"`network`: all {n_positive:,} pairs of `universe={universe!r}`{where} are known edges, so no ranking is "
            "better than another. Choose another `universe`, as `'beeline_tf'`."
        )
        raise ValueError(msg)
    if n_positive < _MIN_POSITIVE:
        checks.warn(f"Only {n_positive} known edges of {network!r} are judged on{where}: the numbers mean little.")


def _check_rows(key: str, network: sparse.csr_matrix, row: np.ndarray) -> None:
    # Constant genes are scored neither as regulator nor as target; a gene scored only as target never could regulate.
    never = np.setdiff1d(np.intersect1d(row, network.indices), np.flatnonzero(np.diff(network.indptr)))
    if len(never):
        msg = (
            f"`universe='beeline_all'`: {key!r} scores {len(never):,} of the {len(np.unique(row)):,} genes as targets "
            "only. Ranking all their outgoing pairs last would make even random scores look good: use "
            "`universe='beeline_tf'`, or infer the network with `regulators='all'`."
        )
        raise ValueError(msg)


def _check_scores(
    key: str, found: np.ndarray, row: np.ndarray, column: np.ndarray, genes: pd.Index, missing: str
) -> None:
    absent = np.flatnonzero(np.isnan(found))
    if len(absent) == len(found) or (len(absent) and missing == "error"):
        first = f"{genes[row[absent[0]]]!r} to {genes[column[absent[0]]]!r}"
        msg = f"`keys`: {key!r} has no score for {len(absent):,} of the {len(found):,} pairs, such as {first}. "
        msg += (
            "It has none at all: do its regulators have known edges?"
            if len(absent) == len(found)
            else "Pass `missing='lowest'` to rank them last, or infer it for these regulators and genes too."
        )
        raise ValueError(msg)
    if not len(absent) and found.min() == found.max():
        checks.warn(f"{key!r} gives all {len(found):,} pairs the same score, {found[0]:g}: it ranks nothing.")


def _storable(params: dict[str, Any]) -> dict[str, Any]:
    listed = ("keys", "metrics", "baselines", "regulators")
    return {k: list(v) if k in listed and v is not None and not isinstance(v, str) else v for k, v in params.items()}


def _hashes(
    genes: pd.Index, row: np.ndarray, column: np.ndarray, labels: np.ndarray, scores: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    # By the rank of the names, so that the order of genes in the object does not matter.
    involved = np.union1d(row, column)
    rank = np.zeros(len(genes), dtype=np.int64)
    names = np.asarray(genes[involved], dtype=str)
    rank[involved[np.argsort(names)]] = np.arange(len(involved))
    code = rank[row] * len(involved) + rank[column]
    order = np.argsort(code)

    def digest(*parts: bytes) -> str:
        return hashlib.sha256(b"\0".join(parts)).hexdigest()

    return {
        "universe_sha256": digest("\n".join(np.sort(names)).encode(), code[order].astype("<i8").tobytes()),
        "labels_sha256": digest(labels[order].astype("u1").tobytes()),
        "scores_sha256": {key: digest(value[order].astype("<f4").tobytes()) for key, value in scores.items()},
    }
