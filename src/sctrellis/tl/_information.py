from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sctrellis._core import checks, logs, record, slots
from sctrellis._core.keys import Keys
from sctrellis._core.rows import Rows
from sctrellis.metrics import information as measure
from sctrellis.tl._regression import Regression, _covariates

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


def information(
    adata: "AnnData | MuData",
    *,
    regulators: str | Sequence[str] | None = None,
    targets: Sequence[str] | None = None,
    covariates: str | Sequence[str] | None = None,
    groupby: str | None = None,
    counts: str | None = None,
    fractions: Sequence[float] = (0.125, 0.25, 0.5, 1.0),
    r2: Sequence[float] = (0.05, 0.1, 0.2, 0.4),
    q: float = 0.1,
    n_targets: int = 200,
    n_repeats: int = 3,
    n_sims: int = 5,
    n_draws: int = 10,
    max_cells: int = 20_000,
    layer: str | None = None,
    seed: int | None = 0,
    mod: str | None = None,
    n_jobs: int | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> "AnnData | MuData | None":
    r"""Measure what the cells can carry, before any model is fitted.

    How many independent cells there are, how large an effect must be to be found, whether more cells or more depth
    would help, what batch and depth explain, which regulators are seen at all, and which cannot be told apart; then a
    verdict in words. Expects log-normalised expression.

    Parameters
    ----------
    adata
        Cells x genes; a MuData with ``mod``.
    regulators
        Candidate regulators: None for ``adata.var["is_regulator"]``, the name of another Boolean column of
        ``adata.var``, ``"all"``, or gene names.
    targets
        Genes to explain: None for all that are no regulators, or gene names. Regulators among them are left out.
    covariates
        Columns of ``adata.obs`` that may act on the cells, such as batch, donor, depth or cell cycle; categories become
        indicators. The number of genes that a cell shows is always looked at.
    groupby
        Column of ``adata.obs`` with groups of cells, such as samples or types: effective sizes are then also given
        within each and of their means (pseudobulks).
    counts
        Layer with raw counts, ``"X"`` for ``adata.X``; None leaves out what needs them: the curves in depth and the
        reliability of each regulator.
    fractions
        Shares of the cells, and of the molecules, for the learning curves.
    r2
        Shares of the variance of planted targets that their regulators explain, in (0, 1).
    q
        False discovery rate that power and discoveries are measured at, in (0, 1).
    n_targets
        Targets to plant at a time.
    n_repeats
        Random choices of cells for each point of a learning curve.
    n_sims
        Simulations of each level of the certificate, at least 2.
    n_draws
        Draws of knockoffs, as many as :func:`sctrellis.tl.knockoffs` is to make.
    max_cells
        Cells to use; of more, as many are drawn.
    layer
        Layer with the expression; None is ``adata.X``.
    seed
        Seed of all choices, in [0, 2**32); None draws one and records it.
    mod
        Modality to use where ``adata`` is a MuData.
    n_jobs
        Workers, for points of the curves and simulations; None is ``settings.n_jobs``, -1 all cores. The result does
        not depend on them.
    key_added
        Key of ``adata.uns``, and start of the names in ``adata.var``; None is ``"information"``.
    copy
        Return a copy with the result instead of writing to ``adata``.

    Returns
    -------
    `None`, or the copy if ``copy=True``. Sets:

    ``adata.uns[key_added]`` : dict
        Record of the run with ``verdict`` (``code`` and ``words``), ``words`` (what was found, a sentence each),
        ``diagnostics`` and the tables ``size``, ``curve``, ``detectable``, ``doubled``, ``components``, ``removal`` and
        ``certificate`` of :func:`sctrellis.metrics.information`; ``groups`` names the regulators that are nearly
        copies of each other.
    ``adata.var[key_added + "_detection"]`` : float32
        Share of the cells that show a regulator; NaN for other genes.
    ``adata.var[key_added + "_reliability"]`` : float32
        Share of its variance that is no noise of counting; NaN for other genes and without `counts`. Correlations with
        a gene are the square root of it times what they would be without noise.
    ``adata.var[key_added + "_group"]`` : int32
        Group of regulators with absolute correlations above 0.95, from 1; 0 for none.

    Raises
    ------
    KeyError
        If a layer, column or modality is missing.
    ValueError
        If fewer than two regulators vary, no target is left, a covariate is constant or has missing values, `counts`
        has negative values or fractions, there are fewer than 20 cells, and on numbers out of range.

    Warns
    -----
    UserWarning
        If regulators are copies of each other.

    Notes
    -----
    The verdict rests on targets that are planted on the real regulators (:func:`sctrellis.tl.certify`), judged by
    knockoffs at q = 0.2; a level is carried where its rate of false discoveries holds and power is above
    5 %.

    ``I0``
        No level is carried.
    ``I1``
        Some, but not linear effects, logic and counts all three.
    ``I2``
        These three: single edges, if nothing hidden acts.
    ``I3``
        Also regulators measured at half the depth, and a hidden cause.

    Models run whatever the verdict is. Predicted power holds for targets like the planted ones, which have two linear
    regulators on average, among regulators like these.

    Cost: ``4 x n_repeats + 5 x n_sims`` fits of knockoffs, one to two seconds each for 300 regulators, and half
    as much again with `counts`.

    References
    ----------
    :cite:p:`cosgrove2010` for the effective number of samples of expression data; :cite:p:`kernfeld2024`.

    Examples
    --------
    >>> import sctrellis as tr
    >>> adata = tr.datasets.simulate_grn(100, 40, 8)
    >>> tr.tl.information(adata, fractions=[0.5, 1], r2=[0.2, 0.4], n_targets=20, n_repeats=1, n_sims=2)
    >>> tr.get.record(adata, "information")["verdict"]["code"] in ("I0", "I1", "I2", "I3")
    True
    """
    values = locals()
    seed, workers = checks.seed(seed), checks.n_jobs(n_jobs)
    max_cells = checks.integer("max_cells", max_cells, minimum=checks.MIN_CELLS)
    slot = Keys.for_method("information", key_added)
    root, ad = slots.target(adata, copy=copy, mod=mod)
    mask = slots.read_regulators(ad, regulators)
    names = _targets(ad, mask, targets)
    columns = {name: _covariates(ad, name) for name in _listed(covariates)}
    if groupby is not None:
        checks.has_slot("groupby", groupby, ad.obs.columns, "adata.obs")
    chosen = np.arange(ad.n_obs)
    if ad.n_obs > max_cells:
        chosen = np.sort(np.random.default_rng(seed).choice(ad.n_obs, max_cells, replace=False))
        logs.logger.info("%s of %s cells are used.", f"{max_cells:,}", f"{ad.n_obs:,}")
    part = ad if len(chosen) == ad.n_obs else ad[chosen]
    problem = Regression.read(part, layer=layer, regulators=list(ad.var_names[mask]), targets=names, covariates=None)
    counted, total = (None, None) if counts is None else _counts(part, counts, problem)
    found = measure(
        problem.x,
        problem.y,
        covariates={name: column[chosen] for name, column in columns.items() if column is not None},
        groups=None if groupby is None else part.obs[groupby].astype(str).to_numpy(),
        counts=counted,
        total=total,
        fractions=fractions,
        r2=r2,
        q=q,
        n_targets=n_targets,
        n_repeats=n_repeats,
        n_sims=n_sims,
        n_draws=n_draws,
        seed=seed,
        n_jobs=workers,
    )
    var = {f"{slot.record}_{name}": np.full(ad.n_vars, np.nan, np.float32) for name in ("detection", "reliability")}
    for name in ("detection", "reliability"):
        var[f"{slot.record}_{name}"][problem.rows] = getattr(found, name)
    group = np.zeros(ad.n_vars, dtype=np.int32)
    group[problem.rows] = found.group
    var[f"{slot.record}_group"] = group
    in_group = np.flatnonzero(group)
    in_group = in_group[np.argsort(group[in_group], kind="stable")]
    tables = ("size", "curve", "detectable", "doubled", "components", "removal", "certificate")
    entry = record.build(
        "information",
        ad,
        params=record.arguments(information, values),
        seed=seed,
        slots={name: f"var/{name}" for name in var},
        layer=layer,
        extra={
            "verdict": {"code": found.code, "words": found.words[0]},
            "words": found.words[1:],
            "diagnostics": {**found.diagnostics, "n_cells": len(chosen), "n_regulators": len(problem.rows)},
            "groups": pd.DataFrame({"regulator": ad.var_names[in_group].astype(str), "group": group[in_group]}),
            **{name: getattr(found, name) for name in tables},
        },
    )
    for words in found.words:
        logs.logger.info("%s", words)
    logs.added(slots.write(ad, var=var, uns={slot.record: entry}))
    return root if copy else None


def _listed(names: str | Sequence[str] | None) -> list[str]:
    return [] if names is None else [names] if isinstance(names, str) else list(dict.fromkeys(names))


def _targets(ad: "AnnData", mask: np.ndarray, targets: Sequence[str] | None) -> list[str]:
    """Return the names of the genes to explain, none of them a regulator."""
    wanted = ~mask
    if targets is not None:
        named = np.zeros(ad.n_vars, dtype=bool)
        named[checks.gene_positions("targets", targets, ad.var_names)] = True
        wanted &= named
    if not wanted.any():
        which = "Every gene" if targets is None else "Every one of the `targets`"
        msg = f"{which} is a regulator, so there is nothing to explain. Name fewer `regulators`, or other targets."
        raise ValueError(msg)
    return list(ad.var_names[wanted])


def _counts(ad: "AnnData", name: str, problem: Regression) -> tuple[np.ndarray, np.ndarray]:
    """Return counts of regulators and targets, and of all genes of each cell."""
    if name != "X":
        checks.has_slot("counts", name, ad.layers.keys(), "adata.layers", "`counts='X'` takes `adata.X`.")
    rows = Rows(ad.X if name == "X" else ad.layers[name])
    genes = np.concatenate([problem.rows, problem.columns])
    checks.dense_size((ad.n_obs, len(genes)), "A dense copy of the counts", "Name fewer `targets`.", itemsize=8)
    values, total = np.empty((ad.n_obs, len(genes)), dtype=np.int64), np.empty(ad.n_obs, dtype=np.int64)
    start = 0
    for block in rows.blocks():
        if not np.isfinite(block).all() or block.min() < 0 or (block != np.rint(block)).any():
            msg = (
                f"`counts`: {name!r} holds values that are no counts (integers of at least 0). Name a layer with the "
                "raw counts, or leave `counts` out."
            )
            raise ValueError(msg)
        at = slice(start, start + len(block))
        values[at], total[at] = block[:, genes], block.sum(axis=1, dtype=np.float64)
        start += len(block)
    return values, total
