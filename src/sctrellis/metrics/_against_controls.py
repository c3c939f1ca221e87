"""A statistic over genes beside the same statistic of controls, with intervals and a verdict."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from sctrellis.metrics._bootstrap import MIN_GROUPS

Verdict = Literal["reproduced", "reversed", "not distinguishable from control", "not reproduced", "undecided"]
Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]
MIN_DIFFERENCE = 0.1
"""Difference to the controls below which nothing is called real."""
_REPLICATES = 64
"""Replicates computed at once."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What is measured less what the controls give, and its 95 % interval; `control` is the mean of the controls."""

    control: float
    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Against:
    """A statistic with its 95 % interval, its difference to each kind of control, and how many genes it is over."""

    value: float
    low: float
    high: float
    n_genes: int
    differences: Mapping[str, Difference]


def spearman(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return Spearman's correlation along the last axis; NaN where one side does not vary."""
    ranks = [stats.rankdata(values, axis=-1) for values in np.broadcast_arrays(first, second)]
    one, other = (r - r.mean(axis=-1, keepdims=True) for r in ranks)
    scale = np.sqrt((one**2).sum(axis=-1) * (other**2).sum(axis=-1))
    return np.divide((one * other).sum(axis=-1), scale, out=np.full(scale.shape, np.nan), where=scale > 0)


def spread(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the distance from the 5 % to the 95 % quantile along the last axis; ignores the second argument."""
    low, high = np.quantile(first, [0.05, 0.95], axis=-1)
    return high - low


def against_controls(
    values: np.ndarray,
    quantity: np.ndarray,
    controls: Mapping[str, np.ndarray],
    *,
    statistic: Statistic = spearman,
    n_boot: int = 500,
    seed: int = 0,
) -> Against:
    """Compute a statistic of `values` and `quantity`, and the same for controls in place of `values`.

    Parameters
    ----------
    values : (n_genes,)
        What is measured; genes with NaN anywhere are left out.
    quantity : (n_genes,)
        What it is related to.
    controls
        Kind of control to values, shape (n_controls, n_genes).
    statistic
        Function of two arrays that reduces the last axis.
    n_boot
        Bootstrap replicates; 0 leaves limits NaN.
    seed
        Seed of the bootstrap.

    Returns
    -------
    Against
        Percentile intervals. A replicate resamples genes, the same for measured and control values, and draws one of
        the controls, so that the interval of a difference holds the spread between controls too. Limits are NaN below
        10 genes.
    """
    every = [np.atleast_2d(values), np.atleast_2d(quantity), *(np.atleast_2d(c) for c in controls.values())]
    kept = np.isfinite(np.concatenate(every)).all(axis=0)
    n = int(kept.sum())
    values, quantity = np.asarray(values)[kept], np.asarray(quantity)[kept]
    controls = {name: np.atleast_2d(c)[:, kept] for name, c in controls.items()}
    nothing = float("nan")
    if n < 2:
        lost = {name: Difference(control=nothing, value=nothing, low=nothing, high=nothing) for name in controls}
        return Against(value=nothing, low=nothing, high=nothing, n_genes=n, differences=lost)

    estimate = float(statistic(values, quantity))
    usual = {name: float(np.mean(statistic(c, quantity))) for name, c in controls.items()}
    rng = np.random.default_rng(seed)
    n_boot = n_boot if n >= MIN_GROUPS else 0
    measured, differences = np.zeros(n_boot), {name: np.zeros(n_boot) for name in controls}
    for start in range(0, n_boot, _REPLICATES):
        part = slice(start, min(start + _REPLICATES, n_boot))
        drawn = rng.integers(n, size=(part.stop - start, n))
        measured[part] = statistic(values[drawn], quantity[drawn])
        for name, c in controls.items():
            which = rng.integers(len(c), size=len(drawn))
            differences[name][part] = measured[part] - statistic(c[which[:, None], drawn], quantity[drawn])
    low, high = _interval(measured)
    return Against(
        value=estimate,
        low=low,
        high=high,
        n_genes=n,
        differences={
            name: Difference(
                **dict(zip(("low", "high"), _interval(found), strict=True)),
                control=usual[name],
                value=estimate - usual[name],
            )
            for name, found in differences.items()
        },
    )


def _interval(replicates: np.ndarray) -> tuple[float, float]:
    if len(replicates) == 0 or np.isnan(replicates).all():
        return float("nan"), float("nan")
    low, high = np.nanpercentile(replicates, [2.5, 97.5])
    return float(low), float(high)


def verdict(found: Against, sign: Literal[1, -1]) -> tuple[Verdict, str]:
    """Say what has become of a claim that a statistic is positive (`sign` 1) or negative (-1), and why.

    Returns
    -------
    verdict, reason
        ``"reproduced"`` where the statistic and its difference to every kind of control have the claimed sign, both
        intervals exclude 0 and the difference is at least 0.1; ``"reversed"`` where all that holds with the other
        sign; ``"not distinguishable from control"`` where some kind of control is not that far away;
        ``"not reproduced"`` where all are, but the statistic cannot be told from 0 or is weaker than the controls';
        ``"undecided"`` without intervals or controls.
    """
    limits = [found.low, found.high, *(v for d in found.differences.values() for v in (d.low, d.high))]
    if np.isnan(limits).any():
        return "undecided", f"no intervals: {found.n_genes} genes, or no replicates"
    if not found.differences:
        return "undecided", "no controls"
    away = _sign(found.low, found.high)
    signs = {
        name: _sign(d.low, d.high) if abs(d.value) >= MIN_DIFFERENCE else 0 for name, d in found.differences.items()
    }
    close = [name for name, s in signs.items() if s == 0]
    if close:
        return "not distinguishable from control", f"as {' and '.join(close)}"
    if away == 0:
        return "not reproduced", "differs from the controls, but not from 0"
    if any(s != away for s in signs.values()):
        more = [name for name, s in signs.items() if s != away]
        return "not reproduced", f"stronger with {' and '.join(more)}"
    words = "beyond all controls"
    return ("reproduced", words) if away == sign else ("reversed", words)


def _sign(low: float, high: float) -> int:
    return int(low > 0) - int(high < 0)
