from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from joblib import Parallel, delayed

from sctrellis._core import checks
from sctrellis.metrics._exchangeability import exchangeability
from sctrellis.metrics._knockoff_filter import check_level, family_qvalues
from sctrellis.metrics._knockoff_generator import LAWS, Generator, Law, residual
from sctrellis.metrics._knockoff_spread import SPREADS, Spread
from sctrellis.metrics._lasso import lasso

Family = Literal["network", "target"]
Statistic = Literal["lasso"]
FAMILIES: tuple[Family, ...] = get_args(Family)
STATISTICS: tuple[Statistic, ...] = get_args(Statistic)


@dataclass(frozen=True, kw_only=True)
class Knockoffs:
    """Regulators against their knockoffs, for every target.

    Parameters
    ----------
    statistic : float32, (p, m)
        How much more a regulator explains than its knockoff does, mean over the draws, with the sign of its effect; 0
        where it explains no more.
    qvalue : float32, (p, m)
        q-value of each pair; NaN for self pairs.
    draws : float32, (n_draws, p, m)
        The signed statistic of each draw, from which q-values of a subset of pairs are computed.
    diagnostics
        ``shrinkage`` of the correlation matrix, ``mean_s`` (1: knockoffs as good as independent of their regulators, 0:
        copies), and what :func:`exchangeability` found on the first draw.
    """

    statistic: np.ndarray
    qvalue: np.ndarray
    draws: np.ndarray = field(repr=False)
    diagnostics: dict[str, float]


