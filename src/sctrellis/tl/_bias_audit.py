from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from scipy import sparse

from sctrellis._core import checks, logs, record, slots
from sctrellis._core.keys import Keys
from sctrellis.metrics import _bias
from sctrellis.tl._evaluate import _check_scores, _positions

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

_FOLDS = {"validation": 2, "test": 3}
_SEEN_SEEN = 1


def bias_audit(
    adata: "AnnData | MuData",
    key: str,
    *,
    network: str = "network",
    fold: Literal["validation", "test"] = "test",
    missing: Literal["error", "lowest"] = "error",
    n_boot: int = 500,
    seed: int | None = 0,
    mod: str | None = None,
    key_added: str | None = None,
) -> pd.DataFrame:
    r"""Say how much of a network's score is nothing but which regulator and which target a pair joins.

    A supervised model may score well on held-out pairs because it knows how many targets each regulator has. A logistic
    regression on the identity of regulator and target, fitted to the train fold without any expression, knows that and
    nothing else: what it reproduces of the model's score needs no biology. Reads no expression; scores are compared by
    absolute value, as in :func:`sctrellis.tl.evaluate`.

    Parameters
    ----------
    adata
        Object with the inferred and the known network in ``.varp`` and folds of :func:`sctrellis.pp.split_edges`; a
        MuData with ``mod``.
    key
        The inferred network: a key of ``adata.varp``.
    network
        Key of ``adata.varp`` with known edges. Identity and degrees are learned from its train fold.
    fold
        Pairs to judge on.
    missing
        What to do with pairs that the network does not score: ``"error"``, or ``"lowest"`` to rank them last together.
    n_boot
        Replicates of every bootstrap; 0 leaves limits NaN and the verdict undecided.
    seed
        Seed of bootstrap and cross-validation, in [0, 2**32); None draws one and records it.
    mod
        Modality to use where ``adata`` is a MuData.
    key_added
        Key of ``adata.uns`` for the tables and their record; None is ``"bias_audit"``.

    Returns
    -------
    DataFrame
        One row per class of pairs, metric and level, also stored in ``adata.uns[key_added]["table"]``. Each quantity
        has its 95 % interval in two columns more, ``_low`` and ``_high``. Columns:

        ``pair_class``
            ``"SS"`` both genes seen in training, ``"SU"`` only the regulator, ``"US"`` only the target, ``"UU"``
            neither; ``"all"`` for all pairs of the fold, where there are several classes.
        ``metric``, ``level``
            ``"auroc"``, ``"auprc"`` and ``"hit_rate"`` (precision in the top 1 %) over all pairs (``"micro"``);
            ``"auroc"`` also as the mean within each ``"regulator"`` and ``"target"``, and of what is left of the score
            without its means over regulators and targets (``"pair"``): what it says of a pair beyond its two genes.
        ``model``, ``one_hot``, ``degree``, ``chance``
            The network; the regression on identity; the log train degrees of both genes added; and a constant.
        ``over_chance``, ``over_one_hot``, ``over_degree``
            The network minus each of them, on the same replicates.
        ``bias_fraction``
            (one_hot - chance) / (model - chance): 1 where identity reproduces the whole score, above 1 where it is
            better than the model. NaN where the model cannot be told from chance.
        ``n_pairs``, ``n_positive``, ``n_regulators``, ``n_targets``, ``note``, ``verdict``
            What was judged on, why something is NaN, and the code of the verdict.

    ``adata.uns[key_added]`` : dict
        Record of the run with ``table``; ``verdict`` (``code`` and ``words``); ``incremental``, the cross-validated
        log-loss of regressions on one-hot logit, model and both, and the ``gain`` in log-loss (nats per pair) by adding
        the model; ``correlations``, rank correlations of the score with the degrees' sum of logs (``pairs``) and of its
        means over each regulator and target with their train degrees; ``regulators``, pairs and share of known edges of
        each regulator in train and in the fold; and ``imbalance``, how unequally edges are spread (Gini index and
        relative entropy of train degrees, share of the labels' variance that the train rates explain).

    Raises
    ------
    KeyError
        If a network, a modality or the folds are missing.
    ValueError
        If the train fold or the judged fold has no known edge or nothing else, pairs are not scored
        (``missing="error"``), a score is NaN, and on unknown names.

    Notes
    -----
    ``sctrellis.get.record(adata, key_added)["verdict"]`` has the verdict in words. It is decided by intervals, never by
    point values, with AUROC as the measure (its chance level does not depend on the share of known edges) and these
    *identity* features: the coefficients of regulator and target in the one-hot regression, their product, and both log
    degrees.

    ``B3``
        The gain survives: between unseen genes the interval of AUROC lies above 0.5, and so does that of the mean
        within regulators (where fewer than 10 regulators have enough pairs: of level ``"pair"``).
    ``B2``
        A part is more than identity: between unseen genes only one of these two is above chance (a gain only between or
        only within regulators); or, where unseen genes show no gain or were not judged, the model takes something off
        the log-loss beside the identity features on seen genes (interval above 0).
    ``B0``
        Neither, and the interval of model minus degree does not reach above 0: popularity does as well.
    ``B1``
        None of these: the model is not told from gene identity.
    ``undecided``
        Fewer than 10 regulators or targets, so there are no intervals to decide by.

    An ``"edge"`` split judges seen genes only, so the best verdict there is B2. With ``"both"`` all judged genes are
    unseen, and one-hot regression and degree are at chance by construction; ``"infosem"`` judges both, and the verdict
    uses the classes SS and UU. Classes are those that the split stored, else a gene is seen where it has train pairs in
    the same role.

    Intervals over all pairs resample regulators and targets at once (:func:`sctrellis.metrics.bootstrap`), those within
    regulators or targets are Student's, and those of gains in log-loss resample regulators. The regressions leave out
    fifths of the regulators in turn; scores in [0, 1] enter as log odds. Cost: O(`n_boot` x pairs), some seconds for
    25,000 pairs.

    References
    ----------
    InfoSEM: Proceedings of Machine Learning Research 267 (2025), arXiv 2503.04483, for one-hot regression as the
    measure of this bias.

    Examples
    --------
    >>> import sctrellis as tr
    >>> adata = tr.datasets.simulate_grn(60, 80, 20, density=0.2)
    >>> adata.varp["network"] = adata.varp["truth"]
    >>> tr.pp.split_edges(adata)
    >>> tr.tl.baseline(adata, "degree", network="network")
    >>> table = tr.tl.bias_audit(adata, "degree", n_boot=50)
    >>> tr.get.record(adata, "bias_audit")["verdict"]["code"]
    'B0'
    """
    values = locals()
    checks.choice("fold", fold, tuple(_FOLDS))
    checks.choice("missing", missing, ("error", "lowest"))
    n_boot, seed = checks.integer("n_boot", n_boot, minimum=0), checks.seed(seed)
    slot = Keys.for_method("bias_audit", key_added)
    _, ad = slots.target(adata, mod=mod)
    if key == network:
        msg = f"`key`: {key!r} is the known network itself. Name the network to judge against it."
        raise ValueError(msg)
    known, scores = slots.read_network(ad, network), slots.read_scores(ad, key)
    folds = slots.read_folds(ad, network)
    if folds is None:
        remedy = f"Identity is learned from the train fold: run `sctrellis.pp.split_edges(adata, {network!r})` first."
        checks.has_slot("network", Keys(network).fold, [], "adata.varp", remedy)
        raise AssertionError  # pragma: no cover
    n_bad = int((~np.isfinite(scores.data)).sum())
    if n_bad:
        msg = f"`key`: {key!r} has {n_bad:,} NaN or infinite scores. Infer it again, or leave such pairs out."
        raise ValueError(msg)
    train_row, train_column = _positions(sparse.csr_matrix(folds == 1))
    row, column = _positions(sparse.csr_matrix(folds == _FOLDS[fold]))
    train_label, label = (slots.values_at(known, r, c) > 0 for r, c in ((train_row, train_column), (row, column)))
    for name, found in (("train", train_label), (fold, label)):
        if not found.any() or found.all():
            what = "no known edge" if not found.any() else "known edges only"
            msg = f"`network`: fold {name!r} of {network!r} has {what} among its {len(found):,} pairs. Split it again."
            raise ValueError(msg)
    score = slots.values_at(scores, row, column)
    _check_scores(key, score, row, column, ad.var_names, missing)
    score[np.isnan(score)] = -np.inf

    kind = _classes(ad, network, (train_row, train_column), (row, column))
    pairs = _bias.Pairs(train_row, train_column, train_label, row, column, label, score, kind)
    result = _bias.audit(pairs, n_boot=n_boot, seed=seed)
    table = result.table.assign(fold=fold, verdict=result.code)
    regulators = result.regulators.assign(regulator=ad.var_names.to_numpy()[result.regulators["regulator"]])
    entry = record.build(
        "bias_audit",
        ad,
        params=record.arguments(bias_audit, values),
        seed=seed,
        slots={"table": f"uns/{slot.record}/table"},
        extra={
            "table": table,
            "verdict": {"code": result.code, "words": result.words},
            "incremental": result.incremental,
            "correlations": result.correlations,
            "regulators": regulators,
            "imbalance": result.imbalance,
        },
    )
    logs.logger.info("%s: %s %s", key, result.code, result.words)
    logs.added(slots.write(ad, uns={slot.record: entry}))
    return table


def _classes(
    ad: "AnnData", network: str, train: tuple[np.ndarray, np.ndarray], judged: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Return 1 to 4 (SS, SU, US, UU) for each judged pair."""
    keys = Keys(network)
    if keys.stage("class") in ad.varp:
        stored = slots.values_at(slots.read_network(ad, keys.stage("class")), *judged)
        if np.isfinite(stored).all() and (stored > 0).all():
            return stored.astype(np.int64)
    split = ad.uns.get(keys.fold)
    if isinstance(split, Mapping) and split.get("scheme") == "edge":
        return np.full(len(judged[0]), _SEEN_SEEN)
    unseen_row, unseen_column = (~np.isin(j, t) for j, t in zip(judged, train, strict=True))
    return _SEEN_SEEN + 2 * unseen_row + unseen_column
