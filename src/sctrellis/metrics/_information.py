from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from sctrellis._core import checks
from sctrellis.metrics._certificate import certificate
from sctrellis.metrics._collinear_groups import collinear_groups
from sctrellis.metrics._component_audit import component_audit
from sctrellis.metrics._component_removal import component_removal
from sctrellis.metrics._detectable import detectable
from sctrellis.metrics._effective_size import effective_size
from sctrellis.metrics._information_verdict import VERDICT_Q, verdict
from sctrellis.metrics._information_words import findings
from sctrellis.metrics._knockoff_filter import check_level
from sctrellis.metrics._knockoff_generator import Generator
from sctrellis.metrics._knockoffs import check_arrays
from sctrellis.metrics._learning_curve import EFFECTS, FRACTIONS, learning_curve
from sctrellis.metrics._measurement_reliability import measurement_reliability
from sctrellis.metrics._planted import Level

_LEVELS: tuple[Level, ...] = ("linear", "logic", "counts", "measurement", "confounder")
_N_BOOT = 100
_LEAST_GROUP = 3


@dataclass(frozen=True, kw_only=True)
class Information:
    """What a set of cells can carry; tables as in :func:`information`.

    Parameters
    ----------
    size, curve, detectable, doubled, components, removal, certificate
        Tables.
    detection, reliability : (p,)
        Of each regulator: share of the cells that show it, and share of its variance that is no noise of counting (NaN
        without counts).
    group : (p,)
        Group of nearly equal regulators, from 1; 0 for none.
    diagnostics
        ``shrinkage`` of the correlations of regulators, ``mean_s`` (how far knockoffs can lie from their regulators: 1
        as if independent, 0 copies) and ``condition``, the ratio of largest and smallest eigenvalue of the shrunk
        matrix.
    code
        ``"I0"`` to ``"I3"``.
    words
        The verdict, and each finding, in a sentence.
    """

    size: pd.DataFrame
    curve: pd.DataFrame
    detectable: pd.DataFrame
    doubled: pd.DataFrame
    components: pd.DataFrame
    removal: pd.DataFrame
    certificate: pd.DataFrame
    detection: np.ndarray
    reliability: np.ndarray
    group: np.ndarray
    diagnostics: dict[str, float]
    code: str
    words: list[str]