def knockoffs(
    x: Any,
    y: Any,
    *,
    own: Any = None,
    covariates: Any = None,
    family: Family = "network",
    generator: Law = "copula",
    statistic: Statistic = "lasso",
    spread: Spread = "mvr",
    q: float = 0.1,
    n_draws: int = 10,
    seed: int | None = 0,
    n_jobs: int | None = None,
) -> Knockoffs:
    r"""Test which regulators say something of a target that all other regulators do not, at a false discovery rate.

    Parameters
    ----------
    x : (n, p)
        Regulators, none of them constant.
    y : (n, m)
        Targets; constant ones get no edge.
    own : (m,)
        Which regulator each target is, -1 for none; None for none at all. A regulator is no regulator of itself.
    covariates : (n, k)
        Known covariates. Knockoffs follow them as the regulators do, and they are taken off everything before the
        regression; they are not tested.
    family
        Hypotheses that are judged together: ``"network"`` all pairs, ``"target"`` those of each target.
    generator
        Law of the regulators: ``"copula"`` (any values, normal dependence), ``"gaussian"``, or ``"mixture"`` (up to
        four clusters of cells, each normal around its own mean, with one covariance).
    statistic
        ``"lasso"``: difference of absolute lasso coefficients of a regulator and of its knockoff.
    spread
        How far knockoffs lie from their regulators: ``"mvr"`` or ``"maxent"``.
    q
        False discovery rate, in (0, 1), that the e-values of several draws are made for.
    n_draws
        Draws of knockoffs.
    seed
        Seed of all draws, in [0, 2**32); None draws one.
    n_jobs
        Workers, for draws; None is `settings.n_jobs`, -1 all cores. The result does not depend on them.

    Returns
    -------
    Knockoffs
        Statistics, q-values and diagnostics.

    Raises
    ------
    ValueError
        If an array is not finite, a regulator is constant, shapes do not fit, there is only one regulator, or a number
        or name is out of range.

    Notes
    -----
    1. Scores :math:`Z_j = \Phi^{-1}(\operatorname{rank}/(n+1))`, or standardised values for the other laws. Tied
       values, zeros above all, only bound their scores, which are drawn given those of the other regulators (Gibbs
       sampling with the rank likelihood :cite:p:`hoff2007`). :math:`R` is the Ledoit-Wolf correlation matrix
       :cite:p:`ledoit2004` of the scores.
    2. :math:`s` by coordinate descent: minimum reconstructability or maximum entropy :cite:p:`spector2022`.
    3. :math:`\tilde Z = Z (I - R^{-1} S) + N(0, 2S - S R^{-1} S)`, mapped back to the values of the regulator, which
       keeps its zeros. Knockoffs do not see any target. For ``"mixture"`` each cell is drawn into a cluster given its
       regulators, and this is done around the mean of the cluster :cite:p:`gimenez2019`; the law comes from stochastic
       EM :cite:p:`celeux1985`, with means that differ in ten principal components.
    4. A target that is a regulator itself needs knockoffs of the others alone: a rank-one change of those of all.
    5. :math:`W_{jk} = |\beta_{jk}| - |\tilde\beta_{jk}|` from the lasso of the target on regulators and knockoffs, all
       standardised, with :math:`\lambda = \tfrac12 \sqrt{2 \ln 2p / n}`.
    6. One draw: :func:`knockoff_qvalues`. Several: the e-values of the filter at level 0.4 q are averaged and go
       through :func:`e_bh` :cite:p:`ren2024`, which keeps the power of a single draw at less than half the rate of
       false discoveries. Their q-values are meant to be compared with `q`; far from it they are coarse. (The paper
       takes 0.5 q. Where single draws select now 300 and now 600 pairs, this leaves nothing.)

    Pairs whose target is a regulator form a family of their own: knockoffs test whether a regulator is in the *Markov
    blanket* of the target, which between regulators also holds the other regulators of a shared target.

    Pooling over targets has no finite-sample theorem, for the same knockoffs serve all of them. In simulations it
    holds, while families of single regulators and a ridge statistic do not, so that neither is offered. Nor is
    averaging W over draws before the filter: its false discovery rate was 0.36 to 0.53 at 0.1. Everything rests on
    regulators that are measured without error and targets without hidden causes, which cells do not grant.

    Breaking ties at random instead is simpler and wrong: it loses the part of the correlation that lies in the zeros,
    and with zero-inflated regulators the false discovery rate was 0.17 to 0.33 at 0.1.

    Cost: O(n p^2) a draw and about a millisecond a target; eight times O(n p^2) before, where values are tied; and
    O(n p^2) for each target that is a regulator.

    References
    ----------
    :cite:p:`candes2018,spector2022,ren2024`; knockoffs for regulatory networks and what they cannot do:
    :cite:p:`kernfeld2024`.

    Examples
    --------
    >>> import numpy as np
    >>> from sctrellis import metrics
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(300, 20))
    >>> y = x + np.roll(x, 1, axis=1) + rng.normal(size=(300, 20))
    >>> found = metrics.knockoffs(x, y, n_draws=3).qvalue <= 0.1
    >>> bool(found.diagonal().all())
    True
    """
    checks.choice("family", family, FAMILIES)
    checks.choice("generator", generator, LAWS)
    checks.choice("statistic", statistic, STATISTICS)
    checks.choice("spread", spread, SPREADS)
    q, n_draws = check_level(q), checks.integer("n_draws", n_draws)
    seed, workers = checks.seed(seed), checks.n_jobs(n_jobs)
    x, y, covariates = check_arrays(x, y, covariates)
    p, m = x.shape[1], y.shape[1]
    own = check_own(own, p, m)
    checks.dense_size((n_draws, p, m), "The statistics of all draws", "Name fewer targets or use fewer draws.")

    first, *children = np.random.SeedSequence(seed).spawn(n_draws + 2)
    rng = np.random.default_rng(first)
    fitted = Generator.fit(x, law=generator, method=spread, covariates=covariates, rng=rng)
    regressors = _standardised(x if covariates is None else residual(x, covariates))
    targets = _standardised(y if covariates is None else residual(y, covariates))
    problem = _Problem(fitted, regressors, targets, own, covariates)
    draws = np.empty((n_draws, p, m), dtype=np.float32)
    effects = np.zeros((p, m), dtype=np.float32)
    results = Parallel(n_jobs=workers, return_as="generator")(delayed(problem.draw)(c) for c in children[:n_draws])
    for i, (difference, effect) in enumerate(results):
        draws[i] = difference
        effects += effect

    tested = np.ones((p, m), dtype=bool)
    is_regulator = own >= 0
    tested[own[is_regulator], np.flatnonzero(is_regulator)] = False
    qvalue = np.full((p, m), np.nan, dtype=np.float32)
    for part in (~is_regulator, is_regulator):
        qvalue[:, part] = family_qvalues(draws[:, :, part], tested[:, part], family, q)
    drawn = fitted.values_of(fitted.draw(np.random.default_rng(children[-1])))
    diagnostics = {"shrinkage": fitted.shrinkage, "mean_s": float(fitted.s.mean())}
    diagnostics |= exchangeability(x, drawn, seed=seed)
    mean = np.maximum(draws.mean(axis=0), 0) * np.sign(effects)
    return Knockoffs(statistic=mean, qvalue=qvalue, draws=draws, diagnostics=diagnostics)


