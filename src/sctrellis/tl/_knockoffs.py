from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sctrellis._core import checks, logs, record, slots
from sctrellis._core.keys import Keys
from sctrellis.metrics import knockoff_qvalues
from sctrellis.metrics import knockoffs as fit_knockoffs
from sctrellis.metrics._knockoff_filter import SHARE, check_level
from sctrellis.metrics._knockoff_generator import LAWS, Law
from sctrellis.metrics._knockoff_spread import SPREADS, Spread
from sctrellis.metrics._knockoffs import FAMILIES, STATISTICS, Family, Knockoffs, Statistic
from sctrellis.tl._certify import certified
from sctrellis.tl._regression import Regression

if TYPE_CHECKING:
    from anndata import AnnData


def knockoffs(
    adata: "AnnData",
    *,
    regulators: str | Sequence[str] | None = None,
    targets: str | Sequence[str] | None = None,
    covariates: str | Sequence[str] | None = None,
    family: Family = "network",
    generator: Law = "copula",
    statistic: Statistic = "lasso",
    spread: Spread = "mvr",
    q: float = 0.1,
    n_draws: int = 10,
    layer: str | None = None,
    seed: int | None = 0,
    n_jobs: int | None = None,
    mod: str | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> "AnnData | None":
    r"""Infer a network with a false discovery rate: regulators that must beat a copy of themselves that does nothing.

    Each regulator gets a *knockoff*, a made-up regulator that is as correlated with all others as the real one is and
    knows nothing of any target. A regulator counts for a target where it explains more of it than its knockoff does;
    how often the knockoff wins says how many of these are mistakes. Expects log-normalised expression.

    Parameters
    ----------
    adata
        Cells x genes; a MuData with ``mod``.
    regulators
        Candidate regulators: None for ``adata.var["is_regulator"]``, the name of another Boolean column of
        ``adata.var``, ``"all"``, or gene names.
    targets
        Genes to explain: None for all that are no regulators, ``"all"``, or gene names. Each target that is a regulator
        itself takes knockoffs of its own, which is slow.
    covariates
        Columns of ``adata.obs`` that are known to act on the cells, such as batch or cell cycle; categories become
        indicators. Knockoffs follow them, and they are taken off before the regression.
    family
        Pairs that share one false discovery rate: ``"network"`` all, ``"target"`` those of each target. With
        ``"target"`` hardly anything can be found, see Notes.
    generator
        Law of the regulators: ``"copula"`` keeps their values, zeros too, and takes their ranks to be jointly normal;
        ``"gaussian"`` takes the values to be; ``"mixture"`` takes them to be within each of up to four clusters of
        cells. On real regulators only the copula kept its rate where regulators act together.
    statistic
        ``"lasso"``: difference of absolute lasso coefficients of a regulator and of its knockoff. A ridge statistic is
        not offered, as it does not control the false discovery rate.
    spread
        How far knockoffs lie from their regulators: ``"mvr"`` (minimum reconstructability) or ``"maxent"``.
    q
        False discovery rate to aim at, in (0, 1).
    n_draws
        Draws of knockoffs, whose verdicts are averaged. A single draw may select twice as many pairs as the next.
    layer
        Layer with the expression; None is ``adata.X``.
    seed
        Seed of all draws, in [0, 2**32); None draws one and records it.
    n_jobs
        Workers, for draws; None is ``settings.n_jobs``, -1 all cores. The result does not depend on them.
    mod
        Modality to use where ``adata`` is a MuData.
    key_added
        Name of the slots; None is ``"knockoffs"``.
    copy
        Return a copy with the result instead of writing to ``adata``.

    Returns
    -------
    `None`, or the copy if ``copy=True``. Sets:

    ``adata.varp[key_added]`` : csr_matrix, float32, shape (n_vars, n_vars)
        How much more a regulator explains of a target than its knockoff does (mean over the draws), with the sign of
        its effect; 0 where it explains no more. Row = regulator, column = target; genes that do not vary are absent.
    ``adata.varp[key_added + "_qval"]`` : csr_matrix, float32, shape (n_vars, n_vars)
        q-value of each of these pairs: select those of at most `q`.
    ``adata.uns[key_added]`` : dict
        Record of the run. ``fit`` holds the ``n_selected`` of ``n_pairs``, the same between regulators
        (``n_selected_regulators``, ``n_pairs_regulators``), how many each draw alone selects
        (``n_selected_by_draw``, without targets that are regulators), ``shrinkage`` of the correlation matrix,
        ``mean_s`` (1: knockoffs as good as independent of their regulators, 0: copies) and the swap tests of
        :func:`sctrellis.metrics.exchangeability`; ``words`` says what follows, with what :func:`sctrellis.tl.certify`
        found on these cells and regulators if it was run before.

    Raises
    ------
    KeyError
        If a layer, column or modality is missing.
    ValueError
        If fewer than two regulators vary, no target is left, `q` is not in (0, 1), a covariate has missing values, or
        an array would pass ``settings.max_dense_gb``.

    Warns
    -----
    UserWarning
        If there are fewer cells than regulators, or regulators that are copies of each other.

    Notes
    -----
    The steps are those of :func:`sctrellis.metrics.knockoffs`.

    **What q means.** That the share of wrong pairs among the selected ones is `q` on average, where *wrong* means that
    the target is independent of the regulator given all other regulators in the data. It holds if the regulators are
    measured without error and follow the law of `generator`, whatever the form of the effect. It does not hold for
    regulation: a hidden cause of regulator and target makes them dependent, and noise in the counts of a regulator lets
    others stand in for it.

    With several draws the q-values are made for the level `q`: they are coarse, and comparing them with another level
    selects too few. Run again for another level. For a subset of pairs run again as well: a false discovery rate does
    not survive picking among the selected.

    **Pairs between regulators** are a family of their own. There the other regulators of a shared target look like
    regulators as well, so read them as association given all else.

    **Few edges.** q cannot be below 1 / (number selected): at 0.1 nothing is selected unless 10 pairs of the family
    stand out, with several draws 25. A network has them, a single target hardly ever.

    **Fewer cells than regulators** work, since correlations are shrunk; ``shrinkage`` says how much was, and the more,
    the less the knockoffs resemble the regulators.

    Cost, for n cells, p regulators, m targets: O(n p^2 + p^3) and a millisecond a target for each draw.

    References
    ----------
    Knockoffs: :cite:p:`candes2018`. Their spread: :cite:p:`spector2022`. Several draws: :cite:p:`ren2024`. On
    regulatory networks, and why a false discovery rate may fail there: :cite:p:`kernfeld2024`.

    Examples
    --------
    >>> import sctrellis as tr
    >>> adata = tr.datasets.simulate_grn(400, 60, 12, density=0.1)
    >>> tr.tl.knockoffs(adata, n_draws=3)
    >>> edges = tr.get.edges(adata, "knockoffs")
    >>> bool((edges["qval"] <= 0.1).any())
    True
    """
    values = locals()
    for name, value, options in (
        ("family", family, FAMILIES),
        ("generator", generator, LAWS),
        ("statistic", statistic, STATISTICS),
        ("spread", spread, SPREADS),
    ):
        checks.choice(name, value, options)
    q, n_draws = check_level(q), checks.integer("n_draws", n_draws)
    seed, workers = checks.seed(seed), checks.n_jobs(n_jobs)
    keys = Keys.for_method("knockoffs", key_added)
    root, ad = slots.target(adata, copy=copy, mod=mod)
    problem = Regression.read(ad, layer=layer, regulators=regulators, targets=targets, covariates=covariates)
    n_cells, n_regulators = problem.x.shape
    if n_cells < n_regulators:
        checks.warn(
            f"There are fewer cells ({n_cells:,}) than regulators ({n_regulators:,}): correlations are shrunk "
            "strongly, and little can be told apart. Use fewer `regulators` if you can."
        )
    found = fit_knockoffs(
        problem.x,
        problem.y,
        own=problem.own,
        covariates=problem.covariates,
        family=family,
        generator=generator,
        statistic=statistic,
        spread=spread,
        q=q,
        n_draws=n_draws,
        seed=seed,
        n_jobs=workers,
    )
    by_draw = [int((knockoff_qvalues(draw) <= q).sum()) for draw in found.draws[:, :, problem.own < 0]]
    fit = _counts(found, problem.own, q) | {"n_selected_by_draw": by_draw} | found.diagnostics
    words = f"{_words(fit, family, q, n_draws)} {certified(ad, 'knockoffs', layer, regulators)}"
    entry = record.build(
        "knockoffs",
        ad,
        params=record.arguments(knockoffs, values),
        seed=seed,
        slots={"network": f"varp/{keys.network}", "qval": f"varp/{keys.qval}"},
        layer=layer,
        fit=fit,
        extra={"words": words},
    )
    where = (problem.rows, problem.columns, ad.n_vars)
    networks = {
        keys.network: slots.network_csr(found.statistic, *where),
        keys.qval: slots.network_csr(found.qvalue, *where),
    }
    logs.logger.info("%s: %s", keys.record, words)
    logs.added(slots.write(ad, varp=networks, uns={keys.record: entry}))
    return root if copy else None


def _counts(found: Knockoffs, own: np.ndarray, q: float) -> dict[str, Any]:
    counts = {}
    for suffix, part in (("", own < 0), ("_regulators", own >= 0)):
        qvalue = found.qvalue[:, part]
        counts[f"n_selected{suffix}"] = int((qvalue <= q).sum())
        counts[f"n_pairs{suffix}"] = int(np.isfinite(qvalue).sum())
    return counts


def _words(fit: dict[str, Any], family: str, q: float, n_draws: int) -> str:
    parts = []
    if fit["n_pairs"]:
        parts.append(
            f"{fit['n_selected']:,} of {fit['n_pairs']:,} pairs are selected at a false discovery rate of {q:g}."
        )
        low, high = min(fit["n_selected_by_draw"]), max(fit["n_selected_by_draw"])
        if n_draws > 1 and family == "network":
            parts.append(f"Single draws select from {low:,} to {high:,}.")
    if fit["n_pairs_regulators"]:
        parts.append(
            f"Of {fit['n_pairs_regulators']:,} pairs between regulators {fit['n_selected_regulators']:,} are; these "
            "may share a target rather than regulate each other."
        )
    least = int(np.ceil(round(1 / (q if n_draws == 1 else SHARE * q), 9)))
    if family == "target":
        parts.append(f"Target by target, nothing can be selected where fewer than {least} regulators stand out.")
    elif fit["n_pairs"] and not fit["n_selected"]:
        parts.append(f"Nothing can be selected where fewer than {least} pairs stand out.")
    if min(fit["full_swap_p"], fit["partial_swap_p"]) < 0.01:
        parts.append("A swap test tells the knockoffs from the regulators, so the rate may be off.")
    parts.append("The rate is that of dependence given all other regulators; hidden causes and noise can break it.")
    return " ".join(parts)
