"""A network that is no model of genes: which pixels make an 8 a 3."""

import pytest
from digits import SIZE, fitted

from sctrellis.explain import attribute, subset_search


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_the_search_flips_digits_and_random_pixels_do_not(seed):
    digits = fitted(seed)
    assert digits.accuracy >= 0.97
    assert digits.flipped([]) <= 0.02
    goal = digits.objective()
    published = digits.flipped(subset_search(goal, SIZE, method="grids", seed=seed).index[0])
    found = subset_search(goal, SIZE, seed=seed)
    assert published >= 0.95
    assert digits.flipped(found.index[0]) >= 0.95
    assert found.swap_optimal.all()
    draws = attribute(goal, SIZE, "random", seed=seed).index[0]
    assert sum(digits.flipped(chosen) for chosen in draws) / len(draws) <= 0.1
    assert published >= digits.flipped(attribute(goal, SIZE, "saliency").index[0, 0])
