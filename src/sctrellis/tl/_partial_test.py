from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sctrellis._core import logs, record, slots
from sctrellis._core.keys import Keys
from sctrellis.metrics import partial_test as fit_partial_test
from sctrellis.tl._certify import certified
from sctrellis.tl._regression import Regression

if TYPE_CHECKING:
    from anndata import AnnData


def partial_test(
    adata: "AnnData",
    *,
    regulators: str | Sequence[str] | None = None,
    targets: str | Sequence[str] | None = None,
    covariates: str | Sequence[str] | None = None,
    robust: bool = False,
    layer: str | None = None,
    mod: str | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> "AnnData | None":
    r"""Infer a network with a false discovery rate by least squares: what knockoffs have to beat.

    Regresses every target on all regulators, tests each coefficient, and adjusts for the number of tests. Expects
    log-normalised expression, and many more cells than regulators.

    Parameters
    ----------
    adata
        Cells x genes; a MuData with ``mod``.
    regulators
        Candidate regulators: None for ``adata.var["is_regulator"]``, the name of another Boolean column of
        ``adata.var``, ``"all"``, or gene names.
    targets
        Genes to explain: None for all that are no regulators, ``"all"``, or gene names.
    covariates
        Columns of ``adata.obs`` that are known to act on the cells, such as batch or cell cycle; categories become
        indicators. They are regressed out together with the regulators.
    robust
        Whether to allow for a noise that depends on the regulators, as counts have it.
    layer
        Layer with the expression; None is ``adata.X``.
    mod
        Modality to use where ``adata`` is a MuData.
    key_added
        Name of the slots; None is ``"partial_test"``.
    copy
        Return a copy with the result instead of writing to ``adata``.

    Returns
    -------
    `None`, or the copy if ``copy=True``. Sets:

    ``adata.varp[key_added]`` : csr_matrix, float32, shape (n_vars, n_vars)
        Partial correlation of regulator and target given all other regulators. Row = regulator, column = target; genes
        that do not vary are absent.
    ``adata.varp[key_added + "_qval"]`` : csr_matrix, float32, shape (n_vars, n_vars)
        Benjamini-Hochberg q-value of each of these pairs; pairs between regulators are adjusted by themselves.
    ``adata.uns[key_added]`` : dict
        Record of the run. ``words`` says how many pairs are selected at 0.1, and what :func:`sctrellis.tl.certify`
        found on these cells and regulators if it was run before.

    Raises
    ------
    KeyError
        If a layer, column or modality is missing.
    ValueError
        If there are not more cells than regulators and covariates, regulators depend on each other linearly, fewer than
        two vary, no target is left, or a covariate has missing values.

    Warns
    -----
    UserWarning
        If regulators are copies of each other.

    Notes
    -----
    See :func:`sctrellis.metrics.partial_test` for the formulas. What is said of the meaning of q in
    :func:`sctrellis.tl.knockoffs` holds here too; besides, effects must be linear. Where they are not, as with two
    regulators that act together only, the false discovery rate was 0.88 at a nominal 0.1.

    References
    ----------
    :cite:p:`white1980,mackinnon1985,benjamini1995`.

    Examples
    --------
    >>> import sctrellis as tr
    >>> adata = tr.datasets.simulate_grn(400, 60, 12, density=0.1)
    >>> tr.tl.partial_test(adata)
    >>> bool((tr.get.edges(adata, "partial_test")["qval"] <= 0.1).any())
    True
    """
    values = locals()
    keys = Keys.for_method("partial_test", key_added)
    root, ad = slots.target(adata, copy=copy, mod=mod)
    problem = Regression.read(ad, layer=layer, regulators=regulators, targets=targets, covariates=covariates)
    found = fit_partial_test(problem.x, problem.y, own=problem.own, covariates=problem.covariates, robust=robust)
    n_selected, n_tested = int((found.qvalue <= 0.1).sum()), int(np.isfinite(found.qvalue).sum())
    words = (
        f"{n_selected:,} of {n_tested:,} pairs are selected at a false discovery rate of 0.1. "
        f"{certified(ad, 'partial_test', layer, regulators)}"
    )
    entry = record.build(
        "partial_test",
        ad,
        params=record.arguments(partial_test, values),
        seed=0,
        slots={"network": f"varp/{keys.network}", "qval": f"varp/{keys.qval}"},
        layer=layer,
        extra={"words": words},
    )
    where = (problem.rows, problem.columns, ad.n_vars)
    networks = {
        keys.network: slots.network_csr(found.partial, *where),
        keys.qval: slots.network_csr(found.qvalue, *where),
    }
    logs.logger.info("%s: %s", keys.record, words)
    logs.added(slots.write(ad, varp=networks, uns={keys.record: entry}))
    return root if copy else None
