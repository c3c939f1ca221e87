from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from sctrellis._core import checks, logs, record, slots
from sctrellis._core.keys import Keys
from sctrellis.metrics import certificate
from sctrellis.metrics._certificate import TESTERS, QValues, Tester
from sctrellis.metrics._planted import LEVELS, Level
from sctrellis.tl._regression import Regression

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


def certify(
    adata: "AnnData | MuData",
    method: Tester | QValues = "knockoffs",
    *,
    regulators: str | Sequence[str] | None = None,
    targets: str | Sequence[str] | None = None,
    levels: Literal["all"] | Sequence[Level] = "all",
    n_sims: int = 20,
    n_targets: int = 100,
    q: Sequence[float] = (0.05, 0.1, 0.2),
    r2: float = 0.3,
    n_draws: int = 10,
    layer: str | None = None,
    seed: int | None = 0,
    mod: str | None = None,
    n_jobs: int | None = None,
    key_added: str | None = None,
) -> pd.DataFrame:
    r"""Measure the false discovery rate of a method on your own cells, with targets whose regulators are known.

    Takes the real regulators and plants targets on them: the easy ones that a method was made for, and those that break
    its assumptions. Expects log-normalised expression.

    Parameters
    ----------
    adata
        Cells x genes; a MuData with ``mod``.
    method
        ``"knockoffs"``, ``"partial_test"``, or a function of regulators (cells x regulators), targets (cells x targets)
        and a seed that returns q-values, regulators x targets.
    regulators
        Candidate regulators: None for ``adata.var["is_regulator"]``, the name of another Boolean column of
        ``adata.var``, ``"all"``, or gene names.
    targets
        Real targets, whose noise and leading component the planted ones take over: None for all genes that are no
        regulators, ``"all"``, or gene names.
    levels
        ``"all"``, or names among ``"linear"``, ``"logic"``, ``"counts"``, ``"measurement"``, ``"confounder"`` and
        ``"decoys"``; see :func:`sctrellis.metrics.certificate`.
    n_sims
        Simulations of each level, at least 2.
    n_targets
        Targets to plant in each.
    q
        Nominal false discovery rates, in (0, 1).
    r2
        Share of the variance of a planted target that its regulators explain, in (0, 1).
    n_draws
        Draws of ``"knockoffs"``, as many as :func:`sctrellis.tl.knockoffs` is to make.
    layer
        Layer with the expression; None is ``adata.X``.
    seed
        Seed of all simulations, in [0, 2**32); None draws one and records it.
    mod
        Modality to use where ``adata`` is a MuData.
    n_jobs
        Workers, for simulations; None is ``settings.n_jobs``, -1 all cores. The result does not depend on them.
    key_added
        Key of ``adata.uns`` for the table and its record; None is ``"certify"``.

    Returns
    -------
    DataFrame
        One row per level and nominal rate, also stored in ``adata.uns[key_added]["table"]``. Columns:

        ``level``, ``q``
            The planted world and the nominal rate.
        ``fdr``, ``fdr_se``, ``power``, ``power_se``
            Mean share of wrong pairs among the selected ones and of true pairs that are selected, and standard errors.
        ``decoy_rate``
            Share of decoys among the selected pairs; NaN without decoys.
        ``passes``, ``n_sims``
            Whether the one-sided 95 % bound of the rate is at most q + 0.02, and the number of simulations.

    ``adata.uns[key_added]`` : dict
        Record of the run with ``table``; ``stress``, for each ``q`` the largest rate that was measured at a level that
        passes (``q_stress``) and that ``level``; and ``words``, which say where the rate holds and where it fails.
        :func:`sctrellis.tl.knockoffs` and :func:`sctrellis.tl.partial_test` repeat them beside their q-values.

    Raises
    ------
    KeyError
        If a layer, column or modality is missing.
    ValueError
        If fewer than two regulators vary, no target is left, a function returns q-values of another shape, and on
        unknown names and numbers out of range.

    Notes
    -----
    A q-value is worth what its assumptions are worth on these cells. Where ``"confounder"`` or ``"measurement"`` fails,
    read q-values as ranks. Passing is no proof: real targets may be unlike all planted ones.

    Cost: levels x `n_sims` fits of the method; knockoffs take one to two seconds each for 300 regulators.

    References
    ----------
    :cite:p:`kernfeld2024`.

    Examples
    --------
    >>> import sctrellis as tr
    >>> adata = tr.datasets.simulate_grn(300, 60, 12, density=0.1)
    >>> table = tr.tl.certify(adata, "partial_test", levels=["linear", "confounder"], n_sims=5, q=[0.1])
    >>> table["passes"].tolist()
    [True, False]
    """
    values = locals()
    if not callable(method):
        checks.choice("method", method, TESTERS)
    chosen = list(LEVELS) if isinstance(levels, str) and levels == "all" else levels
    seed, workers = checks.seed(seed), checks.n_jobs(n_jobs)
    slot = Keys.for_method("certify", key_added)
    _, ad = slots.target(adata, mod=mod)
    problem = Regression.read(ad, layer=layer, regulators=regulators, targets=targets, covariates=None)
    found = certificate(
        problem.x,
        problem.y,
        method,
        levels=chosen,
        n_sims=n_sims,
        n_targets=n_targets,
        q=q,
        r2=r2,
        n_draws=n_draws,
        seed=seed,
        n_jobs=workers,
    )
    name = getattr(method, "__name__", type(method).__name__) if callable(method) else method
    entry = record.build(
        "certify",
        ad,
        params={**record.arguments(certify, values), "method": name},
        seed=seed,
        slots={"table": f"uns/{slot.record}/table"},
        layer=layer,
        extra={"table": found.table, "stress": found.stress, "words": found.words},
    )
    logs.logger.info("%s: %s", name, found.words)
    logs.added(slots.write(ad, uns={slot.record: entry}))
    return found.table


def certified(ad: Any, method: Tester, layer: str | None, regulators: Any) -> str:
    """Return what the last certificate of a method on these cells says, or that there is none."""
    inputs = record.build(method, ad, params={"regulators": regulators}, seed=0, slots={}, layer=layer)
    said = ""
    for entry in ad.uns.values():
        if not isinstance(entry, Mapping) or str(entry.get("method")) != "certify":
            continue
        params = entry["params"]
        same = all(str(entry["inputs"][name]) == str(value) for name, value in inputs["inputs"].items())
        if same and str(params["method"]) == method and _same(params.get("regulators"), regulators):
            said = str(entry["words"])
    if said:
        return f"On targets planted in these cells, with the settings of the certificate: {said}"
    return (
        "No certificate of these q-values was made: `sctrellis.tl.certify(adata, "
        f"{method!r})` measures on planted targets where they hold."
    )


def _same(one: Any, other: Any) -> bool:
    """Return whether two choices of regulators are the same, one of them as stored."""
    listed = [value if value is None or isinstance(value, str) else sorted(map(str, value)) for value in (one, other)]
    return listed[0] == listed[1]
