from typing import Any

import numpy as np
from sklearn.neighbors import NearestNeighbors

from sctrellis._core import checks

MAX_CELLS = 1000
"""Cells that the swap test takes: distances of all pairs are computed."""
_NEIGHBOURS = 5


def exchangeability(x: Any, knockoffs: Any, *, n_perm: int = 199, seed: int | None = 0) -> dict[str, float]:
    """Check whether swapping regulators with their knockoffs shows.

    Parameters
    ----------
    x : (n, p)
        Regulators.
    knockoffs : (n, p)
        Their knockoffs.
    n_perm
        Permutations of each swap test.
    seed
        Seed of halves, swaps and permutations, in [0, 2**32); None draws one.

    Returns
    -------
    dict
        ``correlation_error``: root mean squared difference between the correlations of knockoffs and those of
        regulators; ``cross_error``: the same for the correlations of a knockoff with another regulator, which should be
        those of the two regulators; ``mean_correlation`` of regulators with their own knockoffs (power is lost near 1);
        ``full_swap_p`` and ``partial_swap_p``: p-values of the swap tests, small where knockoffs are recognised.

    Raises
    ------
    ValueError
        If the arrays differ in shape, or have fewer than 10 rows.

    Notes
    -----
    A swap test takes one half of the cells as they are and swaps all regulators (or a random half of them) with their
    knockoffs in the other half. If cells of one half have each other as nearest neighbours more often than random
    halves have, the swap shows. Passing is necessary, not sufficient: knockoffs whose false discovery rate is three
    times the nominal one have passed it. Errors are to be compared with 1 / sqrt(n).

    References
    ----------
    :cite:p:`romano2020`.

    Examples
    --------
    >>> import numpy as np
    >>> from sctrellis import metrics
    >>> x, other = np.random.default_rng(0).normal(size=(2, 200, 5))
    >>> bool(metrics.exchangeability(x, other)["full_swap_p"] > 0.05)
    True
    >>> metrics.exchangeability(x, other + 3)["full_swap_p"]
    0.005
    """
    x, knockoffs = np.asarray(x, dtype=np.float64), np.asarray(knockoffs, dtype=np.float64)
    n_perm, seed = checks.integer("n_perm", n_perm), checks.seed(seed)
    if x.ndim != 2 or x.shape != knockoffs.shape or len(x) < checks.MIN_CELLS:
        msg = (
            f"Expected `x` and `knockoffs` to be matrices of one shape with at least {checks.MIN_CELLS} rows, "
            f"found {x.shape} and {knockoffs.shape}."
        )
        raise ValueError(msg)
    p = x.shape[1]
    joint = np.concatenate([x, knockoffs], axis=1)
    # Units of the regulator for both, so that a knockoff of another mean or spread shows.
    std = np.tile(np.where(x.std(axis=0) > 0, x.std(axis=0), 1.0), 2)
    z = (joint - joint.mean(axis=0)) / np.where(joint.std(axis=0) > 0, joint.std(axis=0), 1.0)
    correlation = z.T @ z / len(z)
    own, other, cross = correlation[:p, :p], correlation[p:, p:], correlation[:p, p:]
    apart = ~np.eye(p, dtype=bool)
    found = {
        "correlation_error": float(np.sqrt(np.mean((own - other)[apart] ** 2))) if p > 1 else 0.0,
        "cross_error": float(np.sqrt(np.mean((own - cross)[apart] ** 2))) if p > 1 else 0.0,
        "mean_correlation": float(np.diagonal(cross).mean()),
    }
    rng = np.random.default_rng(seed)
    cells = rng.permutation(len(joint))[:MAX_CELLS]
    points = joint[cells] / std
    half = np.arange(len(cells)) < len(cells) // 2
    for name, swapped in (("full_swap_p", np.ones(p, bool)), ("partial_swap_p", rng.random(p) < 0.5)):
        found[name] = _swap_p(points, half, swapped, n_perm, rng)
    return found


def _swap_p(points: np.ndarray, half: np.ndarray, swapped: np.ndarray, n_perm: int, rng: np.random.Generator) -> float:
    p = len(swapped)
    order = np.arange(2 * p)
    order[:p][swapped], order[p:][swapped] = order[p:][swapped].copy(), order[:p][swapped].copy()
    moved = np.where(half[:, None], points, points[:, order])
    neighbours = NearestNeighbors(n_neighbors=_NEIGHBOURS).fit(moved).kneighbors(return_distance=False)

    def same(labels: np.ndarray) -> int:
        return int((labels[neighbours] == labels[:, None]).sum())

    observed = same(half)
    drawn = np.array([same(rng.permutation(half)) for _ in range(n_perm)])
    return float((1 + (drawn >= observed).sum()) / (n_perm + 1))
