"""What embeddings and labels say: exact leave-one-out, silence where there is nothing to say, and the limits."""

import numpy as np
import pytest
from scipy.special import expit

from sctrellis.models import reduce_embedding
from sctrellis.models._prior import known_factor, known_logits, predict_effect


def informed(seed, n=80, d=6, share=0.6):
    """Features, and effects of which a share of the variance follows them."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, d))
    signal = features @ rng.normal(size=d)
    noise = rng.normal(size=n)
    return features, 3 + np.sqrt(share) * signal / signal.std() + np.sqrt(1 - share) * noise / noise.std(), signal


def left_out_predictions(features, effect, strength):
    """Ridge with a free intercept, refitted without each gene."""
    n = len(effect)
    eigenvalues = np.linalg.eigvalsh(np.cov(features.T, ddof=0).reshape(features.shape[1], -1) * n)
    penalty = strength * eigenvalues.sum() / min(n, features.shape[1])
    predicted = np.empty(n)
    for gene in range(n):
        kept = np.arange(n) != gene
        centre, x = effect[kept].mean(), features[kept] - features[kept].mean(axis=0)
        w = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ (effect[kept] - centre))
        predicted[gene] = centre + (features[gene] - features[kept].mean(axis=0)) @ w
    return predicted


@pytest.mark.parametrize(("n", "d"), [(80, 6), (40, 60), (30, 1)])
def test_predictions_are_of_refits_without_the_gene(n, d):
    features, effect, _ = informed(0, n, d, share=0.97)
    side = predict_effect(features, effect)
    assert side.strength > 0
    expected = left_out_predictions(features, effect, side.strength)
    assert np.allclose(side.effect, expected - effect.mean(), atol=1e-8)
    error = ((effect - expected) ** 2).mean()
    plain = np.array([(effect[i] - np.delete(effect, i).mean()) ** 2 for i in range(n)]).mean()
    assert side.explained == pytest.approx(1 - error / plain, rel=1e-6)
    for other in np.logspace(-3, 3, 13):
        assert error <= ((effect - left_out_predictions(features, effect, other)) ** 2).mean() * (1 + 1e-9)


def test_a_prediction_does_not_see_its_own_gene():
    features, effect, _ = informed(1)
    side = predict_effect(features, effect)
    moved = effect.copy()
    moved[7] += 0.01  # a little, so that the same strength is chosen
    other = predict_effect(features, moved)
    assert other.strength == side.strength
    assert other.effect[7] + moved.mean() == pytest.approx(side.effect[7] + effect.mean(), abs=1e-10)


@pytest.mark.parametrize(("n", "d"), [(200, 32), (30, 32), (12, 3)])
def test_unrelated_features_predict_nothing(n, d):
    silent = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        side = predict_effect(rng.normal(size=(n, d)), rng.normal(size=n))
        silent += np.isnan(side.strength)
        assert not np.isnan(side.strength) or (side.effect == 0).all()
    assert silent >= 180


def test_related_features_predict_the_truth():
    correlations = []
    for seed in range(20):
        features, effect, signal = informed(seed, share=0.7)
        side = predict_effect(features, effect)
        assert 0.4 < side.explained < 0.95
        correlations.append(np.corrcoef(side.effect, signal)[0, 1])
    assert np.min(correlations) > 0.8


@pytest.mark.parametrize(
    ("features", "effect"),
    [
        (np.ones((20, 3)), np.arange(20.0)),
        (np.zeros((20, 3)), np.arange(20.0)),
        (np.zeros((20, 0)), np.arange(20.0)),
        (np.arange(20.0)[:, None], np.full(20, 2.0)),
        (np.arange(4.0)[:, None], np.arange(4.0)),
        (np.zeros((0, 3)), np.zeros(0)),
    ],
)
def test_nothing_to_learn_from(features, effect):
    side = predict_effect(features, effect)
    assert np.isnan(side.strength)
    assert np.array_equal(side.effect, np.zeros(len(effect)))


def test_scale_and_rotation_of_features_do_not_matter():
    features, effect, _ = informed(2)
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))
    side, turned = predict_effect(features, effect), predict_effect(100 * features @ turn + 5, 7 * effect)
    assert turned.strength == side.strength
    assert np.allclose(turned.effect, 7 * side.effect)
    assert turned.explained == pytest.approx(side.explained)


@pytest.mark.parametrize(("n", "d", "n_components"), [(50, 8, 32), (50, 8, 3), (10, 40, 32)])
def test_reduced_columns_are_uncorrelated_with_unit_variance(n, d, n_components):
    rng = np.random.default_rng(0)
    embedding = (rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + 4).astype(np.float32)
    missing = rng.random(n) < 0.2
    embedding[missing, rng.integers(d)] = np.nan
    found = reduce_embedding(embedding, n_components)
    assert np.array_equal(found.present, ~missing)
    assert (found.values[missing] == 0).all()
    values = found.values[~missing]
    assert values.shape[1] == min(n_components, d, (~missing).sum() - 1)
    assert np.allclose(values.mean(axis=0), 0, atol=1e-6)
    assert np.allclose(values.T @ values / len(values), np.eye(values.shape[1]), atol=1e-6)
    # The leading components: what they leave out is what the singular values say.
    centred = embedding[~missing].astype(np.float64) - embedding[~missing].mean(axis=0, dtype=np.float64)
    size = np.linalg.svd(centred, compute_uv=False)
    rest = centred - values @ (values.T @ centred) / len(values)
    assert np.sum(rest**2) == pytest.approx(np.sum(size[values.shape[1] :] ** 2), rel=1e-5, abs=1e-5)


def test_directions_without_spread_are_dropped():
    rng = np.random.default_rng(0)
    embedding = rng.normal(size=(30, 2)) @ rng.normal(size=(2, 10))
    assert reduce_embedding(embedding).values.shape == (30, 2)
    assert reduce_embedding(np.ones((30, 4))).values.shape == (30, 0)


@pytest.mark.parametrize("n_present", [0, 1, 2])
def test_few_genes_with_an_embedding(n_present):
    embedding = np.full((6, 3), np.nan)
    embedding[:n_present] = np.random.default_rng(0).normal(size=(n_present, 3))
    found = reduce_embedding(embedding)
    assert found.present.sum() == n_present
    assert np.isfinite(found.values).all()
    assert found.values.shape == (6, max(n_present - 1, 0))


def test_infinite_values_are_no_embedding():
    embedding = np.random.default_rng(0).normal(size=(9, 3))
    embedding[4, 1] = np.inf
    assert list(np.flatnonzero(~reduce_embedding(embedding).present)) == [4]


def test_known_logits():
    assert np.allclose(expit(known_logits(np.array([1, -1, 0, 5.0]))), [0.95, 0.05, 0.5, 0.95])


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 2.0])
def test_factor_is_the_expected_probability_over_that_of_unknown_pairs(sigma):
    logits = known_logits(np.array([1, -1, 0]))
    draws = np.random.default_rng(0).normal(size=(200_000, 1))
    expected = expit(logits + sigma * draws).mean(axis=0) / 0.5
    factor = known_factor(logits, sigma)
    assert factor == pytest.approx(expected, abs=0.03)  # the probit approximation
    assert factor[2] == 1
    assert factor[0] + factor[1] == pytest.approx(2)
    assert 0 < factor[1] < 1 < factor[0] < 2


def test_factor_limits():
    logits = known_logits(np.array([1, -1, 0]))
    assert known_factor(logits, 0.0) == pytest.approx([1.9, 0.1, 1.0])
    assert known_factor(logits, 1e9) == pytest.approx([1, 1, 1])
    wider = np.array([known_factor(logits, sigma) for sigma in (0, 0.5, 1, 3, 10, 100)])
    assert (np.diff(wider[:, 0]) < 0).all()
    assert (np.diff(wider[:, 1]) > 0).all()
