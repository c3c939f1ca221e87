from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sctrellis._core import checks

MIN_PERTURBATIONS = 5
"""Perturbations below which resampling them says nothing."""


def perturbation_skill(
    mse: Mapping[str, Any],
    *,
    baselines: Sequence[str],
    n_boot: int = 1000,
    level: float = 0.95,
    seed: int | None = 0,
) -> pd.DataFrame:
    r"""How much better than the best baseline are predictions, with intervals over perturbations.

    Parameters
    ----------
    mse
        Mean squared error of each perturbation, shape (n_perturbations,), by method; the same perturbations, in the
        same order, for all.
    baselines
        Methods of `mse` that are baselines.
    n_boot
        Replicates of the bootstrap; 0 leaves limits NaN.
    level
        Coverage of the intervals, in (0, 1).
    seed
        Seed of the resampling, in [0, 2**32); None draws one.

    Returns
    -------
    DataFrame
        One row per method: ``method``, ``value``, ``low``, ``high``, ``best_baseline`` and ``note``. For a baseline the
        value compares with the best of all baselines, itself too: 0 for that one, below 0 for the others.

    Raises
    ------
    KeyError
        If a baseline is none of the methods.
    ValueError
        Without a baseline, on negative or non-finite errors, and on errors of unequal length.

    Notes
    -----
    With :math:`m_a` the mean over perturbations of the errors of method a, skill is
    :math:`1 - m_a / \min_b m_b` over the baselines b: 1 is perfect, 0 as good as the best baseline, below 0 worse. A
    replicate draws perturbations with replacement, never cells or genes. The best of several baselines is lucky, and so
    is the best of a replicate: for the lower limit each replicate takes its own minimum, for the upper limit it keeps
    the baseline that is best on the data, so that the interval errs towards telling nothing. Fewer than 5 perturbations
    have no interval, and fewer than 10 a rough one, likely too narrow; ``note`` says so.

    Examples
    --------
    >>> from sctrellis import metrics
    >>> errors = {"network": [1.0, 2.0], "no_change": [2.0, 4.0], "train_mean": [3.0, 3.0]}
    >>> metrics.perturbation_skill(errors, baselines=["no_change", "train_mean"])[["method", "value"]]
           method  value
    0     network    0.5
    1   no_change    0.0
    2  train_mean    0.0
    """
    n_boot, seed = checks.integer("n_boot", n_boot, minimum=0), checks.seed(seed)
    level = checks.number("level", level, low=0, high=1, open_low=True, open_high=True)
    errors = {str(name): np.asarray(values, dtype=np.float64) for name, values in mse.items()}
    for name in baselines:
        checks.has_slot("baselines", name, errors, "mse")
    if not baselines:
        msg = "`baselines` is empty: skill is what is gained over a baseline. Name at least one method of `mse`."
        raise ValueError(msg)
    shapes = {name: values.shape for name, values in errors.items()}
    if len(set(shapes.values())) != 1 or len(next(iter(shapes.values()))) != 1:
        msg = f"Expected `mse` to hold vectors of equal length, found shapes {shapes}."
        raise ValueError(msg)
    table = np.column_stack(list(errors.values()))
    if not np.isfinite(table).all() or (table < 0).any() or not len(table):
        msg = "Expected `mse` to hold at least one error of each method, finite and not negative."
        raise ValueError(msg)
    at = [list(errors).index(name) for name in baselines]
    mean = table.mean(axis=0)
    if mean[at].min() == 0:
        msg = "A baseline of `mse` has no error at all: nothing can be gained over it."
        raise ValueError(msg)
    note = few(len(table), n_boot)
    best = at[int(np.argmin(mean[at]))]
    replicates = resampled(len(table), n_boot, seed) @ table
    low, high = percentiles(_skill(replicates, at), level)[0], percentiles(_skill(replicates, [best]), level)[1]
    return pd.DataFrame(
        {
            "method": list(errors),
            "value": _skill(mean[None], at)[0],
            "low": low,
            "high": high,
            "best_baseline": list(errors)[best],
            "note": note,
        }
    )


def few(n: int, n_boot: int) -> str:
    """Return what is wrong with an interval over ``n`` perturbations; empty where nothing is."""
    if n_boot == 0:
        return "no replicates (n_boot=0)"
    if n < MIN_PERTURBATIONS:
        return f"only {n} perturbations: an interval needs {MIN_PERTURBATIONS}"
    return f"only {n} perturbations: the interval is rough" if n < 2 * MIN_PERTURBATIONS else ""


def resampled(n: int, n_boot: int, seed: int) -> np.ndarray:
    """Return the share of each perturbation in each replicate, shape (n_boot, n); none where they are too few."""
    if n < MIN_PERTURBATIONS:
        return np.zeros((0, n))
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_boot) / n


def percentiles(replicates: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and upper limit of every column; NaN without replicates."""
    if not len(replicates):
        return np.full(replicates.shape[1], np.nan), np.full(replicates.shape[1], np.nan)
    tail = 50 * (1 - level)
    low, high = np.percentile(replicates, [tail, 100 - tail], axis=0)
    return low, high


def _skill(mean: np.ndarray, baselines: Sequence[int]) -> np.ndarray:
    return 1 - mean / mean[:, baselines].min(axis=1, keepdims=True)
