"""Draws keyed by names."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sctrellis._core import draws

NAMES = np.array([f"cell{i}" for i in range(3000)])


def test_uniform_draws_are_uniform_and_of_their_own():
    keys = draws.hashes(NAMES)
    first = draws.uniform(0, "cell", keys)
    assert stats.kstest(first, "uniform").pvalue > 1e-3
    order = np.random.default_rng(0).permutation(len(NAMES))
    np.testing.assert_array_equal(draws.uniform(0, "cell", keys[order]), first[order])
    for other in (draws.uniform(1, "cell", keys), draws.uniform(0, "gene", keys), draws.uniform(0, "cell", keys, keys)):
        assert abs(np.corrcoef(first, other)[0, 1]) < 5 / np.sqrt(len(NAMES))


@pytest.mark.parametrize(("validation", "test"), [(0.1, 0.2), (0.0, 0.2), (0.5, 0.4), (0.01, 0.01)])
def test_every_part_of_every_group_has_cells(validation, test):
    sizes = np.arange(1, 40)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    folds = draws.folds(NAMES[: len(groups)], groups, validation, test, 0)
    table = pd.crosstab(groups, folds, dropna=False)[["train", "validation", "test"]].to_numpy()
    assert (table.sum(axis=1) == sizes).all()
    assert (table[:2, 1:] == 0).all()
    assert (table[2:, 0] > 0).all()
    assert (table[2:, 2] > 0).all()
    assert ((table[2:, 1] > 0) == (validation > 0)).all()
    large = sizes >= 10
    wanted = np.outer(sizes[large], [validation, test])
    assert np.abs(table[large, 1:] - wanted).max() < 1


def test_order_does_not_matter_and_the_seed_does():
    groups = np.arange(len(NAMES)) % 3
    folds = draws.folds(NAMES, groups, 0.1, 0.2, 0)
    order = np.random.default_rng(0).permutation(len(NAMES))
    assert (draws.folds(NAMES[order], groups[order], 0.1, 0.2, 0) == folds[order]).all()
    assert (draws.folds(NAMES, groups, 0.1, 0.2, 1) != folds).mean() > 0.3
