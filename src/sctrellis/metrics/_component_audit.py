from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from sctrellis._core import checks
from sctrellis.metrics._components import components
from sctrellis.metrics._knockoff_generator import basis

TOGETHER = "together"
"""Name of all covariates at once."""


def component_audit(x: Any, covariates: Mapping[str, Any], *, n_components: int = 10) -> pd.DataFrame:
    r"""Measure how much of the principal components of expression known covariates explain.

    Parameters
    ----------
    x : (n, p)
        Expression.
    covariates
        Name to a column or matrix of n rows; a category comes as its indicators.
    n_components
        Number of principal components, at least 1.

    Returns
    -------
    DataFrame
        One row per component and covariate, with the columns ``component`` (from 1; 0 for the mean over components,
        weighted by their variance), ``share`` of the variance of all genes, ``covariate`` (``"together"`` for all at
        once, where there are several) and ``adjusted_r2``.

    Raises
    ------
    ValueError
        If there is no covariate, one has another number of rows or values that are not finite, or a number is out of
        range.

    Notes
    -----
    :math:`1 - (1 - R^2)(n - 1)/(n - k - 1)` with k columns: zero on average for a covariate that says nothing, so that
    many categories do not look like an explanation. A little below zero is zero. It is NaN with k >= n - 1.

    A component that depth or batch explains is not regulation. One that none explains may be: cell type, cycle, or a
    batch that nobody wrote down.

    Examples
    --------
    >>> import numpy as np
    >>> from sctrellis import metrics
    >>> rng = np.random.default_rng(0)
    >>> batch = rng.integers(0, 2, size=300)
    >>> x = rng.normal(size=(300, 40)) + 2 * batch[:, None]
    >>> table = metrics.component_audit(x, {"batch": batch}, n_components=2)
    >>> table["adjusted_r2"].round(1).tolist()[:2]
    [1.0, -0.0]
    """
    x = np.asarray(x, dtype=np.float64)
    n_components = checks.integer("n_components", n_components)
    if not covariates:
        msg = "Expected `covariates` to hold at least one covariate, found none."
        raise ValueError(msg)
    designs = {}
    for name, values in covariates.items():
        design = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
        if len(design) != len(x) or not np.isfinite(design).all():
            msg = f"Expected `covariates[{name!r}]` to hold {len(x):,} finite rows, found shape {design.shape}."
            raise ValueError(msg)
        designs[name] = design
    if len(designs) > 1:
        designs[TOGETHER] = np.concatenate(list(designs.values()), axis=1)
    scores, share = components(x, n_components)
    lines = []
    for name, design in designs.items():
        found = adjusted_r2(scores, design)
        numbers = [*found, float(found @ share / share.sum())]
        for i, value in enumerate(numbers):
            of_all = i == len(found)
            line = {"component": 0 if of_all else i + 1, "share": share.sum() if of_all else share[i]}
            lines.append({**line, "covariate": name, "adjusted_r2": value})
    return pd.DataFrame(lines)


def adjusted_r2(y: np.ndarray, design: np.ndarray) -> np.ndarray:
    """Return the adjusted share of the variance of each column that a design explains, a constant aside."""
    n = len(y)
    directions = basis(np.column_stack([np.ones(n), design - design.mean(axis=0)]))
    k = directions.shape[1] - 1
    if n - k - 1 < 1:
        return np.full(y.shape[1], np.nan)
    centred = y - y.mean(axis=0)
    left = centred - directions @ (directions.T @ centred)
    return 1 - (left**2).sum(axis=0) / (centred**2).sum(axis=0) * (n - 1) / (n - k - 1)
