from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from sctrellis._core import checks
from sctrellis.metrics._knockoff_filter import check_level, family_qvalues
from sctrellis.metrics._knockoffs import check_arrays, knockoffs
from sctrellis.metrics._partial_test import partial_test
from sctrellis.metrics._planted import LEVELS, Level, Planter

Tester = Literal["knockoffs", "partial_test"]
TESTERS: tuple[Tester, ...] = get_args(Tester)
QValues = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
SLACK = 0.02
"""How far the upper bound of a false discovery rate may lie above the nominal one."""
_BOUND = 1.645
_DESCRIBED = {
    "linear": "linear effects",
    "logic": "regulators that act together or by steps",
    "counts": "targets that are counted",
    "measurement": "regulators measured at half the depth",
    "confounder": "a hidden cause",
    "decoys": "regulators that look like true ones",
}


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """False discovery rates of a method on planted targets.

    Parameters
    ----------
    table
        One row per level and nominal rate; see :func:`certificate`.
    stress
        One row per nominal rate; see :func:`certificate`.
    words
        Which levels pass, in words.
    """

    table: pd.DataFrame
    stress: pd.DataFrame
    words: str


def certificate(
    x: Any,
    y: Any,
    method: Tester | QValues = "knockoffs",
    *,
    levels: Sequence[Level] = LEVELS,
    n_sims: int = 20,
    n_targets: int = 100,
    q: Sequence[float] = (0.05, 0.1, 0.2),
    r2: float = 0.3,
    n_draws: int = 10,
    seed: int | None = 0,
    n_jobs: int | None = None,
) -> Certificate:
    r"""Measure the false discovery rate of a method on the user's own regulators, with planted targets.

    Parameters
    ----------
    x : (n, p)
        Real regulators, log-normalised and none of them constant.
    y : (n, m)
        Real targets; planted ones take over the correlation of their noise and their leading component.
    method
        ``"knockoffs"``, ``"partial_test"``, or a function of regulators, targets and a seed that returns q-values,
        regulators x targets.
    levels
        What the planted world is like: ``"linear"`` effects of on average two regulators; ``"logic"``: two regulators
        that act together only, without noise, and steps of one regulator; ``"counts"``: linear effects on the log rate
        of counts; ``"measurement"``: the method sees regulators at half the depth; ``"confounder"``: the leading
        component of the real targets acts as well, and is hidden; ``"decoys"``: regulators without targets are added
        that look like real ones (:math:`r^2` = 0.9).
    n_sims
        Simulations of each level.
    n_targets
        Targets to plant in each.
    q
        Nominal false discovery rates.
    r2
        Share of the variance of a target that its regulators explain, in (0, 1).
    n_draws
        Draws of ``"knockoffs"``.
    seed
        Seed of all simulations, in [0, 2**32); None draws one.
    n_jobs
        Workers, for simulations; None is `settings.n_jobs`, -1 all cores. The result does not depend on them.

    Returns
    -------
    Certificate
        Its ``table`` has the columns ``level``, ``q``, ``fdr`` and ``power`` with ``fdr_se`` and ``power_se``,
        ``decoy_rate`` (share of decoys among the selected pairs; NaN without decoys), ``passes`` and ``n_sims``. A
        level passes where the one-sided 95 % bound of its rate is at most q + 0.02. ``words`` sums up.

        Its ``stress`` has, for each ``q``, the ``level`` with the largest measured rate among those that pass, and
        ``q_stress``: that rate, no smaller than q and never falling in q. NaN where no level passes. It says nothing of
        the levels that fail.

    Raises
    ------
    ValueError
        On arrays as :func:`knockoffs` refuses them, constant targets, negative regulators with ``"measurement"``, and
        numbers out of range.

    Notes
    -----
    Passing is no proof that the real network has this rate: real targets may be unlike all planted ones. Failing is
    the message: where a level fails that the data are likely to resemble, q-values on these data are too small.

    ``"measurement"`` takes the smallest positive value of a cell for one count. That holds for counts divided by the
    cell's total; of other data too little is thinned.

    References
    ----------
    :cite:p:`kernfeld2024`, for tests of error control on real regulators.

    Examples
    --------
    >>> import numpy as np
    >>> from sctrellis import metrics
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.gamma(2.0, size=(200, 10)), rng.gamma(2.0, size=(200, 20))
    >>> found = metrics.certificate(x, y, "partial_test", levels=["linear"], n_sims=5, q=[0.1])
    >>> bool(found.table["power"].item() > 0.9)
    True
    """
    if not callable(method):
        checks.choice("method", method, TESTERS)
    chosen = [levels] if isinstance(levels, str) else list(levels)
    for level in chosen:
        checks.choice("levels", level, LEVELS)
    rates = [check_level(rate) for rate in q]
    if not chosen or not rates:
        msg = "Expected `levels` and `q` to hold at least one value each."
        raise ValueError(msg)
    n_sims, n_targets = checks.integer("n_sims", n_sims, minimum=2), checks.integer("n_targets", n_targets)
    n_draws, seed, workers = checks.integer("n_draws", n_draws), checks.seed(seed), checks.n_jobs(n_jobs)
    r2 = checks.number("r2", r2, low=0, high=1, open_low=True, open_high=True)
    x, y, _ = check_arrays(x, y, None)
    constant = int((np.ptp(y, axis=0) == 0).sum())
    if constant:
        msg = f"{constant} of the {y.shape[1]} columns of `y` are constant. Leave them out."
        raise ValueError(msg)
    if "measurement" in chosen and x.min() < 0:
        msg = f"`x` has negative values (minimum {x.min():.4g}), so the level 'measurement' has no counts to thin."
        raise ValueError(msg)
    planter = Planter.of(x, y, r2)
    seeds = np.random.SeedSequence(seed).spawn(len(LEVELS))
    tasks = [(level, child) for level in chosen for child in seeds[LEVELS.index(level)].spawn(n_sims)]
    results = Parallel(n_jobs=workers)(
        delayed(_simulate)(planter, level, n_targets, method, rates, n_draws, child) for level, child in tasks
    )
    lines = []
    for i, level in enumerate(chosen):
        found = np.array(results[i * n_sims : (i + 1) * n_sims])
        for k, rate in enumerate(rates):
            fdr, power, decoys = found[:, k].mean(axis=0)
            fdr_se, power_se, _ = found[:, k].std(axis=0, ddof=1) / np.sqrt(n_sims)
            line = {"level": level, "q": rate, "fdr": fdr, "fdr_se": fdr_se, "power": power, "power_se": power_se}
            lines.append({**line, "decoy_rate": decoys, "passes": bool(fdr + _BOUND * fdr_se <= rate + SLACK)})
    table = pd.DataFrame(lines).assign(n_sims=n_sims)
    return Certificate(table=table, stress=_stress(table), words=_words(table))


