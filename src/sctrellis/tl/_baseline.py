from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sctrellis._core import checks, logs, record, slots
from sctrellis._core.keys import Keys
from sctrellis.tl._baseline_scores import BASELINES, Baseline, fit_baseline

if TYPE_CHECKING:
    from anndata import AnnData


def baseline(
    adata: "AnnData",
    method: Baseline = "pearson",
    *,
    network: str | None = None,
    regulators: str | Sequence[str] | None = None,
    layer: str | None = None,
    seed: int | None = 0,
    n_jobs: int | None = None,
    progress: bool | None = None,
    mod: str | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> "AnnData | None":
    r"""Score regulator-gene pairs with a simple method that a model has to beat.

    Expects log-normalised expression. All genes of the data are used; every gene that varies over the cells is a
    target. :func:`sctrellis.tl.evaluate` puts the same scores beside those of a model without storing them.

    Parameters
    ----------
    adata
        Cells x genes; a MuData with ``mod``. Backed and dask matrices are streamed.
    method
        ``"pearson"``
            Pearson correlation, signed.
        ``"spearman"``
            Pearson correlation of the ranks, signed.
        ``"pearson_pc1"``
            Pearson correlation of what is left of the standardised genes without their first principal component:
            what all genes share, such as cell size or quality, is gone. Signed.
        ``"partial"``
            Correlation of two genes given all others, from the inverse of the Ledoit-Wolf shrunk correlation matrix.
            Signed.
        ``"ridge"``
            Coefficient of the regulator in a ridge regression of the gene on all other genes, the strength chosen by
            cross-validation, see :func:`sctrellis.models.ridge_network`. Signed; the closed-form start of
            :func:`sctrellis.tl.infosem`.
        ``"gbm"``
            Importance of the regulator in stochastic gradient boosting of the gene on all regulators, as GRNBoost2
            defines it. Not signed.
        ``"degree"``
            Popularity: how many known edges of the train fold leave the regulator and reach the gene. Reads labels and
            no expression. Not signed.
        ``"random"``
            Uniform numbers. Not signed.
    network
        Key of ``adata.varp`` with known edges, split by :func:`sctrellis.pp.split_edges`. Read by ``"degree"`` only.
    regulators
        Candidate regulators: None for ``adata.var["is_regulator"]``, the name of another Boolean column of
        ``adata.var``, ``"all"``, or gene names.
    layer
        Layer with the expression; None is ``adata.X``.
    seed
        Seed in [0, 2**32); None draws one and records it. It decides the folds of ``"ridge"``, the trees of ``"gbm"``
        and ``"random"``.
    n_jobs
        Workers; None is ``settings.n_jobs``, -1 all cores. Only ``"gbm"`` uses them, and the result does not depend on
        them.
    progress
        Progress bar; None follows ``settings.progress``. Only ``"gbm"`` has one.
    mod
        Modality to use where ``adata`` is a MuData.
    key_added
        Name of the slots; None is the method's name.
    copy
        Return a copy with the result instead of writing to ``adata``.

    Returns
    -------
    `None`, or the copy if ``copy=True``. Sets:

    ``adata.varp[key_added]`` : csr_matrix, float32, shape (n_vars, n_vars)
        Edge scores, row = regulator, column = target. Every pair of a varying regulator and a varying gene is stored,
        zeros too; self pairs are not.
    ``adata.uns[key_added]`` : dict
        Record of the run. ``fit`` holds what the method chose: the share of the first component, the shrinkage, the
        ridge strength ``rho`` (with the table ``cv``), the number of trees, or the number of train edges.
        ``labels_used`` names the network whose labels the scores have seen (``"degree"`` only).

    Raises
    ------
    KeyError
        If a layer, column, modality or network is missing.
    ValueError
        If ``method`` is unknown, no regulator varies, values are negative or not finite, ``"degree"`` gets no network
        or one without folds, or a dense array would pass ``settings.max_dense_gb``.

    Notes
    -----
    With :math:`Z` the standardised cells, :math:`C = Z^\top Z / n`, and :math:`\lambda, v` the leading eigenpair of
    :math:`C`, ``"pearson_pc1"`` is the correlation that belongs to :math:`C - \lambda v v^\top`. With
    :math:`P = ((1 - s) C + s I)^{-1}` and :math:`s` the shrinkage, ``"partial"`` is
    :math:`-P_{ik} / \sqrt{P_{ii} P_{kk}}`. ``"degree"`` is
    :math:`\log(1 + d^\mathrm{out}_i) + \log(1 + d^\mathrm{in}_k)`. ``"gbm"`` fits up to 5,000 trees of depth 3 at
    learning rate 0.01, each on 90 % of the cells and trying 10 % of the regulators at a split, until the mean
    improvement of the left-out cells over the last 25 trees is not positive; an importance is a share of the decrease
    in squared error times the number of trees.

    Cost, for n cells, p regulators and G genes: ``"pearson"`` one pass over the cells, O(npG); ``"pearson_pc1"``
    another 20 to 60 passes, the most where no component stands out; ``"spearman"`` O(npG), holding the regulators and
    0.5 GB of other genes dense; ``"partial"`` and ``"ridge"`` a system of size min(n, G); ``"gbm"`` one boosting per
    gene, by far the slowest, with the same genes dense. Equal arguments give equal results on one machine.

    References
    ----------
    Shrinkage: :cite:p:`ledoit2004`. Boosting: GRNBoost2 :cite:p:`moerman2019grnboost2`, of which
    https://github.com/aertslab/arboreto (BSD-3-Clause) is the reference implementation; none of its code is used.

    Examples
    --------
    >>> import anndata as ad, numpy as np, sctrellis as tr
    >>> x = np.random.default_rng(0).gamma(2.0, size=(50, 3)).astype("float32")
    >>> x[:, 1] += x[:, 0]
    >>> adata = ad.AnnData(x)
    >>> tr.tl.baseline(adata, "pearson", regulators=["0"])
    >>> adata.varp["pearson"].toarray()[0].argmax().item()
    1
    """
    values = locals()
    checks.choice("method", method, BASELINES)
    seed = checks.seed(seed)
    workers = checks.n_jobs(n_jobs)
    keys = Keys.for_method(method, key_added)
    root, ad = slots.target(adata, copy=copy, mod=mod)
    known = folds = None
    if method == "degree" and network is not None:
        known, folds = slots.read_network(ad, network), slots.read_folds(ad, network)
    mask = slots.read_regulators(ad, regulators)
    rows = slots.read_matrix(ad, layer)
    found = fit_baseline(method, rows, mask, network=known, folds=folds, seed=seed, n_jobs=workers, progress=progress)
    varying = rows.summary.std > 0
    scored = slots.network_csr(
        found.scores[np.ix_(varying[mask], varying)],
        np.flatnonzero(mask & varying),
        np.flatnonzero(varying),
        ad.n_vars,
    )
    entry = record.build(
        method,
        ad,
        params=record.arguments(baseline, values),
        seed=seed,
        slots={"network": f"varp/{keys.network}"},
        layer=layer,
        fit=found.fit,
        extra={**found.tables, **({"labels_used": network} if method == "degree" else {})},
    )
    logs.added(slots.write(ad, varp={keys.network: scored}, uns={keys.record: entry}))
    return root if copy else None
