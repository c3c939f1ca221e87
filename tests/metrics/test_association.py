import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.covariance import LedoitWolf, ledoit_wolf_shrinkage

from sctrellis.metrics import _association as association


def cells(n, n_genes, seed=0):
    """Correlated genes: three shared factors and noise, on shifted scales."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3)) @ rng.normal(size=(3, n_genes)) + rng.normal(size=(n, n_genes))
    return (x * rng.uniform(0.5, 3, n_genes) + rng.uniform(-5, 5, n_genes)).astype(np.float32)


def blocks(x, size=17):
    return [x[start : start + size] for start in range(0, len(x), size)]


def standardiser(x):
    x = x.astype(np.float64)
    return association.Standardiser(x.mean(0), x.std(0))


def z_scores(x):
    x = x.astype(np.float64)
    return (x - x.mean(0)) / x.std(0)


def test_blocks_give_the_correlation_of_the_whole():
    x = cells(100, 12)
    regulators = np.array([1, 4, 7])
    found, fourth = association.cross_correlation(blocks(x), standardiser(x), regulators)
    np.testing.assert_allclose(found, np.corrcoef(x, rowvar=False)[regulators], atol=2e-6)
    assert fourth == pytest.approx(np.mean(np.sum(z_scores(x) ** 2, axis=1) ** 2), rel=1e-5)


def test_a_large_mean_costs_no_digits():
    x = cells(200, 4).astype(np.float64)
    shifted = x + 1e6
    found, _ = association.cross_correlation(blocks(shifted), standardiser(shifted), np.arange(4))
    np.testing.assert_allclose(found, np.corrcoef(x, rowvar=False), atol=1e-5)


@pytest.mark.parametrize("n_genes", [2, 3, 4, 40])
def test_leading_component_is_the_first_eigenvector(n_genes):
    x = cells(80, n_genes, seed=n_genes)
    value, vector = association.leading_component(lambda: map(standardiser(x), blocks(x)), x.shape[1])
    values, vectors = np.linalg.eigh(np.corrcoef(x, rowvar=False))
    assert value == pytest.approx(values[-1], rel=1e-5)
    assert abs(vector @ vectors[:, -1]) == pytest.approx(1, abs=1e-6)


def test_leading_component_of_opposed_genes():
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(100, 1))
    x = factor * np.repeat([1.0, -1.0], 10) + 0.3 * rng.normal(size=(100, 20))  # orthogonal to the vector of ones
    value, vector = association.leading_component(lambda: map(standardiser(x), blocks(x)), x.shape[1])
    assert value > 15
    np.testing.assert_array_equal(np.sign(vector) * np.sign(vector[0]), np.repeat([1.0, -1.0], 10))


def test_removed_component_is_the_correlation_of_the_residuals():
    x = cells(120, 15)
    regulators = np.array([0, 3, 14])
    correlation, _ = association.cross_correlation(blocks(x), standardiser(x), regulators)
    value, vector = association.leading_component(lambda: map(standardiser(x), blocks(x)), x.shape[1])
    u, s, vt = np.linalg.svd(z_scores(x), full_matrices=False)
    residual = z_scores(x) - s[0] * np.outer(u[:, 0], vt[0])
    found = association.remove_component(correlation, regulators, value, vector)
    np.testing.assert_allclose(found, np.corrcoef(residual, rowvar=False)[regulators], atol=2e-5)


def test_a_gene_that_is_all_component_scores_zero():
    vector = np.ones(4) / 2
    found = association.remove_component(np.ones((1, 4)), np.array([1]), 4.0, vector)
    np.testing.assert_array_equal(found, np.zeros((1, 4)))


def test_ranks_give_spearman_with_ties(monkeypatch):
    monkeypatch.setattr(association, "RANKED_AT_ONCE", 4)
    x = np.random.default_rng(0).poisson(1.0, size=(60, 11)).astype(np.float32)
    ranks = association.standard_ranks(x)
    np.testing.assert_allclose(ranks.T @ ranks / 60, spearmanr(x).statistic, atol=2e-6)


@pytest.mark.parametrize("shape", [(100, 12), (30, 60)])
def test_partial_correlation_is_that_of_the_ledoit_wolf_precision(shape):
    x = cells(*shape)
    z = z_scores(x)
    regulators = np.array([0, 5, 9])
    precision = LedoitWolf(assume_centered=True).fit(z).precision_
    scale = np.sqrt(np.diag(precision))
    wanted = (-precision / np.outer(scale, scale))[regulators]
    correlation, fourth = association.cross_correlation(blocks(x), standardiser(x), np.arange(shape[1]))
    shrinkage = ledoit_wolf_shrinkage(z, assume_centered=True)
    off_diagonal = regulators[:, None] != np.arange(shape[1])
    for partial, found in (
        association.partial_from_covariance(correlation, fourth, len(x), regulators),
        association.partial_from_cells(z, regulators),
    ):
        assert found == pytest.approx(shrinkage, rel=1e-4)
        np.testing.assert_allclose(partial[off_diagonal], wanted[off_diagonal], atol=2e-5)


def test_partial_correlation_separates_direct_from_indirect():
    rng = np.random.default_rng(0)
    first = rng.normal(size=20_000)
    second = first + rng.normal(size=20_000)
    third = second + rng.normal(size=20_000)
    z = z_scores(np.column_stack([first, second, third]))
    correlation = z.T @ z / len(z)
    fourth = float(np.mean(np.sum(z**2, axis=1) ** 2))
    partial, _ = association.partial_from_covariance(correlation.copy(), fourth, len(z), np.array([0]))
    assert abs(correlation[0, 2]) > 0.5
    assert abs(partial[0, 2]) < 0.03
    assert partial[0, 1] == pytest.approx(0.5, abs=0.02)  # from the precision of the three equations


def test_complete_shrinkage_leaves_no_partial_correlation():
    z = np.vstack([np.eye(4), -np.eye(4)]) * 2.0  # uncorrelated genes, cells far from the mean
    for partial, shrinkage in (
        association.partial_from_cells(z, np.array([0])),
        association.partial_from_covariance(z.T @ z / 8, float(np.mean(np.sum(z**2, 1) ** 2)), 8, np.array([0])),
    ):
        assert shrinkage == 1
        np.testing.assert_array_equal(partial[0, 1:], 0)


def test_a_singular_correlation_matrix_says_so():
    with pytest.raises(ValueError, match="copies of each other"):
        association.partial_from_covariance(np.ones((3, 3)), 9.0, 50, np.array([0]))