def information(
    x: Any,
    y: Any,
    *,
    covariates: Mapping[str, Any] | None = None,
    groups: Any = None,
    counts: Any = None,
    total: Any = None,
    fractions: Sequence[float] = FRACTIONS,
    r2: Sequence[float] = EFFECTS,
    q: float = 0.1,
    n_targets: int = 200,
    n_repeats: int = 3,
    n_sims: int = 5,
    n_draws: int = 10,
    seed: int | None = 0,
    n_jobs: int | None = None,
) -> Information:
    r"""Measure what a set of cells can carry, before any model is fitted.

    Parameters
    ----------
    x : (n, p)
        Regulators, log-normalised and none of them constant.
    y : (n, m)
        Targets, none of them constant.
    covariates
        Name to a column or matrix of n rows; a category comes as its indicators. Besides, the number of genes that a
        cell shows is always one (``"genes detected"``).
    groups : (n,)
        Group of each cell, for effective sizes within and between them; None for none.
    counts : (n, p + m)
        Counts of regulators and targets, in this order; None leaves out depth and reliability.
    total : (n,)
        Counts of all genes of a cell; None for those in `counts`.
    fractions
        Shares of the cells, and of the molecules, for the learning curves.
    r2
        Shares of the variance of planted targets that their regulators explain.
    q
        False discovery rate that power and discoveries are measured at, in (0, 1).
    n_targets
        Targets to plant at a time.
    n_repeats
        Random choices of cells for each point of a learning curve.
    n_sims
        Simulations of each level of the certificate, at least 2.
    n_draws
        Draws of knockoffs.
    seed
        Seed of all of this, in [0, 2**32); None draws one.
    n_jobs
        Workers; None is `settings.n_jobs`, -1 all cores. The result does not depend on them.

    Returns
    -------
    Information
        ``size`` has a row for all genes, for the regulators, for each group of at least 3 cells and for the means of
        the groups (see :func:`effective_size`). ``curve`` is :func:`learning_curve`. ``detectable`` has the least share
        of a target's variance that is found with all cells, and the cells that each share needs, at powers of 0.5 and
        0.8. ``doubled`` has, for cells and depth, each measure ``now`` and ``doubled`` with its interval, from
        :func:`power_law` and the power from :func:`power_curve`. ``components`` is :func:`component_audit`, ``removal``
        :func:`component_removal` and ``certificate`` the table of :func:`certificate` for knockoffs.

    Raises
    ------
    ValueError
        On arrays as :func:`learning_curve`, :func:`component_audit` and :func:`certificate` refuse them.

    Notes
    -----
    The verdict is that of the certificate at q = 0.2. A level is *carried* where its rate holds and power is above 5 %.
    ``I0``: no level. ``I1``: some, but not linear effects, logic and counts all three: statements about groups of
    regulators or rough ranks at most. ``I2``: these three: single edges, if nothing hidden acts. ``I3``: also
    regulators measured at half the depth and a hidden cause.

    Intervals of ``detectable`` and ``doubled`` resample the random choices of the learning curve. They say how far
    another choice of the same cells could lie off, not another experiment.

    Examples
    --------
    >>> import numpy as np
    >>> from sctrellis import metrics
    >>> rng = np.random.default_rng(0)
    >>> x = rng.gamma(2.0, size=(100, 8))
    >>> y = x @ rng.normal(size=(8, 20)) + rng.normal(size=(100, 20))
    >>> found = metrics.information(x, y, fractions=[0.5, 1], r2=[0.2, 0.4], n_targets=20, n_repeats=2, n_sims=2)
    >>> found.code in ("I0", "I1", "I2", "I3")
    True
    """
    x, y, _ = check_arrays(x, y, None)
    n, p = x.shape
    q, seed, workers = check_level(q), checks.seed(seed), checks.n_jobs(n_jobs)
    children = [int(s.generate_state(1)[0]) for s in np.random.SeedSequence(seed).spawn(5)]
    curve = learning_curve(
        x,
        y,
        counts=counts,
        total=total,
        fractions=fractions,
        r2=r2,
        q=q,
        n_targets=n_targets,
        n_repeats=n_repeats,
        n_draws=n_draws,
        seed=children[0],
        n_jobs=workers,
    )
    both = np.concatenate([x, y], axis=1)
    known = {"genes detected": (both > 0).sum(axis=1).astype(np.float64)}
    # Where every gene is above 0 in all cells, the number says nothing.
    known = {name: column for name, column in known.items() if np.ptp(column) > 0} | dict(covariates or {})
    named = [np.asarray(v, dtype=np.float64).reshape(n, -1) for v in (covariates or {}).values()]
    audited = component_audit(both, known) if known else _no_components()
    removal = component_removal(
        x,
        y,
        covariates=np.concatenate(named, axis=1) if named else None,
        q=q,
        n_draws=n_draws,
        seed=children[1],
    )
    levels = [level for level in _LEVELS if level != "measurement" or x.min() >= 0]
    held = certificate(
        x,
        y,
        levels=levels,
        n_sims=n_sims,
        n_targets=n_targets,
        q=sorted({q, VERDICT_Q}),
        n_draws=n_draws,
        seed=children[2],
        n_jobs=workers,
    ).table
    least, doubled = detectable(curve, n_tested=2 * n_targets, n_boot=_N_BOOT, seed=children[3])
    fitted = Generator.fit(x, rng=np.random.default_rng(children[4]))
    eigenvalues = np.linalg.eigvalsh(fitted.correlation)
    size = _sizes(x, both, groups)
    counted = np.full(p, np.nan)
    if counts is not None:
        whole = np.asarray(counts)
        sums = whole.sum(axis=1) if total is None else total
        counted = measurement_reliability(whole[:, :p], sums, seed=children[4])
    found = {
        "size": size,
        "curve": curve,
        "detectable": least,
        "doubled": doubled,
        "components": audited,
        "removal": removal,
        "certificate": held,
        "detection": (x > 0).mean(axis=0),
        "reliability": counted,
        "group": collinear_groups(x),
        "diagnostics": {
            "shrinkage": fitted.shrinkage,
            "mean_s": float(fitted.s.mean()),
            "condition": float(eigenvalues[-1] / eigenvalues[0]),
        },
    }
    code, sentence = verdict(held)
    return Information(**found, code=code, words=[sentence, *findings(found, n, q)])


def _no_components() -> pd.DataFrame:
    return pd.DataFrame({"component": [0], "share": [np.nan], "covariate": ["none"], "adjusted_r2": [np.nan]}).iloc[:0]


def _sizes(x: np.ndarray, both: np.ndarray, groups: Any) -> pd.DataFrame:
    cases = [("all genes", both), ("regulators", x)]
    if groups is not None:
        names = np.asarray(groups).astype(str)
        parts = {name: both[names == name] for name in np.unique(names)}
        cases += [(f"cells of {name}", part) for name, part in parts.items() if len(part) >= _LEAST_GROUP]
        if len(parts) >= _LEAST_GROUP:
            cases.append(("means of groups", np.array([part.mean(axis=0) for part in parts.values()])))
    lines = []
    for name, part in cases:
        if (np.ptp(part, axis=0) > 0).sum() > 1:
            lines.append({"what": name, **asdict(effective_size(part))})
    return pd.DataFrame(lines)
