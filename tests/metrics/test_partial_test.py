import numpy as np
import pytest
from scipy import stats

from sctrellis import metrics


def data(n=80, p=6, m=4, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p)) + 0.5 * rng.normal(size=(n, 1))
    y = x[:, :m] + rng.normal(size=(n, m)) * (1 + np.abs(x[:, [0]]))
    return x, y, rng


def least_squares(x, y, *, robust=False):
    """Return t-values of the regression of one target with a constant, by the textbook."""
    design = np.column_stack([np.ones(len(x)), x])
    inverse = np.linalg.inv(design.T @ design)
    coefficients = inverse @ design.T @ y
    left = y - design @ coefficients
    freedom = len(x) - design.shape[1]
    if robust:
        leverage = np.diagonal(design @ inverse @ design.T)
        variance = inverse @ (design.T * (left / (1 - leverage)) ** 2) @ design @ inverse
    else:
        variance = inverse * (left @ left) / freedom
    return coefficients[1:] / np.sqrt(np.diagonal(variance)[1:]), freedom


@pytest.mark.parametrize("robust", [False, True])
def test_tests_are_those_of_least_squares(robust):
    x, y, _ = data()
    found = metrics.partial_test(x, y, robust=robust)
    for j in range(y.shape[1]):
        t, freedom = least_squares(x, y[:, j], robust=robust)
        np.testing.assert_allclose(found.pvalue[:, j], 2 * stats.t.sf(np.abs(t), freedom), rtol=1e-8)
        np.testing.assert_allclose(found.partial[:, j], t / np.sqrt(t**2 + freedom), rtol=1e-8)


@pytest.mark.parametrize("robust", [False, True])
def test_a_regulator_is_regressed_on_the_others(robust):
    x, y, _ = data()
    own = np.array([-1, 3, 0])
    found = metrics.partial_test(x, np.column_stack([y[:, 0], x[:, 3], x[:, 0]]), own=own, robust=robust)
    for j, k in ((1, 3), (2, 0)):
        others = np.arange(x.shape[1]) != k
        t, freedom = least_squares(x[:, others], x[:, k], robust=robust)
        np.testing.assert_allclose(found.pvalue[others, j], 2 * stats.t.sf(np.abs(t), freedom), rtol=1e-8)
        assert np.isnan(found.pvalue[k, j])
    # Both kinds of pairs are adjusted by themselves.
    for part in (own < 0, own >= 0):
        p = found.pvalue[:, part]
        np.testing.assert_allclose(
            found.qvalue[:, part][np.isfinite(p)], stats.false_discovery_control(p[np.isfinite(p)])
        )


def test_covariates_enter_the_regression():
    x, y, rng = data()
    known = rng.normal(size=(len(x), 2))
    found = metrics.partial_test(x, y, covariates=known)
    t, freedom = least_squares(np.column_stack([x, known]), y[:, 1])
    np.testing.assert_allclose(found.pvalue[:, 1], 2 * stats.t.sf(np.abs(t[:6]), freedom), rtol=1e-8)


def test_p_values_of_nothing_are_uniform_where_the_noise_is_equal():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 20))
    y = rng.normal(size=(100, 50))
    plain, robust = (metrics.partial_test(x, y, robust=r) for r in (False, True))
    assert stats.kstest(plain.pvalue.ravel(), "uniform").pvalue > 0.01
    assert plain.qvalue.min() > 0.05
    assert (robust.pvalue < 0.05).mean() < 0.065


def test_unequal_noise_needs_the_robust_variance():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 3))
    y = rng.normal(size=(400, 300)) * np.abs(x[:, [0]])
    plain, robust = (metrics.partial_test(x, y, robust=r).pvalue[0] for r in (False, True))
    assert (plain < 0.05).mean() > 0.15
    assert (robust < 0.05).mean() < 0.09


def test_constant_targets_are_not_tested():
    x, y, _ = data()
    found = metrics.partial_test(x, np.column_stack([y[:, 0], np.ones(len(x))]))
    assert np.isnan(found.pvalue[:, 1]).all()
    np.testing.assert_allclose(found.qvalue[:, 0], stats.false_discovery_control(found.pvalue[:, 0]))


def test_bad_input():
    x, y, _ = data(n=12, p=12)
    with pytest.raises(ValueError, match="more than 13 cells for 12 regulators, found 12. Use `knockoffs`"):
        metrics.partial_test(x, y)
    x, y, _ = data()
    with pytest.raises(ValueError, match="2 of the 7 regulators follow from each other .first at '0', '6'"):
        metrics.partial_test(np.column_stack([x, x[:, 0]]), y)
    with pytest.raises(ValueError, match="1 of the 6 regulators follow from the covariates .first at '2'"):
        metrics.partial_test(x, y, covariates=2 * x[:, [2]] + 3)
