from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from scipy import sparse

from sctrellis._core import checks, logs, record, slots
from sctrellis._core.keys import Keys
from sctrellis.metrics import auroc, calibration_table, fit_calibrator, label_bounds, reliability_curve
from sctrellis.metrics._calibrators import METHODS, SCALES, Calibrator, Scale
from sctrellis.tl._evaluate import _CLASSES, _FOLDS, _positions, _saw

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

_MIN_POSITIVE = 20


def calibrate(
    adata: "AnnData | MuData",
    key: str,
    *,
    network: str = "network",
    method: Literal["auto", "prior_shift", "temperature", "platt", "beta", "isotonic"] = "auto",
    fold: Literal["validation", "train"] = "validation",
    pair_class: Literal["SS", "SU", "US", "UU"] | None = None,
    scale: Scale | None = None,
    prevalence: float | None = None,
    completeness: float | None = None,
    n_bins: int = 15,
    n_boot: int = 500,
    seed: int | None = 0,
    mod: str | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> "AnnData | MuData | None":
    r"""Turn the scores of a network into probabilities, and say how far these can be trusted.

    A map that keeps the order of pairs is fitted to labels of a fold that the scores have not learnt from. The
    probability is that of a pair's being among the *known* edges. Expression is not read.

    Parameters
    ----------
    adata
        Cells x genes, with the network in ``.varp`` and the folds of :func:`sctrellis.pp.split_edges`; a MuData with
        ``mod``.
    key
        The inferred network: a key of ``adata.varp``.
    network
        Key of ``adata.varp`` with known edges and folds.
    method
        How scores become probabilities: ``"prior_shift"``, ``"temperature"``, ``"platt"``, ``"beta"`` or
        ``"isotonic"``, as :func:`sctrellis.metrics.fit_calibrator` defines them; ``"auto"`` takes the one with the
        smallest log-loss on regulators that were left out of its fit.
    fold
        Pairs to fit on. ``"train"`` is for scores that have seen no label.
    pair_class
        Pairs to fit and to report on within the fold, after a split with ``scheme="infosem"``: ``"SS"`` both genes seen
        in training, ``"SU"`` an unseen target, ``"US"`` an unseen regulator, ``"UU"`` both unseen. Choose the class of
        the pairs that the probabilities are for. None fits on all pairs of the fold and reports on test pairs of the
        classes found there.
    scale
        What the scores are: ``"probability"``, ``"log_odds"``, or ``"strength"``, any other number, read by its
        absolute value. None reads it from the record of the network, which says it where a method writes probabilities
        or log odds; it is never guessed from the numbers.
    prevalence
        Share of edges among the pairs that the probabilities are for, in (0, 1), where it differs from that of the
        fold. None takes them to be alike.
    completeness
        Share of the true edges that `network` holds, at least, in (0, 1]: what is known from elsewhere, not from the
        labels. With it an upper bound of the probability that a pair is an edge at all is stored too.
    n_bins
        Bins at most of calibration errors and reliability curves.
    n_boot
        Replicates of the two-way bootstrap; 0 leaves its limits NaN.
    seed
        Seed of bootstrap and cross-fitting, in [0, 2**32); None draws one and records it.
    mod
        Modality to use where ``adata`` is a MuData.
    key_added
        Name that the slots begin with; None is `key`.
    copy
        Return a copy with the result instead of writing to ``adata``.

    Returns
    -------
    `None`, or the copy if ``copy=True``. Sets:

    ``adata.varp[key_added + "_prob"]`` : csr_matrix, float32, shape (n_vars, n_vars)
        Probability of every scored pair. Replaces the probabilities that a method such as
        :func:`sctrellis.tl.regnet` wrote itself, and logs a warning; another `key_added` keeps both.
    ``adata.varp[key_added + "_prob_high"]`` : csr_matrix, float32, shape (n_vars, n_vars)
        With `completeness` only: the smaller of 1 and the probability divided by it.
    ``adata.uns[key_added + "_calibration"]`` : dict
        Record of the run with

        ``table``
            :func:`sctrellis.metrics.calibration_table` for each ``part`` (``"fit"``, and ``"test"``, which is reported
            and never chosen by) and ``stage``: ``"before"`` (not for strengths), ``"after"``, and ``"constant"``, the
            fit's share of edges for every pair. The metric ``"auroc"`` is added.
        ``curves``
            :func:`sctrellis.metrics.reliability_curve` of each part before and after.
        ``selection``
            With ``method="auto"``: cross-fitted log-loss of each method and of a constant, and which was ``chosen``.
        ``calibrator``
            ``method``, ``scale``, ``parameters``, and ``knots`` and ``values`` of ``"isotonic"``.
        ``fit``
            Counts of pairs and known edges, the share of edges in training where the record tells it, the classes that
            were fitted on, and pairs whose probability contradicts `completeness`.

    Raises
    ------
    KeyError
        If a network, its folds, the classes or a modality is missing.
    ValueError
        If `key` holds no scores of a network or they are of unknown scale, the fit has learnt from the fold, the fold
        has no known edge or nothing else, a score is NaN or outside its scale, or a method does not suit the scale.

    Warns
    -----
    UserWarning
        If the fold decided when training stopped, or has fewer than 20 known edges.

    Notes
    -----
    Probabilities hold for pairs like those of the fit: of the same class (seen or unseen genes), from the same
    candidate pairs, with the same share of edges. Those of training pairs are stored too, and are too extreme where
    the scores were fitted to them. `prevalence` moves log odds by
    :math:`\mathrm{logit}\,\pi_\text{deploy} - \mathrm{logit}\,\pi_\text{fold}`; the report is on the map before that
    move, since its pairs have the share that they have.

    Every map but ``"isotonic"`` is strictly increasing, so that rankings stay what they were, up to what float32 can
    tell apart close to 1.

    A fold that decided when training stopped is not quite unseen: the scores are those of the epoch that suits it best.
    A few numbers are chosen by it, where a fit chooses thousands, so that a warning is given and not an error; the test
    pairs are untouched either way.

    Cost: O(`n_boot` x pairs of fold and test), about two seconds for 10,000 pairs.

    References
    ----------
    :cite:p:`guo2017calibration`, :cite:p:`kull2017beta`, :cite:p:`saerens2002`, :cite:p:`elkan2008`.

    Examples
    --------
    >>> import sctrellis as tr
    >>> adata = tr.datasets.simulate_grn(60, 80, 20, density=0.2)
    >>> adata.varp["network"] = adata.varp["truth"]
    >>> tr.pp.split_edges(adata, val_frac=0.25)
    >>> tr.tl.edge_classifier(adata, "one_hot")
    >>> tr.tl.calibrate(adata, "one_hot", n_boot=50)
    >>> table = tr.get.record(adata, "one_hot_calibration")["table"]
    >>> sorted(set(table["stage"]))
    ['after', 'before', 'constant']
    """
    values = locals()
    checks.choice("method", method, ("auto", *METHODS))
    _check_fold(fold)
    if pair_class is not None:
        checks.choice("pair_class", pair_class, tuple(_CLASSES))
    if scale is not None:
        checks.choice("scale", scale, SCALES)
    if prevalence is not None:
        prevalence = checks.number("prevalence", prevalence, low=0, high=1, open_low=True, open_high=True)
    if completeness is not None:
        completeness = checks.number("completeness", completeness, low=0, high=1, open_low=True)
    n_bins, n_boot, seed = (
        checks.integer("n_bins", n_bins),
        checks.integer("n_boot", n_boot, minimum=0),
        checks.seed(seed),
    )
    keys = Keys.for_method(key, key_added)
    root, ad = slots.target(adata, copy=copy, mod=mod)
    known, scores = slots.read_network(ad, network), slots.read_network(ad, key, argument="key")
    entry = _scoring_record(ad, key, network)
    found_scale = _scale(entry, key, scale)
    folds = slots.read_folds(ad, network)
    if folds is None:
        remedy = f"Probabilities need held-out labels: run `sctrellis.pp.split_edges(adata, {network!r})` first."
        checks.has_slot("network", Keys(network).fold, [], "adata.varp", remedy)
        raise AssertionError  # pragma: no cover
    _check_leak(entry, key, network, fold)
    n_bad = int((~np.isfinite(scores.data)).sum())
    if n_bad:
        msg = f"`key`: {key!r} has {n_bad:,} NaN or infinite scores. Infer it again, or leave such pairs out."
        raise ValueError(msg)
    _check_range(scores.data, key, found_scale)
    if found_scale == "strength":
        scores = abs(scores)

    classes = _stored_classes(ad, network, pair_class)
    fitted = _Part.read(known, scores, folds, classes, fold, None if pair_class is None else [_CLASSES[pair_class]])
    _check_part(fitted, key, network, fold, pair_class)
    tested = _Part.read(known, scores, folds, classes, "test", fitted.classes)
    train_share = _train_share(entry)
    calibrator = fit_calibrator(
        fitted.score, fitted.label, method, scale=found_scale, rows=fitted.row, train_share=train_share, seed=seed
    )
    deployed = calibrator if prevalence is None else calibrator.shifted(fitted.share, prevalence)
    probability = sparse.csr_matrix(
        (deployed.probabilities(scores.data) if scores.nnz else scores.data, scores.indices, scores.indptr),
        shape=scores.shape,
    )

    parts = {"fit": fitted, **({"test": tested} if tested.usable else {})}
    if not tested.usable:
        logs.logger.info("%s: no test pairs of these classes with and without known edges: not reported", key)
    options = {"n_bins": n_bins, "n_boot": n_boot, "seed": seed}
    reports = {name: _report(part, calibrator, fitted.share, options) for name, part in parts.items()}
    table, curves = (
        pd.concat([pair[i].assign(part=name) for name, pair in reports.items()], ignore_index=True) for i in range(2)
    )
    varp: dict[str, Any] = {keys.stage("prob"): probability}
    places = {"probability": f"varp/{keys.stage('prob')}"}
    counts = {f"n_{what}_{name}": getattr(part, f"n_{what}") for name, part in parts.items() for what in _COUNTED}
    fit: dict[str, Any] = {**counts, "share": fitted.share, "train_share": train_share}
    fit["classes"] = [name for name, code in _CLASSES.items() if code in (fitted.classes or [])]
    # Bounds of an earlier call must not outlive its probabilities.
    if completeness is not None or keys.stage("prob_high") in ad.varp:
        varp[keys.stage("prob_high")], fit["n_above_completeness"] = _upper(probability, completeness)
        places["upper"] = f"varp/{keys.stage('prob_high')}"
    extra: dict[str, Any] = {
        "table": _first(table, "part", "stage"),
        "curves": _first(curves, "part", "stage"),
        "calibrator": {
            "method": calibrator.method,
            "scale": calibrator.scale,
            "parameters": dict(deployed.parameters),
            "knots": calibrator.knots,
            "values": calibrator.values,
        },
    }
    if len(calibrator.selection):
        extra["selection"] = calibrator.selection
    params = record.arguments(calibrate, values)
    built = record.build("calibrate", ad, params=params, seed=seed, slots=places, fit=fit, extra=extra)
    for name in parts:
        after = table[(table["part"] == name) & (table["stage"] == "after")].set_index("metric")["value"]
        logs.logger.info(
            "%s by %s, %s pairs: ECE %.3g, log-loss skill %.3g",
            key,
            calibrator.method,
            name,
            after["ece_mass"],
            after["nll_skill"],
        )
    prob = keys.stage("prob")
    # A method's own probabilities are named in its record; a second calibration only replaces the first.
    if prob in ad.varp and f"varp/{prob}" in map(str, entry.get("slots", {}).values()):
        logs.logger.warning(
            "varp[%r] held the probabilities that %s wrote; the calibrated ones replace them. `key_added` keeps both.",
            prob,
            entry.get("method"),
        )
    logs.added(slots.write(ad, varp=varp, uns={keys.stage("calibration"): built}))
    return root if copy else None


_COUNTED = ("pairs", "edges", "unscored")


class _Part:
    """The scored pairs of a fold with their labels."""

    def __init__(self, row: np.ndarray, column: np.ndarray, label: np.ndarray, score: np.ndarray) -> None:
        scored = ~np.isnan(score)
        self.row, self.column, self.label = row[scored], column[scored], label[scored]
        self.score = score[scored].astype(np.float64)
        self.n_unscored = int((~scored).sum())
        self.n_pairs, self.n_edges = len(self.label), int(self.label.sum())
        self.classes: list[int] | None = None

    @classmethod
    def read(
        cls,
        known: sparse.csr_matrix,
        scores: sparse.csr_matrix,
        folds: sparse.csr_matrix,
        classes: sparse.csr_matrix | None,
        fold: str,
        chosen: list[int] | None,
    ) -> "_Part":
        row, column = _positions(sparse.csr_matrix(folds == _FOLDS[fold]))
        kind = None if classes is None else slots.values_at(classes, row, column)
        if kind is not None and chosen is not None:
            inside = np.isin(kind, chosen)
            row, column, kind = row[inside], column[inside], kind[inside]
        part = cls(row, column, slots.values_at(known, row, column) > 0, slots.values_at(scores, row, column))
        part.classes = None if kind is None else sorted({int(k) for k in kind[np.isfinite(kind)]})
        return part

    @property
    def usable(self) -> bool:
        return 0 < self.n_edges < self.n_pairs

    @property
    def share(self) -> float:
        return self.n_edges / self.n_pairs


def _check_fold(fold: str) -> None:
    if fold == "test":
        msg = (
            "`fold='test'` would fit the probabilities on the pairs that they are reported on. Use `fold='validation'`."
        )
        raise ValueError(msg)
    checks.choice("fold", fold, ("validation", "train"))


def _scoring_record(ad: "AnnData", key: str, network: str) -> Mapping[str, Any]:
    """Return the record of the scores, empty where they have none; raise where they are no scores."""
    if key == network:
        msg = f"`key`: {key!r} is the known network itself. Name the network whose scores become probabilities."
        raise ValueError(msg)
    entry = ad.uns.get(key)
    if not isinstance(entry, Mapping) or "schema" not in entry:
        return {}
    places = entry.get("slots", {})
    if entry.get("method") == "network" or places.get("network") != f"varp/{key}":
        msg = (
            f"`key`: `adata.varp[{key!r}]` holds what {entry.get('method')!r} wrote, not scores. Name a network that a "
            "`sctrellis.tl` method has inferred."
        )
        raise ValueError(msg)
    return entry


def _scale(entry: Mapping[str, Any], key: str, scale: Scale | None) -> Scale:
    if scale is not None:
        return scale
    if not entry:
        msg = (
            f"`key`: {key!r} has no record in `adata.uns` that says what its scores are. Pass `scale='probability'`, "
            "`scale='log_odds'`, or `scale='strength'` for any other number."
        )
        raise ValueError(msg)
    return checks.choice(f"adata.uns[{key!r}]['score_scale']", str(entry.get("score_scale", "strength")), SCALES)


def _check_range(scores: np.ndarray, key: str, scale: Scale) -> None:
    if scale == "probability" and len(scores) and (scores.min() < 0 or scores.max() > 1):
        msg = (
            f"`scale='probability'`: {key!r} has scores from {scores.min():.4g} to {scores.max():.4g}. Pass "
            "`scale='log_odds'` if that is what they are, or `scale='strength'`."
        )
        raise ValueError(msg)


def _check_leak(entry: Mapping[str, Any], key: str, network: str, fold: str) -> None:
    if not _saw(entry, network):
        return
    used = [str(name) for name in entry.get("folds_used", ["train"])]
    learnt = {"train", *(["validation"] if entry.get("params", {}).get("fold") == "train_validation" else [])}
    if fold in learnt:
        remedy = (
            "Use `fold='validation'`."
            if "validation" not in learnt
            else "Fit it with `fold='train'`, so that validation is left to calibrate on."
        )
        msg = (
            f"`fold={fold!r}`: {key!r} has learnt from the labels of that fold, where its scores are too good. {remedy}"
        )
        raise ValueError(msg)
    if fold in used:
        checks.warn(
            f"Fold {fold!r} decided when the training of {key!r} stopped, so its scores suit that fold a little too "
            "well. Fit with `patience=None` to leave it untouched; the report on the test fold is not affected."
        )


def _stored_classes(ad: "AnnData", network: str, pair_class: str | None) -> sparse.csr_matrix | None:
    key = Keys(network).stage("class")
    # Splitting again with another scheme leaves an empty matrix.
    stored = [name for name in ad.varp if name != key or ad.varp[name].nnz]
    if pair_class is not None:
        remedy = f"Run `sctrellis.pp.split_edges(adata, {network!r}, scheme='infosem')`: other schemes have no classes."
        checks.has_slot("pair_class", key, stored, "adata.varp", remedy)
    return slots.read_network(ad, key) if key in stored else None


def _check_part(part: _Part, key: str, network: str, fold: str, pair_class: str | None) -> None:
    where = f"fold {fold!r}" + ("" if pair_class is None else f" of class {pair_class!r}")
    if part.n_pairs == 0:
        what = (
            "has no pairs" if not part.n_unscored else f"has {part.n_unscored:,} pairs, and {key!r} scores none of them"
        )
        remedy = "Split again with a larger `val_frac`" if not part.n_unscored else "Infer the network for these genes"
        hint = (
            ""
            if pair_class is None
            else " Validation pairs of `scheme='infosem'` are of class 'UU': for seen genes split with `scheme='edge'`."
        )
        msg = f"`fold`: {where} of {network!r} {what}. {remedy}.{hint}"
        raise ValueError(msg)
    if not part.usable:
        what = "no known edge" if part.n_edges == 0 else "nothing but known edges"
        msg = (
            f"`fold`: {where} of {network!r} has {what} among its {part.n_pairs:,} scored pairs: there is nothing to "
            "calibrate to. Split again with another `seed` or a larger `val_frac`."
        )
        raise ValueError(msg)
    if part.n_unscored:
        logs.logger.info("%s: %d pairs of fold %r have no score and are left out", key, part.n_unscored, fold)
    if part.n_edges < _MIN_POSITIVE:
        checks.warn(
            f"Only {part.n_edges} known edges of {network!r} are in {where}: the probabilities rest on little. Split "
            "again with a larger `val_frac`."
        )


def _train_share(entry: Mapping[str, Any]) -> float | None:
    """Return the share of edges among the pairs of the training, where the record tells it."""
    fit, params = entry.get("fit", {}), entry.get("params", {})
    n_pairs, n_edges = fit.get("n_train_pairs"), fit.get("n_train_edges")
    if not n_pairs or not n_edges or n_edges == n_pairs:
        return None
    # The count is of all pairs of the fold; those that are trained as drawn balance each regulator's edges.
    if params.get("negatives") == "balanced" and "history" in entry:
        return 0.5
    return float(n_edges) / float(n_pairs)


def _report(
    part: _Part, calibrator: Calibrator, share: float, options: Mapping[str, Any]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the table and the curves of one part."""
    ends = {"rows": part.row, "columns": part.column}
    stages = {"after": calibrator.probabilities(part.score), "constant": np.full(part.n_pairs, share)}
    ranked = {"after": calibrator.log_odds(part.score), "constant": stages["constant"]}
    if calibrator.scale != "strength":
        before = Calibrator(method="prior_shift", scale=calibrator.scale, parameters={"shift": 0.0})
        stages = {"before": before.probabilities(part.score), **stages}
        ranked["before"] = part.score
    table = calibration_table(stages, part.label, **ends, **options).rename(columns={"key": "stage"})
    shared = table.iloc[0][["base", "n_pairs", "n_positive"]].to_dict()
    areas = [
        {"stage": name, "metric": "auroc", "value": auroc(ranked[name], part.label), "ideal": 1.0, "note": "", **shared}
        for name in stages
    ]
    table = pd.concat([table, pd.DataFrame(areas, columns=table.columns).astype(table.dtypes)], ignore_index=True)
    curves = [
        reliability_curve(vector, part.label, **ends, **options).assign(stage=name)
        for name, vector in stages.items()
        if name != "constant"
    ]
    return table, pd.concat(curves, ignore_index=True)


def _upper(probability: sparse.csr_matrix, completeness: float | None) -> tuple[sparse.csr_matrix, int]:
    """Return the upper bounds, empty without a completeness, and how many probabilities contradict it."""
    if completeness is None or not probability.nnz:
        return sparse.csr_matrix(probability.shape, dtype=np.float32), 0
    _, high = label_bounds(np.clip(probability.data, 0, 1), completeness)
    above = int((probability.data > completeness).sum())
    bounds = sparse.csr_matrix((high, probability.indices, probability.indptr), shape=probability.shape)
    return bounds, above


def _first(table: pd.DataFrame, *names: str) -> pd.DataFrame:
    return table[[*names, *(c for c in table.columns if c not in names)]]
