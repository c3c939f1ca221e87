import numpy as np
from sklearn.ensemble import GradientBoostingRegressor

from sctrellis.metrics import _boosting as boosting


def data(n=150, p=10):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, p)).astype(np.float32)
    return x, np.sin(2 * x[:, 3]) + x[:, 5] * (x[:, 6] > 0) + 0.3 * rng.normal(size=n)


def by_hand(x, y, n_trees, seed):
    return GradientBoostingRegressor(
        learning_rate=0.01, n_estimators=n_trees, max_features=0.1, subsample=0.9, max_depth=3, random_state=seed
    ).fit(x, y)


def test_stops_at_the_first_window_without_improvement_and_scales_by_trees():
    x, y = data()
    found, n_trees = boosting.boosted_importance(x, y, seed=3)
    longer = by_hand(x, y, n_trees + 20, seed=3).oob_improvement_
    windows = np.convolve(longer, np.ones(25) / 25, mode="valid")
    assert n_trees == np.flatnonzero(windows <= 0)[0] + 25
    np.testing.assert_allclose(found, by_hand(x, y, n_trees, seed=3).feature_importances_ * n_trees, rtol=1e-12)


def test_a_gene_never_explains_itself():
    x, y = data()
    targets = np.column_stack([y, x[:, 2]]).astype(np.float32)
    found, n_trees = boosting.boost_targets(x, targets, own=np.array([-1, 2]), seeds=np.array([7, 8]))
    assert np.isnan(found[2, 1])
    assert np.isnan(found).sum() == 1
    others = np.delete(np.arange(10), 2)
    model = by_hand(x[:, others], x[:, 2], n_trees[1], seed=8)
    np.testing.assert_allclose(found[others, 1], model.feature_importances_ * n_trees[1], rtol=1e-6)


def test_a_gene_whose_only_regulator_is_itself_is_not_scored():
    x = np.random.default_rng(0).normal(size=(50, 1)).astype(np.float32)
    found, n_trees = boosting.boost_targets(x, x, own=np.array([0]), seeds=np.array([0]))
    assert np.isnan(found).all()
    assert n_trees.tolist() == [0]
