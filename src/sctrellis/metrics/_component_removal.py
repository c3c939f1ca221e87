from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from sctrellis._core import checks
from sctrellis.metrics._components import components
from sctrellis.metrics._knockoff_filter import check_level, family_qvalues
from sctrellis.metrics._knockoffs import check_arrays, knockoffs
from sctrellis.metrics._partial_test import partial_test


def component_removal(
    x: Any,
    y: Any,
    *,
    n_components: Sequence[int] = (0, 5, 10, 20),
    covariates: Any = None,
    q: float = 0.1,
    n_draws: int = 10,
    seed: int | None = 0,
) -> pd.DataFrame:
    """Count the discoveries that are left when the leading components of expression are conditioned on.

    Parameters
    ----------
    x : (n, p)
        Regulators, none of them constant.
    y : (n, m)
        Targets.
    n_components
        Numbers of principal components of regulators and targets together. Those above half of the regulators or a
        quarter of the cells are left out: they would explain the regulators themselves.
    covariates : (n, k)
        Known covariates, for a row of their own; None for none.
    q
        False discovery rate, in (0, 1).
    n_draws
        Draws of knockoffs.
    seed
        Seed of the knockoffs, in [0, 2**32); None draws one.

    Returns
    -------
    DataFrame
        One row per set of conditions, with the columns ``removed`` in words, ``n_columns``, and the number of pairs
        with a q-value of at most `q` in ``partial_test`` (NaN where least squares has no answer: fewer cells than
        regulators, or regulators that follow from others) and in ``knockoffs``, mean over draws that are each judged by
        itself.

    Raises
    ------
    ValueError
        On arrays as :func:`knockoffs` refuses them, and numbers out of range.

    Notes
    -----
    Discoveries that vanish with a few components rest on what all genes share: type of cell, depth, batch, a hidden
    cause. That does not make those that stay right, nor those that go wrong: components are made of the targets too,
    and conditioning on an effect makes its causes dependent.

    References
    ----------
    :cite:p:`kernfeld2024`.

    Examples
    --------
    >>> import numpy as np
    >>> from sctrellis import metrics
    >>> rng = np.random.default_rng(0)
    >>> hidden = rng.normal(size=(300, 1))
    >>> x, y = rng.normal(size=(300, 10)) + hidden, rng.normal(size=(300, 30)) + 2 * hidden
    >>> found = metrics.component_removal(x, y, n_components=[0, 1])
    >>> bool(found["partial_test"].iloc[0] > 20 * found["partial_test"].iloc[1])
    True
    """
    x, y, covariates = check_arrays(x, y, covariates)
    numbers = [checks.integer("n_components", k, minimum=0) for k in n_components]
    q, n_draws, seed = check_level(q), checks.integer("n_draws", n_draws), checks.seed(seed)
    most = min(x.shape[1] // 2, len(x) // 4)
    kept = [k for k in numbers if k <= most]
    scores = components(np.concatenate([x, y], axis=1), max(kept, default=0))[0] * np.sqrt(len(x))
    cases = [(f"{k} components" if k else "nothing", scores[:, :k] if k else None) for k in kept]
    if covariates is not None:
        cases.append(("covariates", covariates))
    lines = []
    for words, known in cases:
        draws = knockoffs(x, y, covariates=known, n_draws=n_draws, seed=seed, n_jobs=1).draws
        tested = np.ones(draws.shape[1:], dtype=bool)
        selected = [(family_qvalues(draw[None], tested, "network", q) <= q).sum() for draw in draws]
        try:
            partial = float((partial_test(x, y, covariates=known).qvalue <= q).sum())
        except ValueError:  # the arrays are sound: least squares has no answer for them
            partial = np.nan
        columns = 0 if known is None else known.shape[1]
        line = {"removed": words, "n_columns": columns, "partial_test": partial}
        lines.append({**line, "knockoffs": float(np.mean(selected))})
    return pd.DataFrame(lines)
