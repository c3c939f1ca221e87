from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy.linalg import cho_factor, cho_solve
from sklearn.linear_model import RidgeCV

from sctrellis._core import checks
from sctrellis.metrics._effective_size import standardised
from sctrellis.metrics._knockoff_correlation import shrunk_correlation
from sctrellis.metrics._knockoff_filter import check_level, family_qvalues
from sctrellis.metrics._knockoffs import check_arrays, knockoffs
from sctrellis.metrics._measurement_reliability import check_counts
from sctrellis.metrics._planted import Planter
from sctrellis.metrics._thinning import Counts

FRACTIONS = (0.125, 0.25, 0.5, 1.0)
EFFECTS = (0.05, 0.1, 0.2, 0.4)
_LEAST_CELLS = 20
_HELD_OUT = 0.25
_TOP = 0.01
_PENALTIES = np.geomspace(1e-3, 10, 9)


def learning_curve(
    x: Any,
    y: Any,
    *,
    counts: Any = None,
    total: Any = None,
    fractions: Sequence[float] = FRACTIONS,
    r2: Sequence[float] = EFFECTS,
    q: float = 0.1,
    n_targets: int = 200,
    n_repeats: int = 3,
    n_draws: int = 10,
    seed: int | None = 0,
    n_jobs: int | None = None,
) -> pd.DataFrame:
    r"""Measure what fewer cells, or a shallower sequencing, would have told of regulators and targets.

    Parameters
    ----------
    x : (n, p)
        Regulators, none of them constant.
    y : (n, m)
        Targets, none of them constant.
    counts : (n, p + m)
        Counts of regulators and targets, in this order; None leaves out the curves in depth.
    total : (n,)
        Counts of all genes of a cell; None for those in `counts`.
    fractions
        Shares of the cells, and of the molecules, in (0, 1]. Those that leave fewer than 20 cells are left out.
    r2
        Shares of the variance of planted targets that their regulators explain, in (0, 1).
    q
        False discovery rate that the power is measured at, in (0, 1).
    n_targets
        Targets to plant for each share.
    n_repeats
        Random choices of cells and planted targets.
    n_draws
        Draws of knockoffs.
    seed
        Seed of all choices, in [0, 2**32); None draws one.
    n_jobs
        Workers, for points of the curves; None is `settings.n_jobs`, -1 all cores. The result does not depend on them.

    Returns
    -------
    DataFrame
        One row per value, with the columns ``axis`` (``"cells"`` or ``"depth"``), ``fraction``, ``n_cells``,
        ``repeat``, ``measure``, ``effect`` (the planted share; NaN for other measures) and ``value``. Measures:

        ``"r2"``
            Share of the variance of real targets, in cells that were held out (a quarter), that a ridge regression on
            the regulators explains; its penalty comes from leave-one-out. ``n_cells`` are those it was fitted to.
        ``"jaccard"``
            Overlap of the top 1 % of pairs (10 at least), by shrunk regression coefficients, in two halves of the
            cells.
        ``"power"``
            Share of true pairs that knockoffs find on targets planted as in :func:`certificate` with linear
            effects.

    Raises
    ------
    ValueError
        On arrays as :func:`knockoffs` refuses them, constant targets, counts that are none, fewer than 20 cells, and
        numbers out of range.

    Notes
    -----
    Fewer cells are nested: each choice holds the smaller ones. Less depth keeps each molecule with the probability
    `fraction`, and log-normalises again. Targets are planted on the regulators as they are in all cells, at full depth:
    what the method then sees of the regulators may be less. A regulator that is constant in what is left counts as
    missed.

    Knockoffs select no pair where fewer than some 25 stand out at q = 0.1, so that with few planted targets a small
    power shows as none.

    Cost: one fit of :func:`knockoffs` with `n_targets` targets for each share of each point.

    Examples
    --------
    >>> import numpy as np
    >>> from sctrellis import metrics
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(200, 10))
    >>> y = x @ rng.normal(size=(10, 30)) + rng.normal(size=(200, 30))
    >>> table = metrics.learning_curve(x, y, fractions=[0.25, 1], n_targets=30, n_repeats=1)
    >>> power = table[(table["measure"] == "power") & (table["effect"] == 0.2)]["value"]
    >>> bool(power.iloc[0] < power.iloc[1])
    True
    """
    x, y, _ = check_arrays(x, y, None)
    constant = int((np.ptp(y, axis=0) == 0).sum())
    if constant:
        msg = f"{constant} of the {y.shape[1]} columns of `y` are constant. Leave them out."
        raise ValueError(msg)
    shares = sorted(checks.number("fractions", f, low=0, high=1, open_low=True) for f in fractions)
    effects = [checks.number("r2", e, low=0, high=1, open_low=True, open_high=True) for e in r2]
    q, n_targets = check_level(q), checks.integer("n_targets", n_targets)
    n_repeats, n_draws = checks.integer("n_repeats", n_repeats), checks.integer("n_draws", n_draws)
    seed, workers = checks.seed(seed), checks.n_jobs(n_jobs)
    if not shares or not effects or len(x) < _LEAST_CELLS:
        msg = f"Expected `fractions` and `r2` to hold a value each, and at least {_LEAST_CELLS} cells; found {len(x)}."
        raise ValueError(msg)
    whole = None if counts is None else check_counts(counts, total)
    if whole is not None and whole.values.shape != (len(x), x.shape[1] + y.shape[1]):
        msg = f"Expected `counts` to have one column for each regulator and target, found shape {whole.values.shape}."
        raise ValueError(msg)
    problem = _Problem(x, y, whole, Planter.of(x, y, effects[0]), effects, q, n_targets, n_draws)
    points = [("cells", f) for f in shares if round(f * len(x)) >= _LEAST_CELLS]
    points += [("depth", f) for f in shares if whole is not None and f < 1]
    children = np.random.SeedSequence(seed).spawn(n_repeats)
    rows = Parallel(n_jobs=workers)(
        delayed(problem.point)(axis, fraction, i, child)
        for i, child in enumerate(children)
        for axis, fraction in points
    )
    table = pd.DataFrame([line for part in rows for line in part])
    if whole is not None:
        # All molecules of all cells are the end of both curves.
        full = table[(table["axis"] == "cells") & (table["fraction"] == 1)]
        table = pd.concat([table, full.assign(axis="depth")], ignore_index=True)
    return table