def _simulate(
    planter: Planter,
    level: Level,
    n_targets: int,
    method: Tester | QValues,
    rates: list[float],
    n_draws: int,
    seed: np.random.SeedSequence,
) -> np.ndarray:
    """Return the false discovery proportion, power and share of decoys at each rate, shape (n_rates, 3)."""
    plant, fit = seed.spawn(2)
    world = planter.plant(level, n_targets, np.random.default_rng(plant))
    number = int(fit.generate_state(1)[0])
    if method == "knockoffs":
        draws = knockoffs(world.x, world.y, n_draws=n_draws, seed=number, n_jobs=1).draws
        found = [family_qvalues(draws, np.ones_like(world.true), "network", rate) for rate in rates]
    else:
        test = partial_test(world.x, world.y).qvalue if method == "partial_test" else None
        q = test if test is not None else np.asarray(method(world.x, world.y, number))  # type: ignore[operator]
        if q.shape != world.true.shape:
            msg = f"Expected `method` to return q-values of shape {world.true.shape}, found {q.shape}."
            raise ValueError(msg)
        found = [q] * len(rates)
    decoy = np.arange(len(world.true)) >= len(world.true) - world.n_decoys
    numbers = np.empty((len(rates), 3))
    for k, (q, rate) in enumerate(zip(found, rates, strict=True)):
        selected = q <= rate
        n = max(1, int(selected.sum()))
        numbers[k, :2] = (selected & ~world.true).sum() / n, (selected & world.true).sum() / world.true.sum()
        numbers[k, 2] = selected[decoy].sum() / n if world.n_decoys else np.nan
    return numbers


def _stress(table: pd.DataFrame) -> pd.DataFrame:
    """Return the largest rate that was measured at each nominal one, over the levels that pass."""
    lines, least = [], 0.0
    for rate in np.unique(table["q"]):
        passed = table[(table["q"] == rate) & table["passes"]]
        level, value = "", np.nan
        if len(passed):
            worst = int(passed["fdr"].to_numpy().argmax())
            level = str(passed["level"].iloc[worst])
            value = least = max(least, rate, passed["fdr"].iloc[worst])
        lines.append({"q": rate, "level": level, "q_stress": value})
    return pd.DataFrame(lines)


def _words(table: pd.DataFrame) -> str:
    parts = []
    for rate, lines in table.groupby("q", sort=True):
        passed = [
            f"{_DESCRIBED[line['level']]} (power {line['power']:.2f})" for _, line in lines[lines["passes"]].iterrows()
        ]
        failed = [
            f"{_DESCRIBED[line['level']]} ({line['fdr']:.2f} ± {line['fdr_se']:.2f})"
            for _, line in lines[~lines["passes"]].iterrows()
        ]
        text = (
            f"At q = {rate:g} the rate holds with {', '.join(passed)}"
            if passed
            else f"At q = {rate:g} it holds nowhere"
        )
        parts.append(f"{text}; it fails with {', '.join(failed)}." if failed else f"{text}.")
    return " ".join(parts)
