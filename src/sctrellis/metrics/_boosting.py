"""Gradient boosting of each gene on the regulators, as GRNBoost2 defines it."""

from typing import Any

import numpy as np

WINDOW = 25
"""Trees over which the out-of-bag improvement is averaged before it is judged."""
MAX_TREES = 5000
LEARNING_RATE = 0.01
FEATURES = 0.1
CELLS = 0.9
DEPTH = 3


def _stalled(tree: int, model: Any, _: dict[str, Any]) -> bool:
    """Whether the last trees stopped improving the cells that they had not seen."""
    return tree >= WINDOW - 1 and bool(np.mean(model.oob_improvement_[tree - WINDOW + 1 : tree + 1]) <= 0)


def boosted_importance(x: np.ndarray, y: np.ndarray, *, seed: int) -> tuple[np.ndarray, int]:
    """Return the importance of each regulator for one gene.

    Parameters
    ----------
    x : float32, (n_cells, n_regulators)
        Expression of the regulators, the gene itself not among them.
    y : (n_cells,)
        Expression of the gene.
    seed
        Seed of the sampling of cells and regulators.

    Returns
    -------
    importance : (n_regulators,)
        Share of the decrease of the squared error at the splits on a regulator, times the number of trees: genes that
        could be learnt for longer weigh more.
    n_trees
        Number of trees.
    """
    from sklearn.ensemble import GradientBoostingRegressor

    model = GradientBoostingRegressor(
        learning_rate=LEARNING_RATE,
        n_estimators=MAX_TREES,
        max_features=FEATURES,
        subsample=CELLS,
        max_depth=DEPTH,
        random_state=seed,
    )
    model.fit(x, y, monitor=_stalled)
    n_trees = len(model.estimators_)
    return model.feature_importances_ * n_trees, n_trees


def boost_targets(x: np.ndarray, y: np.ndarray, own: np.ndarray, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the importances of regulators for several genes.

    Parameters
    ----------
    x : float32, (n_cells, n_regulators)
        Expression of the regulators.
    y : float32, (n_cells, n_targets)
        Expression of the genes.
    own : (n_targets,)
        Column of `x` that is the gene itself, -1 where none is.
    seeds : (n_targets,)
        One seed a gene, so that the result does not depend on who computes it.

    Returns
    -------
    importance : float32, (n_regulators, n_targets)
        NaN where the gene is the regulator itself.
    n_trees : (n_targets,)
        Trees per gene; 0 where the gene has no regulator but itself.
    """
    n_regulators = x.shape[1]
    importance = np.full((n_regulators, y.shape[1]), np.nan, dtype=np.float32)
    n_trees = np.zeros(y.shape[1], dtype=np.int64)
    for target in range(y.shape[1]):  # each is a fit of its own
        others = np.flatnonzero(np.arange(n_regulators) != own[target])
        if len(others):
            features = x if len(others) == n_regulators else x[:, others]
            importance[others, target], n_trees[target] = boosted_importance(
                features, y[:, target], seed=int(seeds[target])
            )
    return importance, n_trees
