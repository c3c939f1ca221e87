"""What learning curves say of other numbers of cells, and of other effects."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd

from sctrellis.metrics._power_curve import PowerCurve, power_curve
from sctrellis.metrics._power_law import power_law

POWERS = (0.5, 0.8)


def detectable(table: pd.DataFrame, *, n_tested: int, n_boot: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Find the least effect that a set of cells shows, and what twice the cells or the depth would bring.

    Parameters
    ----------
    table
        What :func:`learning_curve` returned.
    n_tested
        True pairs behind each power.
    n_boot
        Resamples of the repeats for the intervals; with one repeat there are none.
    seed
        Seed of the resamples.

    Returns
    -------
    least : DataFrame
        ``power``; ``quantity``, ``"r2"`` with all the cells, or ``"cells"`` for targets of the share in ``effect``;
        ``value`` and its 95 % interval, ``low`` and ``high``.
    doubled : DataFrame
        ``axis``, ``measure``, ``effect``; the measure ``now``, as the curve has it, and ``doubled``, with its interval.
    """
    seeds = iter(np.random.SeedSequence(seed).spawn(len(table)))
    power = table[(table["axis"] == "cells") & (table["measure"] == "power")]
    n, effects = int(power["n_cells"].max()), sorted(power["effect"].unique())
    curves = list(_resampled(power, lambda rows: _curve(rows, n_tested), n_boot, next(seeds)))
    least = []
    for level in POWERS:
        line: dict[str, Any] = {"power": level, "quantity": "r2", "effect": np.nan}
        least.append({**line, **_interval([c.minimum_r2(n, level) for c in curves], "value")})
        for effect in effects:
            line = {"power": level, "quantity": "cells", "effect": effect}
            least.append({**line, **_interval([c.n_cells(effect, level) for c in curves], "value")})
    doubled = []
    for (axis, measure, effect), rows in table.groupby(["axis", "measure", "effect"], dropna=False, sort=False):
        if measure == "power" and axis == "cells":
            values = [(c.power(n, effect), c.power(2 * n, effect)) for c in curves]
        elif rows["fraction"].nunique() < 2:
            continue
        else:
            values = list(_resampled(rows, _law, n_boot, next(seeds)))
        line = {"axis": axis, "measure": measure, "effect": effect, "now": float(values[0][0])}
        doubled.append({**line, **_interval([float(v) for _, v in values], "doubled")})
    columns = ["axis", "measure", "effect", "now", "doubled", "low", "high"]
    return pd.DataFrame(least), pd.DataFrame(doubled, columns=columns)


def _resampled(
    rows: pd.DataFrame, fit: Callable[[pd.DataFrame], Any], n_boot: int, seed: np.random.SeedSequence
) -> Iterable[Any]:
    """Yield a fit to all repeats, then fits to random ones."""
    yield fit(rows)
    repeats = [part for _, part in rows.groupby("repeat")]
    rng = np.random.default_rng(seed)
    for _ in range(n_boot if len(repeats) > 1 else 0):
        yield fit(pd.concat([repeats[k] for k in rng.integers(len(repeats), size=len(repeats))]))


def _curve(rows: pd.DataFrame, n_tested: int) -> PowerCurve:
    mean = rows.groupby(["n_cells", "effect"], as_index=False)["value"].mean()
    return power_curve(mean["n_cells"], mean["effect"], mean["value"], n_tested=n_tested)


def _law(rows: pd.DataFrame) -> tuple[float, float]:
    mean = rows.groupby("fraction")["value"].mean()
    law = power_law(mean.index, mean.to_numpy())
    return float(law(1.0)), float(law(2.0))


def _interval(values: list[float], name: str) -> dict[str, float]:
    low, high = np.quantile(values[1:], [0.025, 0.975], method="nearest") if len(values) > 1 else (np.nan, np.nan)
    return {name: values[0], "low": float(low), "high": float(high)}