@dataclass(frozen=True)
class _Problem:
    """What every draw needs: the generator, and regulators and targets standardised, covariates taken off."""

    generator: Generator
    regressors: np.ndarray
    targets: np.ndarray
    own: np.ndarray
    covariates: np.ndarray | None

    def draw(self, seed: np.random.SeedSequence) -> tuple[np.ndarray, np.ndarray]:
        """Return the statistics of one draw and the coefficients of the regulators, float32, (p, m)."""
        rng = np.random.default_rng(seed)
        x, y = self.regressors, self.targets
        (n, p), m = x.shape, y.shape[1]
        difference, effect = np.zeros((2, p, m), dtype=np.float32)
        drawn = self.generator.draw(rng)
        inner = x.T @ x / n
        plain = np.flatnonzero(self.own < 0)
        if len(plain):
            found = self._fit(inner, x, self.generator.values_of(drawn), y[:, plain])
            difference[:, plain], effect[:, plain] = found
        for j in np.flatnonzero(self.own >= 0):
            others = np.flatnonzero(np.arange(p) != self.own[j])
            without = self.generator.values_of(self.generator.without(self.own[j], drawn, rng), others)
            found = self._fit(inner[np.ix_(others, others)], x[:, others], without, y[:, [j]])
            difference[others, j], effect[others, j] = (part[:, 0] for part in found)
        return difference, effect

    def _fit(
        self, inner: np.ndarray, x: np.ndarray, knockoff: np.ndarray, y: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        n, p = x.shape
        other = _standardised(knockoff if self.covariates is None else residual(knockoff, self.covariates))
        gram = np.empty((2 * p, 2 * p), dtype=np.float32)
        gram[:p, :p], gram[:p, p:], gram[p:, p:] = inner, x.T @ other / n, other.T @ other / n
        gram[p:, :p] = gram[:p, p:].T
        moments = np.concatenate([x.T @ y, other.T @ y]) / n
        found = lasso(gram, moments, 0.5 * np.sqrt(2 * np.log(2 * p) / n))
        return np.abs(found[:p]) - np.abs(found[p:]), found[:p]


def _standardised(x: np.ndarray) -> np.ndarray:
    """Return columns with mean 0 and variance 1, float32; constant ones are 0."""
    centred = x - x.mean(axis=0)
    std = centred.std(axis=0)
    return (centred / np.where(std > 1e-7, std, np.inf)).astype(np.float32)


def check_arrays(x: Any, y: Any, covariates: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return regulators, targets and covariates as finite float64 matrices of as many rows."""
    x, y = (np.asarray(a, dtype=np.float64) for a in (x, y))
    covariates = None if covariates is None else np.asarray(covariates, dtype=np.float64)
    for name, a in (("x", x), ("y", y), ("covariates", covariates)):
        if a is None:
            continue
        if a.ndim != 2 or len(a) != len(x) or 0 in a.shape:
            msg = f"Expected `{name}` to be a matrix of as many rows as `x`, found shape {a.shape}."
            raise ValueError(msg)
        if not np.isfinite(a).all():
            msg = f"`{name}` has {int((~np.isfinite(a)).sum()):,} NaN or infinite values."
            raise ValueError(msg)
    n, p = x.shape
    if n < checks.MIN_CELLS or p < 2:
        msg = f"Expected `x` to have at least {checks.MIN_CELLS} rows and 2 columns, found shape {x.shape}."
        raise ValueError(msg)
    constant = np.flatnonzero(np.ptp(x, axis=0) == 0)
    if len(constant):
        msg = f"{len(constant)} of the {p} columns of `x` are constant (first at {constant[0]}). Leave them out."
        raise ValueError(msg)
    return x, y, covariates


def check_own(own: Any, p: int, m: int) -> np.ndarray:
    """Return which regulator each target is, -1 for none."""
    if own is None:
        return np.full(m, -1)
    own = np.asarray(own)
    if own.shape != (m,) or own.dtype.kind not in "iu" or not ((own >= -1) & (own < p)).all():
        msg = f"Expected `own` to be {m} integers from -1 to {p - 1}, one per column of `y`."
        raise ValueError(msg)
    return own
