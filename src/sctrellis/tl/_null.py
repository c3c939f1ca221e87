from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from sctrellis._core import checks, logs, record, slots
from sctrellis._core import universe as universes
from sctrellis._core.keys import Keys
from sctrellis._core.universe import Universe
from sctrellis.metrics import cells_null, null_test
from sctrellis.metrics._null_test import NULL_METRICS, NULLS, Null
from sctrellis.tl._evaluate import _FOLDS, _check_labels, _check_scores, _guard, _in_fold, _positions, _saw, _storable

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

NullMetric = Literal["auprc", "auroc", "early_precision", "hit_rate"]
Kind = Literal[Null, "cells"]


def null(
    adata: "AnnData | MuData",
    key: str,
    kind: Kind = "degree",
    *,
    network: str = "network",
    fold: Literal["train", "validation", "test", "all"] | None = "test",
    universe: Universe = "beeline_tf",
    regulators: str | Sequence[str] | None = None,
    metrics: Sequence[NullMetric] = ("auprc", "auroc", "hit_rate"),
    missing: Literal["error", "lowest"] = "error",
    n_perm: int = 1000,
    strata: str | None = None,
    layer: str | None = None,
    seed: int | None = 0,
    mod: str | None = None,
    n_jobs: int | None = None,
    key_added: str | None = None,
) -> pd.DataFrame:
    r"""Put a network beside random known edges that keep every gene's degree: is its score more than who is popular?

    A score that only knows which regulators have many known targets is far above chance. Random networks with the same
    degrees are found as well by such a score; what is above them is knowledge of pairs. Reads no expression, except for
    ``"cells"``; scores are compared as in :func:`sctrellis.tl.evaluate`.

    Parameters
    ----------
    adata
        Object with the inferred and the known network in ``.varp``; a MuData with ``mod``.
    key
        The inferred network: a key of ``adata.varp``.
    kind
        What random known edges keep: ``"degree"`` the number of edges of every regulator and of every target;
        ``"maxent"`` the same on average, with independent edges; ``"regulator"`` that of every regulator;
        ``"labels"`` that of the whole network only, for contrast. ``"cells"`` keeps the known edges and shuffles the
        cells of every target instead: a smoke test, whether genes have anything to do with each other.
    network
        Key of ``adata.varp`` with known edges, as :func:`sctrellis.pp.network` writes it.
    fold
        Pairs to judge on: a fold of :func:`sctrellis.pp.split_edges`, or ``"all"`` (or None) for the whole universe.
        Without stored folds ``"test"`` takes the whole universe, and raises if the network was fitted with these
        labels.
    universe
        Candidate pairs: ``"beeline_tf"`` (regulators with a known edge x genes with a known edge), ``"beeline_all"``
        (all ordered pairs of genes with a known edge), ``"listed"`` (candidate regulators x all genes) or
        ``"labelled"`` (pairs stored in `network`, for networks with known non-edges). Never self pairs.
    regulators
        Candidate regulators of ``"listed"``: None for ``adata.var["is_regulator"]``, the name of another Boolean column
        of ``adata.var``, ``"all"``, or gene names.
    metrics
        Names among ``"auprc"``, ``"auroc"``, ``"early_precision"`` and ``"hit_rate"`` (precision in the top 1 %).
    missing
        What to do with pairs that the network does not score: ``"error"``, or ``"lowest"`` to rank them last together.
    n_perm
        Random networks, or shuffles. The smallest p-value is 1 / (`n_perm` + 1).
    strata
        Column of ``adata.obs``, such as batch or time point, within whose values ``"cells"`` shuffles; None shuffles
        all cells.
    layer
        Layer with the expression; None is ``adata.X``. Read by ``"cells"`` only.
    seed
        Seed of the draws, in [0, 2**32); None draws one and records it.
    mod
        Modality to use where ``adata`` is a MuData.
    n_jobs
        Workers of ``"degree"``; None is ``settings.n_jobs``, -1 all cores. The result does not depend on them.
    key_added
        Key of ``adata.uns`` for the result; None is `key` with ``"_null"`` behind it, with ``"_null_cells"`` for
        ``"cells"``.

    Returns
    -------
    DataFrame
        One row per metric, also stored in ``adata.uns[key_added]["table"]``. Columns:

        ``metric``, ``observed``, ``chance``
            The number, and what random scores get: the share of known edges, 0.5 for AUROC.
        ``null_mean``, ``null_sd``, ``null_low``, ``null_median``, ``null_high``
            The same metric over the random networks: mean, standard deviation and quantiles 0.025, 0.5 and 0.975.
        ``z``, ``p``
            Standard deviations above the null (NaN where it does not vary), and the share of networks, the known one
            included, on which the score does as well: one-sided.
        ``ratio_to_null``, ``ratio_to_chance``
            The number divided by the null's mean, and by chance.
        ``identity``
            The metric of the degrees themselves, fitted to the known edges: what a score can reach that knows who has
            how many edges and nothing else. Not of ``"cells"``.
        ``n_pairs``, ``n_positive``, ``fold``
            What was judged on.

    ``adata.uns[key_added]`` : dict
        Record of the run with ``table``; ``replicates``, one column per metric and one row per random network;
        ``words``, what follows for the first metric; and ``mixing`` (of ``"degree"``): ``n_rounds`` of trades between
        two networks, the ``overlap`` with the known network that is left, its standard error ``overlap_se``, the
        ``overlap_expected`` of independent networks, and whether they are ``mixed``. Of ``"cells"``, ``shuffled`` says
        which share of the pairs is more correlated than 95 % are in shuffled cells (``share_beyond``; ``null_q95``,
        ``median_correlation``).

    Raises
    ------
    KeyError
        If a network, modality, layer, column or fold is missing.
    ValueError
        If `strata` or `layer` is named and `kind` is not ``"cells"``, the network was fitted with labels that it would
        be judged on, pairs are not scored (``missing="error"``), a score is NaN, the pairs hold no known edge or
        nothing else, a single regulator or target is left (``kind="degree"``), and on unknown names.

    Notes
    -----
    See :func:`sctrellis.metrics.null_test` for the definitions and :func:`sctrellis.metrics.degree_null` for how
    networks are drawn, how long the chains run and why the p-values are valid. In a fold the degrees are those of the
    fold, and only its pairs trade places, so that what was learned from the train fold stays as it is.

    ``"cells"`` (:func:`sctrellis.metrics.cells_null`) judges the whole network only, and correlation stands in for the
    method in shuffled cells. Nothing makes p- or q-values of single edges of it: nearly every pair of genes is
    correlated, so it would call nearly all of them edges. :func:`sctrellis.tl.audit` does not take it for a null.

    Cost: 4 ms a network for 4,500 known edges among 27,600 pairs.

    References
    ----------
    Trades: :cite:p:`strona2014,carstens2018`. P-values: :cite:p:`besag1989`. Maximum entropy: :cite:p:`park2004`.

    Examples
    --------
    >>> import sctrellis as tr
    >>> adata = tr.datasets.simulate_grn(200, 60, 12, density=0.2)
    >>> tr.tl.baseline(adata, "pearson")
    >>> table = tr.tl.null(adata, "pearson", network="truth", n_perm=99)
    >>> table.set_index("metric").loc["auprc", "p"].item()
    0.01
    """
    values = locals()
    checks.choice("kind", kind, (*NULLS, "cells"))
    for name, value in (("strata", strata), ("layer", layer)):
        if value is not None and kind != "cells":
            msg = f"`{name}`: {value!r} is read by `kind='cells'` only, found kind={kind!r}. Leave it out."
            raise ValueError(msg)
    chosen = [metrics] if isinstance(metrics, str) else list(metrics)
    for metric in chosen:
        checks.choice("metrics", metric, NULL_METRICS)
    judged: str = "all" if fold is None else checks.choice("fold", fold, (*_FOLDS, "all"))
    checks.choice("universe", universe, universes.UNIVERSES)
    checks.choice("missing", missing, ("error", "lowest"))
    n_perm, seed, workers = checks.integer("n_perm", n_perm), checks.seed(seed), checks.n_jobs(n_jobs)
    _, ad = slots.target(adata, mod=mod)
    slot = Keys.for_method(Keys(key).null + ("_cells" if kind == "cells" else ""), key_added)
    if key == network:
        msg = f"`key`: {key!r} is the known network itself. Name the network to judge against it."
        raise ValueError(msg)
    known, scores = slots.read_network(ad, network), slots.read_scores(ad, key)
    folds = slots.read_folds(ad, network)
    n_bad = int((~np.isfinite(scores.data)).sum())
    if n_bad:
        msg = f"`key`: {key!r} has {n_bad:,} NaN or infinite scores. Infer it again, or leave such pairs out."
        raise ValueError(msg)
    entry = ad.uns.get(key)
    saw = {key: entry} if isinstance(entry, Mapping) and _saw(entry, network) else {}
    judged = _guard(judged, network, folds, saw)
    candidates = slots.read_regulators(ad, regulators) if universe == "listed" else None
    pairs = universes.pairs(known, candidates, universe)
    if judged != "all":
        pairs = _in_fold(pairs, folds, judged)
    row, column = _positions(pairs)
    labels = slots.values_at(known, row, column) > 0
    _check_labels(labels, network, judged, universe, None)
    found = slots.values_at(scores, row, column)
    _check_scores(key, found, row, column, ad.var_names, missing)

    common: dict[str, Any] = {"metrics": chosen, "n_perm": n_perm, "seed": seed}
    found = np.where(np.isnan(found), -np.inf, found)
    if kind == "cells":
        regulator, rows = np.unique(row, return_inverse=True)
        target, columns = np.unique(column, return_inverse=True)
        x, y = (slots.read_matrix(ad, layer, genes=genes).in_memory() for genes in (regulator, target))
        if strata is not None:
            checks.has_slot("strata", strata, ad.obs.columns, "adata.obs")
        groups = None if strata is None else ad.obs[strata].to_numpy()
        result = cells_null(found, labels, x=x, y=y, rows=rows, columns=columns, strata=groups, **common)
    else:
        result = null_test(found, labels, rows=row, columns=column, kind=kind, n_jobs=workers, **common)
    table = result.table.assign(n_pairs=len(labels), n_positive=int(labels.sum()), fold=judged)
    written = record.build(
        "null",
        ad,
        params=_storable(record.arguments(null, values)),
        seed=seed,
        slots={"table": f"uns/{slot.record}/table", "replicates": f"uns/{slot.record}/replicates"},
        layer=layer,
        extra={
            "table": table,
            "replicates": result.replicates,
            "words": result.words,
            **({"shuffled": result.shuffled} if kind == "cells" else {"mixing": result.mixing}),
        },
    )
    if not result.mixing.get("mixed", True):
        checks.warn(f"The random networks of {key!r} are not mixed: see `words` in `adata.uns[{slot.record!r}]`.")
    logs.logger.info("%s: %s", key, result.words)
    logs.added(slots.write(ad, uns={slot.record: written}))
    return table
