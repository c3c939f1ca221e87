from itertools import product

import numpy as np
import pytest
from scipy import stats

from sctrellis.metrics import _chance as chance


def test_poisson_binomial_against_all_outcomes():
    p = np.array([0.03, 0.5, 0.2, 0.99, 0.0, 1.0, 0.7])
    expected = np.zeros(len(p) + 1)
    for outcome in product([0, 1], repeat=len(p)):
        expected[sum(outcome)] += np.prod(np.where(outcome, p, 1 - p))
    np.testing.assert_allclose(chance.poisson_binomial(p), expected, atol=1e-15)


def test_equal_chances_are_binomial_down_to_the_smallest_tail():
    found = chance.poisson_binomial(np.full(16, 0.01))
    np.testing.assert_allclose(found, stats.binom.pmf(np.arange(17), 16, 0.01), rtol=1e-10)
    assert chance.at_least(found, 5) == pytest.approx(stats.binom.sf(4, 16, 0.01), rel=1e-10)
    assert chance.at_least(found, 0) == pytest.approx(1)
    assert chance.at_least(found, 17) == 0
    assert chance.poisson_binomial(np.zeros(0)).tolist() == [1]


@pytest.mark.parametrize(
    ("n_near", "n_peaks", "n_hit", "p_value"),
    [(10, 128, 5, 4e-7), (30, 128, 5, 8e-5), (10, 10, 3, 3e-7), (30, 10, 3, 7e-6)],
)
def test_published_hit_ratios_are_above_chance(n_near, n_peaks, n_hit, p_value):
    # 16 tasks, 127,219 peaks of which so many overlap the gene.
    hit = 1 - chance.Urns(*(np.full((16, 1), n) for n in (127_219, n_near, n_peaks))).none().prod(axis=1)
    assert chance.at_least(chance.poisson_binomial(hit), n_hit) == pytest.approx(p_value, rel=0.3)


def test_hypergeometric_against_scipy():
    total, marked, drawn = np.meshgrid([1, 9, 50, 127_219], [0, 1, 7, 900], [0, 1, 5, 128], indexing="ij")
    total, marked, drawn = total.ravel(), np.minimum(marked, total).ravel(), np.minimum(drawn, total).ravel()
    count = np.arange(8)[:, None]
    found = chance.hypergeometric(count, total, marked, drawn)
    np.testing.assert_allclose(found, stats.hypergeom.pmf(count, total, marked, drawn), rtol=1e-8, atol=1e-300)


def test_urns_against_all_draws():
    urns = chance.Urns(np.array([10, 7, 5, 4]), np.array([3, 7, 0, 2]), np.array([4, 2, 3, 0]))
    expected = np.ones(1)
    for n, k, drawn in zip(urns.total, urns.marked, urns.drawn, strict=True):
        expected = np.convolve(expected, stats.hypergeom.pmf(np.arange(drawn + 1), n, k, drawn))
    found = urns.count()
    np.testing.assert_allclose(found, np.trim_zeros(expected, "b"), atol=1e-15)
    assert found @ np.arange(len(found)) == pytest.approx(urns.expected().sum())
    np.testing.assert_allclose(urns.none(), [1 / 6, 0, 1, 1])


def test_central_range():
    distribution = stats.binom.pmf(np.arange(101), 100, 0.3)
    assert chance.central(distribution) == tuple(stats.binom.ppf([0.025, 0.975], 100, 0.3).astype(int))
    assert chance.central(np.ones(1)) == (0, 0)