@dataclass(frozen=True)
class _Problem:
    """What every point of the curves needs."""

    x: np.ndarray
    y: np.ndarray
    counts: Counts | None
    planter: Planter
    effects: list[float]
    q: float
    n_targets: int
    n_draws: int

    def point(self, axis: str, fraction: float, repeat: int, seed: np.random.SeedSequence) -> list[dict[str, Any]]:
        """Return the rows of one point; the same seed gives the same cells and planted targets at any fraction."""
        n, p = self.x.shape
        # Children of a sequence that was spawned before would be others.
        cells, plant, fit, thin = (np.random.SeedSequence([*seed.generate_state(4), k]) for k in range(4))
        order = np.random.default_rng(cells).permutation(n)
        x, y = self.x, self.y
        if axis == "depth" and self.counts is not None:
            less = self.counts.thinned(fraction, np.random.default_rng(thin))
            seen = less.log_normalised(float(np.median(self.counts.total)) or 1.0).astype(np.float64)
            x, y = seen[:, :p], seen[:, p:]
        share = fraction if axis == "cells" else 1.0
        kept, n_held = order[: round(share * n)], round(_HELD_OUT * n)
        held, train = order[:n_held], order[n_held:][: round(share * (n - n_held))]
        rng = np.random.default_rng(plant)
        planted = [replace(self.planter, r2=e).plant("linear", self.n_targets, rng) for e in self.effects]
        y_planted, true = [part.y[kept] for part in planted], [part.true for part in planted]
        power = _power(x[kept], y_planted, true, self.q, self.n_draws, fit)
        values = [("r2", np.nan, len(train), held_out_r2(x[train], y[train], x[held], y[held]))]
        values.append(("jaccard", np.nan, len(kept), split_half(x[kept], y[kept])))
        values += [("power", e, len(kept), v) for e, v in zip(self.effects, power, strict=True)]
        head = {"axis": axis, "fraction": fraction, "repeat": repeat}
        return [{**head, "n_cells": k, "measure": m, "effect": e, "value": v} for m, e, k, v in values]


def _power(
    x: np.ndarray, y: list[np.ndarray], true: list[np.ndarray], q: float, n_draws: int, seed: np.random.SeedSequence
) -> list[float]:
    """Return the power on several sets of planted targets, each a family of its own."""
    varies = np.ptp(x, axis=0) > 0
    if varies.sum() < 2:
        return [0.0] * len(y)
    number = int(seed.generate_state(1)[0])
    draws = knockoffs(x[:, varies], np.concatenate(y, axis=1), n_draws=n_draws, seed=number, n_jobs=1).draws
    found, start = [], 0
    for part in true:
        own = draws[:, :, start : start + part.shape[1]]
        start += part.shape[1]
        selected = family_qvalues(own, np.ones(own.shape[1:], dtype=bool), "network", q) <= q
        found.append(float((selected & part[varies]).sum() / part.sum()))
    return found


def held_out_r2(x: np.ndarray, y: np.ndarray, x_held: np.ndarray, y_held: np.ndarray) -> float:
    """Return the share of the variance of held-out targets that a ridge regression explains, all targets together."""
    mean, std = x.mean(axis=0), x.std(axis=0)
    kept = std > 1e-9
    centre, scale = y.mean(axis=0), y.std(axis=0)
    known = scale > 1e-9
    if not kept.any() or not known.any():
        return 0.0
    design, new = ((a[:, kept] - mean[kept]) / std[kept] for a in (x, x_held))
    wanted, truth = ((a[:, known] - centre[known]) / scale[known] for a in (y, y_held))
    # With the intercept, though all means are 0: leaving out a cell moves them, and without it the errors of few cells
    # vanish as the penalty does.
    model = RidgeCV(alphas=len(x) * _PENALTIES).fit(design, wanted)
    predicted = model.predict(new).reshape(truth.shape)
    return float(1 - ((truth - predicted) ** 2).sum() / (truth**2).sum())


def split_half(x: np.ndarray, y: np.ndarray) -> float:
    """Return the overlap of the strongest pairs in two halves of the cells, which are in random order."""
    middle, size = len(x) // 2, x.shape[1] * y.shape[1]
    n_top = min(max(10, round(_TOP * size)), size)
    tops = []
    for part in (slice(None, middle), slice(middle, None)):
        z, target = standardised(x[part]).astype(np.float64), standardised(y[part])
        score = np.abs(cho_solve(cho_factor(shrunk_correlation(z)[0]), z.T @ target)).ravel()
        tops.append(np.argpartition(score, size - n_top)[size - n_top :])
    shared = len(np.intersect1d(tops[0], tops[1]))
    return shared / (2 * n_top - shared)
